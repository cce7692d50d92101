"""Each recipient's fate: statuses joined in one text, recipients beyond the limit, statuses of any code."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, Client, Recorder, answering, codes, connect, hooks
from twisted_smtpd.handlers import Chain, Sink
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.protocol.transaction import MAX_SURPLUS
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.wire.replies import BadStatus, Reply, whole_statuses


def envelope(recipients: int, hello: bytes = EHLO) -> bytes:
    names = b"".join(b"RCPT TO:<r%d@y.example>\r\n" % number for number in range(recipients))
    return hello + b"MAIL FROM:<a@x.example>\r\n" + names


def verdicts(status: Any, recipients: int, protocol: type[SMTP] = LMTP, handler: Any = None) -> list[int]:
    """What is said behind the end of data."""
    handler = handler or hooks(handle_DATA=answering(status))
    client = connect(handler, protocol=protocol)
    client.read()
    client.send(envelope(recipients, b"LHLO a\r\n" if protocol is LMTP else EHLO) + b"DATA\r\n")
    return codes(client.send(b"x\r\n.\r\n"))


class JoinedTests(SynchronousTestCase):
    """GNU Mailman returns a status for each recipient, joined: every recipient heard the first one's."""

    def test_as_many_whole_statuses_as_recipients_are_one_each(self) -> None:
        for status, expected in (
            ("250 Ok\r\n550 no such user", [250, 550]),
            ("550 no\n250 Ok\n", [550, 250]),
            ("250 a\n451 b\n550 c", [250, 451, 550]),
            ("250-a\n250 b\n550-c\n550 d", [250, 550]),
            ("250 a\n250 b", [250, 250]),
        ):
            self.assertEqual(verdicts(status, len(expected)), expected, status)

    def test_a_status_of_several_lines_is_for_all(self) -> None:
        for status in ("250-one\r\n250 two", "250 one\ntwo", "250 one\n250 two\n250 three", "250-a\n250-b"):
            self.assertEqual(verdicts(status, 2), [250, 250], status)
        self.assertEqual(verdicts("550 a\n550 b", 1), [550])

    def test_statuses_that_differ_and_are_not_as_many_are_no_yes(self) -> None:
        """It isn't known whose is which."""
        for recipients in (1, 3):
            for protocol in (LMTP, SMTP):
                replies = 1 if protocol is SMTP else recipients
                self.assertEqual(verdicts("250 Ok\r\n550 no such user", recipients, protocol), [451] * replies)
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 4)

    def test_smtp_has_one_reply(self) -> None:
        for status, expected in (("250 a\n250 b", 250), ("550 a\n554 b", 550), ("250 a\n550 b", 451)):
            self.assertEqual(verdicts(status, 2, SMTP), [expected], status)

    def test_a_chain_gives_no_message_on_that_was_refused_for_one(self) -> None:
        recorder = Recorder()
        refusing = hooks(handle_DATA=answering("250 Ok\r\n550 no such user"))
        self.assertEqual(verdicts(None, 2, handler=Chain(refusing, recorder)), [451, 550])
        self.assertEqual(recorder.envelopes, [])
        self.assertEqual(verdicts(None, 2, handler=Chain(Sink(), refusing)), [250, 550])

    def test_only_whole_statuses_are_taken_apart(self) -> None:
        for text, statuses in (
            ("250 a", ["250 a"]),
            ("250 a\r\n550", ["250 a", "550"]),
            ("250-a\n250 b\n251 c\n\n", ["250-a\n250 b", "251 c"]),
        ):
            self.assertEqual(whole_statuses(text), statuses)
        for text in ("250-a\n550 b", "250 a\nb", "250 a\n550-b", "250 a\n\n550 b", "", "a"):
            self.assertEqual(whole_statuses(text), [text])


class SurplusTests(SynchronousTestCase):
    """RFC 5321 section 4.5.3.1.10: the recipients beyond the limit hear 452, the rest is delivered."""

    def connect(self, **options: Any) -> Client:
        self.recorder = Recorder()
        return connect(self.recorder, **options)

    def test_the_accepted_ones_get_the_message(self) -> None:
        """The tenth 452 brought 421, and the accepted recipients were lost, at each retry."""
        client = self.connect(max_recipients=100)
        said = codes(client.send(envelope(150) + b"DATA\r\nx\r\n.\r\n"))
        self.assertEqual(said, [250] * 102 + [452] * 50 + [354, 250])
        self.assertEqual(len(self.recorder.envelopes[0].rcpt_tos), 100)
        self.assertEqual(client.protocol.connections.counts.errors, 0)

    def test_by_lmtp_too(self) -> None:
        recorder = Recorder()
        client = connect(recorder, protocol=LMTP, max_recipients=2)
        client.read()
        said = codes(client.send(envelope(30, b"LHLO a\r\n") + b"DATA\r\nx\r\n.\r\n"))
        self.assertEqual(said, [250] * 4 + [452] * 28 + [354, 250, 250])

    def test_without_an_end_they_are_errors(self) -> None:
        client = self.connect(max_recipients=1, max_errors=3)
        said = codes(client.send(envelope(1 + MAX_SURPLUS + 5)))
        self.assertEqual(said, [250] * 3 + [452] * (MAX_SURPLUS + 3) + [421])
        self.assertTrue(client.closed)

    def test_each_message_begins_anew(self) -> None:
        client = self.connect(max_recipients=1, max_errors=1)
        for _ in range(3):
            said = codes(client.send(envelope(MAX_SURPLUS) + b"DATA\r\nx\r\n.\r\n"))
            self.assertEqual(said[-2:], [354, 250])


class CodeTests(SynchronousTestCase):
    def test_any_2yz_4yz_and_5yz_is_a_status(self) -> None:
        """471, 499, 571 and 599 became 451: a permanent refusal was tried again for days."""
        for code in (*range(200, 300), *range(400, 600)):
            if code in (421, 521):
                continue
            for status in (f"{code} x", Reply(code, None, ("x",)), f"{code}-x\r\n{code} y"):
                self.assertEqual(codes_of_any(hooks(handle_DATA=answering(status))), code)

    def test_no_other_code_is_one(self) -> None:
        for status in ("199 x", "360 x", "600 x", "25 x"):
            self.assertEqual(codes_of_any(hooks(handle_DATA=answering(status))), 451)
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 4)


def codes_of_any(handler: Any) -> int:
    """The code of the last reply, which need not be one of RFC 5321's."""
    said = connect(handler).send(envelope(1) + b"DATA\r\nx\r\n.\r\n")
    return int(said.splitlines()[-1][:3])
