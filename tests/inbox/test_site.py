from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.web import Answer, Browser, read
from twisted_smtpd.inbox.guard import HEADERS
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.site import LIFETIME, MAX_CONNECTIONS, inbox_resource, make_site
from twisted_smtpd.store import MemoryStore

BASIC = "Basic " + b64encode(b"ann:s3cret").decode()


class Echo(Resource):
    """Says what it was asked, and how it was let in."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        body = request.content.read()
        form = b"1" if request.args else b"0"
        return b"|".join((request.method, repr(request.access).encode(), request.base.encode(), form, body))


class Broken(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        raise RuntimeError("secret")


class SiteCase(SynchronousTestCase):
    def site(self, **settings: Any) -> Browser:
        self.clock = Clock()
        site: Any = make_site(SiteSettings(**settings), MemoryStore(), self.clock)
        self.tree = site.inbox.tree
        self.tree.putChild(b"echo", Echo())
        self.tree.putChild(b"livez", Echo())
        self.tree.putChild(b"broken", Broken())
        return Browser(site, self.clock)


class HeadersTests(SiteCase):
    """Each response has the headers that keep a browser from harm."""

    def assert_safe(self, answer: Answer) -> None:
        for name, value in HEADERS:
            if name != b"cache-control":
                self.assertEqual(answer.headers.get(name.decode()), value.decode(), name)

    def test_each_response(self) -> None:
        browser = self.site(users={"ann": "s3cret"}, max_upload=10)
        for path, status, headers in (
            ("/echo", 401, {}),
            ("/echo", 200, {"Authorization": BASIC}),
            ("/none", 404, {"Authorization": BASIC}),
            ("/static/none", 404, {"Authorization": BASIC}),
            ("/echo", 403, {"Host": "evil.example"}),
            ("/echo", 413, {"Content-Length": "11"}),
            ("/echo", 401, {"Content-Length": "10"}),
        ):
            with self.subTest(path=path, status=status):
                answer = browser.ask(path, "GET", **headers)  # type: ignore[arg-type]
                self.assertEqual(answer.status, status)
                self.assert_safe(answer)

    def test_an_error_tells_the_log_only(self) -> None:
        browser = self.site()
        answer = browser.ask("/broken")
        self.assertEqual(answer.status, 500)
        self.assertNotIn("secret", answer.text)
        self.assert_safe(answer)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_no_inline_scripts_and_styles(self) -> None:
        policy = dict(HEADERS)[b"content-security-policy"]
        self.assertNotIn(b"unsafe", policy)
        self.assertNotIn(b"http", policy)


class HostTests(SiteCase):
    """A page of another site can't read ours by giving its name our address."""

    def test_names(self) -> None:
        browser = self.site(http_hosts=frozenset({"mail.example"}))
        for host, status in {
            "localhost": 200,
            "LOCALHOST:8026": 200,
            "localhost.:8026": 200,
            "inbox.localhost:8026": 200,
            "127.0.0.1:8026": 200,
            "[::1]:8026": 200,
            "192.0.2.7": 200,
            "mail.example:80": 200,
            "evil.example": 403,
            "localhost.evil.example": 403,
            "127.0.0.1.evil.example": 403,
            "evil.example:localhost": 403,
            "localhost@evil.example": 403,
            "[evil.example]": 403,
        }.items():
            self.assertEqual(browser.ask("/echo", Host=host).status, status, host)
        self.assertEqual(browser.ask("/echo", Host=None).status, 403)

    def test_two_hosts(self) -> None:
        browser = self.site()
        channel, transport = browser.connect()
        channel.dataReceived(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        self.assertIn(read(transport.value()).status, (400, 403))
        transport.loseConnection()


class AccessTests(SiteCase):
    """Passwords and tokens."""

    def test_open(self) -> None:
        self.assertIn("by='loopback'", self.site().ask("/echo").text)

    def test_password(self) -> None:
        browser = self.site(users={"ann": "s3cret", "bob": "x"})
        refused = browser.ask("/echo")
        self.assertEqual(refused.status, 401)
        self.assertIn("Basic realm=", refused.headers["www-authenticate"])
        self.assertIn("Bearer", refused.headers["www-authenticate"])
        self.assertIn("user='ann', by='password'", browser.ask("/echo", Authorization=BASIC).text)

    def test_wrong(self) -> None:
        browser = self.site(users={"ann": "s3cret", "bob": "x"}, tokens={"t0ken": None})
        for value in (
            "Basic " + b64encode(b"ann:x").decode(),
            "Basic " + b64encode(b"bob:s3cret").decode(),
            "Basic " + b64encode(b":").decode(),
            "Basic " + b64encode(b"\xff\xfe").decode(),
            "Basic !",
            "Basic",
            "Bearer",
            "Bearer t0ke",
            "Bearer ann:s3cret",
            "Digest x",
            "t0ken",
        ):
            self.assertEqual(browser.ask("/echo", Authorization=value).status, 401, value)

    def test_a_wrong_one_waits(self) -> None:
        browser = self.site(tokens={"t0ken": None})
        channel, transport = browser.connect()
        channel.dataReceived(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n")
        self.assertEqual(transport.value(), b"")
        self.clock.advance(1)
        self.assertEqual(read(transport.value()).status, 401)
        transport.loseConnection()

    def test_a_client_that_leaves_while_it_waits(self) -> None:
        browser = self.site(tokens={"t0ken": None})
        channel, transport = browser.connect()
        channel.dataReceived(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n")
        transport.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tokens(self) -> None:
        browser = self.site(tokens={"all": None, "team": "blue"})
        self.assertIn("mailbox=None, user=None, by='token'", browser.ask("/echo", Authorization="Bearer all").text)
        self.assertIn("mailbox='blue'", browser.ask("/echo", Authorization="bearer team").text)
        as_password = "Basic " + b64encode(b"anybody:team").decode()
        self.assertIn("mailbox='blue'", browser.ask("/echo", Authorization=as_password).text)

    def test_whether_it_lives(self) -> None:
        self.assertEqual(self.site(tokens={"t": None}).ask("/livez").status, 200)


class CrossSiteTests(SiteCase):
    """Pages of other sites change nothing here, and read nothing."""

    def test_posts(self) -> None:
        browser = self.site(http_hosts=frozenset({"mail.example"}))
        for status, headers in (
            (200, {}),
            (200, {"Origin": "http://localhost:8026"}),
            (200, {"Origin": "https://localhost:8026"}),
            (403, {"Origin": "https://mail.example"}),
            (200, {"Sec-Fetch-Site": "same-origin"}),
            (403, {"Origin": "http://evil.example"}),
            (403, {"Origin": "null"}),
            (403, {"Origin": "http://localhost:80"}),
            (403, {"Origin": "http://localhost:8026.evil.example"}),
            (403, {"Sec-Fetch-Site": "cross-site"}),
            (403, {"Sec-Fetch-Site": "same-site"}),
            (403, {"Origin": "http://localhost:8026", "Sec-Fetch-Site": "cross-site"}),
            (403, {"User-Agent": "Mozilla/4.0", "Content-Type": "application/x-www-form-urlencoded"}),
            (403, {"User-Agent": "Mozilla/4.0", "Content-Type": "text/plain"}),
            (200, {"User-Agent": "Mozilla/4.0", "Content-Type": "application/json"}),
        ):
            with self.subTest(headers=headers):
                self.assertEqual(browser.ask("/echo", "POST", b"{}", **headers).status, status)

    def test_a_proxy_with_another_name_or_port_in_front(self) -> None:
        browser = self.site(http_hosts=frozenset({"mail.example"}))
        guard = browser.site.inbox.guard
        cookie = "c" * 43
        page = {"Cookie": f"smtpd_inbox={cookie}", "X-CSRF-Token": guard._token(cookie.encode())}
        for origin, status in (
            ("https://mail.example", 200),
            ("https://mail.example:8443", 200),
            ("https://evil.example", 403),
        ):
            # Only the page knows its token: another server on the same host has the same name, and gets the cookie.
            alone = browser.ask("/echo", "POST", b"{}", Origin=origin, Cookie=page["Cookie"])
            self.assertEqual((origin, alone.status), (origin, 403))
            self.assertEqual(browser.ask("/echo", "POST", b"{}", Origin=origin, **page).status, status)

    def test_a_token_is_enough(self) -> None:
        browser = self.site(tokens={"t": None})
        answer = browser.ask("/echo", "POST", b"a=b", Authorization="Bearer t", User_Agent="Mozilla/5.0")
        self.assertEqual(answer.status, 200)

    def test_reading(self) -> None:
        browser = self.site()
        for status, headers in (
            (403, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}),
            (403, {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}),
            (200, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}),
            (200, {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}),
        ):
            with self.subTest(headers=headers):
                self.assertEqual(browser.ask("/echo", **headers).status, status)

    def test_the_token_of_the_page(self) -> None:
        browser = self.site()
        guard = browser.site.inbox.guard

        class Page(Resource):
            isLeaf = True

            def render(self, request: Any) -> bytes:
                return guard.page_token(request, request.base).encode()

        self.tree.putChild(b"page", Page())
        page = browser.ask("/page")
        cookie = page.headers["set-cookie"]
        for word in ("HttpOnly", "SameSite=strict", "Path=/"):
            self.assertIn(word, cookie)
        value = re.split("[=;]", cookie)[1]
        self.assertEqual(browser.ask("/page", Cookie=f"smtpd_inbox={value}").text, page.text)
        for token, cookie, is_page in (
            (page.text, value, True),
            (page.text, value[:-1] + "!", False),
            (page.text[:-1] + "!", value, False),
            (page.text, None, False),
            (None, value, False),
        ):
            answer = browser.ask("/echo", "POST", X_CSRF_Token=token, Cookie=cookie and f"smtpd_inbox={cookie}")
            self.assertIn(f"from_page={is_page}", answer.text)


class BoundsTests(SiteCase):
    """What a request and a connection may have."""

    def test_bodies(self) -> None:
        browser = self.site(max_upload=10)
        self.assertTrue(browser.ask("/echo", "POST", b"0123456789").text.endswith("|0123456789"))
        self.assertEqual(browser.ask("/echo", "POST", b"0123456789a").status, 413)

    def test_bodies_in_chunks(self) -> None:
        for end, status in (
            (b"5\r\n56789\r\n0\r\n\r\n", 200),
            (b"6\r\n56789a\r\n", 413),
        ):
            browser = self.site(max_upload=10)
            channel, transport = browser.connect()
            head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            for octet in head + b"5\r\n01234\r\n" + end:
                if transport.connected:
                    channel.dataReceived(bytes((octet,)))
            self.assertEqual(read(transport.value()).status, status)
            if transport.connected:
                transport.loseConnection()

    def test_no_body_before_a_password(self) -> None:
        browser = self.site(tokens={"t": None})
        answer = browser.ask("/echo", "POST", b"x")
        self.assertEqual((answer.status, answer.headers["connection"]), (401, "close"))
        self.assertIn("Bearer", answer.headers["www-authenticate"])

    def test_forms_are_left_alone(self) -> None:
        form = "application/x-www-form-urlencoded"
        self.assertTrue(self.site().ask("/echo", "POST", b"a=b", Content_Type=form).text.endswith("|0|a=b"))
        form = "multipart/form-data; boundary=x"
        self.assertTrue(self.site().ask("/echo", "POST", b"--x--", Content_Type=form).text.endswith("|0|--x--"))

    def test_connections(self) -> None:
        browser = self.site()
        connections = [browser.connect()[1] for _ in range(MAX_CONNECTIONS)]
        self.assertIsNone(browser.site.buildProtocol(None))
        connections[0].loseConnection()
        self.assertEqual(browser.ask("/echo").status, 200)
        for transport in connections[1:]:
            transport.loseConnection()

    def test_a_slow_request(self) -> None:
        browser = self.site()
        channel, transport = browser.connect()
        channel.dataReceived(b"GET /echo HTTP/1.1\r\n")
        for _ in range(LIFETIME // 10):
            self.assertTrue(transport.connected)
            channel.dataReceived(b"A: b\r\n")
            self.clock.advance(10)
        self.assertFalse(transport.connected)

    def test_an_idle_connection_is_kept_for_the_next_request(self) -> None:
        browser = self.site()
        channel, transport = browser.connect()
        for _ in range(2):
            channel.dataReceived(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertTrue(transport.connected)
        self.assertEqual(transport.value().count(b"200 OK"), 2)
        self.clock.advance(70)
        self.clock.advance(20)
        self.assertFalse(transport.connected)


class PlaceTests(SiteCase):
    """Where it is in a site."""

    def test_base(self) -> None:
        browser = self.site(base="/mail/inbox")
        self.assertIn("|/mail/inbox|", browser.ask("/mail/inbox/echo").text)
        self.assertEqual(browser.ask("/echo").status, 404)
        self.assertEqual(browser.ask("/").headers["x-frame-options"], "DENY")

    def test_in_another_program(self) -> None:
        root, clock = Resource(), Clock()
        inbox = inbox_resource(SiteSettings(), MemoryStore(), clock)
        inbox.tree.putChild(b"echo", Echo())
        root.putChild(b"mail", inbox)
        browser = Browser(Site(root), clock)
        self.assertIn("|/mail|", browser.ask("/mail/echo").text)
        self.assertEqual(browser.ask("/mail/echo", Host="evil.example").status, 403)

    def test_the_global_reactor(self) -> None:
        self.assertIsNotNone(inbox_resource(SiteSettings(), MemoryStore()))
