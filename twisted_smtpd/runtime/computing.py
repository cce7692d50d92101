"""What computes for long about a message, in a thread, and one at a time.

Threads that compute take Python's lock from the reactor in turn: it waits ``sys.getswitchinterval()`` for each of them,
and again after each system call.  Several get no more done than one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import DeferredLock

from twisted_smtpd.runtime.reactors import in_thread, running_loop, wait_for

__all__ = ["LARGE", "MANY_LINES", "compute", "give_way", "is_large"]

#: Octets, and lines, of a message above which what takes time for each of them belongs into a thread: below, it takes
#: some milliseconds at most.
LARGE = 2**16
MANY_LINES = 500

# Seconds that the reactor waits for a thread which computes; Python's own are ten times as many.
_SWITCH_INTERVAL = 0.0005


class _Twisted:
    """In the place of the loop, where the reactor has none."""


_TWISTED = _Twisted()
# A lock belongs to a loop: one that has ended keeps none from the next loop.
_locks: WeakKeyDictionary[Any, DeferredLock] = WeakKeyDictionary()


def is_large(content: str | bytes | None) -> bool:
    """Whether work on a message is to be done in a thread."""
    if content is None:
        return False
    if len(content) > LARGE:
        # Its lines are not counted: for 30 MB of empty ones that takes a tenth of a second.
        return True
    # The email package takes up to a second for 50 KB of short lines in nested parts.
    return (content.count("\n") if isinstance(content, str) else content.count(b"\n")) > MANY_LINES


async def compute(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a thread, when those that were asked for before have ended.

    :param function: the function; it should not wait for a disk or the network.
    :returns: what it returns.
    """
    lock = _locks.setdefault(running_loop() or _TWISTED, DeferredLock())
    return await wait_for(lock.run(in_thread, function, *arguments))


def give_way() -> None:
    """Have threads that compute give way to the reactor sooner; for a process that is ours."""
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
