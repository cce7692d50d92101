"""What a list and a search know of a message, of hostile ones too."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.session import Recipient
from twisted_smtpd.store import Address, NewMessage, SessionFacts, StoredMessage, Summary
from twisted_smtpd.store.outline import MAX_PARTS, Outline, outline, parse_addresses, parse_value
from twisted_smtpd.store.summary import summarise

MIXED = 'Content-Type: multipart/mixed; boundary="b 1"\n'


def read(text: str) -> Outline:
    return outline(text.replace("\n", "\r\n").encode())


def summary(content: bytes) -> Summary:
    return Summary.of(StoredMessage(1, NewMessage(content, "", (), (), SessionFacts("1"))))


class HeaderTests(SynchronousTestCase):
    def test_values(self) -> None:
        for value, text in (
            ("plain", "plain"),
            ("  folded\n  line\n\tagain", "folded line again"),
            ("=?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?b?w6Q=?=", "Grüßeä"),
            ("=?utf-8?b?w6?= =?utf-8?b?Q=?=", "=?utf-8?b?w6?= =?utf-8?b?Q=?="),
            ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
            ("=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
            ("=?utf-8?q?a=0D=0ABcc:_x?=", "a Bcc: x"),
            ("=?martian?q?=E4?=", "\ufffd"),
            ("=?utf-8?b?!!?=", ""),
            ("ö", "ö"),
        ):
            self.assertEqual(read(f"Subject: {value}\n\n").first("subject"), text, value)
        self.assertEqual(outline(b"subject : \xff\n\n").first("subject"), "\ufffd")
        self.assertEqual(outline(b"").first("subject"), "")

    def test_addresses(self) -> None:
        for value, addresses in (
            ("a@x.example", [("", "a@x.example")]),
            ("Anne <a@x.example>, b@y.example", [("Anne", "a@x.example"), ("", "b@y.example")]),
            ('"Anne" <a@x.example>', [("Anne", "a@x.example")]),
            ('"Doe, Anne" <a@x.example>', [("Doe, Anne", "a@x.example")]),
            ('"=?utf-8?q?Gr=C3=BC?=" <a@x.example>', [("Grü", "a@x.example")]),
            ("a@x.example (Anne)", [("Anne", "a@x.example")]),
            ("Team: a@x.example, b@x.example;", [("", "a@x.example"), ("", "b@x.example")]),
            ("<>", [("", "<>")]),
        ):
            self.assertEqual(parse_addresses(value), [Address(*pair) for pair in addresses], value)
        self.assertEqual(len(read("To: a@x.example\nTo: " + "b@x.example," * 200 + "c@x\n\n").addresses("to")), 100)

    def test_parameters(self) -> None:
        for value, kind, parameters in (
            ('Text/Plain; charset="UTF-8"', "text/plain", {"charset": "UTF-8"}),
            ("multipart/mixed;boundary=a;x=y", "multipart/mixed", {"boundary": "a", "x": "y"}),
            ('a/b; name="a;b\\"c"', "a/b", {"name": 'a;b"c'}),
            ("attachment; filename*=utf-8''%C3%A4.txt", "attachment", {"filename": "ä.txt"}),
            ("attachment; filename*0=long; filename*1=er.txt", "attachment", {"filename": "longer.txt"}),
            ('attachment; filename="=?utf-8?q?=C3=A4?="', "attachment", {"filename": "ä"}),
            ("", "", {}),
        ):
            self.assertEqual(parse_value(value), (kind, parameters), value)


class PartTests(SynchronousTestCase):
    def parts(self, *parts: str) -> Outline:
        return read(
            f"From: a@x\n{MIXED}\npreamble\n" + "".join(f"--b 1\n{part}\n" for part in parts) + "--b 1--\nepilogue\n"
        )

    def test_texts(self) -> None:
        self.assertEqual(read("\nhello\n").text, "hello\r\n")
        self.assertEqual(self.parts("\nhello", "Content-Type: text/plain\n\nworld").text, "hello\nworld")
        html = "Content-Type: text/html\n\n<p>shown<style>not</style></p>"
        self.assertEqual(self.parts("\nplain", html).text, "plain")
        self.assertEqual(self.parts("\n \n", html).text, "shown")
        self.assertEqual(read("Content-Transfer-Encoding: base64\n\naGVs\nbG8=\n").text, "hello")
        self.assertEqual(read("Content-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=\n=DF").text, "Grü\ufffd")
        self.assertEqual(outline(b"Content-Type: text/plain; charset=latin-1\r\n\r\n\xfc").text, "ü")

    def test_attachments(self) -> None:
        found = self.parts(
            "\nhello",
            'Content-Type: application/pdf; name="a.pdf"\n\nx',
            "Content-Type: image/png\nContent-ID: <1>\n\nx",
            "Content-Type: image/png\nContent-Disposition: inline; filename=b.png\n\nx",
            "Content-Type: text/plain\nContent-Disposition: attachment; filename=c.txt\n\nsecret",
            "Content-Type: message/rfc822\n\nSubject: inner\n\ninner text",
        )
        self.assertEqual((found.attachments, found.inline), (3, 2))
        self.assertEqual((found.names, found.text), (["a.pdf", "b.png", "c.txt"], "hello"))

    def test_boundaries(self) -> None:
        for text, lines in (
            (f"{MIXED}\n--b 1\n\nx\n", 1),
            (f"{MIXED}\n--b 1\n\nx\n--b 12\n\ny\n--b 1--", 3),
            (f"{MIXED}\n--b 1  \n\nx\n--b 1 \n\ny\n--b 1--", 2),
            (f"{MIXED}\n--b 1--\n", 0),
            (f"{MIXED}\nx --b 1\n", 0),
            ("Content-Type: multipart/mixed\n\nx", 1),
        ):
            found = read(text)
            self.assertEqual(len(list(filter(str.strip, found.text.split("\n")))), lines, repr((text, found.text)))

    def test_it_is_the_same_at_each_cut(self) -> None:
        """A message of which the end is missing is no error."""
        whole = (f'From: a@x\n{MIXED}\n--b 1\n\nhello\n--b 1\nContent-Type: a/b; name="x"\n\ny\n--b 1--\n').encode()
        for end in range(len(whole)):
            summary(whole[:end])


class HostileTests(SynchronousTestCase):
    def test_parts_are_bounded(self) -> None:
        part = "--b 1\nContent-Disposition: attachment\n\nx\n"
        self.assertEqual(read(f"{MIXED}\n{part * 10_000}").attachments, MAX_PARTS)
        nested = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(2000))
        self.assertEqual(read(nested).attachments, 1)

    def test_texts_are_bounded(self) -> None:
        found, searchable = summarise(
            StoredMessage(
                1, NewMessage(b"Subject: %b\r\n\r\n%b" % (b"s" * 10**6, b"x" * 10**6), "", (), (), SessionFacts("1"))
            )
        )
        self.assertEqual((len(found.subject), len(found.snippet)), (1000, 250))
        self.assertLess(sum(map(len, searchable)), 100_000)

    def test_strange_octets_are_no_error(self) -> None:
        for content in (
            b"\x00" * 1000,
            b"\xff\xfe:\xff\r\n\r\n\xff",
            b"Content-Type: text/plain; charset=zip\r\n\r\nx",
            b'Content-Type: text/plain; charset="\x00"\r\n\r\nx',
            b"Content-Type: text/plain; charset=punycode\r\n\r\n" + b"a-" * 5000,
            b"Content-Transfer-Encoding: base64\r\n\r\n====A",
            b"Content-Type: text/plain; a*0*=x; a*x*=y; a*=''\r\n\r\n",
            b"To: " + b"(" * 5000,
            b"To: " + b"<" * 5000,
            b"Date: \x00\r\nMessage-ID: " + b"<" * 5000,
            b":\r\n:\r\n",
        ):
            found = summary(content)
            self.assertEqual(found.size, len(content))

    def test_random_octets_are_no_error(self) -> None:
        chance = random.Random(1)
        pieces = [
            *(
                b"\r\n",
                b"\n",
                b"--b",
                b"--",
                b"\x00",
                b"\xff",
                b"From: ",
                b"To: a@b",
                b"Subject: ",
                b"=?utf-8?q?",
                b"?=",
            ),
            *(b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: text/html", b"<a", b">", b'"', b";", b"\\"),
            *(
                b"Content-Transfer-Encoding: base64",
                b"Content-Disposition: attachment; filename*0*=utf-8''",
                b"%",
                b"(",
            ),
        ]
        for _ in range(500):
            summary(b"".join(chance.choices(pieces, k=chance.randint(1, 60))))

    def test_nothing_that_a_database_does_not_take_is_searched(self) -> None:
        recipients = ("a\udcff@x.example",)

        message = NewMessage(
            b"Subject: a\x00b\r\n\r\n\x00", "\ud800", (), tuple(map(Recipient, recipients)), SessionFacts("1")
        )
        _, searchable = summarise(StoredMessage(1, message))
        for text in searchable:
            self.assertNotIn("\0", text)
            text.encode()
