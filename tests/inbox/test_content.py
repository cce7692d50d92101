from __future__ import annotations

import base64
from email.message import EmailMessage
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.inbox.content import Content, Contents, Part, decode_words, file_name, headers_of, part_headers
from twisted_smtpd.store import MemoryStore, NewMessage, SessionFacts

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def newsletter() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "News"
    message.set_content("Your code is 123 456: https://example.org/text")
    message.add_alternative('<p>Hi <img src="cid:logo"><a href="https://example.org/html">go</a></p>', subtype="html")
    html: Any = message.get_payload(1)
    html.add_related(PNG, "image", "png", cid="<logo>")
    message.add_attachment(b"%PDF-", "application", "pdf", filename="Rechnung März.pdf")
    message.add_attachment("a,b\n", subtype="csv", filename="a.csv")
    return message


class ContentTests(SynchronousTestCase):
    """What is in a message."""

    def test_parts(self) -> None:
        content = Content.of(newsletter().as_bytes())
        self.assertEqual(
            [(part.id, part.content_type, part.name, part.kind, part.depth) for part in content.parts],
            [
                ("0", "multipart/mixed", "", "multipart", 0),
                ("1", "multipart/alternative", "", "multipart", 1),
                ("1.1", "text/plain", "", "text", 2),
                ("1.2", "multipart/related", "", "multipart", 2),
                ("1.2.1", "text/html", "", "html", 3),
                ("1.2.2", "image/png", "", "inline", 3),
                ("2", "application/pdf", "Rechnung März.pdf", "attachment", 1),
                ("3", "text/csv", "a.csv", "attachment", 1),
            ],
        )
        self.assertEqual([part.size for part in content.attachments], [5, 4])
        self.assertIn("123 456", content.text)
        self.assertIn("<img", content.html)
        self.assertEqual(content.defect, "")

    def test_payloads(self) -> None:
        content = Content.of(newsletter().as_bytes())
        self.assertEqual(content.payload("1.2.2"), PNG)
        self.assertEqual(content.by_content_id("logo"), content.part("1.2.2"))
        self.assertIsNone(content.payload("9"))
        self.assertIsNone(content.part("9"))
        self.assertIsNone(content.by_content_id("other"))

    def test_links_and_codes(self) -> None:
        content = Content.of(newsletter().as_bytes())
        self.assertEqual(content.links, ("https://example.org/html", "https://example.org/text"))
        self.assertEqual(content.codes, ("123456",))

    def test_message_in_message(self) -> None:
        outer, inner = EmailMessage(), EmailMessage()
        inner["Subject"] = "In=side"
        inner.set_content("<script>")
        outer.set_content("See below")
        outer.add_attachment(inner)
        content = Content.of(outer.as_bytes())
        (attached,) = content.attachments
        self.assertEqual((attached.content_type, attached.name), ("message/rfc822", "In=side.eml"))
        self.assertIn(b"<script>", content.payload(attached.id) or b"")
        self.assertEqual(content.text, "See below\n")

    def test_no_mime(self) -> None:
        content = Content.of(b"Subject: x\r\n\r\nJust \xc3\xa4 text\r\n")
        self.assertEqual(content.text, "Just ä text\n")
        self.assertEqual([part.id for part in content.parts], ["0"])

    def test_charsets(self) -> None:
        for charset in ("latin-1", "x-unknown", "zlib", "punycode", "idna", "unicode_escape", "ascii", 'a"b', "\0"):
            head = b"Content-Type: text/plain; charset=" + charset.encode() + b"\r\n\r\n"
            with self.subTest(charset=charset):
                self.assertIn("x", Content.of(head + b"x\xe4\\u0041").text)
        self.assertEqual(Content.of(b"Content-Type: text/plain; charset=latin-1\r\n\r\n\xe4").text, "ä")

    def test_hostile(self) -> None:
        """Each of these is read without an error."""
        deep = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(500))
        many = b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n' + b"--x\r\n\r\na\r\n" * 3000
        for name, octets in {
            "nothing": b"",
            "nul": b"\0",
            "deep": deep,
            "many": many,
            "no end": b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n",
            "no boundary": b"Content-Type: multipart/mixed\r\n\r\n--x\r\n",
            "type": b"Content-Type: \xff/\xfe; name=\xff\r\nContent-Disposition: \xff; filename*=x'y'%ff\r\n\r\n",
            "parameters": b"Content-Type: text/plain" + b';a="' * 100_000 + b"\r\n\r\nx",
            "base64": b"Content-Transfer-Encoding: base64\r\n\r\n!!!=!!\r\n\xff",
            "rfc2231": b"Content-Disposition: x; filename*0*=utf-16''%; filename*1=x; filename*9999999=\r\n\r\n",
            "rfc822": b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA",
            "external": b"Content-Type: message/external-body\r\n\r\n\r\n",
            "status": b"Content-Type: message/delivery-status\r\n\r\nA: b\r\n\r\nC: d\r\n",
        }.items():
            with self.subTest(name=name):
                content = Content.of(octets)
                self.assertTrue(content.parts)
                for part in content.parts:
                    self.assertIsNotNone(part_headers(part))
                    content.payload(part.id)
        self.assertIn("deep", Content.of(deep).defect)
        self.assertEqual(len(Content.of(many).parts), 1000)
        self.assertIn("1000 parts", Content.of(many).defect)


class NamesTests(SynchronousTestCase):
    """Names of files, and headers, for people."""

    def test_file_names(self) -> None:
        for text, name in {
            "../../etc/passwd": "passwd",
            "C:\\boot.ini": "boot.ini",
            "a\r\nb: c.txt": "ab_ c.txt",
            "\u202egnp.exe": "gnp.exe",
            " .. ": "file",
            "": "file",
            '"<x>".html': "__x__.html",
        }.items():
            self.assertEqual(file_name(text), name)
        self.assertEqual(len(file_name("x" * 1000 + ".pdf")), 184)

    def test_encoded_words(self) -> None:
        for value, text in {
            "=?utf-8?q?Gr=C3=BC=C3=9Fe?=": "Grüße",
            "=?utf-8?b?8J+OiQ==?= =?utf-8?q?_x?=": "🎉 x",
            "=?utf-8?b?AAAA=?=": None,
            "=?x-none?q?a?=": "a",
            "=?utf-8?q?a=0D=0AX:_y?=": "a X: y",
            "two\r\n lines": "two lines",
        }.items():
            with self.subTest(value=value):
                decoded = decode_words(value)
                self.assertNotIn("\n", decoded)
                if text is not None:
                    self.assertEqual(decoded, text)

    def test_headers(self) -> None:
        found = headers_of(b"Subject: =?utf-8?q?=C3=A4?=\r\nX: a\r\n b\r\nX: c\xff\r\n\r\nNo: header\r\n")
        self.assertEqual(found, [("Subject", "ä"), ("X", "a b"), ("X", "c\ufffd")])
        self.assertEqual(len(headers_of(b"A: b\r\n" * 5000)), 1000)
        self.assertEqual(headers_of(b""), [])


class PartHeadersTests(SynchronousTestCase):
    """How parts are served."""

    def headers(self, part: Part, download: bool = False) -> dict[bytes, bytes]:
        return dict(part_headers(part, download))

    def test_no_page_of_ours(self) -> None:
        """What could hold a script is served as text, or to be saved, and can't run anything."""
        for content_type in ("text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "text/javascript"):
            headers = self.headers(Part("1", content_type, "x", 1, "attachment"))
            self.assertIn(
                headers[b"content-type"], (b"text/plain; charset=utf-8", b"application/octet-stream"), content_type
            )
            self.assertIn(b"sandbox", headers[b"content-security-policy"])
            self.assertEqual(headers[b"x-content-type-options"], b"nosniff")

    def test_images(self) -> None:
        part = Part("1", "image/png", "x.png", 1, "inline")
        self.assertTrue(self.headers(part)[b"content-disposition"].startswith(b"inline"))
        self.assertTrue(self.headers(part, True)[b"content-disposition"].startswith(b"attachment"))
        self.assertEqual(self.headers(part)[b"content-type"], b"image/png")

    def test_names(self) -> None:
        headers = self.headers(Part("1", "application/zip", 'Mä"r%\r\nz.zip', 1, "attachment"))
        self.assertEqual(
            headers[b"content-disposition"],
            b"attachment; filename=\"M__r___z.zip\"; filename*=UTF-8''M%C3%A4%22r%25%0D%0Az%2Ezip",
        )
        self.assertIn(b'"part-1"', self.headers(Part("1", "text/plain", "", 1, "text"))[b"content-disposition"])


class ContentsTests(SynchronousTestCase):
    """The last few messages that were read."""

    def test_kept(self) -> None:
        from twisted.internet.defer import Deferred

        store, contents = MemoryStore(), Contents(limit=2)
        stored = [store.add(NewMessage(b"\r\n%d" % n, "", (), (), SessionFacts("s"))) for n in range(3)]
        read = [self.successResultOf(Deferred.fromCoroutine(contents.of(one))) for one in stored]
        self.assertEqual([content.text for content in read], ["0", "1", "2"])
        again = [self.successResultOf(Deferred.fromCoroutine(contents.of(one))) for one in reversed(stored)]
        self.assertIs(again[0], read[2])
        self.assertIs(again[1], read[1])
        self.assertIsNot(again[2], read[0])
