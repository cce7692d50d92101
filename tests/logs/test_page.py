"""The tables of docs/reference/log.rst are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from tests.logs.tables import PAGES, TABLES, refusals

DIALOGS = Path(__file__).parent.parent / "protocol" / "dialogs"
# What the handlers of the dialogs say.
OF_HANDLERS = re.compile(r"No such user|Refused|Sender refused|Going away|for [0-9]+@y\.example")


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

    def test_each_refusal_that_a_client_hears_is_in_the_table(self) -> None:
        rows = [re.escape(reply.lines[0]).replace(r"\.\.\.", ".+") for _, reply in refusals()]
        known = re.compile("|".join((*rows, OF_HANDLERS.pattern)))
        heard = 0
        for path in DIALOGS.glob("*.txt"):
            for text in re.findall(
                r"^S: [45][0-9]{2}[ -](?:[45]\.[0-9]+\.[0-9]+ )?(.*?)\s*$",
                path.read_text(errors="replace"),
                re.MULTILINE,
            ):
                heard += 1
                self.assertTrue(known.fullmatch(text), f"{path.name}: {text}")
        self.assertGreater(heard, 100)
