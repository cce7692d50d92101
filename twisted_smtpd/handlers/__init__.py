"""Handlers ready for use, and base classes for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_smtpd.on_demand import on_demand

if TYPE_CHECKING:
    from twisted_smtpd.handlers.chain import PASS, Chain
    from twisted_smtpd.handlers.debugging import Debugging
    from twisted_smtpd.handlers.maildir import Mailbox
    from twisted_smtpd.handlers.message import AsyncMessage, Message
    from twisted_smtpd.handlers.proxy import Proxy
    from twisted_smtpd.handlers.sink import Sink
    from twisted_smtpd.handlers.webhook import Webhook

__all__ = ["PASS", "AsyncMessage", "Chain", "Debugging", "Mailbox", "Message", "Proxy", "Sink", "Webhook"]

# A server uses one or two of these; together they load twisted.web and the standard library's email and mailbox.
__getattr__ = on_demand(
    __name__,
    {
        "PASS": "chain",
        "AsyncMessage": "message",
        "Chain": "chain",
        "Debugging": "debugging",
        "Mailbox": "maildir",
        "Message": "message",
        "Proxy": "proxy",
        "Sink": "sink",
        "Webhook": "webhook",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
