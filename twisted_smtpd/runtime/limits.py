"""What clients share, and what one address may have of it: connections, memory, rates, lines of the log.

``docs/how-to/internet.rst`` has the table: connections, memory, turns, rates.  An address is an IPv4 address or an IPv6
/64 (:func:`~twisted_smtpd.runtime.connections.limited_address`), behind PROXY and XCLIENT the client's.
``None`` stands for loopback addresses and Unix sockets, which have no limit of their own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from twisted.logger import Logger

try:
    import resource
except ImportError:  # no such limits here
    resource = None  # type: ignore[assignment]

__all__ = [
    *("DESCRIPTORS_KEPT", "DIALOG_LINES_A_SECOND", "LINES_A_SECOND", "MINUTE", "SECOND"),
    *("Key", "Lines", "Memory", "Rates", "most_connections", "say_most_connections"),
]

log = Logger()

#: File descriptors that clients leave to the rest of the process: listening ports, epoll and pipes (about 15), the
#: handler's files (one for each of the reactor's 10 threads), the next host's connections (20).
DESCRIPTORS_KEPT = 64

#: Seconds over which a rate is counted.
MINUTE = 60.0
#: Lines of the log that one address may cause in a second; and those of its dialog, which somebody has asked for.
LINES_A_SECOND = 50
DIALOG_LINES_A_SECOND = 1000
SECOND = 1.0
#: How many lines of a kind an address may have, and the address.
Key = tuple[int, str]
# As many addresses are remembered.  One that is forgotten earlier, because there are more, counts anew.
MAX_ADDRESSES = 10_000


def most_connections() -> int:
    """How many connections the process has file descriptors for.

    Without one, a handler can't open a file, and has to defer each message; the system's limit is shared by all.
    """
    if resource is None:
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, soft - min(DESCRIPTORS_KEPT, soft // 2))


def say_most_connections(wanted: int, most: int) -> None:
    """Say at the start if there can't be as many connections as the options allow.

    :param wanted: ``max_connections``.
    :param most: see :func:`most_connections`.
    """
    if most < wanted:
        log.info(
            "At most {most} connections, not {wanted}: the limit of open files (ulimit -n) leaves no room for more",
            most=most,
            wanted=wanted,
        )


class Memory:
    """The memory that large messages of each address take."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def hold(self, address: str, octets: int) -> int:
        """Count some more for an address, or less.

        :returns: what it holds now.
        """
        held = self._held.get(address, 0) + octets
        if held:
            self._held[address] = held
        else:
            self._held.pop(address, None)
        return held


@dataclass(eq=False, repr=False)
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


class Lines:
    """How many lines of the log each address has caused in its current second."""

    def __init__(self) -> None:
        self._counts: dict[Key, list[float]] = {}

    def another(self, key: Key, now: float) -> int:
        """Count one more.

        :param key: how many lines of this kind an address may have, and the address.
        :param now: the time in seconds.
        :returns: how many there were in this second.  After a second with too many, the next begins when
            :meth:`end_second` is called.
        """
        count = self._counts.get(key)
        if count is None or (now >= count[1] and count[0] <= key[0]):
            if count is None and len(self._counts) >= MAX_ADDRESSES:
                self._forget(now)
            self._counts[key] = [1, now + SECOND]
            return 1
        count[0] += 1
        return int(count[0])

    def end_second(self, key: Key) -> int:
        """Begin anew for an address that has had too many.

        :returns: how many there were.
        """
        return int(self._counts.pop(key, [0])[0])

    def _forget(self, now: float) -> None:
        """Forget the addresses whose second is over; if there is none, all that have lost no line."""
        too_many = {key: count for key, count in self._counts.items() if count[0] > key[0]}
        recent = {key: count for key, count in self._counts.items() if now < count[1]}
        self._counts = {**too_many, **recent} if len(recent) < MAX_ADDRESSES else too_many
