"""Handlers ready for use, and base classes for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_smtpd.on_demand import on_demand
from twisted_smtpd.runtime.lifecycle import HandlerStartError, ServerInfo

if TYPE_CHECKING:
    from twisted_smtpd.handlers.chain import PASS, Chain
    from twisted_smtpd.handlers.console import Console
    from twisted_smtpd.handlers.debugging import Debugging
    from twisted_smtpd.handlers.listed import Recipients, Senders
    from twisted_smtpd.handlers.maildir import Mailbox
    from twisted_smtpd.handlers.message import AsyncMessage, Message
    from twisted_smtpd.handlers.proxy import Proxy
    from twisted_smtpd.handlers.sink import Sink
    from twisted_smtpd.handlers.webhook import Webhook

__all__ = [
    "COMMASPACE",
    "PASS",
    "AsyncMessage",
    "Chain",
    "Console",
    "Debugging",
    "HandlerStartError",
    "Mailbox",
    "Message",
    "Proxy",
    "Recipients",
    "Senders",
    "ServerInfo",
    "Sink",
    "Webhook",
]

#: What stands between the recipients in ``X-RcptTo``.
COMMASPACE = ", "

# A server has one handler, or few: the others (webhook brings twisted.web along) are not loaded.
__getattr__ = on_demand(
    __name__,
    {
        "PASS": "chain",
        "Chain": "chain",
        "Console": "console",
        "Debugging": "debugging",
        "Mailbox": "maildir",
        "AsyncMessage": "message",
        "Message": "message",
        "Proxy": "proxy",
        "Recipients": "listed",
        "Senders": "listed",
        "Sink": "sink",
        "Webhook": "webhook",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
