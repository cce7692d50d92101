"""The sockets of one server, taken in batches: run the dialogs of all that are ready, then answer all.

A reactor takes one socket after the other: read, run, write.  To send is dear: it takes the kernel's network code, down
to the client's socket on the same machine, and Python's code and the kernel's drive each other out of the processor's
caches each time.  In batches, the dialogs run one after the other with warm caches, and then the system sends.

The sockets stay ordinary transports of Twisted.  A batch is one event of the reactor's: the ``epoll`` object in which
the server's sockets are registered is itself a thing that a reactor, any that can wait for a file descriptor, reads.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, Protocol

from twisted.internet import main, tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

try:
    from twisted.internet import unix
except ImportError:  # no such sockets here
    unix = None  # type: ignore[assignment]

__all__ = ["PLAIN_TRANSPORTS", "BatchReactor", "Batches", "joined"]

log = Logger()

#: Transports that are nothing but a socket; a subclass may read or write in a way of its own.
PLAIN_TRANSPORTS: tuple[type, ...] = (tcp.Server,) if unix is None else (tcp.Server, unix.Server)

READ: int = getattr(select, "EPOLLIN", 1)
WRITE: int = getattr(select, "EPOLLOUT", 4)

# Sockets of one batch.
MAX_SOCKETS = 64
# Seconds after which replies wait no longer for the rest of their batch (a hook may take its time), and after which the
# reactor is due, with its timers and all else.
MAX_HELD = 0.001
MAX_TURN = 0.005


def joined(transport: Any, batches: Batches | None) -> Batches | None:
    """Have a connection's socket served in batches, if that is possible.

    :param transport: of any kind.
    :param batches: those of the server, if there are any yet.
    :returns: the batches it is in.
    """
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport = transport.transport
    if type(transport) not in PLAIN_TRANSPORTS or not hasattr(select, "epoll"):
        return None
    reactor = transport.reactor
    if isinstance(reactor, BatchReactor):
        return reactor.batches
    if batches is None or batches.reactor is not reactor:
        try:
            batches = Batches(reactor)
        except OSError:
            # No file descriptor is left: the reactor can serve the socket, too.
            return None
    transport.stopReading()
    transport.stopWriting()
    transport.reactor = BatchReactor(batches)
    transport.startReading()
    if transport.dataBuffer or transport._tempDataBuffer:
        transport.startWriting()
    if transport.server is not None:
        # What the port accepts from now on is ours from the start.
        transport.server.reactor = transport.reactor
    return batches


class Sender(Protocol):
    """Has something to send at the end of a batch."""

    def send_held(self) -> None:
        """Send it."""


class BatchReactor:
    """What the reactor is to the sockets of a server: their wishes go to the batches, all else to the real one.

    It is not the batches themselves, since Python is slow to find anything in what has a ``__getattr__``.

    :param batches: the batches.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        directlyProvides(self, providedBy(batches.reactor))

    def __getattr__(self, name: str) -> Any:
        # Timers, threads and all else is no business of the batches.
        return getattr(self.batches.reactor, name)

    def addReader(self, reader: Any) -> None:
        if type(reader) in PLAIN_TRANSPORTS:
            self.batches.watch(reader, READ)
        else:
            self.batches.reactor.addReader(reader)

    def addWriter(self, writer: Any) -> None:
        if type(writer) in PLAIN_TRANSPORTS:
            self.batches.add_writer(writer)
        else:
            self.batches.reactor.addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        if type(reader) in PLAIN_TRANSPORTS:
            self.batches.unwatch(reader, READ)
        else:
            self.batches.reactor.removeReader(reader)

    def removeWriter(self, writer: Any) -> None:
        if type(writer) in PLAIN_TRANSPORTS:
            self.batches.remove_writer(writer)
        else:
            self.batches.reactor.removeWriter(writer)


@implementer(IReadDescriptor)
class Batches:
    """Stands between a reactor and the sockets of a server.

    While none of them is open, the reactor has nothing of it.

    :param reactor: the reactor.
    :ivar holding: whether what is to be sent had better wait for the end of the batch.
    :ivar senders: what sends then.
    :ivar hook_ran: whether time may have passed: the clock is looked at only then, since it costs more than what
        happens between two hooks takes.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.holding = False
        self.senders: list[Sender] = []
        self.hook_ran = False
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        self._sockets: dict[int, Any] = {}
        self._events: dict[int, int] = {}
        # These try to write at the end of the batch: what goes out at once needs no epoll_ctl.
        self._writers: dict[Any, None] = {}
        self._running = False
        # Whether the reader of some socket went away during the batch: a transport that is read no more may be closed.
        self._unread = False

    # -- for the transports --------------------------------------------------------------------------------------------

    def add_writer(self, transport: Any) -> None:
        """Have a transport write when it can."""
        if self._running:
            self._writers[transport] = None
        else:
            self.watch(transport, WRITE)

    def remove_writer(self, transport: Any) -> None:
        """Take that back."""
        self._writers.pop(transport, None)
        self.unwatch(transport, WRITE)

    def watch(self, transport: Any, event: int) -> None:
        """Have a transport act on an event of its socket's.

        :param event: ``READ`` or ``WRITE``.
        """
        fd = transport.fileno()
        events = self._events.get(fd, 0)
        if events and self._sockets[fd] is not transport:
            # Somebody has closed that one's socket, and its number is another's now: epoll has forgotten it.
            events = 0
        if events & event:
            return
        if events:
            self._epoll.modify(fd, events | event)
        else:
            self._epoll.register(fd, event)
            if not self._sockets:
                self.reactor.addReader(self)
            self._sockets[fd] = transport
        self._events[fd] = events | event

    def unwatch(self, transport: Any, event: int) -> None:
        """Take that back."""
        self._unread = True
        fd = transport.fileno()
        if self._sockets.get(fd) is not transport:
            if fd < 0 and hasattr(transport, "socket"):
                self._unwatch_lost(transport)
            return
        events = self._events[fd] & ~event
        if events == self._events[fd]:
            return
        try:
            if events:
                self._epoll.modify(fd, events)
            else:
                self._epoll.unregister(fd)
        except OSError:
            # Somebody has closed the descriptor itself, and epoll has forgotten it.
            events = 0
        if events:
            self._events[fd] = events
        else:
            self._forget(fd)

    def _unwatch_lost(self, transport: Any) -> None:
        """Forget a transport whose socket somebody has closed, or has taken away."""
        for fd in [fd for fd, other in self._sockets.items() if other is transport]:
            with suppress(OSError):
                self._epoll.unregister(fd)
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        del self._events[fd], self._sockets[fd]
        if not self._sockets:
            self.reactor.removeReader(self)

    # -- for the reactor -----------------------------------------------------------------------------------------------

    def logPrefix(self) -> str:
        return "twisted-smtpd"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, and all connections with it."""
        for transport in list(self._sockets.values()):
            self._guarded(transport.connectionLost, reason)

    def doRead(self) -> None:
        """Make batches until no socket is ready, or the reactor is due."""
        if self._running:
            # A hook runs the reactor itself.
            return
        self._running = True
        try:
            until = perf_counter() + MAX_TURN
            while events := self._epoll.poll(0, MAX_SOCKETS):
                self._batch(events)
                if len(events) == 1 or perf_counter() > until:
                    # One client alone will hardly have answered yet.
                    break
        finally:
            self._running = False

    def _batch(self, events: list[tuple[int, int]]) -> None:
        """Run the dialogs whose clients have sent something, then send what they say."""
        self.holding = True
        self._unread = False
        sockets, plain = self._sockets, tcp.Server
        try:
            since = perf_counter()
            for fd, event in events:
                transport = sockets.get(fd)
                if event != READ or type(transport) is not plain:
                    self._act(fd, event)
                # An earlier one may have closed it, which is looked at only if something was closed at all.
                elif not self._unread or self._events[fd] & READ:
                    self._read(transport)
                if self.hook_ran:
                    self.hook_ran = False
                    if perf_counter() - since > MAX_HELD:
                        self._send()
                        since = perf_counter()
        finally:
            self.holding = False
            self._send()

    def _read(self, transport: Any) -> None:
        """What the transport's doRead() does, without a call for each step."""
        try:
            data = transport.socket.recv(transport.bufferSize)
        except BlockingIOError:
            return
        except OSError:
            self._end(transport, main.CONNECTION_LOST, False)
            return
        except Exception as error:
            # Short of memory, say.
            log.failure("a socket could not be read")
            self._end(transport, error, False)
            return
        if not data:
            self._end(transport, main.CONNECTION_DONE, True)
            return
        try:
            transport.protocol.dataReceived(data)
        except BaseException as error:
            log.failure("a connection failed")
            self._end(transport, error, False)

    def _send(self) -> None:
        if self.senders:
            senders, self.senders = self.senders, []
            for sender in senders:
                try:
                    sender.send_held()
                except BaseException:
                    log.failure("a reply could not be sent")
        if self._writers:
            for writer in tuple(self._writers):
                # An earlier one may have ended it.
                if writer in self._writers and (why := self._guarded(self._write, writer)):
                    self._end(writer, why, False)
            while self._writers:
                # Those that have not written all, or have got more to write meanwhile.
                writer = self._writers.popitem()[0]
                if why := self._guarded(self.watch, writer, WRITE):
                    self._end(writer, why, False)

    def _write(self, transport: Any) -> Any:
        """What the transport's doWrite() does, without its calls where it has only just got what it is to write."""
        data = b"".join(transport._tempDataBuffer)
        simple = not transport.dataBuffer and not transport.disconnecting and not transport._writeDisconnecting
        if not simple or transport.producerPaused or not 0 < len(data) <= transport.SEND_LIMIT:
            return transport.doWrite()
        if transport.producer is not None and not transport.streamingProducer:
            return transport.doWrite()
        try:
            sent = transport.socket.send(data)
        except OSError:
            # It will fail again, and the transport knows what that means.
            return transport.doWrite()
        transport._tempDataBuffer, transport._tempDataLen = [], 0
        if sent == len(data):
            del self._writers[transport]
        else:
            transport.dataBuffer, transport.offset = data, sent
        return None

    def _act(self, fd: int, event: int) -> None:
        """What a reactor does with one socket."""
        transport = self._sockets.get(fd)
        if transport is None:
            return
        reading = bool(event & READ)
        why = None
        if not event & (READ | WRITE):
            # The connection has ended, and nothing is left to be read.
            reading = bool(self._events[fd] & READ)
            why = main.CONNECTION_DONE if reading else main.CONNECTION_LOST
        if reading and not why:
            why = self._guarded(transport.doRead)
        if event & WRITE and not why and transport.connected:
            reading = False
            why = self._guarded(transport.doWrite)
        if why:
            self._end(transport, why, reading)

    def _guarded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:
            log.failure("a connection failed")
            return error

    def _end(self, transport: Any, why: BaseException, reading: bool) -> None:
        """A connection has ended, or its client's half of it."""
        transport.stopReading()
        failure = Failure(why)
        if reading and isinstance(why, ConnectionDone):
            self._guarded(transport.readConnectionLost, failure)
        else:
            self._guarded(transport.connectionLost, failure)
