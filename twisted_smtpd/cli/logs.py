"""The command-line options about the log, which ``twisted-smtpd`` has; ``twist`` and ``twistd`` have their own."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from twisted.python import usage

from twisted_smtpd.cli.groups import OptionGroup, own_parameter_row
from twisted_smtpd.logs.setup import start_logging
from twisted_smtpd.logs.writer import open_log
from twisted_smtpd.options.command import COMMAND

__all__ = ["LogOptions"]


class LogOptions(OptionGroup):
    """Where the log goes, and what it says."""

    optParameters: ClassVar[list[list[Any]]] = [
        own_parameter_row(COMMAND[name]) for name in ("log-format", "log-level", "log-file")
    ]

    def postOptions(self) -> None:
        super().postOptions()
        name = self["log-file"]
        if name not in _STANDARD_ERROR:
            try:
                os.close(open_log(name))
            except (OSError, ValueError) as error:
                raise usage.UsageError(f"--log-file: {name}: {getattr(error, 'strerror', None) or error}") from None

    def begin_log(self, lock: int | None = None) -> None:
        """Write the log; what was logged before is written now.

        :param lock: see :class:`~twisted_smtpd.logs.writer.LineWriter`.
        """
        name = self["log-file"]
        start_logging(self["log-format"], self["log-level"], None if name in _STANDARD_ERROR else name, lock)


_STANDARD_ERROR = (None, "-", "+")
