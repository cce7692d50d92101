"""What the groups of command-line options have in common.

A group is a mixin of :class:`twisted_smtpd.cli.command.Options`.  It has its own ``optFlags``, ``optParameters`` and
``opt_*`` methods, checks them in ``postOptions`` (and calls ``super()``), and adds keyword arguments for the server in
``server_options``.  Each row comes from a table, see :mod:`twisted_smtpd.options.command`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.python import usage

from twisted_smtpd.options.option import Option
from twisted_smtpd.options.quantities import Quantity
from twisted_smtpd.options.reference import default_text, flag_text

__all__ = ["OptionGroup", "flag_row", "own_parameter_row", "parameter_row"]


class OptionGroup(usage.Options):
    """What the groups share.

    :ivar arguments: the handler's arguments, once the options are parsed.
    """

    arguments: tuple[str, ...] = ()

    @property
    def supervising(self) -> bool:
        """Whether this process leaves the serving to worker processes."""
        return False

    @property
    def dry(self) -> bool:
        """Whether nothing is to be started: ``--check`` and ``--show-config``."""
        return bool(self["check"] or self["show-config"])

    def server_options(self) -> dict[str, Any]:
        """The keyword arguments for the server that the command line asks for; the server knows the other defaults."""
        return {}

    def handler_given(self) -> bool:
        """Whether the handler was named, and is not the default."""
        return True

    def shared_handler(self, make: Callable[[], object]) -> object:
        """A handler, which several listeners may share.

        :param make: makes it.
        """
        return make()


def flag_row(option: Option) -> list[str | None]:
    """The row for ``optFlags`` of an option that is on or off."""
    return [option.flag, option.short or None, flag_text(option)]


def parameter_row(option: Option) -> list[Any]:
    """The row for ``optParameters`` of a server's option.

    Its value stays ``None`` unless it is given, because the server knows the default; the text shows it.
    """
    default = default_text(option)
    shown = f" [default: {default}]" if default else ""
    return [option.flag, option.short or None, None, f"{flag_text(option)}{shown}", _reader(option)]


def own_parameter_row(option: Option) -> list[Any]:
    """The row for ``optParameters`` of an option that is the command line's own, with its default."""
    return [option.flag, option.short or None, option.default, flag_text(option), _reader(option)]


def _reader(option: Option) -> Callable[[str], Any] | None:
    if option.unit:
        return Quantity(option)
    if option.names:
        return _read_names
    return partial(_read_text, option) if option.choices or option.valid else None


def _read_names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _read_text(option: Option, text: str) -> str:
    if option.choices and text not in option.choices:
        raise usage.UsageError(f"--{option.flag}: {text!r} is not {' or '.join(map(repr, option.choices))}")
    if option.valid is not None and not option.valid(text):
        raise usage.UsageError(f"--{option.flag}: {text!r} is not {option.wanted}")
    return text
