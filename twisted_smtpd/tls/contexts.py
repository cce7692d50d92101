"""A standard library ``ssl.SSLContext`` where Twisted's TLS layer expects pyOpenSSL's ``Connection``."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, NoReturn, cast
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from zope.interface import implementer

from twisted_smtpd.tls.errors import TLSConfigurationError
from twisted_smtpd.tls.records import RecordConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["SSLObjectConnection", "connection_creator"]

_server_names: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()


def connection_creator(context: object) -> IOpenSSLServerConnectionCreator:
    """Make a connection creator for TLS servers of what the user gave.

    :param context: a standard library :class:`ssl.SSLContext` for servers, a provider of Twisted's
        ``IOpenSSLServerConnectionCreator`` (``CertificateOptions``, :class:`~twisted_smtpd.tls.ServerCertificates`:
        returned as it is), a provider of ``IOpenSSLContextFactory``, or a ``OpenSSL.SSL.Context``.
    :returns: a provider of ``IOpenSSLServerConnectionCreator``, which ``transport.startTLS``,
        ``TLSMemoryBIOFactory`` and endpoints take.
    :raises TLSConfigurationError: if the context is one for clients only.
    :raises TypeError: if it is none of these.

    An ``ssl.SSLContext`` gets an ``sni_callback`` that notes the name the client asks for and then calls the one it
    had; an ``sni_callback`` set later takes its place, and :attr:`TLSInfo.server_name` stays ``None``.
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
class _ContextGetter:
    """For Twisted's older kind of context factory, and for a bare pyOpenSSL context."""

    def __init__(self, get_context: Callable[[], SSL.Context]) -> None:
        self._get_context = get_context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return RecordConnection(self._get_context())


@implementer(IOpenSSLServerConnectionCreator)
class _ServerContext:
    """Connections of one ``ssl.SSLContext``."""

    def __init__(self, context: ssl.SSLContext) -> None:
        try:
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
        except ssl.SSLError as error:
            raise TLSConfigurationError(f"the SSLContext is not for servers: {error.args[-1]}") from error
        self._context = context
        _note_server_names(context)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        # It has all that Twisted uses of a Connection, and shares nothing with the class.
        return cast("SSL.Connection", SSLObjectConnection(self._context))


def _note_server_names(context: ssl.SSLContext) -> None:
    """Have the names clients ask for noted, since an ``SSLObject`` can't be asked for it on a server."""
    theirs: Any = context.sni_callback
    if isinstance(theirs, _ServerNameNote):
        return
    context.sni_callback = _ServerNameNote(theirs)


class _ServerNameNote:
    """An ``sni_callback`` that notes the name, then does what the user's own callback does."""

    def __init__(self, then: Callable[[Any, str | None, ssl.SSLContext], int | None] | None) -> None:
        self._then = then

    def __call__(self, sslobject: Any, name: str | None, context: ssl.SSLContext) -> int | None:
        if name is not None and isinstance(sslobject, ssl.SSLObject):
            _server_names[sslobject] = name
        return None if self._then is None else self._then(sslobject, name, context)


def _raise_as_pyopenssl(error: ssl.SSLError) -> NoReturn:
    """Raise the error of pyOpenSSL that stands for an error of the ``ssl`` module.

    :raises OpenSSL.SSL.Error: always; with an error queue of one entry, where Twisted looks for the reason.
    """
    if isinstance(error, ssl.SSLWantReadError):
        raise SSL.WantReadError from None
    if isinstance(error, ssl.SSLZeroReturnError):
        raise SSL.ZeroReturnError from None
    if isinstance(error, ssl.SSLEOFError):
        raise SSL.SysCallError(-1, "Unexpected EOF") from error
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"{reason}: {error.verify_message}"
    raise SSL.Error([((error.library or "ssl").lower(), "", reason)]) from error


class SSLObjectConnection:
    """What Twisted's TLS layer uses of ``OpenSSL.SSL.Connection``, on the server's side of an ``ssl.SSLObject``.

    :param context: the user's context.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake_done = False
        self._no_more_input = False
        # Whether either side has said that it has said all.
        self._ending = False
        self._app_data: Any = None

    # The handshake

    def set_accept_state(self) -> None:
        """Nothing to do: this is a server's connection from the start."""

    def do_handshake(self) -> None:
        """Go on with the handshake.

        :raises OpenSSL.SSL.WantReadError: if it needs more from the client.
        :raises OpenSSL.SSL.Error: if it failed.
        """
        try:
            self._ssl.do_handshake()
        except ssl.SSLError as error:
            _raise_as_pyopenssl(error)
        self._handshake_done = True

    # Plain text

    def recv(self, bufsiz: int) -> bytes:
        """Decrypt what has arrived.

        :param bufsiz: how many octets at most.
        :raises OpenSSL.SSL.WantReadError: if there is nothing.
        :raises OpenSSL.SSL.ZeroReturnError: after the client's close_notify.
        """
        if not (self._incoming.pending or self._ssl.pending() or self._ending):
            # To let OpenSSL say so costs as much as to decrypt something.
            raise SSL.WantReadError
        try:
            data = self._ssl.read(bufsiz)
        except ssl.SSLError as error:
            _raise_as_pyopenssl(error)
        if not data:
            raise SSL.ZeroReturnError
        return data

    def send(self, buf: bytes) -> int:
        """Encrypt octets; returns how many were taken.

        :raises OpenSSL.SSL.WantReadError: if the handshake is not done.
        """
        try:
            return self._ssl.write(buf)
        except ssl.SSLError as error:
            _raise_as_pyopenssl(error)

    # Cipher text

    def bio_write(self, buf: bytes) -> int:
        """Take in octets from the network; returns how many."""
        return self._incoming.write(buf)

    def bio_read(self, bufsiz: int) -> bytes:
        """All octets that wait for the network.

        :param bufsiz: not looked at: Twisted asks once for 32 KiB after each step, and what a longer flight (a
            client CA list) left behind would stay here while the client waits for it.
        :raises OpenSSL.SSL.WantReadError: if there are none.
        """
        data = self._outgoing.read()
        if not data:
            raise SSL.WantReadError
        return data

    def bio_shutdown(self) -> None:
        """Nothing more will arrive from the network."""
        self._no_more_input = self._ending = True
        self._incoming.write_eof()

    # The end

    def shutdown(self) -> bool:
        """Send close_notify.

        :returns: whether the client's has come as well.
        :raises OpenSSL.SSL.Error: in the middle of the handshake.
        """
        self._ending = True
        if self._no_more_input:
            return False
        # SSLObject.unwrap looks for the client's close_notify at once, and fails for good when it meets data the
        # client sent before it knew.  Such data is still to be delivered, so unwrap must not see it.
        unread = self._incoming.read()
        try:
            self._ssl.unwrap()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            _raise_as_pyopenssl(error)
        finally:
            self._incoming.write(unread)
        return True

    # What is known

    def set_app_data(self, data: Any) -> None:
        """Keep an object for :meth:`get_app_data`; Twisted keeps the protocol here."""
        self._app_data = data

    def get_app_data(self) -> Any:
        """The object kept."""
        return self._app_data

    def get_context(self) -> ssl.SSLContext:
        """The context in use, which the user's ``sni_callback`` may have changed."""
        return self._ssl.context

    def get_ssl_object(self) -> ssl.SSLObject:
        """The ``ssl.SSLObject`` below."""
        return self._ssl

    def get_peer_certificate(self) -> crypto.X509 | None:
        """The client's certificate, if it was asked for one and has one."""
        der = self._ssl.getpeercert(binary_form=True) if self._handshake_done else None
        return crypto.load_certificate(crypto.FILETYPE_ASN1, der) if der else None

    def get_alpn_proto_negotiated(self) -> bytes:
        """The protocol agreed on with ALPN (RFC 7301), or ``b""``."""
        return (self._ssl.selected_alpn_protocol() or "").encode("ascii")

    def get_servername(self) -> bytes | None:
        """The name the client asked for (RFC 6066 section 3), if any."""
        name = _server_names.get(self._ssl)
        return None if name is None else name.encode("utf-8", "surrogateescape")

    def get_protocol_version_name(self) -> str:
        """``TLSv1.3`` or older."""
        return self._ssl.version() or "Unknown"

    def get_cipher_name(self) -> str | None:
        """The cipher in use, or ``None`` before the handshake is done."""
        cipher = self._ssl.cipher()
        return cipher[0] if cipher else None

    def get_cipher_bits(self) -> int | None:
        """The secret bits of the cipher in use."""
        cipher = self._ssl.cipher()
        return cipher[2] if cipher else None

    def get_verify_mode(self) -> int:
        """As pyOpenSSL: ``VERIFY_NONE`` or ``VERIFY_PEER``.  The ``ssl`` module keeps no unverified certificate."""
        return SSL.VERIFY_NONE if self._ssl.context.verify_mode == ssl.CERT_NONE else SSL.VERIFY_PEER
