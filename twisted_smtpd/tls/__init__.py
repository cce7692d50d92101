"""TLS: what a user gives (a context, files, nothing) becomes a connection creator; what was negotiated becomes values.

Certificates are files (:class:`CertificateFiles`, :class:`ServerCertificates`), a throw-away one
(:func:`self_signed`), a standard library :class:`ssl.SSLContext` or anything Twisted takes
(:func:`connection_creator`).  After the handshake, :func:`describe` and :func:`channel_binding` tell what came of it,
and :func:`explain` why there was none.
"""

from __future__ import annotations

from twisted_smtpd.tls.certificates import (
    CertificateFiles,
    SelfSigned,
    ServerCertificates,
    self_signed,
)
from twisted_smtpd.tls.contexts import connection_creator
from twisted_smtpd.tls.errors import TLSConfigurationError
from twisted_smtpd.tls.info import TLSInfo, channel_binding, describe, explain

__all__ = [
    "CertificateFiles",
    "SelfSigned",
    "ServerCertificates",
    "TLSConfigurationError",
    "TLSInfo",
    "channel_binding",
    "connection_creator",
    "describe",
    "explain",
    "self_signed",
]
