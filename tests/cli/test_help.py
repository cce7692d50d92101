"""Tests for :mod:`twisted_smtpd.cli.help`, and for hints about what is nearly right."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock

from tests.support.command_line import CommandLine
from twisted_smtpd.cli.command import Command, Options
from twisted_smtpd.cli.help import TOPICS, help_text, topic_lines
from twisted_smtpd.options.command import SETTINGS
from twisted_smtpd.runtime.exit_status import call_program, program_name
from twisted_smtpd.runtime.reactor_names import reactor_name


class HelpTests(CommandLine):
    def setUp(self) -> None:
        self.addCleanup(call_program, program_name())

    def test_each_topic_fits_a_screen(self) -> None:
        for topic in TOPICS:
            lines = topic_lines(topic, True)
            self.assertLessEqual(len(lines), 24, topic.title)
            self.assertLessEqual(max(map(len, lines)), 80, topic.title)
            self.assertTrue(lines[-1].startswith("  $ "), topic.title)

    def test_each_option_is_in_one_topic(self) -> None:
        shown = [option.flag for topic in TOPICS for option in topic.options(True)]
        self.assertEqual(sorted(shown), sorted(option.flag for option in SETTINGS.values()))

    def test_each_flag_of_the_parser_is_there(self) -> None:
        for kind in (Command, Options):
            options = kind(MemoryReactorClock())
            text = help_text(options.is_command)
            for name in options.longOpt:
                flag = name.rstrip("=").replace("_", "-")
                if flag not in ("nosetuid", "verbose", "debug"):
                    self.assertIn(f"--{flag}", text)

    def test_twist_has_the_log_and_the_reactor(self) -> None:
        self.assertNotIn("--log-format", help_text(False))
        self.assertIn("twist --log-format", self.refused("--log-format=text"))


class HintTests(CommandLine):
    def test_a_handler_without_c(self) -> None:
        self.assertIn("did you mean -c sink?", self.refused("sink"))
        self.assertIn("did you mean -c sink?", self.refused("Sink"))
        self.assertNotIn("did you mean", self.refused("nonesuch"))

    def test_a_misspelled_handler_or_option(self) -> None:
        self.assertIn("there is no handler 'mailbx': did you mean mailbox? ", self.refused("-c", "mailbx", "in"))
        self.assertIn("--lisen not recognized: did you mean --listen? ", self.refused("--lisen", "25"))
        self.assertIn("(a handler's own options follow `--`)", self.refused("--username", "anne"))

    def test_a_part_of_an_endpoint_description(self) -> None:
        self.assertIn("it lacks domain= (see", self.refused("-l", "systemd:name=smtp"))
        self.assertIn("write systemd:domain=INET:index=0", self.refused("-l", "systemd:"))
        self.assertIn("there is no foo= in it (see", self.refused("-l", "tcp:25:foo=1"))

    def test_a_next_host_without_a_port(self) -> None:
        self.assertIn("'mx' has no port: write mx:25", self.refused("-c", "proxy", "mx"))

    def test_a_socket_that_systemd_has_not_passed(self) -> None:
        for where in ("systemd:domain=INET:index=0", "systemd:domain=INET:name=smtp"):
            self.assertIn("systemd has passed no such socket", self.refused("-l", where))


class CommandTests(CommandLine):
    def setUp(self) -> None:
        self.addCleanup(call_program, program_name())

    def command(self, *words: str) -> Command:
        options = Command(MemoryReactorClock())
        options.parseOptions(["-c", "sink", *words])
        return options

    def test_the_options_of_aiosmtpd_are_accepted(self) -> None:
        self.assertTrue(self.command("-n", "-d", "-v")["trace"])
        self.assertFalse(self.command("--nosetuid")["trace"])

    def test_workers_run_the_same_command(self) -> None:
        self.assertEqual(
            self.command("--size=1").worker_arguments(),
            (["twisted_smtpd", "--reactor=default", "-c", "sink", "--size=1"], False),
        )
        # Also one that a program has installed before it runs the command.
        from twisted.internet import reactor

        options = self.command()
        options.reactor = reactor
        self.assertEqual(
            options.worker_arguments()[0], ["twisted_smtpd", f"--reactor={reactor_name(reactor)}", "-c", "sink"]
        )
