"""A server as a Twisted service: several listeners, one factory, an orderly end."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_smtpd import __version__
from twisted_smtpd.factory import ImplicitTLS
from twisted_smtpd.handlers.chain import Chain
from twisted_smtpd.handlers.debugging import Debugging
from twisted_smtpd.lmtp import LMTP

if TYPE_CHECKING:
    from twisted_smtpd.factory import SMTPFactory
    from twisted_smtpd.runtime.listeners import Listener
    from twisted_smtpd.tls import ServerCertificates

__all__ = ["BindError", "ServerService"]

# What a machine without IPv6 says, in its two forms: no such family, or no such address.
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_LOOPBACK_FOR_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class BindError(Exception):
    """A port can't be bound; its text says which, and why."""


class ServerService(Service):
    """Listens while it runs; when stopped, lets the factory end what is in progress.

    Unlike ``strports.service`` it knows its ports (to say where it listens), and a port that can't be bound is fatal
    even when the endpoint finds that out later.

    :param factory: the server.
    :param listeners: where to listen.
    :param reactor: is stopped when a port can't be bound after the start.
    :param grace: seconds that messages in progress have to finish in :meth:`stopService`.
    :param certificates: what is reloaded at a SIGHUP.
    """

    log = Logger()

    def __init__(
        self,
        factory: SMTPFactory,
        listeners: Sequence[Listener],
        *,
        reactor: Any,
        grace: float = 10.0,
        certificates: Sequence[ServerCertificates] = (),
    ) -> None:
        self.factory = factory
        self.listeners = listeners
        self.reactor = reactor
        self.grace = grace
        self.certificates = certificates
        self._former_hangup: Any = None
        self.ports: list[tuple[Listener, IListeningPort]] = []
        self._waiting: list[Deferred[Any]] = []
        self._refusals: list[BindError] | None = None

    def privilegedStartService(self) -> None:
        """Bind the ports; ``twistd`` calls this before it gives up root's rights.

        :raises BindError: a port can't be bound.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Bind the ports, if that isn't done, and say where they are.

        A port that can't be bound ends the process with status 1 and the reason on stderr.
        """
        super().startService()
        if not self._waiting:
            try:
                self._listen()
            except BindError as error:
                sys.exit(f"twist smtpd: {error}")
        if self.certificates and _can_hear_hangup():
            self._former_hangup = signal.signal(signal.SIGHUP, self._hangup)
        self._announce()
        if any(_goes_nowhere(stream) for stream in _printed_on(getattr(self.factory, "handler", None))):
            # Only now: twistd puts /dev/null in the place of the standard output when it leaves the terminal.
            self.log.warn("WHAT IS PRINTED IS LOST: the debugging handler's output is closed, or /dev/null")

    def _hangup(self, *_: object) -> None:
        # A signal comes between any two instructions.
        self.reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Read the certificates anew; connections that are open go on as they are."""
        for certificates in self.certificates:
            certificates.reload()

    def stopService(self) -> Deferred[None]:
        """Close the ports, then drain the factory.

        :returns: fires when no connection is left, or the grace period is over.
        """
        super().stopService()
        if self._former_hangup is not None:
            signal.signal(signal.SIGHUP, self._former_hangup)
            self._former_hangup = None
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._close()
        await self.factory.drain(self.grace)

    async def _close(self) -> None:
        for waiting in self._waiting:
            waiting.cancel()
        for _, port in self.ports:
            await maybeDeferred(port.stopListening)

    def _listen(self) -> None:
        refusals: list[BindError] = []
        self._refusals = refusals
        for listener in self.listeners:
            factory = self.factory if listener.tls is None else ImplicitTLS(self.factory, listener.tls)
            waiting = maybeDeferred(listener.endpoint.listen, factory)
            waiting.addCallbacks(partial(self._bound, listener), partial(self._refused, listener))
            self._waiting.append(waiting)
        self._refusals = None
        if refusals:
            for _, port in self.ports:
                port.stopListening()
            raise refusals[0]

    def _bound(self, listener: Listener, port: IListeningPort) -> None:
        # The stdio: endpoint connects at once instead, and there is nothing to close or to tell about.
        if IListeningPort.providedBy(port):
            self.ports.append((listener, port))

    def _refused(self, listener: Listener, failure: Failure) -> None:
        reason = getattr(failure.value, "socketError", failure.value)
        error = BindError(f"can't listen on {listener.name}: {reason}")
        if listener.optional and getattr(reason, "errno", None) in _NO_SUCH_FAMILY:
            self.log.info("Going on without {where}: {reason}", where=listener.name, reason=reason)
        elif self._refusals is not None:
            self._refusals.append(error)
        elif self.running:
            self.log.critical("{error}", error=error)
            self.reactor.stop()

    def _announce(self) -> None:
        if not self.ports:
            return
        places = " and ".join(_place(port.getHost()) for _, port in self.ports)
        self.log.info("twisted-smtpd {version} listens on {places}", version=__version__, places=places)
        listener, port = self.ports[0]
        starttls = self.factory.settings.security.starttls is not None
        swaks = "swaks --protocol LMTP" if issubclass(self.factory.protocol, LMTP) else "swaks"
        self.log.info("To try it: {command}", command=f"{swaks} {_first_message(listener, port.getHost(), starttls)}")


def _printed_on(handler: object) -> list[TextIO]:
    handlers = handler.handlers if isinstance(handler, Chain) else (handler,)
    return [one.stream for one in handlers if isinstance(one, Debugging)]


def _goes_nowhere(stream: TextIO) -> bool:
    if getattr(stream, "closed", False):
        return True
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except (AttributeError, OSError, ValueError):
        # No file is behind it, such as twistd's own stream, which writes to the log.
        return False


def _place(address: Any) -> str:
    if isinstance(address, UNIXAddress):
        return f"unix:{_path(address)}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _path(address: UNIXAddress) -> str:
    # An address in Linux's abstract namespace has a name, but no path; and a socket may have neither.
    return shlex.quote(os.fsdecode(address.name or b""))


def _can_hear_hangup() -> bool:
    return hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread()


def _first_message(listener: Listener, address: Any, starttls: bool) -> str:
    to = "--to you@example.com"
    tls = " --tls-on-connect" if listener.secure else " --tls" if starttls else ""
    if isinstance(address, UNIXAddress):
        return f"--socket {_path(address)}{tls} {to}"
    host = _LOOPBACK_FOR_ANY.get(address.host, address.host)
    return f"--server {f'[{host}]' if ':' in host else host}:{address.port}{tls} {to}"
