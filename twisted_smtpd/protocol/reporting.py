"""What happens on a connection, as events of the log: refusals, messages, the connection's end.

Each function is called in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from twisted_smtpd.logs.escaping import cut
from twisted_smtpd.logs.events import CUT_OFF, DISCONNECTED, MESSAGE, REFUSED, TURNED_AWAY, Client, may_tell
from twisted_smtpd.logs.masking import HIDDEN, is_auth, shown_command
from twisted_smtpd.logs.private import somebody_listens
from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.session import Envelope, Session, within_brackets
from twisted_smtpd.tls.errors import openssl_reason
from twisted_smtpd.wire.replies import LAST_CODES

if TYPE_CHECKING:
    from twisted_smtpd.protocol.running import CommandRunner
    from twisted_smtpd.protocol.timeouts import Timeouts

__all__ = ["HIDDEN_LINES", "report_end", "report_message", "report_refusal"]

#: Unknown commands after a refused AUTH that may be the name and the password that were meant for it.
HIDDEN_LINES = 2
# Octets of a message in which its Message-ID is looked for.
HEAD = 2**15


class Reported(Client, Protocol):
    """A connection as it is told of.

    :ivar envelope: the transaction.
    :ivar _line: the command line that the next refusal answers; ``b""`` if there is none, ``None`` where another event
        tells of the refusal.
    :ivar _hidden_lines: how many of the next unknown commands may be secrets.
    :ivar _said: the last reply, as it was sent.
    :ivar _why: why the connection is closed, if no reply says it.
    :ivar _peer_finished: whether the client has shut down its side.
    :ivar _messages: messages that were accepted.
    :ivar _replies: the replies that recipients have got, where each has one of its own.
    """

    envelope: Envelope
    _settings: SharedSettings
    _runner: CommandRunner
    _timeouts: Timeouts
    _closing_since: float | None
    _peer_finished: bool
    _verb: str
    _line: bytes | None
    _hidden_lines: int
    _code: int
    _said: bytes
    _why: str
    _messages: int
    _replies: list[bytes]

    def _now(self) -> float:
        """The time in seconds."""


def report_refusal(connection: Reported, code: int, wire: bytes) -> None:
    """Tell of a reply that says no.

    :param code: its code.
    :param wire: the reply as it is sent.
    """
    line = connection._line
    if line is None:
        return
    connection._line = b""
    # An unknown verb is "?": a client can't add to the names that are counted.
    connection.connections.counts.refusals[connection._verb, str(code)] += 1
    hidden = False
    if is_auth(line):
        connection._hidden_lines = HIDDEN_LINES
    elif line and connection._hidden_lines and connection._verb == "?":
        connection._hidden_lines -= 1
        hidden = True
    if not somebody_listens():
        return
    if not line and not connection._verb:
        TURNED_AWAY.tell(connection, code=code, reply=_text(wire))
        return
    verb: str | None = None
    argument: str | None = None
    if hidden:
        verb = HIDDEN
    elif line:
        verb, argument = shown_command(line, connection._settings.mechanisms)
    event = CUT_OFF if code in LAST_CODES else REFUSED
    event.tell(connection, verb=verb, argument=argument, code=code, reply=_text(wire))


def _text(wire: bytes) -> str:
    """A reply in one line."""
    first, *others = wire.decode("utf-8", "replace").rstrip("\r\n").split("\r\n")
    return cut(" ".join([f"{first[:3]} {first[4:]}", *(line[4:] for line in others)]))


def report_message(connection: Reported, size: int) -> None:
    """Count a message that has its reply, and tell of it.

    :param size: octets of the message.
    """
    counts, code = connection.connections.counts, connection._code
    took = connection._now() - connection._runner.since
    counts.octets += size
    counts.took.observe(took)
    if code < 300:
        counts.recipients += len(connection.envelope.rcpt_tos)
        connection._messages += 1
    # Each message that is kept has its line, however many there are.
    if not somebody_listens() or (code >= 300 and not may_tell(connection)):
        return
    session, envelope, replies = connection.session, connection.envelope, connection._replies
    recipients = tuple(envelope.rcpt_tos)
    # A hook may have pushed some of them by itself: then it is not known whose they are.
    texts = [_text(wire) for wire in replies] if len(replies) == len(recipients) else []
    MESSAGE.tell(
        connection,
        sender=within_brackets(envelope.mail_from),
        recipients=recipients,
        size=size,
        code=code,
        reply=_text(connection._said),
        replies=texts if len(set(texts)) > 1 else None,
        user=_user(session) if session.authenticated else None,
        tls=_tls(session) if session.tls else None,
        helo=session.host_name,
        message_id=_message_id(envelope.original_content),
        took=took,
    )


def _message_id(content: bytes | None) -> str | None:
    """The Message-ID of a message; ``None`` if it has none at its beginning."""
    if not content:
        return None
    end = content.find(b"\r\n\r\n", 0, HEAD)
    head = content[: HEAD if end < 0 else end]
    start = 0 if head[:11].lower() == b"message-id:" else head.lower().find(b"\nmessage-id:") + 1
    if not start and head[:11].lower() != b"message-id:":
        return None
    end = head.find(b"\r\n", start)
    value = head[start + len("Message-ID:") : len(head) if end < 0 else end].strip()
    return cut(value.decode("utf-8", "replace")) or None


def _tls(session: Session) -> str:
    # A proxy may vouch for TLS, and tells nothing of it.
    return "yes" if session.ssl is None else session.ssl.version


def _user(session: Session) -> str | None:
    """The name of a user who has signed in."""
    for identity in (session.login_data, getattr(session.auth_data, "login", None)):
        name = getattr(identity, "login", identity)
        if isinstance(name, (bytes, bytearray)):
            return cut(bytes(name).decode("utf-8", "backslashreplace"))
        if isinstance(name, str):
            return cut(name)
    return None


def report_end(connection: Reported, failure: Failure) -> None:
    """Tell of the end of a connection.

    :param failure: why the transport has ended it.
    """
    session = connection.session
    # A client that was turned away at once has a line already.
    if session is None or not somebody_listens():
        return
    DISCONNECTED.tell(
        connection,
        reason=_reason(connection, failure),
        duration=round(connection._now() - connection._timeouts.connected_at, 3),
        messages=connection._messages,
        user=_user(session) if session.authenticated else None,
        tls=_tls(session) if session.tls else None,
    )


def _reason(connection: Reported, failure: Failure) -> str:
    if connection._why:
        return connection._why
    if connection._code == 221:
        return "QUIT"
    if connection._closing_since is not None:
        if connection._code >= 400:
            return _text(connection._said)
        # A client that shuts down its side is answered first, and then the server closes.
        return "the client has closed it" if connection._peer_finished else "the server has closed it"
    error: Any = failure.value
    if isinstance(error, ConnectionDone):
        return "the client has closed it"
    return cut(f"lost: {openssl_reason(error) if isinstance(error, SSL.Error) else error}")
