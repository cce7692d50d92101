"""The end of a process in bounded time, whatever its hooks do.

Twisted waits for its threads when it stops, and Python for its own.  A hook that hangs in one of them would keep the
process forever.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.logger import Logger

from twisted_smtpd.runtime.exit_status import program_name
from twisted_smtpd.runtime.lifecycle import STOP_TIMEOUT

__all__ = ["BoundedExit", "hears_signals"]

log = Logger()

# Seconds that threads have to end when all else has ended.
THREADS_TIME = 2.0
# Seconds beyond the grace and the time of the handler's stop(), after which the process ends though it is not stopped.
MARGIN = 5.0

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


def hears_signals() -> bool:
    """Whether this thread may set signal handlers."""
    return threading.current_thread() is threading.main_thread()


class BoundedExit:
    """Ends a process that a signal has told to stop.

    The first SIGINT or SIGTERM stops the reactor, as ever.  The second ends the grace.  The third ends the process.

    :param reactor: the reactor of a process that is ours.
    :param grace: seconds that messages in progress have to finish.
    :param hurry: ends the grace.
    :param last: is called before the process is ended by force.
    :param kill: ends the process; gets the signal, or ``None``.
    :param sleep: waits for so many seconds.
    :ivar number: the signal that has told the process to stop.
    """

    def __init__(
        self,
        reactor: Any,
        grace: float,
        hurry: Callable[[], object],
        *,
        last: Callable[[], object] | None = None,
        kill: Callable[[int | None], object] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._reactor = reactor
        self._grace = grace
        self._hurry = hurry
        self._last = last
        self._kill = _kill if kill is None else kill
        self._sleep = sleep
        self.number: int | None = None
        self._signals = 0

    def install(self, take_signals: bool = True) -> None:
        """Bound the end of the reactor.

        :param take_signals: whether signals are for this process; else another one acts for it.
        """
        self._reactor.addSystemEventTrigger("before", "shutdown", self._begins)
        # Before the reactor waits for its threads: it adds what does that when it makes the first.
        self._reactor.addSystemEventTrigger("during", "shutdown", self._threads_are_left)
        if take_signals:
            self._reactor.callWhenRunning(self._take_signals)

    def _take_signals(self) -> None:
        if not hears_signals():
            return
        for number in _NUMBERS:
            former = signal.getsignal(number)
            if callable(former):
                signal.signal(number, self._told(former))

    def _told(self, stop: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def told(number: int, frame: FrameType | None) -> None:
            self._signals += 1
            self.number = number
            if self._signals == 1:
                # Not only when the reactor acts: a hook may block it.
                self._begins()
                stop(number, frame)
            elif self._signals == 2:
                self._reactor.callFromThread(self._hurry)
            else:
                self._restore()
                self._end_now()

        return told

    def _begins(self) -> None:
        self._end_after(self._grace + STOP_TIMEOUT + MARGIN)

    def _threads_are_left(self) -> None:
        self._restore()
        self._end_after(THREADS_TIME)

    def _restore(self) -> None:
        """Have the next signal end the process at once."""
        if self._signals and hears_signals():
            for number in _NUMBERS:
                signal.signal(number, signal.SIG_DFL)

    def _end_after(self, seconds: float) -> None:
        threading.Thread(target=self._end, args=(seconds,), name="end of the process", daemon=True).start()

    def _end(self, seconds: float) -> None:
        self._sleep(seconds)
        _say(f"{program_name()}: hooks are still at work: ending without them")
        self._end_now()

    def _end_now(self) -> None:
        if self._last is not None:
            self._last()
        self._kill(self.number)


def _say(line: str) -> None:
    # Not to the log: what reads it may be what hangs, and so may a pipe.
    stream = sys.__stderr__
    if stream is None:
        return
    try:
        if select.select([], [stream], [], 0)[1]:
            os.write(stream.fileno(), f"{line}\n".encode())
    except (OSError, ValueError):
        pass


def _kill(number: int | None) -> None:
    """End this process, by a signal where its default action is in force."""
    if number is not None and signal.getsignal(number) == signal.SIG_DFL:
        os.kill(os.getpid(), number)
    os._exit(1)
