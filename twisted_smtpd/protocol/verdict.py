"""The verdict on a message: from the statuses that a hook gives to the reply, the counts and the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from twisted.logger import Logger, LogLevel

from twisted_smtpd.runtime.connections import Connections
from twisted_smtpd.session import Envelope, Session, within_brackets
from twisted_smtpd.wire.escaping import escaped_address
from twisted_smtpd.wire.replies import BadStatus, Reply, whole_statuses

__all__ = ["by_recipient", "each_status", "gathered", "is_many", "log_message", "one_for_all"]

# A name of its own: the line about a message is what people look for.
log = Logger(namespace="twisted_smtpd.messages")

# The log event of a message.  It has all keys, because a copy to which none is added is the cheapest.
MESSAGE_EVENT: dict[str, Any] = {
    "log_logger": log,
    "log_level": LogLevel.info,
    "log_namespace": log.namespace,
    "log_source": None,
    "log_format": "{session} {peer} from=<{sender}> recipients={recipients} size={size}: {code}",
    "log_time": 0.0,
    "session": None,
    "peer": None,
    "sender": None,
    "recipients": None,
    "size": None,
    "code": None,
}
publish = log.observer.__call__


def is_many(status: Any) -> bool:
    """Whether a hook gave a status for each recipient: a list, or an asynchronous iterator."""
    return isinstance(status, (list, tuple)) or hasattr(status, "__aiter__")


def by_recipient(text: str, recipients: int) -> Reply | list[Reply]:
    """What a hook says of a message in a text of several lines.

    :param text: as many whole statuses as there are recipients, joined with line ends; or one status.
    :param recipients: how many were accepted.
    :raises BadStatus: if statuses of more or fewer recipients differ: it is not known whose is which.
    """
    statuses = whole_statuses(text)
    if len(statuses) == recipients:
        return [Reply.parse(one) for one in statuses]
    if len({one[0] for one in statuses}) > 1:
        raise BadStatus(f"the hook gave {len(statuses)} statuses for {recipients} recipients")
    return Reply.parse(text)


async def each_status(status: Any, recipients: int, began: Callable[[], None]) -> AsyncIterator[Reply]:
    """One status per accepted recipient, as a hook gives them for the message.

    :param status: a list or an asynchronous iterator.
    :param recipients: how many there have to be.
    :param began: called when the hook turns to the next recipient: each has the time that a hook has.
    :raises BadStatus: if there are more or fewer.
    """
    if isinstance(status, (list, tuple)):
        if len(status) != recipients:
            raise BadStatus(f"the hook gave {len(status)} statuses for {recipients} recipients")
        for one in status:
            yield Reply.parse(one)
        return
    due = recipients
    try:
        async for one in status:
            reply = Reply.parse(one)
            if not due:
                raise BadStatus(f"the hook gave more statuses than the {recipients} recipients")
            due -= 1
            began()
            yield reply
    finally:
        # After a bad status it would stay suspended for ever, perhaps inside a `with`.
        if hasattr(status, "aclose"):
            await status.aclose()
    if due:
        raise BadStatus(f"the hook gave no status for the last {due} of {recipients} recipients")


async def one_for_all(statuses: AsyncIterator[Reply], session: Session) -> Reply:
    """The one reply of SMTP.

    If the statuses differ by recipient, neither yes nor no would be true, so the client has to try again later.
    """
    replies = [reply async for reply in statuses]
    if len({reply.code // 100 for reply in replies}) == 1:
        return replies[0]
    log.warn("{session}: the verdict differs by recipient: 451", session=session.id)
    return Reply(451, "4.3.0", ("Accepted for some recipients only, try again later",))


async def gathered(statuses: AsyncIterator[Reply]) -> AsyncIterator[Reply]:
    """Collect what an iterator yields; the result yields the same, and ends with the same error."""
    found: list[Reply] = []
    ending: BaseException | None = None
    try:
        async for reply in statuses:
            found.append(reply)
    except (Exception, asyncio.CancelledError) as error:
        if not found:
            raise
        ending = error
    return _replay(found, ending)


async def _replay(replies: list[Reply], ending: BaseException | None) -> AsyncIterator[Reply]:
    for reply in replies:
        yield reply
    if ending is not None:
        raise ending


class _Judged(Protocol):
    """A connection whose message has its reply."""

    connections: Connections
    session: Session
    envelope: Envelope
    _accepted: int
    _code: int


def log_message(connection: _Judged, size: int) -> None:
    """Count a message that has its reply, and write the line about it.

    The event is made here, since ``log.info()`` spends more on looking up its own level than a command takes.

    :param connection: the connection.
    :param size: octets of the message.
    """
    connection.connections.counts.octets += size
    session, envelope = connection.session, connection.envelope
    event = MESSAGE_EVENT.copy()
    event["log_time"] = time.time()
    # Values, not the envelope: an event that is kept must not keep the message.
    event["session"] = session._id or session.id
    event["peer"] = session.peer
    sender = within_brackets(envelope.mail_from)
    if type(sender) is not str or '"' in sender or not sender.isascii():
        sender = escaped_address(sender)
    event["sender"] = sender
    event["recipients"] = connection._accepted
    event["size"] = size
    event["code"] = connection._code
    publish(event)
