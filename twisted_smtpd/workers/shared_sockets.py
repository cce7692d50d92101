"""Listening sockets that several processes share: the parent binds them, its workers accept."""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from errno import EADDRNOTAVAIL
from typing import Any, NoReturn, cast

from twisted.internet import tcp
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from twisted_smtpd.runtime.twisted_private import KEPT_PORTS, TURNS

try:
    from twisted.internet import unix
except ImportError:  # no such sockets here
    unix = None  # type: ignore[assignment]

__all__ = ["Binder", "Inheritor", "SharedSocket", "take_turns"]

# A worker accepts this many clients at once, and more when it has many, so that accepting keeps up when all are busy.
BATCH = 4
# Seconds that a worker leaves a new client to the others, for each such batch of connections that it has ...
PATIENCE = 0.0004
# ... and at most.
MOST_PATIENCE = 0.01


@dataclass(frozen=True)
class SharedSocket:
    """A listening socket.

    :ivar key: what the endpoint asked the reactor for; a worker's endpoint asks for the same.
    :ivar descriptor: its file descriptor in the process that has this object.
    :ivar family: its address family.
    :ivar place: the descriptor that it must have in a worker, if the endpoint there names it; the endpoint closes it.
    """

    key: str
    descriptor: int
    family: int
    place: int | None = None


class _KeptSocket(socket.socket):
    """A listening socket that a process can close, but not shut down: other processes accept on it."""

    def shutdown(self, how: int) -> None:
        """Do nothing: this would end the socket in all processes."""


def _keep_open(port: Any) -> None:
    """Have a port that closes leave its socket usable for other processes.

    :param port: a port that does not read.
    """
    if KEPT_PORTS.is_there():
        port._shouldShutdown = False
    else:
        port.socket = _KeptSocket(fileno=port.socket.detach())
        port.fileno = port.socket.fileno


class _Listening:
    """A reactor that listens in its own way, and passes everything else to the real one.

    Endpoints of every type call one of its methods for listening, so every type works with workers.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class Binder(_Listening):
    """Listens for the workers: its ports are bound, and never accept a connection.

    :param reactor: the real one.
    :ivar shared: the sockets.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.shared: list[SharedSocket] = []

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        return self._keep(_inet(port, interface), self._reactor.listenTCP(port, factory, backlog, interface))

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        # The workers do the TLS.
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: str | bytes, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        return self._keep(_unix(address), self._reactor.listenUNIX(address, factory, backlog, mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        port = self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
        return self._keep(_adopted(fileDescriptor), port, fileDescriptor)

    def _keep(self, key: str, port: Any, place: int | None = None) -> IListeningPort:
        port.stopReading()
        # The parent closes its ports while the workers still accept.
        _keep_open(port)
        self.shared.append(SharedSocket(key, port.fileno(), port.socket.family, place))
        return cast(IListeningPort, port)


class Inheritor(_Listening):
    """Listens on sockets that another process has bound.

    :param reactor: the real one.
    :param shared: the sockets; each of them is used once.
    """

    def __init__(self, reactor: Any, shared: Iterable[SharedSocket]) -> None:
        super().__init__(reactor)
        self._shared: defaultdict[str, list[SharedSocket]] = defaultdict(list)
        for one in shared:
            self._shared[one.key].append(one)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        return self._inherit(_inet(port, interface), interface, port, factory)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), backlog, interface)

    def listenUNIX(
        self, address: str | bytes, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        return self._inherit(_unix(address), None, address, factory)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        return self._inherit(_adopted(fileDescriptor), None, fileDescriptor, factory)

    def _inherit(self, key: str, interface: str | None, port: Any, factory: Any) -> IListeningPort:
        if not self._shared[key]:
            _not_inherited(interface, port)
        one = self._shared[key].pop(0)
        if one.family == getattr(socket, "AF_UNIX", None):
            return _listen_unix(one, factory, self._reactor)
        adopted = self._reactor.adoptStreamPort(one.descriptor, one.family, factory)
        if one.place is None:
            # The reactor has a duplicate.
            os.close(one.descriptor)
        return cast(IListeningPort, adopted)


def _inet(port: int, interface: str) -> str:
    return f"inet {interface} {port}"


def _unix(address: str | bytes) -> str:
    return f"unix {os.fsdecode(address)}"


def _adopted(descriptor: int) -> str:
    return f"fd {descriptor}"


def _not_inherited(interface: str | None, port: Any) -> NoReturn:
    # The parent could not bind it, since the machine doesn't have this address family.  This is the error for that.
    raise CannotListenError(interface, port, OSError(EADDRNOTAVAIL, os.strerror(EADDRNOTAVAIL)))


if unix is not None:

    class _SharedUnixPort(unix.Port):
        """A port on a Unix socket that the parent has bound; the parent also takes care of the file and its rights."""

        def __init__(self, inherited: socket.socket, factory: Any, reactor: Any) -> None:
            super().__init__(os.fsencode(inherited.getsockname()), factory, reactor=reactor)
            self._inherited = inherited

        def startListening(self) -> None:
            self.factory.doStart()  # type: ignore[union-attr]
            self.socket = self._inherited
            self.fileno = self.socket.fileno  # type: ignore[method-assign]
            self.connected = True
            self.numberAccepts = BATCH
            self.startReading()  # type: ignore[no-untyped-call]

        def connectionLost(self, reason: Failure) -> None:
            tcp.Port.connectionLost(self, reason)


def _listen_unix(one: SharedSocket, factory: Any, reactor: Any) -> IListeningPort:
    inherited = _KeptSocket(fileno=one.descriptor)
    inherited.setblocking(False)
    port = _SharedUnixPort(inherited, factory, reactor)
    port.startListening()
    return cast(IListeningPort, port)


def take_turns(port: Any, clock: IReactorTime, load: Callable[[], int]) -> None:
    """Share new connections evenly with the other processes that accept on a socket.

    The system wakes all of them for each client, and the same process would win nearly every time.  So a worker waits
    the longer, the more connections it has, and an idle worker takes the client meanwhile.

    :param port: the listening port.
    :param clock: the provider of time.
    :param load: gives the number of connections of this process.
    """
    if not TURNS.is_there(port):
        return
    accept = port.doRead

    def go() -> None:
        if port.connected and not port.disconnecting:
            port.numberAccepts = BATCH + load() // BATCH
            accept()
            port.startReading()

    def ready() -> None:
        port.stopReading()
        clock.callLater(min(load() // BATCH * PATIENCE, MOST_PATIENCE), go)

    port.doRead = ready
