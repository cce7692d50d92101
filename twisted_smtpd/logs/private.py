"""Whether anybody sees the events of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import globalLogBeginner, globalLogPublisher

from twisted_smtpd.runtime.twisted_private import LISTENERS

__all__ = ["somebody_listens"]


def _find() -> Callable[[], bool]:
    if not LISTENERS.is_there():
        return lambda: True
    # Twisted has no other way to ask.
    publisher: Any = globalLogPublisher
    beginner: Any = globalLogBeginner
    observers: list[Any] = publisher._observers

    def listens() -> bool:
        # A program may have begun its log without observers.
        return bool(observers) and (observers[0] is not beginner._temporaryObserver or len(observers) > 1)

    return listens


#: Whether anybody sees an event that is less than critical.  Until a log is begun, Twisted would keep the last 200
#: events, which takes longer than all the rest of a connection's end.
somebody_listens = _find()
