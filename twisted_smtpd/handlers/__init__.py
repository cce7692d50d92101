"""Handlers ready for use, and base classes for others."""

from __future__ import annotations

from twisted_smtpd.handlers.chain import PASS, Chain
from twisted_smtpd.handlers.debugging import Debugging
from twisted_smtpd.handlers.maildir import Mailbox
from twisted_smtpd.handlers.message import AsyncMessage, Message
from twisted_smtpd.handlers.proxy import Proxy
from twisted_smtpd.handlers.sink import Sink
from twisted_smtpd.handlers.webhook import Webhook
from twisted_smtpd.runtime.lifecycle import HandlerStartError, ServerInfo

__all__ = [
    "PASS",
    "AsyncMessage",
    "Chain",
    "Debugging",
    "HandlerStartError",
    "Mailbox",
    "Message",
    "Proxy",
    "ServerInfo",
    "Sink",
    "Webhook",
]
