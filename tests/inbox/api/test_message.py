"""One message, and what is in it."""

from __future__ import annotations

from base64 import b64encode

from tests.support.inbox_api import APITestCase
from twisted_smtpd.inbox.api import sending
from twisted_smtpd.inbox.api.shapes import headers_json

ONE = "/api/v1/message"
MIXED = f"""\
From: =?utf-8?q?Ann=C3=A9?= <anne@x.example>
To: Bart <bart@y.example>
Cc: cc@y.example
Reply-To: help@x.example
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Message-ID: <1@x.example>
Date: Mon, 02 Nov 2026 10:00:00 +0100
List-Unsubscribe: <mailto:out@x.example>, <https://x.example/out>
List-Unsubscribe-Post: List-Unsubscribe=One-Click
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=m

--m
Content-Type: multipart/alternative; boundary=a

--a
Content-Type: text/plain; charset=utf-8

Your code is 123456. See https://x.example/verify?t=1
--a
Content-Type: multipart/related; boundary=r

--r
Content-Type: text/html; charset=utf-8

<!doctype html><html><head><title>x</title></head><body><img src="cid:logo"><a href="https://x.example/a">a</a>
<img src='cid:none'><script>alert(1)</script></body></html>
--r
Content-Type: image/png
Content-ID: <logo>
Content-Disposition: inline; filename=logo.png
Content-Transfer-Encoding: base64

{b64encode(b"png").decode()}
--r--
--a--
--m
Content-Type: application/pdf; name=a.pdf
Content-Disposition: attachment; filename=a.pdf
Content-Transfer-Encoding: base64

{b64encode(b"%PDF-").decode()}
--m
Content-Type: text/html
Content-Disposition: attachment; filename=evil.html

<script>alert(2)</script>
--m
Content-Type: image/svg+xml
Content-Disposition: attachment; filename=evil.svg

<svg onload="alert(3)"/>
--m--
"""


class MessageTests(APITestCase):
    def test_a_message(self) -> None:
        self.add(content=MIXED)
        one = self.get(f"{ONE}/1")
        self.assertEqual(one["From"], {"Name": "Anné", "Address": "anne@x.example"})
        self.assertEqual((one["Subject"], one["MessageID"]), ("Grüße", "1@x.example"))
        self.assertEqual(one["Date"], "2026-11-02T09:00:00.000Z")
        self.assertEqual(one["ReturnPath"], "bounces@x.example")
        self.assertEqual(one["ReplyTo"], [{"Name": "", "Address": "help@x.example"}])
        self.assertIn("123456", one["Text"])
        self.assertIn("<script>", one["HTML"])
        self.assertEqual([part["FileName"] for part in one["Inline"]], ["logo.png"])
        self.assertEqual([part["FileName"] for part in one["Attachments"]], ["a.pdf", "evil.html", "evil.svg"])
        pdf = one["Attachments"][0]
        self.assertEqual((pdf["ContentType"], pdf["Size"], pdf["PartID"]), ("application/pdf", 5, "2"))
        self.assertEqual(pdf["Checksums"]["MD5"], "561318f0d57972e7c62fe701849032af")
        self.assertEqual(
            one["ListUnsubscribe"],
            {
                "Header": "<mailto:out@x.example>, <https://x.example/out>",
                "HeaderPost": "List-Unsubscribe=One-Click",
                "Links": ["mailto:out@x.example", "https://x.example/out"],
                "Errors": "",
            },
        )

    def test_it_counts_as_read_from_then_on(self) -> None:
        self.add()
        for end in ("/raw", "/headers", "/links"):
            self.ask(f"{ONE}/1{end}")
        self.assertFalse(self.get("/api/v1/messages")["messages"][0]["Read"])
        self.assertTrue(self.get(f"{ONE}/1")["Read"])
        self.assertTrue(self.get("/api/v1/messages")["messages"][0]["Read"])

    def test_the_date_is_that_of_arrival_where_the_header_has_none(self) -> None:
        for date in ("", "Date: yesterday\n", "Date: Mon, 99 Nov 2026 10:00:00 +0100\n", "Date: 1 Jan 1 0:0:0 +9999\n"):
            number = self.add(content=f"Subject: x\n{date}\nx\n")
            one = self.get(f"{ONE}/{number}")
            (listed,) = (m for m in self.get("/api/v1/messages")["messages"] if m["ID"] == str(number))
            self.assertEqual(one["Date"], listed["Created"], date)

    def test_the_latest(self) -> None:
        self.refused(404, f"{ONE}/latest")
        self.add("one", "for anne")
        self.add("two")
        self.add("three", refusal="550 No")
        self.assertEqual(self.get(f"{ONE}/latest")["Subject"], "two")
        self.assertEqual(self.get(f"{ONE}/latest?query=subject:one")["Subject"], "one")
        self.refused(404, f"{ONE}/latest?query=subject:four")
        self.assertEqual(self.ask("/view/latest.txt").text.strip(), "hello")

    def test_numbers_that_are_none(self) -> None:
        self.add()
        for name in ("2", "0", "-1", "1x", "%31%00", "x" * 5000, "9" * 5000, "9" * 18, "%D9%A1", "latest2", "1.0"):
            self.refused(404, f"{ONE}/{name}")
        self.assertEqual(self.ask(f"{ONE}/%31").status, 200)

    def test_headers(self) -> None:
        self.add(content=MIXED)
        headers = self.get(f"{ONE}/1/headers")
        self.assertEqual(headers["Message-Id"], ["<1@x.example>"])
        self.assertEqual(headers["Mime-Version"], ["1.0"])
        self.assertEqual(headers["Subject"], ["Grüße"])
        self.assertEqual(list(headers), sorted(headers))

    def test_headers_of_one_name_and_odd_names(self) -> None:
        self.assertEqual(
            headers_json([("x-A", "1"), ("odd (name)", "2"), ("X-a", "3")]), {"X-A": ["1", "3"], "odd (name)": ["2"]}
        )

    def test_the_source_is_what_came(self) -> None:
        content = b"Subject: \xff\r\n\r\n\x00\xfe\r\n"
        self.add(content=content)
        answer = self.ask(f"{ONE}/1/raw")
        self.assertEqual(answer.body, content)
        self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        self.assertEqual(self.ask(f"{ONE}/1/raw?dl=1").headers["content-disposition"], 'attachment; filename="1.eml"')

    def test_a_large_source_comes_whole(self) -> None:
        content = b"Subject: x\r\n\r\n" + b"0123456789abcde\n" * 20_000
        self.add(content=content)
        self.assertEqual(self.ask(f"{ONE}/1/raw").body, content)

    def test_large_answers_that_are_not_read_are_bounded(self) -> None:
        self.patch(sending, "MAX_UNREAD", 2_000_000)
        self.add(content=b"Subject: x\r\n\r\n" + b"0123456789abcde\n" * 50_000)
        transports = []
        for _ in range(2):
            transports.append(self.begin(f"{ONE}/1/raw", read=False))
        answer = self.ask(f"{ONE}/1/raw")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "5"))
        self.assertEqual(self.get("/api/v1/messages")["count"], 1)
        transports[0].loseConnection()
        self.assertEqual(self.ask(f"{ONE}/1/raw").status, 200)
        self.assertEqual(self.api._context.budget.octets, 800_014)

    def test_clients_that_stop_reading_make_room(self) -> None:
        self.patch(sending, "MAX_UNREAD", 2_000_000)
        self.add(content=b"Subject: x\r\n\r\n" + b"0123456789abcde\n" * 50_000)
        stalled, slow = (self.begin(f"{ONE}/1/raw", read=False) for _ in range(2))
        for _ in range(3):
            self.clock.advance(4)
            slow.producer.resumeProducing()
        self.assertEqual(self.ask(f"{ONE}/1/raw").status, 200)
        self.assertEqual((stalled.connected, slow.connected), (False, True))

    def test_one_answer_may_be_larger_than_the_bound(self) -> None:
        self.patch(sending, "MAX_UNREAD", 1000)
        self.add(content=b"x" * 100_000)
        self.assertEqual(self.ask(f"{ONE}/1/raw").status, 200)

    def test_the_dialog(self) -> None:
        self.add(session="s7")
        self.refused(404, f"{ONE}/1/transcript")
        self.store.keep_transcript("s7", "S: 220 hi\nC: EHLO ä\n")
        self.assertEqual(self.ask(f"{ONE}/1/transcript").text, "S: 220 hi\nC: EHLO ä\n")

    def test_links_and_codes(self) -> None:
        self.add(content=MIXED)
        self.assertEqual(self.get(f"{ONE}/1/links"), {"Links": ["https://x.example/a", "https://x.example/verify?t=1"]})
        self.assertEqual(self.get(f"{ONE}/latest/links?contains=verify"), {"Links": ["https://x.example/verify?t=1"]})
        self.assertEqual(self.get(f"{ONE}/1/codes"), {"Codes": ["123456"]})
        self.assertEqual(self.get(f"{ONE}/1/codes?length=4"), {"Codes": []})
        self.refused(400, f"{ONE}/1/codes?length=x")

    def test_a_hostile_message_breaks_no_answer(self) -> None:
        for content in (
            b"",
            b"\r\n",
            b"\x00" * 1000,
            b"Subject: \xed\xa0\x80\r\nFrom: <<\xff>\r\nDate: \xff\r\n\r\n\xff",
        ):
            number = self.add(content=content)
            for end in ("", "/headers", "/raw", "/part/0", "/links", "/codes"):
                self.assertEqual(self.ask(f"{ONE}/{number}{end}").status, 200)


class UnsubscribeTests(APITestCase):
    def errors(self, *headers: str) -> str:
        number = self.add(content="".join(f"{header}\n" for header in headers) + "\nx\n")
        text: str = self.get(f"{ONE}/{number}")["ListUnsubscribe"]["Errors"]
        return text

    def test_what_is_wrong_is_said(self) -> None:
        self.assertEqual(self.errors(), "")
        self.assertEqual(self.errors("List-Unsubscribe: <https://x.example>"), "")
        for word, *headers in (
            ("brackets", "List-Unsubscribe: https://x.example"),
            ("more than one", "List-Unsubscribe: <https://x.example>, <https://y.example>"),
            ("neither", "List-Unsubscribe: <ftp://x.example>"),
            ("One-Click", "List-Unsubscribe: <https://x.example>", "List-Unsubscribe-Post: yes"),
            ("https:", "List-Unsubscribe: <mailto:x@y>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click"),
        ):
            self.assertIn(word, self.errors(*headers))


class PartTests(APITestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(content=MIXED)

    def test_an_attachment(self) -> None:
        answer = self.ask(f"{ONE}/1/part/2")
        self.assertEqual((answer.headers["content-type"], answer.body), ("application/pdf", b"%PDF-"))
        self.assertIn("a.pdf", answer.headers["content-disposition"])

    def test_nothing_that_a_browser_would_run(self) -> None:
        for part in ("3", "4", "1.2.1"):
            answer = self.ask(f"{ONE}/1/part/{part}")
            self.assertIn(answer.headers["content-type"].partition(";")[0], ("application/octet-stream", "text/plain"))
            self.assertIn("sandbox", answer.headers["content-security-policy"])
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

    def test_attachments_keep_their_types_unless_a_browser_would_run_them(self) -> None:
        for kind, expected in (
            *(
                (kind, kind)
                for kind in ("application/zip", "application/json", "audio/ogg", "application/vnd.ms-excel")
            ),
            *(
                (kind, "application/octet-stream")
                for kind in ("application/xhtml+xml", "image/svg+xml", "application/javascript")
            ),
            *(
                (kind, "application/octet-stream")
                for kind in ("multipart/x", "application/xml", "x-y/z", "application/x-shockwave-flash")
            ),
            ("text/csv", "text/plain; charset=utf-8"),
        ):
            number = self.add(content=f"Content-Type: {kind}\nContent-Disposition: attachment; filename=x\n\nx\n")
            answer = self.ask(f"{ONE}/{number}/part/0")
            self.assertEqual(answer.headers["content-type"], expected, kind)
            self.assertIn("sandbox", answer.headers["content-security-policy"])

    def test_parts_that_are_not_there(self) -> None:
        for part in ("9", "1.9", "x", "-1", "%2e%2e", "2/../3"):
            self.assertEqual(self.ask(f"{ONE}/1/part/{part}").status, 404)


class ViewTests(APITestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(content=MIXED)

    def test_the_html_is_in_a_sandbox(self) -> None:
        answer = self.ask("/view/1.html")
        policy = answer.headers["content-security-policy"]
        self.assertTrue(policy.startswith("sandbox; default-src 'none'; "), policy)
        self.assertNotIn("allow-scripts", policy)
        self.assertNotIn("allow-same-origin", policy)
        self.assertNotIn("http:", policy)
        self.assertIn('<img src="/api/v1/message/1/part/1.2.2">', answer.text)
        self.assertIn("cid:none", answer.text)

    def test_in_a_frame(self) -> None:
        answer = self.ask("/view/1.html?embed=1")
        self.assertIn('<head><base target="_blank"><title>', answer.text)
        self.assertIn("allow-popups", answer.headers["content-security-policy"])
        self.assertNotIn("allow-scripts", answer.headers["content-security-policy"])

    def test_remote_content_on_demand(self) -> None:
        policy = self.ask("/view/1.html?remote=true").headers["content-security-policy"]
        self.assertIn("img-src 'self' data: http: https:;", policy)
        self.assertNotIn("script-src", policy)

    def test_the_text(self) -> None:
        answer = self.ask("/view/1.txt")
        self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
        self.assertIn("123456", answer.text)

    def test_no_html(self) -> None:
        number = self.add()
        self.assertIn("no HTML", self.refused(404, f"/view/{number}.html"))

    def test_many_links_to_images_take_no_longer_than_they_are(self) -> None:
        number = self.add(content="Content-Type: text/html\n\n" + "<img src=cid:x>" * 3000 + '"cid:' * 3000 + "\n")
        self.assertEqual(self.ask(f"/view/{number}.html").status, 200)

    def test_below_a_path(self) -> None:
        self.serve(base="/inbox")
        self.assertIn('src="/inbox/api/v1/message/1/part/1.2.2"', self.ask_below("/inbox/view/1.html"))

    def ask_below(self, path: str) -> str:
        answer = self.browser.ask(path)
        self.assertEqual(answer.status, 200)
        return answer.text
