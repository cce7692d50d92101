"""Checks of a message."""

from __future__ import annotations

from typing import Any

from tests.support.inbox_api import APITestCase
from twisted_smtpd.inbox.link_checks import LinkResult

ONE = "/api/v1/message"
HTML = """From: a@x.example
To: b@y.example
Subject: x
Content-Type: text/html

<html><body style="display: grid; gap: 1px"><p>hello <a href="https://x.example/">x</a></p></body></html>
"""


class Checker:
    """Knows what becomes of links."""

    async def check(self, links: Any) -> list[LinkResult]:
        return [LinkResult(link, 200 if number else 404, "x") for number, link in enumerate(links)]


class CheckTests(APITestCase):
    def test_html(self) -> None:
        self.add(content=HTML)
        found = self.get(f"{ONE}/1/html-check")
        self.assertEqual(found["Total"]["Nodes"], 4)
        self.assertEqual(round(sum(found["Total"][name] for name in ("Supported", "Partial", "Unsupported"))), 100)
        (grid,) = (one for one in found["Warnings"] if one["Slug"] == "css-display-grid")
        self.assertEqual(grid["Category"], "css")
        self.assertGreater(grid["Score"]["Unsupported"], 10)
        outlook = next(one for one in grid["Results"] if one["Name"] == "Outlook (Windows)")
        self.assertEqual((outlook["Family"], outlook["Platform"], outlook["Support"]), ("Outlook", "Windows", "no"))
        self.assertIn("Outlook", found["Platforms"]["Windows"])

    def test_html_that_uses_nothing(self) -> None:
        self.add(content="Content-Type: text/html\n\nhello\n")
        found = self.get(f"{ONE}/1/html-check")
        self.assertEqual((found["Total"]["Supported"], found["Warnings"], found["Platforms"]), (100, [], {}))

    def test_no_html(self) -> None:
        self.add()
        self.assertIn("HTML", self.refused(400, f"{ONE}/1/html-check"))

    def test_links(self) -> None:
        self.add("x", "https://x.example/a https://x.example/b")
        self.assertIn("--check-links", self.refused(400, f"{ONE}/1/link-check"))
        self.api._context.link_checker = Checker()
        found = self.get(f"{ONE}/1/link-check?follow=true")
        self.assertEqual((found["Errors"], [one["StatusCode"] for one in found["Links"]]), (1, [404, 200]))
        # A page elsewhere, and a message that is shown, can't have links asked for.
        self.refused(403, f"{ONE}/1/link-check", Sec_Fetch_Site="same-origin")

    def test_headers(self) -> None:
        self.add(content="Subject: x\nSubject: y\n\nx\n")
        found = self.get(f"{ONE}/1/header-check")["Findings"]
        self.assertIn({"Level": "bad", "Text": "There is no From header.", "Rule": "RFC 5322 section 3.6"}, found)
