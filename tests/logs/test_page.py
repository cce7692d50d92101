"""The tables of docs/log.rst are those of the code."""

from __future__ import annotations

from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from tests.logs.tables import PAGES, TABLES, refusals


@skipUnless(PAGES.is_dir(), "the documentation is not installed")
class PageTests(SynchronousTestCase):
    def test_the_tables_are_current(self) -> None:
        for name, make in TABLES.items():
            text = (PAGES / name).read_text(encoding="utf-8")
            self.assertEqual(text, make(), f"docs/{name}: write it with `python -m tests.logs.tables`")

    def test_the_refusals_of_all_kinds_are_found(self) -> None:
        found = {str(reply) for _, reply in refusals()}
        for text in (
            "503 5.5.1 Need RCPT command first",
            "552 5.3.4 Message is larger than the ... octets accepted here",
            "421 4.4.2 Idle for too long, closing the connection",
            "421 4.3.2 ... has too many connections, try again later",
            "535 5.7.8 Authentication credentials invalid",
            "553 5.6.7 An address with other than ASCII characters needs SMTPUTF8",
        ):
            self.assertIn(text, found)
