"""The command-line options that are rows of the table of options: protocol and limits."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from twisted.python import usage

from twisted_smtpd.cli.groups import OptionGroup, flag_row, parameter_row
from twisted_smtpd.options.command import COMMAND
from twisted_smtpd.options.quantities import Quantity
from twisted_smtpd.options.table import TABLE

__all__ = ["LIMITS", "ServerOptions", "named_by_flag"]

_ROWS = tuple(
    option for option in TABLE.values() if option.flag and option.group in ("protocol", "extensions", "limits")
)

LIMITS = tuple(Quantity(option) for option in _ROWS if option.group == "limits")


class ServerOptions(OptionGroup):
    """What the server says, what it accepts, and its limits."""

    optFlags: ClassVar[list[list[str | None]]] = [
        ["smtputf8", "u", "Offer SMTPUTF8 (the default; for command lines written for aiosmtpd)."],
        flag_row(COMMAND["lmtp"]),
        *(flag_row(option) for option in _ROWS if option.switch),
    ]
    optParameters: ClassVar[list[list[Any]]] = [parameter_row(option) for option in _ROWS if not option.switch]

    def postOptions(self) -> None:
        super().postOptions()
        if self["smtputf8"] and self["no-smtputf8"]:
            raise usage.UsageError("--smtputf8 and --no-smtputf8 contradict each other")
        if self["lmtp"] and self["no-enhanced-status-codes"]:
            raise usage.UsageError("--no-enhanced-status-codes: LMTP has to have them")

    def server_options(self) -> dict[str, Any]:
        options = super().server_options()
        if self["smtputf8"]:
            options["enable_SMTPUTF8"] = True
        for option in _ROWS:
            value = self[option.flag]
            if option.switch and value:
                options[option.name] = not option.default
            elif not option.switch and value is not None:
                options[option.name] = value
        return options


def named_by_flag(error: str) -> str:
    """An error about a keyword argument, in terms of the command line's option.

    :param error: an error of the server's constructor, which begins with the keyword.
    """
    keyword, rest = re.match(r"(\w*)(.*)", error, re.DOTALL).groups()  # type: ignore[union-attr]
    option = TABLE.get(keyword)
    return f"--{option.flag}{rest}" if option is not None and option.flag else error
