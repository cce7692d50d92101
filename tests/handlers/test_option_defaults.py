"""Defaults of the server's options that a handler says."""

from __future__ import annotations

import io
from typing import Any
from unittest.mock import Mock

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, Recorder, codes, connect, hooks
from twisted_smtpd.handlers import Chain, Debugging, Proxy, Sink
from twisted_smtpd.handlers.maildir import Mailbox
from twisted_smtpd.smtp import SMTP

LONG = b"DATA\r\nX: " + b"y" * 24_000 + b"\r\n\r\nhi\r\n.\r\n"


def limit(handler: Any, **options: Any) -> int | None:
    return connect(handler, **options).protocol.line_length_limit


class LineLengthTests(SynchronousTestCase):
    """Real mail has lines of 7,000 to 24,000 octets."""

    def test_what_keeps_or_prints_messages_takes_any_length(self) -> None:
        for handler in (Debugging(io.StringIO()), Sink(), Chain(Sink(), Debugging(io.StringIO()))):
            self.assertEqual(codes(connect(handler).send(ENVELOPE + LONG))[-1], 250)
        self.assertEqual(limit(Mailbox(self.mktemp())), 0)

    def test_unless_told_otherwise(self) -> None:
        class Own(SMTP):
            line_length_limit = 1500

        self.assertEqual(limit(Sink(), line_length_limit=2000), 2000)
        self.assertEqual(limit(Sink(), protocol=Own), 1500)

    def test_others_keep_the_limit(self) -> None:
        for handler in (
            Recorder(),
            hooks(),
            Mock(),
            Proxy("next.example", 25),
            Chain(Sink(), Recorder()),
            Chain(Sink(), Mock()),
        ):
            self.assertEqual(limit(handler), 2000, handler)
        self.assertEqual(codes(connect(Recorder()).send(ENVELOPE + LONG))[-1], 500)
