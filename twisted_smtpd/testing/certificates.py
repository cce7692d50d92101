"""A certificate authority for tests, and certificates of it: a good one, and bad ones of each kind.

There is one authority in a process.  It is made when it is first needed, and its key is never written anywhere.
"""

from __future__ import annotations

import atexit
import datetime
import ipaddress
import os
import shutil
import ssl
import tempfile
from functools import cache
from pathlib import Path
from threading import RLock
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from twisted_smtpd.tls.issuing import common_name, issue_authority, issue_server

__all__ = ["Authority", "authority"]

# Fixed, so that a test that sets the clock finds the certificates valid.
_BEGIN = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
_END = datetime.datetime(2099, 12, 31, tzinfo=datetime.timezone.utc)
_EXPIRED = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc)


class _Issuer(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _new_authority(name: str) -> _Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    return _Issuer(issue_authority(name, key, (_BEGIN, _END)), key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _issue(issuer: _Issuer, names: tuple[str, ...], until: datetime.datetime) -> _Issuer:
    """A certificate for a server."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, authority = common_name(names[0]), issuer.certificate.subject
    certificate = issue_server([*map(_general_name, names)], key, subject, authority, issuer.key, (_BEGIN, until))
    return _Issuer(certificate, key)


class Authority:
    """Issues certificates for the servers of tests.

    :ivar certificate_pem: its certificate, in PEM: what clients have to trust.
    """

    def __init__(self) -> None:
        self._issuer = _new_authority("twisted-smtpd test authority")
        self.certificate_pem = self._issuer.certificate.public_bytes(Encoding.PEM)
        self._lock = RLock()
        self._contexts: dict[tuple[tuple[str, ...], str], SSL.Context] = {}
        self._folder: tuple[int, Path] | None = None

    def server_context(self, names: tuple[str, ...], fault: str = "") -> SSL.Context:
        """TLS for a server, kept for the next one of the same names.

        :param names: host names and addresses.
        :param fault: one of :data:`~twisted_smtpd.testing.failures.TLS_FAULTS`, or ``""`` for none.
        """
        with self._lock:
            if (names, fault) not in self._contexts:
                self._contexts[names, fault] = self._new_context(names, fault)
            return self._contexts[names, fault]

    def _new_context(self, names: tuple[str, ...], fault: str) -> SSL.Context:
        issuer = _new_authority("an unknown authority") if fault == "unknown authority" else self._issuer
        issued = _issue(
            issuer,
            ("elsewhere.invalid",) if fault == "wrong name" else names,
            _EXPIRED if fault == "expired" else _END,
        )
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        # A client of today speaks TLS 1.2 or later, so it has no version in common with TLS 1.1.
        if fault == "old version":
            context.set_max_proto_version(SSL.TLS1_1_VERSION)
            # OpenSSL would end such a connection without saying why.
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
        else:
            context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.use_certificate(issued.certificate)
        context.use_privatekey(issued.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS for a client that trusts this authority, and no other."""
        return ssl.create_default_context(cadata=self.certificate_pem.decode())

    @property
    def file(self) -> Path:
        """A file with the authority's certificate, in PEM; it is removed when the process ends."""
        with self._lock:
            # A fork must not remove its parent's file, and can't do with it when the parent has ended.
            if self._folder is None or self._folder[0] != os.getpid():
                folder = Path(tempfile.mkdtemp(prefix="twisted-smtpd-"))
                self._folder = os.getpid(), folder
                atexit.register(_remove, folder, os.getpid())
                (folder / "ca.pem").write_bytes(self.certificate_pem)
            return self._folder[1] / "ca.pem"


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def authority() -> Authority:
    """The authority of this process."""
    return Authority()
