"""Parts in parts have a limit, and everything else is parsed as the email package does."""

from __future__ import annotations

import email
import email.policy
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.handlers.parsing import MAX_DEPTH, parse
from twisted_smtpd.wire.replies import SMTPReplyError


def nested(depth: int) -> bytes:
    """A message of so many multiparts, each in the one before, and a text."""
    head = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(depth))
    return head + b"\r\nhello\r\n" + b"".join(b"--%d--\r\n" % n for n in reversed(range(depth)))


class ParseTests(SynchronousTestCase):
    def parsed(self, content: Any) -> Any:
        return parse(content, None, email.policy.compat32)

    def test_so_many_levels_are_read(self) -> None:
        self.assertEqual(sum(1 for _ in self.parsed(nested(MAX_DEPTH - 1)).walk()), MAX_DEPTH)

    def test_more_are_refused(self) -> None:
        # As text, and where the email package would fail, too.
        for content in (nested(MAX_DEPTH), nested(MAX_DEPTH).decode(), nested(3000)):
            self.assertEqual(self.assertRaises(SMTPReplyError, self.parsed, content).reply.code, 554)

    def test_messages_in_messages_count(self) -> None:
        forwarded = b"Content-Type: message/rfc822\r\n\r\n"
        self.assertEqual(sum(1 for _ in self.parsed(forwarded * 99 + b"\r\nhello\r\n").walk()), MAX_DEPTH)
        self.assertRaises(SMTPReplyError, self.parsed, forwarded * 100 + b"\r\nhello\r\n")

    def test_parts_side_by_side_do_not(self) -> None:
        many = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"--b\r\n\r\nhello\r\n" * 500 + b"--b--\r\n"
        self.assertEqual(len(self.parsed(many).get_payload()), 500)

    def test_the_rest_is_as_in_the_email_package(self) -> None:
        for content in (
            b"",
            b"a: b",
            nested(5),
            "a: \u00e4\r\n\r\n\u00fc\r\n".encode() * 3000,
            b"x\r" * 8191 + b"\r\n",
        ):
            for policy in (email.policy.compat32, email.policy.default):
                expected = email.message_from_bytes(content, policy=policy)
                found = parse(content, None, policy)
                self.assertEqual((type(found), found.as_bytes()), (type(expected), expected.as_bytes()))
