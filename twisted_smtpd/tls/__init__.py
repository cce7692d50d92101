"""TLS for servers: certificates, connections, and what a handshake has agreed on.

* Certificates come from files (:class:`CertificateFiles`, :class:`ServerCertificates`) or are made on the spot
  (:func:`self_signed`).  A standard library :class:`ssl.SSLContext`, and whatever Twisted accepts, will do as well
  (:func:`connection_creator`).
* After a handshake, :func:`describe` and :func:`channel_binding` say what was agreed on; after one that failed,
  :func:`explain` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_smtpd.on_demand import on_demand

if TYPE_CHECKING:
    from twisted_smtpd.tls.certificates import CertificateFiles, SelfSigned, ServerCertificates, self_signed
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

# Many servers have no TLS.
__getattr__ = on_demand(
    __name__,
    {
        "CertificateFiles": "certificates",
        "SelfSigned": "certificates",
        "ServerCertificates": "certificates",
        "TLSConfigurationError": "errors",
        "TLSInfo": "info",
        "channel_binding": "info",
        "connection_creator": "contexts",
        "describe": "info",
        "explain": "info",
        "self_signed": "certificates",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
