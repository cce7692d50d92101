"""What a subclass changes is heard: its commands, its checks, its replies, its envelopes."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, MESSAGE, Recorder, answering, codes, connect, hooks, raiser
from tests.support.loops import in_a_loop, turns
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP, Envelope
from twisted_smtpd.wire.replies import BadStatus

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@x.example>\r\n"
RCPT = b"RCPT TO:<b@y.example>\r\n"
AUTH = b"AUTH PLAIN " + base64.b64encode(b"\0anne\0secret") + b"\r\n"
SEND_HELO = b"503 5.5.1 Send HELO first\r\n"
SIGN_IN: dict[str, Any] = {"auth_callback": lambda *arguments: True, "auth_require_tls": False}


class Lenient(SMTP):
    """Takes each client for one that has said HELO."""

    async def check_helo_needed(self, helo: str = "") -> bool:
        return False


class Aliases(SMTP):
    """Has other names for some commands."""

    async def smtp_SEND(self, arg: str | None) -> None:
        await self.smtp_MAIL(arg)

    async def smtp_TO(self, arg: str | None) -> None:
        await self.smtp_RCPT(arg)

    async def smtp_TEXT(self, arg: str | None) -> None:
        await self.smtp_DATA(arg)

    async def smtp_LOGIN(self, arg: str | None) -> None:
        await self.smtp_AUTH(arg)


class CalledByNameTests(SynchronousTestCase):
    """A command that a program calls by its name is refused where its command line would be."""

    def test_before_the_greeting(self) -> None:
        client = connect(protocol=Aliases, **SIGN_IN)
        for line in (b"SEND FROM:<a@x.example>\r\n", b"TO TO:<b@y.example>\r\n", b"TEXT\r\n", b"LOGIN PLAIN\r\n"):
            self.assertEqual(client.send(line), SEND_HELO)

    def test_before_authentication(self) -> None:
        client = connect(protocol=Aliases, auth_required=True, **SIGN_IN)
        client.send(EHLO)
        self.assertEqual(client.send(b"SEND FROM:<a@x.example>\r\n"), b"530 5.7.0 Authentication required\r\n")
        self.assertEqual(codes(client.send(AUTH + b"SEND FROM:<a@x.example>\r\n")), [235, 250])

    def test_in_the_wrong_order(self) -> None:
        client = connect(protocol=Aliases)
        client.send(EHLO)
        self.assertEqual(client.send(b"TO TO:<b@y.example>\r\n"), b"503 5.5.1 Need MAIL command first\r\n")
        self.assertEqual(codes(client.send(b"SEND FROM:<a@x.example>\r\n")), [250])
        self.assertEqual(client.send(b"SEND FROM:<a@x.example>\r\n"), b"503 5.5.1 Nested MAIL command\r\n")
        self.assertEqual(client.send(b"TEXT\r\n"), b"503 5.5.1 Need RCPT command first\r\n")

    def test_in_the_right_order(self) -> None:
        handler = Recorder()
        client = connect(handler, protocol=Aliases)
        said = client.send(EHLO + b"SEND FROM:<a@x.example>\r\nTO TO:<b@y.example>\r\nTEXT\r\nhi\r\n.\r\n")
        self.assertEqual(codes(said), [250, 250, 250, 354, 250])
        self.assertEqual(handler.contents, [b"hi\r\n"])

    def test_with_checks_of_its_own(self) -> None:
        class Both(Aliases, Lenient):
            pass

        client = connect(protocol=Both)
        self.assertEqual(codes(client.send(b"SEND FROM:<a@x.example>\r\n")), [250])
        self.assertEqual(client.send(b"SEND FROM:<a@x.example>\r\n"), b"503 5.5.1 Nested MAIL command\r\n")

    def test_by_a_hook(self) -> None:
        async def hook(server: SMTP, *arguments: Any) -> str:
            await server.smtp_RCPT("TO:<b@y.example>")
            return "250 never said"

        client = connect(hooks(handle_NOOP=hook))
        self.assertEqual(client.send(EHLO + b"NOOP\r\n")[-35:], b"503 5.5.1 Need MAIL command first\r\n")


class OverriddenCommandTests(SynchronousTestCase):
    """A command of a program's own is run in every state that lets commands through."""

    def test_it_hears_what_the_table_would_have_refused(self) -> None:
        lines: list[str | None] = []

        class Noting(SMTP):
            async def smtp_MAIL(self, arg: str | None) -> None:
                lines.append(arg)
                await super().smtp_MAIL(arg)

        client = connect(protocol=Noting)
        self.assertEqual(client.send(MAIL), SEND_HELO)
        self.assertEqual(codes(client.send(EHLO + MAIL + MAIL)), [250, 250, 503])
        self.assertEqual(lines, ["FROM:<a@x.example>"] * 3)

    def test_but_not_before_tls_or_for_a_client_that_was_refused(self) -> None:
        class Mine(SMTP):
            async def smtp_VRFY(self, arg: str | None) -> None:
                await self.push("250 here")

        client = connect(hooks(handle_CONNECT=answering("554 go away")), protocol=Mine)
        client.read()
        self.assertEqual(client.send(b"VRFY b\r\n"), b"503 5.5.1 No service here, say QUIT\r\n")

    def test_authentication_of_its_own(self) -> None:
        class Mine(SMTP):
            async def smtp_AUTH(self, arg: str | None) -> None:
                self.session.authenticated = True
                await self.push("235 welcome")

        client = connect(protocol=Mine, auth_required=True)
        self.assertEqual(codes(client.send(EHLO + MAIL + AUTH + MAIL)), [250, 530, 235, 250])

    def test_xclient_of_its_own(self) -> None:
        class Mine(SMTP):
            async def smtp_XCLIENT(self, arg: str | None) -> None:
                await self.push(f"250 {arg}")

        self.assertEqual(connect(protocol=Mine).send(b"XCLIENT NAME=x\r\n"), b"250 2.0.0 NAME=x\r\n")
        self.assertEqual(codes(connect().send(b"XCLIENT NAME=x\r\n")), [500])


class OverriddenCheckTests(SynchronousTestCase):
    def test_what_is_not_offered_is_said_first(self) -> None:
        class Strict(SMTP):
            async def check_helo_needed(self, helo: str = "") -> bool:
                raise AssertionError("it was asked")

        client = connect(protocol=Strict)
        self.assertEqual(client.send(AUTH), b"502 5.5.1 AUTH is not offered here\r\n")
        self.assertEqual(client.send(b"STARTTLS\r\n"), b"502 5.5.1 STARTTLS is not available\r\n")


class OverriddenPushTests(SynchronousTestCase):
    def test_a_refusal_in_the_place_of_a_yes(self) -> None:
        class Greylisting(SMTP):
            async def push(self, status: Any) -> None:
                await super().push("450 4.7.1 not yet" if self._verb in ("MAIL", "RCPT") else status)

        client = connect(protocol=Greylisting)
        self.assertEqual(codes(client.send(EHLO + MAIL + RCPT)), [250, 450, 503])
        self.assertIsNone(client.protocol.envelope.mail_from)

    def test_one_that_fails(self) -> None:
        class Broken(SMTP):
            async def push(self, status: Any) -> None:
                if self._verb in ("MAIL", "RCPT"):
                    raise KeyError
                await super().push(status)

        client = connect(protocol=Broken)
        self.assertEqual(codes(client.send(EHLO + MAIL)), [250, 451])
        self.assertIsNone(client.protocol.envelope.mail_from)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_one_that_fails_to_say_354(self) -> None:
        """The transaction is still open, also where a hook would have read the message while it comes."""

        class Broken(SMTP):
            async def push(self, status: Any) -> None:
                if self._verb == "DATA":
                    raise KeyError
                await super().push(status)

        for handler in (object(), hooks(handle_DATA_STREAM=raiser(AssertionError()))):
            client = connect(handler, protocol=Broken)
            self.assertEqual(codes(client.send(EHLO + MAIL + RCPT + b"DATA\r\n" + RCPT)), [250, 250, 250, 451, 250])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_the_verdict_that_it_says_is_the_one_that_counts(self) -> None:
        class Mine(SMTP):
            async def push(self, status: Any) -> None:
                await super().push("554 5.7.1 no" if status == "250 stored" else status)

        for status in ("250 stored", "554 5.7.1 no", "nonsense"):
            client = connect(hooks(handle_DATA=answering(status)), protocol=Mine)
            said = codes(client.send(MESSAGE))[-1]
            counts = client.protocol.connections.counts
            self.assertEqual((counts.accepted, counts.deferred, counts.refused), (0, said == 451, said == 554), status)
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 1)

    def deferring(self, base: type[SMTP]) -> type[SMTP]:
        class Deferring(base):  # type: ignore[misc, valid-type]
            def push(self, status: Any) -> Any:
                return Deferred.fromCoroutine(self.say(status))

            async def say(self, status: Any) -> None:
                await super().push(status)

        return Deferring

    def test_one_that_returns_a_deferred(self) -> None:
        for base, message in ((SMTP, MESSAGE), (LMTP, MESSAGE.replace(b"EHLO", b"LHLO"))):
            handler = Recorder()
            client = connect(handler, self.deferring(base))
            client.read()
            self.assertEqual(codes(client.send(message + message)), [250, 250, 250, 354, 250] * 2)
            self.assertEqual(len(handler.envelopes), 2)

    @in_a_loop
    async def test_and_on_asyncio(self) -> None:
        client = connect(Recorder(), self.deferring(SMTP))
        await turns()
        client.read()
        said = client.send(MESSAGE)
        await turns()
        self.assertEqual(codes(said + client.read()), [250, 250, 250, 354, 250])


class OverriddenEnvelopeTests(SynchronousTestCase):
    def test_one_that_has_a_recipient_already(self) -> None:
        class Archive(SMTP):
            def _create_envelope(self) -> Envelope:
                envelope = super()._create_envelope()
                envelope.rcpt_tos.append("archive@x.example")
                return envelope

        handler = Recorder()
        client = connect(handler, protocol=Archive)
        self.assertEqual(codes(client.send(EHLO + MAIL + b"DATA\r\nhi\r\n.\r\n")), [250, 250, 354, 250])
        self.assertEqual([envelope.rcpt_tos for envelope in handler.envelopes], [["archive@x.example"]])

    def test_a_hook_that_adds_one_before_the_transaction(self) -> None:
        def hook(server: SMTP, session: Any, envelope: Envelope, arg: str | None) -> str:
            envelope.rcpt_tos.append("archive@x.example")
            return "250 OK"

        client = connect(hooks(handle_NOOP=hook))
        said = client.send(EHLO + b"NOOP\r\n" + MAIL + b"DATA\r\nhi\r\n.\r\n")
        self.assertEqual(codes(said), [250, 250, 250, 354, 250])


class StatusTests(SynchronousTestCase):
    def test_a_status_of_a_subclass_of_str_is_whole(self) -> None:
        """Its last line does not announce another, which the next reply would be."""

        class Status(str):
            pass

        for name in ("MAIL", "RCPT", "DATA", "NOOP"):
            client = connect(hooks(**{f"handle_{name}": answering(Status("250-one\n250-two"))}))
            client.send(ENVELOPE if name == "DATA" else EHLO)
            line = {"NOOP": b"NOOP\r\n", "MAIL": MAIL, "RCPT": MAIL + RCPT, "DATA": b"DATA\r\n.\r\n"}[name]
            self.assertTrue(client.send(line).endswith(b"two\r\n"), name)
            self.assertEqual(codes(client.send(b"HELP\r\n")), [214], name)


class CommandTests(SynchronousTestCase):
    def test_a_chunk_is_never_taken_for_commands(self) -> None:
        client = connect(disable_extensions=["CHUNKING"])
        said = client.send(b"EHLO x\r\nBDAT 30\r\nMAIL FROM:<evil@x.example>\r\n")
        self.assertEqual(codes(said), [250, 521])
        self.assertTrue(client.closed)

    def test_draining_answers_a_client_that_authenticates(self) -> None:
        def callback(mechanism: str, login: bytes, password: bytes) -> bool:
            return True

        client = connect(auth_callback=callback, auth_require_tls=False)
        client.send(b"EHLO x\r\nAUTH PLAIN\r\n")
        client.protocol.connections.drain(10)
        self.assertEqual(codes(client.read()), [421])
        self.assertTrue(client.closed)
