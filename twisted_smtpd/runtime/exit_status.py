"""What a program is called in its errors, and its exit status when its reactor is told to stop."""

from __future__ import annotations

import atexit
import os
import sys

__all__ = ["EX_USAGE", "call_program", "leave_with", "program_name"]

#: The exit status where the command line is wrong (sysexits.h).
EX_USAGE = 64

_names = ["twist smtpd"]


def call_program(name: str) -> None:
    """Set what the program of this process is called.

    :param name: the command as it is typed.
    """
    _names[:] = [name]


def program_name() -> str:
    """What the program is called at the start of an error: ``twisted-smtpd``, or ``twist smtpd``."""
    return _names[0]


def leave_with(status: int, line: str = "") -> None:
    """Have this process end with a status, when its reactor has stopped.

    :param status: the exit status.
    :param line: is written to the standard error at once.
    """
    # Not sys.stderr: Twisted has put its log in the place of that.
    if line and sys.__stderr__ is not None:
        sys.__stderr__.write(f"{line}\n")
    atexit.register(_leave, status)


def _leave(status: int) -> None:
    # A reactor that is told to stop has no status to give, and at this point only this changes Python's.
    for stream in (sys.stdout, sys.stderr, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(status)
