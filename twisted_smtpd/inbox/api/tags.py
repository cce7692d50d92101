"""Tags of messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, as_json, done

__all__ = ["delete_tag", "list_tags", "proper_tag", "rename_tag", "set_tags"]

_UNTIDY = re.compile(r"[\x00-\x1f\x7f\x80-\x9f,]+|\s+")


def proper_tag(tag: str) -> str:
    """A tag in one line and without commas, which the page puts between tags; ``""`` if nothing is left."""
    return " ".join(_UNTIDY.sub(" ", tag).split())[:100]


def _tags(tags: Sequence[str]) -> set[str]:
    return {tag for tag in map(proper_tag, tags) if tag}


async def list_tags(call: Call) -> Answer:
    """All tags."""
    return as_json(sorted(await call.ask("tags", call.mailbox)))


async def set_tags(call: Call) -> Answer:
    """Replace the tags of messages."""
    tags = _tags(call.body.get("Tags", []))
    numbers = await call.visible(call.body["IDs"])
    gone = set(await call.ask("tags")) - tags
    await call.ask("tag", numbers, tags, gone)
    return done()


async def _tagged(call: Call) -> list[int]:
    matching = replace(call.matching(), tag=call.path["Tag"], refused=None)
    found: list[int] = await call.ask("ids", matching)
    if not found:
        raise APIError(404, "no message has this tag")
    return found


async def rename_tag(call: Call) -> Answer:
    """Give a tag another name."""
    new = proper_tag(call.body["Name"])
    if not new:
        raise APIError(400, "Name: no character of it can be in a tag")
    if new != call.path["Tag"]:
        await call.ask("tag", await _tagged(call), [new], [call.path["Tag"]])
    return done()


async def delete_tag(call: Call) -> Answer:
    """Take a tag from all messages."""
    await call.ask("tag", await _tagged(call), (), [call.path["Tag"]])
    return done()
