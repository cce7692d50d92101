"""Tests for password files: hashes, reading, checking off the reactor's thread, writing."""

from __future__ import annotations

import io
import os
import stat
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import formatEvent

from tests.auth.test_mechanisms import scram
from tests.support.auth_helpers import (
    ACCEPTED,
    LOGIN,
    PASSWORD,
    REJECTED,
    RIGHT,
    WRONG,
    AuthCase,
    PasswordFileCase,
    dial,
)
from tests.support.fakes import codes
from twisted_smtpd.auth import PasswordFile, PasswordFileError, ScramKeys, hashes, passwords, set_password, worker
from twisted_smtpd.auth.__main__ import main
from twisted_smtpd.auth.hashes import HashError, check_hash, default_kind, make_hash, verify
from twisted_smtpd.auth.prepare import prepare
from twisted_smtpd.auth.worker import Busy, Worker

# Well-formed, of no password that is known.
BCRYPT = "$2y$04$" + "a" * 53


class CheapCase(PasswordFileCase):
    def entry(self, name: str = "anne", password: str = "correct horse", *kinds: str) -> str:
        return f"{name}:{' '.join(make_hash(kind, password) for kind in kinds or ('scrypt',))}"

    def refusal(self, *lines: str) -> str:
        return str(self.assertRaises(PasswordFileError, self.write, *lines))


class HashTests(CheapCase):
    def test_each_kind(self) -> None:
        for kind in ("argon2", "bcrypt", "scrypt", "SCRAM-SHA-1", "SCRAM-SHA-256"):
            made = make_hash(kind, "correct horse")
            self.assertEqual(check_hash(made), kind)
            self.assertNotIn("correct", made)
            self.assertNotEqual(made, make_hash(kind, "correct horse"))
            self.assertIs(verify(made, PASSWORD), True, kind)
            for wrong in (b"", b"correct hors", b"correct horse ", b"Correct horse"):
                try:
                    self.assertIs(verify(made, wrong), False, kind)
                except ValueError:
                    self.assertEqual((kind[:5], wrong), ("SCRAM", b""))

    def test_hashes_of_other_programs(self) -> None:
        # RFC 7914 section 12, and RFC 7677 section 3.
        rfc7914 = (
            "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$"
            "cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw"
        )
        rfc7677 = (
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
            "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        )
        self.assertTrue(verify(rfc7914, b"pleaseletmein"))
        self.assertTrue(verify(rfc7677, b"pencil"))

    def test_bcrypt_takes_nothing_for_right_that_it_does_not_look_at(self) -> None:
        made = make_hash("bcrypt", "a" * 72)
        self.assertTrue(verify(made, b"a" * 72))
        self.assertFalse(verify(made, b"a" * 73))
        self.assertRaises(HashError, make_hash, "bcrypt", "a" * 73)

    def test_hashes_that_can_not_be_used(self) -> None:
        good = make_hash("SCRAM-SHA-256", "x")
        for bad in (
            "",
            "secret",
            "$6$salt$hash",
            "{SHA}abc",
            "$apr1$x$y",
            "$argon2id$nonsense",
            "$2y$04$short",
            "$scrypt$nonsense",
            "$scrypt$ln=29,r=99,p=1$c2FsdA$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=0,r=8,p=1$c2FsdA$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=4,r=8,p=1$c2FsdA$aGFz",
            "$scrypt$ln=4,r=8,p=1$c2FsdA$a",
            "SCRAM-SHA-256$nonsense",
            good.replace("$20000:", "$10:"),
            good.replace("SCRAM-SHA-256", "SCRAM-SHA-1"),
        ):
            error = self.assertRaises(HashError, check_hash, bad)
            if bad:
                self.assertNotIn(bad, str(error))

    def test_without_the_libraries(self) -> None:
        self.assertEqual(default_kind(), "argon2")

        def missing(name: str) -> Any:
            raise ImportError(name)

        self.patch(hashes, "import_module", missing)
        self.assertEqual(default_kind(), "scrypt")
        self.assertRaisesRegex(HashError, "pip install", make_hash, "argon2", "x")
        self.assertRaisesRegex(HashError, "pip install", check_hash, BCRYPT)


class PrepareTests(AuthCase):
    def test_rfc_4013_section_3(self) -> None:
        for text, expected in (
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
        ):
            self.assertEqual(prepare(text), expected)
            self.assertEqual(prepare(text.encode()), expected)
        self.assertEqual(prepare("a\u3000b"), "a b")
        for text in ("\u0007", "\u06271", "", "a\r\nb", "\u00ad", "\ue000"):
            self.assertRaises(ValueError, prepare, text)
        self.assertRaises(ValueError, prepare, b"\xff")

    @given(st.text())
    def test_it_says_nothing_of_what_it_refuses(self, text: str) -> None:
        try:
            self.assertEqual(prepare(prepare(text)), prepare(text))
        except ValueError as error:
            self.assertIn(
                str(error),
                {"nothing", "characters that are not allowed", "right-to-left and left-to-right mixed"},
            )
        except UnicodeEncodeError:
            pass


class FileTests(CheapCase):
    def test_right_and_wrong(self) -> None:
        file = self.write("# users", "", self.entry("bart", "x"), self.entry(), "")
        session = self.check(b"AUTH PLAIN %b\r\n" % RIGHT, ACCEPTED, authenticator=file).protocol.session
        self.assertEqual((session.login_data, session.auth_data.login), (LOGIN, LOGIN))
        self.assertNotIn("correct", repr(vars(session)))
        self.assertEqual(dial(authenticator=file).send(b"AUTH PLAIN %b\r\n" % WRONG), REJECTED)

    def test_names_and_passwords_are_prepared(self) -> None:
        file = self.write(self.entry("änne", prepare("pä\u00adss")))
        for login, password, right in (
            ("änne", "päss", True),
            ("a\u0308nne", "pa\u0308ss", True),
            ("ANNE", "päss", False),
        ):
            self.assertIs(file._check(login.encode(), password.encode()), right)
        for login, password in ((b"\xff", b"x"), ("änne".encode(), b"\xff"), (b"", b"x"), ("änne".encode(), b"")):
            self.assertIs(file._check(login, password), False)

    def test_an_unknown_user_takes_as_much_work(self) -> None:
        file = self.write(self.entry(), self.entry("bart", "x", "SCRAM-SHA-1"), self.entry("cate"))
        verified: list[str] = []
        self.patch(passwords, "verify", lambda hashed, password: verified.append(hashed[:8]) is None)
        for login, password in ((b"anne", b"wrong"), (b"nobody", b"wrong"), (b"\xff", b"wrong"), (b"anne", b"\x07")):
            file._check(login, password)
        self.assertEqual(verified, ["SCRAM-SH", "$scrypt$"] * 4)
        self.assertIs(file._check(b"nobody", b"right"), False)

    def test_an_empty_file_lets_nobody_in(self) -> None:
        self.assertIs(self.write()._check(b"anne", b"x"), False)

    def test_a_hash_for_passwords_goes_before_scram_keys(self) -> None:
        file = self.write(self.entry("anne", "correct horse", "SCRAM-SHA-1", "scrypt"))
        self.assertTrue(file._check(LOGIN, PASSWORD))
        file = self.write(self.entry("anne", "correct horse", "SCRAM-SHA-256"))
        self.assertTrue(file._check(LOGIN, PASSWORD))
        self.assertFalse(file._check(LOGIN, b"wrong"))

    def test_scram_is_offered_if_there_are_keys(self) -> None:
        self.assertEqual(self.write(self.entry()).mechanisms, {"PLAIN", "LOGIN"})
        file = self.write(self.entry("anne", "correct horse", "scrypt", "SCRAM-SHA-256"), self.entry("bart"))
        expected = {"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}
        self.assertEqual(file.mechanisms, expected)
        self.assertEqual(scram(dial(authenticator=file).send, "SCRAM-SHA-256"), ACCEPTED)
        for login in ("bart", "nobody"):
            self.assertEqual(scram(dial(authenticator=file).send, "SCRAM-SHA-256", login), REJECTED)

    def test_decoys_look_like_the_files_own_keys(self) -> None:
        keys = ScramKeys.derive("SCRAM-SHA-256", "x", iterations=5000)
        self.patch(ScramKeys, "derive", lambda *arguments: keys)
        file = self.write(self.entry("anne", "x", "SCRAM-SHA-256"))
        decoy = file._keys("SCRAM-SHA-256", b"nobody")
        self.assertEqual((decoy.iterations, len(decoy.salt)), (5000, len(keys.salt)))

    def test_lines_that_can_not_be_used_are_named_and_not_shown(self) -> None:
        good = self.entry()
        for line, text in (
            ("anne", "line 2: a line is user:hash"),
            ("bart:", "line 2: a line is user:hash"),
            ("bart:topsecret", "line 2: a hash of an unknown kind"),
            (good, "line 2: this user has a line already"),
            (f":{good[5:]}", "line 2: nothing"),
            (f"bart:{good[5:]} {good[5:]}", "line 2: two hashes of the kind scrypt"),
        ):
            refusal = self.refusal(good, line)
            self.assertIn(text, refusal)
            self.assertNotIn("topsecret", refusal)
            self.assertNotIn("$scrypt$", refusal)

    def test_files_that_can_not_be_read(self) -> None:
        self.assertIn("No such file", str(self.assertRaises(PasswordFileError, self.open)))
        self.path.write_bytes(b"\xff")
        self.assertIn("not UTF-8", str(self.assertRaises(PasswordFileError, self.open)))
        self.path.unlink()
        self.path.mkdir()
        self.assertIn("directory", str(self.assertRaises(PasswordFileError, self.open)))

    def test_a_file_for_everybody_to_read_is_said(self) -> None:
        self.write(self.entry())
        self.path.chmod(0o644)
        events = self.events()
        self.open()
        self.assertIn("chmod 600", formatEvent(events[0]))

    def test_a_change_is_seen(self) -> None:
        file = self.write(self.entry())
        set_password(self.path, "anne", "another", kind="scrypt")
        self.assertFalse(file._check(LOGIN, PASSWORD))
        self.assertTrue(file._check(LOGIN, b"another"))

    def test_a_file_that_breaks_later_changes_nothing(self) -> None:
        file = self.write(self.entry())
        events = self.events()
        self.path.write_text("nonsense")
        for _ in range(3):
            self.assertTrue(file._check(LOGIN, PASSWORD))
        self.path.unlink()
        self.assertTrue(file._check(LOGIN, PASSWORD))
        texts = [formatEvent(event) for event in events]
        self.assertEqual(["user:hash" in texts[0], "No such file" in texts[1]], [True, True])
        self.assertEqual(len(texts), 2)
        set_password(self.path, "anne", "another", kind="scrypt")
        self.assertTrue(file._check(LOGIN, b"another"))

    def test_hashing_is_never_on_the_reactors_thread(self) -> None:
        self.write(self.entry("anne", "correct horse", "scrypt", "SCRAM-SHA-256"))
        jobs: list[Any] = []

        def defer(*job: Any) -> Deferred[Any]:
            jobs.append(job)
            return Deferred()

        file = PasswordFile(self.path, worker=Worker(defer))
        self.patch(passwords, "verify", lambda *arguments: self.fail("hashed in the reactor's thread"))
        self.patch(passwords.os, "stat", lambda *arguments: self.fail("read in the reactor's thread"))
        client = dial(authenticator=file)
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), b"")
        dial(authenticator=file).send(b"AUTH SCRAM-SHA-256 bixsLG49YW5uZSxyPWFiYw==\r\n")
        dial(authenticator=file).send(b"AUTH SCRAM-SHA-256 biwsbj1hbm5lLHI9YWJj\r\n")
        self.assertEqual([job[1:] for job in jobs], [(LOGIN, PASSWORD), ("SCRAM-SHA-256", LOGIN)])

    def test_too_busy_is_454(self) -> None:
        self.write(self.entry())
        self.patch(worker, "MAX_WAITING", 2)
        file = PasswordFile(self.path, worker=Worker(lambda *job: Deferred()))
        clients = [dial(authenticator=file) for _ in range(worker.MAX_RUNNING + 3)]
        said = [client.send(b"AUTH PLAIN %b\r\n" % RIGHT) for client in clients]
        self.assertEqual(said[:-1], [b""] * (len(said) - 1))
        self.assertEqual(codes(said[-1]), [454])


class WorkerTests(AuthCase):
    def setUp(self) -> None:
        self.started: list[Deferred[Any]] = []
        self.worker = Worker(self.defer)

    def defer(self, function: Any, *arguments: Any) -> Deferred[Any]:
        self.started.append(Deferred())
        return self.started[-1]

    def test_few_at_a_time_in_order(self) -> None:
        jobs = [self.worker.run(len, "x") for _ in range(9)]
        self.assertEqual(len(self.started), worker.MAX_RUNNING)
        for number, job in enumerate(jobs):
            self.assertEqual(len(self.started), min(len(jobs), number + worker.MAX_RUNNING))
            self.started[number].callback(number)
            self.assertEqual(self.successResultOf(job), number)

    def test_a_failure_is_handed_on(self) -> None:
        job = self.worker.run(len, "x")
        self.started[0].errback(OSError("no"))
        self.failureResultOf(job, OSError)

    def test_a_job_whose_client_has_gone_counts_until_it_is_done(self) -> None:
        jobs = [self.worker.run(len, "x") for _ in range(worker.MAX_RUNNING + 1)]
        for job in jobs[:2]:
            job.cancel()
            self.failureResultOf(job, CancelledError)
        self.assertEqual(len(self.started), worker.MAX_RUNNING)
        self.started[0].callback(None)
        self.assertEqual(len(self.started), worker.MAX_RUNNING + 1)

    def test_a_job_that_has_not_begun_makes_room(self) -> None:
        self.patch(worker, "MAX_WAITING", 1)
        jobs = [self.worker.run(len, "x") for _ in range(worker.MAX_RUNNING + 1)]
        self.assertRaises(Busy, self.worker.run, len, "x")
        jobs[-1].cancel()
        self.failureResultOf(jobs[-1], CancelledError)
        self.worker.run(len, "x")
        self.started[0].callback(None)
        self.assertEqual(len(self.started), worker.MAX_RUNNING + 1)


class WriteTests(CheapCase):
    def test_a_new_file_is_its_owners_only(self) -> None:
        set_password(self.path, "anne", "x", kind="scrypt")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_the_rest_of_the_file_stays(self) -> None:
        self.write("# a comment", self.entry("bart"), self.entry("anne", "old"), self.entry("cate"))
        self.path.chmod(0o640)
        before = self.path.read_text().splitlines()
        set_password(self.path, "anne", "new", kind="scrypt")
        after = self.path.read_text().splitlines()
        self.assertEqual([after[0], after[1], after[3]], [before[0], before[1], before[3]])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
        self.assertTrue(self.open()._check(b"anne", b"new"))
        self.assertEqual(os.listdir(self.path.parent).count(f"{self.path.name}.new"), 0)

    def test_removing_a_user(self) -> None:
        self.write(self.entry("bart"), self.entry("anne"))
        set_password(self.path, "anne", None)
        self.assertFalse(self.open()._check(LOGIN, PASSWORD))
        self.assertRaisesRegex(PasswordFileError, "no such user", set_password, self.path, "anne", None)

    def test_names_and_passwords_that_would_break_the_file(self) -> None:
        for name in ("", "a:b", "#anne", " anne", "anne ", "a\nb", "a\0b", "\u2028"):
            self.assertRaises(PasswordFileError, set_password, self.path, name, "x", kind="scrypt")
        for password in ("", "a\nb"):
            self.assertRaises(PasswordFileError, set_password, self.path, "anne", password, kind="scrypt")
        self.assertFalse(self.path.exists())

    def test_a_second_writer_waits_for_another_time(self) -> None:
        self.path.with_name(f"{self.path.name}.new").touch()
        error = self.assertRaises(PasswordFileError, set_password, self.path, "anne", "x", kind="scrypt")
        self.assertIn("somebody else is writing it", str(error))

    def run_main(self, stdin: str, *words: str) -> object:
        self.patch(sys, "stdin", io.StringIO(stdin))
        try:
            return main([str(self.path), *words])
        except SystemExit as error:
            return error.code

    def test_the_command(self) -> None:
        self.assertIsNone(self.run_main("correct horse\n", "anne", "--hash=scrypt", "--scram"))
        file = self.open()
        self.assertTrue(file._check(LOGIN, PASSWORD))
        self.assertIn("SCRAM-SHA-256", file.mechanisms)
        self.assertIsNone(self.run_main("", "anne", "--delete"))
        self.assertEqual(self.run_main("", "anne", "--delete"), "twisted-smtpd-passwd: there is no such user")
        self.assertEqual(self.run_main("", "anne"), "twisted-smtpd-passwd: that can't be a password: nothing")

    def test_the_command_takes_no_password_as_an_argument(self) -> None:
        self.patch(sys, "stderr", io.StringIO())
        self.assertEqual(self.run_main("", "anne", "secret"), 2)

    def test_a_password_is_asked_for_twice(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        from twisted_smtpd.auth import __main__ as command

        answers = ["one", "two"]
        self.patch(command.getpass, "getpass", lambda prompt: answers.pop(0))
        self.patch(sys, "stdin", Terminal())
        error = self.assertRaises(SystemExit, main, [str(self.path), "anne"])
        self.assertEqual(error.code, "twisted-smtpd-passwd: these were two different passwords")
