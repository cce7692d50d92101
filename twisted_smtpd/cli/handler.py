"""The command-line options about the handler."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from twisted_smtpd.cli.groups import OptionGroup, own_parameter_row
from twisted_smtpd.cli.sources import resolved
from twisted_smtpd.handlers.registry import (
    HandlerError,
    handler_names,
    is_handler,
    make_handler,
    nearest_name,
    runs_alone,
)
from twisted_smtpd.options.command import COMMAND

__all__ = ["HandlerOptions"]


class HandlerOptions(OptionGroup):
    """Which handler decides what happens to the mail.

    :ivar handler: the handler, once the options are parsed.
    """

    handler: object

    optParameters: ClassVar[list[list[Any]]] = [own_parameter_row(COMMAND["class"])]

    def opt_help_handlers(self) -> NoReturn:
        """List the handlers that have a name, and exit."""
        names = handler_names()
        width = max(len(name) for name, _ in names)
        for name, summary in names:
            print(f"{name:{width}}  {summary}")
        sys.exit(0)

    def parseArgs(self, *arguments: str) -> None:
        self.arguments = arguments

    def postOptions(self) -> None:
        super().postOptions()
        if self.supervising:
            parts = _handlers(self.arguments) if self["class"] == "chain" else []
            for name in (self["class"], *parts):
                if reason := runs_alone(name):
                    raise usage.UsageError(f"--workers: not with {reason}")
            return
        # `twist` is a script in another folder, and a handler in the folder it is started from must be found.
        # At the end of the path, so that a file lying there can't take the place of an installed module.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        self.handler = self.shared_handler(self._make_handler)

    def _make_handler(self) -> object:
        try:
            return make_handler(self["class"], [_with_credential(word) for word in self.arguments])
        except HandlerError as error:
            hint = ""
            if self.arguments and not self.handler_given():
                word = self.arguments[0]
                meant = word if is_handler(word) else nearest_name(word)
                hint = f": did you mean -c {meant}?" if meant else ""
            raise usage.UsageError(f"{error}{hint}") from error


def _handlers(arguments: Sequence[str]) -> list[str]:
    """The words among a chain's arguments that name a handler."""
    return [*arguments[:1], *(word for before, word in pairwise(arguments) if before == "+")]


def _with_credential(word: str) -> str:
    """A handler's argument, where ``credential:NAME`` or ``--option=credential:NAME`` stands for a file of systemd."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return f"{option}{equals}{resolved(value)}"
