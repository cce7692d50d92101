"""SIGHUP: has files read again, or ends a program whose terminal was closed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted_smtpd.runtime.leaving import hears_signals

__all__ = ["Hangup"]


class Hangup:
    """Hears SIGHUP.

    :param reactor: a reactor of a process that is ours; it is stopped when the terminal was closed.
    :param reload: reads files again; it is called by the reactor.
    """

    def __init__(self, reactor: Any, reload: Callable[[], object]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._former: Any = None
        self._has_terminal = False

    def listen(self, needed: bool) -> None:
        """Hear the signal from now on.

        :param needed: whether there are files to read again.  Without any, the signal is left to another one that has a
            use for it; by default it would end the process.
        """
        if not hasattr(signal, "SIGHUP") or not hears_signals():
            return
        if needed or signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            self._has_terminal = _terminal_is_there()
            self._former = signal.signal(signal.SIGHUP, self._heard)

    def leave(self) -> None:
        """Leave the signal to what heard it before."""
        if self._former is not None:
            signal.signal(signal.SIGHUP, self._former)
            self._former = None

    def _heard(self, *_: object) -> None:
        # A signal comes between any two instructions.
        if self._has_terminal and not _terminal_is_there():
            # The window was closed.  Without it the server would stay, and keep its port.
            self._reactor.callFromThread(self._reactor.stop)
        else:
            self._reactor.callFromThread(self._reload)


def _terminal_is_there() -> bool:
    """Whether this process has a terminal that could hang up, and has not."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
