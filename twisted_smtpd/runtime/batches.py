"""Serve the sockets of one server in batches: run the dialogs of all sockets that are ready, then send all replies.

A reactor takes one socket after the other: it reads, runs the dialog and writes.  Sending costs most.  It runs the
kernel's network code, for a client on the same machine down to the client's socket, and each time the kernel's code and
Python's drive each other out of the processor's caches.  In a batch the dialogs run one after the other with warm
caches, and then the system sends.

The sockets stay ordinary transports of Twisted.  They are registered in an ``epoll`` object, which is a file descriptor
itself.  The reactor waits for that descriptor, so a batch is one event for it, and any reactor that can wait for a
descriptor will do.  What is private in the transports is listed in :mod:`twisted_smtpd.runtime.twisted_private`.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, Protocol

from twisted.internet import main, tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from twisted_smtpd.runtime.twisted_private import SOCKETS, SocketTransport

try:
    from twisted.internet import unix
except ImportError:  # no such sockets here
    unix = None  # type: ignore[assignment]

__all__ = ["PLAIN_TRANSPORTS", "BatchReactor", "Batches", "joined"]

log = Logger()

#: Transports that only read from and write to a socket.  A subclass may read or write in a way of its own.
PLAIN_TRANSPORTS: tuple[type, ...] = (tcp.Server,) if unix is None else (tcp.Server, unix.Server)

READ: int = getattr(select, "EPOLLIN", 1)
WRITE: int = getattr(select, "EPOLLOUT", 4)

# Sockets in one batch.
MAX_SOCKETS = 64
# Seconds that replies wait for the rest of their batch: a hook may take long.
MAX_HELD = 0.001
# Seconds after which the reactor has its turn, for its timers and other descriptors.
MAX_TURN = 0.005


def joined(transport: Any, batches: Batches | None) -> Batches | None:
    """Have a connection's socket served in batches, if that is possible.

    :param transport: a transport of any kind.
    :param batches: the server's batches so far.
    :returns: the batches that serve it; ``None`` if the reactor does.
    """
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport = transport.transport
    if type(transport) not in PLAIN_TRANSPORTS or not hasattr(select, "epoll") or not SOCKETS.is_there():
        return None
    reactor = transport.reactor
    if isinstance(reactor, BatchReactor):
        return reactor.batches
    if batches is None or batches.reactor is not reactor:
        try:
            batches = Batches(reactor)
        except OSError:
            # No file descriptor is left.  The reactor can serve the socket without one.
            return None
    transport.stopReading()
    transport.stopWriting()
    transport.reactor = BatchReactor(batches)
    transport.startReading()
    if transport.dataBuffer or transport._tempDataBuffer:
        transport.startWriting()
    if transport.server is not None:
        # The port's next connections are in these batches from the start.
        transport.server.reactor = transport.reactor
    return batches


class Sender(Protocol):
    """A connection that has something to send at the end of a batch."""

    def send_held(self) -> None:
        """Send what was held."""


class BatchReactor:
    """Takes the reactor's place in the transports of a server.

    It passes what concerns their sockets to the batches, and everything else to the real reactor.  It is an object of
    its own, since Python looks up attributes slowly in a class with ``__getattr__``.

    :param batches: the batches.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        directlyProvides(self, providedBy(batches.reactor))

    def __getattr__(self, name: str) -> Any:
        # Timers, threads and so on are the real reactor's.
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

    While no socket is open, it is not registered with the reactor.

    :param reactor: the reactor, which provides ``IReactorFDSet``.
    :ivar holding: whether replies wait for the end of the batch.
    :ivar senders: the connections whose replies wait.
    :ivar turn: counts the turns of the reactor in which sockets were served.
    :ivar hook_ran: whether a hook has run, so that time may have passed.  Only then is the clock looked at, since that
        takes longer than the work between two hooks.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self.reactor = reactor
        self.holding = False
        self.senders: list[Sender] = []
        self.turn = 0
        self.hook_ran = False
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        self._sockets: dict[int, SocketTransport] = {}
        self._events: dict[int, int] = {}
        # These transports try to write at the end of the batch.  What the socket takes at once needs no epoll_ctl.
        self._writers: dict[SocketTransport, None] = {}
        self._running = False
        # Whether a transport has stopped reading during the batch.  It may be closed then.
        self._unread = False

    # -- for the transports --------------------------------------------------------------------------------------------

    def add_writer(self, transport: SocketTransport) -> None:
        """Have a transport write as soon as its socket takes something."""
        if self._running:
            self._writers[transport] = None
        else:
            self.watch(transport, WRITE)

    def remove_writer(self, transport: SocketTransport) -> None:
        """Undo :meth:`add_writer`."""
        self._writers.pop(transport, None)
        self.unwatch(transport, WRITE)

    def watch(self, transport: SocketTransport, event: int) -> None:
        """Have a transport act on an event of its socket.

        :param event: ``READ`` or ``WRITE``.
        """
        fd = transport.fileno()
        events = self._events.get(fd, 0)
        if events and self._sockets[fd] is not transport:
            # The other transport's socket was closed without its knowledge, and epoll has forgotten it.  The number
            # belongs to this socket now.
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

    def unwatch(self, transport: SocketTransport, event: int) -> None:
        """Undo :meth:`watch`."""
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
            # The descriptor was closed without the transport's knowledge, and epoll has forgotten it.
            events = 0
        if events:
            self._events[fd] = events
        else:
            self._forget(fd)

    def _unwatch_lost(self, transport: SocketTransport) -> None:
        """Forget a transport whose socket was closed or detached without its knowledge."""
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
        """The reactor ends, so all connections end."""
        for transport in list(self._sockets.values()):
            self._guarded(transport.connectionLost, reason)

    def doRead(self) -> None:
        """Serve batches until no socket is ready, or the reactor is due."""
        if self._running:
            # A hook runs the reactor itself, inside a batch.
            return
        self._running = True
        self.turn += 1
        try:
            until = perf_counter() + MAX_TURN
            while events := self._epoll.poll(0, MAX_SOCKETS):
                self._batch(events)
                if len(events) == 1 or perf_counter() > until:
                    # A single client will hardly have answered the reply yet.
                    break
        finally:
            self._running = False

    def _batch(self, events: list[tuple[int, int]]) -> None:
        """Run the dialogs whose clients have sent something, then send their replies."""
        self.holding = True
        self._unread = False
        sockets, plain = self._sockets, tcp.Server
        try:
            since = perf_counter()
            for fd, event in events:
                transport = sockets.get(fd)
                if event != READ or type(transport) is not plain:
                    self._act(fd, event)
                # An earlier dialog of this batch may have closed this transport.
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

    def _read(self, transport: SocketTransport) -> None:
        """Do what the transport's ``doRead`` does, without a call for each step."""
        try:
            data = transport.socket.recv(transport.bufferSize)
        except BlockingIOError:
            return
        except OSError:
            self._end(transport, main.CONNECTION_LOST, False)
            return
        except Exception as error:
            # The system may be short of memory.
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
                # An earlier writer may have ended this one.
                if writer in self._writers and (why := self._guarded(self._write, writer)):
                    self._end(writer, why, False)
            while self._writers:
                # These have not written all, or got more to write meanwhile.
                writer = self._writers.popitem()[0]
                if why := self._guarded(self.watch, writer, WRITE):
                    self._end(writer, why, False)

    def _write(self, transport: SocketTransport) -> Any:
        """Do what the transport's ``doWrite`` does, without its calls where all data is new and fits."""
        data = b"".join(transport._tempDataBuffer)
        simple = not transport.dataBuffer and not transport.disconnecting and not transport._writeDisconnecting
        if not simple or transport.producerPaused or not 0 < len(data) <= transport.SEND_LIMIT:
            return transport.doWrite()
        if transport.producer is not None and not transport.streamingProducer:
            return transport.doWrite()
        try:
            sent = transport.socket.send(data)
        except OSError:
            # It fails again in doWrite, which knows what the error means.
            return transport.doWrite()
        transport._tempDataBuffer, transport._tempDataLen = [], 0
        if sent == len(data):
            del self._writers[transport]
        else:
            transport.dataBuffer, transport.offset = data, sent
        return None

    def _act(self, fd: int, event: int) -> None:
        """Do what a reactor does with one socket."""
        transport = self._sockets.get(fd)
        if transport is None:
            return
        reading = bool(event & READ)
        why = None
        if not event & (READ | WRITE):
            # The connection has ended, and nothing is left to read.
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

    def _end(self, transport: SocketTransport, why: BaseException, reading: bool) -> None:
        """End a connection whose client has closed it, or its half of it.

        :param why: the reason.
        :param reading: whether reading has found the end.
        """
        transport.stopReading()
        failure = Failure(why)
        if reading and isinstance(why, ConnectionDone):
            self._guarded(transport.readConnectionLost, failure)
        else:
            self._guarded(transport.connectionLost, failure)
