"""Handlers ready for use, and base classes for others."""

from __future__ import annotations

from twisted_smtpd.handlers.debugging import Debugging
from twisted_smtpd.handlers.maildir import Mailbox
from twisted_smtpd.handlers.message import AsyncMessage, Message
from twisted_smtpd.handlers.sink import Sink

__all__ = ["AsyncMessage", "Debugging", "Mailbox", "Message", "Sink"]
