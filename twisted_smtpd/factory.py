"""The server as a Twisted factory, for any endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from twisted_smtpd.assemble import settings_for
from twisted_smtpd.auth.offer import warn_of_no_tls
from twisted_smtpd.options.table import SMTPOptions
from twisted_smtpd.runtime.connections import Connections
from twisted_smtpd.runtime.lifecycle import HandlerUse, ServerInfo
from twisted_smtpd.runtime.limits import say_most_connections
from twisted_smtpd.session import Peer
from twisted_smtpd.smtp import SMTP

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ImplicitTLS", "SMTPFactory"]


class SMTPFactory(ServerFactory):
    """Makes an :class:`SMTP` protocol for each connection to an endpoint.

    :param handler: the object whose hooks decide what happens.
    :param protocol: the protocol class.
    :param options: see :class:`twisted_smtpd.smtp.SMTP`.
    :ivar endpoint_has_tls: whether an endpoint has TLS of its own; ``None`` if that is not known: then there is a
        warning at the start if AUTH needs TLS, and the options give none.
    :raises TypeError: for an option that does not exist, or a value of the wrong type.
    :raises ValueError: for a value out of bounds.
    """

    noisy = False
    endpoint_has_tls: bool | None = None

    def __init__(self, handler: object, *, protocol: type[SMTP] = SMTP, **options: Unpack[SMTPOptions]) -> None:
        self.handler = handler
        self.protocol: type[SMTP] = protocol
        self.options = options
        # Held here, since settings live only as long as they are used.
        self.settings = settings_for(protocol, handler, options)
        # If a connection is made of the settings alone, they need not be looked up for each, unless a program has
        # changed these attributes since.
        plain = protocol.__init__ is SMTP.__init__ and protocol.__new__ is object.__new__
        self._made_of = dict(options) if plain else None
        # Its own: another factory for the same handler is another server.
        self.connections = Connections(self.settings.values["clock"])
        self._use: HandlerUse | None = None

    def startFactory(self) -> None:
        super().startFactory()  # type: ignore[no-untyped-call]
        say_most_connections(self.settings.values["max_connections"], self.connections.most)
        if self.endpoint_has_tls is None:
            warn_of_no_tls(self.settings)

    def buildProtocol(self, addr: IAddress | None) -> SMTP:
        protocol: SMTP
        settings = self.settings
        if self.options == self._made_of and self.protocol is settings.cls and self.handler is settings.handler:
            if not settings.are_current():
                settings = self.settings = settings_for(self.protocol, self.handler, self.options)
            protocol = self.protocol.sharing(settings)
        else:
            protocol = self.protocol(self.handler, **self.options)
        protocol.factory = self
        protocol.connections = self.connections
        return protocol

    def drain(self, grace: float = 10.0) -> Deferred[None]:
        """Shut down: idle clients hear 421, messages being taken in are finished.

        Stop listening first; a client that connects all the same hears 421.

        :param grace: seconds to wait for messages in progress; then their clients hear 421, and try again.
        :returns: fires when no connection is left.
        """
        return self.connections.drain(grace)

    def start_handler(self, addresses: Sequence[Peer] = ()) -> Deferred[None]:
        """Start the handler, see :class:`~twisted_smtpd.interfaces.IStartable`; wait for the result, then listen.

        :param addresses: where the server will listen, if the handler is to know.
        :returns: fires when the handler has started, or fails with what its ``start`` raised.  Cancelling it cancels
            the start.
        """
        return Deferred.fromCoroutine(self._start_handler(addresses))

    async def _start_handler(self, addresses: Sequence[Peer]) -> None:
        if self._use is None or self._use.handler is not self.handler:
            self._use = HandlerUse(self.handler)
        values = self.settings.values
        reactor = self.connections.timers.clock
        await self._use.start(ServerInfo(values["hostname"] or "", tuple(addresses), reactor, MappingProxyType(values)))

    def stop_handler(self) -> Deferred[None]:
        """Stop the handler, see :class:`~twisted_smtpd.interfaces.IStoppable`; drain first.

        Nothing happens if it was not started, or has been stopped.

        :returns: fires when the handler has stopped, or fails with what its ``stop`` raised.
        """
        return succeed(None) if self._use is None else Deferred.fromCoroutine(self._use.stop())


class ImplicitTLS(ServerFactory):
    """The same server with TLS from the start (port 465, RFC 8314 section 3.3), for a second listener.

    Its connections are the factory's own: they share its limits and are drained with it.  Unlike TLS below the server
    (a ``ssl:`` endpoint) it reads the PROXY header that comes before TLS.

    :param factory: the server.
    :param context: see :func:`twisted_smtpd.tls.connection_creator`.
    :raises TypeError: if the context is none for TLS servers.
    :raises ValueError: if it is one for clients.
    """

    noisy = False

    def __init__(self, factory: SMTPFactory, context: object) -> None:
        self.factory = factory
        factory.endpoint_has_tls = True
        # Here, since most servers have no TLS.
        from twisted_smtpd.tls import connection_creator

        self._creator = connection_creator(context)

    def doStart(self) -> None:
        self.factory.doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        self.factory.doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> SMTP:
        protocol = self.factory.buildProtocol(addr)
        protocol.implicit_tls = self._creator
        return protocol
