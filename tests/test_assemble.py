"""What is computed once: checks of the options, the command table, and which connections share it."""

from __future__ import annotations

import gc
import socket
import weakref
from types import MappingProxyType
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.assemble import Settings, settings_for
from twisted_smtpd.options.table import DEFAULTS
from twisted_smtpd.runtime.host_name import own_name
from twisted_smtpd.smtp import SMTP


def make(**options: Any) -> Settings:
    options.setdefault("hostname", "mx.example")
    return Settings(SMTP, object(), options)  # type: ignore[arg-type]


class CheckTests(SynchronousTestCase):
    numbers = (
        "timeout",
        "session_timeout",
        "hook_timeout",
        "max_recipients",
        "max_errors",
        "max_connections",
        "max_connections_per_address",
        "max_buffered",
        "min_data_rate",
        "data_size_limit",
        "line_length_limit",
    )

    def test_an_option_that_does_not_exist(self) -> None:
        with self.assertRaises(TypeError) as caught:
            make(data_size_limits=5)
        self.assertIn("'data_size_limits'", str(caught.exception))

    def test_numbers_are_numbers(self) -> None:
        for name in self.numbers:
            for value in ("5", b"5", [5], True, object()):
                self.assertRaises(TypeError, make, **{name: value})
            self.assertRaises(ValueError, make, **{name: -1})
            self.assertEqual(make(**{name: 5}).values[name], 5)

    def test_0_is_no_limit_or_an_error(self) -> None:
        for name in (
            "max_connections_per_address",
            "max_buffered",
            "min_data_rate",
            "data_size_limit",
            "line_length_limit",
        ):
            self.assertEqual(make(**{name: 0}).values[name], 0)
        for name in ("timeout", "session_timeout", "hook_timeout", "max_recipients", "max_errors", "max_connections"):
            self.assertRaises(ValueError, make, **{name: 0})

    def test_none_is_no_limit_or_an_error(self) -> None:
        for name in ("data_size_limit", "line_length_limit"):
            self.assertIsNone(make(**{name: None}).values[name])
        for name in set(self.numbers) - {"data_size_limit", "line_length_limit"}:
            self.assertRaises(TypeError, make, **{name: None})

    def test_bare_newline(self) -> None:
        self.assertRaises(ValueError, make, bare_newline="keep")
        self.assertEqual(make(bare_newline="reject").values["bare_newline"], "reject")

    def test_command_call_limit(self) -> None:
        self.assertIsNone(make().call_limits)
        self.assertEqual(make(command_call_limit=5).call_limits, {"*": 5})
        self.assertEqual(make(command_call_limit={"NOOP": 5}).call_limits, {"*": 20, "NOOP": 5})
        self.assertEqual(make(command_call_limit=MappingProxyType({"*": 5})).call_limits, {"*": 5})
        for limit in ("5", True, 5.5, [5], {"NOOP": "5"}, {"NOOP": None}):
            self.assertRaises(TypeError, make, command_call_limit=limit)

    def test_an_option_that_a_class_sets_is_checked(self) -> None:
        class Mine(SMTP):
            timeout = -1

        self.assertRaises(ValueError, Settings, Mine, object(), {})


class NamesTests(SynchronousTestCase):
    def test_the_hostname_is_looked_up_once_per_server(self) -> None:
        calls: list[str] = []

        def getfqdn() -> str:
            calls.append("getfqdn")
            return "found.example"

        self.patch(socket, "getfqdn", getfqdn)
        own_name.cache_clear()
        self.addCleanup(own_name.cache_clear)
        handler = object()
        options: Any = {"max_errors": 77}
        settings = settings_for(SMTP, handler, options)
        settings_for(SMTP, handler, options)
        self.assertEqual((settings.values["hostname"], len(calls)), ("found.example", 1))

    def test_a_class_has_its_own_ident(self) -> None:
        class Mine(SMTP):
            default_ident = "Mine 1.0"

        self.assertEqual(Settings(Mine, object(), {"hostname": "x"}).values["ident"], "Mine 1.0")
        self.assertEqual(Settings(Mine, object(), {"hostname": "x", "ident": "Y"}).values["ident"], "Y")


class CommandTests(SynchronousTestCase):
    def test_the_sizes_of_command_lines(self) -> None:
        settings = make()
        self.assertEqual(settings.commands["NOOP"].size_limit, 512)
        self.assertEqual(settings.longest_command, max(command.size_limit for command in settings.commands.values()))

    def test_a_class_may_set_them(self) -> None:
        class Mine(SMTP):
            command_size_limit = 1024
            command_size_limits = MappingProxyType({"VRFY": 99})

        commands = Settings(Mine, object(), {"hostname": "x"}).commands
        self.assertEqual((commands["NOOP"].size_limit, commands["VRFY"].size_limit), (1024, 99))

    def test_commands_of_other_packages_are_foreign(self) -> None:
        class Mine(SMTP):
            async def smtp_MAIL(self, arg: str | None) -> None: ...

            async def smtp_foo(self, arg: str | None) -> None: ...

        commands = Settings(Mine, object(), {"hostname": "x"}).commands
        self.assertEqual([verb for verb, command in sorted(commands.items()) if command.foreign], ["FOO", "MAIL"])


class SharingTests(SynchronousTestCase):
    def test_the_same_class_handler_and_options(self) -> None:
        handler = object()
        one = settings_for(SMTP, handler, {"hostname": "x", "timeout": 5})
        self.assertIs(settings_for(SMTP, handler, {"hostname": "x", "timeout": 5}), one)
        self.assertIsNot(settings_for(SMTP, handler, {"hostname": "x", "timeout": 6}), one)
        self.assertIsNot(settings_for(SMTP, object(), {"hostname": "x", "timeout": 5}), one)
        self.assertIsNot(settings_for(type("Mine", (SMTP,), {}), handler, {"hostname": "x", "timeout": 5}), one)

    def test_options_that_cannot_be_hashed(self) -> None:
        handler = object()
        one = settings_for(SMTP, handler, {"hostname": "x", "command_call_limit": {"NOOP": 5}})
        same = settings_for(SMTP, handler, {"hostname": "x", "command_call_limit": {"NOOP": 5}})
        other = settings_for(SMTP, handler, {"hostname": "x", "command_call_limit": {"NOOP": 6}})
        self.assertIs(one, same)
        self.assertIsNot(one, other)
        loop: list[int] = []
        one = settings_for(SMTP, handler, {"hostname": "x", "loop": loop})
        self.assertIs(settings_for(SMTP, handler, {"hostname": "x", "loop": loop}), one)
        self.assertIsNot(settings_for(SMTP, handler, {"hostname": "x", "loop": []}), one)

    def test_nobody_holds_them_when_nobody_needs_them(self) -> None:
        class Handler:
            pass

        handler = Handler()
        settings = weakref.ref(settings_for(SMTP, handler, {"hostname": "x"}))
        protocol = SMTP(handler, hostname="x")
        gone = weakref.ref(handler)
        del handler
        gc.collect()
        self.assertIsNone(settings())
        self.assertIsNotNone(gone())
        del protocol
        gc.collect()
        self.assertIsNone(gone())

    def test_two_servers_do_not_share_limits(self) -> None:
        one, other = SMTP(object(), hostname="x", max_errors=3), SMTP(object(), hostname="x")
        self.assertEqual((one.max_errors, other.max_errors, DEFAULTS["max_errors"]), (3, 10, 10))
        one.max_errors = 4
        self.assertEqual((one.max_errors, SMTP(one.event_handler, hostname="x", max_errors=3).max_errors), (4, 3))


class ShortestLimitTests(SynchronousTestCase):
    def test_what_the_timers_must_not_miss(self) -> None:
        self.assertEqual(make().shortest_limit, 60)
        self.assertEqual(make(timeout=5).shortest_limit, 5)
        self.assertEqual(make(session_timeout=6).shortest_limit, 6)
        self.assertEqual(make(hook_timeout=7).shortest_limit, 7)

        class Mine(SMTP):
            timeout = 8

        self.assertEqual(Settings(Mine, object(), {"hostname": "x", "timeout": 2}).shortest_limit, 8)

    def test_the_clock_may_be_given(self) -> None:
        clock = Clock()
        self.assertIs(make(clock=clock).connections.timers.clock, clock)

    def test_the_reactor_is_the_clock_unless_one_is_given(self) -> None:
        from twisted.internet import reactor

        self.assertIs(make().connections.timers.clock, reactor)
