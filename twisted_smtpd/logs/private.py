"""The private names of Twisted's logging that this package uses, and what happens without them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import globalLogBeginner, globalLogPublisher

__all__ = ["somebody_listens"]


def _find() -> Callable[[], bool]:
    """Whether anybody sees an event, as a function.

    Until logging is begun, Twisted keeps the last 200 events, which costs more than the rest of a connection's end.
    Without these names each event is published, whether or not anybody sees it.
    """
    observers = getattr(globalLogPublisher, "_observers", None)
    if not isinstance(observers, list) or not hasattr(globalLogBeginner, "_temporaryObserver"):
        return lambda: True
    beginner = globalLogBeginner

    def listens() -> bool:
        return len(observers) != 1 or observers[0] is not beginner._temporaryObserver

    return listens


#: Whether anybody sees an event that is less than critical; a critical one is always written to the standard error.
somebody_listens = _find()
