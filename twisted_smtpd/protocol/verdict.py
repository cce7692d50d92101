"""The verdict on a message: from the statuses that a hook gives to the reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted_smtpd.logs.events import HOOK_FAULT, Client
from twisted_smtpd.wire.replies import BadStatus, Reply, whole_statuses

__all__ = ["by_recipient", "each_status", "gathered", "is_many", "one_for_all"]


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
        # After a bad status it would stay suspended forever, perhaps inside a `with`.
        if hasattr(status, "aclose"):
            await status.aclose()
    if due:
        raise BadStatus(f"the hook gave no status for the last {due} of {recipients} recipients")


async def one_for_all(statuses: AsyncIterator[Reply], client: Client) -> Reply:
    """The one reply of SMTP.

    If the statuses differ by recipient, neither yes nor no would be true, so the client has to try again later.
    """
    replies = [reply async for reply in statuses]
    if len({reply.code // 100 for reply in replies}) == 1:
        return replies[0]
    HOOK_FAULT.tell(client, fault="the verdict differs by recipient: 451")
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
