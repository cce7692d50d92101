"""The pages in a real browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource

from tests.loopback.servers import MODULE, ServerCase
from tests.support.chromium import ENTER, ESCAPE, SHIFT, BrowserCase, Looking, axe_core, start_driver
from tests.support.inbox_mail import sample_mail
from tests.support.xss import ATTACKS
from twisted_smtpd.inbox.reading import TABS
from twisted_smtpd.session import Recipient
from twisted_smtpd.store import NewMessage, SessionFacts, StoredMessage
from twisted_smtpd.wire.replies import SMTPReplyError


def mail(subject: str, text: str = "text", html: str = "") -> NewMessage:
    message = EmailMessage()
    message["From"], message["Subject"] = "Anne <anne@example.org>", subject
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    recipients = (Recipient("b@example.org"),)
    return NewMessage(message.as_bytes(), "anne@example.org", (), recipients, SessionFacts(subject))


class WalkTests(BrowserCase):
    """What a person does, from the first message on."""

    async def test_first_message(self) -> None:
        await self.run_seen(self.see_first_message)

    def see_first_message(self) -> None:
        self.open("/")
        self.assertIn("No mail yet", self.text("#empty"))
        self.click('[data-do="send-test"]')
        self.until(lambda: len(self.subjects()) == 1, "the message is in the list")
        self.assertEqual(self.all("#empty"), [])
        self.assertEqual(self.text("#sidebar .number"), "1")
        self.until(lambda: "unread" in self.one_icon(), "the icon tells of unread mail")
        self.assertIn("(1)", self.driver.title)
        self.assert_silent()

    def one_icon(self) -> str:
        return str(self.script("return document.getElementById('favicon').href"))

    async def test_walk(self) -> None:
        await self.run_seen(self.see_walk)

    def see_walk(self) -> None:
        self.at_server(sample_mail, self.store)
        self.open("/")
        self.until(self.is_live, "the page is live")
        # Mail arrives while a person looks.
        self.at_server(self.store.add, mail("It arrives while I look"))
        self.until(lambda: self.subjects()[0] == "It arrives while I look", "new mail is in the list")
        self.assertEqual(len(self.subjects()), 8)
        # Search.
        self.one("#search").send_keys("from:build subject:failed", ENTER)
        self.until(lambda: self.subjects() == ["[main] build 2291 failed"], "the search has found it")
        self.ready()
        self.click(".brand")
        self.until(lambda: len(self.subjects()) == 8, "all mail is shown")
        # Read.
        self.ready()
        self.script("document.querySelectorAll('.row .open')[1].click()")
        self.until(lambda: "is on its way" in self.text("h1"), "the message is shown")
        self.ready()
        self.driver.switch_to.frame(self.one("iframe"))
        self.assertEqual(self.text("h1"), "Your order is on its way")
        self.assertIn("Track your parcel", self.text(".button"))
        self.assertGreater(self.script("return document.images[0].naturalWidth"), 0)
        self.driver.switch_to.default_content()
        self.see_tabs()
        self.see_deletion()
        self.assert_silent()

    def see_tabs(self) -> None:
        for name, text in {
            "text": "we packed order #48213",
            "headers": "Message-ID",
            "parts": "image/png",
            "source": "Content-Transfer-Encoding",
            "dialog": "MAIL FROM:<bounces@shop.example>",
            "envelope": "TLSv1.3",
            "links": "https://shop.example/orders/48213?track=1",
            "checks": "",
        }.items():
            self.click(f'.tabs [data-tab="{name}"]')
            self.until(lambda name=name: self.all(f"#panel.{name}"), f"{name} is shown")
            self.assertIn(text, self.text("#panel"))
        self.driver.back()
        self.until(lambda: self.all("#panel.links"), "the tab before is shown")
        # Attachments, with a picture of images.
        self.assertEqual(self.texts(".attachments .name"), ["Invoice 48213.pdf", "bowl.png"])
        self.until(
            lambda: self.script("return document.querySelector('.attachments img').naturalWidth") == 300, "a picture"
        )

    def see_deletion(self) -> None:
        self.script("window.left = false")
        self.click('#message [data-do="delete"]')
        self.until(lambda: self.script("return window.left") is None, "the next message is shown")
        self.ready()
        self.assertIn("sign-in code", self.text("h1"))
        self.assertIsNone(self.at_server(self.store.get, 8))
        self.click(".toast button")
        self.until(lambda: self.at_server(self.store.get, 8) is not None, "it is back")

    async def test_select_many(self) -> None:
        await self.run_seen(self.see_select_many)

    def see_select_many(self) -> None:
        from selenium.webdriver import ActionChains

        for number in range(200):
            self.at_server(self.store.add, mail(f"Message {number}"))
        self.open("/")
        self.assertEqual(len(self.subjects()), 60)
        # The next ones come as a person scrolls.
        scroll = "document.getElementById('main').scrollTo(0, 1e6); return document.querySelectorAll('.row').length"
        self.until(lambda: self.script(scroll) == 200, "all are there")
        self.until(lambda: not self.all("#more"), "there are no more")
        self.at_server(self.store.add, mail("One more"))
        self.until(lambda: len(self.all(".row")) == 201, "new mail is added to what was loaded")
        self.at_server(self.store.delete, [201])
        self.until(lambda: len(self.all(".row")) == 200, "it is gone")
        self.assertEqual(self.all("#more"), [])
        self.script("document.getElementById('main').scrollTo(0, 0)")
        boxes = self.all(".row input")
        boxes[1].click()
        ActionChains(self.driver).key_down(SHIFT).click(boxes[5]).key_up(SHIFT).perform()
        self.assertEqual(self.text("#selected"), "5 selected")
        self.click('[data-do="read"]')
        self.until(lambda: self.at_server(self.store.counts).unread == 195, "they are read")
        self.until(lambda: self.text(".count").endswith("195 unread"), "the page says so")
        self.click("#select-all")
        self.click('.actions [data-do="delete"]')
        self.until(lambda: self.at_server(self.store.counts).total == 0, "all are deleted")
        self.click(".toast button")
        self.until(lambda: self.at_server(self.store.counts).total == 200, "all are back")
        self.until(lambda: len(self.all(".row")) == 60, "they are shown")
        self.assert_silent()

    async def test_changes_elsewhere(self) -> None:
        await self.run_seen(self.see_changes_elsewhere)

    def see_changes_elsewhere(self) -> None:
        """What another person, or a test, does is shown at once."""
        self.at_server(sample_mail, self.store)
        self.open("/")
        self.until(self.is_live, "the page is live")
        self.at_server(self.store.delete, [7])
        self.until(lambda: not self.all("#m7"), "the message is gone")
        self.at_server(self.store.mark, [6], True)
        self.until(lambda: not self.all("#m6.unread"), "it is read")
        self.at_server(self.store.tag, [6], ["later"])
        self.until(lambda: "later" in self.text("#m6"), "it has a tag")
        self.at_server(self.store.restore, [7])
        self.until(lambda: self.all("#m7"), "the message is back")
        self.assertEqual(len(self.subjects()), 7)
        self.assert_silent()

    async def test_many_tabs(self) -> None:
        await self.run_seen(self.see_many_tabs)

    def see_many_tabs(self) -> None:
        """A browser has six connections to a server; one tab listens for all of them."""
        self.at_server(sample_mail, self.store)
        first = self.driver.current_window_handle
        for _ in range(9):
            self.driver.switch_to.new_window("tab")
            self.open("/")
            self.until(self.is_live, "the tab is live")
        self.at_server(self.store.add, mail("For all tabs"))
        tabs = [handle for handle in self.driver.window_handles if handle != first]
        for handle in tabs:
            self.driver.switch_to.window(handle)
            self.until(lambda: self.subjects()[0] == "For all tabs", "the tab shows it")
        # The one that listens goes away.
        for handle in tabs[:-1]:
            self.driver.switch_to.window(handle)
            self.driver.close()
        self.driver.switch_to.window(tabs[-1])
        self.at_server(self.store.add, mail("For the last one"))
        self.until(lambda: self.subjects()[0] == "For the last one", "the last tab listens")
        self.driver.close()
        self.driver.switch_to.window(first)

    async def test_notifications(self) -> None:
        await self.run_seen(self.see_notifications)

    def see_notifications(self) -> None:
        """The system is told of new mail while the page can't be seen, after a person has asked for that."""
        fake = """
            window.told = [];
            window.Notification = class { constructor(title, how) { told.push(title + '|' + how.body) } };
            Notification.permission = 'default';
            Notification.requestPermission = async () => Notification.permission = 'granted';
        """
        added = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": fake})
        try:
            self.open("/")
            self.until(self.is_live, "the page is live")
            self.script("Object.defineProperty(document, 'hidden', {value: true})")
            self.at_server(self.store.add, mail("Nobody asked"))
            self.until(lambda: self.subjects() == ["Nobody asked"], "the message is in the list")
            self.click('[data-do="notify"]')
            self.until(lambda: self.all('[data-do="notify"][aria-pressed="true"]'), "it is switched on")
            self.at_server(self.store.add, mail("Look", "at me"))
            self.until(lambda: self.script("return told.length"), "the system is told")
            self.assertEqual(self.script("return told"), ["Look|Anne\nat me"])
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


class KeyboardTests(BrowserCase):
    """Everything without a mouse."""

    async def test_list(self) -> None:
        await self.run_seen(self.see_list)

    def current(self) -> str:
        return str(self.script("return document.activeElement.closest('.row')?.dataset.id"))

    def see_list(self) -> None:
        self.at_server(sample_mail, self.store)
        self.open("/")
        self.press("?")
        self.assertIn("Keyboard", self.text("#keys"))
        self.press(ESCAPE)
        self.press("j")
        self.assertEqual(self.current(), "8")
        self.press("j", "j", "k")
        self.assertEqual(self.current(), "7")
        self.press("r")
        self.until(lambda: self.at_server(self.store.get, 7).seen, "it is read")
        self.press("r")
        self.until(lambda: not self.at_server(self.store.get, 7).seen, "it is unread")
        self.press("x", "j", "j", "X")
        self.assertEqual(self.text("#selected"), "3 selected")
        self.press("*", "*")
        self.assertEqual(self.texts("#selected"), [""])
        self.press("t")
        self.one("#tag-input").send_keys("later", ENTER)
        self.until(lambda: "later" in self.at_server(self.store.tags), "it has a tag")
        self.press(ESCAPE)
        self.press("#")
        self.until(lambda: self.at_server(self.store.counts).total == 6, "it is deleted")
        self.press("z")
        self.until(lambda: self.at_server(self.store.counts).total == 7, "it is back")
        self.press("/")
        self.assertEqual(self.script("return document.activeElement.id"), "search")
        self.press("j", ESCAPE)
        self.go("g", "u")
        self.assertEqual(len(self.subjects()), 4)
        self.go("g", "i")
        self.assertEqual(len(self.subjects()), 7)
        theme = self.script("return document.documentElement.dataset.theme")
        self.press("d")
        self.assertNotEqual(self.script("return document.documentElement.dataset.theme"), theme)
        self.assert_silent()

    async def test_message(self) -> None:
        await self.run_seen(self.see_message)

    def see_message(self) -> None:
        self.at_server(sample_mail, self.store)
        self.open("/")
        self.press("j", "j")
        self.go(ENTER)
        self.assertEqual(self.text("h1"), "Your sign-in code")
        self.go("k")
        self.assertEqual(self.text("h1"), "Your order #48213 is on its way")
        self.press("w")
        self.until(lambda: self.one("iframe").size["width"] == 375, "the frame is as wide as a phone")
        self.press("w")
        self.until(lambda: self.one("iframe").size["width"] == 768, "the frame is as wide as a tablet")
        self.press("6")
        self.until(lambda: self.all("#panel.dialog"), "the dialog is shown")
        self.go("j")
        self.go("r")
        self.assertIs(self.at_server(self.store.get, 7).seen, False)
        self.until(lambda: self.current() == "7", "the message has the focus")
        self.assert_silent()


class ReleaseTests(BrowserCase):
    """Sending a message on to a real server."""

    def more_settings(self) -> dict[str, Any]:
        self.releaser = Releaser()
        return {"release": self.releaser}

    async def test_release(self) -> None:
        await self.run_seen(self.see_release)

    def see_release(self) -> None:
        self.at_server(sample_mail, self.store)
        self.open("/view/8")
        self.click('#message [data-do="release"]')
        field = self.one("#release-to")
        self.assertEqual(field.get_attribute("value"), "maria@example.org")
        field.clear()
        field.send_keys("maria@example.org, ann@example.org", ENTER)
        self.until(lambda: self.releaser.sent, "it is sent")
        self.assertEqual(self.releaser.sent, [(8, ["maria@example.org", "ann@example.org"])])
        self.assertIn("Sent to maria@example.org, ann@example.org", self.text("#toasts"))
        self.releaser.problem = SMTPReplyError(550, "5.1.1", "No such user")
        self.click('#message [data-do="release"]')
        self.click("#release-dialog .primary")
        self.until(lambda: "No such user" in self.text("#toasts"), "the page says what the server said")


class HostileTests(BrowserCase):
    """Nothing from a message runs."""

    async def test_attacks(self) -> None:
        await self.run_seen(self.see_attacks)

    def see_attacks(self) -> None:
        ids = [self.at_server(self.store.add, mail("x", html=attack)).id for attack in ATTACKS]
        pages: dict[str, list[str]] = {
            # That the attacks work at all.
            "unguarded": [f"/raw/{number}" for number in range(len(ATTACKS))],
            "cleaned": [f"/view/{id}/frame?remote=1" for id in ids],
            "as they came": [f"/view/{id}.html?remote=true" for id in ids],
        }
        tree: Any = self.site.inbox.tree
        self.at_server(tree.putChild, b"raw", _Raw())
        for name, urls in pages.items():
            self.at_server(tree.putChild, b"frames", _Frames(urls))
            self.driver.get(self.base + "/frames")
            self.until(lambda: self.script("return document.readyState") == "complete", "all frames are loaded")
            for frame, attack in zip(self.all("iframe"), ATTACKS, strict=True):
                if "id=run" not in attack:
                    continue
                self.driver.switch_to.frame(frame)
                for link in self.all("#run, a"):
                    self.script("arguments[0].removeAttribute('target'); arguments[0].click()", link)
                self.driver.switch_to.default_content()
            self.assertEqual(self.script("return top.attacked === true"), name == "unguarded", name)

    async def test_pages(self) -> None:
        await self.run_seen(self.see_pages)

    def see_pages(self) -> None:
        """Headers, names and texts that try to be HTML."""
        attack = "<script>top.attacked=true</script><img src=x onerror='top.attacked=true'>"
        head = f'Subject: {attack}\r\nFrom: "{attack}" <a@b>\r\nX-{attack}: {attack}\r\n'
        parts = f"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n{attack}\r\n--x\r\n"
        parts += f'Content-Type: image/svg+xml; name="{attack}"\r\nContent-Disposition: attachment\r\n\r\n'
        parts += '<svg xmlns="http://www.w3.org/2000/svg" onload="top.attacked=true"></svg>\r\n--x--\r\n'
        new = NewMessage(
            (head + parts).encode(), attack, (attack,), (Recipient(attack),), SessionFacts("s", None, attack)
        )
        id = self.at_server(self.store.add, new).id
        self.at_server(self.store.tag, [id], [attack])
        self.at_server(self.store.keep_transcript, "s", f"C: {attack}")
        tabs = ("text", "headers", "parts", "source", "dialog", "envelope", "links", "checks")
        for url in ("/", f"/?q={attack}", *(f"/view/{id}?tab={tab}" for tab in tabs)):
            self.open(url)
            self.assertIsNone(self.script("return window.attacked"), url)
            self.assertEqual(self.all("img[src=x]"), [], url)
        self.driver.get(f"{self.base}/api/v1/message/{id}/part/2")
        self.assertIsNone(self.script("return window.attacked"))
        self.open("/")
        self.press("j", "t")
        self.assertIn("<script>", self.text("#tag-chips"))
        self.assertEqual(self.all("#tag-chips img"), [])
        self.assertIsNone(self.script("return window.attacked"))


class _Raw(Resource):
    def getChild(self, path: bytes, request: Any) -> Resource:
        # Some attacks load images that are not there.
        return _Unguarded(ATTACKS[int(path)] if path.isdigit() else "")


class _Unguarded(Resource):
    isLeaf = True

    def __init__(self, html: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._html = html

    def render_GET(self, request: Any) -> bytes:
        for name in ("content-security-policy", "x-frame-options"):
            request.responseHeaders.removeHeader(name)
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return f"<!doctype html><script>function attack(){{top.attacked=true}}</script>{self._html}".encode()


class _Frames(Resource):
    """All pages in frames of one page, which knows nothing of their sandbox."""

    isLeaf = True

    def __init__(self, urls: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._urls = urls

    def render_GET(self, request: Any) -> bytes:
        request.responseHeaders.removeHeader(b"content-security-policy")
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        script = (
            "<script>attacked=false;function attack(){attacked=true}"
            "new MutationObserver(()=>{if(document.title=='attacked')attacked=true})"
            ".observe(document.head,{childList:true,subtree:true,characterData:true})</script>"
        )
        frames = "".join(f'<iframe src="{url}"></iframe>' for url in self._urls)
        return f"<!doctype html><title>x</title>{script}{frames}".encode()


class AccessibilityTests(BrowserCase):
    """What axe-core finds, which looks for what keeps people from using a page."""

    def more_settings(self) -> dict[str, Any]:
        return {"release": Releaser()}

    async def test_axe(self) -> None:
        axe = await deferToThread(axe_core)
        self.serious: set[str] = set()
        await self.run_seen(lambda: self.see_axe(axe))

    def see_axe(self, axe: str) -> None:
        self.open("/")
        self.look(axe, "no mail")
        self.at_server(sample_mail, self.store)
        for scheme in ("light", "dark"):
            self.scheme(scheme)
            self.open("/")
            self.look(axe, f"list, {scheme}")
            self.press("j", "x")
            self.look(axe, f"selection, {scheme}")
            self.press("?")
            self.look(axe, f"keys, {scheme}")
            for tab in TABS if scheme == "light" else ("html", "dialog", "checks"):
                self.open(f"/view/8?tab={tab}")
                self.look(axe, f"{tab}, {scheme}")
        self.open("/?q=larger:x")
        self.look(axe, "a query that is none")
        self.click('[data-do="search-help"]')
        self.look(axe, "how to search")
        self.open("/view/5")
        self.press("t")
        self.look(axe, "tags")
        self.press(ESCAPE)
        self.click('[data-do="release"]')
        self.look(axe, "release")
        self.size(390, 760)
        self.open("/")
        self.look(axe, "phone")
        self.assertEqual(sorted(self.serious), [])

    def look(self, axe: str, what: str) -> None:
        self.script(axe)
        # What is in the frame is the sender's work.
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run({exclude: [['iframe']]}, {resultTypes: ['violations']}).then(done)"
        )
        self.serious |= {
            f"{what}: {one['help']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"][:3]
        }


class Releaser:
    name = "mail.example.com:25"

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[str]]] = []
        self.problem: Exception | None = None

    async def release(self, stored: StoredMessage, recipients: Sequence[str]) -> str:
        if self.problem is not None:
            raise self.problem
        self.sent.append((stored.id, list(recipients)))
        return "250 OK"


class CommandTests(Looking, ServerCase):
    """The command as people start it: mail comes by SMTP."""

    def browse(self, *words: str) -> int:
        """Start an inbox, and look at it; its port for SMTP."""
        self.driver = start_driver()
        self.addCleanup(self.driver.get, "about:blank")
        server = self.start(MODULE, "-l", "127.0.0.1:0", "-c", "inbox", "--", "--http", "127.0.0.1:0", *words)
        line = self.read_until(server, "The inbox is at http://127.0.0.1:")
        self.base = "http://localhost:" + re.split(r"\D", line.partition("http://127.0.0.1:")[2])[0]
        line = self.read_until(server, "listens on 127.0.0.1:")
        return int(re.split(r"\D", line.partition("127.0.0.1:")[2])[0])

    def test_mail_arrives(self) -> None:
        port = self.browse()
        self.open("/")
        self.assertIn("No mail yet", self.text("#empty"))
        self.until(self.is_live, "the page is live")
        self.send(port)
        self.until(lambda: self.subjects() == ["Hello"], "the message is in the list")
        self.press("j")
        self.go(ENTER)
        self.assertIn("It works.", self.text("#panel"))
        self.until(self.see_dialog, "the dialog is shown")
        self.go("#")
        self.assertIn("No mail yet", self.text("#empty"))
        self.click(".toast button")
        self.until(lambda: self.subjects() == ["Hello"], "the message is back")

    def see_dialog(self) -> bool:
        # It is kept a moment after the session.
        self.open("/view/1?tab=dialog")
        return "rcpt to:<bart@example.com>" in self.text("#panel").lower()

    def test_with_a_password(self) -> None:
        passwords = self.folder / "passwords"
        passwords.write_text("ann:s3cret\n")
        port = self.browse("--http-password-file", str(passwords), "--mailboxes", "recipient")
        base = self.base
        self.base = base.replace("//", "//ann:s3cret@")
        self.open("/")
        self.until(self.is_live, "the page is live")
        self.send(port)
        self.until(lambda: self.subjects() == ["Hello"], "the message is in the list")
        self.press("j", "x")
        self.until(lambda: self.text("#selected") == "1 selected", "it is selected")
        # On a busy machine the bar may still move under a pointer.
        self.script("document.querySelector('.actions [data-do=read]').click()")
        self.until(lambda: not self.all(".row.unread"), "it is read")
        self.assertIn("bart@example.com", self.text("#sidebar"))


class LookTests(BrowserCase):
    """How it looks: the pictures of the documentation are made here."""

    def more_settings(self) -> dict[str, Any]:
        return {"title": "Inbox"}

    async def test_pictures(self) -> None:
        await self.run_seen(self.see_pictures)

    def see_pictures(self) -> None:
        self.at_server(sample_mail, self.store)
        for scheme in ("light", "dark"):
            self.scheme(scheme)
            self.at_server(self.store.mark, [8], False)
            self.open("/")
            self.until(self.is_live, "the page is live")
            self.assertEqual(self.script("return document.documentElement.dataset.theme"), scheme)
            self.screenshot(f"inbox-list-{scheme}")
            self.open("/view/8")
            self.until(lambda: self.all("iframe"), "the message is shown")
            self.screenshot(f"inbox-message-{scheme}")
        light = self.script("return getComputedStyle(document.body).backgroundColor")
        self.press("d")
        self.assertNotEqual(self.script("return getComputedStyle(document.body).backgroundColor"), light)
        self.open("/view/8?tab=dialog")
        self.assertEqual(self.script("return document.documentElement.dataset.theme"), "light")
        self.screenshot("inbox-dialog-light")

    async def test_phone(self) -> None:
        await self.run_seen(self.see_phone)

    def see_phone(self) -> None:
        self.at_server(sample_mail, self.store)
        self.size(390, 760)
        for url in ("/", "/?q=zzz", *(f"/view/8?tab={tab}" for tab in TABS)):
            self.open(url)
            self.assertLessEqual(self.script("return document.documentElement.scrollWidth"), 390, url)
            self.assertLessEqual(self.script("return document.getElementById('main').scrollWidth"), 390, url)
        self.open("/")
        self.assertGreater(self.one(".row").size["height"], 44)
        self.screenshot("inbox-phone")
        self.press("?")
        self.assertLessEqual(self.one("#keys").size["width"], 390)
