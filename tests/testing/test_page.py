"""The page about servers for tests names everything that there is."""

from __future__ import annotations

from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd.testing
from twisted_smtpd.testing import failures

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "testing.rst"


@skipUnless(PAGE.is_file(), "the documentation is not installed")
class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = PAGE.read_text(encoding="utf-8")

    def test_it_names_each_place_and_each_failure(self) -> None:
        actions = {word for words in failures._ACTIONS.values() for word in words}
        for word in (*failures.PLACES, *failures.REPLIES, *failures.TLS_FAULTS, *failures._OF_COMMANDS, *actions):
            self.assertTrue(f"``{word}``" in self.text, word)

    def test_it_names_all_that_can_be_imported(self) -> None:
        for name in twisted_smtpd.testing.__all__:
            self.assertTrue(name in self.text, name)
