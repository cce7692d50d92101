"""Certificates from files, which are reloaded and chosen by the name that a client asks for; self-signed ones."""

from __future__ import annotations

import os
import secrets
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from twisted_smtpd.tls.contexts import SSLObjectConnection
from twisted_smtpd.tls.engine import OwnCreator
from twisted_smtpd.tls.errors import TLSConfigurationError, openssl_reason
from twisted_smtpd.tls.pem import Credentials, Path, by_name, context_for, load_authorities, load_credentials
from twisted_smtpd.tls.records import ServerConnection
from twisted_smtpd.tls.ssl_contexts import SSLContexts, made_of
from twisted_smtpd.tls.trial import generate

if TYPE_CHECKING:
    from cryptography import x509
    from twisted.internet.interfaces import IReactorTime

__all__ = ["CertificateFiles", "SelfSigned", "ServerCertificates", "self_signed"]

_log = Logger()

# With renegotiation clients can make the server work hard at little cost; compression leaks secrets (CRIME).
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | getattr(SSL, "OP_NO_RENEGOTIATION", 0)


@dataclass(frozen=True)
class _Policy:
    """The settings that all certificates of a server share."""

    minimum_version: ssl.TLSVersion
    ciphers: str | None
    require_client_certificate: bool
    session_id: bytes

    @property
    def cipher_list(self) -> str | None:
        """The ciphers; ``None`` for OpenSSL's own."""
        if self.ciphers is None and self.minimum_version < ssl.TLSVersion.TLSv1_2:
            # At its own level, OpenSSL 3 refuses these versions whatever the minimum is: they sign with SHA-1.
            return "DEFAULT:@SECLEVEL=0"
        return self.ciphers


def _check_minimum(version: ssl.TLSVersion) -> None:
    known = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    if version not in known:
        raise TLSConfigurationError(f"minimum_version: TLS 1.0 to TLS 1.3, not {version!r}")


def _note_untrusted(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
    """Accept a certificate that can't be verified, where certificates are optional, and note that on the connection.

    Mail servers send whatever certificate they have when they are asked for one: a server that refused it would refuse
    their mail.
    """
    if not ok and isinstance(connection, ServerConnection):
        connection.peer_untrusted = True
    return True


def _context(credentials: Credentials, policy: _Policy, authorities: Sequence[x509.Certificate]) -> SSL.Context:
    """Make the OpenSSL context for one certificate.

    :raises TLSConfigurationError: if OpenSSL refuses the certificate, the key or the ciphers.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(policy.minimum_version)
    context.set_options(_OPTIONS)
    # Tickets need no memory here and work with both versions of TLS; a cache would hold 20,480 sessions.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # An idle connection would hold 34 KiB for records; the standard library's contexts have this mode, too.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # Other servers' sessions are refused.  Also, OpenSSL needs an id if clients are asked for certificates.
    context.set_session_id(policy.session_id)
    if (ciphers := policy.cipher_list) is not None:
        try:
            context.set_cipher_list(ciphers.encode("ascii"))
        except (SSL.Error, UnicodeError) as error:
            raise TLSConfigurationError(f"ciphers {ciphers!r}: OpenSSL knows none of them") from error
    try:
        context.use_certificate(credentials.certificate)
        context.use_privatekey(credentials.key)
        for certificate in credentials.chain:
            context.add_extra_chain_cert(certificate)
    except SSL.Error as error:
        raise TLSConfigurationError(f"{credentials.source}: OpenSSL refuses it: {openssl_reason(error)}") from error
    if authorities:
        _ask_for_certificates(context, policy, authorities)
    return context


def _ask_for_certificates(context: SSL.Context, policy: _Policy, authorities: Sequence[x509.Certificate]) -> None:
    """Ask clients for a certificate of these authorities."""
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)
    # A resumed session is not verified again, so _note_untrusted would not be called.
    context.set_options(SSL.OP_NO_TICKET)
    if policy.require_client_certificate:
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    else:
        context.set_verify(SSL.VERIFY_PEER, _note_untrusted)


class _Contexts:
    """The contexts of a set of certificates: the first one is the default, the others are found by name."""

    def __init__(
        self, loaded: Sequence[Credentials], policy: _Policy, authorities: Sequence[x509.Certificate] = ()
    ) -> None:
        contexts = [_context(credentials, policy, authorities) for credentials in loaded]
        self._by_name = by_name(loaded, contexts)
        self._default = contexts[0]
        if len(contexts) > 1:
            self._default.set_tlsext_servername_callback(self._choose)

    def connection(self) -> ServerConnection:
        return ServerConnection(self._default, self)

    def _choose(self, connection: SSL.Connection) -> None:
        """Switch to the certificate for the name that the client asks for, if there is one."""
        context = context_for(connection.get_servername() or b"", self._by_name)
        if context is not None:
            connection.set_context(context)


class _Certificates(OwnCreator):
    """Connections with certificates, made by pyOpenSSL, or by the standard library where that can do it.

    :param policy: what all certificates share.
    """

    _contexts: _Contexts | SSLContexts

    def __init__(self, policy: _Policy) -> None:
        self._policy = policy
        self._loaded: Sequence[Credentials] = ()
        self._authorities: Sequence[x509.Certificate] = ()
        self._by_ssl = self._needs_openssl = self._chosen = False

    def choose_engine(self, exporter: bool) -> None:
        """See :class:`~twisted_smtpd.tls.engine.OwnCreator`.

        The standard library can neither export keys nor let a client in whose certificate it can't verify.  Servers
        that share certificates share the engine.
        """
        self._needs_openssl = self._needs_openssl or exporter
        by_ssl = not (self._needs_openssl or self._authorities)
        if by_ssl == self._by_ssl and self._chosen:
            return
        self._chosen = True
        if by_ssl != self._by_ssl:
            self._by_ssl = by_ssl
            self._contexts = self._made_of(self._loaded, self._authorities)
        name = "the standard library" if isinstance(self._contexts, SSLContexts) else "pyOpenSSL"
        _log.debug("TLS with {certificates} by {engine}", certificates=self._loaded[0].source, engine=name)

    def _made_of(
        self, loaded: Sequence[Credentials], authorities: Sequence[x509.Certificate]
    ) -> _Contexts | SSLContexts:
        contexts = None
        if self._by_ssl:
            try:
                contexts = made_of(loaded, self._policy.minimum_version, self._policy.cipher_list)
            except TLSConfigurationError as error:
                # Another OpenSSL than pyOpenSSL's, which may know other ciphers and keys.
                _log.info("the standard library's TLS can't be used: {reason}", reason=str(error))
        self._loaded, self._authorities = loaded, authorities
        return _Contexts(loaded, self._policy, authorities) if contexts is None else contexts


@implementer(IOpenSSLServerConnectionCreator)
class ServerCertificates(_Certificates):
    """TLS for a server from PEM files: TLS 1.2 and newer, OpenSSL's own choice of ciphers.

    The first certificate is for clients that name no server, or a server for which there is no certificate.  When a
    file has changed, new connections get the new certificate.  If it can't be used, they get the old one, and the log
    says why, once.  Established connections are not affected.

    :param certificates: ``(certificate file, key file)`` pairs.  The certificate file holds the server's certificate
        first, then those of the authorities between it and the root.  If it holds the key as well, the key file is
        ``None``.  A third entry is a file with the rest of the chain.
    :param client_ca: a file with the certificates of the authorities for clients; without it, clients are not asked for
        certificates.
    :param require_client_certificate: whether clients without a valid certificate are refused.  If not, a client whose
        certificate can't be verified is let in, and :attr:`TLSInfo.peer_verified <twisted_smtpd.tls.TLSInfo>` is false.
    :param minimum_version: TLS 1.2 or TLS 1.3; TLS 1.0 and TLS 1.1 can be broken (RFC 8996), and are for old devices.
    :param ciphers: an OpenSSL cipher list for TLS 1.2, instead of OpenSSL's default.
    :param check_interval: seconds between two checks of the files, at least; 0 for a check at each connection.  Files
        are checked only when a connection is made.
    :param clock: where the time comes from: the reactor, or a ``Clock``.
    :raises TLSConfigurationError: if a file or an argument can't be used; it names the first one.
    """

    def __init__(
        self,
        certificates: Sequence[tuple[Path, Path | None] | tuple[Path, Path | None, Path | None]],
        *,
        client_ca: Path | None = None,
        require_client_certificate: bool = False,
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        ciphers: str | None = None,
        check_interval: float = 10.0,
        clock: IReactorTime | None = None,
    ) -> None:
        if not certificates:
            raise TLSConfigurationError("no certificate given")
        if require_client_certificate and client_ca is None:
            raise TLSConfigurationError("to require client certificates, client_ca must name their authorities")
        _check_minimum(minimum_version)
        self._certificates = [(entry[0], entry[1], entry[2] if len(entry) > 2 else None) for entry in certificates]
        self._client_ca = client_ca
        super().__init__(_Policy(minimum_version, ciphers, require_client_certificate, secrets.token_bytes(16)))
        self._seconds = time.monotonic if clock is None else clock.seconds
        self._check_interval = check_interval
        # Before the files are read, so that the next check sees a change in between.
        self._seen = self._look()
        self._next_check = self._seconds() + check_interval
        self._contexts = self._load()

    def engine(self) -> ServerConnection | SSLObjectConnection:
        """A connection with the current certificates."""
        now = self._seconds()
        if now >= self._next_check:
            self._next_check = now + self._check_interval
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._replace()
        return self._contexts.connection()

    def reload(self) -> bool:
        """Read the files now, whether they have changed or not (for SIGHUP).

        :returns: whether they can be used; if not, the log says why and the old ones stay in use.
        """
        self._seen = self._look()
        return self._replace()

    def _replace(self) -> bool:
        try:
            self._contexts = self._load()
        except TLSConfigurationError as error:
            _log.error("TLS goes on with the old certificates: {reason}", reason=str(error))
            return False
        _log.info("TLS certificates reloaded: {files}", files=", ".join(os.fspath(c[0]) for c in self._certificates))
        return True

    def _load(self) -> _Contexts | SSLContexts:
        authorities = () if self._client_ca is None else load_authorities(self._client_ca)
        return self._made_of([load_credentials(*files) for files in self._certificates], authorities)

    def _look(self) -> list[tuple[int, ...] | None]:
        """The marks of the files, which differ when a file has changed."""
        files = {
            file: None for entry in (*self._certificates, (self._client_ca,)) for file in entry if file is not None
        }
        return [_stat(file) for file in files]


def _stat(file: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    # With st_ctime a change of permissions counts as well: a file that could not be read is tried again.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


class CertificateFiles(ServerCertificates):
    """TLS for a server with one certificate; :class:`ServerCertificates` has the details.

    :param cert_path: a PEM file with the server's certificate, and the rest of its chain after it.
    :param key_path: a PEM file with its key, if the key is not in ``cert_path``.
    :param chain: a PEM file with the rest of the chain, if that is not in ``cert_path``.
    :param options: the keyword arguments of :class:`ServerCertificates`.
    :raises TLSConfigurationError: if a file or an argument can't be used.
    """

    def __init__(self, cert_path: Path, key_path: Path | None = None, *, chain: Path | None = None, **options: Any):
        super().__init__([(cert_path, key_path, chain)], **options)


@implementer(IOpenSSLServerConnectionCreator)
class SelfSigned(_Certificates):
    """TLS with a new self-signed certificate: for trying things out.

    :param hostname: the server's name.
    :param rsa: whether its key is for RSA, for clients that know no ECDSA.
    :param minimum_version: see :class:`ServerCertificates`.
    :ivar certificate_pem: the certificate in PEM, for clients that shall trust it.
    :raises TLSConfigurationError: if the host name can't be in a certificate.
    """

    def __init__(
        self, hostname: str, *, rsa: bool = False, minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    ) -> None:
        _check_minimum(minimum_version)
        credentials = generate(hostname, rsa=rsa)
        self.certificate_pem = credentials.pem
        super().__init__(_Policy(minimum_version, None, False, secrets.token_bytes(16)))
        self._contexts = self._made_of([credentials], ())

    def engine(self) -> ServerConnection | SSLObjectConnection:
        """A connection with this certificate."""
        return self._contexts.connection()


def self_signed(
    hostname: str, *, rsa: bool = False, minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> SelfSigned:
    """Make a self-signed certificate for ``hostname``, ``localhost``, ``127.0.0.1`` and ``::1``, valid for 90 days.

    It is kept in memory only.  Clients that check certificates refuse it, unless they are given its
    ``certificate_pem``.

    :param rsa: see :class:`SelfSigned`.
    :param minimum_version: see :class:`ServerCertificates`.
    :raises TLSConfigurationError: if the host name can't be in a certificate.
    """
    return SelfSigned(hostname, rsa=rsa, minimum_version=minimum_version)
