"""A server as a Twisted service: several listeners, one factory, an orderly end."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from twisted.application.service import IService, MultiService, Service
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from twisted_smtpd import __version__
from twisted_smtpd.factory import ImplicitTLS, SMTPFactory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.logs.escaping import peer_text
from twisted_smtpd.runtime.backlog import widen
from twisted_smtpd.runtime.exit_status import leave_with, program_name
from twisted_smtpd.runtime.hangup import Hangup
from twisted_smtpd.runtime.lifecycle import STOP_TIMEOUT, HandlerStartError, has_life, offered_services
from twisted_smtpd.runtime.listeners import Listener, UmaskEndpoint, others_can_connect
from twisted_smtpd.session import Peer

__all__ = ["BindError", "ListeningService", "Reloadable", "ServerService", "ServersService"]

# What a machine without IPv6 says, in its two forms: no such family, or no such address.
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
# Their ports are there when listen() returns, and can be told not to accept yet.
_BOUND_AT_ONCE = (
    AdoptedStreamServerEndpoint,
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    UmaskEndpoint,
)
# Errors of a handler's start that are understood without a traceback.
_EXPECTED = (HandlerStartError, OSError, ValueError)
_UNTRUSTED = (
    "every user of this machine can connect to it and say to be anybody with --proxy-from unix or --xclient-from unix: "
    "give it a mode (unix:PATH:mode=660) or the process a umask"
)
_LOOPBACK_FOR_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Reloadable(Protocol):
    """What reads its files again at a SIGHUP."""

    def reload(self) -> object:
        """Read them; what goes wrong is logged, and what was read before stays in use."""


class BindError(Exception):
    """A port can't be bound; its text says which, and why."""


class ListeningService(Service):
    """Listens while it runs.

    Unlike ``strports.service`` it knows its ports (to say where it listens), and a port that can't be bound ends the
    program, even when the endpoint finds that out later.

    :param factory: makes the protocols.
    :param listeners: where to listen.
    :param reactor: is stopped when a port can't be bound after the start.
    :param leave: is called with the status that the program shall end with then, and the reason in a line.
    :ivar ports: the listening ports, each with its listener.
    :ivar trusts_unix: whether the peers of Unix sockets are believed when they say who the client is; then a socket to
        which every user can connect is refused.
    """

    log = Logger()
    trusts_unix = False

    def __init__(
        self,
        factory: ServerFactory,
        listeners: Sequence[Listener],
        *,
        reactor: Any,
        leave: Callable[[int, str], object] = leave_with,
    ) -> None:
        self.factory = factory
        self.listeners = listeners
        self.reactor = reactor
        self.ports: list[tuple[Listener, IListeningPort]] = []
        self._leave = leave
        self._waiting: list[Deferred[Any]] = []
        self._refusals: list[BindError] | None = None

    def privilegedStartService(self) -> None:
        """Bind the ports; ``twistd`` calls this before it gives up root's rights.

        :raises BindError: a port can't be bound.
        """
        super().privilegedStartService()
        self._listen(self._first_listeners())

    def startService(self) -> None:
        """Bind the ports, if that isn't done.

        A port that can't be bound ends the process with status 1 and the reason on stderr.
        """
        super().startService()
        if not self._waiting:
            try:
                self._listen(self._first_listeners())
            except BindError as error:
                sys.exit(f"{program_name()}: {error}")
        self._opened()

    def stopService(self) -> Deferred[None]:
        """Close the ports.

        :returns: fires when the service has ended.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _opened(self) -> None:
        """The ports are bound."""

    async def _stop(self) -> None:
        for waiting in self._waiting:
            waiting.cancel()
        for _, port in self.ports:
            await maybeDeferred(port.stopListening)

    def _first_listeners(self) -> Sequence[Listener]:
        """The places that are listened on before the reactor runs."""
        return self.listeners

    def _factory_for(self, listener: Listener) -> ServerFactory:
        return self.factory

    def _listen(self, listeners: Iterable[Listener]) -> None:
        """Listen on some places.

        :raises BindError: if one of them can't be bound; then none of them stays bound.
        """
        refusals: list[BindError] = []
        self._refusals = refusals
        for listener in listeners:
            waiting = maybeDeferred(listener.endpoint.listen, self._factory_for(listener))
            waiting.addCallbacks(partial(self._bound, listener), partial(self._refused, listener))
            self._waiting.append(waiting)
        self._refusals = None
        if refusals:
            for _, port in self.ports:
                port.stopListening()
            raise refusals[0]

    def _bound(self, listener: Listener, port: IListeningPort) -> None:
        # The stdio: endpoint connects at once instead, so there is nothing to close or to tell.
        if not IListeningPort.providedBy(port):
            return
        self.ports.append((listener, port))
        if "backlog=" not in listener.name:
            widen(port)
        if self.trusts_unix and others_can_connect(port.getHost()):
            self._refused(listener, Failure(PermissionError(_UNTRUSTED)))

    def _refused(self, listener: Listener, failure: Failure) -> None:
        reason = getattr(failure.value, "socketError", failure.value)
        error = BindError(f"can't listen on {listener.name}: {reason}")
        if listener.optional and getattr(reason, "errno", None) in _NO_SUCH_FAMILY:
            self.log.info("Going on without {where}: {reason}", where=listener.name, reason=reason)
        elif self._refusals is not None:
            self._refusals.append(error)
        elif self.running:
            self.log.critical("{error}", error=error)
            self._end_program(str(error))

    def _end_program(self, reason: str) -> None:
        """End the program with status 1, and one line on stderr."""
        self._leave(1, f"{program_name()}: {' '.join(reason.split())}")
        with suppress(ReactorNotRunning):
            # Another server of this process may have ended it already.
            self.reactor.stop()


class ServerService(ListeningService):
    """Runs a server: listens, starts the handler and its services, and ends all of that in the opposite order.

    The ports are bound first, where that needs no waiting: a port in use is reported before the handler is started, and
    ``twistd`` still has root's rights then.  Clients that connect meanwhile wait, and are served when the handler has
    started.

    :param factory: the server.
    :param listeners: where to listen.
    :param reactor: what the server runs on; it is stopped when the server can't start.
    :param grace: seconds that messages in progress have to finish in :meth:`stopService`.
    :param reloads: what reads its files again at a SIGHUP.
    :param leave: see :class:`ListeningService`.
    """

    factory: SMTPFactory
    #: Whether SIGHUP may end this process.
    hangup_may_end = True

    def __init__(
        self,
        factory: SMTPFactory,
        listeners: Sequence[Listener],
        *,
        reactor: Any,
        grace: float = 10.0,
        reloads: Sequence[Reloadable] = (),
        leave: Callable[[int, str], object] = leave_with,
    ) -> None:
        super().__init__(factory, listeners, reactor=reactor, leave=leave)
        self.grace = grace
        self.reloads = reloads
        #: Hears SIGHUP, unless the service is one of several that are reloaded together.
        self.hangup: Hangup | None = Hangup(reactor, self.reload, may_end=self.hangup_may_end)
        self._handler_lives = has_life(factory.handler)
        self._serving = False
        self._starting: Deferred[None] = succeed(None)
        self._services: list[IService] = []

    def not_ready(self) -> str:
        """Why no client is served now; empty if one is."""
        if not self.running or self.factory.connections.draining:
            return "stopping"
        return "" if self._serving else "starting"

    def end_grace(self) -> None:
        """Give messages in progress no more time, now or when the service is stopped."""
        self.factory.connections.end_grace()

    def reload(self) -> None:
        """Read files again: certificates, passwords, lists; open connections are not affected."""
        if not self.reloads:
            self.log.info("SIGHUP: there is nothing to reload")
        _reload(self.reloads)

    def _first_listeners(self) -> Sequence[Listener]:
        if not self._handler_lives:
            return self.listeners
        return [listener for listener in self.listeners if isinstance(listener.endpoint, _BOUND_AT_ONCE)]

    def _factory_for(self, listener: Listener) -> ServerFactory:
        return self.factory if listener.tls is None else ImplicitTLS(self.factory, listener.tls)

    def _bound(self, listener: Listener, port: IListeningPort) -> None:
        super()._bound(listener, port)
        if self._handler_lives and not self._serving and isinstance(port, FileDescriptor):
            port.stopReading()

    def _opened(self) -> None:
        if self.hangup is not None:
            self.hangup.listen(bool(self.reloads))
        if self._handler_lives:
            # A start() may need the reactor, and what asyncio has.  callWhenRunning is too early for the latter.
            self.reactor.callLater(0, self._begin)
        else:
            self._serve()

    def _begin(self) -> None:
        if not self.running:
            return
        self._starting = Deferred.fromCoroutine(self._start())
        if not self._starting.called:
            self.log.info("Waiting until the handler has started: {handler}", handler=self.factory.handler)
        self._starting.addErrback(self._not_started)

    async def _start(self) -> None:
        await self.factory.start_handler([_peer(port.getHost()) for _, port in self.ports])
        for service in await offered_services(self.factory.handler):
            # Twisted does both for a service that is added to a running one, too.
            service.privilegedStartService()
            self._services.append(service)
            service.startService()
        if self.running:
            self._listen(listener for listener in self.listeners if not isinstance(listener.endpoint, _BOUND_AT_ONCE))
            self._serve()

    def _not_started(self, failure: Failure) -> None:
        error = failure.value
        if not self.running and isinstance(error, (CancelledError, asyncio.CancelledError)):
            return
        name = type(self.factory.handler).__name__
        if isinstance(error, BindError):
            reason = str(error)
        elif isinstance(error, _EXPECTED):
            reason = f"handler {name}: {error}"
        else:
            reason = f"handler {name}: {type(error).__name__}: {error}"
            self.log.failure("the handler could not start", failure, LogLevel.critical)
        self.log.critical("{reason}", reason=reason)
        if self.running:
            self._end_program(reason)

    def _serve(self) -> None:
        """Take connections."""
        self._serving = True
        if self._handler_lives:
            for _, port in self.ports:
                if isinstance(port, FileDescriptor):
                    port.startReading()
        self._announce()

    async def _stop(self) -> None:
        """Close the ports, drain the factory for no longer than the grace, then stop the handler and its services."""
        self._starting.cancel()
        await self._starting
        await super()._stop()
        await self.factory.drain(self.grace)
        for service in reversed(self._services):
            await self._ended(maybeDeferred(service.stopService))
        await self._ended(self.factory.stop_handler())
        if self.hangup is not None:
            # Not before: by default, the signal would end what is in progress.
            self.hangup.leave()

    async def _ended(self, ending: Deferred[Any]) -> None:
        try:
            await (ending if ending.called else ending.addTimeout(STOP_TIMEOUT, self.reactor))
        except Exception:
            self.log.failure("{handler} could not be stopped in an orderly way", handler=self.factory.handler)

    def _announce(self) -> None:
        if not self.ports:
            return
        places = " and ".join(_place(port.getHost()) for _, port in self.ports)
        self.log.info("twisted-smtpd {version} listens on {places}", version=__version__, places=places)
        self.log.info("Mail goes to the handler {handler}", handler=type(self.factory.handler).__name__)
        listener, port = self.ports[0]
        starttls = self.factory.settings.security.starttls is not None
        swaks = "swaks --protocol LMTP" if issubclass(self.factory.protocol, LMTP) else "swaks"
        self.log.info("To try it: {command}", command=f"{swaks} {_first_message(listener, port.getHost(), starttls)}")


class ServersService(MultiService):
    """Several servers in one process, each with listeners, a handler and options of its own.

    All ports are bound before a handler is started, as with one server.

    :param servers: the servers.
    :param reactor: see :class:`ServerService`.
    """

    def __init__(self, servers: Sequence[ServerService], *, reactor: Any) -> None:
        super().__init__()
        self.servers = servers
        self._hangup = Hangup(reactor, self.reload, may_end=all(server.hangup_may_end for server in servers))
        for server in servers:
            # One of them would hear the signal alone.
            server.hangup = None
            server.setServiceParent(self)

    def startService(self) -> None:
        """Start the servers."""
        super().startService()
        self._hangup.listen(any(server.reloads for server in self.servers))

    def stopService(self) -> Any:
        """Stop the servers, all at the same time.

        :returns: fires when they have stopped.
        """
        return super().stopService().addCallback(self._stopped)

    def _stopped(self, results: object) -> object:
        self._hangup.leave()
        return results

    def reload(self) -> None:
        """Read the files of all servers again."""
        # Listeners may share a handler.
        _reload({id(one): one for server in self.servers for one in server.reloads}.values())

    def end_grace(self) -> None:
        """Give messages in progress no more time, now or when the service is stopped."""
        for server in self.servers:
            server.end_grace()


def _reload(reloads: Iterable[Reloadable]) -> None:
    for one in reloads:
        maybeDeferred(one.reload).addErrback(partial(_not_reloaded, one))


def _not_reloaded(one: Reloadable, failure: Failure) -> None:
    ServerService.log.failure("{one} could not read its files again", failure, one=one)


def _peer(address: Any) -> Peer:
    """An address as a socket has it."""
    if isinstance(address, UNIXAddress):
        return os.fsdecode(address.name or b"")
    if isinstance(address, IPv6Address):
        return address.host, address.port, address.flowInfo, int(address.scopeID)
    return address.host, address.port


def _place(address: Any) -> str:
    if isinstance(address, UNIXAddress):
        return f"unix:{_path(address)}"
    return peer_text((address.host, address.port))


def _path(address: UNIXAddress) -> str:
    # An address in Linux's abstract namespace has a name, but no path; and a socket may have neither.
    return shlex.quote(os.fsdecode(address.name or b""))


def _first_message(listener: Listener, address: Any, starttls: bool) -> str:
    to = "--to you@example.com"
    tls = " --tls-on-connect" if listener.secure else " --tls" if starttls else ""
    if isinstance(address, UNIXAddress):
        return f"--socket {_path(address)}{tls} {to}"
    host = _LOOPBACK_FOR_ANY.get(address.host, address.host)
    return f"--server {f'[{host}]' if ':' in host else host}:{address.port}{tls} {to}"
