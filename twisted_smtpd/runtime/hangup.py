"""SIGHUP: has files read again; ends a program that was started on a terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from twisted_smtpd.runtime.leaving import hears_signals

__all__ = ["Hangup"]

log = Logger()


class Hangup:
    """Hears SIGHUP.

    A terminal sends it when its window is closed, a service manager to have files read again.  So it depends on where
    the program was started.  A program that ``nohup`` started outlives its terminal.

    :param reactor: the reactor of a process that is ours.
    :param reload: reads files again; it is called by the reactor.
    :param may_end: whether the signal may end this process; of a worker, the parent decides.
    """

    def __init__(self, reactor: Any, reload: Callable[[], object], *, may_end: bool = True) -> None:
        self._reactor = reactor
        self._reload = reload
        self._may_end = may_end
        self._former: Any = None
        self._ends = self._ended = False

    def listen(self, needed: bool) -> None:
        """Hear the signal from now on.

        :param needed: whether there are files to read again.  Without any, the signal is left to another one that has a
            use for it; by default it would end the process.
        """
        if not hasattr(signal, "SIGHUP") or not hears_signals():
            return
        former = signal.getsignal(signal.SIGHUP)
        if needed or former == signal.SIG_DFL:
            self._ends = self._may_end and former != signal.SIG_IGN and _has_terminal()
            self._former = signal.signal(signal.SIGHUP, self._heard)

    def leave(self) -> None:
        """Leave the signal to what heard it before."""
        if self._former is not None:
            signal.signal(signal.SIGHUP, self._former)
            self._former = None

    def _heard(self, *_: object) -> None:
        # A signal comes between any two instructions.
        if not self._ends:
            self._reactor.callFromThread(self._reload)
        elif not self._ended:
            # A terminal that is closed may send it twice, which does not shorten the grace.
            self._ended = True
            self._reactor.callFromThread(log.info, "SIGHUP: ending, since it was started on a terminal")
            signal.raise_signal(signal.SIGTERM)


def _has_terminal() -> bool:
    """Whether this process was started on a terminal, which sends the signal when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
