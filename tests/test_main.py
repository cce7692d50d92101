"""Tests for :mod:`twisted_smtpd.__main__`; ``tests/loopback/test_log.py`` runs it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.__main__ import _log_options


class LogOptionsTests(SynchronousTestCase):
    def test_they_are_taken_out_of_the_command_line(self) -> None:
        log, words = _log_options(["-c", "sink", "--log-format=json", "--log-level", "warn", "--trace"])
        self.assertEqual(log, {"format": "json", "level": "warn"})
        self.assertEqual(words, ["-c", "sink", "--trace"])

    def test_what_follows_two_hyphens_is_the_handlers(self) -> None:
        words = ["-c", "mine.Handler", "--log-other", "x", "--", "--log-file", "x"]
        self.assertEqual(_log_options(words), ({}, words))
