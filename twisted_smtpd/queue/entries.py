"""What is kept of a message while it waits, and how session and envelope are made of it again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted_smtpd.session import NULL_SENDER, Envelope, Peer, Recipient, Session, within_brackets
from twisted_smtpd.wire.replies import Reply

__all__ = [
    "Delivery",
    "NewMessage",
    "Outcome",
    "QueueFull",
    "Usage",
    "domain_of",
    "envelope_of",
    "facts_of",
    "new_id",
    "new_message",
    "parameters_text",
    "session_of",
    "stored_recipient",
]


class QueueFull(Exception):
    """The queue has reached one of its bounds; the text says which."""


@dataclass(frozen=True)
class NewMessage:
    """A message that is to be queued.

    :ivar sender: the reverse-path's mailbox; ``""`` is the null one.
    :ivar recipients: the recipients, at least one.
    :ivar content: the message.
    :ivar facts: what :func:`facts_of` gives.
    :ivar destinations: for each recipient, what its delivery goes to.
    """

    sender: str
    recipients: Sequence[Recipient]
    content: bytes = field(repr=False)
    facts: Mapping[str, Any]
    destinations: Sequence[str]


@dataclass(frozen=True)
class Delivery:
    """A message on its way to one destination.

    :ivar number: names the delivery in its queue.
    :ivar message: names the message in its queue.
    :ivar id: the message's id.
    :ivar arrived: when the message was accepted, by the queue's time.
    :ivar sender: as in :class:`NewMessage`.
    :ivar size: octets of the message.
    :ivar checksum: their CRC-32.
    :ivar facts: as in :class:`NewMessage`.
    :ivar destination: what it goes to.
    :ivar attempts: how many have failed.
    :ivar warned: whether the sender has been told of the delay.
    :ivar recipients: those that are not settled; the key is the position among the message's recipients.
    :ivar last_reply: the text of the last failure, or ``""``.
    :ivar content: the message, if it is small.
    """

    number: int
    message: int
    id: str
    arrived: float
    sender: str
    size: int
    checksum: int
    facts: Mapping[str, Any]
    destination: str
    attempts: int
    warned: bool
    recipients: Mapping[int, Recipient]
    last_reply: str = ""
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Outcome:
    """What has become of one recipient.

    :ivar kind: ``"delivered"``; ``"bounced"``: it failed, and its sender has been told or does not want to be;
        ``"dead"``: it failed, and there is no sender to tell; ``"later"``: it is tried again.
    :ivar reply: what was answered.
    """

    kind: str
    reply: Reply


@dataclass(frozen=True)
class Usage:
    """How full a queue is.

    :ivar messages: how many there are.
    :ivar octets: the sum of their sizes.
    :ivar oldest: seconds that the oldest one has been there, 0 without messages.
    :ivar asked: how often a person has asked that messages be tried now.
    """

    messages: int
    octets: int
    oldest: float
    asked: int = 0


def new_id(now: float) -> str:
    """An id that no other message gets: the time in microseconds, and 32 random bits.

    :param now: seconds since 1970.
    """
    return f"{int(now * 1_000_000):X}{secrets.randbits(32):08X}"


def domain_of(address: str) -> str:
    """The domain of an address in lower case; ``""`` for one without."""
    return address.rpartition("@")[2].lower() if "@" in address else ""


def _login(session: Session) -> str | None:
    """The name with which a client has signed in, as far as the authenticator's data have one."""
    data = session.auth_data
    login = getattr(data, "login", data)
    if isinstance(login, bytes):
        login = login.decode("utf-8", "replace")
    return login if isinstance(login, str) else None


def facts_of(session: Session, envelope: Envelope, *, lmtp: bool, may_bounce: bool) -> dict[str, Any]:
    """What is kept of session and envelope besides sender, recipients and content; JSON can express it.

    :param lmtp: whether the message came in by LMTP.
    :param may_bounce: whether the sender's address is believed, so that a bounce may go there.
    """
    return {
        "options": list(envelope.mail_options),
        "parameters": dict(envelope.mail_parameters),
        "utf8": envelope.smtp_utf8,
        "submitter": envelope.submitter,
        "may_bounce": may_bounce,
        "lmtp": lmtp,
        "session": session.id,
        "peer": session.peer,
        "host_name": session.host_name,
        "extended": session.extended_smtp,
        "tls": session.tls,
        "authenticated": session.authenticated,
        "login": _login(session) if session.authenticated else None,
        "xclient": session.xclient,
        "xforward": session.xforward,
    }


def _peer(value: Any) -> Peer | None:
    return tuple(value) if isinstance(value, list) else value


class QueuedSession(Session):
    """The session that a message came in with, as far as it is kept."""

    def __init__(self, facts: Mapping[str, Any], loop: Any = None) -> None:
        super().__init__(loop)
        self._id = facts.get("session")
        self.peer = _peer(facts.get("peer"))
        self.host_name = facts.get("host_name")
        self.extended_smtp = bool(facts.get("extended"))
        self.tls = bool(facts.get("tls"))
        self.authenticated = facts.get("authenticated")
        self.auth_data = self.login_data = facts.get("login")
        self.xclient = dict(facts.get("xclient") or {})
        self.xforward = dict(facts.get("xforward") or {})


def session_of(delivery: Delivery, loop: Any = None) -> Session:
    """The session for a delivery's hooks.

    :param loop: the running asyncio loop, if there is one.
    """
    return QueuedSession(delivery.facts, loop)


def envelope_of(delivery: Delivery, content: bytes) -> Envelope:
    """The envelope for a delivery's hooks, with all recipients.

    :param content: the message.
    """
    envelope, facts = Envelope(), delivery.facts
    envelope.queue_id, envelope.queued_at = delivery.id, delivery.arrived
    envelope.mail_from = delivery.sender or NULL_SENDER
    envelope.mail_options = list(facts.get("options") or ())
    envelope.mail_parameters = dict(facts.get("parameters") or {})
    envelope.smtp_utf8 = bool(facts.get("utf8"))
    envelope.submitter = facts.get("submitter")
    envelope.recipients = list(delivery.recipients.values())
    envelope.rcpt_tos = [recipient.address for recipient in envelope.recipients]
    envelope.rcpt_options = [option for recipient in envelope.recipients for option in recipient.options]
    envelope.content = envelope.original_content = content
    return envelope


def recipients_of(envelope: Envelope) -> list[Recipient]:
    """The recipients of a message, with the parameters that belong to them.

    A hook may have put in other addresses: then the parameters can't be assigned.
    """
    if [recipient.address for recipient in envelope.recipients] == envelope.rcpt_tos:
        return list(envelope.recipients)
    return [Recipient(address) for address in envelope.rcpt_tos]


def new_message(
    session: Session, envelope: Envelope, destinations: Sequence[str], *, lmtp: bool, may_bounce: bool
) -> NewMessage:
    """A message that a client has sent.

    :param destinations: for each of ``envelope.rcpt_tos``, where it goes.
    :param lmtp: see :func:`facts_of`.
    :param may_bounce: see :func:`facts_of`.
    """
    return NewMessage(
        within_brackets(envelope.mail_from),
        recipients_of(envelope),
        envelope.content_bytes,
        facts_of(session, envelope, lmtp=lmtp, may_bounce=may_bounce),
        destinations,
    )


def parameters_text(recipient: Recipient) -> str:
    """A recipient's parameters, as they are stored."""
    if not recipient.options and not recipient.parameters:
        return ""
    return json.dumps([recipient.options, recipient.parameters])


def stored_recipient(address: str, text: str) -> Recipient:
    """A recipient, from what is stored of it."""
    options, parameters = json.loads(text) if text else ([], {})
    return Recipient(address, options, parameters)
