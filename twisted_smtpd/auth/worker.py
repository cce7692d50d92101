"""Runs slow functions, such as password hashes, in threads: a few at a time, with a queue of limited length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from twisted_smtpd.runtime.reactors import in_thread

__all__ = ["Busy", "Worker"]

T = TypeVar("T")

# A hash takes a processor and 64 MiB: with more at a time each would only be slower.
MAX_RUNNING = 4
MAX_WAITING = 200


class Busy(Exception):
    """Too many jobs are waiting."""


class Worker:
    """Runs functions in threads.

    :param defer: runs a function in a thread: it is called with the function and its arguments, and returns a Deferred
        of the result; by default :func:`twisted_smtpd.runtime.reactors.in_thread`.
    """

    def __init__(self, defer: Callable[..., Deferred[Any]] = in_thread) -> None:
        self._defer = defer
        self._running = 0
        self._waiting: deque[tuple[Deferred[Any], Callable[..., Any], tuple[object, ...]]] = deque()

    def run(self, function: Callable[..., T], *arguments: object) -> Deferred[T]:
        """Run a function in a thread.

        A job that has begun goes on after its Deferred is cancelled, and counts until it is done: otherwise clients
        that hang up could make the server run any number of jobs.

        :returns: fires with the function's result.
        :raises Busy: if too many jobs are waiting.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Busy("too many passwords are being checked")
        outcome: Deferred[T] = Deferred(self._forget)
        self._waiting.append((outcome, function, arguments))
        self._start()
        return outcome

    def _forget(self, outcome: Deferred[Any]) -> None:
        self._waiting = deque(job for job in self._waiting if job[0] is not outcome)

    def _start(self) -> None:
        while self._waiting and self._running < MAX_RUNNING:
            outcome, function, arguments = self._waiting.popleft()
            self._running += 1
            self._defer(function, *arguments).addBoth(self._done, outcome)

    def _done(self, result: object, outcome: Deferred[Any]) -> None:
        self._running -= 1
        self._start()
        if not outcome.called:
            outcome.callback(result)
