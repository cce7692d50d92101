"""Debugging, Sink, Message, AsyncMessage and the trace headers."""

from __future__ import annotations

import asyncio
import doctest
import email
import email.message
import email.policy
import io
import sys
import textwrap
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.handlers import AsyncMessage, Debugging, Message
from twisted_smtpd.handlers.trace import split_header, trace_header, trace_values
from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

PEER = ("192.0.2.1", 4321)
PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "handlers.rst"
BEGIN, END = "---------- MESSAGE FOLLOWS ----------", "------------ END MESSAGE ------------"


def make_session(peer: Any = PEER) -> Session:
    session = Session()
    session.peer = peer
    return session


def make_envelope(content: bytes | str | None, sender: str | None = "anne@example.com", *rcpt_tos: str) -> Envelope:
    envelope = Envelope()
    envelope.mail_from = sender
    envelope.rcpt_tos = list(rcpt_tos or ("bart@example.com",))
    envelope.recipients = [Recipient(address) for address in envelope.rcpt_tos]
    envelope.content = content
    envelope.original_content = content.encode("utf-8", "replace") if isinstance(content, str) else content
    return envelope


class HandlerTestCase(SynchronousTestCase):
    def deliver(self, handler: Any, envelope: Envelope, session: Session | None = None) -> Any:
        coroutine = handler.handle_DATA(None, session or make_session(), envelope)
        return self.successResultOf(Deferred.fromCoroutine(coroutine))


class DebuggingTests(HandlerTestCase):
    def show(self, envelope: Envelope, session: Session | None = None) -> str:
        stream = io.StringIO()
        self.assertEqual(self.deliver(Debugging(stream), envelope, session), "250 OK")
        return stream.getvalue()

    def test_the_message_stands_in_a_frame_with_its_envelope(self) -> None:
        envelope = make_envelope(
            b"Subject: hello\r\n\r\n.one\r\ntwo\r\n", "anne@example.com", "b@example.com", "c@d.example"
        )
        envelope.mail_options = ["SIZE=27", "BODY=8BITMIME"]
        envelope.recipients[1].options = ["NOTIFY=NEVER"]
        self.assertEqual(
            self.show(envelope),
            textwrap.dedent(f"""\
                {BEGIN}
                X-Peer: ('192.0.2.1', 4321)
                MAIL FROM:<anne@example.com> SIZE=27 BODY=8BITMIME
                RCPT TO:<b@example.com>
                RCPT TO:<c@d.example> NOTIFY=NEVER

                Subject: hello

                .one
                two
                {END}
                """),
        )

    def test_addresses_a_hook_has_put_in_are_shown_instead_of_the_clients(self) -> None:
        envelope = make_envelope(b"", None, "alias@example.com")
        envelope.rcpt_tos = ["real@example.com"]
        envelope.rcpt_options = ["NOTIFY=NEVER"]
        shown = self.show(envelope)
        self.assertIn("\nMAIL FROM:<>\nRCPT TO:<real@example.com>\nrcpt options: NOTIFY=NEVER\n", shown)
        self.assertNotIn("alias", shown)
        envelope.rcpt_options = []
        self.assertNotIn("rcpt options", self.show(envelope))

    def test_bytes_and_decoded_content_are_shown_alike(self) -> None:
        text = "Subject: grüße\r\n\r\n日本\r\n"
        shown = self.show(make_envelope(text))
        self.assertEqual(shown, self.show(make_envelope(text.encode())))
        self.assertIn("Subject: grüße\n\n日本\n", shown)

    def test_escape_sequences_never_reach_the_terminal(self) -> None:
        text = "\x1b]0;owned\x07\x1b[2J\x9b31m\x00\x7f\x08\r\n"
        for content in (text, text.encode()):
            self.assertIn("\n\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\x00\\x7f\\x08\n", self.show(make_envelope(content)))

    def test_a_bare_carriage_return_overwrites_nothing(self) -> None:
        self.assertIn("\nvisible\\x0dhidden\n", self.show(make_envelope(b"visible\rhidden\r\n")))

    def test_bidirectional_controls_turn_no_text_around(self) -> None:
        self.assertIn("\n\\u202efdp.exe\n", self.show(make_envelope("\u202efdp.exe\r\n")))

    def test_the_envelope_is_made_harmless_too(self) -> None:
        envelope = make_envelope(b"", "a\x1b[1m\r\nx@example.com", "b\n@example.com")
        envelope.mail_options = [f"X={END}\n{END}"]
        shown = self.show(envelope)
        self.assertIn("\nMAIL FROM:<a\\x1b[1m\\x0d\\x0ax@example.com> ", shown)
        self.assertEqual(shown.splitlines().count(END), 1)

    def test_bytes_that_are_not_utf8_are_shown_as_numbers(self) -> None:
        self.assertIn("\n\\xff\\xfe caf\\xe9\n", self.show(make_envelope(b"\xff\xfe caf\xe9\r\n")))

    def test_surrogates_of_decoded_content_are_shown_as_numbers(self) -> None:
        self.assertIn("\ncaf\\udce9\n", self.show(make_envelope("caf\udce9\r\n")))

    def test_a_message_draws_no_frame_of_its_own(self) -> None:
        shown = self.show(make_envelope(f"a\r\n{END}\r\n{BEGIN}\r\nMAIL FROM:<forged@example.com>\r\n".encode()))
        self.assertEqual([shown.splitlines().count(BEGIN), shown.splitlines().count(END)], [1, 1])
        self.assertIn(f"\n- {END}\n- {BEGIN}\n", shown)

    def test_content_without_a_last_line_end_leaves_the_frame_on_its_own_line(self) -> None:
        self.assertIn(f"\nend\n{END}\n", self.show(make_envelope(b"end")))

    def test_no_content_at_all_is_shown_as_an_empty_message(self) -> None:
        self.assertTrue(self.show(make_envelope(None)).endswith(f"\n\n{END}\n"))

    def test_a_stream_that_can_not_print_a_character_gets_an_escape(self) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
        self.deliver(Debugging(stream), make_envelope("é\r\n"))
        self.assertIn(b"\n\\xe9\n", raw.getvalue())

    def test_a_closed_stream_is_an_error_and_no_250(self) -> None:
        stream = io.StringIO()
        stream.close()
        coroutine = Debugging(stream).handle_DATA(None, make_session(), make_envelope(b""))
        self.failureResultOf(Deferred.fromCoroutine(coroutine), ValueError)

    def test_a_broken_stream_is_an_error_and_no_250(self) -> None:
        class Broken(io.StringIO):
            def flush(self) -> None:
                raise BrokenPipeError

        coroutine = Debugging(Broken()).handle_DATA(None, make_session(), make_envelope(b""))
        self.failureResultOf(Deferred.fromCoroutine(coroutine), SMTPReplyError)

    def test_a_stream_needs_only_write(self) -> None:
        class Writer:
            text = ""

            def write(self, text: str) -> None:
                self.text += text

        writer: Any = Writer()
        self.deliver(Debugging(writer), make_envelope(b"hello\r\n"))
        self.assertIn("\nhello\n", writer.text)

    def test_without_a_stream_it_prints_on_standard_output(self) -> None:
        self.assertIs(Debugging().stream, sys.stdout)

    @given(st.one_of(st.binary(), st.text()), st.text())
    def test_nothing_a_client_sends_puts_a_control_character_out(self, content: bytes | str, address: str) -> None:
        envelope = make_envelope(content, address, address)
        envelope.mail_options = [address]
        shown = self.show(envelope)
        self.assertNotRegex(shown, "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]")
        self.assertEqual([shown.split("\n").count(BEGIN), shown.split("\n").count(END)], [1, 1])


class TraceTests(SynchronousTestCase):
    def test_no_value_can_start_another_header(self) -> None:
        envelope = make_envelope(b"", "a\r\nBcc: x@y", "b\n\nbody@z", "c\x00\x85\u2028\udc80d")
        values = trace_values(make_session("x\r\ny"), envelope)
        self.assertEqual(
            list(values.items()),
            [("X-Peer", "x??y"), ("X-MailFrom", "a??Bcc: x@y"), ("X-RcptTo", "b??body@z, c????d")],
        )

    def test_the_null_reverse_path_and_an_unknown_peer_are_empty(self) -> None:
        self.assertEqual(
            trace_header(trace_values(make_session(None), make_envelope(b"", ""))),
            b"X-Peer: \r\nX-MailFrom: \r\nX-RcptTo: bart@example.com\r\n",
        )

    def test_many_recipients_are_folded_and_read_back_whole(self) -> None:
        addresses = [f"user{number}@example.com" for number in range(1000)]
        header = trace_header(trace_values(make_session(), make_envelope(b"", "a@b.example", *addresses)))
        self.assertLess(max(map(len, header.split(b"\r\n"))), 100)
        message = email.message_from_bytes(header, policy=email.policy.default)
        self.assertEqual(message["X-RcptTo"], ", ".join(addresses))

    def test_addresses_beyond_ascii_are_encoded_and_read_back(self) -> None:
        header = trace_header(trace_values(make_session(), make_envelope(b"", "josé@example.com", "用户@例子.example")))
        self.assertTrue(header.isascii())
        message = email.message_from_bytes(header, policy=email.policy.default)
        self.assertEqual([message["X-MailFrom"], message["X-RcptTo"]], ["josé@example.com", "用户@例子.example"])


class SplitHeaderTests(SynchronousTestCase):
    def check(self, content: bytes, header: bytes, body: bytes) -> None:
        self.assertEqual(split_header(content), (header, body))
        self.assertEqual(split_header(content.decode()), (header.decode(), body.decode()))

    def test_an_honest_message_stays_byte_for_byte(self) -> None:
        self.check(
            b"From: a\r\nSubject: x\r\n y\r\n\tz\r\nA:\r\n\r\nX-Peer: in the body\r\n",
            b"From: a\r\nSubject: x\r\n y\r\n\tz\r\nA:\r\n",
            b"\r\nX-Peer: in the body\r\n",
        )

    def test_forged_headers_go_with_their_continuation_lines(self) -> None:
        body = b"\r\n4\r\nX-Peer: 5\r\nX-RCPTTO:6"
        self.check(
            b"x-peer: 1\r\n a\r\n\tb\r\nTo: c\r\n d\r\nX-MAILFROM : 2\r\nX-RcptTo\t: 3\r\nX-Pee: f\r\n" + body,
            b"To: c\r\n d\r\nX-Pee: f\r\n",
            body,
        )
        self.check(b"X-Peer: 1\r\nX-Peers: 2\r\nX-Peer:", b"X-Peers: 2\r\n", b"")

    def test_a_forged_header_behind_a_bare_line_end_goes(self) -> None:
        self.check(b"A: 1\rX-Peer: 2\nB: 3\nX-RcptTo: 4\rC: 5\n\nbody", b"A: 1\rB: 3\nC: 5\n", b"\nbody")

    def test_a_first_line_can_not_continue_our_last_header(self) -> None:
        self.check(b" , evil@example.com\r\nSubject: x\r\n", b"", b"\r\n , evil@example.com\r\nSubject: x\r\n")
        self.check(b"\tx", b"", b"\r\n\tx")

    def test_a_body_without_header_gets_its_empty_line(self) -> None:
        self.check(b"Hello\r\nX-Peer: body\r\n", b"", b"\r\nHello\r\nX-Peer: body\r\n")
        self.check(b"A: 1\r\nno header\r\nX-Peer: body\r\n", b"A: 1\r\n", b"\r\nno header\r\nX-Peer: body\r\n")
        self.check(b"\r\nbody", b"", b"\r\nbody")

    def test_an_mbox_line_before_a_header_becomes_one(self) -> None:
        mbox = b"From a@b Thu Jan  1 00:00:00 1970\r\n"
        self.check(mbox + b"To: c\r\n\r\nd", b"X-Mailbox-Line: " + mbox + b"To: c\r\n", b"\r\nd")
        self.check(b"From : a@b\r\n\r\n", b"From : a@b\r\n", b"\r\n")

    def test_empty_content_stays_empty(self) -> None:
        self.check(b"", b"", b"")

    def test_it_takes_one_step_per_header_line(self) -> None:
        header, body = split_header(b"X-Peer: 1\r\n a\r\nB: 2\r\n" * 50_000 + b"a" * 100_000 + b" " * 100_000)
        self.assertEqual((header, len(body)), (b"B: 2\r\n" * 50_000, 200_002))

    @given(st.text("X-Per: \t\r\na1,From ", max_size=60))
    def test_whatever_is_sent_the_email_package_finds_only_our_trace_headers(self, content: str) -> None:
        ours = "X-Peer: 1\r\nX-MailFrom: 2\r\nX-RcptTo: 3\r\n"
        for text in (content, "A: 1\r\nX-Peer: forged\r\n" + content, "X-RcptTo:" + content, "x-peer:" + content):
            header, body = split_header(text)
            message = email.message_from_string(ours + header + body)
            self.assertEqual(
                [message.get_all(name) for name in ("X-Peer", "X-MailFrom", "X-RcptTo")], [["1"], ["2"], ["3"]]
            )
            self.assertEqual(split_header(text.encode()), (header.encode(), body.encode()))
            self.assertEqual(split_header(header + body), (header, body))


class Collecting(Message):
    """Keeps the message objects."""

    answer: Any = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.messages: list[Any] = []

    def handle_message(self, message: email.message.Message) -> Any:
        self.messages.append(message)
        return self.answer


class MessageTests(HandlerTestCase):
    def prepare(self, content: bytes | str, **options: Any) -> Any:
        handler = Collecting(**options)
        envelope = make_envelope(content, "a@b.example", "c@d.example", "e@f.example")
        self.assertEqual(self.deliver(handler, envelope), "250 OK")
        (message,) = handler.messages
        return message

    def test_it_is_a_base_class(self) -> None:
        for cls in (Message, AsyncMessage):
            with self.assertRaises(TypeError):
                cls()  # type: ignore[abstract]

    def test_the_trace_headers_come_first_and_forged_ones_are_gone(self) -> None:
        for content in (
            b"X-Peer: forged\r\nSubject: x\r\nx-rcptto: forged@example.com\r\n\r\nbody\r\n",
            "X-Peer: forged\r\nSubject: x\r\nx-rcptto: forged@example.com\r\n\r\nbody\r\n",
        ):
            message = self.prepare(content)
            self.assertIs(type(message), email.message.Message)
            self.assertEqual(
                message.items(),
                [
                    ("X-Peer", "('192.0.2.1', 4321)"),
                    ("X-MailFrom", "a@b.example"),
                    ("X-RcptTo", "c@d.example, e@f.example"),
                    ("Subject", "x"),
                ],
            )
            self.assertEqual(message.get_payload(), "body\r\n")

    def test_the_rest_is_serialised_as_it_came(self) -> None:
        rest = b"Subject: =?utf-8?q?caf=C3=A9?=\r\n and more\r\nX: \xc3\xa9\r\n\r\n\xff\x00 8 bit\r\n.\r\nFrom x\r\n"
        message = self.prepare(rest)
        self.assertTrue(message.as_bytes(policy=message.policy.clone(linesep="\r\n")).endswith(b"\r\n" + rest))

    def test_a_message_class_is_used(self) -> None:
        class Own(email.message.Message):
            pass

        class WithoutPolicy(email.message.Message):
            def __init__(self) -> None:
                super().__init__()

        self.assertIs(type(self.prepare(b"", message_class=Own)), Own)
        self.assertIs(type(self.prepare("", message_class=WithoutPolicy)), WithoutPolicy)

    def test_a_modern_policy_gives_an_email_message(self) -> None:
        message = self.prepare("Subject: x\r\n\r\n日本\r\n".encode(), policy=email.policy.SMTPUTF8)
        self.assertIs(type(message), email.message.EmailMessage)
        self.assertEqual(message.keys(), ["X-Peer", "X-MailFrom", "X-RcptTo", "Subject"])
        self.assertEqual(message["X-RcptTo"], "c@d.example, e@f.example")
        self.assertIsNotNone(message.get_body())

    def test_addresses_beyond_ascii_are_what_they_are(self) -> None:
        for policy in (None, email.policy.default):
            handler = Collecting(policy=policy)
            self.deliver(handler, make_envelope(b"", "josé@example.com"))
            self.assertEqual(handler.messages[0]["X-MailFrom"], "josé@example.com")
            self.assertTrue(handler.messages[0].as_bytes().isascii())

    def test_an_address_with_a_line_end_adds_no_header(self) -> None:
        for policy in (None, email.policy.default):
            handler = Collecting(policy=policy)
            self.deliver(handler, make_envelope(b"", "a\r\nBcc: x@y"))
            self.assertEqual(handler.messages[0]["X-MailFrom"], "a??Bcc: x@y")

    def test_an_overridden_prepare_message_is_used(self) -> None:
        class Bare(Collecting):
            def prepare_message(self, session: Session, envelope: Envelope) -> email.message.Message:
                message = email.message.Message()
                message["Seen"] = f"{session.peer[0]} {envelope.mail_from}"
                return message

        handler = Bare()
        self.deliver(handler, make_envelope(b"", "a@b.example"))
        self.assertEqual(handler.messages[0].items(), [("Seen", "192.0.2.1 a@b.example")])

    def test_without_content_there_is_no_250(self) -> None:
        coroutine = Collecting().handle_DATA(None, make_session(), make_envelope(None))
        self.failureResultOf(Deferred.fromCoroutine(coroutine), TypeError)

    def test_a_status_that_handle_message_returns_is_the_answer(self) -> None:
        handler = Collecting()
        handler.answer = "550 5.7.1 not wanted"
        self.assertEqual(self.deliver(handler, make_envelope(b"")), "550 5.7.1 not wanted")
        handler.answer = Reply(450, None, ("later",))
        self.assertEqual(self.deliver(handler, make_envelope(b"")), handler.answer)

    def test_anything_else_that_handle_message_returns_is_a_250(self) -> None:
        handler = Collecting()
        for answer in (None, True, 42, "", "<message-id@example.com>", ["550 no"]):
            handler.answer = answer
            self.assertEqual(self.deliver(handler, make_envelope(b"")), "250 OK")

    def test_an_error_in_handle_message_is_no_250(self) -> None:
        class Failing(Message):
            def handle_message(self, message: email.message.Message) -> None:
                raise OSError("disk full")

        coroutine = Failing().handle_DATA(None, make_session(), make_envelope(b""))
        self.failureResultOf(Deferred.fromCoroutine(coroutine), OSError)

    def test_an_async_handle_message_is_awaited_here_too(self) -> None:
        done: list[Any] = []

        class Async(Message):
            async def handle_message(self, message: email.message.Message) -> None:
                done.append(message)

        self.assertEqual(self.deliver(Async(), make_envelope(b"")), "250 OK")
        self.assertEqual(len(done), 1)


class AsyncMessageTests(HandlerTestCase):
    def test_it_is_a_message_handler(self) -> None:
        self.assertTrue(issubclass(AsyncMessage, Message))

    def test_there_is_no_250_before_the_deferred_fires(self) -> None:
        waiting: Deferred[str | None] = Deferred()

        class Waiting(AsyncMessage):
            def handle_message(self, message: email.message.Message) -> Deferred[str | None]:
                return waiting

        answer = Deferred.fromCoroutine(Waiting().handle_DATA(None, make_session(), make_envelope(b"")))
        self.assertNoResult(answer)
        waiting.callback(None)
        self.assertEqual(self.successResultOf(answer), "250 OK")

    def test_a_coroutine_is_awaited_and_its_status_used(self) -> None:
        class Refusing(AsyncMessage):
            async def handle_message(self, message: email.message.Message) -> str:
                return f"550 no {message['Subject']}"

        self.assertEqual(self.deliver(Refusing(), make_envelope(b"Subject: cats\r\n")), "550 no cats")

    def test_an_asyncio_awaitable_is_awaited(self) -> None:
        class InAsyncio(AsyncMessage):
            async def handle_message(self, message: email.message.Message) -> None:
                future = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(future.set_result, None)
                await future
                assert self.loop is asyncio.get_running_loop()

        async def run() -> Any:
            return await InAsyncio().handle_DATA(None, make_session(), make_envelope(b""))

        self.assertEqual(asyncio.run(run()), "250 OK")

    def test_the_loop_given_is_kept(self) -> None:
        class Own(AsyncMessage):
            async def handle_message(self, message: email.message.Message) -> None:
                pass

        loop: Any = object()
        self.assertIs(Own(loop=loop).loop, loop)
        handler = Own()
        self.assertIsNone(handler.loop)
        handler.loop = loop
        self.assertIs(handler.loop, loop)


class PageTests(SynchronousTestCase):
    def test_the_examples_of_the_page_work(self) -> None:
        if not PAGE.exists():
            self.skipTest("the documentation is not here")
        failed, tried = doctest.testfile(
            str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        )
        self.assertEqual(failed, 0)
        self.assertGreater(tried, 10)
