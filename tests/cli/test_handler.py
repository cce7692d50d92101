"""Tests for :mod:`twisted_smtpd.cli.handler`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.command_line import CommandLine
from twisted_smtpd.handlers import Console, Mailbox, Sink


class HandlerOptionTests(CommandLine):
    def test_default_prints_on_stdout(self) -> None:
        handler = self.parse().handler
        self.assertIsInstance(handler, Console)
        self.assertIs(handler.stream, sys.stdout)  # type: ignore[attr-defined]

    def test_by_name(self) -> None:
        self.assertIsInstance(self.parse("-c", "sink").handler, Sink)

    def test_a_queue_has_one_process(self) -> None:
        for words in (("queue", "Q", "+", "sink"), ("chain", "sink", "+", "queue", "Q", "+", "sink")):
            self.assertIn("--workers: not with a queue", self.refused("--workers", "2", "-c", *words))

    def test_arguments(self) -> None:
        folder = self.mktemp()
        handler = self.parse("-c", "mailbox", folder).handler
        self.assertIsInstance(handler, Mailbox)
        self.assertTrue(Path(folder, "new").is_dir())

    def test_options_may_follow_the_arguments(self) -> None:
        folder = self.mktemp()
        options = self.parse("-c", "mailbox", folder, "-l", "127.0.0.1:25", "--size", "5", "-u", "--decode-data")
        self.assertEqual([listener.name for listener in options.listeners], ["127.0.0.1:25"])
        self.assertEqual((options["size"], bool(options["smtputf8"]), bool(options["decode-data"])), (5, True, True))
        self.assertEqual(options.arguments, (folder,))

    def test_an_empty_value_does_not_take_the_next_word(self) -> None:
        self.assertIn("--listen: ''", self.refused("-l", "", "-c", "sink"))
        self.assertIn("--size: ''", self.refused("--size=", "-c", "sink"))

    def test_after_two_dashes_all_are_arguments(self) -> None:
        self.assertIn("not '-l'", self.refused("-c", "debugging", "--", "-l"))

    def test_by_dotted_path_from_the_current_folder(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "handler_of_test_tap.py").write_text("class Handler:\n    pass\n")
        self.addCleanup(os.chdir, os.getcwd())
        self.addCleanup(sys.modules.pop, "handler_of_test_tap", None)
        self.patch(sys, "path", list(sys.path))
        os.chdir(folder)
        handler = self.parse("-c", "handler_of_test_tap.Handler").handler
        self.assertEqual(type(handler).__name__, "Handler")
        # A file lying in that folder must not take the place of an installed module.
        self.assertEqual(sys.path[-1], os.getcwd())

    def test_unknown_handlers_are_usage_errors(self) -> None:
        for name in ("nonesuch", "no.such.Handler", "twisted_smtpd.handlers.Nonesuch", "a..b", ""):
            self.assertIn(name, self.refused("-c", name))

    def test_arguments_that_the_handler_does_not_take(self) -> None:
        self.refused("-c", "sink", "what")
        self.refused("-c", "mailbox")
        self.refused("8025")

    def test_no_handler_is_made_for_a_wrong_command_line(self) -> None:
        folder = self.mktemp()
        for wrong in ("--bare-newline=keep", "--listen=foo:bar", "--size=X"):
            self.refused("-c", "mailbox", folder, wrong)
        self.assertFalse(Path(folder).exists())

    def test_help_handlers(self) -> None:
        lines = self.shown("--help-handlers").splitlines()
        self.assertLessEqual({"debugging", "mailbox", "sink"}, {line.split()[0] for line in lines})
