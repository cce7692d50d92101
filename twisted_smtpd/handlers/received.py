"""The ``Received`` header (RFC 5321 section 4.4): ours, and how many there are."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from email.utils import format_datetime

from twisted_smtpd.interfaces import HookServer
from twisted_smtpd.session import Envelope, Session

__all__ = ["count_received", "received_header"]

_RECEIVED = re.compile(rb"^Received[ \t]*:", re.IGNORECASE | re.MULTILINE)
# A client chooses its name; these characters would end the clause, and let it write the rest of the header.
_UNSAFE = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
_FOLD = "\r\n\t"


def count_received(header: bytes) -> int:
    """The number of hosts that a message's header says it has passed.

    :param header: the header, without the body.
    """
    return len(_RECEIVED.findall(header))


def _atom(text: str) -> str:
    return _UNSAFE.sub("?", text)[:255]


def _origin(session: Session) -> str:
    name = _atom(session.host_name or "unknown")
    peer = session.peer
    if not isinstance(peer, tuple) or not peer:
        return name
    address = _atom(str(peer[0]))
    return f"{name} ([{'IPv6:' if ':' in address else ''}{address}])"


def _protocol(server: HookServer, session: Session, envelope: Envelope) -> str:
    """The protocol's name (RFC 3848, RFC 6531 section 4.3)."""
    security = ("S" if session.tls else "") + ("A" if session.authenticated else "")
    # A queue answers for each recipient, whatever the message came in with.
    lmtp = getattr(server, "came_with_lmtp", server.replies_to_each_recipient)
    if envelope.smtp_utf8:
        return ("UTF8LMTP" if lmtp else "UTF8SMTP") + security
    if lmtp:
        return "LMTP" + security
    return "ESMTP" + security if session.extended_smtp else "SMTP"


def received_header(server: HookServer, session: Session, envelope: Envelope, now: float | None = None) -> bytes:
    """Our ``Received`` header for a message.

    A recipient is named if it is the only one: of several, each would learn who else had a blind copy.

    :param server: the protocol the message came in with.
    :param session: the client's session.
    :param envelope: the message.
    :param now: the time in seconds since 1970: by default when a queue accepted the message, or the system's.
    :returns: the header with CRLF line ends.
    """
    if now is None:
        now = getattr(envelope, "queued_at", None) or time.time()
    moment = datetime.fromtimestamp(now, timezone.utc)
    id = getattr(envelope, "queue_id", None) or session.id
    parts = [
        f"Received: from {_origin(session)}",
        f"by {_atom(server.hostname)} with {_protocol(server, session, envelope)} id {_atom(id)}",
    ]
    if len(envelope.rcpt_tos) == 1:
        (recipient,) = envelope.rcpt_tos
        if recipient.isascii() and recipient.isprintable():
            parts.append(f"for <{recipient}>")
    return f"{_FOLD.join(parts)};{_FOLD}{format_datetime(moment)}\r\n".encode()
