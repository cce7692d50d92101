"""Tests for :mod:`twisted_smtpd.options.option`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.options.option import COUNT, OCTETS, SECONDS, Option, amount, is_host_name, is_text


def option(kind: Any = int, **given: Any) -> Option:
    return Option(given.pop("default", 5), "things", **given).named("max_things", kind)


class NumberTests(SynchronousTestCase):
    def test_bounds_are_inclusive(self) -> None:
        row = option(unit=COUNT, low=2, high=9)
        for value in (2, 9):
            row.check(value)
        for value in (1, 10, 0, -1):
            with self.assertRaises(ValueError) as caught:
                row.check(value)
            self.assertEqual(str(caught.exception), f"max_things must be between 2 and 9, not {value}")

    def test_0_may_have_a_meaning_below_the_bounds(self) -> None:
        row = option(unit=COUNT, low=2, high=9, zero="any number")
        row.check(0)
        with self.assertRaises(ValueError) as caught:
            row.check(1)
        self.assertEqual(str(caught.exception), "max_things must be 0 or between 2 and 9, not 1")

    def test_counts_and_octets_are_whole_numbers(self) -> None:
        """A size of 1e6 would be said to clients as ``SIZE 1000000.0``."""
        for unit in (COUNT, OCTETS):
            self.assertRaises(TypeError, option(unit=unit).check, 5.0)
        option(unit=SECONDS).check(0.5)

    def test_what_is_not_a_number_is_a_type_error(self) -> None:
        for value in ("5", b"5", True, None, [5], {"NOOP": 5}):
            self.assertRaises(TypeError, option(unit=SECONDS).check, value)

    def test_nan_is_out_of_bounds(self) -> None:
        self.assertRaises(ValueError, option(unit=SECONDS, high=9).check, float("nan"))

    def test_none_is_allowed_where_the_type_has_it(self) -> None:
        option(int | None, unit=COUNT).check(None)
        self.assertRaises(TypeError, option(int, unit=COUNT).check, None)

    def test_each_verb_of_a_mapping_is_checked(self) -> None:
        row = option(unit=COUNT, low=1, high=9, per_verb=True)
        row.check({"NOOP": 1, "*": 9})
        with self.assertRaises(ValueError) as caught:
            row.check({"NOOP": 0})
        self.assertIn("max_things['NOOP'] must be between 1 and 9", str(caught.exception))
        self.assertRaises(TypeError, row.check, {"NOOP": "5"})

    def test_a_number_has_a_flag_and_others_have_it_if_it_is_given(self) -> None:
        self.assertEqual(option(unit=COUNT).flag, "max-things")
        self.assertEqual(option(unit=COUNT, flag="things").flag, "things")
        self.assertEqual(option().flag, "")


class TextTests(SynchronousTestCase):
    def test_one_of_several(self) -> None:
        row = option(str, choices=("keep", "drop"))
        row.check("keep")
        for value in ("kept", "", None, ["keep"]):
            with self.assertRaises(ValueError) as caught:
                row.check(value)
            self.assertEqual(str(caught.exception), f"max_things is 'keep' or 'drop', not {value!r}")

    def test_a_text_is_valid_or_refused(self) -> None:
        row = option(str | None, valid=is_host_name, wanted="a host name")
        row.check(None)
        row.check("mx.example.com")
        self.assertRaises(TypeError, row.check, b"mx.example.com")
        with self.assertRaises(ValueError) as caught:
            row.check("a b")
        self.assertEqual(str(caught.exception), "max_things is a host name, not 'a b'")

    def test_nothing_is_smuggled_into_replies(self) -> None:
        for text in ("", "a\r\nb", "a\x1bb", "\x7f", "é", "x" * 401):
            self.assertFalse(is_host_name(text), text)
            self.assertFalse(is_text(text), text)
        self.assertTrue(is_text("Mail 1.0"))
        self.assertFalse(is_host_name("Mail 1.0"))


class AmountTests(SynchronousTestCase):
    def test_octets_as_the_command_line_takes_them(self) -> None:
        for value, text, spelled in (
            (0, "0", "0"),
            (2000, "2000", "2,000"),
            (1024, "1K", "1 KiB"),
            (32 * 2**20, "32M", "32 MiB"),
            (3 * 2**29, "1536M", "1,536 MiB"),
            (2**40, "1024G", "1 TiB"),
        ):
            self.assertEqual((amount(value, OCTETS), amount(value, OCTETS, spelled=True)), (text, spelled))

    def test_other_units_have_no_prefixes(self) -> None:
        self.assertEqual(
            (amount(1024, COUNT), amount(0.1, SECONDS), amount(1024, SECONDS, True)), ("1024", "0.1", "1,024")
        )
