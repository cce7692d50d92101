"""A handler that computes, for ``twist smtpd -c benchmarks.servers.hashing.Handler``."""

from __future__ import annotations

import hashlib
import time
from typing import Any

BLOCK = bytes(7 * 2**18)
REPEATS = 100


def work() -> None:
    """About a millisecond of CPU, where the processor has instructions for SHA-256."""
    hashlib.sha256(BLOCK)


def work_seconds() -> float:
    """How much CPU :func:`work` takes on this machine."""
    begin = time.process_time()
    for _ in range(REPEATS):
        work()
    return (time.process_time() - begin) / REPEATS


class Handler:
    """Computes for each message before it answers."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        work()
        return "250 OK"
