"""Throw-away certificates, for trying things out: self-signed in memory, or in a folder for clients to trust."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from twisted_smtpd.tls.errors import TLSConfigurationError
from twisted_smtpd.tls.issuing import IssuingKey, Validity, common_name, issue_authority, issue_server
from twisted_smtpd.tls.pem import Credentials, PrivateKey, load_authorities, load_credentials

__all__ = ["Files", "generate", "written"]

DAY = datetime.timedelta(days=1)
VALID = 91 * DAY

_SELF_SIGNED = "twisted-smtpd self-signed, for tests only"
_SERVER = "twisted-smtpd, for tests only"
_AUTHORITY = "twisted-smtpd throw-away authority, for tests only"


@dataclass(frozen=True)
class Files:
    """A throw-away certificate in files.

    :ivar certificate: the server's certificate.
    :ivar key: its key, which only this user can read.
    :ivar authority: what clients have to trust.
    """

    certificate: Path
    key: Path
    authority: Path


def generate(hostname: str, *, rsa: bool = False) -> Credentials:
    """Make a key and a self-signed certificate for a host, valid from yesterday on for 91 days.

    :param hostname: a host name, which may have Unicode characters, or an IP address.
    :param rsa: whether it is a key for RSA instead of ECDSA.
    :raises TLSConfigurationError: if the name can't be in a certificate.
    """
    key = _key(rsa)
    name = common_name(_SELF_SIGNED)
    certificate = issue_server(_names(hostname), key, name, name, key, _validity())
    return Credentials(certificate, key, (), "the self-signed certificate")


def written(folder: str | os.PathLike[str], hostname: str, *, rsa: bool = False) -> Files:
    """Put a throw-away certificate into a folder, unless one is there that will do.

    ``ca.pem`` is the certificate of an authority whose key is forgotten at once; clients that trust it trust this
    server and no other.  ``cert.pem`` and ``key.pem`` are the server's.

    :param folder: the folder; it is made if it does not exist.
    :param hostname: see :func:`generate`.
    :param rsa: see :func:`generate`.
    :raises TLSConfigurationError: if the name can't be in a certificate, if a file can't be written, or if there is one
        with another certificate.
    """
    home = Path(folder)
    files = Files(home / "cert.pem", home / "key.pem", home / "ca.pem")
    names = _names(hostname)
    if _will_do(files, names, rsa):
        return files
    authority_key, key = _key(rsa), _key(rsa)
    validity = _validity()
    authority = issue_authority(_AUTHORITY, authority_key, validity)
    certificate = issue_server(names, key, common_name(_SERVER), authority.subject, authority_key, validity)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        home.mkdir(parents=True, exist_ok=True)
        _replace(files.key, secret, 0o600)
        _replace(files.certificate, certificate.public_bytes(Encoding.PEM), 0o644)
        _replace(files.authority, authority.public_bytes(Encoding.PEM), 0o644)
    except OSError as error:
        raise TLSConfigurationError(f"{error.filename or home}: {error.strerror}") from None
    return files


def _will_do(files: Files, names: list[x509.GeneralName], rsa: bool) -> bool:
    """Whether the files are there, are of this kind, and can be used for some time.

    :raises TLSConfigurationError: a file has another certificate, which must not be lost.
    """
    there = [path for path in (files.certificate, files.key, files.authority) if path.exists()]
    if not there:
        return False
    try:
        authority = load_authorities(files.authority)[0]
        found = load_credentials(files.certificate, files.key)
    except TLSConfigurationError as error:
        raise TLSConfigurationError(f"{error}; remove {there[0]} to have it made anew") from None
    if authority.subject != common_name(_AUTHORITY) or found.certificate.issuer != authority.subject:
        raise TLSConfigurationError(f"{files.certificate} is no throw-away certificate: name another folder")
    try:
        found.certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    alternatives = found.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = _not_after(found.certificate) - datetime.datetime.now(datetime.timezone.utc)
    return left > DAY and set(names) <= set(alternatives) and _is_rsa(found.key) is rsa


def _not_after(certificate: x509.Certificate) -> datetime.datetime:
    # The one with a zone is newer than the oldest cryptography that will do.
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file as a whole; it never has wider rights than these."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


def _is_rsa(key: PrivateKey) -> bool:
    return isinstance(key, rsa.RSAPrivateKey)


def _key(is_rsa: bool) -> IssuingKey:
    if is_rsa:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _validity() -> Validity:
    # Clocks differ: to clients whose clock is slow, a certificate made this second is not yet valid.
    start = datetime.datetime.now(datetime.timezone.utc) - DAY
    return start, start + VALID


def _names(hostname: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    own = _general_name(hostname)
    return names if own in names else [*names, own]


def _general_name(hostname: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(hostname.strip("[]")))
    except ValueError:
        pass
    try:
        ascii_name = hostname.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise TLSConfigurationError(f"{hostname!r}: not a host name") from error
    if not re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?\.?", ascii_name):
        raise TLSConfigurationError(f"{hostname!r}: not a host name")
    return x509.DNSName(ascii_name.rstrip("."))
