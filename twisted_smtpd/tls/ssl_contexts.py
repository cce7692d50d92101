"""Contexts of the standard library's ``ssl`` for a server's certificates: they cost less per record than pyOpenSSL's.

They can't do everything: :func:`made_of` says what for.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from twisted_smtpd.tls.contexts import SSLObjectConnection, note_server_name
from twisted_smtpd.tls.errors import TLSConfigurationError
from twisted_smtpd.tls.pem import Credentials, by_name, context_for

__all__ = ["SSLContexts", "made_of"]


class SSLContexts:
    """The contexts of a set of certificates: the first one is the default, the others are found by name.

    :param default: the context for clients that name no server, or one that is not known.
    :param by_name: see :func:`~twisted_smtpd.tls.pem.by_name`.
    """

    def __init__(self, default: ssl.SSLContext, by_name: Mapping[bytes, ssl.SSLContext]) -> None:
        self._default = default
        self._by_name = by_name
        default.sni_callback = self._choose

    def connection(self) -> SSLObjectConnection:
        """A new connection."""
        return SSLObjectConnection(self._default)

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Switch to the certificate for the name that the client asks for, if there is one."""
        if name is None:
            return
        note_server_name(connection, name)
        chosen = context_for(name.encode(), self._by_name)
        if chosen is not None and chosen is not context:
            connection.context = chosen


def made_of(loaded: Sequence[Credentials], minimum_version: ssl.TLSVersion, ciphers: str | None) -> SSLContexts | None:
    """Make the contexts of certificates.

    :param loaded: the certificates, the default one first.
    :param minimum_version: of TLS.
    :param ciphers: an OpenSSL cipher list for TLS 1.2; ``None`` for OpenSSL's own.
    :returns: ``None`` where the system has no files in memory: ``ssl`` reads certificates from files only, and a key
        must not be written to a disk.
    :raises TLSConfigurationError: if OpenSSL refuses a certificate, a key or the ciphers.
    """
    contexts = []
    for credentials in loaded:
        context = _context(minimum_version, ciphers)
        if not _load(context, credentials):
            return None
        contexts.append(context)
    return SSLContexts(contexts[0], by_name(loaded, contexts))


def _context(minimum_version: ssl.TLSVersion, ciphers: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum_version
    # Renegotiation: with it clients can make the server work hard at little cost.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    # Without close_notify a connection may have been cut by an attacker.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    # OpenSSL would send two, for clients that resume a session with two connections at once.  Each takes a tenth of the
    # handshake's time.
    context.num_tickets = 1
    # Python's own list leaves out ciphers that old devices need; with pyOpenSSL they have them.
    try:
        context.set_ciphers("DEFAULT" if ciphers is None else ciphers)
    except ssl.SSLError as error:
        raise TLSConfigurationError(f"ciphers {ciphers!r}: OpenSSL knows none of them") from error
    return context


def _load(context: ssl.SSLContext, credentials: Credentials) -> bool:
    """Give a context its certificate; whether that was possible without a file on a disk."""
    if not hasattr(os, "memfd_create"):
        return False
    key = credentials.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificates = (credentials.certificate, *credentials.chain)
    pem = b"".join((key, *(certificate.public_bytes(Encoding.PEM) for certificate in certificates)))
    try:
        with open(os.memfd_create("certificate", os.MFD_CLOEXEC), "wb", buffering=0) as file:
            file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise TLSConfigurationError(f"{credentials.source}: OpenSSL refuses it: {reason}") from error
    except OSError:
        # Not here: no /proc, or a system call that is forbidden.
        return False
    return True
