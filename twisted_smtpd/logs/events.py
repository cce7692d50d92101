"""Every event of the log about a client, once: its name, its level, its fields, its text.

An event is a row here and the call of its ``tell`` where it happens.  All forms of the log are made from the row: the
text line, the JSON object, the record of the standard library's ``logging``, and the tables of
``docs/reference/log.rst``.

An event goes to :data:`twisted.logger.globalLogPublisher`, so that each observer of Twisted's log sees it.  Its text is
made when an observer asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from twisted_smtpd.logs.bridge import is_bridged
from twisted_smtpd.logs.escaping import address, clean, peer_text, quoted, word
from twisted_smtpd.logs.private import somebody_listens
from twisted_smtpd.runtime.connections import Connections
from twisted_smtpd.runtime.limits import DIALOG_LINES_A_SECOND, LINES_A_SECOND, SECOND, Key
from twisted_smtpd.session import Session

__all__ = ["EVENTS", "NAMESPACE", "Client", "Event", "Told", "may_tell"]

#: The namespace of all events, as Twisted's own text log shows it.
NAMESPACE = "twisted_smtpd"
log = Logger(namespace=NAMESPACE)
publish = globalLogPublisher.__call__

Fields = Mapping[str, Any]


class Client(Protocol):
    """A connection that an event is about.

    :ivar session: what is known of the client; ``None`` before it is known.
    :ivar connections: counts the lines of its address.
    :ivar _address: the address it counts for; ``None`` for one that has no limits.
    """

    connections: Connections
    session: Session
    _address: str | None

    def _peer(self) -> Any:
        """Its address, as a socket has it."""


class Told(dict[str, Any]):
    """An event as Twisted's observers get it; ``text`` is made when it is asked for."""

    __slots__ = ()

    def __missing__(self, key: str) -> Any:
        if key == "text":
            return EVENTS[self["event"]].render(self)
        raise KeyError(key)

    def copy(self) -> Told:
        return Told(self)


class Event:
    """One row of the table.

    :param name: its name, ``event`` in JSON.
    :param level: how grave it is.
    :param meaning: when it is written, as a sentence of the documentation.
    :param render: makes the text from the fields.
    :param limit: how many a client may cause in a second, with others of the same limit; 0 for any number.
    :param fields: what it tells, with the meaning of each; one that is not known is ``None`` and left out.
    """

    __slots__ = ("fields", "level", "limit", "meaning", "name", "render", "template")

    def __init__(
        self,
        name: str,
        level: Any,
        meaning: str,
        render: Callable[[Fields], str],
        *,
        limit: int = LINES_A_SECOND,
        **fields: str,
    ) -> None:
        self.name, self.level, self.meaning, self.render, self.limit = name, level, meaning, render, limit
        self.fields = fields
        self.template: dict[str, Any] = {
            "log_logger": log,
            "log_level": level,
            "log_namespace": NAMESPACE,
            "log_source": None,
            "log_format": "{session} {peer} {text}",
            "log_time": 0.0,
            "event": name,
            "session": "-",
            "peer": "",
            **dict.fromkeys(fields),
        }

    def tell(self, client: Client, **fields: Any) -> None:
        """Write the event.

        :param client: the connection that it is about.
        :param fields: see :class:`Event`.
        """
        if somebody_listens() and may_tell(client, self.limit):
            event = Told(self.template)
            event.update(fields)
            publish_about(client, event)

    def tell_failure(self, client: Client, failure: Failure, **fields: Any) -> None:
        """Write an event that is a defect of the program, with its traceback.

        :param failure: what was raised.
        :param fields: see :class:`Event`.
        """
        if may_tell(client, self.limit):
            event = Told(self.template)
            event.update(fields, log_failure=failure)
            if is_bridged():
                # A critical one would go to the standard error as well, until Twisted's log has begun.
                event["log_level"] = LogLevel.error
            publish_about(client, event)


def publish_about(client: Client, event: Told) -> None:
    """Publish an event, with what all events have.

    :param client: the connection that it is about.
    """
    event["log_time"] = time.time()
    session = client.session
    if session is None:
        event["peer"] = peer_text(client._peer())
    else:
        event["session"] = session._id or session.id
        event["peer"] = peer_text(session.peer)
    publish(event)


def may_tell(client: Client, limit: int = LINES_A_SECOND) -> bool:
    """Whether the client has not caused too many lines in this second; those that are left out are counted.

    :param limit: see :class:`Event`.
    """
    if not limit:
        return True
    connections = client.connections
    timers = connections.timers
    key = (limit, client._address or _host(client))
    count = connections.lines.another(key, timers.now())
    if count == limit + 1:
        timers.clock.callLater(SECOND, _tell_more, client, key)
    return count <= limit


def _host(client: Client) -> str:
    peer = client._peer() if client.session is None else client.session.peer
    return peer_text(peer).rpartition(":")[0]


def _tell_more(client: Client, key: Key) -> None:
    """Say how many lines were left out in the second that has ended."""
    left_out = client.connections.lines.end_second(key) - key[0]
    if left_out > 0 and somebody_listens():
        event = Told(LEFT_OUT.template)
        event["count"] = left_out
        publish_about(client, event)


# -- the texts ---------------------------------------------------------------------------------------------------------


def _command(event: Fields) -> str:
    """The command that was answered, as `` "RCPT TO:<a@b.example>"``; nothing where it is not known."""
    verb, argument = event["verb"], event["argument"]
    if verb is None:
        return ""
    return f" {quoted(verb if argument is None else f'{verb} {argument}')}"


def _optional(event: Fields, *names: str) -> str:
    """What is known of some fields, as `` helo=client.example tls=TLSv1.3``."""
    return "".join(f" {name}={word(event[name])}" for name in names if event[name] is not None)


def _message(event: Fields) -> str:
    code = event["code"]
    verdict = "accepted" if code < 400 else "deferred" if code < 500 else "refused"
    replies = event["replies"]
    if replies is None:
        recipients = ",".join(f"<{address(one)}>" for one in event["recipients"])
        reply = f": {clean(event['reply'])}"
    else:
        pairs = zip(event["recipients"], replies, strict=False)
        recipients = ",".join(f"<{address(one)}>({clean(reply)})" for one, reply in pairs)
        reply = ""
    return (
        f"message {verdict} from=<{address(event['sender'])}> to={recipients} size={event['size']}"
        f"{_optional(event, 'helo', 'user', 'tls', 'message_id')} took={event['took']:.3f}{reply}"
    )


def _disconnected(event: Fields) -> str:
    known = _optional(event, "user", "tls")
    messages = event["messages"]
    count = "1 message" if messages == 1 else f"{messages} messages"
    return f"disconnected after {event['duration']:.1f} s, {count}{known}: {clean(event['reason'])}"


def _dialog(event: Fields) -> str:
    return f"{event['side']}: {clean(event['line'])}" if event["side"] else f"-- {clean(event['line'])}"


def _user(event: Fields) -> str:
    user = event["user"]
    return "?" if user is None else ascii(user)


def _failed(event: Fields) -> str:
    more = event["traceback"]
    text = f"{clean(event['what'])} failed"
    return text if more is None else f"{text}\n{more}"


# -- the table ---------------------------------------------------------------------------------------------------------

_VERB = "the verb of the command; nothing if it is not a command that is answered"
_ARGUMENT = "its argument, at most 500 characters; ``***`` for what may be a secret"
_CODE = "the reply code"
_REPLY = "the whole reply"
_USER = "the user who has signed in"
_TLS = "the version of TLS"

MESSAGE = Event(
    "message",
    LogLevel.info,
    "A message got its reply.",
    _message,
    # Each message that is kept has its line; those that are refused are counted where this is told.
    limit=0,
    sender="the reverse-path; empty for a bounce",
    recipients="the accepted recipients",
    size="octets of the message",
    code=_CODE,
    reply=_REPLY,
    replies="LMTP: the reply of each recipient, where they differ",
    user=_USER,
    tls=_TLS,
    helo="the name that the client gave with HELO, EHLO or LHLO",
    message_id="the Message-ID, if it is in the first 32 KiB; not for a message that a hook reads as a stream",
    took="seconds from the last octet to the reply",
)
REFUSED = Event(
    "refused",
    LogLevel.info,
    "A command was refused.",
    lambda event: f"refused{_command(event)}: {clean(event['reply'])}",
    verb=_VERB,
    argument=_ARGUMENT,
    code=_CODE,
    reply=_REPLY,
)
CUT_OFF = Event(
    "cut_off",
    LogLevel.info,
    "The server ends the connection: too many errors, a time limit, a shutdown.",
    lambda event: f"cut off{_command(event)}: {clean(event['reply'])}",
    verb=_VERB,
    argument=_ARGUMENT,
    code=_CODE,
    reply=_REPLY,
)
TURNED_AWAY = Event(
    "turned_away",
    LogLevel.info,
    "A client was refused instead of a greeting.  Where TLS comes first, the connection is dropped without the reply.",
    lambda event: f"turned away: {clean(event['reply'])}",
    code=_CODE,
    reply=_REPLY,
)
DISCONNECTED = Event(
    "disconnected",
    LogLevel.info,
    "A connection has ended.",
    _disconnected,
    reason="why",
    duration="seconds that it lasted",
    messages="messages that were accepted",
    user=_USER,
    tls=_TLS,
)
SIGN_IN = Event(
    "sign_in",
    LogLevel.info,
    "A client has signed in.",
    lambda event: f"authenticated with {event['mechanism']} as {_user(event)}",
    mechanism="the mechanism",
    user="the user; nothing if the identity is no name",
)
SIGN_IN_FAILED = Event(
    "sign_in_failed",
    LogLevel.warn,
    "A client has failed to sign in.",
    lambda event: f"AUTH {event['mechanism']} failed for user {_user(event)}",
    mechanism="the mechanism",
    user="the user that the client says to be",
)
SIGN_IN_BLOCKED = Event(
    "sign_in_blocked",
    LogLevel.warn,
    "A client may not try to sign in: its address has failed too often.",
    lambda event: "AUTH refused, too many failures before",
)
SIGN_IN_FAULT = Event(
    "sign_in_fault",
    LogLevel.error,
    "A hook or an authenticator gave what is no verdict; the client is refused.",
    lambda event: clean(event["fault"]),
    fault="what is wrong",
)
HANDSHAKE_FAILED = Event(
    "handshake_failed",
    LogLevel.info,
    "A TLS handshake has failed.",
    lambda event: clean(event["reason"]),
    reason="why",
)
TLS_IN_CLEAR = Event(
    "tls_in_clear",
    LogLevel.info,
    "A client speaks TLS on a port that begins in clear.",
    lambda event: "the client speaks TLS at once, and this port begins in clear",
)
PROXY_HEADER = Event(
    "proxy_header",
    LogLevel.warn,
    "A connection from a proxy was dropped, since it has no PROXY header or a wrong one.",
    lambda event: f"PROXY header: {clean(event['reason'])}",
    reason="why",
)
HOOK_FAILED = Event(
    "hook_failed",
    LogLevel.critical,
    "A hook has raised an exception.  The traceback follows.",
    _failed,
    what="the hook or the command",
    traceback="the traceback, without what the client has said, if it was in an AUTH exchange",
)
HOOK_SLOW = Event(
    "hook_slow",
    LogLevel.error,
    "A hook took longer than ``hook_timeout``.",
    lambda event: f"{event['hook']} took longer than {event['allowed']:g} s, it is cut off",
    hook="its name",
    allowed="seconds that it may take",
)
HOOK_STUCK = Event(
    "hook_stuck",
    LogLevel.error,
    "A hook goes on although it was cut off.",
    lambda event: f"a hook went on for {event['seconds']:g} s after it was cut off",
    seconds="for how long",
)
HOOK_FAULT = Event(
    "hook_fault",
    LogLevel.warn,
    "A hook has answered in a way that can't be sent as it is.",
    lambda event: clean(event["fault"]),
    fault="what is wrong",
)
SHORTAGE = Event(
    "shortage",
    LogLevel.error,
    "The machine is short of disk space, memory or file descriptors.",
    lambda event: f"{event['verb']} failed: {clean(event['error'])}",
    verb="the command",
    error="the error",
)
LEFT_OUT = Event(
    "left_out",
    LogLevel.info,
    "A client has caused more lines than are written in a second.",
    lambda event: f"\u2026 and {event['count']:,} more",
    limit=0,
    count="how many were left out",
)
DIALOG = Event(
    "dialog",
    LogLevel.info,
    "``--trace``: a line of the dialog.",
    _dialog,
    limit=DIALOG_LINES_A_SECOND,
    side="``C`` for the client, ``S`` for the server; nothing for what is no line",
    line="the line; ``***`` for what may be a secret",
)

#: All events, by name.
EVENTS: Mapping[str, Event] = {row.name: row for row in list(globals().values()) if isinstance(row, Event)}
