"""How long something takes: a histogram that costs a search among a few bounds."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

__all__ = ["SECONDS", "Histogram"]

#: Bounds in seconds, from a handler in memory to a next host that is slow.
SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(slots=True)
class Histogram:
    """Counts values by size.

    :ivar bounds: the upper bound of each class, ascending; a last class has what is above them.
    :ivar counts: how many values each class has.
    :ivar sum: the sum of all values.
    """

    bounds: tuple[float, ...] = SECONDS
    counts: list[int] = field(init=False)
    sum: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: Histogram) -> None:
        """Add the values of another histogram with the same bounds."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
