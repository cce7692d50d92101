"""Tests for :mod:`twisted_smtpd.tap` and :mod:`twisted_smtpd.cli.groups`."""

from __future__ import annotations

import io
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import IServiceMaker
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd import __main__ as main_module
from twisted_smtpd import __version__
from twisted_smtpd.cli.groups import LIMITS, count, octets, seconds
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Debugging, Mailbox, Sink
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.options.table import DEFAULTS
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.tap import Options, makeService


class CommandLine(SynchronousTestCase):
    """Parse command lines against a reactor in memory."""

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

    def names(self, *words: str) -> list[str]:
        return [listener.name for listener in self.parse(*words).listeners]

    def listening(self, *words: str) -> list[tuple[str, int]]:
        """Where the listeners really bind."""
        options = self.parse(*words)
        for listener in options.listeners:
            self.successResultOf(listener.endpoint.listen(SMTPFactory(Sink())))
        return [(server[3], server[0]) for server in options.reactor.tcpServers]


class ListenTests(CommandLine):
    def test_default_is_both_loopbacks(self) -> None:
        self.assertEqual(self.names(), ["127.0.0.1:8025", "[::1]:8025"])
        self.assertEqual(self.listening(), [("127.0.0.1", 8025), ("::1", 8025)])

    def test_no_host_is_never_all_interfaces(self) -> None:
        for where in ("2525", ":2525", "localhost:2525"):
            self.assertEqual(self.listening("-l", where), [("127.0.0.1", 2525), ("::1", 2525)])

    def test_host_and_port(self) -> None:
        self.assertEqual(self.listening("--listen=0.0.0.0:25"), [("0.0.0.0", 25)])
        self.assertEqual(self.names("-l", "mx.example.com:25"), ["mx.example.com:25"])

    def test_host_alone_gets_the_default_port(self) -> None:
        self.assertEqual(self.listening("-l", "192.0.2.1"), [("192.0.2.1", 8025)])
        self.assertEqual(self.listening("-l", "[::]"), [("::", 8025)])

    def test_bracketed_ipv6(self) -> None:
        self.assertEqual(self.listening("-l", "[2001:db8::1]:25"), [("2001:db8::1", 25)])
        self.assertEqual(self.names("-l", "[2001:db8::1]:25"), ["[2001:db8::1]:25"])

    def test_endpoint_description(self) -> None:
        self.assertEqual(self.listening("-l", "tcp:2525:interface=127.0.0.2"), [("127.0.0.2", 2525)])
        self.assertEqual(self.listening("-l", "tcp:2525"), [("", 2525)])
        self.assertEqual(self.names("-l", "unix:/run/smtp"), ["unix:/run/smtp"])

    def test_repeatable(self) -> None:
        self.assertEqual(self.names("-l", "127.0.0.1:1", "-l", "127.0.0.2:2"), ["127.0.0.1:1", "127.0.0.2:2"])

    def test_only_the_ipv6_loopback_is_optional(self) -> None:
        self.assertEqual([listener.optional for listener in self.parse().listeners], [False, True])
        self.assertEqual([listener.optional for listener in self.parse("-l", "[::1]:25").listeners], [False])

    def test_port_out_of_range(self) -> None:
        self.assertIn("'127.0.0.1:65536': a port is a number up to 65535", self.refused("-l", "127.0.0.1:65536"))

    def test_bad_descriptions_are_usage_errors(self) -> None:
        for where in (
            "",
            "foo:bar",
            "::1:25",
            "tcp:x",
            "tcp:",
            "systemd:domain=INET:index=99",
            "[::1",
        ):
            self.assertIn(f"--listen: {where!r}", self.refused("-l", where))

    @given(st.text(st.sampled_from("[]:=.1a\\/%é \n\0")))
    def test_any_text_is_a_place_or_one_line(self, where: str) -> None:
        stderr, sys.stderr = sys.stderr, io.StringIO()
        try:
            self.parse(f"--listen={where}")
        except SystemExit:
            self.assertEqual(sys.stderr.getvalue().count("\n"), 1)
        finally:
            sys.stderr = stderr


class QuantityTests(CommandLine):
    def test_sizes(self) -> None:
        for text, expected in (
            ("0", 0),
            ("1000", 1000),
            ("10K", 10240),
            ("10k", 10240),
            ("2M", 2**21),
            ("1GiB", 2**30),
        ):
            self.assertEqual(octets(text), expected)
        for text in ("", "-1", "1.5M", "10 M", "M", "1T", "0x10", "1e3", "1_000", "٣", "9" * 16):
            self.assertRaises(ValueError, octets, text)

    def test_seconds(self) -> None:
        self.assertEqual((seconds("30"), seconds("0.5")), (30.0, 0.5))
        for text in ("", "-1", "nan", "inf", "1e3", ".5", "1.", "5m", "٣"):
            self.assertRaises(ValueError, seconds, text)

    def test_counts(self) -> None:
        self.assertEqual(count("12"), 12)
        for text in ("", "-1", "1.0", "1K", "+1", " 1", "٣"):
            self.assertRaises(ValueError, count, text)

    def test_each_limit_is_an_option_of_the_server(self) -> None:
        for limit in LIMITS:
            self.assertIn(limit.keyword, DEFAULTS)
            default = DEFAULTS[limit.keyword]  # type: ignore[literal-required]
            self.assertTrue(default is None or limit.low <= default <= limit.high, limit)

    def test_no_limit_of_the_server_lacks_an_option(self) -> None:
        no_limits = {"enable_SMTPUTF8", "decode_data", "hostname", "ident", "bare_newline", "enhanced_status_codes"}
        security = {
            "tls_context",
            "require_starttls",
            "ssl_context",
            "proxy_from",
            "proxy_protocol_timeout",
            "xclient_from",
        } | {name for name in DEFAULTS if name.startswith("auth")}
        limits = {name for name in DEFAULTS if name not in no_limits | security | {"loop", "clock"}}
        self.assertEqual(limits - {limit.keyword for limit in LIMITS}, set())

    def test_bounds_are_inclusive_and_the_server_takes_them(self) -> None:
        for limit in LIMITS:
            for value in (limit.low, limit.high):
                options = self.parse(f"--{limit.option}={value}")
                self.assertEqual(options.server_options()[limit.keyword], value)
                SMTPFactory(Sink(), **options.server_options())

    def test_out_of_bounds_names_option_and_value(self) -> None:
        self.assertIn("--max-errors: '0' is not between 1 and 1,000,000", self.refused("--max-errors", "0"))
        self.assertIn("--timeout: '86401' is not between", self.refused("--timeout=86401"))
        self.assertIn("--grace: '3601' is not between", self.refused("--grace=3601"))

    def test_no_limit_on_lines_is_below_what_every_line_may_have(self) -> None:
        for text in ("1", "999"):
            self.assertIn("--line-length-limit: ", self.refused("--line-length-limit", text))
        for text, value in (("0", 0), ("1000", 1000)):
            options = self.parse("--line-length-limit", text)
            self.assertEqual(options.server_options()["line_length_limit"], value)

    def test_malformed_names_option_and_value(self) -> None:
        self.assertIn("--size: '10X' is not a size", self.refused("-s", "10X"))
        self.assertIn("--max-recipients: 'many' is not a whole number", self.refused("--max-recipients", "many"))

    def test_help_shows_the_server_s_defaults(self) -> None:
        text = " ".join(self.shown("--help").split())
        self.assertIn("any size. [default: 32M]", text)
        self.assertIn("silent. [default: 300]", text)
        self.assertIn("[default: no limit]", text)


class ServerOptionTests(CommandLine):
    def test_defaults_are_the_server_s_own(self) -> None:
        for name, value in self.parse().server_options().items():
            self.assertEqual(value, DEFAULTS[name])  # type: ignore[literal-required]

    def test_each_reaches_the_server(self) -> None:
        words = ("--hostname=mx.example.com", "--ident=Mail", "--bare-newline=reject", "--no-smtputf8", "--decode-data")
        expected = {
            "hostname": "mx.example.com",
            "ident": "Mail",
            "bare_newline": "reject",
            "enable_SMTPUTF8": False,
            "decode_data": True,
            "enhanced_status_codes": False,
        }
        self.assertEqual(self.parse(*words, "--no-enhanced-status-codes").server_options(), expected)

    def test_aiosmtpd_s_smtputf8_is_accepted(self) -> None:
        self.assertIs(self.parse("-u").server_options()["enable_SMTPUTF8"], True)
        self.assertIn("contradict", self.refused("-u", "--no-smtputf8"))

    def test_nothing_is_smuggled_into_replies(self) -> None:
        for name in ("", "a b", "a\r\nb", "a\0b", "é", "x" * 256):
            self.assertIn("--hostname", self.refused(f"--hostname={name}"))
        for text in ("", "a\r\nb", "a\x1bb", "é", "x" * 401):
            self.assertIn("--ident", self.refused(f"--ident={text}"))

    def test_bare_newline_is_one_of_two(self) -> None:
        self.assertIn("--bare-newline: 'keep'", self.refused("--bare-newline", "keep"))


class HandlerOptionTests(CommandLine):
    def test_default_prints_on_stdout(self) -> None:
        handler = self.parse().handler
        self.assertIsInstance(handler, Debugging)
        self.assertIs(handler.stream, sys.stdout)  # type: ignore[attr-defined]

    def test_by_name(self) -> None:
        self.assertIsInstance(self.parse("-c", "sink").handler, Sink)

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

    def test_make_service(self) -> None:
        options = self.parse("-c", "sink", "--max-recipients=7", "--grace=3")
        service = makeService(options)
        self.assertIs(service.factory.handler, options.handler)  # type: ignore[attr-defined]
        self.assertEqual(service.factory.settings.values["max_recipients"], 7)  # type: ignore[attr-defined]
        self.assertEqual(service.grace, 3.0)  # type: ignore[attr-defined]
        self.assertIs(service.listeners, options.listeners)  # type: ignore[attr-defined]

    def test_lmtp_is_another_protocol(self) -> None:
        self.assertIs(makeService(self.parse("-c", "sink")).factory.protocol, SMTP)  # type: ignore[attr-defined]
        service = makeService(self.parse("-c", "sink", "--lmtp"))
        self.assertIs(service.factory.protocol, LMTP)  # type: ignore[attr-defined]
        self.assertIs(service.factory.settings.cls, LMTP)  # type: ignore[attr-defined]

    def test_lmtp_is_not_for_port_25_nor_without_enhanced_status_codes(self) -> None:
        """RFC 2033 section 5."""
        for words in (["-l", "127.0.0.1:25"], ["-l", "[::1]:25"], ["--no-enhanced-status-codes"]):
            stderr = io.StringIO()
            self.patch(sys, "stderr", stderr)
            with self.assertRaises(SystemExit) as caught:
                makeService(self.parse("-c", "sink", "--lmtp", *words))
            self.assertEqual((caught.exception.code, stderr.getvalue().count("\n")), (64, 1))
            self.assertIn("LMTP" if "--no-enhanced-status-codes" in words else "--lmtp", stderr.getvalue())
        makeService(self.parse("-c", "sink", "-l", "127.0.0.1:25"))

    def test_what_the_server_refuses_is_a_usage_error(self) -> None:
        options = self.parse("-c", "sink")
        options["timeout"] = -1.0
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.assertEqual(self.assertRaises(SystemExit, makeService, options).code, 64)
        self.assertEqual(stderr.getvalue().count("\n"), 1)

    def test_what_the_server_refuses_is_named_by_its_option(self) -> None:
        options = self.parse("--auth-any", "--auth-mechanisms=NONESUCH")
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.assertEqual(self.assertRaises(SystemExit, makeService, options).code, 64)
        self.assertTrue(stderr.getvalue().startswith("twist smtpd: --auth-mechanisms: nothing"), stderr.getvalue())

    def test_plugin_is_found(self) -> None:
        (plugin,) = (plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "smtpd")
        self.assertIs(plugin.options, Options)
        self.assertIs(plugin.makeService, makeService)


class MainTests(SynchronousTestCase):
    def test_it_is_twist_smtpd(self) -> None:
        calls: list[Any] = []
        self.patch(sys, "argv", ["twisted-smtpd", "-c", "sink"])
        self.patch(runpy, "run_module", lambda *args, **kwargs: calls.append((args, kwargs, list(sys.argv))))
        main_module.main()
        kwargs = {"run_name": "__main__", "alter_sys": True}
        self.assertEqual(calls, [(("twisted",), kwargs, ["twisted-smtpd", "smtpd", "-c", "sink"])])
