"""The commands: the transaction's state, smuggling, programs that subclass SMTP, and whatever a client may send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import (
    ENVELOPE,
    GREETING,
    MESSAGE,
    Client,
    Recorder,
    answering,
    codes,
    connect,
    hooks,
    last_line,
    raiser,
)
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
        self.assertEqual(handler.envelopes[0].mail_from, "")

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


class ContentTests(SynchronousTestCase):
    def test_bytes_by_default(self) -> None:
        handler = Recorder()
        connect(handler).send(ENVELOPE + b"DATA\r\n..\xff\r\n.\r\n")
        self.assertEqual(handler.contents, [b".\xff\r\n"])
        self.assertEqual(handler.envelopes[0].original_content, b".\xff\r\n")

    def test_text_with_decode_data(self) -> None:
        handler = Recorder()
        connect(handler, decode_data=True).send(ENVELOPE + b"DATA\r\n..\xc3\xa9\xff\r\n.\r\n")
        self.assertEqual(handler.contents, [".\u00e9\udcff\r\n"])
        self.assertEqual(handler.envelopes[0].original_content, b".\xc3\xa9\xff\r\n")

    def test_a_status_per_recipient_becomes_one(self) -> None:
        """SMTP has one reply: where recipients differ, neither yes nor no would be true."""
        two = ENVELOPE + b"RCPT TO:<c@y.example>\r\nDATA\r\nx\r\n.\r\n"
        for statuses, expected in (
            (["250 one", "250 two"], "250 2.0.0 one"),
            (["550 one", "554 two"], "550 5.6.0 one"),
            (("250 one", Reply(251)), "250 2.0.0 one"),
            (["250 one", "550 two"], "451 4.3.0 Accepted for some recipients only, try again later"),
            (["450 one", "550 two"], "451 4.3.0 Accepted for some recipients only, try again later"),
        ):
            client = connect(hooks(handle_DATA=answering(statuses)))
            self.assertEqual(last_line(client.send(two)), expected, statuses)

    def test_as_many_statuses_as_recipients_or_none(self) -> None:
        for statuses in ([], ["250 x"], ["250 x"] * 3, ["250 x", None]):
            client = connect(hooks(handle_DATA=answering(statuses)))
            said = last_line(client.send(ENVELOPE + b"RCPT TO:<c@y.example>\r\nDATA\r\nx\r\n.\r\n"))
            self.assertEqual(said[:10], "451 4.3.0 ", statuses)
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 4)


class SmugglingTests(SynchronousTestCase):
    """Nothing but CRLF.CRLF ends a message, whoever else takes something for its end."""

    before = (b"\n", b"\r", b"\r\r\n", b"\n\n", b"\r\n\0", b"\n\r", b"\r\n ", b"\r\n\t", b"x", b"")
    after = (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\0\r\n", b"\r\0\n", b" \r\n", b"x\r\n", b"\n\r\n")
    evil = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@y.example>\r\nDATA\r\nevil\r\n"

    def check(self, prefix: bytes, **options: Any) -> None:
        for before in self.before:
            for after in (*self.after, b"\r\n") if before not in (b"", b"\r\n") else self.after:
                text = prefix + before + b"." + after
                if b"\r\n.\r\n" in b"\r\n" + text:
                    continue
                for split in (False, True):
                    handler = Recorder()
                    client = connect(handler, **options)
                    client.send(ENVELOPE + b"DATA\r\n")
                    data = text + self.evil + b".\r\n"
                    said = b"".join(client.send(bytes((octet,))) for octet in data) if split else client.send(data)
                    self.assertEqual(len(codes(said)), 1, (before, after))
                    self.assertLessEqual(len(handler.envelopes), 1)
                    self.assertEqual(codes(client.send(b"NOOP\r\n")), [250])

    def test_in_the_middle(self) -> None:
        self.check(b"Subject: x\r\n\r\ntext")

    def test_as_the_very_first_line(self) -> None:
        self.check(b"")

    def test_after_a_line(self) -> None:
        self.check(b"text\r\n")

    def test_after_the_size_limit(self) -> None:
        self.check(b"x" * 200 + b"\r\n", data_size_limit=100)

    def test_after_a_line_that_is_too_long(self) -> None:
        self.check(b"x" * 200 + b"\r\ny", line_length_limit=100)

    def test_when_bare_newlines_are_rejected(self) -> None:
        self.check(b"text", bare_newline="reject")

    def test_when_memory_is_short(self) -> None:
        self.check(b"x" * 200 + b"\r\n", max_buffered=100)

    def test_a_normalized_message_holds_no_unstuffed_end(self) -> None:
        handler = Recorder()
        connect(handler).send(ENVELOPE + b"DATA\r\na\n.\nb\r.\r\nc\r\n.\r\n")
        self.assertEqual(handler.contents, [b"a\r\n.\r\nb\r\n.\r\nc\r\n"])


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
        commands = b"DATA EHLO EXPN HELO HELP MAIL NOOP PING QUIT RCPT RSET VRFY\r\n"
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
        from twisted_smtpd.extensions import Extension

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


class MemoryTests(SynchronousTestCase):
    """max_buffered: octets of messages of all connections."""

    def two(self, limit: int) -> tuple[Client, Client]:
        handler = Recorder()
        clock_of_both = connect().protocol.traffic.watch.clock
        clients = [connect(handler, max_buffered=limit, clock=clock_of_both) for _ in range(2)]
        for client in clients:
            client.send(ENVELOPE + b"DATA\r\n")
        return clients[0], clients[1]

    def test_at_the_limit_and_beyond(self) -> None:
        for content, expected in ((b"567\r\n.\r\n", 250), (b"5678\r\n.\r\n", 452)):
            one, other = self.two(10)
            one.send(b"01234")
            self.assertEqual(codes(other.send(content)), [expected])
            self.assertEqual(codes(one.send(b"567\r\n.\r\n")), [250])
        self.assertEqual(one.protocol.traffic.buffered, 0)

    def test_a_new_message_waits_until_there_is_room(self) -> None:
        one, other = self.two(10)
        one.send(b"0123456789")
        other.send(b".\r\n")
        self.assertEqual(last_line(other.send(b"MAIL FROM:<>\r\n")), "452 4.3.1 Out of memory, try again later")
        one.send(b"\r\n.\r\n")
        self.assertEqual(codes(other.send(b"MAIL FROM:<>\r\n")), [250])

    def test_what_a_lost_client_had_sent_is_forgotten(self) -> None:
        one, other = self.two(10)
        one.send(b"01234567\r\n")
        one.lose()
        self.assertEqual(other.protocol.traffic.buffered, 0)

    def test_what_is_not_kept_is_not_counted(self) -> None:
        for options in ({"data_size_limit": 100}, {"line_length_limit": 10}, {"max_buffered": 100}):
            client = connect(**options)  # type: ignore[arg-type]
            client.send(ENVELOPE + b"DATA\r\n" + b"x" * 8)
            self.assertEqual(client.protocol.traffic.buffered, 8)
            client.send(b"x" * 300)
            for _ in range(3):
                client.send(b"y" * 50)
                self.assertEqual(client.protocol.traffic.buffered, 0, options)

    def test_0_is_no_limit(self) -> None:
        self.assertEqual(codes(connect(max_buffered=0).send(MESSAGE))[-1], 250)

    def test_a_message_is_counted_while_its_hook_works(self) -> None:
        promise: Deferred[str] = Deferred()
        client = connect(hooks(handle_DATA=answering(promise)))
        client.send(MESSAGE)
        self.assertGreater(client.protocol.traffic.buffered, 10)
        promise.callback("250 OK")
        self.assertEqual(client.protocol.traffic.buffered, 0)


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
        self.assertEqual(client.protocol.traffic.buffered, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(deadline=None, database=None, max_examples=200)
    @given(st.lists(COMMANDS | st.binary(max_size=40).map(lambda data: data.replace(b"\r\n", b"")), max_size=30))
    def test_one_reply_for_each_line(self, lines: list[bytes]) -> None:
        """No line of these begins a message, so each has one reply."""
        lines = [
            line
            for line in lines
            if not line.strip(b" \t").upper().startswith((b"DATA", b"QUIT")) and line[-1:] != b"\r"
        ]
        client = connect(max_errors=1000)
        self.assertEqual(len(codes(client.send(b"".join(line + b"\r\n" for line in lines)))), len(lines))

    def test_the_greeting(self) -> None:
        client = Client(SMTP(object(), hostname="mx.example"))
        self.assertEqual(client.read(), GREETING)
        client.lose()
