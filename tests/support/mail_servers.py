"""Mail servers for tests, under test themselves.  Each has a loop of its own: the global reactor is trial's."""

from __future__ import annotations

import asyncio
import smtplib
from typing import Any
from unittest import TestCase

from twisted_smtpd.testing import MailServer, mail_server_for

LIMIT = 20  # seconds, for a test that hangs

MESSAGE = "From: Anne <anne@example.com>\r\nTo: bart@example.com\r\nSubject: Hello\r\n\r\nIt works.\r\n"


def started(case: TestCase, **options: Any) -> MailServer:
    """A server that runs until the end of a test."""
    return mail_server_for(case, loop=asyncio.new_event_loop(), **options)


def client_of(case: TestCase, server: MailServer, **options: Any) -> smtplib.SMTP:
    """A client that is closed at the end of a test."""
    client = smtplib.SMTP(server.hostname, server.port, timeout=LIMIT, **options)
    case.addCleanup(client.close)
    return client


def send(server: MailServer, recipient: str = "bart@example.com", message: str = MESSAGE) -> None:
    """Send a message."""
    with smtplib.SMTP(server.hostname, server.port, timeout=LIMIT) as client:
        client.sendmail("anne@example.com", [recipient], message)
