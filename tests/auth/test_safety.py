"""What keeps a client out, one test for each small change to the code that would let it in unnoticed."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

from twisted.logger import formatEvent

from tests.auth.test_mechanisms import Keys
from tests.support.auth_helpers import ACCEPTED, LOGIN, PASSWORD, REJECTED, RIGHT, WRONG, AuthCase, able, dial, line
from tests.support.fakes import EHLO, Client, codes
from twisted_smtpd.auth import PasswordFile, PasswordFileError, hashes, passwords, set_password
from twisted_smtpd.auth.hashes import make_hash
from twisted_smtpd.auth.prepare import prepare
from twisted_smtpd.auth.scram import ScramServer

GUESS = b"AUTH PLAIN %b\r\n" % WRONG
CUT_OFF = b"421 4.7.0 Too many failed authentications, closing the connection\r\n"
MALFORMED = b"501 5.5.2 That is not what this mechanism has to say\r\n"


class LimitTests(AuthCase):
    def test_the_third_wrong_password_ends_the_connection_and_not_the_fourth(self) -> None:
        for limit in (1, 2, 3, 5):
            client = dial(max_auth_failures=limit)
            for _ in range(limit - 1):
                self.assertEqual(client.send(GUESS), REJECTED)
                self.assertFalse(client.closed)
            self.assertEqual(client.send(GUESS), REJECTED + CUT_OFF)
            self.assertTrue(client.closed)

    def test_a_right_password_after_the_last_wrong_one_is_too_late(self) -> None:
        client = dial()
        self.assertEqual(client.send(GUESS * 3 + b"AUTH PLAIN %b\r\n" % RIGHT), REJECTED * 3 + CUT_OFF)
        self.assertIsNone(client.protocol.session.authenticated)

    def test_nothing_between_them_forgives_a_failure(self) -> None:
        client = dial(authenticator=None, auth_callback=lambda mechanism, login, password: password == PASSWORD)
        client.send(GUESS + EHLO + b"RSET\r\nNOOP\r\n")
        client.send(b"AUTH LOGIN\r\n" + line(LOGIN) + line(b"wrong") + b"MAIL FROM:<a@x.example>\r\nRSET\r\n")
        self.assertEqual(client.send(GUESS), REJECTED + CUT_OFF)


class ScramClient:
    """A client's half of SCRAM-SHA-256 that can be made to say what no client should."""

    def __init__(self, client: Client, first: bytes = b"n=anne,r=abc") -> None:
        self.client, self.bare = client, first
        said = client.send(b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(b"n,," + first))
        self.challenge = b64decode(said[4:])
        self.nonce = self.challenge[2:].partition(b",")[0]

    def final(self, nonce: bytes | None = None, binding: bytes = b"biws", change: Any = None) -> bytes:
        """What the server says to a final message, whose proof is right for what it says."""
        without = b"c=%b,r=%b" % (binding, self.nonce if nonce is None else nonce)
        transcript = b",".join((self.bare, self.challenge, without))
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD, b"salt" * 4, 4096)
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), transcript, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        encoded = b64encode(proof if change is None else change(proof))
        return self.client.send(line(without + b",p=" + encoded))


class ScramTests(AuthCase):
    def dialog(self, first: bytes = b"n=anne,r=abc") -> ScramClient:
        return ScramClient(dial(authenticator=Keys()), first)

    def test_this_client_gets_in(self) -> None:
        dialog = self.dialog()
        self.assertEqual(codes(dialog.final()), [334])
        self.assertEqual(dialog.client.send(b"\r\n"), ACCEPTED)

    def test_two_exchanges_have_different_server_nonces(self) -> None:
        # Otherwise what a client has said once could be said again by somebody who has heard it.
        nonces = [self.dialog().nonce for _ in range(3)]
        self.assertEqual(len(set(nonces)), 3)
        for nonce in nonces:
            self.assertTrue(nonce.startswith(b"abc"))
            # 18 random octets.
            self.assertGreaterEqual(len(nonce), 3 + 24)

    def test_a_foreign_nonce_is_refused_though_the_proof_fits_it(self) -> None:
        other = self.dialog().nonce
        for nonce in (other, b"abc", self.dialog().nonce[3:], b"x"):
            dialog = self.dialog()
            self.assertEqual(dialog.final(nonce), b"535 5.7.8 the nonce does not match\r\n")
            self.assertIsNone(dialog.client.protocol.session.authenticated)

    def test_what_one_has_said_can_not_be_said_again(self) -> None:
        one = self.dialog()
        without = b"c=biws,r=%b" % one.nonce
        heard: list[bytes] = []
        send = one.client.send
        one.client.send = lambda data: heard.append(data) or send(data)  # type: ignore[method-assign, func-returns-value]
        self.assertEqual(codes(one.final()), [334])
        two = self.dialog()
        self.assertIn(b64encode(without)[:20], heard[0])
        self.assertEqual(codes(two.client.send(heard[0])), [535])

    def test_another_binding_is_refused_though_the_proof_fits_it(self) -> None:
        dialog = self.dialog()
        self.assertEqual(dialog.final(binding=b64encode(b"y,,")), b"535 5.7.8 the channel binding does not match\r\n")

    def test_a_proof_of_another_length_is_wrong_and_no_error(self) -> None:
        events = self.events()
        for change in (
            lambda proof: proof[:-1],
            lambda proof: proof + b"\0",
            lambda proof: proof[:1],
            lambda proof: proof[:20],
            lambda proof: proof * 2,
        ):
            self.assertEqual(self.dialog().final(change=change), REJECTED)
        self.assertTrue(all("failed for user 'anne'" in formatEvent(event) for event in events), events)

    def test_one_wrong_bit_is_wrong(self) -> None:
        for place in (0, 15, 31):
            said = self.dialog().final(change=lambda proof, i=place: proof[:i] + bytes([proof[i] ^ 1]) + proof[i + 1 :])
            self.assertEqual(said, REJECTED)

    def test_base64_is_strict(self) -> None:
        for binding in (b"biws=", b"bi=ws", b"biws====", b"=biws", b"biwsQ", b"biwsQR=="):
            self.assertEqual(self.dialog().final(binding=binding), MALFORMED, binding)

    def test_a_name_is_unescaped_once(self) -> None:
        # RFC 5802 section 5.1: "=3D2C" is "=2C", and no comma.
        for name, expected in ((b"a=3D2Cb", b"a=2Cb"), (b"=2C=3D", b",="), (b"=3D3D", b"=3D"), (b"=3D=2C", b"=,")):
            exchange = ScramServer("SCRAM-SHA-256", lambda kind: None, False)
            self.assertEqual(exchange.first(b"n,,n=%b,r=abc" % name), expected)
            self.assertEqual(exchange.first(b"n,a=%b,n=%b,r=abc" % (name, name)), expected)

    def test_a_token_is_unescaped_once(self) -> None:
        for name, expected in ((b"a=3D2Cb", b"a=2Cb"), (b"=2C=3D", b",="), (b"=3D3D", b"=3D")):
            accept = able("OAUTHBEARER")
            message = b"n,a=%b,\x01auth=Bearer t\x01\x01" % name
            dial(authenticator=accept).send(b"AUTH OAUTHBEARER %b\r\n" % b64encode(message))
            self.assertEqual(accept.seen[0][1].login, expected)  # type: ignore[attr-defined]


class Base64Tests(AuthCase):
    """RFC 4954 section 4: anything but base64 is 501 5.5.2; what is dropped from it could be read in two ways."""

    def test_it_is_strict(self) -> None:
        whole = RIGHT.rstrip(b"=")
        for text in (
            RIGHT + b"!",
            b"QUJD=",
            b"QUJD==",
            b"QUJD====",
            b"QR==",
            b"!" + RIGHT,
            whole[:8] + b"=" + whole[8:],
            RIGHT + b"====",
            whole[:-1],
            whole[:9] + b"-",
        ):
            for sent in (b"AUTH PLAIN %b\r\n" % text, b"AUTH PLAIN\r\n%b\r\n" % text):
                said = dial().send(sent).removeprefix(b"334 \r\n")
                self.assertEqual(said, b"501 5.5.2 That is not base64\r\n", text)


class PrepareTests(AuthCase):
    """SASLprep (RFC 4013), a character of each table."""

    def test_what_is_mapped(self) -> None:
        for text, expected in (
            # B.1, mapped to nothing.
            ("a\u00adb", "ab"),
            ("a\u200db", "ab"),
            ("a\ufe0fb", "ab"),
            ("\ufeffab", "ab"),
            # C.1.2, mapped to a blank.
            ("a\u00a0b", "a b"),
            ("a\u2003b", "a b"),
            ("a\u3000b", "a b"),
            # NFKC.
            ("a\u0308", "ä"),
            ("\ufb03", "ffi"),
            ("\uff21\u2168", "AIX"),
            ("\u2126", "Ω"),
        ):
            self.assertEqual(prepare(text), expected, ascii(text))
            self.assertEqual(prepare(text.encode()), expected, ascii(text))

    def test_what_is_prohibited(self) -> None:
        for table, text in (
            ("C.2.1", "\x00"),
            ("C.2.1", "\x1f"),
            ("C.2.1", "\x7f"),
            ("C.2.2", "\x80"),
            ("C.2.2", "\u2028"),
            ("C.2.2", "\u06dd"),
            ("C.3", "\ue000"),
            ("C.4", "\ufdd0"),
            ("C.4", "\U0001ffff"),
            ("C.5", "\ud800"),
            ("C.6", "\ufffd"),
            ("C.7", "\u2ff0"),
            ("C.8", "\u200e"),
            ("C.8", "\u202e"),
            ("C.9", "\U000e0041"),
        ):
            for around in ("", "a", "ä"):
                self.assertRaises(ValueError, prepare, f"{around}{text}{around}")
                self.assertRaises(ValueError, prepare, f"{around}{text}")
            self.assertTrue(table)

    def test_right_to_left(self) -> None:
        for text in ("\u0627", "\u0627\u0628", "\u06271\u0627", "\u05d0 \u05d1"):
            self.assertEqual(prepare(text), text)
        for text in ("\u06271", "1\u0627", "\u0627a\u0627", "a\u0627", "\u0627a", "\u0627\u00e4\u0628"):
            self.assertRaises(ValueError, prepare, text)

    def test_nothing_is_no_name(self) -> None:
        for text in ("", "\u00ad", "\u200b\u200c", b"", b"\xc2\xad"):
            self.assertRaises(ValueError, prepare, text)

    def test_octets_that_are_no_utf8(self) -> None:
        for octets in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"):
            self.assertRaises(ValueError, prepare, octets)


class FileTests(AuthCase):
    """What may be a password file, and what is left of one that could not be written."""

    def setUp(self) -> None:
        self.patch(hashes, "SCRYPT", (4, 8, 1))
        self.path = Path(self.mktemp())
        self.new = self.path.with_name(f"{self.path.name}.new")

    def write(self, mode: int = 0o600) -> None:
        self.path.write_text(f"anne:{make_hash('scrypt', PASSWORD.decode())}\n")
        self.path.chmod(mode)

    def test_a_fifo_is_none_and_makes_nobody_wait(self) -> None:
        os.mkfifo(self.path, 0o600)
        for what in ("PasswordFile(sys.argv[1])", "set_password(sys.argv[1], 'anne', 'x')"):
            done = subprocess.run(
                [sys.executable, "-c", f"import sys\nfrom twisted_smtpd.auth import *\n{what}", str(self.path)],
                capture_output=True,
                text=True,
                timeout=60,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                check=False,
            )
            self.assertRegex(done.stderr.strip().splitlines()[-1], r"PasswordFileError: .* is no file", done.stderr)
        self.assertTrue(stat.S_ISFIFO(self.path.stat().st_mode))
        self.assertFalse(self.new.exists())

    def test_a_fifo_with_a_writer_is_none_either(self) -> None:
        os.mkfifo(self.path, 0o600)
        both = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, both)
        os.write(both, b"anne:$2y$04$" + b"a" * 53 + b"\n")
        self.assertIn("is no file", str(self.assertRaises(PasswordFileError, PasswordFile, self.path)))

    def test_a_file_that_becomes_a_fifo_changes_nothing(self) -> None:
        self.write()
        file = PasswordFile(self.path)
        self.path.unlink()
        os.mkfifo(self.path, 0o600)
        self.addCleanup(os.close, os.open(self.path, os.O_RDWR | os.O_NONBLOCK))
        events = self.events()
        self.assertTrue(file._check(LOGIN, PASSWORD))
        self.assertIn("is no file", formatEvent(events[0]))

    def test_its_size_is_bounded(self) -> None:
        self.write()
        size = self.path.stat().st_size
        self.patch(passwords, "MAX_OCTETS", size)
        self.assertTrue(PasswordFile(self.path)._check(LOGIN, PASSWORD))
        with self.path.open("a") as file:
            file.write("#")
        error = str(self.assertRaises(PasswordFileError, PasswordFile, self.path))
        self.assertIn(f"no file of at most {size} octets", error)

    def test_who_may_read_or_write_it(self) -> None:
        for mode, said in ((0o600, 0), (0o640, 0), (0o660, 0), (0o604, 1), (0o602, 1), (0o606, 1)):
            self.write(mode)
            events = self.events()
            PasswordFile(self.path)
            self.assertEqual(["chmod 600" in formatEvent(event) for event in events], [True] * said, oct(mode))

    def test_while_it_is_written_only_its_owner_can_read_it(self) -> None:
        self.write(0o644)
        modes: list[int] = []
        self.patch(passwords.os, "fsync", lambda descriptor: modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode)))
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        set_password(self.path, "bart", "x", kind="scrypt")
        self.assertEqual((modes, stat.S_IMODE(self.path.stat().st_mode)), ([0o600], 0o644))

    def test_its_owner_stays_its_owner(self) -> None:
        self.write()
        owned: list[tuple[Any, ...]] = []
        status = self.path.stat()
        self.patch(passwords.os, "chown", lambda *arguments: owned.append(arguments))
        set_password(self.path, "bart", "x", kind="scrypt")
        self.assertEqual(owned, [])
        for name in ("geteuid", "getegid"):
            self.patch(passwords.os, name, lambda: 4711)
            set_password(self.path, "bart", "x", kind="scrypt")
        self.assertEqual([where.name for where, *_ in owned], [self.new.name] * 2)
        self.assertEqual([ids for _, *ids in owned], [[status.st_uid, status.st_gid]] * 2)

    def test_nothing_is_left_behind_when_it_can_not_be_written(self) -> None:
        self.write()
        before = self.path.read_bytes()
        for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):

            def fail(descriptor: int, error: BaseException = error) -> None:
                raise error

            self.patch(passwords.os, "fsync", fail)
            self.assertRaises(
                (PasswordFileError, KeyboardInterrupt), set_password, self.path, "bart", "x", kind="scrypt"
            )
            self.assertFalse(self.new.exists())
        self.assertRaises(PasswordFileError, set_password, self.path, "nobody", None)
        self.assertFalse(self.new.exists())
        self.assertEqual(self.path.read_bytes(), before)

    def test_what_somebody_else_has_left_behind_stays_and_is_said(self) -> None:
        self.write()
        before = self.path.read_bytes()
        self.new.write_text("half of")
        error = self.assertRaises(PasswordFileError, set_password, self.path, "bart", "x", kind="scrypt")
        self.assertIn(f"{self.new.name} exists", str(error))
        self.assertEqual((self.new.read_text(), self.path.read_bytes()), ("half of", before))

    def test_what_it_links_to_is_written(self) -> None:
        self.write()
        link = Path(self.mktemp())
        link.symlink_to(self.path.absolute())
        set_password(link, "bart", "x", kind="scrypt")
        self.assertTrue(link.is_symlink())
        self.assertTrue(PasswordFile(self.path)._check(b"bart", b"x"))
