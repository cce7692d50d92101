"""The same events in the standard library's :mod:`logging`, for programs that are not built on Twisted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import provider

__all__ = ["LOGGER", "begin", "end", "is_bridged", "own_fields"]

#: The logger, as in aiosmtpd.
LOGGER = logging.getLogger("mail.log")

_LEVELS = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}
# What Twisted's older observers add to an event, and what the form of a record says by itself.
_NOT_OURS = frozenset(
    {"event", "failure", "format", "isError", "message", "session", "peer", "system", "text", "time", "why"}
)
# Servers that are open.
_users: list[object] = []


def is_bridged() -> bool:
    """Whether events go to :data:`LOGGER` at the moment."""
    return bool(_users)


def begin(user: object) -> None:
    """Have events of this package go to :data:`LOGGER`, until the last user has called :func:`end`."""
    if not _users:
        globalLogPublisher.addObserver(_observe)
    _users.append(user)


def end(user: object) -> None:
    """The opposite of :func:`begin`."""
    if user in _users:
        _users.remove(user)
        if not _users:
            globalLogPublisher.removeObserver(_observe)


def own_fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an event tells by itself, apart from what each event has."""
    return {
        name: value
        for name, value in event.items()
        if value is not None and name not in _NOT_OURS and not name.startswith("log_")
    }


@provider(ILogObserver)
def _observe(event: LogEvent) -> None:
    if not str(event.get("log_namespace", "")).startswith("twisted_smtpd"):
        return
    level = _LEVELS.get(event.get("log_level"), logging.INFO)
    if not LOGGER.isEnabledFor(level):
        return
    failure = event.get("log_failure")
    error = None if failure is None else (failure.type, failure.value, failure.getTracebackObject())
    text = formatEvent(event)
    record = LOGGER.makeRecord(LOGGER.name, level, str(event["log_namespace"]), 0, text, (), error)
    session = event.get("session")
    extra = {
        **own_fields(event),
        "event": event.get("event"),
        "session": getattr(session, "id", session),
        "peer": event.get("peer"),
    }
    for name, value in extra.items():
        # As in logging's own makeRecord(): a record's attributes are not to be overwritten.
        if name not in record.__dict__:
            setattr(record, name, value)
    LOGGER.handle(record)
