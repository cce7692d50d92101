"""What clients share, and what one address may have of it.

``docs/internet.rst`` has the table: connections, memory, turns, rates.  An address is an IPv4 address or an IPv6 /64
(:func:`~twisted_smtpd.runtime.connections.limited_address`), behind PROXY and XCLIENT the client's.  ``None`` stands
for loopback addresses and Unix sockets, which have no limit of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MINUTE", "Rates"]

#: Seconds over which a rate is counted.
MINUTE = 60.0
# As many addresses are remembered.  One that is forgotten earlier, because there are more, counts anew.
MAX_ADDRESSES = 10_000


@dataclass(slots=True)
class _Minute:
    """What an address has done in a minute.

    :ivar since: when it began, in seconds.
    """

    since: float
    connections: int = 0
    messages: int = 0
    recipients: int = 0


class Rates:
    """How much each address has done in its current minute."""

    def __init__(self) -> None:
        # In the order in which the minutes began.
        self._minutes: dict[str, _Minute] = {}

    def another(self, what: str, address: str | None, limit: int, now: float) -> bool:
        """Count one more of something.

        :param what: ``"connections"``, ``"messages"`` or ``"recipients"``.
        :param address: the client's; ``None`` is not counted.
        :param limit: how many a minute are allowed; 0 for any number.
        :param now: the time in seconds.
        :returns: whether it is allowed.  What isn't does not count, so that a client which goes on trying is served
            again in the next minute.
        """
        if not limit or address is None:
            return True
        minute = self._minutes.get(address)
        if minute is None or now - minute.since >= MINUTE:
            minute = self._begin(address, now)
        count: int = getattr(minute, what)
        if count >= limit:
            return False
        setattr(minute, what, count + 1)
        return True

    def _begin(self, address: str, now: float) -> _Minute:
        minutes = self._minutes
        minutes.pop(address, None)
        while minutes:
            oldest = next(iter(minutes))
            if len(minutes) < MAX_ADDRESSES and now - minutes[oldest].since < MINUTE:
                break
            del minutes[oldest]
        minute = minutes[address] = _Minute(now)
        return minute
