"""What goes to the client: immediate writes, what is left of them, and clients that don't read."""

from __future__ import annotations

from errno import ECONNRESET, ENOBUFS, EWOULDBLOCK
from types import SimpleNamespace
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support.fakes import Transport
from twisted_smtpd.runtime.output import Output


class Socket(tcp.Server):
    """A TCP transport without a socket: ``accepts`` says what each attempt to send takes, or what it returns."""

    def __init__(self, *accepts: Any) -> None:
        self.accepts = list(accepts)
        self.sent = b""
        self.queued = b""
        self.dataBuffer = b""
        self._tempDataBuffer: list[bytes] = []
        self.producers: list[Any] = []
        self.ended: list[str] = []

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    @property
    def socket(self) -> Any:  # type: ignore[override]
        return self

    def send(self, data: bytes) -> int:
        taken = self.accepts.pop(0)
        if isinstance(taken, int):
            self.sent += data[:taken]
            return min(taken, len(data))
        raise taken

    def write(self, data: bytes) -> None:
        self.queued += data
        self._tempDataBuffer.append(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producers.append(producer)

    def unregisterProducer(self) -> None:
        self.ended.append("unregister")

    def loseConnection(self) -> None:
        self.ended.append("lose")

    def abortConnection(self) -> None:
        self.ended.append("abort")

    def startTLS(self, creator: Any, normal: bool = True) -> None:
        self.ended.append(creator)


class OutputMixin(SynchronousTestCase):
    def make(self, transport: Any) -> Output:
        self.events: list[str] = []
        self.now = 5.0
        output = Output(
            transport, lambda: self.now, lambda: self.events.append("blocked"), lambda: self.events.append("freed")
        )
        # The exact type is what makes a transport one that may be written to directly.
        output.direct = isinstance(transport, Socket)
        return output


class DirectTests(OutputMixin):
    def test_nagle_is_off(self) -> None:
        socket = Socket()
        self.make(socket)
        self.assertTrue(socket.no_delay)

    def test_only_plain_sockets_are_direct(self) -> None:
        for transport in (Transport(), Socket()):
            self.assertFalse(Output(transport, lambda: 0.0, lambda: None, lambda: None).direct)
        plain = tcp.Server.__new__(tcp.Server)
        self.assertTrue(Output(plain, lambda: 0.0, lambda: None, lambda: None).direct)

    def test_what_the_socket_takes_is_sent_at_once(self) -> None:
        socket = Socket(100)
        self.make(socket).write(b"hello")
        self.assertEqual((socket.sent, socket.queued, socket.producers), (b"hello", b"", []))

    def test_what_is_left_is_queued(self) -> None:
        socket = Socket(2)
        output = self.make(socket)
        output.write(b"hello")
        self.assertEqual((socket.sent, socket.queued, socket.producers), (b"he", b"llo", [output]))

    def test_a_full_socket(self) -> None:
        socket = Socket(BlockingIOError(EWOULDBLOCK, "full"))
        self.make(socket).write(b"hello")
        self.assertEqual((socket.sent, socket.queued), (b"", b"hello"))

    def test_nothing_overtakes_what_is_queued(self) -> None:
        socket = Socket(2, 100)
        output = self.make(socket)
        output.write(b"hello")
        output.write(b"world")
        self.assertEqual((socket.sent, socket.queued, len(socket.producers)), (b"he", b"lloworld", 1))
        socket._tempDataBuffer, socket.dataBuffer = [], b"lloworld"
        output.write(b"!")
        self.assertEqual(socket.queued, b"lloworld!")
        socket._tempDataBuffer, socket.dataBuffer = [], b""
        output.write(b"again")
        self.assertEqual(socket.sent, b"heagain")

    def test_under_tls_nothing_goes_past_the_transport(self) -> None:
        socket = Socket(100)
        output = self.make(socket)
        output.start_tls("a creator")  # type: ignore[arg-type]
        output.write(b"hello")
        self.assertEqual((socket.ended, socket.sent, socket.queued), (["a creator"], b"", b"hello"))

    def sealed(self, socket: Socket) -> tuple[Output, list[Any]]:
        """An output whose replies are sealed, and what the layer is asked."""
        asked: list[Any] = []

        class Layer:
            def write(self, data: bytes) -> None:
                asked.append(data)

            def loseConnection(self) -> None:
                asked.append("lose")

        output = Output(socket, lambda: 0.0, lambda: None, lambda: None, self.batches)
        output.direct = True
        output.seal_with(Layer(), lambda data: b"<%b>" % data)
        return output, asked

    def test_sealed_replies_go_straight_to_the_socket(self) -> None:
        self.batches: Any = None
        socket = Socket(100, 2)
        output, asked = self.sealed(socket)
        output.write(b"hello")
        output.write(b"world")
        # What the socket did not take is sealed already.
        self.assertEqual((socket.sent, socket.queued, asked), (b"<hello><w", b"orld>", []))

    def test_the_last_reply_goes_by_way_of_the_layer_which_adds_to_it(self) -> None:
        self.batches = SimpleNamespace(holding=True, senders=[])
        socket = Socket()
        output, asked = self.sealed(socket)
        output.write(b"bye")
        output.close()
        self.assertEqual((socket.sent, asked), (b"", [b"bye", "lose"]))
        output.stop()
        output.send_held()
        self.assertEqual(socket.sent, b"")

    def test_a_connection_that_is_lost(self) -> None:
        socket = Socket(ConnectionResetError(ECONNRESET, "gone"))
        self.make(socket).write(b"hello")
        self.assertEqual((socket.ended, socket.queued), (["abort"], b""))

    def test_a_system_out_of_buffers(self) -> None:
        socket = Socket(OSError(ENOBUFS, "no buffers"))
        self.make(socket).write(b"hello")
        self.assertEqual((socket.ended, socket.queued), ([], b"hello"))

    def test_close(self) -> None:
        socket = Socket(100)
        output = self.make(socket)
        output.write(b"hello")
        output.close()
        self.assertEqual(socket.ended, ["lose"])

    def test_close_with_something_queued(self) -> None:
        """A transport with a producer stays open."""
        socket = Socket(1)
        output = self.make(socket)
        output.write(b"hello")
        output.close()
        self.assertEqual(socket.ended, ["unregister", "lose"])


class BlockedTests(OutputMixin):
    def test_it_is_a_streaming_producer(self) -> None:
        transport = Transport()
        output = self.make(transport)
        self.assertTrue(verifyObject(IPushProducer, output))
        output.write(b"x")
        output.write(b"y")
        self.assertIs(transport.producer, output)
        self.assertTrue(transport.streaming)
        self.assertEqual(transport.value(), b"xy")

    def test_blocked_since(self) -> None:
        output = self.make(Transport())
        self.assertIsNone(output.blocked_since)
        output.pauseProducing()
        self.now = 9.0
        output.pauseProducing()
        self.assertEqual(output.blocked_since, 5.0)
        output.resumeProducing()
        self.assertIsNone(output.blocked_since)
        self.assertEqual(self.events, ["blocked", "blocked", "freed"])

    def test_waiting_for_it(self) -> None:
        output = self.make(Transport())
        self.successResultOf(Deferred.fromCoroutine(output.drained()))
        output.pauseProducing()
        waiters = [Deferred.fromCoroutine(output.drained()) for _ in range(2)]
        for waiter in waiters:
            self.assertNoResult(waiter)
        output.resumeProducing()
        for waiter in waiters:
            self.successResultOf(waiter)

    def test_one_that_no_longer_waits(self) -> None:
        output = self.make(Transport())
        output.pauseProducing()
        waiters = [Deferred.fromCoroutine(output.drained()) for _ in range(2)]
        waiters[0].cancel()
        self.failureResultOf(waiters[0])
        output.resumeProducing()
        self.successResultOf(waiters[1])

    def test_the_end_of_the_connection(self) -> None:
        output = self.make(Transport())
        output.pauseProducing()
        waiter = Deferred.fromCoroutine(output.drained())
        output.stopProducing()
        output.stop()
        self.successResultOf(waiter)
        self.assertEqual(self.events, ["blocked"])
