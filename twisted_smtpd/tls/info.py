"""The result of a handshake: a description for ``session.ssl``, channel binding data for SASL, or why it failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionDone, ConnectionLost

from twisted_smtpd.tls.contexts import SSLObjectConnection
from twisted_smtpd.tls.errors import openssl_reason
from twisted_smtpd.tls.private import session_reused
from twisted_smtpd.tls.records import ServerConnection

__all__ = ["TLSInfo", "channel_binding", "describe", "explain"]

_CONTROL = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "?")


@dataclass(frozen=True)
class TLSInfo(Mapping[str, Any]):
    """A finished handshake.

    For handlers written for aiosmtpd it is also a mapping with the keys of asyncio's transports: ``cipher`` (name,
    version, bits) and ``compression``, and with a standard library context ``peercert`` (the result of
    ``ssl.SSLObject.getpeercert()``), ``ssl_object`` and ``sslcontext``.

    :ivar version: ``TLSv1.3`` or ``TLSv1.2``, or an older one if the context allows it.
    :ivar cipher: OpenSSL's name of the cipher.
    :ivar bits: the secret bits of the cipher.
    :ivar server_name: the name that the client asked for (RFC 6066 section 3), in lower case; ``None`` if it named
        none.  A client can send any text; only control characters are replaced, by ``?``.
    :ivar alpn: the protocol chosen with ALPN (RFC 7301), or ``None``.
    :ivar peer_certificate: the client's certificate in DER, or ``None``.  Unless :attr:`peer_verified` is true it
        proves nothing.
    :ivar peer_verified: whether the client's certificate was verified.  With a context of the user's own, that
        context's rules decide: with a verification callback that accepts everything, every certificate counts as
        verified.
    :ivar library: whose TLS it is: ``ssl`` (the standard library's) or ``pyOpenSSL``.
    """

    version: str
    cipher: str
    bits: int
    server_name: str | None = None
    alpn: str | None = None
    peer_certificate: bytes | None = field(default=None, repr=False)
    peer_verified: bool = False
    library: str = "pyOpenSSL"
    _extra: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, key: str) -> Any:
        return self._extra[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._extra)

    def __len__(self) -> int:
        return len(self._extra)

    def __str__(self) -> str:
        return f"{self.version} {self.cipher} ({self.bits} bits)"


def _connection(transport: object) -> SSL.Connection | SSLObjectConnection:
    """The connection of a transport; the argument may also be the connection itself."""
    if isinstance(transport, (SSL.Connection, SSLObjectConnection)):
        return transport
    get_handle = getattr(transport, "getHandle", None)
    handle = None if get_handle is None else get_handle()
    if isinstance(handle, (SSL.Connection, SSLObjectConnection)):
        return handle
    raise TypeError(f"no TLS on {transport!r}")


def _text(name: bytes | None) -> str | None:
    return name.decode("utf-8", "backslashreplace").translate(_CONTROL) if name else None


def describe(transport: object) -> TLSInfo:
    """Describe a finished handshake.

    :param transport: a transport with TLS, or the connection in it.
    :raises TypeError: if there is no TLS on it.
    :raises ValueError: if the handshake is not finished.
    """
    connection = _connection(transport)
    version: str = connection.get_protocol_version_name()
    cipher = connection.get_cipher_name()
    bits = connection.get_cipher_bits()
    if cipher is None or bits is None:
        raise ValueError("the TLS handshake is not finished")
    name = _text(connection.get_servername())
    certificate = connection.get_peer_certificate()
    der = None if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    library = "pyOpenSSL"
    extra: dict[str, Any] = {"cipher": (cipher, version, bits), "compression": None}
    if isinstance(connection, SSLObjectConnection):
        library = "ssl"
        sslobject = connection.get_ssl_object()
        extra["compression"] = sslobject.compression()
        extra["peercert"] = sslobject.getpeercert()
        extra["ssl_object"] = sslobject
        extra["sslcontext"] = connection.get_context()
    return TLSInfo(
        version=version,
        cipher=cipher,
        bits=bits,
        server_name=None if name is None else name.lower(),
        alpn=_text(connection.get_alpn_proto_negotiated()),
        peer_certificate=der,
        peer_verified=der is not None and _verified(connection),
        library=library,
        _extra=extra,
    )


def _verified(connection: SSL.Connection | SSLObjectConnection) -> bool:
    if isinstance(connection, ServerConnection) and connection.peer_untrusted:
        return False
    return bool(connection.get_verify_mode() & SSL.VERIFY_PEER)


def channel_binding(transport: object, kind: str) -> bytes | None:
    """The data that binds an authentication to this TLS connection.

    :param transport: a transport with TLS, or the connection in it, after the handshake.
    :param kind: ``tls-unique`` or ``tls-server-end-point`` (RFC 5929), ``tls-exporter`` (RFC 9266).
    :returns: the data, or ``None`` if it is undefined or unavailable: ``tls-unique`` with TLS 1.3 (RFC 9266 section 3),
        ``tls-exporter`` with TLS 1.2 (it needs an extended master secret, and OpenSSL does not tell whether there is
        one), all but ``tls-unique`` with a standard library context, other kinds, and connections without TLS.
    """
    try:
        connection = _connection(transport)
    except TypeError:
        return None
    if connection.get_cipher_name() is None:
        return None
    is_13 = connection.get_protocol_version_name() == "TLSv1.3"
    if kind == "tls-unique" and not is_13:
        return _first_finished(connection)
    if isinstance(connection, SSLObjectConnection):
        return None
    if kind == "tls-exporter" and is_13:
        exported: bytes = connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        return exported
    if kind == "tls-server-end-point":
        return _end_point(connection)
    return None


def _first_finished(connection: SSL.Connection | SSLObjectConnection) -> bytes | None:
    """The handshake's first Finished message: the client's, or the server's if a session was resumed."""
    if isinstance(connection, SSLObjectConnection):
        return connection.get_ssl_object().get_channel_binding("tls-unique")
    resumed = session_reused(connection)
    if resumed is None:
        return None
    return connection.get_finished() if resumed else connection.get_peer_finished()


def _end_point(connection: SSL.Connection) -> bytes | None:
    """The server certificate's hash (RFC 5929 section 4.1)."""
    own = connection.get_certificate()
    if own is None:
        return None
    certificate: x509.Certificate = own.to_cryptography()
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        # Signatures such as Ed25519 have no separate hash function: the RFC leaves the binding undefined for them.
        return None
    if isinstance(algorithm, (hashes.MD5, hashes.SHA1)):
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)


_REASONS = {
    "http request": "the client speaks HTTP, not TLS",
    "https proxy request": "the client speaks HTTP, not TLS",
    "wrong version number": "the client does not speak TLS",
    "unknown protocol": "the client does not speak TLS",
    "packet length too long": "the client does not speak TLS",
    "no shared cipher": "client and server have no cipher in common (or the server has no certificate)",
    "no suitable signature algorithm": "the server has no certificate, or none of a kind the client can use",
    "unsupported protocol": "the client knows only versions of TLS that are too old",
    "version too low": "the client knows only versions of TLS that are too old",
    "peer did not return a certificate": "the client has no certificate",
    "certificate verify failed": "the client's certificate can't be verified",
}


def explain(error: BaseException) -> str:
    """Explain in one line why a handshake failed, for the log.

    :param error: the value of the failure that ``connectionLost`` got.
    """
    if isinstance(error, (SSL.SysCallError, ConnectionDone, ConnectionLost)):
        return "the client hung up during the TLS handshake"
    if not isinstance(error, SSL.Error):
        return f"the connection was lost during the TLS handshake: {error}".translate(_CONTROL)
    reason = openssl_reason(error).lower()
    for known, text in _REASONS.items():
        if reason.startswith(known):
            return f"TLS handshake failed: {text} ({reason})"
    if " alert " in reason:
        return f"TLS handshake failed: the client refused ({reason.partition(' alert ')[2]})"
    return f"TLS handshake failed: {reason or 'no reason given'}".translate(_CONTROL)
