"""Listening sockets that several processes share: one binds them, the others accept."""

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

try:
    from twisted.internet import unix
except ImportError:  # no such sockets here
    unix = None  # type: ignore[assignment]

__all__ = ["Binder", "Inheritor", "SharedSocket", "take_turns"]

# A worker takes this many clients at once, more when it has many, so that accepting keeps up when all are busy ...
BATCH = 4
# ... and for each such batch of connections that it has, it leaves a client to the others this long (seconds) at first.
PATIENCE = 0.0004
MOST_PATIENCE = 0.01


@dataclass(frozen=True)
class SharedSocket:
    """A listening socket.

    :ivar key: what the endpoint asked for; a worker's endpoint asks for the same.
    :ivar descriptor: its number, in the process that has this object.
    :ivar family: its address family.
    :ivar place: the descriptor it must have in a worker, where the endpoint will ask for that; and close it.
    """

    key: str
    descriptor: int
    family: int
    place: int | None = None


class _Listening:
    """A reactor that listens in its own way, and is the real one for everything else.

    Endpoints of any type end in one of these methods, so each of them works with workers.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class Binder(_Listening):
    """Listens for others: its ports are bound, and never accept a connection.

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
        # TLS is the workers' matter.
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
        # Else its end would be the end of the workers' sockets too, with noise, while they still accept.
        port._shouldShutdown = False
        self.shared.append(SharedSocket(key, port.fileno(), port.socket.family, place))
        return cast(IListeningPort, port)


class Inheritor(_Listening):
    """Listens on sockets that another process has bound.

    :param reactor: the real one.
    :param shared: the sockets; each is used once.
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
    # As a machine without this address family says it, which is why the socket isn't there.
    raise CannotListenError(interface, port, OSError(EADDRNOTAVAIL, os.strerror(EADDRNOTAVAIL)))


if unix is not None:

    class _SharedUnixPort(unix.Port):
        """A Unix socket whose file, and whose rights, are the binding process's matter."""

        _shouldShutdown = False

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
    inherited = socket.socket(fileno=one.descriptor)
    inherited.setblocking(False)
    port = _SharedUnixPort(inherited, factory, reactor)
    port.startListening()
    return cast(IListeningPort, port)


def take_turns(port: Any, clock: IReactorTime, load: Callable[[], int]) -> None:
    """Share new connections evenly with the other processes that accept on a socket.

    All of them are woken for each client, and the same one would win nearly every time.  So the busier a worker is, the
    longer it waits; one that has nothing to do takes the client meanwhile.

    :param port: the listening port.
    :param clock: the provider of time.
    :param load: how many connections this process has.
    """
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
