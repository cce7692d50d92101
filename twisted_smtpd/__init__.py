"""A programmable SMTP and LMTP server on Twisted, with aiosmtpd's handler API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_smtpd.on_demand import on_demand

if TYPE_CHECKING:
    from twisted_smtpd.factory import SMTPFactory
    from twisted_smtpd.session import Envelope, Session
    from twisted_smtpd.smtp import SMTP
    from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["SMTP", "Envelope", "Reply", "SMTPFactory", "SMTPReplyError", "Session", "__version__"]

__version__ = "0.1.0.dev0"

# So that `twisted_smtpd.wire` can be used without loading the server (or Twisted at all).
__getattr__ = on_demand(
    __name__,
    {
        "SMTP": "smtp",
        "SMTPFactory": "factory",
        "Session": "session",
        "Envelope": "session",
        "Reply": "wire.replies",
        "SMTPReplyError": "wire.replies",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
