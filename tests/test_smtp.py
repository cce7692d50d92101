"""The commands: the transaction's state, programs that subclass SMTP, and whatever a client may send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    ENVELOPE,
    GREETING,
    MESSAGE,
    Client,
    Recorder,
    answering,
    codes,
    connect,
    hooks,
    raiser,
)
from twisted_smtpd.protocol.commands import HTTP_METHODS
from twisted_smtpd.protocol.connection import TLS_HELLO
from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.smtp import SMTP, Reply, SMTPReplyError, syntax
from twisted_smtpd.wire.replies import BadStatus

SECRET = "hunter2"


class TransactionTests(SynchronousTestCase):
    def test_arguments_of_the_hooks(self) -> None:
        calls: list[tuple[Any, ...]] = []

        def hook(name: str) -> Callable[..., str]:
            def called(server: SMTP, session: Session, envelope: Envelope, *arguments: Any) -> str:
                calls.append((name, *arguments))
                return "250 OK"

            return called

        handler = hooks(**{f"handle_{name}": hook(name) for name in ("MAIL", "RCPT", "NOOP", "VRFY", "RSET", "QUIT")})
        client = connect(handler)
        client.send(b"EHLO a\r\nMAIL FROM:<a@b.example> size=10 Body=8bitMIME\r\nRCPT TO:<c@d.example>\r\n")
        client.send(b"NOOP x y\r\nNOOP\r\nVRFY <e@f.example>\r\nRSET\r\nQUIT\r\n")
        self.assertEqual(
            calls,
            [
                ("MAIL", "a@b.example", ["SIZE=10", "BODY=8bitMIME"]),
                ("RCPT", "c@d.example", []),
                ("NOOP", "x y"),
                ("NOOP", None),
                ("VRFY", "e@f.example"),
                ("RSET",),
                ("QUIT",),
            ],
        )

    def test_the_envelope_without_hooks(self) -> None:
        handler = Recorder()
        client = connect(handler)
        client.send(b"EHLO a\r\nMAIL FROM:<a@b.example> SIZE=10 SMTPUTF8\r\nRCPT TO:<c@d.example>\r\n")
        client.send("RCPT TO:<\u00e9@d.example>\r\nDATA\r\nx\r\n.\r\n".encode())
        (envelope,) = handler.envelopes
        self.assertEqual(envelope.mail_from, "a@b.example")
        self.assertEqual(envelope.mail_options, ["SIZE=10", "SMTPUTF8"])
        self.assertEqual(envelope.mail_parameters, {"SIZE": "10", "SMTPUTF8": None})
        self.assertTrue(envelope.smtp_utf8)
        self.assertEqual(envelope.rcpt_tos, ["c@d.example", "\u00e9@d.example"])
        self.assertEqual(envelope.rcpt_options, [])
        self.assertEqual(envelope.recipients, [Recipient("c@d.example"), Recipient("\u00e9@d.example")])
        self.assertEqual(envelope.content, b"x\r\n")
        self.assertEqual(envelope.original_content, b"x\r\n")
        self.assertIsNot(client.protocol.envelope, envelope)

    def test_the_null_reverse_path(self) -> None:
        handler = Recorder()
        self.assertEqual(codes(connect(handler).send(MESSAGE.replace(b"<a@x.example>", b"<>")))[-1], 250)
        self.assertEqual(handler.envelopes[0].mail_from, "<>")

    def test_a_mail_hook_that_sets_nothing(self) -> None:
        handler = Recorder()
        handler.handle_MAIL = answering("250 OK")  # type: ignore[attr-defined]
        connect(handler).send(MESSAGE)
        self.assertEqual(handler.envelopes[0].mail_from, "a@x.example")
        self.assertEqual(handler.envelopes[0].mail_options, [])

    def test_a_mail_hook_that_rewrites(self) -> None:
        handler = Recorder()

        def hook(server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
            envelope.mail_from = "rewritten@x.example"
            envelope.mail_options.append("X=1")
            return "250 OK"

        handler.handle_MAIL = hook  # type: ignore[attr-defined]
        connect(handler).send(MESSAGE)
        self.assertEqual(handler.envelopes[0].mail_from, "rewritten@x.example")
        self.assertEqual(handler.envelopes[0].mail_options, ["X=1"])

    def test_a_mail_hook_that_sets_and_refuses(self) -> None:
        for failing in (answering("550 no"), raiser(KeyError()), answering(None)):

            def hook(server: Any, session: Any, envelope: Any, address: str, options: Any, then: Any = failing) -> Any:
                envelope.mail_from = address
                return then()

            client = connect(hooks(handle_MAIL=hook))
            client.send(ENVELOPE)
            self.assertIsNone(client.protocol.envelope.mail_from)
            self.assertEqual(codes(client.send(b"MAIL FROM:<c@d.example>\r\nDATA\r\n"))[-1], 503)
        self.flushLoggedErrors(KeyError, BadStatus)

    def test_a_recipient_accepted_but_not_appended_is_discarded_on_purpose(self) -> None:
        handler = Recorder()
        handler.handle_RCPT = answering("250 OK")  # type: ignore[attr-defined]
        self.assertEqual(codes(connect(handler).send(MESSAGE)), [250, 250, 250, 354, 250])
        self.assertEqual(handler.envelopes[0].rcpt_tos, [])
        self.assertEqual(handler.envelopes[0].recipients, [Recipient("b@y.example")])

    def test_a_recipient_appended_but_refused_is_removed(self) -> None:
        for failing in (answering("550 no"), raiser(KeyError()), answering(None)):

            def hook(server: Any, session: Any, envelope: Any, address: str, options: Any, then: Any = failing) -> Any:
                envelope.rcpt_tos.append(address)
                envelope.rcpt_options.append("X")
                return then()

            client = connect(hooks(handle_RCPT=hook))
            self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\n"))[-1], 554)
            self.assertEqual(client.protocol.envelope.rcpt_tos, [])
            self.assertEqual(client.protocol.envelope.rcpt_options, [])
        self.flushLoggedErrors(KeyError, BadStatus)

    def test_a_message_ends_its_transaction_whatever_the_verdict(self) -> None:
        for status in ("250 OK", "550 no", "450 later", None):
            client = connect(hooks(handle_DATA=answering(status)))
            client.send(MESSAGE)
            self.assertEqual(codes(client.send(b"RCPT TO:<a@b.example>\r\nMAIL FROM:<>\r\n")), [503, 250])
        self.flushLoggedErrors(BadStatus)

    def test_rset_reaches_its_hook_after_the_fact(self) -> None:
        seen: list[Any] = []

        def hook(server: SMTP, session: Session, envelope: Envelope) -> str:
            seen.append(envelope.mail_from)
            return "250 OK"

        connect(hooks(handle_RSET=hook)).send(ENVELOPE + b"RSET\r\n")
        self.assertEqual(seen, [None])

    def test_replies_are_utf8_only_in_an_smtputf8_transaction(self) -> None:
        """RFC 6531 section 3.7.4.2."""
        client = connect(hooks(handle_NOOP=answering("250 \u00e9")))
        self.assertEqual(client.send(b"NOOP\r\n"), b"250 2.0.0 ?\r\n")
        client.send(b"EHLO a\r\nMAIL FROM:<a@b.example> SMTPUTF8\r\n")
        self.assertEqual(client.send(b"NOOP\r\n"), "250 2.0.0 \u00e9\r\n".encode())


class SubclassTests(SynchronousTestCase):
    def test_a_new_verb(self) -> None:
        class Mine(SMTP):
            @syntax("PING [text]", extended=" [SP <more>]")
            async def smtp_PING(self, arg: str | None) -> None:
                await self.push(f"259 pong {arg}")

            @syntax("SECRET", when="authenticated_ping")
            async def smtp_SECRET(self, arg: str | None) -> None:
                raise SMTPReplyError(550, "5.7.1", "no")

            async def smtp_QUIET(self, arg: str | None) -> None:
                await self.push("250 shh")

        client = connect(protocol=Mine)
        self.assertEqual(client.send(b"ping x y\r\n"), b"259 2.0.0 pong x y\r\n")
        self.assertEqual(client.send(b"SECRET\r\nQUIET\r\n"), b"550 5.7.1 no\r\n250 2.0.0 shh\r\n")
        commands = b"BDAT DATA EHLO EXPN HELO HELP MAIL NOOP PING QUIT RCPT RSET VRFY\r\n"
        self.assertEqual(client.send(b"HELP\r\n"), b"214 2.0.0 Supported commands: " + commands)
        self.assertEqual(client.send(b"HELP PING\r\n"), b"214 2.0.0 Syntax: PING [text]\r\n")
        self.assertEqual(codes(client.send(b"HELP SECRET\r\nHELP QUIET\r\n")), [504, 504])
        client.protocol.authenticated_ping = True
        self.assertEqual(client.send(b"HELP SECRET\r\n"), b"214 2.0.0 Syntax: SECRET\r\n")
        client.send(b"EHLO a\r\n")
        self.assertEqual(client.send(b"HELP PING\r\n"), b"214 2.0.0 Syntax: PING [text] [SP <more>]\r\n")
        self.assertEqual(codes(connect().send(b"PING\r\n")), [500])

    def test_an_overridden_command(self) -> None:
        class Mine(SMTP):
            async def smtp_MAIL(self, arg: str | None) -> None:
                if arg is not None and "evil" in arg:
                    await self.push("554 5.7.1 evil")
                    return
                await super().smtp_MAIL(arg)

        client = connect(protocol=Mine)
        self.assertEqual(codes(client.send(b"EHLO a\r\nMAIL FROM:<evil@x.example>\r\n")), [250, 554])
        self.assertEqual(codes(client.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_a_command_that_is_no_coroutine_function(self) -> None:
        class Mine(SMTP):
            def smtp_FOO(self, arg: str | None) -> None:
                raise ValueError(SECRET)

            def smtp_BAR(self, arg: str | None) -> Any:
                return Deferred.fromCoroutine(self.push("259 bar"))

        client = connect(protocol=Mine)
        said = client.send(b"FOO\r\nNOOP\r\nBAR\r\n")
        self.assertEqual(codes(said), [451, 250, 259])
        self.assertNotIn(SECRET.encode(), said)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_own_sessions_and_envelopes(self) -> None:
        class MySession(Session):
            mine = "session"

        class MyEnvelope(Envelope):
            mine = "envelope"

        class Mine(SMTP):
            def _create_session(self) -> Session:
                return MySession(self.loop)

            def _create_envelope(self) -> Envelope:
                return MyEnvelope()

        handler = Recorder()
        client = connect(handler, protocol=Mine)
        client.send(MESSAGE + MESSAGE)
        self.assertIsInstance(client.protocol.session, MySession)
        self.assertEqual([type(envelope) for envelope in handler.envelopes], [MyEnvelope] * 2)

    def test_an_overridden_push_sees_every_reply_of_a_command(self) -> None:
        said: list[Any] = []

        class Mine(SMTP):
            async def push(self, status: str | Reply) -> None:
                said.append(status)
                await super().push(status)

        connect(protocol=Mine).send(MESSAGE + b"QUIT\r\n")
        self.assertEqual([str(status)[:3] for status in said], ["220", "250", "250", "250", "354", "250", "221"])

    def test_a_push_of_nonsense_is_a_local_error(self) -> None:
        class Mine(SMTP):
            async def smtp_FOO(self, arg: str | None) -> None:
                await self.push("nonsense")

        self.assertEqual(codes(connect(protocol=Mine).send(b"FOO\r\n")), [451])
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 1)

    def test_limits_of_a_class(self) -> None:
        class Mine(SMTP):
            line_length_limit = 10
            data_size_limit = 20
            max_recipients = 1
            max_connections = 1
            command_size_limits = {"NOOP": 10, "VRFY": 5000}  # noqa: RUF012

        self.assertEqual(connect(protocol=Mine).protocol.max_command_size_limit, 5000)
        client = connect(protocol=Mine)
        self.assertEqual(
            codes(client.send(b"NOOP xxx\r\nNOOP xxxx\r\nVRFY " + b" " * 4990 + b"a\r\n")), [250, 500, 252]
        )
        self.assertEqual(
            codes(client.send(ENVELOPE + b"RCPT TO:<c@y.example>\r\nDATA\r\n01234567\r\n.\r\n"))[3:], [452, 354, 250]
        )
        self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\n012345678\r\n.\r\n"))[-1], 500)
        self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\n0\r\n1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n.\r\n"))[-1], 552)
        handler = object()
        first, second = connect(handler, protocol=Mine, clock=None), connect(handler, protocol=Mine, clock=None)
        self.assertFalse(first.closed)
        self.assertTrue(second.closed)
        first.lose()
        second.lose()

    def test_limits_of_an_instance_are_its_own(self) -> None:
        handler = object()
        one, other = connect(handler, clock=None), connect(handler, clock=None)
        one.protocol.data_size_limit = 5
        one.protocol.enhanced_status_codes = False
        one.protocol.max_errors = 1
        self.assertIn(b"SIZE 5\r\n", one.send(b"EHLO a\r\n"))
        self.assertIn(b"SIZE 33554432\r\n", other.send(b"EHLO a\r\n"))
        self.assertEqual(codes(one.send(MESSAGE))[-1], 552)
        self.assertEqual(codes(other.send(MESSAGE))[-1], 250)
        self.assertEqual(codes(one.send(b"FOO\r\n")), [500, 421])
        self.assertEqual(codes(other.send(b"FOO\r\n")), [500])
        one.lose()
        other.lose()

    def test_the_local_part_limit(self) -> None:
        class Mine(SMTP):
            local_part_limit = 3

        client = connect(protocol=Mine)
        said = client.send(b"EHLO a\r\nMAIL FROM:<abcd@x.example>\r\nMAIL FROM:<abc@x.example>\r\nVRFY abcd\r\n")
        self.assertEqual(codes(said), [250, 501, 250, 501])

    def test_a_local_part_limit_that_a_subclass_sets_early(self) -> None:
        class Mine(SMTP):
            def __init__(self, handler: object) -> None:
                self.local_part_limit = 3
                self.clock = self.hostname = "mine"
                super().__init__(handler, hostname="mx.example")

        mine = Mine(object())
        self.assertEqual((mine.local_part_limit, mine.clock, mine.hostname), (3, "mine", "mx.example"))

    def test_the_ident(self) -> None:
        self.assertEqual(connect(ident="My Server 1.0").read(), b"220 mx.example My Server 1.0\r\n")
        self.assertEqual(connect(ident="My Server 1.0").protocol.__ident__, "My Server 1.0")
        self.assertEqual(SMTP(object(), hostname="mx.example").__ident__, "ESMTP twisted-smtpd")

    def test_a_defective_extension_check_is_a_local_error(self) -> None:
        from twisted_smtpd.protocol.extensions import Extension

        class Broken(Extension):
            def keyword(self, server: Any) -> str | None:
                return "BROKEN"

            @staticmethod
            def _check(server: Any, value: str | None) -> None:
                raise KeyError(SECRET)

            mail_parameters = {"BROKEN": _check}  # noqa: RUF012
            rcpt_parameters = {"BROKEN": _check}  # noqa: RUF012

        class Mine(SMTP):
            extensions = (Broken(),)

        self.assertRaises(NotImplementedError, Extension().keyword, connect().protocol)
        client = connect(protocol=Mine)
        self.assertEqual(client.send(b"EHLO a\r\n"), b"250-mx.example\r\n250-BROKEN\r\n250 HELP\r\n")
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@x.example> BROKEN=1\r\n")), [451])
        self.flushLoggedErrors(KeyError)


COMMANDS = st.sampled_from(
    [
        b"EHLO a",
        b"HELO a",
        b"MAIL FROM:<a@b.example>",
        b"MAIL FROM:<> SIZE=10 BODY=7BIT",
        b"RCPT TO:<c@d.example>",
        b"RSET",
        b"NOOP",
        b"VRFY a",
        b"EXPN a",
        b"HELP",
        b"HELP MAIL",
        b"FOO",
        b"DATA x",
        b"MAIL",
        b"RCPT TO:<",
        b"NOOP " + b"x" * 600,
        b"NOOP\nNOOP",
    ]
)
GARBAGE = st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass"))


class FuzzTests(SynchronousTestCase):
    """Whatever a client sends, nothing raises, and every reply is one."""

    @settings(deadline=None, database=None, max_examples=300)
    @given(
        st.lists(COMMANDS | GARBAGE | st.just(b"DATA") | st.just(b"."), max_size=20), st.randoms(use_true_random=False)
    )
    def test_anything(self, lines: list[bytes], random: Any) -> None:
        client = connect(
            Recorder(), max_errors=random.choice((3, 1000)), bare_newline=random.choice(("normalize", "reject"))
        )
        data = b"\r\n".join([*lines, b""])
        said = b""
        while data:
            size = random.choice((1, 10, 100, 1000))
            said += client.send(data[:size])
            data = data[size:]
        codes(said)
        client.finish_sending()
        client.lose()
        self.assertEqual(client.protocol.connections.buffered, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(deadline=None, database=None, max_examples=200)
    @given(st.lists(COMMANDS | st.binary(max_size=40).map(lambda data: data.replace(b"\r\n", b"")), max_size=30))
    def test_one_reply_for_each_line(self, lines: list[bytes]) -> None:
        """No line of these begins a message or ends the connection, so each has one reply."""
        # Hypothesis tries the words it finds in our code, too.
        ending = (b"DATA", b"QUIT", b"BDAT", *(method.encode() for method in HTTP_METHODS))
        lines = [
            line
            for text in lines
            for line in text.split(b"\n")
            if not line.strip(b" \t").upper().startswith(ending)
            # A TLS handshake on a port in clear is closed without a word.
            if not line.startswith(TLS_HELLO) and line[-1:] != b"\r"
        ]
        for line_end in (b"\r\n", b"\n"):
            client = connect(max_errors=1000)
            self.assertEqual(len(codes(client.send(b"".join(line + line_end for line in lines)))), len(lines))

    def test_the_greeting(self) -> None:
        client = Client(SMTP(object(), hostname="mx.example"))
        self.assertEqual(client.read(), GREETING)
        client.lose()
