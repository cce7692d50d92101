"""Starts the log of a program: which form, which level, where."""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogBeginner
from zope.interface import implementer

from twisted_smtpd.logs.forms import FORMS, Form, untimed_text_line
from twisted_smtpd.logs.writer import LineWriter, open_log

__all__ = ["FORMATS", "LEVELS", "start_logging"]

FORMATS = tuple(FORMS)
#: From all to the gravest.
LEVELS = tuple(level.name for level in LogLevel.iterconstants())

_ORDER = {level: number for number, level in enumerate(LogLevel.iterconstants())}
# What Twisted's ports say without a name; a service says where it listens.
_OF_PORTS = re.compile(r"\S+ starting on \S+|\(\S+ Port \S+ Closed\)")
_WARN = _ORDER[LogLevel.warn]


@implementer(ILogObserver)
class Observer:
    """Writes the events of Twisted's log that are grave enough.

    :param form: makes a line of an event.
    :param writer: where it is written.
    :param level: the name of the least grave level.
    """

    def __init__(self, form: Form, writer: LineWriter, level: str = "info") -> None:
        self._form = form
        self._writer = writer
        self._least = LEVELS.index(level)

    def __call__(self, event: LogEvent) -> None:
        grave = _ORDER.get(event.get("log_level"), 1)
        if grave < self._least:
            return
        if grave < _WARN and self._least and _is_of_twisted(event):
            return
        if line := self._form(event):
            self._writer.write(line)


def _is_of_twisted(event: Mapping[str, Any]) -> bool:
    """Whether an event is of Twisted's own; what it says below a warning is for those who debug it."""
    namespace = str(event.get("log_namespace", ""))
    if namespace == "log_legacy":
        message = event.get("message")
        return bool(message) and _OF_PORTS.fullmatch(str(message[0])) is not None  # type: ignore[index]
    return namespace.startswith("twisted.") or namespace == "twisted"


def start_logging(
    format: str = "text", level: str = "info", file: str | None = None, lock: int | None = None
) -> Observer:
    """Begin the log of this program; what the program prints is left alone.

    :param format: one of :data:`FORMATS`.
    :param level: the least grave level that is written, one of :data:`LEVELS`.
    :param file: the name of a file to append to; ``None`` or ``"-"`` for the standard error.
    :param lock: see :class:`~twisted_smtpd.logs.writer.LineWriter`.
    :returns: what writes it.
    :raises ValueError: for a format or a level that does not exist.
    :raises OSError: if the file can't be opened.
    """
    if format not in FORMS:
        raise ValueError(f"a log format is {' or '.join(FORMATS)}, not {format!r}")
    if level not in LEVELS:
        raise ValueError(f"a log level is {', '.join(LEVELS[:-1])} or {LEVELS[-1]}, not {level!r}")
    form = FORMS[format]
    if file is None or file == "-":
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        writer = LineWriter(2, encoding, lock=lock)
        if format == "text" and _is_journal(2):
            form = untimed_text_line
    else:
        writer = LineWriter(open_log(file), path=os.path.abspath(file))
    observer = Observer(form, writer, level)
    atexit.register(writer.close)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    return observer


def _is_journal(descriptor: int) -> bool:
    """Whether a descriptor leads to systemd's journal, which notes the time of each line."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
