"""Test a program that sends mail, against a real server: python -m unittest controller_in_tests.py"""

from __future__ import annotations

import email
import email.policy
import smtplib
import unittest
from email.message import EmailMessage
from typing import Any

from twisted_smtpd.controller import Controller


def remind(host: str, port: int, whom: str) -> None:
    """What is to be tested."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", whom, "Your bill"
    message.set_content("Please pay.\n")
    with smtplib.SMTP(host, port) as client:
        client.send_message(message)


class Outbox:
    """Keeps messages.  Mail to ``nobody@…`` is refused, to see what the program does about it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]) -> str:
        if address.startswith("nobody@"):
            return "550 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"


class RemindTests(unittest.TestCase):
    def setUp(self) -> None:
        self.outbox = Outbox()
        # Port 0 is any that is free, so tests can run side by side.
        self.server = Controller(self.outbox, port=0)
        self.server.start()
        self.addCleanup(self.server.stop)

    def test_the_bill_says_what_it_is(self) -> None:
        remind(self.server.hostname, self.server.port, "anne@example.com")
        (message,) = self.outbox.messages
        self.assertEqual(message["Subject"], "Your bill")

    def test_an_unknown_customer_is_reported(self) -> None:
        with self.assertRaises(smtplib.SMTPRecipientsRefused):
            remind(self.server.hostname, self.server.port, "nobody@example.com")


if __name__ == "__main__":
    unittest.main()
