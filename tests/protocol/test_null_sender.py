"""The null reverse-path is ``"<>"``, for hooks, handlers and logs."""

from __future__ import annotations

from io import StringIO
from typing import Any

from twisted.logger import formatEvent
from twisted.logger import globalLogPublisher as publisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, MESSAGE, Recorder, connect, hooks
from twisted_smtpd.handlers import Debugging
from twisted_smtpd.handlers.trace import trace_values
from twisted_smtpd.session import Envelope, Session, within_brackets

BOUNCE = MESSAGE.replace(b"a@x.example", b"")


class NullSenderTests(SynchronousTestCase):
    """Seen: ``envelope.mail_from == "<>"``, the test for a bounce in programs for aiosmtpd, was never true."""

    def test_the_envelope_says_so(self) -> None:
        handler = Recorder()
        connect(handler).send(BOUNCE + MESSAGE)
        self.assertEqual([envelope.mail_from for envelope in handler.envelopes], ["<>", "a@x.example"])
        self.assertEqual([envelope.null_sender for envelope in handler.envelopes], [True, False])

    def test_what_a_hook_gets_and_sets_is_the_same(self) -> None:
        def handle_MAIL(server: Any, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
            seen.append(address)
            envelope.mail_from = address
            return "250 OK"

        seen: list[str] = []
        recorder = Recorder()
        connect(hooks(handle_MAIL=handle_MAIL, handle_DATA=recorder.handle_DATA)).send(BOUNCE)
        self.assertEqual(seen, ["<>"])
        self.assertTrue(recorder.envelopes[0].null_sender)

    def test_a_hook_may_set_it_empty(self) -> None:
        envelope = Envelope()
        self.assertFalse(envelope.null_sender)
        envelope.mail_from = ""
        self.assertTrue(envelope.null_sender)

    def test_brackets_are_not_doubled(self) -> None:
        self.assertEqual([within_brackets(one) for one in ("<>", "", None, "a@b.example")], ["", "", "", "a@b.example"])
        stream = StringIO()
        connect(Debugging(stream)).send(BOUNCE)
        self.assertIn("MAIL FROM:<>\n", stream.getvalue())
        self.assertNotIn("<<", stream.getvalue())

    def test_the_log_has_it_as_the_client_sent_it(self) -> None:
        events: list[Any] = []
        publisher.addObserver(events.append)
        self.addCleanup(publisher.removeObserver, events.append)
        connect(Recorder()).send(BOUNCE)
        lines = [formatEvent(event) for event in events]
        self.assertTrue(any("from=<> " in line for line in lines), lines)

    def test_the_trace_header_says_so(self) -> None:
        envelope = Envelope()
        envelope.mail_from = "<>"
        self.assertEqual(trace_values(Session(), envelope)["X-MailFrom"], "<>")

    def test_a_sender_without_brackets_is_still_refused_as_a_recipient(self) -> None:
        self.assertIn(b"\r\n5", connect().send(EHLO + b"MAIL FROM:<>\r\nRCPT TO:<>\r\n"))
