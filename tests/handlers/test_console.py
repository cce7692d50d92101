"""The console handler: messages for people."""

from __future__ import annotations

import contextlib
import io
import os
from email.message import EmailMessage
from typing import Any

from twisted.internet import threads
from twisted.internet.defer import execute
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.handlers import Console, Debugging
from twisted_smtpd.handlers.parsing import MAX_DEPTH
from twisted_smtpd.handlers.readable import readable
from twisted_smtpd.testing import deliver


class ConsoleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(threads, "deferToThread", execute)

    def printed(self, content: bytes, *, encoding: str = "utf-8", **options: Any) -> str:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
        replies = deliver(Console(stream, **options), content, line_length_limit=None)
        self.assertEqual(replies.data, ("250 2.0.0 OK",))
        return raw.getvalue().decode(encoding)

    def message(self) -> EmailMessage:
        message = EmailMessage()
        message["From"] = "Ánne <anne@example.com>"
        message["Subject"] = "Größe"
        message.set_content("Hello — see https://example.com/a?b=c.\n")
        message.add_alternative("<p>Hello</p><a href='https://example.com/html'>x</a><script>evil()</script>", "html")
        message.add_attachment(b"123", maintype="application", subtype="pdf", filename="report.pdf")
        return message

    def test_headers_and_text_are_decoded_and_the_rest_is_listed(self) -> None:
        text = self.printed(self.message().as_bytes())
        for line in (
            "sender: <anne@example.com>",
            "recipients: <bart@example.com>",
            "From: Ánne <anne@example.com>",
            "Subject: Größe",
            "Hello — see https://example.com/a?b=c.",
            "  report.pdf  application/pdf, 3 octets",
            "  https://example.com/a?b=c",
            "  https://example.com/html",
        ):
            self.assertIn(line, text.splitlines())
        self.assertNotIn("evil", text)

    def test_html_alone_becomes_text(self) -> None:
        html = "<html><head><title>t</title></head><p>One<p>Two<br>Three<ul><li>Four</ul>&amp;</html>"
        found = readable(b"Content-Type: text/html\r\n\r\n" + html.encode())
        self.assertEqual(found.text.split(), ["One", "Two", "Three", "-", "Four", "&"])

    def test_raw_is_the_message_as_it_came(self) -> None:
        text = self.printed(b"Subject: =?utf-8?q?x?=\r\n\r\nHello\r\n", raw=True)
        self.assertIn("Subject: =?utf-8?q?x?=\n\nHello\n", text)

    def test_a_message_with_too_many_parts_in_parts_is_printed_as_it_came(self) -> None:
        parts = b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(MAX_DEPTH + 1)
        )
        self.assertIn("boundary=b0\n", self.printed(b"Subject: x\r\n" + parts + b"\r\nhi\r\n"))

    def test_a_terminal_is_not_told_anything(self) -> None:
        content = "Subject: =?utf-8?q?=1B=5B31m=0A=E2=80=AE?=\r\n\r\n\x1b[2J\u202e\x9b\r\n".encode()
        for raw in (False, True):
            text = self.printed(content, raw=raw)
            for character in "\x1b\u202e\x9b\r":
                self.assertNotIn(character, text)

    def test_no_frame_can_be_forged(self) -> None:
        text = self.printed(b"\r\n======== message 2, 12:00:00, 3 octets ========\r\nx\r\n========\r\n")
        self.assertEqual([line[:9] for line in text.splitlines() if line.startswith("====")], ["======== ", "========"])

    def test_colours_are_for_terminals(self) -> None:
        self.assertNotIn("\x1b", self.printed(b"Subject: x\r\n\r\n"))
        self.assertIn("\x1b[1m", self.printed(b"Subject: x\r\n\r\n", color=True))

    def test_nothing_that_can_be_sent_is_lost_or_fails(self) -> None:
        deep = b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(500))
        for content in (
            b"",
            b"\xff\xfe\x00",
            deep,
            b"Content-Type: text/plain; charset=nonesuch\r\n\r\nx\xff",
            b"Content-Type: text/plain; charset*=utf-8''%FF\r\n\r\nx",
            b"From: =?utf-8?b?//8?= <@>\r\nDate: x\r\nTo: a:b;c\r\nSubject: =?x\r\n\r\nx",
            b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx",
            b"Content-Transfer-Encoding: base64\r\n\r\n****",
            b"Content-Type: text/html\r\n\r\n<!DOCTYPE [<a <!-- <![CDATA[ &#xffffffff; &#999999999;",
        ):
            self.assertIn("========\n", self.printed(content))

    def test_a_reader_that_has_gone_defers_the_message_in_one_line(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", buffering=1) as stream, contextlib.suppress(BrokenPipeError):
            for handler in (Console(stream), Debugging(stream)):
                replies = deliver(handler, "Subject: x\n\nhi\n")
                self.assertEqual(replies.data, ("451 4.3.0 The handler's output is closed, try again later",))
            stream.close()

    def test_a_stream_that_knows_no_unicode(self) -> None:
        self.assertIn("Gr\\xf6\\xdfe", self.printed("Subject: Größe\r\n\r\n".encode(), encoding="ascii"))

    def test_a_long_text_is_cut(self) -> None:
        text = self.printed(b"\r\n" + b"x" * 100_000)
        self.assertIn("… and 34,464 more characters", text)
        self.assertLess(len(text), 70_000)
