"""Requests that wait for a message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from twisted_smtpd.store.summary import Change, Summary

__all__ = ["MAX_WAITING", "Closed", "TooMany", "Waiting"]

#: Requests that may wait at the same time.
MAX_WAITING = 100
# Looks a second that all requests have together, however many messages arrive: each look asks the store.  One that
# has not looked for a while looks at once.
_LOOKS = 200
_PAUSE = 0.05

Look = Callable[[], Awaitable["list[Summary]"]]


class TooMany(Exception):
    """As many requests wait as may."""


class Closed(Exception):
    """The server stops."""


class _Waiter:
    """One request that waits."""

    def __init__(self) -> None:
        self.stirred: Deferred[None] | None = None
        self.changed = False

    def stir(self) -> None:
        """Look again."""
        self.changed = True
        stirred, self.stirred = self.stirred, None
        if stirred is not None:
            stirred.callback(None)

    def wake(self) -> Deferred[None]:
        """Fires when something has changed since the last look."""
        woken: Deferred[None] = Deferred()
        if self.changed:
            woken.callback(None)
        else:
            self.stirred = woken
        return woken


class Waiting:
    """Has requests wait until messages are there.

    :param clock: the provider of time.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waiters: set[_Waiter] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiters)

    def changed(self, change: Change) -> None:
        """Have those that wait look again."""
        if change.kind in ("new", "restored", "tags", "unseen", "seen"):
            for waiter in tuple(self._waiters):
                waiter.stir()

    def close(self) -> None:
        """End all waiting."""
        self._closed = True
        for waiter in tuple(self._waiters):
            waiter.stir()

    async def until(self, look: Look, count: int, seconds: float) -> list[Summary]:
        """Wait until enough messages are there.

        :param look: gives the messages that match, as many as are wanted at most.
        :param count: how many have to be there.
        :param seconds: how long to wait at most.
        :returns: them; fewer if the time has passed.
        :raises TooMany: if too many wait already.
        :raises Closed: if the server stops.
        """
        if len(self._waiters) >= MAX_WAITING:
            raise TooMany
        waiter = _Waiter()
        self._waiters.add(waiter)
        end = self._clock.seconds() + seconds
        try:
            while True:
                waiter.changed = False
                begin = self._clock.seconds()
                found = await look()
                left = end - self._clock.seconds()
                if len(found) >= count or left <= 0:
                    return found
                if not await self._stirred(waiter, left):
                    return await look()
                if self._closed:
                    # Before another look: the store stops, too.
                    raise Closed
                # Not at once: the store tells of a message while its sender waits for 250.
                pause = max(_PAUSE, len(self._waiters) / _LOOKS)
                await self._pause(max(0.0, begin + pause - self._clock.seconds()))
        finally:
            self._waiters.discard(waiter)

    async def _stirred(self, waiter: _Waiter, seconds: float) -> bool:
        """Whether something changes in time."""
        woken = waiter.wake()
        late = self._clock.callLater(seconds, self._late, waiter)
        try:
            await woken
        finally:
            in_time: bool = late.active()
            if in_time:
                late.cancel()
        return in_time

    @staticmethod
    def _late(waiter: _Waiter) -> None:
        stirred, waiter.stirred = waiter.stirred, None
        if stirred is not None:
            stirred.callback(None)

    async def _pause(self, seconds: float) -> None:
        pause: Deferred[None] = Deferred()
        call = self._clock.callLater(seconds, pause.callback, None)
        try:
            await pause
        finally:
            if call.active():
                call.cancel()
