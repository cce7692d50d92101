"""The message as a hook sees it, smuggling, and the memory that messages take."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    ENVELOPE,
    MESSAGE,
    Client,
    Recorder,
    answering,
    codes,
    connect,
    hooks,
    last_line,
)
from twisted_smtpd.smtp import Reply
from twisted_smtpd.wire.replies import BadStatus


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
        self.assertEqual(handler.contents, [b"a\r\n.\r\nb .\r\nc\r\n"])


class MemoryTests(SynchronousTestCase):
    """max_buffered: octets of messages of all connections."""

    def two(self, limit: int) -> tuple[Client, Client]:
        handler = Recorder()
        clock_of_both = connect().protocol.connections.timers.clock
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
        self.assertEqual(one.protocol.connections.buffered, 0)

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
        self.assertEqual(other.protocol.connections.buffered, 0)

    def test_what_is_not_kept_is_not_counted(self) -> None:
        for options in ({"data_size_limit": 100}, {"line_length_limit": 10}, {"max_buffered": 100}):
            client = connect(**options)  # type: ignore[arg-type]
            client.send(ENVELOPE + b"DATA\r\n" + b"x" * 8)
            self.assertEqual(client.protocol.connections.buffered, 8)
            client.send(b"x" * 300)
            for _ in range(3):
                client.send(b"y" * 50)
                self.assertEqual(client.protocol.connections.buffered, 0, options)

    def test_0_is_no_limit(self) -> None:
        self.assertEqual(codes(connect(max_buffered=0).send(MESSAGE))[-1], 250)

    def test_a_message_is_counted_while_its_hook_works(self) -> None:
        promise: Deferred[str] = Deferred()
        client = connect(hooks(handle_DATA=answering(promise)))
        client.send(MESSAGE)
        self.assertGreater(client.protocol.connections.buffered, 10)
        promise.callback("250 OK")
        self.assertEqual(client.protocol.connections.buffered, 0)
