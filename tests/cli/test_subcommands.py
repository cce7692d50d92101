"""Tests for :mod:`twisted_smtpd.cli.subcommands`, the completion of shells and the manual page."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import SkipTest

from twisted.trial.unittest import TestCase

from twisted_smtpd.__main__ import main
from twisted_smtpd.cli.completion import SHELLS
from twisted_smtpd.cli.manual import manual_page
from twisted_smtpd.cli.subcommands import SUBCOMMANDS
from twisted_smtpd.handlers.registry import built_in_handlers
from twisted_smtpd.options.command import SETTINGS
from twisted_smtpd.runtime.exit_status import call_program, program_name

# Seconds; a shell that takes longer hangs.
TIMEOUT = 60


def program(name: str) -> str:
    """Where a program is; the test is skipped without it."""
    found = shutil.which(name)
    if found is None:
        raise SkipTest(f"{name} is not installed")
    return found


class SubcommandTests(TestCase):
    def setUp(self) -> None:
        self.addCleanup(call_program, program_name())

    def run_words(self, *words: str) -> tuple[int, str, str]:
        """Run the command.

        :returns: its exit status, what it printed, and its errors.
        """
        out, err, status = io.StringIO(), io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main(words)
            except SystemExit as error:
                assert isinstance(error.code, int)
                status = error.code
        return status, out.getvalue(), err.getvalue()

    def test_completion_of_each_shell(self) -> None:
        for shell, made in SHELLS.items():
            self.assertEqual(self.run_words("completion", shell), (0, made(), ""))

    def test_the_manual_page(self) -> None:
        self.assertEqual(self.run_words("man"), (0, manual_page(), ""))

    def test_wrong_words_are_an_error_of_one_line(self) -> None:
        for words in (("completion",), ("completion", "tcsh"), ("completion", "bash", "zsh"), ("man", "1")):
            status, out, err = self.run_words(*words)
            self.assertEqual((status, out, err.count("\n")), (64, "", 1), words)

    def test_the_help_names_them(self) -> None:
        _, out, _ = self.run_words("--help")
        for name in SUBCOMMANDS:
            self.assertIn(f"\n  {name} ", out)

    def test_no_handler_has_the_name_of_a_command(self) -> None:
        # `twisted-smtpd sink` gives the hint that -c is missing: a command in its place would hide that.
        self.assertFalse({"sink", "mailbox", "proxy", "console"} & set(SUBCOMMANDS))


class ManualTests(TestCase):
    def test_each_option_is_there(self) -> None:
        page = manual_page().replace("\\-", "-")
        for option in SETTINGS.values():
            self.assertIn(f"\\fB--{option.flag}\\fR", page)
        for name, _ in built_in_handlers():
            self.assertIn(f"\\fB{name}\\fR", page)

    def test_no_text_is_taken_for_a_request(self) -> None:
        requests = {".TH", ".SH", ".SS", ".TP", ".PP", ".br", ".BR", ".nf", ".fi", ".RS", ".RE"}
        for line in manual_page().splitlines():
            if line.startswith((".", "'")):
                self.assertIn(line.split()[0], requests)

    def test_man_has_nothing_to_say(self) -> None:
        done = subprocess.run(
            [program("groff"), "-man", "-ww", "-z", "-K", "utf-8"],
            input=manual_page(),
            text=True,
            capture_output=True,
            timeout=TIMEOUT,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class ShellTests(TestCase):
    def test_each_option_is_there(self) -> None:
        for shell, made in SHELLS.items():
            text = made()
            for option in SETTINGS.values():
                self.assertIn(f"-l {option.flag}" if shell == "fish" else f"--{option.flag}", text)

    def test_the_shells_can_read_it(self) -> None:
        found = 0
        for shell, made in SHELLS.items():
            if path := shutil.which(shell):
                found += 1
                done = subprocess.run([path, "-n"], input=made(), text=True, capture_output=True, timeout=TIMEOUT)
                self.assertEqual((done.returncode, done.stderr), (0, ""), shell)
        if not found:
            raise SkipTest("no such shell is installed")

    def bash(self, *words: str) -> list[str]:
        """What bash offers for the last of some words."""
        typed = " ".join(f"'{word}'" for word in ("twisted-smtpd", *words))
        script = (
            f"compopt() {{ :; }}\n{SHELLS['bash']()}\n"
            f'COMP_WORDS=({typed}); COMP_CWORD={len(words)}\n_twisted_smtpd; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run([program("bash"), "-c", script], text=True, capture_output=True, timeout=TIMEOUT)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return sorted(done.stdout.split())

    def test_bash_completes_options(self) -> None:
        self.assertEqual(self.bash("--log-f"), ["--log-file", "--log-format"])
        self.assertEqual(self.bash("--log-format", ""), ["json", "text"])
        self.assertEqual(self.bash("--log-format", "=", "j"), ["json"])
        self.assertEqual(self.bash("--tls-minimum", "1."), ["1.0", "1.1", "1.2", "1.3"])
        self.assertEqual(self.bash("--max-errors", ""), [])

    def test_bash_completes_handlers_and_commands(self) -> None:
        self.assertEqual(self.bash("-c", "mai"), ["mailbox"])
        self.assertEqual(self.bash("comp"), ["completion"])
        self.assertEqual(self.bash("completion", "z"), ["zsh"])

    def test_bash_completes_files(self) -> None:
        self.assertIn(sys.executable, self.bash("--config", sys.executable))
        self.assertIn(sys.executable, self.bash("-c", "mailbox", sys.executable))
