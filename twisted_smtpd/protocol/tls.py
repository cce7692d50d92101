"""TLS on a connection: STARTTLS (RFC 3207), implicit TLS (RFC 8314), and a transport that has TLS already.

TLS from the start is STARTTLS without the command.  So the PROXY header can come first, one factory serves clear and
TLS listeners, and a handshake is waited for in one place.
"""

from __future__ import annotations

from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.logs.events import HANDSHAKE_FAILED, HOOK_FAILED
from twisted_smtpd.protocol.states import State
from twisted_smtpd.protocol.view import ClientView
from twisted_smtpd.runtime.awaiting import CANCELLED, MISSING
from twisted_smtpd.runtime.judging import permits
from twisted_smtpd.runtime.turns import Yielding, reactor_of
from twisted_smtpd.tls.engine import OwnCreator
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["TLSClient", "TLSLayer", "begins_with_tls", "start_implicit_tls", "starttls"]


class TLSClient(ClientView, Protocol):
    """A connection that may have TLS."""

    @property
    def _has_tls(self) -> bool:
        """Whether the transport has TLS by itself."""

    def _tls_layer(self) -> TLSLayer:
        """Its TLS, made when it is first asked for."""

    def dataReceived(self, data: bytes) -> None:
        """Take what has arrived, decrypted."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""

    def handshakeCompleted(self) -> None:
        """The transport has TLS now."""


@implementer(IOpenSSLServerConnectionCreator)
class _Guarded:
    """A connection creator that never fails, because Twisted's transports do not survive an error there.

    :ivar failure: what the creator failed with.
    :ivar layer: Twisted's TLS layer, once it has asked for a connection.
    """

    failure: Failure | None = None
    layer: Any = None

    def __init__(self, creator: IOpenSSLServerConnectionCreator) -> None:
        self._creator = creator

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        self.layer = tlsProtocol
        try:
            return self._creator.serverConnectionForTLS(tlsProtocol)
        except Exception:
            self.failure = Failure()
            return SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)


class TLSLayer:
    """The TLS of one connection, from the start of its handshake.

    :param client: the connection.
    :param handshaking: whether the transport has begun a handshake by itself.
    :ivar handshaking: whether a handshake has begun and not ended, well or badly.
    :ivar done: whether one ended well.
    """

    __slots__ = ("_awaited", "_client", "_timeout", "done", "handshaking")

    def __init__(self, client: TLSClient, handshaking: bool = False) -> None:
        self._client = client
        self._awaited = False
        self._timeout = client._settings.values["handshake_timeout"]
        self.handshaking = handshaking
        self.done = False

    async def start(self, creator: IOpenSSLServerConnectionCreator) -> bool:
        """Speak TLS from now on.

        :returns: whether that is possible; if not, the connection is closed.
        """
        client = self._client
        arrived = client._take_input()
        if isinstance(creator, OwnCreator):
            creator.choose_engine(client._settings.binds_channels)
            if client._output.direct and creator.is_unchanged():
                return await self._start_on_socket(creator, arrived)
        guarded = _Guarded(creator)
        self.handshaking = True
        client._output.start_tls(guarded)
        if guarded.failure is not None:
            self.handshaking = False
            HOOK_FAILED.tell_failure(client, guarded.failure, what="the start of TLS")
            client.drop("the server has dropped it")
            return False
        if arrived:
            # With a PROXY header came the beginning of the handshake.
            guarded.layer.dataReceived(arrived)
        return await self.handshake()

    async def _start_on_socket(self, creator: OwnCreator, arrived: bytes) -> bool:
        """The same without Twisted's layer."""
        from twisted_smtpd.tls.transport import TLSTransport

        client = self._client
        try:
            engine = creator.engine()
        except Exception:
            HOOK_FAILED.tell_failure(client, Failure(), what="the start of TLS")
            client.drop("the server has dropped it")
            return False
        self.handshaking = True
        transport = TLSTransport(client.transport, client, engine, self._begin_step)
        client._output.seal_with(transport, transport.seal)
        if arrived:
            transport.dataReceived(arrived)
        return await self.handshake()

    def _begin_step(self, connection: Yielding) -> bool:
        """Whether a step of the handshake may be done at once.  A step takes a millisecond, as long as a turn."""
        client = self._client
        reactor = reactor_of(client.transport.transport)
        return reactor is None or client.connections.turns.begin(connection, client._address, reactor)

    async def handshake(self) -> bool:
        """Wait for the end of the handshake.

        :returns: whether the client is to be served; if not, the connection is closed.
        """
        client = self._client
        if not self.done:
            self._awaited = True
            await client._wait(self._timeout, self._overdue, client._sleep())
        # Imported here and below: a server without TLS does not need it.
        from twisted_smtpd.tls.info import describe

        try:
            client.session.ssl = describe(client.transport)
        except Exception:
            # A client's certificate may be malformed in an unforeseen way.
            HOOK_FAILED.tell_failure(client, Failure(), what="the look at the TLS connection")
            client.drop("the server has dropped it")
            return False
        client.session.tls = True
        client.connections.counts.tls[(client.session.ssl.version,)] += 1
        if client._transcript is not None:
            client._transcript.note(f"TLS: {client.session.ssl}")
        return True

    def completed(self) -> None:
        """The transport has TLS now."""
        self.handshaking, self.done = False, True
        if self._awaited:
            # Once: later another command may be waiting for something else.
            self._awaited = False
            self._client._wake()

    def lost(self, reason: Failure) -> None:
        """The connection is lost; say so if it was in the middle of the handshake."""
        if self.handshaking and reason.value is not None and hasattr(self._client, "session"):
            from twisted_smtpd.tls.info import explain

            self._log(explain(reason.value))

    def _overdue(self) -> None:
        self._log(f"no end of the TLS handshake within {self._timeout:g} s")
        self._client.drop("the server has dropped it")

    def _log(self, reason: str) -> None:
        self.handshaking = False
        self._client.connections.counts.tls_failures += 1
        HANDSHAKE_FAILED.tell(self._client, reason=reason)


def begins_with_tls(client: TLSClient) -> bool:
    """Whether TLS comes first, or the transport has TLS already."""
    return client.implicit_tls is not None or client._has_tls


async def start_implicit_tls(client: TLSClient) -> bool:
    """Start TLS, or wait for the handshake of a transport that has TLS already.

    :returns: whether the client is to be served.
    """
    if client.implicit_tls is not None:
        return await client._tls_layer().start(client.implicit_tls)
    return await client._tls_layer().handshake()


async def starttls(client: TLSClient, creator: IOpenSSLServerConnectionCreator | None) -> None:
    """Carry out STARTTLS.

    :param creator: makes the TLS connection, or ``None`` where TLS is not offered.
    """
    if client.session.tls:
        raise SMTPReplyError(503, "5.5.1", "TLS is there already")
    if creator is None:
        raise SMTPReplyError(502, "5.5.1", "STARTTLS is not available")
    if not hasattr(client.transport, "startTLS"):
        raise SMTPReplyError(454, "4.7.0", "TLS is not available on this connection")
    _check_nothing_follows(client)
    await client.push("220 Ready to start TLS")
    client._flush()
    # Nothing of ours must be left in the transport when TLS takes it over.
    await client.drain()
    _check_nothing_follows(client)
    # RFC 3207 section 4.2: forget what was said in clear, also if the handshake fails.
    client._renew_session()
    client._set_barrier(State.WEAK)
    if await client._tls_layer().start(creator):
        await _ask_handler(client)


def _check_nothing_follows(client: ClientView) -> None:
    """Hang up if there is more behind STARTTLS: it was sent in clear, and must not run inside TLS."""
    if client._unread:
        raise SMTPReplyError(421, "4.7.0", "Nothing may follow STARTTLS before its reply, closing the connection")


async def _ask_handler(client: ClientView) -> None:
    # A hook that fails says no, and there is no command left to answer.
    try:
        answer = await client._call_handler_hook("STARTTLS")
    except (Exception, *CANCELLED) as error:
        if client._gone:
            raise
        HOOK_FAILED.tell_failure(client, Failure(error), what="handle_STARTTLS")
        return
    if answer is MISSING or permits(answer):
        client._set_barrier(None)
