"""The client: replies read, content written, one answer for each question."""

from __future__ import annotations

import itertools
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.handlers.forwarding.client import ClientError, ConnectionGone, SMTPClient
from twisted_smtpd.handlers.forwarding.credentials import Credentials
from twisted_smtpd.wire.replies import Reply
from twisted_smtpd.wire.sending import (
    MAX_LINE,
    MAX_REPLY,
    MalformedReply,
    ReplyReader,
    end_lines,
    extensions_of,
    stuff_dots,
)

REPLIES = b"220 next.example\r\n250-one\r\n250 two\r\n550-5.1.1 no\n550 5.1.1 such user\n354\r\n"


class ReplyReaderTests(SynchronousTestCase):
    EXPECTED = (
        Reply(220, None, ("next.example",)),
        Reply(250, None, ("one", "two")),
        Reply(550, "5.1.1", ("no", "such user")),
        Reply(354),
    )

    @given(st.lists(st.integers(0, len(REPLIES))))
    def test_replies_are_the_same_however_they_arrive(self, cuts: list[int]) -> None:
        edges = [0, *sorted(cuts), len(REPLIES)]
        reader = ReplyReader()
        pieces = (REPLIES[a:b] for a, b in itertools.pairwise(edges))
        self.assertEqual([reply for piece in pieces for reply in reader.feed(piece)], list(self.EXPECTED))
        self.assertFalse(reader.pending)

    @given(st.binary())
    def test_whatever_a_server_sends_is_replies_or_malformed(self, data: bytes) -> None:
        try:
            replies = ReplyReader().feed(data)
        except MalformedReply:
            return
        self.assertTrue(all(200 <= reply.code < 560 for reply in replies))

    def test_unknown_codes_are_read_by_their_first_digit(self) -> None:
        self.assertEqual([r.code for r in ReplyReader().feed(b"571 no\r\n299 ok\r\n499 eh\r\n")], [550, 250, 450])

    def test_a_reply_without_end_takes_no_memory(self) -> None:
        for data in (b"2" * (MAX_LINE + 1), b"250 " + b"x" * MAX_LINE + b"\r\n"):
            self.assertRaises(MalformedReply, ReplyReader().feed, data)
        reader = ReplyReader()
        line = b"250-" + b"x" * 1000 + b"\r\n"
        with self.assertRaises(MalformedReply):
            for _ in range(MAX_REPLY // 1000 + 1):
                reader.feed(line)

    def test_part_of_a_reply_is_pending(self) -> None:
        for data in (b"2", b"250-one\r\n"):
            reader = ReplyReader()
            self.assertEqual(reader.feed(data), [])
            self.assertTrue(reader.pending)

    def test_a_bare_carriage_return_starts_no_line(self) -> None:
        self.assertEqual(ReplyReader().feed(b"250 a\r550 b\r\n"), [Reply(250, None, ("a?550 b",))])

    def test_a_reply_has_one_code(self) -> None:
        self.assertRaises(MalformedReply, ReplyReader().feed, b"250-a\r\n550 b\r\n")

    def test_extensions(self) -> None:
        reply = Reply(250, None, ("next.example hello", "size 10", "AUTH=LOGIN", "AUTH PLAIN LOGIN", "PIPELINING"))
        self.assertEqual(extensions_of(reply), {"SIZE": "10", "AUTH": "LOGIN PLAIN LOGIN", "PIPELINING": ""})


class ContentTests(SynchronousTestCase):
    @given(st.text("a.\r\n").map(str.encode))
    def test_no_message_has_an_end_of_data_in_it(self, content: bytes) -> None:
        sent = stuff_dots(end_lines(content))
        self.assertTrue(not sent or sent.endswith(b"\r\n"))
        self.assertNotIn(b"\r\n.\r\n", b"\r\n" + sent)
        self.assertEqual(sent.replace(b"\r\n", b"").translate(None, b"a. "), b"")
        received = [line[1:] if line.startswith(b".") else line for line in sent.split(b"\r\n")[:-1]]
        expected = re.sub(rb"\r*\n", b"\n", content).replace(b"\r", b" ")
        self.assertEqual(received, expected.removesuffix(b"\n").split(b"\n") if expected else [])


class Transport(StringTransport):
    def abortConnection(self) -> None:
        self.disconnecting = True


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.client = SMTPClient(self.clock, timeout=10)
        self.transport = Transport()
        self.client.makeConnection(self.transport)

    def start(self, coroutine: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(coroutine)

    def greeted(self, offer: bytes = b"250 next.example\r\n") -> None:
        greeting = self.start(self.client.greet("mx.example"))
        self.client.dataReceived(b"220 hi\r\n")
        self.client.dataReceived(offer)
        self.successResultOf(greeting)
        self.transport.clear()

    def test_pipelined_commands_go_out_in_one_write_and_each_gets_its_answer(self) -> None:
        self.greeted(b"250-next.example\r\n250 PIPELINING\r\n")
        asked = self.start(self.client.ask_all(["RCPT TO:<a>", "RCPT TO:<b>"]))
        self.assertEqual(self.transport.value(), b"RCPT TO:<a>\r\nRCPT TO:<b>\r\n")
        self.client.dataReceived(b"250 a\r\n550 b\r\n")
        self.assertEqual([reply.code for reply in self.successResultOf(asked)], [250, 550])

    def test_a_421_fails_what_else_was_asked(self) -> None:
        self.greeted(b"250-next.example\r\n250 PIPELINING\r\n")
        asked = self.start(self.client.ask_all(["RCPT TO:<a>", "RCPT TO:<b>", "RCPT TO:<c>"]))
        self.client.dataReceived(b"250 a\r\n421 b\r\n250 c\r\n")
        self.failureResultOf(asked, ConnectionGone)
        self.assertFalse(self.client.usable)

    def test_a_transport_that_can_not_turn_nagle_off(self) -> None:
        """A Unix socket has no such option; Twisted 24.7 lets the error through."""

        def no_such_option(enabled: bool) -> None:
            raise OSError(95, "Operation not supported")

        transport: Any = StringTransport()
        transport.setTcpNoDelay = no_such_option
        client = SMTPClient(Clock(), timeout=10)
        client.makeConnection(transport)
        client.dataReceived(b"220 hi\r\n")
        self.assertTrue(client.usable)

    def test_nothing_is_asked_of_a_connection_that_has_ended(self) -> None:
        self.greeted()
        self.client.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.start(self.client.ask("NOOP")), ConnectionGone)
        self.failureResultOf(self.start(self.client.send_content(b"", 1, 5)), ConnectionGone)
        self.client.quit()
        self.client.dataReceived(b"250 too late\r\n")
        self.assertEqual(self.transport.value(), b"")

    def test_silence_has_a_limit_and_each_answer_starts_it_anew(self) -> None:
        self.greeted(b"250-next.example\r\n250 PIPELINING\r\n")
        asked = self.start(self.client.ask_all(["RCPT TO:<a>", "RCPT TO:<b>"]))
        self.clock.advance(9)
        self.client.dataReceived(b"250 a\r\n")
        self.clock.advance(9)
        self.assertNoResult(asked)
        self.clock.advance(2)
        error = self.failureResultOf(asked, ClientError).value
        self.assertEqual(str(error.reply), "451 4.4.2 The next host takes too long, try again later")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_idle_connection_has_no_timer(self) -> None:
        self.greeted()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def send(self, content: bytes, replies: int = 1) -> Deferred[Any]:
        self.greeted()
        return self.start(self.client.send_content(content, replies, 100))

    def hold_after_first_chunk(self) -> None:
        write = self.transport.write

        def write_and_pause(data: bytes) -> None:
            write(data)
            self.transport.producer.pauseProducing()  # type: ignore[union-attr]

        self.transport.write = write_and_pause  # type: ignore[method-assign]

    def test_a_yes_before_the_end_of_data_is_no_yes(self) -> None:
        self.hold_after_first_chunk()
        self.client.dataReceived(b"220 hi\r\n")
        sent = self.start(self.client.send_content(b"x" * 100_000, 1, 100))
        self.assertTrue(self.client.sending)
        self.client.dataReceived(b"250 thanks already\r\n")
        self.failureResultOf(sent, ClientError)
        self.assertNotIn(b"\r\n.\r\n", self.transport.value())

    def test_a_next_host_that_stops_reading_is_given_up_on(self) -> None:
        self.hold_after_first_chunk()
        self.client.dataReceived(b"220 hi\r\n")
        sent = self.start(self.client.send_content(b"x" * 100_000, 1, 100))
        self.clock.advance(101)
        self.failureResultOf(sent, ClientError)
        self.assertTrue(self.transport.disconnecting)

    def test_a_no_before_the_end_of_data_is_heard_and_ends_the_connection(self) -> None:
        self.hold_after_first_chunk()
        self.client.dataReceived(b"220 hi\r\n")
        sent = self.start(self.client.send_content(b"x" * 100_000, 1, 100))
        self.client.dataReceived(b"552 5.3.4 too large\r\n")
        self.assertEqual([reply.code for reply in self.successResultOf(sent)], [552])
        self.assertFalse(self.client.usable)
        self.assertNotIn(b"\r\n.\r\n", self.transport.value())

    def test_answers_per_recipient_have_the_long_limit_each(self) -> None:
        sent = self.send(b"x", replies=2)
        self.clock.advance(99)
        self.client.dataReceived(b"250 one\r\n")
        self.clock.advance(99)
        self.client.dataReceived(b"250 two\r\n")
        self.assertEqual(len(self.successResultOf(sent)), 2)

    def test_answers_heard_before_the_connection_ends_count(self) -> None:
        sent = self.send(b"x", replies=3)
        self.client.dataReceived(b"250 one\r\n")
        self.client.connectionLost(Failure(ConnectionLost()))
        self.assertEqual([reply.code for reply in self.successResultOf(sent)], [250])

    def test_credentials_are_not_shown(self) -> None:
        self.assertEqual(repr(Credentials("anne", "s3cret")), "<Credentials>")
