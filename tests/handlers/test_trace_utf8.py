"""The trace headers are in the same form as the message's own."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from twisted_smtpd.handlers import Mailbox
from twisted_smtpd.handlers.trace import trace_header
from twisted_smtpd.session import Envelope, Session


class FormTests(TestCase):
    """Seen: ``X-RcptTo: =?utf-8?...`` beside ``To: dör@…`` in UTF-8: a filter that reads one form misses the other."""

    def stored(self, utf8: bool) -> bytes:
        path = self.mktemp()
        envelope = Envelope()
        envelope.mail_from, envelope.rcpt_tos = "müller@x.example", ["dör@y.example", "anne@y.example"]
        envelope.smtp_utf8 = utf8
        envelope.content = "To: dör@y.example\r\n\r\nhi\r\n".encode()
        # The hook waits for a thread only.
        storing = Deferred.fromCoroutine(Mailbox(path).handle_DATA(None, Session(), envelope))  # type: ignore[arg-type]
        storing.addCallback(lambda _: b"".join(one.read_bytes() for one in Path(path, "new").iterdir()))
        return storing  # type: ignore[return-value]

    async def test_a_message_with_smtputf8_has_them_in_utf8(self) -> None:
        said = (await self.stored(True)).decode().replace(os.linesep, "\n")  # type: ignore[misc]
        self.assertIn("X-MailFrom: müller@x.example\nX-RcptTo: dör@y.example,\n anne@y.example\n", said)

    async def test_another_one_in_ascii(self) -> None:
        said = await self.stored(False)  # type: ignore[misc]
        self.assertTrue(said.partition(b"To: d")[0].isascii())
        self.assertIn(b"X-MailFrom: =?utf-8?", said)

    def test_ascii_is_the_same_in_both(self) -> None:
        values = {"X-Peer": "", "X-MailFrom": "a@x.example", "X-RcptTo": ", ".join(["b@y.example"] * 9)}
        self.assertEqual(trace_header(values, True), trace_header(values))
