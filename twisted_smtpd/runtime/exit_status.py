"""The exit status of a program whose reactor is told to stop."""

from __future__ import annotations

import atexit
import os
import sys

__all__ = ["leave_with"]


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
