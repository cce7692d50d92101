"""The command-line options about the handler."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from twisted_smtpd.cli.groups import OptionGroup
from twisted_smtpd.handlers.registry import HandlerError, handler_names, make_handler

__all__ = ["HandlerOptions"]


class HandlerOptions(OptionGroup):
    """Which handler decides what happens to the mail.

    :ivar handler: the handler, once the options are parsed.
    """

    handler: object
    arguments: Sequence[str] = ()

    optParameters: ClassVar[list[list[Any]]] = [
        ["class", "c", "debugging", "Handler: a name (see --help-handlers) or a dotted path, package.module.Class."],
    ]

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
            return
        # `twist` is a script in another folder, and a handler in the folder it is started from must be found.
        # At the end of the path, so that a file lying there can't take the place of an installed module.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            self.handler = make_handler(self["class"], self.arguments)
        except HandlerError as error:
            raise usage.UsageError(str(error)) from error
