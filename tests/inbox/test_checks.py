from __future__ import annotations

import json
from email.message import EmailMessage
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from zope.interface import implementer

from tests.support.inbox_mail import SHOP, sample_mail
from tests.support.memory_reactor import ResolvingReactor
from tests.support.web import Browser
from twisted_smtpd.inbox import link_checks
from twisted_smtpd.inbox.content import Content
from twisted_smtpd.inbox.header_checks import check_headers
from twisted_smtpd.inbox.html_support import html_support
from twisted_smtpd.inbox.link_checks import MAX_LINKS, TIMEOUT, LinkChecker, LinkResult, is_public
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.site import make_site
from twisted_smtpd.store import MemoryStore, NewMessage, SessionFacts


def html_message(html: str) -> Content:
    message = EmailMessage()
    message.set_content(html, subtype="html")
    return Content.of(message.as_bytes())


class HTMLSupportTests(SynchronousTestCase):
    """Which mail programs show what a message uses."""

    def slugs(self, html: str) -> set[str]:
        return {feature.slug for feature in html_support(html_message(html)).features}

    def test_features(self) -> None:
        for html, slugs in {
            "<p style='color:#fff; display:flex; gap:1rem'>": {"css-display-flex", "css-gap", "css-unit-rem", "html-p"},
            "<style>@media (prefers-color-scheme: dark) { a:hover { color: red !important } }</style>": {
                "css-at-media",
                "css-at-media-prefers-color-scheme",
                "css-pseudo-class-hover",
                "css-important",
                "html-style",
            },
            "<style>.a > b::before { width: calc(1px + 2%) }</style>": {
                "css-selector-class",
                "css-selector-child",
                "css-pseudo-element-before",
                "css-unit-calc",
                "css-width",
            },
            "<img src='https://x.example/a.webp?b' srcset='c 2x' alt=''>": {"image-webp", "html-srcset"},
            "<img src='data:image/svg+xml;base64,x'>": {"image-base64", "image-svg"},
            "<h2></h2><ul></ul><nav></nav><a href='#x'></a><input type=radio>": {
                "html-h1-h6",
                "html-lists",
                "html-semantics",
                "html-anchor-links",
                "html-input-radio",
            },
            "<p style='margin-left:1px;--x:2'>": {"css-margin", "css-variables"},
        }.items():
            with self.subTest(html=html):
                self.assertLessEqual(slugs, self.slugs(html))

    def test_nothing_that_is_not_used(self) -> None:
        self.assertEqual(self.slugs("<p>display:flex</p>"), {"html-p"})
        self.assertEqual(self.slugs(""), set())

    def test_scores(self) -> None:
        plain, flex = html_support(html_message("<p>x</p>")), html_support(html_message("<p style='display:grid'>"))
        self.assertGreater(plain.score, 90)
        self.assertLess(flex.score, plain.score)
        (grid,) = (feature for feature in flex.features if feature.slug == "css-display-grid")
        self.assertIn("Outlook (Windows)", grid.lacking)
        self.assertEqual(grid.known, grid.full + grid.partly + len(grid.lacking))
        self.assertEqual(grid.url, "https://www.caniemail.com/features/css-display-grid/")
        self.assertEqual(flex.problems[0], grid)
        self.assertEqual(html_support(html_message("")).score, 100)

    def test_hostile(self) -> None:
        for html in ("<p " * 100_000, "<p style='" + "a:" * 100_000, "<style>" + "{" * 100_000, "<style>" * 20_000):
            html_support(html_message(html))

    def test_a_newsletter(self) -> None:
        self.assertLessEqual({"html-table", "css-border-radius", "image-png"} - {"image-png"}, self.slugs(SHOP))


class HeaderTests(SynchronousTestCase):
    """What is missing in a message, or wrong."""

    GOOD = (
        b"From: a@example.org\r\nTo: b@example.org\r\nDate: Mon, 30 Nov 2026 07:00:00 +0000\r\n"
        b"Message-ID: <1@example.org>\r\nSubject: x\r\n"
    )

    def texts(self, octets: bytes) -> list[str]:
        stored = MemoryStore().add(NewMessage(octets, "", (), (), SessionFacts("s")))
        return [finding.text for finding in check_headers(stored, Content.of(octets))]

    def test_good(self) -> None:
        self.assertEqual(self.texts(self.GOOD + b"\r\ntext\r\n"), [])

    def test_missing(self) -> None:
        found = "\n".join(self.texts(b"X: y\r\n\r\n"))
        for word in ("From", "Date", "Message-ID", "subject", "recipient"):
            self.assertIn(word, found)

    def test_wrong(self) -> None:
        for octets, word in (
            (self.GOOD.replace(b"Mon, 30 Nov", b"Someday"), "no date"),
            (self.GOOD.replace(b"<1@example.org>", b"1"), "has not the form"),
            (self.GOOD + b"Subject: y\r\n", "Subject is there 2 times"),
            (self.GOOD + b"X: " + b"y" * 1000 + b"\r\n", "longer than 998"),
            (self.GOOD + b"X: y\n", "CRLF"),
            (self.GOOD + b"Content-Type: text/plain\r\n", "MIME-Version"),
            (self.GOOD + b"\r\n\xe4\r\n", "above 127"),
            (self.GOOD + b"MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<p>x\r\n", "no plain text"),
            (self.GOOD + b"\r\nTo unsubscribe, click here\r\n", "List-Unsubscribe"),
        ):
            with self.subTest(word=word):
                found = self.texts(octets)
                self.assertEqual(len(found), 1, found)
                self.assertIn(word, found[0])


class AddressTests(SynchronousTestCase):
    """Which addresses are asked."""

    def test_public(self) -> None:
        for address in ("93.184.215.14", "8.8.8.8", "2606:4700::1111"):
            self.assertTrue(is_public(address), address)

    def test_not_public(self) -> None:
        for address in (
            *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
            *("255.255.255.255", "224.0.0.1", "192.0.2.1", "240.0.0.1", "198.18.0.1"),
            *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
            *("::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2001::1"),
            *("", "localhost", "0x7f.1", "2130706433", "127.1"),
        ):
            self.assertFalse(is_public(address), address)


class FakeResponse:
    def __init__(self, code: int, location: str = "") -> None:
        self.code = code
        self.headers = Headers({"location": [location]} if location else {})

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(self)

    def abortConnection(self) -> None:
        pass


class FakeAgent:
    """Answers as it is told."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, list[str]()

    def request(self, method: bytes, url: bytes, headers: Any) -> Any:
        self.asked.append(url.decode())
        answer = self.answers[url.decode().rpartition("/")[2]]
        return answer() if callable(answer) else fail(answer) if isinstance(answer, Exception) else succeed(answer)


class LinkTests(SynchronousTestCase):
    """What becomes of links."""

    def check(self, links: list[str], **answers: Any) -> list[LinkResult]:
        self.clock, self.agent = ResolvingReactor(), FakeAgent(**answers)
        checker = LinkChecker(self.clock, self.agent)
        self.checking = Deferred.fromCoroutine(checker.check(links))
        return self.successResultOf(self.checking) if self.checking.called else []

    def test_answers(self) -> None:
        found = self.check(
            [f"https://x.example/{name}" for name in ("a", "b", "c", "d")],
            a=FakeResponse(200),
            b=FakeResponse(404),
            c=ConnectionRefusedError(),
            d=FakeResponse(302, "/a"),
        )
        self.assertEqual([one.status for one in found], [200, 404, 0, 200])
        self.assertEqual([one.is_good for one in found], [True, False, False, True])
        self.assertIn("led to https://x.example/a", found[3].text)
        self.assertIn("no connection", found[2].text)

    def test_redirections(self) -> None:
        (found,) = self.check(["https://x.example/a"], a=FakeResponse(301, "a"))
        self.assertIn("more than 5 redirections", found.text)
        (found,) = self.check(["https://x.example/a"], a=FakeResponse(301, "file:///etc/passwd"))
        self.assertEqual((found.status, self.agent.asked), (0, ["https://x.example/a"]))

    def test_no_answer(self) -> None:
        self.check(["https://x.example/a"], a=Deferred)
        self.clock.advance(TIMEOUT)
        (found,) = self.successResultOf(self.checking)
        self.assertIn("no answer in 10 s", found.text)

    def test_many(self) -> None:
        self.check(["https://x.example/a"] * 200, a=Deferred)
        self.assertEqual(len(self.agent.asked), 4)
        for _ in range(MAX_LINKS):
            self.clock.advance(TIMEOUT)
        self.assertEqual(len(self.successResultOf(self.checking)), MAX_LINKS)

    def test_odd_links(self) -> None:
        self.patch(link_checks, "Agent", Agent)
        checker = LinkChecker(ResolvingReactor())
        links = ["http://", "http://x:y/", "https://ä.example/", "http://[::1/", "http://127.0.0.1/", "http://[::1]/"]
        checking = Deferred.fromCoroutine(checker.check([*links, "http://2130706433/", "http://x\r\ny/"]))
        found = self.successResultOf(checking)
        self.assertEqual([one.status for one in found], [0] * 8)


@implementer(IHostnameResolver)
class FakeResolver:
    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    def resolveHostName(self, receiver: Any, host: str, port: int = 0, *rest: Any, **options: Any) -> Any:
        receiver.resolutionBegan(self)
        for address in self.addresses:
            receiver.addressResolved(IPv4Address("TCP", address, port))
        receiver.resolutionComplete()
        return receiver


class ConnectionTests(SynchronousTestCase):
    """Connections go to public addresses only, whatever a name means."""

    def connections(self, *addresses: str) -> list[str]:
        reactor: Any = ResolvingReactor()
        reactor.nameResolver = FakeResolver(*addresses)
        checking = Deferred.fromCoroutine(LinkChecker(reactor).check(["http://x.example/"]))
        reactor.advance(1)
        reactor.advance(TIMEOUT)
        self.successResultOf(checking)
        return [client[0] for client in reactor.tcpClients]

    def test_names(self) -> None:
        self.assertEqual(self.connections("127.0.0.1", "10.1.2.3"), [])
        self.assertEqual(self.connections("169.254.169.254", "93.184.215.14"), ["93.184.215.14"])


class PageTests(SynchronousTestCase):
    """The tab with the checks."""

    def browser(self, **settings: Any) -> Browser:
        self.store = MemoryStore()
        sample_mail(self.store)
        self.site: Any = make_site(SiteSettings(**settings), self.store, ResolvingReactor())
        return Browser(self.site, Clock())

    def test_tab(self) -> None:
        text = self.browser().ask("/view/8?tab=checks").text
        for word in ("There is no Date header.", "caniemail.com", "border-radius", "without --check-links"):
            self.assertIn(word, text)
        self.assertNotIn("caniemail", self.browser().ask("/view/6?tab=checks").text)

    def test_links_are_asked_for_when_the_page_asks(self) -> None:
        browser = self.browser(check_links=True)
        page = browser.ask("/view/8?tab=checks")
        self.assertIn('data-do="check-links"', page.text)
        self.assertEqual(browser.ask("/view/8/links").status, 405)
        self.assertEqual(browser.ask("/view/8/links", "POST").status, 403)
        pages_checker = FakeAgent(**{"48213?track=1": FakeResponse(200)})
        self.site.inbox.pages.link_checker = LinkChecker(ResolvingReactor(), pages_checker)
        cookie = page.headers["set-cookie"].partition(";")[0]
        token = page.text.partition('data-csrf="')[2].partition('"')[0]
        answer = browser.ask("/view/8/links", "POST", Cookie=cookie, X_CSRF_Token=token)
        self.assertEqual([(one["Status"], one["Good"]) for one in json.loads(answer.text)], [(200, True)])
        self.assertEqual(browser.ask("/view/99/links", "POST", Cookie=cookie, X_CSRF_Token=token).status, 404)

    def test_links_are_not_asked_for(self) -> None:
        browser = self.browser()
        page = browser.ask("/view/8")
        cookie = page.headers["set-cookie"].partition(";")[0]
        token = page.text.partition('data-csrf="')[2].partition('"')[0]
        self.assertEqual(browser.ask("/view/8/links", "POST", Cookie=cookie, X_CSRF_Token=token).status, 403)
