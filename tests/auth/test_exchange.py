"""Tests for the AUTH command: RFC 4954, and what other servers get wrong."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote, quote_plus

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from tests.support.auth_helpers import (
    ACCEPTED,
    LOGIN,
    PASSWORD,
    REJECTED,
    RIGHT,
    WRONG,
    AuthCase,
    able,
    authenticator,
    dial,
    line,
)
from tests.support.fakes import EHLO, codes, hooks
from twisted_smtpd.auth import AuthResult, LoginPassword
from twisted_smtpd.lmtp import LMTP

LONG = b"A" * 12284
CLOCK = Clock()


class LessonTests(AuthCase):
    """What was seen in released servers, one test each."""

    def test_an_async_authenticators_coroutine_lets_nobody_in_by_being_truthy(self) -> None:
        async def no(*arguments: Any) -> AuthResult:
            return AuthResult(success=False, handled=False)

        client = self.check(b"AUTH PLAIN %b\r\n" % RIGHT, REJECTED, authenticator=no)
        self.assertFalse(client.protocol.session.authenticated)

        async def callback(mechanism: str, login: bytes, password: bytes) -> bool:
            return password == PASSWORD

        self.check(b"AUTH PLAIN %b\r\n" % WRONG, REJECTED, auth_callback=callback)
        self.check(b"AUTH PLAIN %b\r\n" % RIGHT, ACCEPTED, auth_callback=callback)

    def test_only_a_real_auth_result_lets_anybody_in(self) -> None:
        for truthy in (True, 1, "yes", object(), LoginPassword(b"a", b"b"), {"success": True}, None, False):
            client = dial(authenticator=lambda *arguments, given=truthy: given)
            self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), REJECTED, truthy)
            self.assertIsNone(client.protocol.session.authenticated)
        for truthy in (1, "True", object(), succeed(True)):
            client = dial(authenticator=lambda *arguments, given=truthy: AuthResult(success=given, handled=False))
            self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), REJECTED, truthy)

    def test_a_callback_lets_in_with_true_and_nothing_else(self) -> None:
        for given in (1, "True", object(), AuthResult(success=True), succeed("True"), None, False):
            client = dial(auth_callback=lambda *arguments, given=given: given)
            self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), REJECTED, given)
        for given in (True, succeed(True)):
            client = dial(auth_callback=lambda *arguments, given=given: given)
            self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED, given)

    def test_mechanism_names_compared_by_case(self) -> None:
        for name in (b"PLAIN", b"plain", b"PlAiN"):
            self.check(b"auth %b %b\r\n" % (name, RIGHT), ACCEPTED)

    def test_auth_without_argument_crashes(self) -> None:
        expected = b"501 5.5.4 Syntax: AUTH <mechanism> [<initial response>]\r\n"
        self.check(b"AUTH\r\n", expected)
        self.check(b"AUTH  \t \r\n", expected)
        self.check(b"AUTH PLAIN one two\r\n", expected)

    def test_auth_plain_equals_is_an_empty_response_not_bad_base64(self) -> None:
        self.check(b"AUTH PLAIN =\r\n", b"501 5.5.2 That is not what this mechanism has to say\r\n")
        client = dial(authenticator=able("LOGIN"))
        self.assertEqual(client.send(b"AUTH LOGIN =\r\n"), b"334 UGFzc3dvcmQ6\r\n")

    def test_star_is_honoured(self) -> None:
        cancelled = b"501 5.7.0 Authentication cancelled\r\n"
        self.check(b"AUTH PLAIN\r\n*\r\nNOOP\r\n", b"334 \r\n" + cancelled + b"250 2.0.0 OK\r\n")
        client = self.check(
            b"AUTH LOGIN\r\n%b*\r\n" % line(LOGIN), b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n" + cancelled
        )
        self.assertIsNone(client.protocol.session.authenticated)

    def test_a_long_response_line_does_not_kill_the_session(self) -> None:
        client = dial()
        client.send(b"AUTH PLAIN\r\n")
        self.assertEqual(client.send(LONG + b"\r\n"), b"501 5.5.2 That is not what this mechanism has to say\r\n")
        for parts in ([LONG + b"AAA\r\nNOOP\r\n"], [LONG, b"AAA", b"QUIT\r", b"\nNOOP\r\n"]):
            client = dial()
            client.send(b"AUTH PLAIN\r\n")
            said = b"".join(client.send(part) for part in parts)
            self.assertEqual(said, b"500 5.5.6 Authentication exchange line is too long\r\n250 2.0.0 OK\r\n")

    def test_a_long_initial_response_is_read(self) -> None:
        token = b64encode(b"user=anne\x01auth=Bearer " + b"t" * 5000 + b"\x01\x01")
        client = dial(authenticator=able("XOAUTH2"))
        self.assertEqual(client.send(b"AUTH XOAUTH2 " + token + b"\r\n"), ACCEPTED)
        client = dial()
        self.assertEqual(codes(client.send(b"AUTH PLAIN " + b"A" * 12288 + b"\r\nNOOP\r\n")), [500, 250])

    def test_auth_in_a_transaction(self) -> None:
        client = dial()
        client.send(b"MAIL FROM:<a@x.example>\r\n")
        said = client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        self.assertEqual(said, b"503 5.5.1 No AUTH within a mail transaction\r\n")
        client.send(b"RSET\r\n")
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED)

    def test_auth_twice(self) -> None:
        self.check(b"AUTH PLAIN %b\r\n" % RIGHT * 2, ACCEPTED + b"503 5.5.1 Already authenticated\r\n")

    def test_auth_is_offered_whatever_made_the_tls(self) -> None:
        self.assertIn(b"250-AUTH LOGIN PLAIN\r\n", dial(ehlo=False).send(EHLO))

    def test_auth_is_not_offered_in_clear_when_it_needs_tls(self) -> None:
        client = dial(tls=False, ehlo=False)
        self.assertNotIn(b"AUTH", client.send(EHLO))
        said = client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        self.assertEqual(said, b"538 5.7.11 Encryption required for requested authentication mechanism\r\n")
        self.assertIsNone(client.protocol.session.authenticated)
        client = dial(tls=False, ehlo=False, auth_require_tls=False)
        self.assertIn(b"250-AUTH LOGIN PLAIN\r\n", client.send(EHLO))
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED)

    def test_there_is_a_limit_on_attempts(self) -> None:
        closing = b"421 4.7.0 Too many failed authentications, closing the connection\r\n"
        client = self.check(b"AUTH PLAIN %b\r\n" % WRONG * 9, REJECTED * 3 + closing)
        self.assertTrue(client.closed)
        client = self.check(b"AUTH PLAIN %b\r\n" % WRONG * 2, REJECTED + closing, max_auth_failures=1)
        self.assertTrue(client.closed)

    def test_plains_authorization_identity_is_never_ignored(self) -> None:
        for authzid, expected in ((b"", ACCEPTED), (LOGIN, ACCEPTED), (b"root", REJECTED)):
            self.check(b"AUTH PLAIN %b\r\n" % b64encode(b"\0".join((authzid, LOGIN, PASSWORD))), expected)


class SecretTests(AuthCase):
    """No secret gets out."""

    def assertHidden(self, text: str) -> None:
        for form in (PASSWORD, RIGHT, b64encode(PASSWORD), b"battery staple", WRONG):
            self.assertNotIn(form.decode(), text)

    def everything_logged(self, events: list[dict[str, Any]]) -> str:
        texts = []
        for event in events:
            failure = event.get("log_failure")
            texts.append(f"{formatEvent(event)} {event!r} {failure and failure.getTraceback()}")
        return "\n".join(texts)

    def test_secrets_in_logs(self) -> None:
        events = self.events()
        for sent in (
            b"AUTH PLAIN %b\r\n" % RIGHT,
            b"AUTH PLAIN %b\r\n" % WRONG * 3,
            b"AUTH PLAIN\r\n%b\r\n" % WRONG,
            b"AUTH LOGIN\r\n" + line(LOGIN) + line(PASSWORD),
            b"AUTH PLAIN %b extra\r\n" % RIGHT,
            b"AUTH UNKNOWN %b\r\n" % RIGHT,
        ):
            self.assertHidden(dial().send(sent).decode())
        self.assertHidden(self.everything_logged(events))
        self.assertIn("authenticated with PLAIN as 'anne'", self.everything_logged(events))

    def test_secrets_in_reprs(self) -> None:
        data = LoginPassword(LOGIN, PASSWORD)
        result = AuthResult(success=True, auth_data=data)
        for text in (repr(data), str(data), f"{data}", f"{data!r:>9}", repr([data]), repr(result)):
            self.assertHidden(text)
        self.assertEqual((*data,), (LOGIN, PASSWORD))

    def test_secrets_in_error_texts(self) -> None:
        def broken(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> None:
            raise KeyError(f"no {data.password.decode()} in {(*data,)!r}", b"\0anne\0correct horse")

        events = self.events()
        for sent in (b"AUTH PLAIN %b\r\n" % RIGHT, b"AUTH LOGIN\r\n" + line(LOGIN) + line(PASSWORD)):
            client = dial(authenticator=broken)
            said = client.send(sent).decode()
            self.assertIn("454 4.7.0 Local error in processing, try again later (session ", said)
            self.assertHidden(said)
        logged = self.everything_logged(events)
        self.assertHidden(logged)
        self.assertIn("KeyError", logged)
        self.assertIn("in broken", logged)

    def test_secrets_in_an_error_after_the_client_has_gone(self) -> None:
        async def broken(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> None:
            try:
                await Deferred()
            finally:
                raise RuntimeError(f"lookup with {data.password!r} failed")

        events = self.events()
        client = dial(authenticator=broken)
        client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        client.lose()
        logged = self.everything_logged(events)
        self.assertHidden(logged)
        self.assertIn("RuntimeError: lookup with", logged)

    def test_secrets_in_what_handle_exception_raises(self) -> None:
        async def broken(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> None:
            raise RuntimeError(f"bad {data.password!r}")

        async def again(error: Exception) -> str:
            raise error

        async def other(error: Exception) -> str:
            raise ValueError(str(error))

        async def cancelled(error: Exception) -> str:
            raise asyncio.CancelledError

        for hook in (again, other, cancelled):
            events = self.events()
            client = dial(hooks(handle_exception=hook), authenticator=broken)
            self.assertEqual(codes(client.send(b"AUTH PLAIN %b\r\n" % RIGHT)), [500])
            logged = self.everything_logged(events)
            self.assertHidden(logged)
            self.assertIn("RuntimeError: bad", logged)

    def logged_of(self, mechanism: bytes, message: bytes, quoting: Any) -> str:
        """What the log has after an authenticator has raised an error that quotes its data so."""

        def broken(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> None:
            raise RuntimeError(f"can't check {quoting(data)}, sorry")

        broken.mechanisms = ("PLAIN", "XOAUTH2", "OAUTHBEARER")  # type: ignore[attr-defined]
        events = self.events()
        dial(authenticator=broken).send(b"AUTH %b %b\r\n" % (mechanism, b64encode(message)))
        return formatEvent(events[0])

    def test_a_token_alone_in_an_error(self) -> None:
        for mechanism, message in (
            (b"XOAUTH2", b"user=anne\x01auth=Bearer s3cr3t.TOKEN==\x01\x01"),
            (b"OAUTHBEARER", b"n,a=anne,\x01host=x\x01auth=Bearer  s3cr3t.TOKEN==\x01\x01"),
        ):
            text = self.logged_of(mechanism, message, lambda data: data.token)
            self.assertTrue(text.rstrip().endswith("can't check ********, sorry"), text)

    def test_a_password_in_an_error_as_other_formats_write_it(self) -> None:
        for password in ('ba"ttery\\sta/ple', "pässw + örd&?", "€'x'\"y\""):
            for quoting in (json.dumps, quote, lambda text: quote(text, safe=""), quote_plus, repr, ascii):
                text = self.logged_of(
                    b"PLAIN",
                    b"\0anne\0" + password.encode(),
                    lambda data, quoting=quoting: quoting(data.password.decode()),
                )
                self.assertRegex(text.rstrip(), r"can't check [\"']?\*{8}[\"']?, sorry$")

    def test_secrets_are_not_kept_by_the_connection(self) -> None:
        client = dial()
        client.send(b"AUTH PLAIN %b\r\n" % WRONG)
        self.assertEqual(client.protocol._auth.said, ())
        client.send(b"AUTH PLAIN\r\n%b\r\n" % WRONG)
        self.assertEqual(client.protocol._auth.said, ())

    def test_user_names_forge_no_log_line(self) -> None:
        events = self.events()
        name = "anne\r\nmallory\x1b[2J\u2028é".encode()
        dial().send(b"AUTH PLAIN %b\r\n" % b64encode(b"\0%b\0x" % name))
        dial().send(b"AUTH PLAIN %b\r\n" % b64encode(b"\0%b\0x" % (b"\xff" + b"n" * 9000)))
        texts = [formatEvent(event) for event in events]
        self.assertTrue(any(r"failed for user 'anne\r\nmallory\x1b[2J\u2028\xe9'" in text for text in texts), texts)
        for text in texts:
            self.assertTrue(text.isprintable() and text.isascii() and len(text) < 300, text)

    def test_a_failure_is_one_line_with_the_address(self) -> None:
        events = self.events()
        dial(host="192.0.2.7").send(b"AUTH PLAIN %b\r\n" % WRONG)
        (text,) = [formatEvent(event) for event in events]
        self.assertRegex(text, r"^[0-9a-f]+-[0-9a-f]+ 192\.0\.2\.7:40000 AUTH PLAIN failed for user 'anne'$")


class StateTests(AuthCase):
    """RFC 4954: when AUTH may come, and what it changes."""

    def test_ehlo_first(self) -> None:
        client = dial(ehlo=False)
        self.assertEqual(client.send(b"AUTH PLAIN\r\n"), b"503 5.5.1 Send HELO first\r\n")
        client.send(b"HELO client.example\r\n")
        self.assertEqual(client.send(b"AUTH PLAIN\r\n"), b"503 5.5.1 Send EHLO first\r\n")

    def test_success_changes_nothing_but_who_the_client_is(self) -> None:
        client = dial()
        client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        session = client.protocol.session
        self.assertEqual((session.authenticated, session.host_name), (True, "client.example"))
        self.assertEqual((session.auth_data, session.login_data), (LoginPassword(LOGIN, PASSWORD), LOGIN))
        self.assertEqual(client.send(b"MAIL FROM:<a@x.example>\r\n"), b"250 2.1.0 OK\r\n")

    def test_auth_is_not_offered_to_a_client_that_is_in(self) -> None:
        client = dial()
        client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        self.assertNotIn(b"AUTH", client.send(EHLO))
        self.assertTrue(client.protocol.session.authenticated)

    def test_an_unknown_mechanism(self) -> None:
        self.check(b"AUTH GSSAPI\r\n", b"504 5.5.4 Unrecognized authentication type\r\n")
        self.check(b"AUTH CRAM-MD5\r\n", b"504 5.5.4 Unrecognized authentication type\r\n")

    def test_bad_base64(self) -> None:
        bad = b"501 5.5.2 That is not base64\r\n"
        for text in (b"!", b"QQ", b"Q=Q=", b"\xc3\xa9", b"QUJD*", b"QUJD\0"):
            self.assertEqual(dial().send(b"AUTH PLAIN %b\r\n" % text)[:3], bad[:3] if b"\0" not in text else b"500")
            client = dial()
            client.send(b"AUTH PLAIN\r\n")
            self.assertEqual(client.send(text + b"\r\nNOOP\r\n"), bad + b"250 2.0.0 OK\r\n")

    def test_mistakes_in_the_exchange_count_as_errors(self) -> None:
        client = dial(max_errors=3)
        said = client.send(b"AUTH PLAIN !\r\nAUTH PLAIN\r\n*\r\nAUTH PLAIN\r\n!\r\n")
        self.assertEqual(codes(said), [501, 334, 501, 334, 501, 421])
        self.assertTrue(client.closed)

    def test_plain_messages_that_are_none(self) -> None:
        for message in (b"", b"anne", b"\0anne", b"\0anne\0", b"\0\0secret", b"\0anne\0a\0b", b"anne\0secret"):
            self.assertEqual(codes(dial().send(b"AUTH PLAIN\r\n" + line(message))), [334, 501], message)

    def test_login_without_a_name_or_a_password(self) -> None:
        for login, password in ((b"", PASSWORD), (LOGIN, b"")):
            client = dial(auth_callback=lambda *arguments: True)
            self.assertEqual(codes(client.send(b"AUTH LOGIN\r\n" + line(login) + line(password))), [334, 334, 501])

    def test_without_enhanced_codes(self) -> None:
        client = dial(enhanced_status_codes=False)
        said = client.send(b"AUTH PLAIN %b\r\n" % WRONG + b"AUTH PLAIN %b\r\n" % RIGHT)
        self.assertEqual(said, b"535 Authentication credentials invalid\r\n235 Authentication successful\r\n")

    def test_protocols_made_by_hand_share_what_is_known_of_an_address(self) -> None:
        handler = hooks()
        one, two = (
            dial(handler, auth_exclude_mechanism=["LOGIN"], authenticator=authenticator, clock=CLOCK) for _ in range(2)
        )
        self.assertIs(one.protocol.connections, two.protocol.connections)

    def test_help_knows_auth_where_it_is(self) -> None:
        self.assertIn(b"AUTH <mechanism>", dial().send(b"HELP AUTH\r\n"))
        self.assertEqual(codes(dial(hooks()).send(b"HELP AUTH\r\n")), [504])

    def test_a_server_without_authenticator_has_no_auth(self) -> None:
        client = dial(hooks(), ehlo=False)
        self.assertNotIn(b"AUTH", client.send(EHLO))
        self.assertEqual(client.send(b"AUTH PLAIN\r\n"), b"502 5.5.1 AUTH is not offered here\r\n")
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@x.example> AUTH=<>\r\n")), [250])

    def test_lmtp_has_it_too(self) -> None:
        client = dial(protocol=LMTP, authenticator=authenticator, ehlo=False)
        self.assertIn(b"250-AUTH LOGIN PLAIN\r\n", client.send(b"LHLO client.example\r\n"))
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED)

    def test_a_client_that_goes_away_in_an_exchange(self) -> None:
        client = dial()
        client.send(b"AUTH PLAIN\r\n")
        client.lose()
        self.assertEqual(client.protocol._auth.said, ())

    def test_a_client_that_goes_away_while_its_password_is_checked(self) -> None:
        cancelled: list[Any] = []
        client = dial(authenticator=lambda *arguments: Deferred(cancelled.append))
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), b"")
        client.lose()
        self.assertEqual(len(cancelled), 1)
        self.assertIsNone(client.protocol.session.authenticated)

    def test_a_check_that_takes_too_long(self) -> None:
        client = dial(authenticator=lambda *arguments: Deferred(), hook_timeout=20)
        client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        client.protocol.connections.timers.clock.pump([1.0] * 30)
        self.assertEqual(codes(client.read()), [451])
        self.assertIsNone(client.protocol.session.authenticated)


class RequiredTests(AuthCase):
    """``auth_required``."""

    def test_530_before_authentication(self) -> None:
        client = dial(auth_required=True)
        for command in (
            b"MAIL FROM:<a@x.example>",
            b"RCPT TO:<b@y.example>",
            b"DATA",
            b"HELP",
            b"VRFY <b@y.example>",
            b"EXPN list",
        ):
            self.assertEqual(client.send(command + b"\r\n"), b"530 5.7.0 Authentication required\r\n", command)
        self.assertEqual(codes(client.send(b"NOOP\r\nRSET\r\nHELO x\r\nEHLO x\r\n")), [250] * 4)
        client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        said = client.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nHELP\r\n")
        self.assertEqual(codes(said), [250, 250, 214])

    def test_a_hooks_identity_is_authentication_too(self) -> None:
        client = dial(hooks(auth_PLAIN=lambda server, args: "anne"), auth_required=True)
        self.assertEqual(client.send(b"AUTH PLAIN\r\n"), ACCEPTED)
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@x.example>\r\n")), [250])

    def test_what_comes_late_but_breaks_is_454(self) -> None:
        async def broken(*arguments: Any) -> AuthResult:
            await succeed(None)
            raise OSError("down")

        client = dial(authenticator=broken)
        self.assertEqual(codes(client.send(b"AUTH PLAIN %b\r\n" % RIGHT)), [454])

    def test_what_nobody_can_fulfil_is_said(self) -> None:
        events = self.events()
        dial(hooks(), auth_required=True)
        self.assertIn("no mail will be accepted", formatEvent(events[0]))
        dial(authenticator=authenticator, auth_required=True, auth_require_tls=False)
        self.assertIn("passwords may come in clear", formatEvent(events[1]))


class SubmitterTests(AuthCase):
    """``AUTH=`` on MAIL (RFC 4954 section 5)."""

    def submitter(self, value: str, signed_in: bool = True) -> Any:
        client = dial()
        if signed_in:
            client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        said = client.send(f"MAIL FROM:<a@x.example>{value}\r\n".encode())
        return client.protocol.envelope.submitter if said == b"250 2.1.0 OK\r\n" else codes(said)

    def test_the_mailbox_is_decoded(self) -> None:
        self.assertEqual(self.submitter(" AUTH=anne@x.example"), "anne@x.example")
        self.assertEqual(self.submitter(" AUTH=e+3Dmc2@example.com"), "e=mc2@example.com")
        self.assertEqual(self.submitter(" auth=<>"), "")
        self.assertIsNone(self.submitter(""))

    def test_from_a_client_that_nobody_vouches_for_it_is_as_if_empty(self) -> None:
        self.assertEqual(self.submitter(" AUTH=anne@x.example", signed_in=False), "")
        self.assertIsNone(self.submitter("", signed_in=False))

    def test_what_is_no_mailbox(self) -> None:
        for value in ("", "=", "=anne@", "=a+0D+0A@x.example", "=<anne@x.example", "=+ZZ", "=a+20b"):
            self.assertEqual(self.submitter(f" AUTH{value}"), [501], value)

    def test_the_line_may_be_500_octets_longer(self) -> None:
        client = dial()
        mail = b"MAIL FROM:<a@x.example> AUTH=%b@x.example" % (b"a" * 40)
        limit = 512 + 26 + 17 + 10 + 11 + 116 + 500
        self.assertEqual(codes(client.send(mail.ljust(limit - 2) + b"\r\n")), [250])
        client.send(b"RSET\r\n")
        self.assertEqual(codes(client.send(mail.ljust(limit - 1) + b"\r\n")), [500])

    def test_a_refused_mail_leaves_nothing_behind(self) -> None:
        client = dial()
        client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        client.send(b"MAIL FROM:<a@x.example> AUTH=anne@x.example FOO=1\r\n")
        client.send(b"MAIL FROM:<a@x.example>\r\n")
        self.assertIsNone(client.protocol.envelope.submitter)
