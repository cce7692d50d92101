"""Lines in, replies out: what a connection has of Twisted's ``LineReceiver``."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    ENVELOPE,
    MESSAGE,
    Client,
    Promises,
    Recorder,
    answering,
    clock_of,
    codes,
    connect,
    hooks,
    pass_time,
)
from tests.support.streaming import Reader
from twisted_smtpd.protocol.connection import MAX_HELD, MAX_SENT_AHEAD
from twisted_smtpd.smtp import SMTP

OK = b"250 2.0.0 OK\r\n"


class Blobs(SMTP):
    """Takes a number of octets that are no lines: ``BLOB 5``."""

    wanted = 0

    def __init__(self, handler: object, **options: Any) -> None:
        super().__init__(handler, **options)
        self.chunks: list[bytes] = []

    async def smtp_BLOB(self, arg: str | None) -> None:
        self.wanted = int(arg or "0")
        self.setRawMode()
        self.sendLine(b"go on")

    def rawDataReceived(self, data: bytes) -> None:
        data, rest = data[: self.wanted], data[self.wanted :]
        self.wanted -= len(data)
        self.chunks.append(data)
        if not self.wanted:
            self.sendLine(b"thanks")
            self.setLineMode(rest)


class RawModeTests(SynchronousTestCase):
    data = b"NOOP\r\nBLOB 9\r\n.\r\nQUIT\r\nNOOP\r\nBLOB 1\r\nxRSET\r\n"
    blob = b".\r\nQUIT\r\n"
    said = OK + b"go on\r\nthanks\r\n" + OK + b"go on\r\nthanks\r\n" + OK

    def test_what_comes_behind_the_command_is_raw_until_lines_are_read_again(self) -> None:
        client = connect(protocol=Blobs)
        self.assertEqual(client.send(self.data), self.said)
        self.assertEqual(b"".join(client.protocol.chunks), self.blob + b"x")

    def test_split_anywhere(self) -> None:
        for cut in range(len(self.data)):
            client = connect(protocol=Blobs)
            said = client.send(self.data[:cut]) + client.send(self.data[cut:])
            self.assertEqual(said, self.said, cut)
            self.assertEqual(b"".join(client.protocol.chunks), self.blob + b"x", cut)

    def test_octet_by_octet(self) -> None:
        client = connect(protocol=Blobs)
        said = b"".join(client.send(bytes((octet,))) for octet in self.data)
        self.assertEqual(said, self.said)
        self.assertEqual(len(client.protocol.chunks), len(self.blob + b"x"))

    def test_lines_read_again_from_outside(self) -> None:
        """By a timer for instance, which does not run below dataReceived()."""
        client = connect(protocol=Blobs)
        client.send(b"BLOB 100\r\nabc")
        client.protocol.setLineMode(b"NOOP\r\nRS")
        self.assertEqual(client.read(), OK)
        self.assertEqual(client.send(b"ET\r\n"), OK)

    def test_what_has_arrived_comes_behind_what_was_read_too_much(self) -> None:
        class Mine(Blobs):
            async def smtp_BLOB(self, arg: str | None) -> None:
                self.setLineMode(b"NO")

        self.assertEqual(connect(protocol=Mine).send(b"BLOB\r\nOP\r\n"), OK)

    def test_a_hook_that_waits(self) -> None:
        """Raw data waits for the end of the command, as commands do."""
        promises = Promises()

        class Mine(Blobs):
            async def smtp_BLOB(self, arg: str | None) -> None:
                await super().smtp_BLOB(arg)
                await promises()

        client = connect(protocol=Mine)
        client.send(b"BLOB 3\r\nabcNOOP\r\n")
        self.assertEqual(client.protocol.chunks, [])
        promises.made[0].callback(None)
        self.assertEqual(client.protocol.chunks, [b"abc"])
        self.assertEqual(client.read(), b"thanks\r\n" + OK)

    def test_a_class_without_the_method_is_an_error(self) -> None:
        self.assertRaises(TypeError, connect().protocol.setRawMode)

    def test_within_a_message_neither_mode_can_be_set(self) -> None:
        for setting in ("setRawMode", "setLineMode"):
            client = connect(Recorder(), protocol=Blobs)
            client.send(ENVELOPE + b"DATA\r\nhi\r\n")
            self.assertRaises(RuntimeError, getattr(client.protocol, setting))
            self.assertEqual(codes(client.send(b".\r\nNOOP\r\n")), [250, 250])

    def test_nor_while_a_hook_reads_it(self) -> None:
        client = connect(Reader(), protocol=Blobs)
        client.send(ENVELOPE + b"DATA\r\nhi\r\n")
        self.assertRaises(RuntimeError, client.protocol.setRawMode)

    def test_when_the_hook_has_the_message_it_can(self) -> None:
        def hook(server: Blobs, *arguments: Any) -> str:
            server.wanted = 3
            server.setRawMode()
            return "250 OK"

        client = connect(hooks(handle_DATA=hook), protocol=Blobs)
        self.assertTrue(client.send(MESSAGE + b"\r\n.NOOP\r\n").endswith(b"thanks\r\n" + OK))
        self.assertEqual(client.protocol.chunks, [b"\r\n."])

    def test_a_silent_client_is_idle_there_too(self) -> None:
        client = connect(protocol=Blobs, timeout=10)
        client.send(b"BLOB 3\r\nab")
        pass_time(client, 12)
        self.assertEqual(codes(client.read()), [421])

    def test_a_client_that_goes_there(self) -> None:
        client = connect(protocol=Blobs)
        client.send(b"BLOB 3\r\nab")
        client.lose()
        self.assertEqual(client.protocol.connections.open, set())
        self.assertEqual(clock_of(client).getDelayedCalls(), [])


class ClearLineBufferTests(SynchronousTestCase):
    def test_it_takes_what_was_sent_ahead(self) -> None:
        taken: list[bytes] = []

        def hook(server: SMTP, *arguments: Any) -> str:
            taken.append(server.clearLineBuffer())
            return "250 OK"

        client = connect(hooks(handle_NOOP=hook))
        self.assertEqual(client.send(b"NOOP\r\nRSET\r\nQU"), OK)
        self.assertEqual(taken, [b"RSET\r\nQU"])
        self.assertEqual(codes(client.send(b"RSET\r\n")), [250])

    def test_half_a_line(self) -> None:
        client = connect()
        client.send(b"QU")
        self.assertEqual(client.protocol.clearLineBuffer(), b"QU")
        self.assertEqual(client.protocol.clearLineBuffer(), b"")
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [250])

    def test_a_transport_that_was_stopped_for_it_reads_on(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_VRFY=promises))
        client.send(b"VRFY a\r\n" + b"NOOP\r\n" * MAX_SENT_AHEAD)
        self.assertEqual(client.transport.producerState, "paused")
        client.protocol.clearLineBuffer()
        promises.made[0].callback("250 OK")
        self.assertEqual(codes(client.read()), [250])
        self.assertEqual(client.transport.producerState, "producing")


class SendLineTests(SynchronousTestCase):
    def test_in_order_with_replies_of_pipelined_commands(self) -> None:
        def hook(server: SMTP, session: Any, envelope: Any, arg: str | None) -> str:
            server.sendLine(b"* " + (arg or "").encode())
            return f"250 {arg}"

        client = connect(hooks(handle_NOOP=hook))
        writes = client.transport.writes
        said = client.send(b"RSET\r\nNOOP a\r\nRSET\r\nNOOP b\r\n")
        self.assertEqual(said, OK + b"* a\r\n250 2.0.0 a\r\n" + OK + b"* b\r\n250 2.0.0 b\r\n")
        self.assertEqual(client.transport.writes, writes + 1)

    def test_at_once_where_nothing_is_read(self) -> None:
        client = connect()
        client.protocol.sendLine(b"* hello")
        self.assertEqual(client.read(), b"* hello\r\n")

    def test_without_end(self) -> None:
        """What is due is sent when it is much, though the commands of a read go on."""
        most: list[int] = []

        def hook(server: SMTP, *arguments: Any) -> str:
            for _ in range(1000):
                server.sendLine(b"x" * 100)
                most.append(len(server._out))
            return "250 OK"

        self.assertEqual(len(connect(hooks(handle_NOOP=hook)).send(b"NOOP\r\n")), 1000 * 102 + len(OK))
        self.assertLessEqual(max(most), MAX_HELD)

    def test_not_after_the_end(self) -> None:
        client = connect()
        client.send(b"QUIT\r\n")
        client.protocol.sendLine(b"* hello")
        self.assertEqual(client.read(), b"")


class ProducerTests(SynchronousTestCase):
    """A connection is a producer: a consumer, or a program, may have it read nothing more for a while."""

    def paused(self, handler: Any = None, protocol: type[SMTP] = SMTP, **options: Any) -> Client:
        client = connect(handler, protocol, **options)
        client.protocol.pauseProducing()
        return client

    def test_while_idle(self) -> None:
        client = self.paused()
        self.assertEqual(client.transport.producerState, "paused")
        # Octets that the transport had read already.
        self.assertEqual(client.send(b"NOOP\r\nRSET\r\n"), b"")
        client.protocol.resumeProducing()
        self.assertEqual(client.read(), OK * 2)
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [250])

    def test_between_pipelined_commands(self) -> None:
        def hook(server: SMTP, *arguments: Any) -> str:
            server.pauseProducing()
            return "250 OK"

        client = connect(hooks(handle_NOOP=hook))
        self.assertEqual(client.send(b"NOOP\r\nRSET\r\nNOOP\r\nRSET\r\n"), OK)
        client.protocol.resumeProducing()
        self.assertEqual(client.read(), OK * 2)
        client.protocol.resumeProducing()
        self.assertEqual(client.read(), OK)

    def test_paused_and_resumed_by_one_hook(self) -> None:
        def hook(server: SMTP, *arguments: Any) -> str:
            server.pauseProducing()
            server.resumeProducing()
            return "250 OK"

        client = connect(hooks(handle_NOOP=hook))
        self.assertEqual(client.send(b"NOOP\r\nNOOP\r\n"), OK * 2)

    def test_while_a_hook_is_at_work(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_VRFY=promises))
        client.send(b"VRFY a\r\nNOOP\r\n")
        client.protocol.pauseProducing()
        promises.made[0].callback("250 first")
        self.assertEqual(client.read(), b"250 2.0.0 first\r\n")
        client.protocol.resumeProducing()
        self.assertEqual(client.read(), OK)

    def test_resumed_while_a_hook_is_at_work(self) -> None:
        """The next command still waits for the hook."""
        promises = Promises()
        client = connect(hooks(handle_VRFY=promises))
        client.send(b"VRFY a\r\nNOOP\r\n")
        client.protocol.pauseProducing()
        client.protocol.resumeProducing()
        self.assertEqual((client.read(), client.transport.producerState), (b"", "producing"))
        promises.made[0].callback("250 first")
        self.assertEqual(client.read(), b"250 2.0.0 first\r\n" + OK)

    def test_within_a_message(self) -> None:
        for handler in (Recorder(), Reader()):
            client = connect(handler)
            client.send(ENVELOPE + b"DATA\r\n")
            client.protocol.pauseProducing()
            self.assertEqual(client.send(b"hi\r\n.\r\nNOOP\r\n"), b"")
            client.protocol.resumeProducing()
            self.assertEqual(codes(client.read()), [250, 250])

    def test_a_hook_that_has_read_its_stream_does_not_resume_it(self) -> None:
        promises = Promises()
        reader = Reader(promises)
        client = connect(reader)
        client.send(ENVELOPE + b"DATA\r\n")
        while client.transport.producerState == "producing":
            client.protocol.dataReceived(b"x" * 998 + b"\r\n")
        client.protocol.pauseProducing()
        for promise in promises.made:
            promise.callback(None)
        client.protocol.dataReceived(b".\r\n")
        self.assertEqual((client.read(), client.transport.producerState), (b"", "paused"))

    def test_more_than_is_read_ahead(self) -> None:
        client = self.paused()
        client.send(b"NOOP\r\n" * MAX_SENT_AHEAD)
        client.protocol.resumeProducing()
        self.assertEqual(client.read(), OK * MAX_SENT_AHEAD)
        self.assertEqual(client.transport.producerState, "producing")

    def test_a_client_that_does_not_read_either(self) -> None:
        client = connect()
        client.transport.room = 0
        self.assertEqual(client.send(b"NOOP\r\n"), OK)
        client.protocol.dataReceived(b"NOOP\r\n")
        client.protocol.pauseProducing()
        client.transport.producer.resumeProducing()
        self.assertEqual(client.read(), b"")
        client.protocol.resumeProducing()
        self.assertEqual(client.read(), OK)

    def test_in_raw_mode(self) -> None:
        client = connect(protocol=Blobs)
        client.send(b"BLOB 3\r\n")
        client.protocol.pauseProducing()
        client.send(b"abc")
        self.assertEqual(client.protocol.chunks, [])
        client.protocol.resumeProducing()
        self.assertEqual(client.protocol.chunks, [b"abc"])

    def test_the_client_is_not_silent_while_it_is_not_read_from(self) -> None:
        """It has its whole time again when it is."""
        client = connect(timeout=64)
        pass_time(client, 60)
        client.protocol.pauseProducing()
        client.protocol.resumeProducing()
        pass_time(client, 60)
        self.assertFalse(client.closed)
        pass_time(client, 6)
        self.assertEqual(codes(client.read()), [421])

    def test_nor_is_it_slow(self) -> None:
        client = connect(timeout=300)
        client.send(ENVELOPE + b"DATA\r\n")
        pass_time(client, 58)
        client.protocol.pauseProducing()
        pass_time(client, 200)
        client.protocol.resumeProducing()
        pass_time(client, 10)
        self.assertFalse(client.closed)
        pass_time(client, 60)
        self.assertTrue(client.read().endswith(b"421 4.4.2 Too slow, closing the connection\r\n"))

    def test_a_client_that_has_finished_sending(self) -> None:
        client = self.paused()
        client.send(b"NOOP\r\n")
        client.finish_sending()
        self.assertFalse(client.closed)
        client.protocol.resumeProducing()
        self.assertEqual(client.read(), OK)
        self.assertTrue(client.closed)

    def test_not_after_the_end(self) -> None:
        client = self.paused()
        client.protocol.close()
        client.protocol.resumeProducing()
        self.assertEqual(client.transport.resumes, 0)

    def test_stopped(self) -> None:
        client = connect(hooks(handle_NOOP=answering("250 OK")))
        client.protocol.stopProducing()
        self.assertTrue(client.closed)
        client.protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(client.read(), b"")

    def test_stopped_within_a_message(self) -> None:
        """Nothing of it is handed on."""
        handler = Recorder()
        client = connect(handler)
        client.send(MESSAGE[:-3])
        client.protocol.stopProducing()
        self.assertTrue(client.closed)
        client.protocol.dataReceived(b".\r\n")
        client.lose()
        self.assertEqual((handler.envelopes, client.protocol.connections.buffered), ([], 0))

    def test_a_consumer_that_has_it_wait(self) -> None:
        """As Twisted's transports do with the producer that they are given."""
        sink = StringTransport()
        client = connect(protocol=Blobs)
        sink.registerProducer(client.protocol, True)
        sink.producer.pauseProducing()
        self.assertEqual(client.send(b"NOOP\r\n"), b"")
        sink.producer.resumeProducing()
        self.assertEqual(client.read(), OK)
