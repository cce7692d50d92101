"""Certificates and keys: reads them from PEM files, with errors that say what is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, Union

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from twisted_smtpd.tls.errors import TLSConfigurationError

__all__ = ["Credentials", "Path", "PrivateKey", "by_name", "context_for", "load_authorities", "load_credentials"]

C = TypeVar("C")

Path = Union[str, "os.PathLike[str]"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

# Octets.  A chain has some kilobytes; a bundle of all public authorities has some hundred kilobytes.
MAX_FILE = 4 * 1024 * 1024

_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")


@dataclass(frozen=True)
class Credentials:
    """A server's certificate with its key.

    :ivar certificate: the certificate.
    :ivar key: its private key.
    :ivar chain: the authorities' certificates that follow it.
    :ivar source: its name in errors: the file.
    """

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    source: str

    @property
    def names(self) -> set[bytes]:
        """Its DNS names in lower case; the common name only if it has no DNS names (RFC 6125 section 6.4.4)."""
        try:
            alternatives = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = alternatives.get_values_for_type(x509.DNSName)
        except (x509.ExtensionNotFound, ValueError):
            names = []
        if not names:
            names = [str(a.value) for a in self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return {name.lower().rstrip(".").encode("utf-8", "replace") for name in names}

    @property
    def pem(self) -> bytes:
        """The certificate, in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)


def by_name(loaded: Sequence[Credentials], contexts: Sequence[C]) -> dict[bytes, C]:
    """The contexts of certificates by the names in these; of two for one name, the first counts.

    :param loaded: the certificates.
    :param contexts: the context of each.
    """
    found: dict[bytes, C] = {}
    for credentials, context in zip(loaded, contexts, strict=True):
        for name in credentials.names:
            found.setdefault(name, context)
    return found


def context_for(name: bytes, contexts: Mapping[bytes, C]) -> C | None:
    """The context for the name that a client asks for (RFC 6066 section 3); ``None`` if there is none.

    :param contexts: see :func:`by_name`.
    """
    name = name.lower().rstrip(b".")
    # RFC 6125 section 6.4.3: the wildcard stands for exactly the leftmost label.
    return contexts.get(name) or contexts.get(b"*." + name.partition(b".")[2])


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise TLSConfigurationError(f"{os.fspath(path)}: can't be read: {reason}") from error
    if len(data) > MAX_FILE:
        raise TLSConfigurationError(f"{os.fspath(path)}: too large for certificates (over {MAX_FILE} octets)")
    return data


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    if not _CERTIFICATE.search(data):
        if _KEY.search(data):
            raise TLSConfigurationError(f"{os.fspath(path)}: holds a private key where a certificate is expected")
        raise TLSConfigurationError(f"{os.fspath(path)}: holds no certificate (PEM is expected)")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise TLSConfigurationError(f"{os.fspath(path)}: holds a damaged certificate") from error


def _private_key(path: Path, data: bytes) -> PrivateKey:
    found = _KEY.search(data)
    if found is None:
        raise TLSConfigurationError(f"{os.fspath(path)}: holds no private key (PEM is expected)")
    try:
        key = load_pem_private_key(found[0] + b"\n", None)
    except TypeError as error:
        raise TLSConfigurationError(
            f"{os.fspath(path)}: the private key is encrypted; a server needs it without a passphrase"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TLSConfigurationError(f"{os.fspath(path)}: holds a damaged or unknown private key") from error
    if not isinstance(key, PrivateKey):
        raise TLSConfigurationError(f"{os.fspath(path)}: this kind of key is not for TLS")
    return key


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_match(cert_path: Path, key_path: Path, certificates: list[x509.Certificate], key: PrivateKey) -> None:
    wanted = _spki(key.public_key())
    matches = [_certificate_spki(certificate) == wanted for certificate in certificates]
    if matches[0]:
        return
    if any(matches):
        raise TLSConfigurationError(
            f"{os.fspath(cert_path)}: the server's certificate must come first; it is number {matches.index(True) + 1}"
        )
    raise TLSConfigurationError(
        f"{os.fspath(key_path)}: the private key does not match the certificate in {os.fspath(cert_path)}"
    )


def _certificate_spki(certificate: x509.Certificate) -> bytes:
    try:
        return _spki(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return b""


def load_credentials(cert_path: Path, key_path: Path | None = None, chain_path: Path | None = None) -> Credentials:
    """Read a certificate, its chain and its key.

    :param cert_path: a PEM file: the server's certificate, then its chain.
    :param key_path: a PEM file with the key; ``cert_path`` if ``None``.
    :param chain_path: a PEM file with the rest of the chain, if it is not in ``cert_path``.
    :raises TLSConfigurationError: if a file can't be read or used, or the key does not match the certificate.
    """
    data = _read(cert_path)
    certificates = _certificates(cert_path, data)
    key_data = data if key_path is None else _read(key_path)
    key_path = cert_path if key_path is None else key_path
    key = _private_key(key_path, key_data)
    _check_match(cert_path, key_path, certificates, key)
    chain = certificates[1:]
    if chain_path is not None:
        # Some authorities put the server's certificate into the chain file; sent twice it would break the chain.
        rest = _certificates(chain_path, _read(chain_path))
        chain += [certificate for certificate in rest if certificate != certificates[0]]
    return Credentials(certificates[0], key, tuple(chain), os.fspath(cert_path))


def load_authorities(path: Path) -> list[x509.Certificate]:
    """Read the certificates of authorities from a PEM file.

    :raises TLSConfigurationError: if it can't be read or has no certificate.
    """
    return _certificates(path, _read(path))
