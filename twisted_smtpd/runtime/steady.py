"""A time that does not jump when the machine's clock is set.

Twisted's reactors ask ``time.time``.  When a clock is set forward by an hour, all that waits for less is due at once;
when it is set back, nothing is due for an hour more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.runtime import seconds as wall_clock

__all__ = ["Unfrozen", "differences", "make_steady", "steady_seconds"]


def _real_monotonic() -> Callable[[], float]:
    if isinstance(time.monotonic, BuiltinFunctionType) or not hasattr(time, "clock_gettime"):
        return time.monotonic
    # A test that has frozen the time imports this module; this function is left alone.
    return partial(time.clock_gettime, time.CLOCK_MONOTONIC)


class Unfrozen:
    """A clock that goes on in a test that freezes the time.

    freezegun replaces ``time.monotonic`` in all modules, but not in a class.
    """

    monotonic: Callable[[], float] = staticmethod(_real_monotonic())


# What is logged with a reactor's time has the right date, as long as the clock is not set.
_BEGAN = time.time() - Unfrozen.monotonic()


def steady_seconds() -> float:
    """The seconds since 1970 by the clock at the start of the program, whatever becomes of that clock since."""
    return _BEGAN + Unfrozen.monotonic()


def make_steady(reactor: Any) -> None:
    """Have a reactor's timers not follow the machine's clock, if they do; for a process that is ours.

    :param reactor: the reactor.
    """
    if getattr(reactor, "seconds", None) is wall_clock:
        reactor.seconds = steady_seconds


def differences(clock: IReactorTime) -> Callable[[], float]:
    """A function that gives the time in seconds, of which only differences mean anything.

    :param clock: the provider of time; where that is the machine's, another one is taken that does not jump.
    """
    # Asked for each read, so it is the function itself.
    return Unfrozen.monotonic if clock.seconds in (wall_clock, steady_seconds) else clock.seconds
