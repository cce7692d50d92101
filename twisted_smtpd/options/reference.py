"""The texts about options, made from the table: ``:param:`` lines, lines of ``--help``, tables of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from twisted_smtpd.options.option import Option, amount
from twisted_smtpd.options.table import TABLE

__all__ = ["default_text", "flag_text", "option_table", "parameter", "with_parameters"]

# Columns of the text in help(SMTP), without its indentation.
WIDTH = 112


def with_parameters(doc: str | None) -> str | None:
    """A docstring with the ``:param:`` lines of all options before its first ``:raises:``.

    :param doc: the docstring; ``None`` under ``python -OO``.
    """
    if doc is None:
        return None
    head, raises, tail = doc.partition(":raises")
    # Python 3.13 has taken the indentation away, older ones have not.
    indent = head[head.rfind("\n") + 1 :]
    lines = [line for option in TABLE.values() for line in _wrapped(parameter(option))]
    return head + "".join(f"{line}\n{indent}" for line in lines) + raises + tail


def parameter(option: Option) -> str:
    """An option's ``:param:`` line, with its bounds and its default."""
    facts = "; ".join(_facts(option))
    sentences = (f":param {option.name}: {option.help}.", facts and f"{facts[0].upper()}{facts[1:]}.", option.doc)
    return "  ".join(filter(None, sentences))


def _facts(option: Option) -> Iterator[str]:
    if option.choices:
        yield " or ".join(f'``"{choice}"``' for choice in option.choices)
    if option.unit:
        low, high = (amount(bound, option.unit, spelled=True) for bound in (option.low, option.high))
        yield f"{low} to {high}"
        if option.zero:
            yield f"{'``None`` or ' if option.optional else ''}0 for {option.zero}"
    if option.unset:
        yield f"by default {option.unset}"
    elif isinstance(option.default, str):
        yield f'by default ``"{option.default}"``'
    elif option.switch:
        yield f"by default ``{option.default}``"
    elif option.default is not None:
        yield f"by default {amount(option.default, option.unit, spelled=True)}"


def _wrapped(text: str) -> Iterator[str]:
    """The lines of a field; textwrap would take most of the time of the import."""
    while len(text) > WIDTH:
        cut = text.rfind(" ", 0, WIDTH)
        yield text[:cut].rstrip()
        text = f"    {text[cut:].lstrip()}"
    yield text


def default_text(option: Option) -> str:
    """An option's default as the command line takes it, or in words; empty for a flag, and where there is none."""
    if option.unset or option.switch or option.default is None:
        return option.unset
    return option.default if isinstance(option.default, str) else amount(option.default, option.unit)


def flag_text(option: Option) -> str:
    """What ``--help`` says of an option, apart from its default."""
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"\1", option.flag_help or option.help).replace("``", "")
    zero = f"; 0: {option.zero}" if option.zero else ""
    return f"{text[0].upper()}{text[1:]}{zero}."


def _range_text(option: Option) -> str:
    if not option.unit:
        return " or ".join(option.choices)
    zero = "0, " if option.zero and option.cli_low > 0 else ""
    low, high = (amount(bound, option.unit) for bound in (option.cli_low, option.high))
    return f"{zero}{low} to {high}"


def option_table(options: Iterable[Option]) -> str:
    """A table of command-line options, as reStructuredText.

    :param options: those to be listed; one without a flag is left out.
    """
    rows = [("option", "in a file", "default", "values", "what it is")]
    for option in options:
        if option.flag:
            short = f"``-{option.short}``, " if option.short else ""
            # Without literals, Sphinx would make dashes of the hyphens.
            text = re.sub(r"--[a-z-]+", r"``\g<0>``", flag_text(option))
            key = f"``{option.key}``" if option.in_file else ""
            rows.append((f"{short}``--{option.flag}``", key, default_text(option), _range_text(option), text))
    # Flags alone have neither defaults nor values.
    columns = [column for column in range(5) if any(row[column] for row in rows[1:])]
    lines = [".. list-table::", "    :header-rows: 1", "    :widths: auto", ""]
    for row in rows:
        first, *others = (row[column] for column in columns)
        lines += [f"    * - {first}", *(f"      - {other}".rstrip() for other in others)]
    return "\n".join([*lines, ""])
