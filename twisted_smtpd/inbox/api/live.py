"""Waiting for messages, and hearing of changes as they happen."""

from __future__ import annotations

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, as_json
from twisted_smtpd.inbox.api.events import Listener
from twisted_smtpd.inbox.api.message import whole_answer
from twisted_smtpd.inbox.api.messages import page_json
from twisted_smtpd.inbox.api.waiting import Closed, TooMany
from twisted_smtpd.store.summary import Summary

__all__ = ["listen", "wait"]

# Seconds after which one who was turned away may come again.
_LATER = {"Retry-After": "5"}


async def wait(call: Call) -> Answer:
    """Wait until messages are there."""
    count: int = call.query["count"]
    after: int = call.query["after"]
    matching = call.matching(call.query["query"] or "", after=after)

    async def look() -> list[Summary]:
        found: list[Summary] = await call.ask("summaries", matching, count, True)
        return found

    seconds: float = call.query["timeout"]
    try:
        found = await call.context.waiting.until(look, count, seconds)
    except TooMany:
        raise APIError(503, "too many requests wait already", _LATER) from None
    except Closed:
        raise APIError(503, "the server is stopping", _LATER) from None
    if len(found) < count:
        some = f"{len(found)} of {count} messages" if count > 1 else "no message"
        raise APIError(404, f"{some} came in {seconds:g} seconds")
    if count == 1:
        stored = await call.ask("get", found[0].id)
        if stored is None:
            raise APIError(404, "the message was deleted")
        return await whole_answer(call, stored)
    return as_json(await page_json(call, matching, 0, count))


async def listen(call: Call) -> Listener:
    """Hear of changes as they happen."""
    if call.context.events.full:
        raise APIError(503, "too many clients listen already", _LATER)
    since = call.header("last-event-id") or call.query["last-event-id"] or ""
    return Listener(call.context.events, call.mailbox, since[:100])
