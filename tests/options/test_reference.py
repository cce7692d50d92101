"""Tests for :mod:`twisted_smtpd.options.reference`."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.options.option import COUNT, OCTETS, Option, amount
from twisted_smtpd.options.reference import default_text, flag_text, option_table, parameter, with_parameters
from twisted_smtpd.options.table import TABLE
from twisted_smtpd.smtp import SMTP

DOCS = Path(__file__).parents[2] / "docs"


class ParameterTests(SynchronousTestCase):
    def test_a_row_with_everything(self) -> None:
        row = Option(2**20, "octets of a thing", "More get 452.", unit=OCTETS, high=2**30, zero="any size")
        self.assertEqual(
            parameter(row.named("thing_size", int | None)),
            ":param thing_size: octets of a thing.  0 to 1 GiB; ``None`` or 0 for any size; by default 1 MiB.  "
            "More get 452.",
        )

    def test_a_row_without_a_default(self) -> None:
        self.assertEqual(parameter(Option(None, "a thing").named("thing", str)), ":param thing: a thing.")
        row = Option(None, "a thing", unset="none at all").named("thing", str)
        self.assertEqual(parameter(row), ":param thing: a thing.  By default none at all.")

    def test_the_documentation_of_smtp_has_each_option_with_default_and_bounds(self) -> None:
        doc = " ".join((SMTP.__doc__ or "").split())
        fields = dict(re.findall(r":param (\w+): (.*?)(?= :param| :raises)", doc))
        self.assertEqual(list(fields), ["handler", *TABLE])
        for name, option in TABLE.items():
            self.assertIn(option.help, fields[name])
            if option.unit:
                low, high = (amount(bound, option.unit, spelled=True) for bound in (option.low, option.high))
                self.assertIn(f"{low} to {high}", fields[name])
            if option.default is not None:
                self.assertIn("y default ", fields[name])

    def test_lines_are_short_enough_for_a_terminal(self) -> None:
        for line in (SMTP.__doc__ or "").splitlines():
            self.assertLessEqual(len(line), 120, line)

    def test_the_docstring_may_be_indented_or_not_or_missing(self) -> None:
        """Python 3.13 takes the indentation away, and ``python -OO`` the docstring."""
        for indent in ("", "    "):
            doc = with_parameters(f"One.\n\n{indent}:param handler: x\n{indent}:raises TypeError: y\n{indent}")
            assert doc is not None
            lines = [line for line in doc.splitlines()[2:] if line.strip()]
            self.assertEqual({line[: len(indent) + 1] for line in lines if ":param" in line}, {f"{indent}:"})
            self.assertEqual(lines[-1], f"{indent}:raises TypeError: y")
        self.assertIsNone(with_parameters(None))


class TableTests(SynchronousTestCase):
    def test_each_row_with_a_flag_is_in_the_table(self) -> None:
        text = option_table(TABLE.values())
        rows = {
            flag: row for row in text.split("* - ") for flag in re.findall(r"^(?:``-\w``, )?``--([a-z0-9-]+)``", row)
        }
        self.assertEqual(list(rows), [option.flag for option in TABLE.values() if option.flag])
        for option in TABLE.values():
            if option.flag:
                self.assertIn(flag_text(option), rows[option.flag].replace("``", ""))
                self.assertIn(default_text(option), rows[option.flag])

    def test_the_command_line_s_bound_is_shown_where_it_is_narrower(self) -> None:
        row = Option(5, "octets", unit=OCTETS, low=1, high=2**20, zero="any", cli_low=1000, flag="things")
        self.assertIn("- 0, 1000 to 1M\n", option_table([row]))

    def test_flags_alone_need_three_columns(self) -> None:
        text = option_table([Option(True, "a thing", flag="no-thing", flag_help="no thing")])
        self.assertEqual(
            text.split("\n\n")[1],
            "    * - option\n      - in a file\n      - what it is\n"
            "    * - ``--no-thing``\n      - ``no_thing``\n      - No thing.\n",
        )

    def test_the_documentation_of_the_command_line_has_a_table_of_each_group(self) -> None:
        groups = re.findall(r"^\.\. option-table:: (\w+)$", (DOCS / "reference" / "cli.rst").read_text(), re.MULTILINE)
        self.assertEqual(len(groups), len(set(groups)))
        self.assertLessEqual({option.group for option in TABLE.values() if option.flag}, set(groups))


class FlagTextTests(SynchronousTestCase):
    def test_it_is_a_sentence_without_markup(self) -> None:
        row = Option(5, "a ``str`` as :class:`~a.b.Thing` says", unit=COUNT, zero="any number")
        self.assertEqual(flag_text(row), "A str as a.b.Thing says; 0: any number.")
