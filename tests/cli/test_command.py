"""Tests for :mod:`twisted_smtpd.cli.command`."""

from __future__ import annotations

import sys

from twisted.internet.testing import MemoryReactorClock
from twisted.python import usage

from tests.support.command_line import CommandLine
from twisted_smtpd import __version__
from twisted_smtpd.cli.command import Options


class OptionsTests(CommandLine):
    def test_unknown_option(self) -> None:
        self.assertIn("--foo", self.refused("--foo"))
        self.assertIn("-l", self.refused("-l"))

    def test_an_option_of_the_handler_is_told_to_stand_after_two_dashes(self) -> None:
        # Some are unknown here, and some the beginning of several of the server's own.
        for wrong in ("--username", "--tls"):
            self.assertIn("a handler's own options follow `--`", self.refused("-c", "proxy", "mx:25", wrong, "x"))
        self.assertNotIn("`--`", self.refused("-l"))
        self.assertIn("[-- ", self.shown("--help-handlers").partition("proxy")[2])
        self.assertFalse(self.parse("-c", "proxy", "mx:25", "--", "--lmtp")["lmtp"], "it is the proxy's")

    def test_errors_are_one_line_whatever_is_given(self) -> None:
        self.refused("--a\nb")
        self.refused("-c", "a\nb")
        self.refused("-l", "a\nb:")

    def test_arguments_default_to_the_program_s(self) -> None:
        self.patch(sys, "argv", ["twist", "--size=1M"])
        options = Options(MemoryReactorClock())
        options.parseOptions()
        self.assertEqual(options["size"], 2**20)

    def test_version(self) -> None:
        self.assertTrue(self.shown("--version").startswith(f"twisted-smtpd {__version__} (Twisted "))

    def test_help_begins_with_our_usage_under_twist_too(self) -> None:
        options = Options(MemoryReactorClock())
        options.parent = usage.Options()
        usage_line = "Usage: twist smtpd [options] [HANDLER ARGUMENTS] [-- HANDLER OPTIONS]\n"
        self.assertTrue(str(options).startswith(usage_line), str(options))

    def test_global_reactor_is_the_default(self) -> None:
        from twisted.internet import reactor

        options = Options()
        options.parseOptions(["-c", "sink"])
        self.assertIs(options.reactor, reactor)
