"""Tests for :mod:`twisted_smtpd.options.table`: what holds for each row, whichever rows there are."""

from __future__ import annotations

from typing import get_type_hints

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.assemble import Settings
from twisted_smtpd.options.command import COMMAND, SETTINGS
from twisted_smtpd.options.table import (
    DEFAULTS,
    OPTIONS,
    TABLE,
    SMTPOptions,
    assign_options,
    call_limits,
    check,
)
from twisted_smtpd.smtp import SMTP

NUMBERS = [option for option in TABLE.values() if option.unit]


class RowTests(SynchronousTestCase):
    def test_each_option_has_a_type_a_default_and_a_text(self) -> None:
        self.assertEqual(list(get_type_hints(SMTPOptions)), list(TABLE))
        for option in TABLE.values():
            self.assertTrue(option.help, option.name)
            self.assertFalse(option.help.endswith("."), option.name)

    def test_the_defaults_are_within_the_bounds(self) -> None:
        check(DEFAULTS)

    def test_no_flag_is_used_twice(self) -> None:
        flags = [option.flag for option in TABLE.values() if option.flag]
        self.assertEqual(len(flags), len(set(flags)))

    def test_a_flag_turns_a_truth_value_around(self) -> None:
        for option in TABLE.values():
            if option.switch and option.flag:
                self.assertTrue(option.flag_help, f"{option.name}: what does --{option.flag} do?")

    def test_each_number_says_its_unit_and_has_bounds(self) -> None:
        for option in NUMBERS:
            self.assertLess(option.high, float("inf"), option.name)
            if option.unit != "count":
                self.assertIn(option.unit, option.help)


class BoundsTests(SynchronousTestCase):
    def test_the_constructor_takes_the_bounds_and_nothing_beyond(self) -> None:
        for option in NUMBERS:
            for value in (option.low, option.high):
                given = {"hostname": "x", "proxy_from": [], option.name: value}
                self.assertEqual(Settings(SMTP, object(), given).values[option.name], value)  # type: ignore[arg-type]
            for value in (-1, option.high + 1):
                with self.assertRaises(ValueError) as caught:
                    SMTP(object(), **{option.name: value})
                self.assertTrue(str(caught.exception).startswith(f"{option.name} must be "), caught.exception)

    def test_the_limit_of_each_verb_is_checked(self) -> None:
        self.assertRaises(ValueError, SMTP, object(), command_call_limit={"NOOP": 0})
        self.assertEqual(call_limits({"NOOP": 5}), {"*": 20, "NOOP": 5})

    def test_a_host_name_that_would_break_the_greeting(self) -> None:
        self.assertRaises(ValueError, SMTP, object(), hostname="mx\r\n250 forged")
        self.assertRaises(ValueError, SMTP, object(), ident="mx\r\n250 forged")


class AssignOptionsTests(SynchronousTestCase):
    def test_each_value_goes_where_its_name_says(self) -> None:
        class Connection:
            __slots__ = OPTIONS

        connection = Connection()
        assign_options(connection, tuple(f"value of {name}" for name in OPTIONS))
        for name in OPTIONS:
            self.assertEqual(getattr(connection, name), f"value of {name}")

    def test_a_value_too_few_is_an_error(self) -> None:
        self.assertRaises(ValueError, assign_options, object(), OPTIONS[1:])

    def test_each_option_is_an_attribute_of_a_connection_unless_its_row_says_otherwise(self) -> None:
        connection = SMTP(object(), hostname="x")
        for name, option in TABLE.items():
            self.assertEqual(name in OPTIONS, option.own)
            if option.own:
                getattr(connection, name)


class KeyTests(SynchronousTestCase):
    def test_a_number_has_the_name_of_the_command_line_and_a_truth_value_its_own(self) -> None:
        for key, name in (
            ("size", "data_size_limit"),
            ("max_errors", "max_errors"),
            ("bare_newline", "bare_newline"),
            ("enhanced_status_codes", "enhanced_status_codes"),
            ("auth_require_tls", "auth_require_tls"),
        ):
            self.assertIs(SETTINGS[key], TABLE[name])

    def test_each_option_has_a_key_of_its_own(self) -> None:
        self.assertEqual(len(SETTINGS), sum(bool(option.flag) for option in TABLE.values()) + len(COMMAND))
