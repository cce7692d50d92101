"""Files that are read again when they have changed."""

from __future__ import annotations

import os

__all__ = ["mark_of", "open_at_once"]


def mark_of(status: os.stat_result) -> tuple[int, ...]:
    """The mark of a file, which differs when the file has changed."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def open_at_once(path: str, flags: int) -> int:
    """An opener for :func:`open`: a FIFO without a writer must not make the server wait."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
