"""Command lines parsed against a reactor in memory."""

from __future__ import annotations

import io
import sys

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.cli.command import Options

__all__ = ["CommandLine"]


class CommandLine(SynchronousTestCase):
    """Parses command lines against a reactor in memory."""

    def parse(self, *words: str) -> Options:
        options = Options(MemoryReactorClock())
        options.parseOptions(words)
        return options

    def refused(self, *words: str) -> str:
        """The line on stderr that a wrong command line gets."""
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        error = self.assertRaises(SystemExit, self.parse, *words)
        self.assertEqual(error.code, 64)
        lines = stderr.getvalue().splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith("twist smtpd: "), lines)
        return lines[0]

    def shown(self, *words: str) -> str:
        """What an option prints that ends the program."""
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        self.assertIn(self.assertRaises(SystemExit, self.parse, *words).code, (0, None))
        return stdout.getvalue()
