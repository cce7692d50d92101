"""Slows down clients that guess passwords, by address: each failure makes the next attempts wait longer."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Throttle"]

# Seconds between two attempts from an address after its first failure; twice that after the second, and so on.
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
# What an attempt may wait for its turn; beyond, it is not made at all.
LONGEST_WAIT = 30.0
# An address that has behaved for so long starts anew.
FORGIVEN_AFTER = 900.0
# The number of addresses that are remembered, so that memory is limited.
MAX_ADDRESSES = 10_000


@dataclass
class _Record:
    failures: int
    free_at: float
    last: float


class Throttle:
    """The failed authentications of one server, by address.

    All connections of an address wait for the same turn, so that many of them guess no faster than one.  A success
    forgives nothing: otherwise a client that has an account could go on guessing at full speed.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def wait_for(self, address: str | None, now: float) -> float | None:
        """Take a turn.

        :param address: the client's, as :func:`~twisted_smtpd.runtime.connections.limited_address` gives it;
            ``None`` is exempt.
        :param now: the time in seconds.
        :returns: the seconds until it comes, or ``None`` if it is too far away.
        """
        record = self._known(address, now)
        if record is None:
            return 0.0
        turn = max(now, record.free_at)
        if turn - now > LONGEST_WAIT:
            return None
        record.free_at = turn + _delay(record.failures)
        return turn - now

    def failed(self, address: str | None, now: float) -> None:
        """An attempt has failed."""
        if address is None:
            return
        record = self._known(address, now)
        if record is None:
            if len(self._records) >= MAX_ADDRESSES:
                # The one that has been quiet for the longest time: it is moved to the end when it fails.
                del self._records[next(iter(self._records))]
            record = _Record(0, now, now)
        else:
            del self._records[address]
        record.failures += 1
        record.last = now
        record.free_at = max(record.free_at, now + _delay(record.failures))
        self._records[address] = record

    def _known(self, address: str | None, now: float) -> _Record | None:
        if address is None:
            return None
        record = self._records.get(address)
        if record is not None and now - record.last > FORGIVEN_AFTER:
            del self._records[address]
            return None
        return record


def _delay(failures: int) -> float:
    # The exponent is bounded first: two to the power of a million failures would take the machine instead.
    return min(FIRST_DELAY * 2.0 ** min(failures - 1, 30), LONGEST_DELAY)
