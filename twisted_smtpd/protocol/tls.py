"""TLS on a connection: STARTTLS (RFC 3207), implicit TLS (RFC 8314), and a transport that has TLS already."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.protocol.dialog import CANCELLED
from twisted_smtpd.protocol.dispatch import Barrier, syntax
from twisted_smtpd.protocol.prelude import Prelude, permits
from twisted_smtpd.runtime.awaiting import MISSING
from twisted_smtpd.tls import describe, explain
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["TLSCommands"]

log = Logger()

# RFC 3207 section 4, with the two that stand for EHLO in LMTP and before ESMTP.
NOT_YET_SECURE = Barrier(
    frozenset({"NOOP", "EHLO", "HELO", "LHLO", "STARTTLS", "QUIT"}),
    (530, "5.7.0", "Must issue a STARTTLS command first"),
)
# RFC 3207 section 4.1: where TLS is up, but not good enough.
NOT_SECURE_ENOUGH = Barrier(frozenset({"QUIT"}), (554, "5.7.0", "Command refused due to lack of security"))


@implementer(IOpenSSLServerConnectionCreator)
class _Guarded:
    """A connection creator that does not fail: Twisted's transports don't survive that.

    :ivar failure: what the creator failed with.
    """

    failure: Failure | None = None

    def __init__(self, creator: IOpenSSLServerConnectionCreator) -> None:
        self._creator = creator

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        try:
            return self._creator.serverConnectionForTLS(tlsProtocol)
        except Exception:
            self.failure = Failure()
            return SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)


@implementer(IHandshakeListener)
class TLSCommands(Prelude):
    """STARTTLS, and TLS from the start.

    :ivar implicit_tls: what makes the TLS connection where TLS comes first; a factory may set it before the connection
        is made.
    """

    implicit_tls: IOpenSSLServerConnectionCreator | None = None
    # From the start of a handshake to its end, good or bad; whether it ended well; and whether somebody waits for that.
    _handshaking = False
    _handshake_done = False
    _handshake_awaited = False

    # -- TLS from the start --------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        if ISSLTransport.providedBy(self.transport):
            # What listens has seen to it.
            self.implicit_tls = None
            self._handshaking = True
        elif self.implicit_tls is None:
            self.implicit_tls = self._settings.security.implicit
        super().connectionMade()

    def turn_away(self, status: str) -> None:
        if self.implicit_tls is None:
            super().turn_away(status)
        else:
            # The client would take the words for a broken handshake.
            self.drop()

    async def before_greeting(self) -> bool:
        if not await super().before_greeting():
            return False
        if self.implicit_tls is not None:
            if not await self._start_tls(self.implicit_tls):
                return False
        elif self._handshaking or self._handshake_done:
            return await self._handshake()
        return True

    def first_barrier(self) -> Barrier | None:
        return NOT_YET_SECURE if self.require_starttls and not self.session.tls else super().first_barrier()

    # -- STARTTLS ------------------------------------------------------------------------------------------------------

    @syntax("STARTTLS", when="tls_context")
    async def smtp_STARTTLS(self, arg: str | None) -> None:
        self._no_argument(arg)
        if self.session.tls:
            raise SMTPReplyError(503, "5.5.1", "TLS is there already")
        creator = self._settings.security.starttls
        if creator is None:
            raise SMTPReplyError(502, "5.5.1", "STARTTLS is not available")
        if not hasattr(self.transport, "startTLS"):
            raise SMTPReplyError(454, "4.7.0", "TLS is not available on this connection")
        await self.check_helo_needed()
        self._check_nothing_follows()
        await self.push("220 Ready to start TLS")
        self._flush()
        # TLS takes the transport over with nothing of ours left in it.
        await self.drain()
        self._check_nothing_follows()
        # RFC 3207 section 4.2: nothing that was said in clear is known any longer, whatever comes of the handshake.
        self._renew_session()
        self._barrier = NOT_SECURE_ENOUGH
        if await self._start_tls(creator):
            await self._ask_handler()

    def _check_nothing_follows(self) -> None:
        """Hang up if there is more behind STARTTLS: it was sent in clear, by whoever, and must not run inside TLS."""
        if self._buffer:
            raise SMTPReplyError(421, "4.7.0", "Nothing may follow STARTTLS before its reply, closing the connection")

    async def _ask_handler(self) -> None:
        # A hook that fails says no, and there is no command left to answer.
        try:
            answer = await self._call_handler_hook("STARTTLS")
        except (Exception, *CANCELLED) as error:
            if self._gone:
                raise
            log.failure("{session}: handle_STARTTLS failed", Failure(error), session=self.session.id)
            return
        if answer is MISSING or permits(answer):
            self._barrier = None

    # -- the handshake -------------------------------------------------------------------------------------------------

    async def _start_tls(self, creator: IOpenSSLServerConnectionCreator) -> bool:
        """Speak TLS from now on.

        :returns: whether that is possible; if not, the connection is closed.
        """
        transport: Any = self.transport
        arrived, self._buffer, self._offset = self._buffer[self._offset :], b"", 0
        guarded = _Guarded(creator)
        self._handshaking = True
        self._output.start_tls(guarded)
        if guarded.failure is not None:
            self._handshaking = False
            log.failure("{session}: TLS can't be started", guarded.failure, session=self.session.id)
            self.drop()
            return False
        if arrived:
            # With a PROXY header came the beginning of the handshake.
            transport.protocol.dataReceived(arrived)
        return await self._handshake()

    async def _handshake(self) -> bool:
        """Wait for the end of the handshake.

        :returns: whether the client is to be served; if not, the connection is closed.
        """
        if not self._handshake_done:
            self._handshake_awaited = True
            self.wait_at_most(self.timeout, self._handshake_overdue)
            await self.sleep()
            self.no_longer_waiting()
        try:
            self.session.ssl = describe(self.transport)
        except Exception:
            # A client's certificate may be odd in ways nobody has thought of.
            log.failure("{session}: TLS can't be told about", session=self.session.id)
            self.drop()
            return False
        self.session.tls = True
        return True

    def handshakeCompleted(self) -> None:
        """The transport has TLS now."""
        self._handshaking, self._handshake_done = False, True
        if self._handshake_awaited:
            self.wake()

    def _handshake_overdue(self) -> None:
        self._log_failed_handshake(f"no end of the TLS handshake within {self.timeout:g} s")
        self.drop()

    def _log_failed_handshake(self, reason: str) -> None:
        self._handshaking = False
        log.info("{session} {peer}: {reason}", session=self.session.id, peer=self.session.peer, reason=reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._handshaking and reason.value is not None and hasattr(self, "session"):
            self._log_failed_handshake(explain(reason.value))
        super().connectionLost(reason)
