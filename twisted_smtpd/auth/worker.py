"""Runs slow functions, such as password hashes, in threads: a few at a time, with a fair queue of limited length."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from twisted_smtpd.runtime.reactors import in_thread

__all__ = ["Busy", "Worker"]

T = TypeVar("T")

# A hash takes a processor and 64 MiB: with more at a time each would only be slower.
MAX_RUNNING = 4
MAX_WAITING = 200
# Of these, one owner's.
MAX_WAITING_OF_ONE = 50


_Job = tuple[Deferred[Any], Callable[..., Any], tuple[object, ...]]


class Busy(Exception):
    """Too many jobs are waiting."""


class Worker:
    """Runs functions in threads.

    Those that wait get their turns by owner, one after the other, so that no owner waits for all jobs of another.

    :param defer: runs a function in a thread: it is called with the function and its arguments, and returns a Deferred
        of the result; by default :func:`twisted_smtpd.runtime.reactors.in_thread`.
    """

    def __init__(self, defer: Callable[..., Deferred[Any]] = in_thread) -> None:
        self._defer = defer
        self._running = 0
        self._waiting: OrderedDict[Hashable, deque[_Job]] = OrderedDict()

    def run(self, function: Callable[..., T], *arguments: object, owner: Hashable = None) -> Deferred[T]:
        """Run a function in a thread.

        A job that has begun goes on after its Deferred is cancelled, and counts until it is done: otherwise clients
        that hang up could make the server run any number of jobs.

        :param owner: for whom it is done, such as the client's address; ``None`` has no limit of its own.
        :returns: fires with the function's result, or with :exc:`Busy` if the job had to make room for another owner's.
        :raises Busy: if too many jobs are waiting.
        """
        waiting = len(self._waiting.get(owner, ()))
        if (owner is not None and waiting >= MAX_WAITING_OF_ONE) or not self._room_for(waiting):
            raise Busy("too many passwords are being checked")
        outcome: Deferred[T] = Deferred(self._forget)
        self._waiting.setdefault(owner, deque()).append((outcome, function, arguments))
        self._start()
        return outcome

    def _room_for(self, waiting: int) -> bool:
        """Whether one more job may wait, of an owner that has so many; if need be, one of a greater number goes."""
        if sum(map(len, self._waiting.values())) < MAX_WAITING:
            return True
        owner = max(self._waiting, key=lambda owner: len(self._waiting[owner]), default=None)
        if len(self._waiting.get(owner, ())) <= waiting + 1:
            return False
        outcome = self._waiting[owner][-1][0]
        self._forget(outcome)
        outcome.errback(Busy("too many passwords are being checked"))
        return True

    def _forget(self, outcome: Deferred[Any]) -> None:
        for owner, jobs in tuple(self._waiting.items()):
            self._waiting[owner] = deque(job for job in jobs if job[0] is not outcome)
            if not self._waiting[owner]:
                del self._waiting[owner]

    def _start(self) -> None:
        while self._waiting and self._running < MAX_RUNNING:
            owner, jobs = next(iter(self._waiting.items()))
            outcome, function, arguments = jobs.popleft()
            if jobs:
                self._waiting.move_to_end(owner)
            else:
                del self._waiting[owner]
            self._running += 1
            self._defer(function, *arguments).addBoth(self._done, outcome)

    def _done(self, result: object, outcome: Deferred[Any]) -> None:
        self._running -= 1
        self._start()
        if not outcome.called:
            outcome.callback(result)
