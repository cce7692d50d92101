"""What becomes of a message that does not begin with a header, or with an odd one."""

from __future__ import annotations

import base64
import email.policy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.next_host import NextHostDouble, ProxyTestCase, transaction
from twisted_smtpd.handlers import Message
from twisted_smtpd.handlers.trace import modern_header, split_header, with_header
from twisted_smtpd.handlers.webhook import request_body
from twisted_smtpd.session import Envelope, Session

MBOX = b"From a@b Thu Jan  1 00:00:00 1970\r\n"
OBSOLETE = b"From : x@y\r\nSubject : hi\r\n\r\nbody\r\n"


class Parsing(Message):
    def handle_message(self, message: Any) -> None:
        """Nothing."""


def envelope_of(content: Any) -> Envelope:
    envelope = Envelope()
    envelope.mail_from, envelope.rcpt_tos, envelope.content = "a@b.example", ["c@d.example"], content
    return envelope


def parsed(content: Any, policy: Any = None) -> Any:
    return Parsing(policy=policy).prepare_message(Session(), envelope_of(content))


class FirstLineTests(SynchronousTestCase):
    def test_a_from_line_becomes_a_header_as_in_postfix(self) -> None:
        """It was deleted."""
        for lines in (MBOX, b">" + MBOX, b">>" + MBOX, MBOX + b">" + MBOX):
            headers = b"".join(b"X-Mailbox-Line: " + line for line in lines.splitlines(True))
            for rest in (b"To: c\r\n\r\nd\r\n", b"\r\nbody\r\n", b""):
                self.assertEqual(b"".join(split_header(lines + rest)), headers + rest)
                self.assertEqual(with_header(lines + rest), headers + rest)

    def test_any_other_line_that_is_no_header_begins_the_body(self) -> None:
        for line in (
            b"Hello\r\n",
            b"From\r\n",
            b"from a@b\r\n",
            b": x\r\n",
            b" x\r\n",
            b"a b: c\r\n",
            b"\xc3\xa4: b\r\n",
        ):
            self.assertEqual(split_header(line + b"A: b\r\n"), (b"", b"\r\n" + line + b"A: b\r\n"))
            self.assertEqual(split_header(MBOX + line), (b"X-Mailbox-Line: " + MBOX, b"\r\n" + line))

    def test_a_from_header_with_a_blank_is_a_header(self) -> None:
        """RFC 5322 section 4.5: it was deleted where another header followed."""
        self.assertEqual(b"".join(split_header(OBSOLETE)), OBSOLETE)
        for policy in (None, email.policy.default):
            for content in (OBSOLETE, OBSOLETE.decode()):
                message = parsed(content, policy)
                self.assertEqual((message["From"], message["Subject"]), ("x@y", "hi"))
                self.assertEqual(message.get_payload(), "body\r\n")

    def test_only_blanks_before_a_colon_are_taken_away_for_parsing(self) -> None:
        for header, modern in (
            (b"A \t: b : c\r\n d : e\r\nF\t: g\rH : i\r\n", b"A: b : c\r\n d : e\r\nF: g\rH: i\r\n"),
            (b"A: b\r\n", b"A: b\r\n"),
        ):
            self.assertEqual(modern_header(header), modern)
            self.assertEqual(modern_header(header.decode()), modern.decode())

    @given(st.lists(st.sampled_from([b"From a", b">", b"From ", b":", b"a", b" ", b"\r\n", b"\n"]), max_size=20))
    def test_no_octet_is_left_out(self, parts: list[bytes]) -> None:
        content = b"".join(parts)
        kept = with_header(content)
        left = kept.replace(b"X-Mailbox-Line: ", b"")
        without_one_line_end = [left[:place] + left[place + 2 :] for place in range(len(left))]
        self.assertIn(content, (left, *without_one_line_end))
        self.assertEqual(with_header(kept), kept)

    def test_the_webhook_posts_it_so_and_leaves_out_nothing(self) -> None:
        content = MBOX + b"X-Peer: theirs\r\n\r\nhi\r\n"
        session, envelope = Session(), envelope_of(content)
        posted = json.loads(request_body(session, envelope))
        self.assertEqual(base64.b64decode(posted["message"]), b"X-Mailbox-Line: " + content)


class ProxyTests(ProxyTestCase):
    def test_the_next_host_gets_each_line(self) -> None:
        for content, header in ((MBOX + b"A: b\r\n\r\nhi\r\n", b"X-Mailbox-Line: "), (OBSOLETE, b"")):
            host = NextHostDouble()
            self.say(host, transaction(content=content))
            self.assertTrue(host.messages[0].endswith(b"\r\n" + header + content), host.messages)
