"""Slows down clients that guess passwords, by address: each failure makes the next attempts wait longer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred

__all__ = ["Throttle"]

# Seconds between two attempts from an address after its first failure; twice that after the second, and so on.
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
# What an attempt may wait for its turn; beyond, it is not made at all.
LONGEST_WAIT = 30.0
# An address that has behaved for so long starts anew.
FORGIVEN_AFTER = 900.0
# Passwords of one address that are checked at the same time, before the first failure of that address is known.
AT_ONCE = 4
# The number of addresses that are remembered, so that memory is limited.
MAX_ADDRESSES = 10_000


@dataclass(eq=False, repr=False)
class _Record:
    """What is known of an address that has failed.

    :ivar failures: how often.
    :ivar reserved: how many turns were taken that have not ended yet: each may become a failure.
    :ivar free_at: when the next turn begins.
    :ivar last: when it has failed last.
    """

    failures: int
    free_at: float
    last: float
    reserved: int = 0


@dataclass(eq=False, repr=False)
class _Gate:
    """The passwords of an address that are being checked.

    :ivar inside: how many.
    :ivar waiting: those that wait for one of them to be done, in order.
    :ivar opening: whether some are being let in at the moment.
    """

    inside: int = 0
    waiting: deque[Deferred[bool]] = field(default_factory=deque)
    opening: bool = False


class Throttle:
    """The authentications of one server, by address.

    All connections of an address wait for the same turns, so that many of them guess no faster than one: a turn is
    reserved when it begins, as if it failed.  A success gives back what it has reserved, but forgives nothing:
    otherwise a client that has an account could go on guessing at full speed.

    An address that has not failed needs no turn.  Its passwords are checked a few at a time, so that guesses that come
    together are known as such after the first few.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        # Those of addresses that have a password checked now; there are no more than connections.
        self._gates: dict[str, _Gate] = {}

    def has_failed(self, address: str | None, now: float) -> bool:
        """Whether an address has to wait for a turn.

        :param address: see :meth:`wait_for`.
        """
        return self._known(address, now) is not None

    def enter(self, address: str | None) -> Deferred[bool] | None:
        """Have a password checked; :meth:`leave` has to follow.

        :param address: see :meth:`wait_for`.
        :returns: ``None`` if it can be checked now, or what fires with ``True`` when it can.  With ``False`` it can
            not: the address has failed meanwhile, so it needs a turn.
        """
        if address is None:
            return None
        gate = self._gates.setdefault(address, _Gate())
        if gate.inside < AT_ONCE and not gate.waiting:
            gate.inside += 1
            return None
        # One that goes away while it waits is no longer among them.
        waiter: Deferred[bool] = Deferred(gate.waiting.remove)
        gate.waiting.append(waiter)
        return waiter

    def leave(self, address: str | None) -> None:
        """A check is done, or waits for its client."""
        if address is None:
            return
        gate = self._gates[address]
        gate.inside -= 1
        if gate.opening:
            # A check that took no time, below: the loop there goes on.
            return
        gate.opening = True
        while gate.waiting and gate.inside < AT_ONCE:
            gate.inside += 1
            gate.waiting.popleft().callback(True)
        gate.opening = False
        if not gate.inside:
            del self._gates[address]

    def wait_for(self, address: str | None, now: float) -> float | None:
        """Take a turn; :meth:`failed` or :meth:`ended` has to follow.

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
        record.reserved += 1
        record.free_at = turn + _delay(record.failures + record.reserved)
        return turn - now

    def ended(self, address: str | None, now: float) -> None:
        """A turn has ended without a failure."""
        record = self._known(address, now)
        if record is not None and record.reserved:
            record.reserved -= 1
            if not record.reserved:
                record.free_at = min(record.free_at, now + _delay(record.failures))

    def failed(self, address: str | None, now: float, in_turn: bool = True) -> None:
        """An attempt has failed.

        :param in_turn: whether it had a turn from :meth:`wait_for`.
        """
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
        record.reserved = max(record.reserved - in_turn, 0)
        record.last = now
        record.free_at = max(record.free_at, now + _delay(record.failures))
        self._records[address] = record
        gate = self._gates.get(address)
        if gate is not None:
            # They may come back at once, to wait for another one of their own.
            waiting, gate.waiting = gate.waiting, deque()
            while waiting:
                waiting.popleft().callback(False)

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
