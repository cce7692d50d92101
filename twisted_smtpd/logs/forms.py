"""The two forms of the log: a line of text for each event, or a JSON object for each.

An event of :mod:`twisted_smtpd.logs.events` and any other one of Twisted's log look the same in them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

from twisted_smtpd.logs.bridge import own_fields
from twisted_smtpd.logs.escaping import clean, peer_text
from twisted_smtpd.logs.events import EVENTS
from twisted_smtpd.session import Session

__all__ = ["FORMS", "Form", "json_line", "text_line", "untimed_text_line"]

#: Makes a line, without its end, of an event; ``""`` for none.
Form = Callable[[Mapping[str, Any]], str]

_NAMES = {level: level.name for level in LogLevel.iterconstants()}


def _level(event: Mapping[str, Any]) -> str:
    return str(_NAMES.get(event.get("log_level"), "info"))


def _who(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """Session and address of the client that an event is about; ``None`` for one about no client."""
    session = event.get("session")
    if isinstance(session, Session):
        return session.id, peer_text(session.peer)
    peer = event.get("peer")
    if isinstance(session, str):
        return session, peer if isinstance(peer, str) else peer_text(peer)
    return None


def _what(event: Mapping[str, Any], who: tuple[str, str] | None) -> str:
    """What an event says, without the client, whom each form has in a place of its own."""
    row = EVENTS.get(event["event"]) if "event" in event and "text" not in event else None
    if row is not None:
        return row.render(event)
    text = formatEvent(cast(LogEvent, event))
    if who is not None:
        for prefix in (f"{who[0]} {who[1]}: ", f"{who[0]}: "):
            text = text.removeprefix(prefix)
    return text


def _traceback(event: Mapping[str, Any]) -> str | None:
    failure = event.get("log_failure")
    return failure.getTraceback() if isinstance(failure, Failure) else None


# -- text --------------------------------------------------------------------------------------------------------------

_second = 0
_stamp = ""
_zone = ""


def _time(seconds: float) -> str:
    """A time as ISO 8601 has it, with the zone of this machine: ``2026-01-02T03:04:05.678+01:00``."""
    global _second, _stamp, _zone
    second = int(seconds)
    if second != _second:
        # Once a second only: this takes longer than the rest of a line.
        local = datetime.fromtimestamp(second).astimezone().isoformat()
        _second, _stamp, _zone = second, local[:19], local[19:]
    return f"{_stamp}.{int((seconds - second) * 1000):03d}{_zone}"


def untimed_text_line(event: Mapping[str, Any]) -> str:
    """``info 5e1f-1 192.0.2.1:4321 refused "VRFY anne": 252 ...``, for a log that adds the time by itself."""
    who = _who(event)
    text = _what(event, who)
    traceback = _traceback(event)
    if traceback is not None:
        text = f"{text}\n{traceback}"
    if not text:
        return ""
    if not text.isprintable():
        # More lines than one are of an error; they are indented, so that none can be taken for another event.
        first, *others = text.rstrip("\n").replace("\r", "\\r").split("\n")
        text = "\n".join([_visible(first), *(f"    {_visible(line)}" for line in others)])
    return f"{_level(event)} {text}" if who is None else f"{_level(event)} {who[0]} {who[1]} {text}"


def _visible(line: str) -> str:
    return line if line.isprintable() else "".join(c if c.isprintable() else clean(c) for c in line)


def text_line(event: Mapping[str, Any]) -> str:
    """The same with the time."""
    line = untimed_text_line(event)
    return line and f"{_time(event.get('log_time') or time.time())} {line}"


# -- JSON --------------------------------------------------------------------------------------------------------------


def json_line(event: Mapping[str, Any]) -> str:
    """One object, in ASCII: ``time`` (RFC 3339), ``level``, ``message``, ``event``, ``session``, ``peer``, and more.

    The fields of the event follow; one that is not known is left out.
    """
    who = _who(event)
    text = _what(event, who)
    traceback = _traceback(event)
    if not text and traceback is None:
        return ""
    found: dict[str, Any] = {
        "time": _time(event.get("log_time") or time.time()),
        "level": _level(event),
        "message": text,
        "event": event.get("event") or ("server" if traceback is None else "failure"),
    }
    if who is not None:
        found["session"], found["peer"] = who
    if traceback is not None:
        found["traceback"] = traceback
    for name, value in own_fields(event).items():
        found.setdefault(name, _plain(value))
    return json.dumps(found)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return round(value, 6) if abs(value) < 1e15 else str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value)


#: The forms by the name that ``--log-format`` has for them.
FORMS: Mapping[str, Form] = {"text": text_line, "json": json_line}
