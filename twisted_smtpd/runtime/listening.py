"""The server of a controller: it binds sockets, listens, makes protocols for connections, and ends in order."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, cast
from weakref import WeakSet

from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.runtime.backlog import BACKLOG
from twisted_smtpd.runtime.connections import Connections, ICounted
from twisted_smtpd.runtime.host_name import own_name
from twisted_smtpd.runtime.lifecycle import HandlerUse, ServerInfo
from twisted_smtpd.runtime.limits import say_most_connections
from twisted_smtpd.runtime.reactors import LoopReactor
from twisted_smtpd.runtime.twisted_private import keep_tls_on
from twisted_smtpd.session import Peer

try:
    from twisted.internet import unix
except ImportError:  # no such sockets here
    unix = None  # type: ignore[assignment]

__all__ = ["Binding", "RunningServer", "bind_inet", "bind_unix", "transport_for"]

log = Logger()

# The errors of a machine that doesn't have an address family: no such family, or no such address.
NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

# How often a free port is looked for: a port that is free in one address family may be in use in another.
PORT_TRIES = 20


class Binding(Protocol):
    """An address or a path that is bound; the server does not listen there yet."""

    @property
    def address(self) -> Peer:
        """The place, as a socket has it."""

    def listen(self, reactor: Any, factory: IProtocolFactory) -> IListeningPort:
        """Listen."""

    def close(self) -> None:
        """Give the address up, unless :meth:`listen` was called."""


class _InetBinding:
    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        self.address: Peer = bound.getsockname()

    def listen(self, reactor: Any, factory: IProtocolFactory) -> IListeningPort:
        port: IListeningPort = reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, factory)
        # The reactor has a duplicate.
        self._socket.close()
        return port

    def close(self) -> None:
        self._socket.close()


def bind_inet(hosts: Iterable[str | None], port: int) -> tuple[list[Binding], int]:
    """Bind a port on all addresses of some hosts.

    :param hosts: names or addresses; ``None`` for all addresses of the machine.
    :param port: the port; 0 for one that is free on all of the addresses.
    :returns: the bindings, and the port.
    :raises OSError: if an address can't be bound, or a host has no address.  An address family that the machine does
        not have is left out, if the hosts have addresses of another one.
    """
    addresses = list(
        dict.fromkeys(
            (family, address)
            for host in hosts
            for family, _, _, _, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        )
    )
    for attempt in range(PORT_TRIES):
        try:
            return _bind_all(addresses, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or attempt == PORT_TRIES - 1:
                raise
    raise AssertionError("not reached")


def _bind_all(addresses: Iterable[tuple[int, Any]], port: int) -> tuple[list[Binding], int]:
    sockets: list[socket.socket] = []
    refusal: OSError | None = None
    try:
        for family, address in addresses:
            try:
                sockets.append(_bind_one(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in NO_SUCH_FAMILY:
                    raise
                refusal = error
            else:
                port = sockets[-1].getsockname()[1]
        if not sockets and refusal is not None:
            raise refusal
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return [_InetBinding(bound) for bound in sockets], port


def _bind_one(family: int, address: tuple[Any, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # On Windows the option would let two servers use the same port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has a socket of its own, so IPv4 clients do not appear with IPv6 addresses.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _bind_error(error, address) from error
    except BaseException:
        bound.close()
        raise
    return bound


def _bind_error(error: OSError, place: object) -> OSError:
    if error.errno is None:  # the path is too long
        return error
    return OSError(error.errno, f"can't listen on {place!r}: {error.strerror or error}")


if unix is not None:

    class _UnixPort(unix.Port):
        def connectionLost(self, reason: Failure) -> None:
            base: Any = super()
            try:
                base.connectionLost(reason)
            except FileNotFoundError:
                # The file is gone already, with a temporary folder for instance.  Close the rest all the same.
                tcp.Port.connectionLost(self, reason)


class _UnixBinding:
    def __init__(self, path: str, mode: int) -> None:
        self.address: Peer = path
        self._path = path
        self._mode = mode

    def listen(self, reactor: Any, factory: IProtocolFactory) -> IListeningPort:
        port: Any = _UnixPort(os.fsencode(self._path), factory, BACKLOG, self._mode, reactor)
        try:
            port.startListening()
        except CannotListenError as error:
            raise _bind_error(error.socketError, self._path) from error
        return cast(IListeningPort, port)

    def close(self) -> None:
        """Nothing is held: see :func:`bind_unix`."""


def bind_unix(path: str) -> list[Binding]:
    """Find out whether a Unix socket can be bound, and which rights its file gets.

    A stale socket, on which no process listens any more, is removed.

    :param path: the path of the socket; with a NUL in front, a name in Linux's abstract namespace.
    :raises OSError: if it can't be bound.
    """
    abstract = path.startswith("\0")
    if not abstract:
        _remove_stale(path)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(path)
        except OSError as error:
            raise _bind_error(error, path) from error
        if abstract:
            return [_UnixBinding(path, 0)]
        # By default, Twisted lets every user connect.  Here the umask decides, as it does for other files.
        mode = stat.S_IMODE(os.stat(path).st_mode)
        os.unlink(path)
    return [_UnixBinding(path, mode)]


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
        except OSError:
            return


class _Refusal(StreamProtocol):
    """Answers a client when the factory has failed for its connection."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"421 4.3.0 Local error, try again later\r\n")
        transport.loseConnection()


@implementer(IOpenSSLServerConnectionCreator)
class _Noting:
    """Notes the TLS layer that asks a connection creator for its connection.

    :ivar layer: the layer.
    """

    layer: TLSMemoryBIOProtocol | None = None

    def __init__(self, creator: IOpenSSLServerConnectionCreator) -> None:
        self._creator = creator

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self.layer = tlsProtocol
        return self._creator.serverConnectionForTLS(tlsProtocol)


def _transport_on_loop(reactor: LoopReactor, make: Callable[..., Any], *arguments: Any) -> Any:
    """Make a transport whose ``startTLS`` works without the global reactor.

    Twisted would schedule what TLS writes in the global reactor, which may not run.

    :param reactor: the reactor of the connection.
    :param make: makes the transport.
    :param arguments: for ``make``.
    """
    transport = make(*arguments)

    def start_tls(context: Any, normal: bool = True) -> None:
        if IOpenSSLServerConnectionCreator.providedBy(context):
            noting = _Noting(context)
            type(transport).startTLS(transport, noting, normal)
            layer = noting.layer
        else:
            type(transport).startTLS(transport, context, normal)
            layer = getattr(transport, "protocol", None)
        if layer is not None:
            keep_tls_on(reactor, layer)

    transport.startTLS = start_tls
    return transport


def transport_for(reactor: Any, make: Callable[..., Any], *arguments: Any) -> Any:
    """Make the transport of a connection that was accepted elsewhere.

    :param reactor: the reactor of the connection.
    :param make: makes the transport.
    :param arguments: for ``make``.
    """
    if isinstance(reactor, LoopReactor):
        return _transport_on_loop(reactor, make, *arguments)
    return make(*arguments)


def _not_stopped(failure: Failure) -> None:
    log.failure("the handler's stop() failed", failure)


class RunningServer(ServerFactory):
    """An open server.

    :param make: makes the protocol for a connection.
    :param reactor: the reactor that it runs on.
    :param tls: makes the TLS connections of implicit TLS; ``None`` for clear text.
    :param handler: what is started by :meth:`start`, and stopped by :meth:`shut`.
    :ivar reactor: the reactor.
    :ivar ports: the listening ports.
    """

    noisy = False

    def __init__(
        self,
        make: Callable[[], Any],
        reactor: Any,
        tls: IOpenSSLServerConnectionCreator | None = None,
        handler: object = None,
    ) -> None:
        self.reactor = reactor
        self.connections = Connections(reactor)
        self.ports: list[Any] = []
        self._use = HandlerUse(handler)
        self._starting: Deferred[None] | None = None
        self._pid = os.getpid()
        self._make = make
        self._others: WeakSet[Any] = WeakSet()
        self._tls = tls

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets that are listened on."""
        return tuple(port.socket for port in self.ports if port.connected)

    def is_serving(self) -> bool:
        """Whether clients can connect."""
        return bool(self.sockets)

    def start(self, bindings: Sequence[Binding], options: Mapping[str, object]) -> Deferred[None]:
        """Make sure that there is a protocol for a client, start the handler, then listen.

        :param options: the options of the protocol, for the handler.
        :returns: fires when clients can connect; or fails with whatever the factory or the handler raises, or
            listening does.  Cancelling it cancels the start of the handler.
        """
        self._starting = Deferred.fromCoroutine(self._start(bindings, options))
        return self._starting

    async def _start(self, bindings: Sequence[Binding], options: Mapping[str, object]) -> None:
        try:
            protocol = self._protocol()
            hostname = getattr(protocol, "hostname", None) or own_name()
            addresses = tuple(binding.address for binding in bindings)
            await self._use.start(ServerInfo(hostname, addresses, self.reactor, options))
        except BaseException:
            for binding in bindings:
                binding.close()
            raise
        try:
            self.open(bindings, protocol)
        except BaseException:
            await self._use.stop()
            raise

    def give_up(self, bindings: Sequence[Binding]) -> None:
        """End a start that takes too long; what has been started by then is stopped.

        :param bindings: what :meth:`start` was called with, or would have been.
        """
        if self._starting is None:
            for binding in bindings:
                binding.close()
            return
        self._starting.cancel()
        self._starting.addBoth(lambda _: self.shut(0)).addErrback(_not_stopped)

    def open(self, bindings: Iterable[Binding], protocol: Any = None) -> None:
        """Make sure that there is a protocol for a client, then listen.

        :param protocol: such a protocol, if one was made.
        :raises Exception: whatever the factory raises, or listening does.
        """
        try:
            protocol = self._protocol() if protocol is None else protocol
            say_most_connections(getattr(protocol, "max_connections", 0), self.connections.most)
            factory = self._with_tls(protocol)
            for binding in bindings:
                port: Any = binding.listen(self.reactor, factory)
                if isinstance(self.reactor, LoopReactor):
                    # The documentation of tcp.Port lets users replace this attribute.
                    port.transport = partial(_transport_on_loop, self.reactor, type(port).transport)
                self.ports.append(port)
        except BaseException:
            self._close_ports()
            raise
        finally:
            for binding in bindings:
                binding.close()

    def _with_tls(self, protocol: Any) -> Any:
        """The factory to listen with: this one, with TLS around it unless the protocols start TLS themselves."""
        if self._tls is None or getattr(protocol, "ssl_context", None) is not None:
            return self
        return TLSMemoryBIOFactory(self._tls, False, self, clock=self.reactor)

    def _protocol(self) -> Any:
        protocol = self._make()
        if protocol is None:
            raise RuntimeError("factory() returned None")
        if not IProtocol.providedBy(protocol):
            raise TypeError(f"factory() returned {protocol!r}, which is no Twisted protocol")
        return protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        try:
            protocol = self._protocol()
        except Exception:
            log.failure("factory() failed for {client}", client=addr)
            return _Refusal()
        if ICounted.providedBy(protocol):
            protocol.factory = self
            protocol.connections = self.connections
        else:
            self._others.add(protocol)
        return protocol

    def shut(self, grace: float) -> Deferred[None]:
        """Stop listening; end the connections as ``SMTPFactory.drain`` does; stop the handler.

        :param grace: seconds that messages in progress have to finish.
        :returns: fires when the last connection has ended and the handler has stopped; or fails with what the handler's
            ``stop`` raised.
        """
        return Deferred.fromCoroutine(self._shut(grace))

    async def _shut(self, grace: float) -> None:
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        for protocol in tuple(self._others):
            transport = getattr(protocol, "transport", None)
            if transport is not None:
                transport.abortConnection()
        await self.connections.drain(grace)
        await self._use.stop()

    @property
    def is_here(self) -> bool:
        """Whether this process opened the server, and is not a fork of the process that did."""
        return self._pid == os.getpid()

    def abandon(self) -> None:
        """Close the ports at once; for a reactor that does not run.

        A handler's ``stop`` that has to wait is cancelled, since there is nothing left that it could wait with.
        """
        self._close_ports()
        if self.is_here:
            stopping = Deferred.fromCoroutine(self._use.stop())
            stopping.addErrback(_not_stopped)
            stopping.cancel()

    def _close_ports(self) -> None:
        for port in self.ports:
            if not self.is_here:
                # Leave the reactor alone: its epoll object is the parent process's too.
                port.socket.close()
            elif port.connected:
                port.stopReading()
                port.connectionLost(connectionDone)
