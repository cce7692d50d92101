from __future__ import annotations

import re
from email.message import EmailMessage
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.inbox_mail import sample_mail
from tests.support.web import Answer, Browser
from twisted_smtpd.inbox import content
from twisted_smtpd.inbox.reading import TABS
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.site import make_site
from twisted_smtpd.session import Recipient
from twisted_smtpd.store import MemoryStore, NewMessage, SessionFacts

HOSTILE = "<script>attack()</script>\"'><img src=x onerror=attack()>"


def rows(answer: Answer) -> list[int]:
    """The numbers of the messages in a list."""
    return [int(number) for number in re.findall(r'data-id="(\d+)" data-tags', answer.text)]


class PagesCase(SynchronousTestCase):
    def browser(self, mail: bool = True, **settings: Any) -> Browser:
        self.store = MemoryStore()
        if mail:
            sample_mail(self.store)
        return Browser(make_site(SiteSettings(**settings), self.store, Clock()), Clock())

    def add(self, message: bytes | EmailMessage, mailbox: str = "", **more: Any) -> int:
        octets = message if isinstance(message, bytes) else message.as_bytes()
        session = SessionFacts("s", ("127.0.0.1", 1), "client")
        to = (Recipient("b@example.org"),)
        return self.store.add(NewMessage(octets, "a@example.org", (), to, session, mailbox, **more)).id


class ListTests(PagesCase):
    """The list of messages."""

    def test_newest_first(self) -> None:
        answer = self.browser().ask("/")
        self.assertEqual(answer.status, 200)
        self.assertEqual(rows(answer), [8, 7, 6, 4, 3, 2, 1])
        for text in ("Fern &amp; Field", "Your order #48213 is on its way", "maria@example.org", "17 KB", "12 min"):
            self.assertIn(text, answer.text)
        self.assertIn('class="row unread" id="m8"', answer.text)
        self.assertIn('class="row" id="m3"', answer.text)
        self.assertIn("<title>(4) All mail · Inbox</title>", answer.text)
        self.assertIn('<h1 class="sr">All mail</h1>', answer.text)
        self.assertIn("favicon-unread.svg", answer.text)

    def test_search(self) -> None:
        browser = self.browser()
        for query, found in {
            "from%3Abuild": [6, 3],
            "is%3Aunread": [8, 7, 6, 4],
            "tag%3Aurgent": [3],
            "has%3Aattachment": [8],
            "is%3Arefused": [5],
            "-from%3Abuild+subject%3Acode": [7],
            "zzz": [],
        }.items():
            self.assertEqual(rows(browser.ask(f"/?q={query}")), found, query)
        self.assertIn("Nothing found", browser.ask("/?q=zzz").text)
        self.assertIn("550 5.7.1 Not wanted here", browser.ask("/?q=is%3Arefused").text)

    def test_a_query_that_is_none(self) -> None:
        answer = self.browser().ask("/?q=larger%3Ahuge")
        self.assertEqual(answer.status, 200)
        self.assertIn("larger:huge is no size", answer.text)
        self.assertIn('aria-invalid="true"', answer.text)

    def test_mailboxes(self) -> None:
        browser = self.browser()
        self.assertEqual(rows(browser.ask("/?mailbox=ci")), [6, 3])
        self.assertEqual(rows(browser.ask("/?mailbox=ci&q=failed")), [3])
        self.assertEqual(rows(browser.ask("/?mailbox=none")), [])

    def test_many_mailboxes(self) -> None:
        browser = self.browser(mail=False)
        for number in range(150):
            self.add(b"Subject: x\r\n\r\n", mailbox=f"box{number:03}")
        text = browser.ask("/?mailbox=box149").text
        self.assertEqual(text.count('href="/?mailbox='), 100)
        self.assertIn('href="/?mailbox=box149" aria-current', text)
        self.assertIn("and 50 more", text)

    def test_paging(self) -> None:
        browser = self.browser(mail=False)
        for number in range(150):
            self.add(b"Subject: %d\r\n\r\n" % number)
        found: list[int] = []
        url = "/"
        while url:
            answer = browser.ask(url)
            found += rows(answer)
            more = re.search(r'id="more" href="([^"]+)"', answer.text)
            url = more[1] if more else ""
        self.assertEqual(found, list(range(150, 0, -1)))
        self.assertEqual(rows(browser.ask("/?after=148")), [150, 149])
        self.assertEqual(rows(browser.ask("/?before=x&after=99999999999999999999"))[:1], [150])

    def test_the_first_message(self) -> None:
        browser = self.browser(mail=False, smtp_addresses=("mail.test:2525",))
        text = browser.ask("/").text
        for word in ("No mail yet", "--server mail.test --port 2525", "send-test"):
            self.assertIn(word, text)
        self.assertIn("favicon.svg", text)

    def test_hostile_headers(self) -> None:
        browser = self.browser(mail=False)
        raw = HOSTILE.encode()
        head = b"Subject: " + raw + b'\r\nFrom: "' + raw.replace(b'"', b"") + b'" <a@b>\r\nTo: ' + raw + b"\r\n"
        number = self.add(head + b'Content-Type: text/plain; name="' + raw.replace(b'"', b"") + b'"\r\n\r\n' + raw)
        self.store.tag([number], [HOSTILE])
        self.add(b"Subject: x\r\n\r\n", mailbox=HOSTILE)
        urls = ["/", f"/?q={HOSTILE.replace(' ', '+')}", "/?mailbox=%3Cscript%3E", f"/view/{number}"]
        urls += [f"/view/{number}?tab={tab}" for tab in TABS]
        for url in urls:
            with self.subTest(url=url):
                text = browser.ask(url).text
                self.assertNotIn("<script>attack", text)
                self.assertNotIn("<img src=x", text)

    def test_odd_mail(self) -> None:
        browser = self.browser(mail=False)
        for octets in (b"", b"\0\xff\xfe", b"Subject: =?utf-8?b?////?=\r\n\r\n", b"From: <>\r\nTo: ,,;\r\n\r\n"):
            number = self.add(octets)
            for url in ("/", *(f"/view/{number}?tab={tab}" for tab in TABS)):
                self.assertEqual(browser.ask(url).status, 200, (octets, url))


class MessageTests(PagesCase):
    """One message."""

    def test_head(self) -> None:
        text = self.browser().ask("/view/8").text
        for word in (
            "<h1>Your order #48213 is on its way</h1>",
            "orders@shop.example",
            "Maria Lund",
            "Invoice 48213.pdf",
        ):
            self.assertIn(word, text)
        self.assertIn("/api/v1/message/8/part/2", text)

    def test_it_is_read(self) -> None:
        browser = self.browser()
        browser.ask("/view/8", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
        browser.ask("/view/8?peek=1")
        self.assertIs(self.store.get(8).seen, False)  # type: ignore[union-attr]
        browser.ask("/view/8")
        self.assertIs(self.store.get(8).seen, True)  # type: ignore[union-attr]

    def test_tabs(self) -> None:
        browser = self.browser()
        for tab, word in {
            "html": 'sandbox="allow-popups allow-popups-to-escape-sandbox"',
            "text": 'href="https://shop.example/orders/48213?track=1"',
            "headers": '<th scope="row">Message-ID</th>',
            "parts": "cid:logo",
            "source": "Content-Transfer-Encoding: base64",
            "dialog": "AUTH PLAIN ***",
            "envelope": "bounces@shop.example",
            "links": "https://shop.example/orders/48213?track=1",
            "checks": "",
            "none": 'sandbox="allow-popups',
        }.items():
            answer = browser.ask(f"/view/8?tab={tab}")
            self.assertEqual(answer.status, 200, tab)
            self.assertIn(word, answer.text, tab)

    def test_remote(self) -> None:
        browser = self.browser()
        self.assertIn("1 remote image or style is blocked", browser.ask("/view/8").text)
        self.assertIn("frame?remote=1", browser.ask("/view/8?remote=1").text)
        blocked, allowed = browser.ask("/view/8/frame"), browser.ask("/view/8/frame?remote=1")
        self.assertNotIn("pixel.example", blocked.text)
        self.assertIn("pixel.example", allowed.text)
        self.assertNotIn("https:", blocked.headers["content-security-policy"])
        for answer in (blocked, allowed):
            self.assertTrue(answer.headers["content-security-policy"].startswith("sandbox "))
            self.assertEqual(answer.headers["x-frame-options"], "SAMEORIGIN")
            self.assertEqual(answer.headers["referrer-policy"], "no-referrer")

    def test_without_html(self) -> None:
        browser = self.browser()
        text = browser.ask("/view/6?tab=html").text
        self.assertIn("1,204 tests passed in 212 s.", text)
        self.assertNotIn("<iframe", text)

    def test_codes(self) -> None:
        self.assertIn('data-copy="482913"', self.browser().ask("/view/7").text)

    def test_a_refused_message(self) -> None:
        self.assertIn("550 5.7.1 Not wanted here", self.browser().ask("/view/5").text)

    def test_neighbours(self) -> None:
        browser = self.browser()
        text = browser.ask("/view/6?q=from%3Abuild").text
        self.assertIn('href="/view/3?q=from%3Abuild" data-key="j"', text)
        self.assertNotIn('data-key="k"', re.sub(r'aria-disabled="true" role="link" data-key="k"', "", text))
        self.assertIn('href="/view/7" data-key="k"', browser.ask("/view/6").text)

    def test_no_such_message(self) -> None:
        browser = self.browser()
        for name in ("99", "0", "x", "-1", "99999999999999999999", "8/x", "8/frame/x", "%F0", "99/frame"):
            answer = browser.ask(f"/view/{name}")
            self.assertEqual(answer.status, 404, name)
        self.assertIn("This message is not there", browser.ask("/view/99").text)

    def test_the_newest(self) -> None:
        browser = self.browser()
        self.assertEqual(browser.ask("/view/latest").headers["location"], "/view/8")
        found = browser.ask("/view/latest?query=from%3Abuild")
        self.assertEqual((found.status, found.headers["location"]), (302, "/view/6?q=from%3Abuild"))
        self.assertEqual(browser.ask("/view/latest?query=zzz").status, 404)

    def test_long_ones(self) -> None:
        # Without threads: no reactor runs here.
        self.patch(content, "is_large", lambda _: False)
        browser = self.browser(mail=False)
        number = self.add(b"Subject: x\r\n\r\n" + b"line of text\r\n" * 80_000)
        for tab in ("text", "source"):
            answer = browser.ask(f"/view/{number}?tab={tab}")
            self.assertLess(len(answer.body), 700_000)
            self.assertIn("The rest is left out", answer.text)

    def test_many_recipients_mailboxes_and_attachments(self) -> None:
        browser = self.browser(mail=False)
        people = ", ".join(f"p{number}@x.example" for number in range(20))
        parts = "".join(
            f'--b\r\nContent-Disposition: attachment; filename="f{number}.txt"\r\n\r\nx\r\n' for number in range(20)
        )
        text = f"To: {people}\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n"
        facts = SessionFacts("s", ("192.0.2.1", 4321))
        boxes = tuple(f"box{number}" for number in range(10))
        self.store.add(NewMessage(text.encode(), "a@x.example", (), (), facts, mailboxes=boxes))
        page = browser.ask("/view/1").text
        for shown, left_out in (("p7@x", "p8@x"), ("box2", "· box3"), ("f11.txt", "f12.txt")):
            self.assertIn(shown, page)
            self.assertNotIn(left_out, page.partition('id="panel"')[0])
        for number in (12, 7, 8):
            self.assertIn(f"{number} more", page)
        self.assertIn("192.0.2.1:4321", browser.ask("/view/1?tab=envelope").text)
        self.assertIn("f19.txt", browser.ask("/view/1?tab=parts").text)


class MailboxTests(PagesCase):
    """A token for one mailbox shows that mailbox, and nothing of the others."""

    def test_one_mailbox(self) -> None:
        browser = self.browser(tokens={"t": "ci"})
        browser.headers["Authorization"] = "Bearer t"
        self.assertEqual(rows(browser.ask("/")), [6, 3])
        self.assertEqual(rows(browser.ask("/?mailbox=team")), [6, 3])
        self.assertEqual(browser.ask("/view/6").status, 200)
        for url in ("/view/8", "/view/8/frame", "/view/8?tab=source"):
            self.assertEqual(browser.ask(url).status, 404, url)
        self.assertEqual(browser.ask("/view/latest").headers["location"], "/view/6?mailbox=ci")
        text = browser.ask("/").text
        for word in ("Fern", "team", "billing"):
            self.assertNotIn(word, text)


class StaticTests(PagesCase):
    """Scripts, styles and images."""

    def test_types_and_etags(self) -> None:
        browser = self.browser(mail=False)
        for name, kind in {
            "app.js": "text/javascript",
            "style.css": "text/css",
            "favicon.svg": "image/svg+xml",
        }.items():
            answer = browser.ask(f"/static/{name}")
            self.assertIn(kind, answer.headers["content-type"])
            self.assertEqual(answer.headers["cache-control"], "no-cache")
            again = browser.ask(f"/static/{name}", If_None_Match=answer.headers["etag"])
            self.assertEqual((again.status, again.body), (304, b""))

    def test_nothing_else(self) -> None:
        browser = self.browser(mail=False)
        for name in ("", "../site.py", "%2e%2e/site.py", "..%2fsite.py", "none.js"):
            self.assertEqual(browser.ask(f"/static/{name}").status, 404, name)

    def test_everything_that_pages_ask_for(self) -> None:
        """All is there, and all of it is ours."""
        browser = self.browser()
        asked = set()
        for url in ("/", "/view/8"):
            asked.update(re.findall(r'(?:src|href)="([^"#?]+\.(?:js|css|svg))"', browser.ask(url).text))
        scripts = [url for url in asked if url.endswith(".js")]
        while scripts:
            text = browser.ask(scripts.pop()).text
            for name in re.findall(r'(?:from |import\()"\./([^"]+)"', text):
                if f"/static/{name}" not in asked:
                    asked.add(f"/static/{name}")
                    scripts.append(f"/static/{name}")
        self.assertGreater(len(asked), 9)
        for url in asked:
            self.assertTrue(url.startswith("/static/"), url)
            self.assertEqual(browser.ask(url).status, 200, url)
