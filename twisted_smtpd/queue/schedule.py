"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["DAY", "HOUR", "Schedule", "seconds_of"]

HOUR = 3600.0
DAY = 24 * HOUR

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": HOUR, "d": DAY}

# A part of each wait, at most, by which it is shorter: messages that have failed together are not tried together.
_JITTER = 0.2


@dataclass(frozen=True)
class Schedule:
    """When a message that could not be delivered is tried again.

    :ivar first: seconds until the first retry; each further wait is twice as long.
    :ivar longest: seconds that a wait has at most.
    :ivar expiry: seconds after which a message is given up when a retry has failed, counted from when it was accepted.
    :ivar warning: seconds after which its sender is told that it is delayed; 0 for never.
    :raises ValueError: if one of them is out of bounds.
    """

    first: float = 10.0
    longest: float = HOUR
    expiry: float = 5 * DAY
    warning: float = 4 * HOUR

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.longest:
            raise ValueError("the first wait is above 0, and not longer than the longest")
        if self.expiry <= 0 or self.warning < 0:
            raise ValueError("the expiry is above 0, and the warning is not below 0")

    def wait(self, attempts: int, chance: Callable[[], float] = random.random) -> float:
        """The seconds until the next attempt.

        :param attempts: how many have failed, at least 1.
        :param chance: gives a number from 0 to 1.
        """
        # 2 to the power of 60 is beyond any bound; a greater exponent would overflow in the end.
        return float(min(self.first * 2 ** min(attempts - 1, 60), self.longest) * (1 - _JITTER * chance()))


def seconds_of(text: str) -> float:
    """A time on the command line: ``30``, ``10m``, ``4h``, ``5d``.

    :raises ValueError: it is none.
    """
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if unit not in _UNITS:
        raise ValueError(f"{text!r} is no time: write 30, 10m, 4h or 5d")
    return float(number) * _UNITS[unit]
