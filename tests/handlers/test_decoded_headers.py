"""Message with a modern policy: no header line comes out of a text that was encoded."""

from __future__ import annotations

import email
import email.policy
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.handlers import Message
from twisted_smtpd.handlers.trace import trace_header
from twisted_smtpd.session import Envelope, Session

LONG = b" " + b"y" * 90
EVIL = b"=?utf-8?q?a=0AX-Admin:_yes?="


class Parsing(Message):
    def handle_message(self, message: Any) -> None:
        """Nothing."""


def prepared(content: bytes, sender: str = "a@b.example", policy: Any = email.policy.default) -> Any:
    envelope = Envelope()
    envelope.mail_from, envelope.rcpt_tos, envelope.content = sender, ["c@d.example"], content
    return Parsing(policy=policy).prepare_message(Session(), envelope)


class EncodedWordTests(SynchronousTestCase):
    def check(self, message: Any, *names: str) -> None:
        """Neither the text of a header nor what is written has another header."""
        for name, value in message.items():
            self.assertEqual(len(str(value).splitlines()), 1 if str(value) else 0, name)
        for policy in (None, email.policy.SMTP, email.policy.SMTP.clone(refold_source="all")):
            for reading in (email.policy.compat32, email.policy.default):
                again = email.message_from_bytes(message.as_bytes(policy=policy), policy=reading)
                self.assertEqual(again.keys(), ["X-Peer", "X-MailFrom", "X-RcptTo", *names])

    def test_a_senders_address_is_not_decoded(self) -> None:
        """A header line X-Admin came out, and a second X-MailFrom would have as well."""
        for name in ("X-Admin", "X-MailFrom"):
            sender = f'"=?utf-8?q?a=0A{name}:_yes?= {"y" * 60}"@evil.example'
            for policy in (email.policy.default, email.policy.SMTPUTF8):
                message = prepared(b"Subject: x\r\n\r\nhi\r\n", sender, policy)
                self.assertEqual(message["X-MailFrom"], sender)
                self.check(message, "Subject")
            message = prepared(b"Subject: x\r\n\r\nhi\r\n", sender, None)
            self.assertEqual(message["X-MailFrom"], sender)
            self.assertEqual(email.message_from_bytes(message.as_bytes()).keys(), message.keys())

    def test_what_a_client_encodes_becomes_no_header_line(self) -> None:
        base64 = b"=?utf-8?b?YQ0KWC1BZG1pbjogeWVz?="
        for word in (EVIL, EVIL.replace(b"=0A", b"=0D"), base64, b"=?utf-7?q?a+AAo-X-Admin:_yes?="):
            message = prepared(b"Subject: " + word + LONG + b"\r\nTo: x@y\r\n\r\nhi\r\n")
            self.check(message, "Subject", "To")
            self.assertTrue(message["Subject"].startswith("a"), message["Subject"])
            self.assertIn("X-Admin: yes", message["Subject"])

    def test_headers_with_a_structure(self) -> None:
        for header in (
            b"From: " + EVIL + b" <x@y.example>",
            b"To: " + EVIL + LONG + b" <x@y.example>",
            b'Content-Type: text/plain; name="' + EVIL + LONG + b'"',
            b"Content-Disposition: attachment; filename*=utf-8''a%0AX-Admin:%20yes" + b"y" * 90,
            b"Content-Disposition: attachment; filename*0*=utf-8''a%0A; filename*1*=X-Admin:%20yes" + b"y" * 90,
            b"Message-ID: " + EVIL,
            b"Date: " + EVIL,
        ):
            message = prepared(header + b"\r\nX-Other: =?utf-8?q?caf=C3=A9?=\r\n\r\nhi\r\n")
            self.check(message, header.partition(b":")[0].decode(), "X-Other")
            self.assertEqual(message["X-Other"], "caf\xe9")

    def test_what_hides_nothing_stays_as_it_was_sent(self) -> None:
        header = b"Subject: =?utf-8?q?caf=C3=A9?=\r\nContent-Disposition: inline; filename*=utf-8''caf%C3%A9\r\n"
        message = prepared(header + b"\r\nhi\r\n")
        self.assertIn(header, message.as_bytes(policy=email.policy.SMTP))
        self.assertEqual(message["Subject"], "caf\xe9")

    def test_a_stored_trace_header_reads_as_it_was_said(self) -> None:
        sender = '"=?utf-8?q?a=0AX-Admin:_yes?="@evil.example'
        stored = trace_header({"X-MailFrom": sender})
        for policy in (email.policy.default, email.policy.SMTP):
            self.assertEqual(email.message_from_bytes(stored, policy=policy)["X-MailFrom"], sender)
