"""Dialogs in memory."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Recorder, answering, hooks
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.testing import deliver, talk
from twisted_smtpd.testing.memory import connect


class TalkTests(SynchronousTestCase):
    def test_a_dialog_is_shown_as_it_was(self) -> None:
        handler = hooks(handle_RCPT=answering("550 5.7.1 not here"))
        dialog = talk(handler, "HELO x\nMAIL FROM:<a@x.example>\nRCPT TO:<b@x.example>\nQUIT\n")
        expected = """\
            S: 220 localhost ESMTP twisted-smtpd
            C: HELO x
            S: 250 localhost
            C: MAIL FROM:<a@x.example>
            S: 250 2.1.0 OK
            C: RCPT TO:<b@x.example>
            S: 550 5.7.1 not here
            C: QUIT
            S: 221 2.0.0 Bye
            -- the server has closed the connection"""
        self.assertEqual(dialog.splitlines(), [line.strip() for line in expected.splitlines()])

    def test_bytes_are_one_segment_and_a_str_is_lines(self) -> None:
        whole = talk(object(), b"NOOP\r\nNOOP\r\n")
        self.assertEqual([line[:6] for line in whole.splitlines()], ["S: 220", *["C: NOO"] * 2, *["S: 250"] * 2])
        single = talk(object(), ["NOOP", b"NO", b"OP\r\n"])
        self.assertEqual([line[:6] for line in single.splitlines()[3:]], ["C: NO", "C: OP", "S: 250"])

    def test_after_the_end_nothing_is_sent(self) -> None:
        self.assertNotIn("NOOP", talk(object(), "QUIT\nNOOP"))

    def test_the_clock_is_the_test_s(self) -> None:
        dialog = connect(object(), timeout=60)
        dialog.read()
        dialog.clock.pump([1] * 70)
        self.assertEqual(dialog.read()[:3], b"421")


class DeliverTests(SynchronousTestCase):
    def test_a_message_arrives_as_it_is_at_all_segments(self) -> None:
        for content in (b"", b".\r\n", b"..\r\n.a\r\n", b"Subject: x\r\n\r\nhello", b"Subject: x\r\n\r\nhello\r\n"):
            for segment in (None, *range(1, 9)):
                recorder = Recorder()
                self.assertTrue(deliver(recorder, content, segment=segment).accepted)
                whole = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
                self.assertEqual(recorder.contents, [whole], (content, segment))

    def test_an_email_message_has_its_own_addresses(self) -> None:
        message, recorder = EmailMessage(), Recorder()
        message["From"], message["To"], message["Cc"] = "Anne <a@x.example>", "b@x.example, c@x.example", "d@x.example"
        message.set_content("Hello\n")
        replies = deliver(recorder, message)
        self.assertEqual(list(replies.rcpt), ["b@x.example", "c@x.example", "d@x.example"])
        (envelope,) = recorder.envelopes
        self.assertEqual((envelope.mail_from, envelope.rcpt_tos), ("a@x.example", list(replies.rcpt)))
        deliver(recorder, message, mail_from="", rcpt_tos=["ö@x.example"])
        self.assertEqual((recorder.envelopes[1].null_sender, recorder.envelopes[1].smtp_utf8), (True, True))

    def test_each_reply_is_told(self) -> None:
        handler = hooks(handle_DATA=answering("554 5.7.1 one\n554 5.7.1 two"))
        replies = deliver(handler, "hello")
        self.assertEqual((replies.data, replies.accepted), (("554-5.7.1 one\n554 5.7.1 two",), False))
        replies = deliver(
            hooks(handle_DATA=lambda *_: ["250 OK", "450 no"]), "x", protocol=LMTP, rcpt_tos=["a@b.c", "d@e.f"]
        )
        self.assertEqual([reply[:3] for reply in replies.data], ["250", "450"])

    def test_what_is_refused_earlier_is_not_sent(self) -> None:
        recorder: Any = Recorder()
        recorder.handle_RCPT = answering("550 no")
        replies = deliver(recorder, "hello")
        self.assertEqual((replies.rcpt["bart@example.com"][:3], replies.data, replies.accepted), ("550", (), False))
        recorder.handle_MAIL = answering("450 no")
        replies = deliver(recorder, "hello")
        self.assertEqual((replies.mail[:3], replies.rcpt, recorder.envelopes), ("450", {}, []))

    def test_a_hook_that_waits_has_not_answered(self) -> None:
        self.assertEqual(deliver(hooks(handle_DATA=lambda *_: Deferred()), "hello").data, ())
