"""Many messages: lists, searches, and what is done to several at once."""

from __future__ import annotations

from dataclasses import replace

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, as_json, as_number, done
from twisted_smtpd.inbox.api.shapes import summary_json
from twisted_smtpd.store.messages import Matching

__all__ = [
    "delete_found",
    "delete_messages",
    "list_mailboxes",
    "list_messages",
    "page_json",
    "restore_messages",
    "search_messages",
    "set_read",
]


async def page_json(call: Call, matching: Matching, start: int, limit: int) -> dict[str, object]:
    """A page of a list."""
    found = [] if limit == 0 else await call.ask("summaries", matching, limit, True, start)
    counts = await call.ask("counts", call.mailbox)
    matches, unread = counts.total, counts.unread
    if start == 0 and len(found) < limit:
        # These are all: to count them would be to look for them again.
        matches, unread = len(found), sum(not summary.seen for summary in found)
    elif matching != call.matching():
        matches, unread = await call.ask("tally", matching)
    return {
        "total": counts.total,
        "unread": counts.unread,
        "count": len(found),
        "messages_count": matches,
        "messages_unread": unread,
        "start": start,
        "tags": sorted(await call.ask("tags", call.mailbox)),
        "messages": [summary_json(summary) for summary in found],
    }


async def list_messages(call: Call) -> Answer:
    """A page of all messages."""
    return as_json(await page_json(call, call.matching(), call.query["start"], call.query["limit"]))


def _search(call: Call) -> Matching:
    search: str = call.query["query"].strip()
    if not search:
        # With an empty one, a script whose variable is not set would delete everything.
        raise APIError(400, "the parameter query is empty")
    return call.matching(search)


async def search_messages(call: Call) -> Answer:
    """A page of the messages that match."""
    return as_json(await page_json(call, _search(call), call.query["start"], call.query["limit"]))


async def set_read(call: Call) -> Answer:
    """Mark messages as read or unread."""
    names, search = call.body.get("IDs", []), call.body.get("Search", "").strip()
    if names and search:
        raise APIError(400, "give either IDs or a Search, not both")
    numbers = await call.visible(names) if names else await call.ask("ids", call.matching(search))
    await call.ask("mark", numbers, call.body.get("Read", False))
    return done()


async def delete_messages(call: Call) -> Answer:
    """Delete messages, or all of them."""
    names = call.body.get("IDs", [])
    numbers = await call.visible(names) if names else await call.ask("ids", replace(call.matching(), refused=None))
    return await _delete(call, numbers)


async def delete_found(call: Call) -> Answer:
    """Delete the messages that match."""
    return await _delete(call, await call.ask("ids", _search(call)))


async def _delete(call: Call, numbers: list[int]) -> Answer:
    call.context.bin.note(call.access.mailbox, numbers)
    await call.ask("delete", numbers)
    return done()


async def restore_messages(call: Call) -> Answer:
    """Take messages back that were deleted."""
    numbers = [number for number in map(as_number, call.body["IDs"]) if number is not None]
    await call.ask("restore", call.context.bin.allowed(call.access.mailbox, numbers))
    return done()


async def list_mailboxes(call: Call) -> Answer:
    """The mailboxes."""
    found = await call.ask("mailboxes")
    own = call.access.mailbox
    return as_json(
        [
            {"Name": name, "Total": counts.total, "Unread": counts.unread, "Refused": counts.refused}
            for name, counts in sorted(found.items())
            if own in (None, name)
        ]
    )
