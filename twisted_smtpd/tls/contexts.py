"""Connection creators from contexts; a standard library ``ssl.SSLContext`` is adapted to pyOpenSSL's ``Connection``."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from zope.interface import implementer

from twisted_smtpd.tls.engine import OwnCreator, shake_hands
from twisted_smtpd.tls.errors import TLSConfigurationError
from twisted_smtpd.tls.odd_names import catch_odd_names
from twisted_smtpd.tls.records import LARGEST_RECORD, RecordConnection

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SSLObjectConnection", "connection_creator", "note_server_name"]

_server_names: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()


def connection_creator(context: object) -> IOpenSSLServerConnectionCreator:
    """Make a connection creator for a TLS server from a context.

    :param context: a standard library :class:`ssl.SSLContext` for servers, a provider of Twisted's
        ``IOpenSSLServerConnectionCreator`` (``CertificateOptions``, :class:`~twisted_smtpd.tls.ServerCertificates`; it
        is returned as it is), a provider of ``IOpenSSLContextFactory``, or an ``OpenSSL.SSL.Context``.
    :returns: a provider of ``IOpenSSLServerConnectionCreator``, which ``transport.startTLS``,
        ``TLSMemoryBIOFactory`` and endpoints take.
    :raises TLSConfigurationError: if the context is for clients only.
    :raises TypeError: if it is none of these.

    An ``ssl.SSLContext`` gets an ``sni_callback`` that notes the name that the client asks for, and then calls the
    context's own callback.  A callback that the user sets later replaces it, and then :attr:`TLSInfo.server_name` stays
    ``None``.
    """
    if isinstance(context, ssl.SSLContext):
        return _ServerContext(context)
    if IOpenSSLServerConnectionCreator.providedBy(context):
        return context
    if isinstance(context, SSL.Context):
        return _ContextGetter(lambda: context)
    if IOpenSSLContextFactory.providedBy(context):
        return _ContextGetter(context.getContext)
    raise TypeError(f"not a TLS context for servers: {context!r}")


@implementer(IOpenSSLServerConnectionCreator)
class _ContextGetter(OwnCreator):
    """For Twisted's older kind of context factory, and for a bare pyOpenSSL context."""

    def __init__(self, get_context: Callable[[], SSL.Context]) -> None:
        self._get_context = get_context

    def engine(self) -> RecordConnection:
        return RecordConnection(self._get_context())


@implementer(IOpenSSLServerConnectionCreator)
class _ServerContext(OwnCreator):
    """Connections of one ``ssl.SSLContext``."""

    def __init__(self, context: ssl.SSLContext) -> None:
        try:
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
        except ssl.SSLError as error:
            raise TLSConfigurationError(f"the SSLContext is not for servers: {error.args[-1]}") from error
        self._context = context
        _note_server_names(context)

    def engine(self) -> SSLObjectConnection:
        return SSLObjectConnection(self._context)


def note_server_name(connection: ssl.SSLObject, name: str) -> None:
    """Keep the name that a client has asked for, for :meth:`SSLObjectConnection.get_servername`."""
    _server_names[connection] = name


def _note_server_names(context: ssl.SSLContext) -> None:
    """Note the names that clients ask for, since an ``SSLObject`` of a server does not tell them."""
    theirs: Any = context.sni_callback
    if isinstance(theirs, _ServerNameNote):
        return
    context.sni_callback = _ServerNameNote(theirs)


class _ServerNameNote:
    """An ``sni_callback`` that notes the name and then calls the user's own callback."""

    def __init__(self, then: Callable[[object, str | None, ssl.SSLContext], int | None] | None) -> None:
        self._then = then

    def __call__(self, sslobject: object, name: str | None, context: ssl.SSLContext) -> int | None:
        if name is not None and isinstance(sslobject, ssl.SSLObject):
            note_server_name(sslobject, name)
        return None if self._then is None else self._then(sslobject, name, context)


def _as_pyopenssl(error: ssl.SSLError) -> SSL.Error:
    """Make pyOpenSSL's counterpart of an error of the ``ssl`` module.

    :returns: it; Twisted finds the reason in its error queue, which has one entry.
    """
    if isinstance(error, ssl.SSLWantReadError):
        return SSL.WantReadError()
    if isinstance(error, ssl.SSLZeroReturnError):
        return SSL.ZeroReturnError()
    if isinstance(error, ssl.SSLEOFError):
        return SSL.SysCallError(-1, "Unexpected EOF")
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"{reason}: {error.verify_message}"
    return SSL.Error([((error.library or "ssl").lower(), "", reason)])


class SSLObjectConnection:
    """The methods of ``OpenSSL.SSL.Connection`` that Twisted's TLS layer calls, for a server's ``ssl.SSLObject``.

    :param context: the user's context.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        catch_odd_names(SSLObjectConnection.do_handshake)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake_done = False
        self._no_more_input = False
        # Whether one side has sent close_notify or closed the connection.
        self._ending = False
        self._app_data: object = None
        self.over: SSL.Error | None = None
        self.has_output = True
        # Whether the handshake has failed because of the server name that the client asks for.
        self.odd_name = False

    # For TLSTransport: everything at once, and no exception where there is nothing to do.

    def handshake(self, data: bytes) -> bool:
        """See :class:`twisted_smtpd.tls.engine.Engine`."""
        return shake_hands(self, data)

    def decrypt(self, data: bytes) -> bytes:
        """See :class:`twisted_smtpd.tls.engine.Engine`."""
        incoming, pieces = self._incoming, []
        if data:
            incoming.write(data)
        try:
            while incoming.pending:
                plain = self._ssl.read(LARGEST_RECORD)
                if not plain:
                    self.over = SSL.ZeroReturnError()
                    break
                pieces.append(plain)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.over = _as_pyopenssl(error)
        self.has_output = self._outgoing.pending > 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """See :class:`twisted_smtpd.tls.engine.Engine`."""
        try:
            sent = self._ssl.write(data)
            while sent < len(data):
                sent += self._ssl.write(data[sent:])
        except ssl.SSLError as error:
            raise _as_pyopenssl(error) from error
        return self._outgoing.read()

    def due(self, least: int = 1) -> bytes:
        """See :class:`twisted_smtpd.tls.engine.Engine`."""
        return self._outgoing.read() if self._outgoing.pending >= least else b""

    # For Twisted's layer.  The handshake

    def set_accept_state(self) -> None:
        """Nothing to do: this is a server's connection from the start."""

    def do_handshake(self) -> None:
        """Continue the handshake.

        :raises OpenSSL.SSL.WantReadError: if it needs more octets from the client.
        :raises OpenSSL.SSL.Error: if it failed.
        """
        try:
            self._ssl.do_handshake()
        except ssl.SSLError as error:
            if self.odd_name:
                raise SSL.Error([("ssl", "", "the server name that the client asks for is not ASCII")]) from error
            raise _as_pyopenssl(error) from error
        self._handshake_done = True

    # Plain text

    def recv(self, bufsiz: int) -> bytes:
        """Decrypt octets that have arrived.

        :param bufsiz: how many octets to return at most.
        :raises OpenSSL.SSL.WantReadError: if there are none.
        :raises OpenSSL.SSL.ZeroReturnError: after the client's close_notify.
        """
        if not (self._incoming.pending or self._ssl.pending() or self._ending):
            # OpenSSL would say the same, but that costs as much as decrypting.
            raise SSL.WantReadError
        try:
            data = self._ssl.read(bufsiz)
        except ssl.SSLError as error:
            raise _as_pyopenssl(error) from error
        if not data:
            raise SSL.ZeroReturnError
        return data

    def send(self, buf: bytes) -> int:
        """Encrypt octets.

        :returns: how many were taken.
        :raises OpenSSL.SSL.WantReadError: if the handshake is not finished.
        """
        try:
            return self._ssl.write(buf)
        except ssl.SSLError as error:
            raise _as_pyopenssl(error) from error

    # Cipher text

    def bio_write(self, buf: bytes) -> int:
        """Take in octets from the network.

        :returns: how many were taken.
        """
        return self._incoming.write(buf)

    def bio_read(self, bufsiz: int) -> bytes:
        """All octets that are to be sent.

        :param bufsiz: ignored.  Twisted asks once for 32 KiB after each step: the rest of a longer flight (with a
            client CA list) would stay here while the client waits for it.
        :raises OpenSSL.SSL.WantReadError: if there are none.
        """
        data = self._outgoing.read()
        if not data:
            raise SSL.WantReadError
        return data

    def bio_shutdown(self) -> None:
        """Note that nothing more will arrive from the network."""
        self._no_more_input = self._ending = True
        self._incoming.write_eof()

    # The end

    def shutdown(self) -> bool:
        """Send close_notify.

        :returns: whether the client's close_notify has arrived as well.
        :raises OpenSSL.SSL.Error: during the handshake.
        """
        self._ending = True
        if self._no_more_input:
            return False
        # SSLObject.unwrap looks for the client's close_notify at once.  It fails for good if it finds data instead,
        # which the client may have sent before it got ours.  That data must still be delivered, so unwrap must not
        # see it.
        unread = self._incoming.read()
        try:
            self._ssl.unwrap()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise _as_pyopenssl(error) from error
        finally:
            self._incoming.write(unread)
        return True

    # Properties of the connection

    def set_app_data(self, data: object) -> None:
        """Store an object for :meth:`get_app_data`; Twisted stores the protocol."""
        self._app_data = data

    def get_app_data(self) -> object:
        """The object stored by :meth:`set_app_data`."""
        return self._app_data

    def get_context(self) -> ssl.SSLContext:
        """The context in use; the user's ``sni_callback`` may have changed it."""
        return self._ssl.context

    def get_ssl_object(self) -> ssl.SSLObject:
        """The ``ssl.SSLObject`` that does the work."""
        return self._ssl

    def get_peer_certificate(self) -> crypto.X509 | None:
        """The client's certificate; ``None`` if it was not asked for one or has none."""
        der = self._ssl.getpeercert(binary_form=True) if self._handshake_done else None
        return crypto.load_certificate(crypto.FILETYPE_ASN1, der) if der else None

    def get_alpn_proto_negotiated(self) -> bytes:
        """The protocol chosen with ALPN (RFC 7301), or ``b""``."""
        return (self._ssl.selected_alpn_protocol() or "").encode("ascii")

    def get_servername(self) -> bytes | None:
        """The name that the client asked for (RFC 6066 section 3), if any."""
        name = _server_names.get(self._ssl)
        return None if name is None else name.encode("utf-8", "surrogateescape")

    def get_protocol_version_name(self) -> str:
        """``TLSv1.3`` or older."""
        return self._ssl.version() or "Unknown"

    def get_cipher_name(self) -> str | None:
        """OpenSSL's name of the cipher, or ``None`` before the end of the handshake."""
        cipher = self._ssl.cipher()
        return cipher[0] if cipher else None

    def get_cipher_bits(self) -> int | None:
        """The secret bits of the cipher, or ``None`` before the end of the handshake."""
        cipher = self._ssl.cipher()
        return cipher[2] if cipher else None

    def get_verify_mode(self) -> int:
        """``VERIFY_NONE`` or ``VERIFY_PEER``, as in pyOpenSSL.  The ``ssl`` module keeps verified certificates only."""
        return SSL.VERIFY_NONE if self._ssl.context.verify_mode == ssl.CERT_NONE else SSL.VERIFY_PEER
