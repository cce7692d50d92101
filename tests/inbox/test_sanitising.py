from __future__ import annotations

import re
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.inbox_mail import png
from tests.support.xss import ATTACKS
from twisted_smtpd.inbox import sanitising
from twisted_smtpd.inbox.content import Content
from twisted_smtpd.inbox.sanitising import FRAME_POLICY, FRAME_POLICY_REMOTE, MAX_HTML, Shown, show_html, takes_too_long


def shown(html: str, remote: bool = False, **images: bytes) -> Shown:
    message = EmailMessage()
    message.set_content("text")
    message.add_alternative(html, subtype="html")
    part: Any = message.get_payload(1)
    for name, octets in images.items():
        part.add_related(octets, "image", "png", cid=f"<{name}>")
    return show_html(Content.of(message.as_bytes()), remote)


class Tags(HTMLParser):
    """All tags and attributes of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


class ScriptTests(SynchronousTestCase):
    """Nothing that could run is left."""

    def test_attacks(self) -> None:
        for attack in ATTACKS:
            with self.subTest(attack=attack[:60]):
                for tag, attributes in Tags(shown(attack).html).found:
                    self.assertNotIn(
                        tag, ("script", "iframe", "object", "embed", "svg", "math", "form", "link", "base")
                    )
                    for name, value in attributes.items():
                        self.assertFalse(name.startswith("on"), name)
                        if name in ("href", "src", "background", "action", "formaction"):
                            self.assertRegex(value or "", r"\A\s*(https?:|mailto:|tel:|#|data:image/)")

    def test_policies(self) -> None:
        for policy in (FRAME_POLICY, FRAME_POLICY_REMOTE):
            for word in ("sandbox ", "default-src 'none'", "form-action 'none'", "base-uri 'none'"):
                self.assertIn(word, policy)
            for word in ("allow-scripts", "allow-same-origin", "allow-forms", "allow-top-navigation", "script-src"):
                self.assertNotIn(word, policy)
        self.assertNotIn("http", FRAME_POLICY)


class LookTests(SynchronousTestCase):
    """Mail looks as its sender meant it."""

    def test_styles_and_tables(self) -> None:
        html = shown(
            "<style>p{color:red}</style><table bgcolor='#eeeeee' cellpadding=4><tr><td valign=top "
            "style='color:blue'><font size=2 face=Arial>x</font></td></tr></table>"
        ).html
        for text in (
            "<style>p{color:red}</style>",
            'bgcolor="#eeeeee"',
            'valign="top"',
            'style="color:blue"',
            'size="2"',
        ):
            self.assertIn(text, html)

    def test_body(self) -> None:
        html = shown("<html><body bgcolor=#fafafa style='margin:0' class=\"a\" onload=x()><p>x</body></html>").html
        self.assertIn('<div style="margin:8px;min-height:100vh;background-color:#fafafa;margin:0" class="a">', html)
        self.assertNotIn("onload", html)

    def test_links(self) -> None:
        html = shown(
            "<a href='https://example.org/'>a</a><a href='mailto:a@b'>b</a><a href='#c'>c</a><a href='/d'>d</a>"
        ).html
        found = [attributes for tag, attributes in Tags(html).found if tag == "a"]
        self.assertEqual([one.get("href") for one in found], ["https://example.org/", "mailto:a@b", "#c", None])
        self.assertEqual({one["target"] for one in found}, {"_blank"})
        self.assertEqual({one["rel"] for one in found}, {"noopener noreferrer nofollow"})


class ImageTests(SynchronousTestCase):
    """Images of the message are shown, others only if a person wants that."""

    def test_inline(self) -> None:
        html = shown(
            "<img src='cid:a'><img src='CID:a'><td background='cid:a'><img src='cid:none'>", a=png(2, 2, (1, 2, 3))
        ).html
        self.assertEqual(html.count("data:image/png;base64,"), 2)

    def test_inline_that_is_no_image(self) -> None:
        message = EmailMessage()
        message.set_content("<img src='cid:a'>", subtype="html")
        message.add_related(b"<svg onload=x()>", "image", "svg+xml", cid="<a>")
        self.assertNotIn("data:", show_html(Content.of(message.as_bytes())).html)

    def test_too_large(self) -> None:
        self.patch(sanitising, "MAX_IMAGES", 300)
        found = shown("<img src='cid:a'>" * 20, a=png(2, 2, (1, 2, 3)))
        self.assertLess(found.html.count("data:image"), 6)
        self.assertIn("images are left out", found.problem)

    def test_data(self) -> None:
        html = shown("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='><img src='data:image/svg+xml,<svg/>'>").html
        self.assertEqual(re.findall("data:[a-z/]*", html), ["data:image/gif"])

    def test_remote(self) -> None:
        html = "<img src='https://x.example/a.png'><img src='//x.example/b.png' srcset='https://x.example/2 2x'>"
        html += "<table background='http://x.example/c'></table><p style='background:url(https://x.example/d)'>"
        blocked = shown(html)
        self.assertEqual(blocked.remote, 5)
        self.assertNotIn("src=", blocked.html)
        allowed = shown(html, remote=True)
        self.assertEqual(allowed.remote, 5)
        self.assertIn('src="https://x.example/a.png"', allowed.html)

    def test_no_remote(self) -> None:
        self.assertEqual(shown("<a href='https://x.example/'>x</a>").remote, 0)


class BoundsTests(SynchronousTestCase):
    """Hostile HTML takes little time."""

    def test_long(self) -> None:
        found = shown("<p>x</p>" * (MAX_HTML // 8 + 10))
        self.assertIn("Only the beginning", found.problem)

    def test_what_parsers_copy(self) -> None:
        """A parser would make gigabytes of these."""
        fonts = "".join(f"<font size={n}>" for n in range(1500))
        for name, html in {
            "left open": fonts + "<p>x" * 12_000,
            "in a paragraph": f"<p>{fonts}" + "<p>x" * 12_000,
            "ended in vain": "".join(f"<font size={n}><object></font></object>" for n in range(1500)) + "<p>x" * 12_000,
            "ended in a text field": "<b><textarea></b></textarea>" * 1500 + "<p>x" * 12_000,
            "ended in a comment": "".join(f"<font size={n}><!-- </font> -->" for n in range(1500)) + "<p>x" * 12_000,
            "ended in a value": "".join(f"<font size={n}><p title='a>b</font>'>" for n in range(1500))
            + "<p>x" * 12_000,
            "comments": "<!--" * 200_000,
            "values": """='=" """ * 200_000,
            "texts": "<title>" * 100_000,
            "ended at last": f"<p>{fonts}" + "<p>x" * 12_000 + "</font>" * 1500,
            "deep": "<div>" * 100_000,
            "deep and many": ("<div>" * 1500) + "<i></i>" * 100_000,
        }.items():
            with self.subTest(name=name):
                found = shown(html)
                if "<p>" in html:
                    self.assertEqual(found.html, "")
                    self.assertIn("very long", found.problem)

    def test_ordinary_mail(self) -> None:
        row = "<tr><td><font size=2><b><a href='x'>link</a></b></font><br><p>text<p>more<img src=y></td></tr>"
        table = f"<table><tr><td>{'<table>' * 20}{row * 500}{'</table>' * 20}</td></tr></table>"
        self.assertFalse(takes_too_long(table))
        self.assertFalse(takes_too_long("<p>one<p>two<ul><li>a<li>b</ul><table><tr><td>a<td>b</table>" * 2000))
        self.assertFalse(
            takes_too_long("<!--[if mso]><table><tr><td><![endif]-->x<!--[if mso]></td></tr></table><![endif]-->")
        )
