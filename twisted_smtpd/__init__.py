"""A programmable SMTP and LMTP server on Twisted, with aiosmtpd's handler API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted_smtpd.factory import SMTPFactory
    from twisted_smtpd.session import Envelope, Session
    from twisted_smtpd.smtp import SMTP
    from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["SMTP", "Envelope", "Reply", "SMTPFactory", "SMTPReplyError", "Session", "__version__"]

__version__ = "0.1.0.dev0"

_HOMES = {
    "SMTP": "twisted_smtpd.smtp",
    "SMTPFactory": "twisted_smtpd.factory",
    "Session": "twisted_smtpd.session",
    "Envelope": "twisted_smtpd.session",
    "Reply": "twisted_smtpd.wire.replies",
    "SMTPReplyError": "twisted_smtpd.wire.replies",
}


# On demand, so that `twisted_smtpd.wire` can be used without loading the server (or Twisted at all).
def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
