"""Who is signed in: the account, whatever spelling of its name the client has chosen."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.cred.checkers import FilePasswordDB
from twisted.internet.defer import execute
from twisted.logger import formatEvent

from tests.auth.test_mechanisms import scram
from tests.support.auth_helpers import ACCEPTED, PASSWORD, REJECTED, AuthCase, dial, line
from tests.support.fakes import hooks
from twisted_smtpd.auth import AcceptAnyone, AuthResult, CredAuthenticator, Identity, LoginPassword, PasswordFile
from twisted_smtpd.auth.hashes import make_hash
from twisted_smtpd.auth.worker import Worker

ACCOUNT = b"office@x.example"
# A ligature, a soft hyphen, wide letters: SASLprep makes the account's name of them (RFC 4013).
TWINS = ("o\ufb03ce@x.example", "off\u00adice@x.example", "\uff4fffice@x.example")


def plain(login: str | bytes, password: bytes = PASSWORD, authzid: bytes = b"") -> bytes:
    """AUTH PLAIN."""
    octets = login.encode() if isinstance(login, str) else login
    return b"AUTH PLAIN %b\r\n" % b64encode(b"\0".join((authzid, octets, password)))


class AccountTests(AuthCase):
    """Seen: PLAIN and LOGIN gave handlers and the log the name as typed, which evades lists and forges a twin."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        keys = make_hash("SCRAM-SHA-256", PASSWORD.decode())
        self.path.write_text(f"{ACCOUNT.decode()}:{keys}\n")
        self.path.chmod(0o600)
        self.file = PasswordFile(self.path, worker=Worker(execute))

    def said_by(self, login: str, mechanism: str) -> tuple[bytes, Any]:
        client = dial(authenticator=self.file)
        if mechanism == "PLAIN":
            said = client.send(plain(login))
        elif mechanism == "LOGIN":
            said = client.send(b"AUTH LOGIN\r\n" + line(login.encode()) + line(PASSWORD))
        else:
            said = scram(client.send, mechanism, login)
        return said, client.protocol.session

    def test_handlers_and_the_log_get_the_account_that_matched(self) -> None:
        for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256"):
            for login in TWINS:
                events = self.events()
                said, session = self.said_by(login, mechanism)
                self.assertTrue(said.endswith(ACCEPTED), (mechanism, login, said))
                self.assertEqual((session.login_data, session.auth_data), (ACCOUNT, Identity(ACCOUNT)), mechanism)
                texts = [formatEvent(event) for event in events if "authenticated with" in formatEvent(event)]
                self.assertTrue(texts[0].endswith(" as 'office@x.example'"), texts)

    def test_a_failure_is_logged_for_the_account_that_was_tried(self) -> None:
        events = self.events()
        client = dial(authenticator=self.file)
        self.assertEqual(client.send(plain(TWINS[0], b"wrong") + plain(b"\xff", b"wrong")), REJECTED * 2)
        texts = [formatEvent(event) for event in events]
        self.assertTrue(texts[0].endswith("failed for user 'office@x.example'"), texts)
        self.assertTrue(texts[1].endswith(r"failed for user '\\xff'"), texts)

    def test_a_checkers_own_name_for_the_account_counts(self) -> None:
        path = Path(self.mktemp())
        path.write_text("anne:correct horse\n")
        checker = FilePasswordDB(str(path), caseSensitive=False)
        client = dial(authenticator=CredAuthenticator(checker))
        self.assertEqual(client.send(plain("ANNE")), ACCEPTED)
        self.assertEqual(client.protocol.session.login_data, b"anne")

    def test_an_authenticators_own_name_for_the_account_is_logged(self) -> None:
        def aliases(*arguments: Any) -> AuthResult:
            return AuthResult(success=True, auth_data=Identity(b"account 7"))

        events = self.events()
        dial(authenticator=aliases).send(plain("anne"))
        self.assertTrue(formatEvent(events[0]).endswith(" as 'account 7'"), formatEvent(events[0]))

    def test_without_a_name_for_the_account_what_was_typed_is_logged(self) -> None:
        events = self.events()
        dial(authenticator=lambda *arguments: AuthResult(success=True, auth_data=7)).send(plain("anne"))
        self.assertTrue(formatEvent(events[0]).endswith(" as 'anne'"), formatEvent(events[0]))


class CatcherTests(AuthCase):
    """``--auth-any``.  Seen: it refused an empty password, an authorization identity, and CRAM-MD5."""

    def test_any_name_and_any_password_are_taken_even_none(self) -> None:
        for login, password, authzid in (
            (b"anne", b"", b""),
            (b"", b"", b""),
            (b"", b"secret", b""),
            (b"anne", b"secret", b"root"),
            (b"\xff", b"\xff", b"\xff"),
        ):
            client = dial(authenticator=AcceptAnyone())
            self.assertEqual(client.send(plain(login, password, authzid)), ACCEPTED, (login, password, authzid))
            self.assertEqual(client.protocol.session.login_data, login)

    def test_login_takes_them_too(self) -> None:
        for login, password in ((b"anne", b""), (b"", b"x"), (b"", b"")):
            client = dial(authenticator=AcceptAnyone())
            said = client.send(b"AUTH LOGIN\r\n" + line(login) + line(password))
            self.assertTrue(said.endswith(ACCEPTED), (login, password, said))

    def test_cram_md5_is_offered_and_taken(self) -> None:
        for login in (b"anne", b""):
            client = dial(authenticator=AcceptAnyone())
            client.send(b"AUTH CRAM-MD5\r\n")
            self.assertEqual(client.send(line(b"%b %b" % (login, b"0" * 32))), ACCEPTED)

    def test_what_is_no_message_of_the_mechanism_is_still_501(self) -> None:
        for message in (b"", b"anne", b"\0anne", b"\0anne\0a\0b"):
            client = dial(authenticator=AcceptAnyone())
            self.assertEqual(client.send(b"AUTH PLAIN\r\n" + line(message))[6:9], b"501", message)

    def test_only_the_value_true_asks_for_it(self) -> None:
        for value in (1, "yes", None, False):
            authenticator = hooks(
                __call__=lambda *arguments: AuthResult(success=True, auth_data=LoginPassword(b"", b""))
            )
            authenticator.any_credentials = value
            said = dial(authenticator=authenticator).send(plain(b"anne", b"") + plain(b"anne", b"x", b"root"))
            self.assertEqual([said[:3], said.split(b"\r\n")[1][:3]], [b"501", b"535"], value)
