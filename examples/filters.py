"""Filters before a mail server: they change messages, add headers, and ask a web service.

twisted-smtpd -c chain filters.Footer + filters.Scanned http://127.0.0.1:8080/check + proxy mail.example.com:25
"""

from __future__ import annotations

import json
import urllib.request
from argparse import ArgumentParser
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from twisted.internet.threads import deferToThread

from twisted_smtpd.handlers import PASS


class Footer:
    """Adds a line to the text of each message, and a header."""

    line = "-- \nSent through example.com\n"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        envelope.content = await deferToThread(self.with_footer, envelope.content)
        # The next handler decides.
        return PASS

    def with_footer(self, content: bytes) -> bytes:
        message: EmailMessage = message_from_bytes(content, _class=EmailMessage, policy=SMTP)
        body = message.get_body(preferencelist=("plain",))
        # A signature is valid for the very octets that were signed: leave such messages alone.
        if body is not None and message.get_content_maintype() != "multipart" and "DKIM-Signature" not in message:
            body.set_content(f"{body.get_content()}{self.line}")
        message["X-Filtered-By"] = "example.com"
        return message.as_bytes()


class Scanned:
    """Asks a web service about each message: it gets the message, and answers ``{"spam": true}`` or false."""

    timeout = 10.0

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Scanned:
        parser.add_argument("url")
        return cls(parser.parse_args(args).url)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        try:
            is_spam = await deferToThread(self.ask, envelope.content)
        except (OSError, ValueError):
            # The client tries again later: better late than unchecked.
            return "451 4.7.1 Messages can't be checked now, try again later"
        return "550 5.7.1 This message looks like spam" if is_spam else PASS

    def ask(self, content: bytes) -> bool:
        request = urllib.request.Request(self.url, content, {"Content-Type": "message/rfc822"})
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            return bool(json.load(response)["spam"])
