"""twisted.mail.smtp with a delivery that collects each message in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.logger import globalLogBeginner
from twisted.mail.imap4 import PLAINCredentials
from twisted.mail.smtp import ESMTP, IMessage, IMessageDelivery
from zope.interface import Interface, implementer

Avatar = tuple[type[Interface], object, Callable[[], None]]


@implementer(IMessage)
class Message:
    """One recipient's copy, which is how twisted.mail.smtp delivers."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.lines: list[bytes] = []
        self.lineReceived = self.lines.append

    def eomReceived(self) -> Deferred[None]:
        b"\r\n".join(self.lines)
        return self.delivery.accept()

    def connectionLost(self) -> None:
        self.lines.clear()


@implementer(IMessageDelivery)
class Delivery:
    """Accepts everything, and counts transactions rather than copies."""

    copies = 0

    def __init__(self, server: Server) -> None:
        self.server = server

    def receivedHeader(self, helo: object, origin: object, recipients: list[object]) -> bytes:
        self.copies = len(recipients)
        return b""

    def validateFrom(self, helo: object, origin: object) -> object:
        return origin

    def validateTo(self, user: object) -> object:
        return self.make_message

    def make_message(self) -> Message:
        return Message(self)

    def accept(self) -> Deferred[None]:
        self.copies -= 1
        if not self.copies:
            self.server.messages += 1
        return self.server.wait()


class Protocol(ESMTP):
    """The dialog, without a log line per message."""

    noisy = False
    portal: Any = None


class Server(Factory):
    """One factory and all that its connections share."""

    noisy = False
    messages = 0

    def __init__(self, options: common.Options) -> None:
        self.options = options
        self.tls = None
        if options.tls != "none":
            with open(options.certificate) as file:
                self.tls = PrivateCertificate.loadPEM(file.read()).options()
        self.portal: Portal | None = None
        if options.auth:
            checker = InMemoryUsernamePasswordDatabaseDontUse(**{common.USER.decode(): common.PASSWORD})
            self.portal = Portal(Realm(self), [checker])

    def buildProtocol(self, address: object) -> Protocol:
        protocol = Protocol(  # type: ignore[no-untyped-call]
            chal={b"PLAIN": PLAINCredentials} if self.portal else None,
            contextFactory=self.tls if self.options.tls == "starttls" else None,
        )
        protocol.factory = self
        protocol.host = common.HOSTNAME.encode()
        protocol.portal = self.portal
        if self.portal is None:
            protocol.delivery = Delivery(self)
        return protocol

    def wait(self) -> Deferred[None]:
        return deferLater(reactor, 0) if self.options.hook == "wait" else succeed(None)


@implementer(IRealm)
class Realm:
    """Gives each authenticated connection its delivery."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def requestAvatar(self, name: object, mind: object, *interfaces: type[Interface]) -> Avatar:
        return IMessageDelivery, Delivery(self.server), lambda: None


def main(options: common.Options) -> None:
    """Serve until SIGTERM."""
    if options.hook == "stream":
        common.unsupported("twisted.mail.smtp gives a message line by line, without flow control")
    server = Server(options)
    if options.tls == "implicit":
        SSL4ServerEndpoint(reactor, options.port, server.tls, common.BACKLOG, common.HOST).listen(server)
    else:
        TCP4ServerEndpoint(reactor, options.port, common.BACKLOG, common.HOST).listen(server)
    # Until logging begins, Twisted keeps all events in memory; nothing is to be logged here.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    reactor.run()
    common.report(server.messages)


main(common.options())
