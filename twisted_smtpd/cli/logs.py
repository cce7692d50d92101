"""The command-line options about the log, which ``twisted-smtpd`` has; ``twist`` and ``twistd`` have their own."""

from __future__ import annotations

import sys
from typing import Any, ClassVar, TextIO

from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python import usage

from twisted_smtpd.cli.groups import OptionGroup, flag_row, own_parameter_row
from twisted_smtpd.options.command import COMMAND

__all__ = ["LogOptions"]


class LogOptions(OptionGroup):
    """Where the log goes, and what it says.

    :ivar log_stream: where it goes, once the options are parsed.
    """

    log_stream: TextIO

    optFlags: ClassVar[list[list[str | None]]] = [flag_row(COMMAND["trace"]), ["debug", None, "The same as --trace."]]
    optParameters: ClassVar[list[list[Any]]] = [
        own_parameter_row(COMMAND[name]) for name in ("log-format", "log-level", "log-file")
    ]

    def postOptions(self) -> None:
        super().postOptions()
        name = self["log-file"]
        try:
            # Appended to: the workers write to it as well, and so does the next start.
            self.log_stream = _STREAMS[name]() if name in _STREAMS else open(name, "a", encoding="utf-8")  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise usage.UsageError(f"--log-file: {name}: {getattr(error, 'strerror', None) or error}") from None

    def begin_log(self) -> None:
        """Write the log; what was logged before is written now."""
        observer = (jsonFileLogObserver if self["log-format"] == "json" else textFileLogObserver)(self.log_stream)
        level = LogLevel.debug if self["trace"] else LogLevel.levelWithName(self["log-level"])
        filtered = FilteringLogObserver(observer, [LogLevelFilterPredicate(defaultLogLevel=level)])
        # What handlers print goes to the standard output.
        globalLogBeginner.beginLoggingTo([filtered], redirectStandardIO=False)


_STREAMS = {None: lambda: sys.stderr, "+": lambda: sys.stderr, "-": lambda: sys.stdout}
