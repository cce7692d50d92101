"""Parts of a message: attachments, and small pictures of them."""

from __future__ import annotations

from twisted_smtpd.inbox.api.call import Answer, APIError, Call
from twisted_smtpd.inbox.api.thumbnails import ICON, MAX_OCTETS, thumbnail
from twisted_smtpd.inbox.content import Part, part_headers
from twisted_smtpd.runtime.computing import compute

__all__ = ["get_part", "get_thumbnail"]

# An answer for one message never changes: numbers are not given twice.
_KEEP = {"Cache-Control": "private, max-age=3600"}


async def _part(call: Call) -> tuple[Part, bytes]:
    stored = await call.message()
    content = await call.context.contents.of(stored)
    part = content.part(call.path["PartID"])
    octets = None if part is None else content.payload(part.id)
    if part is None or octets is None:
        raise APIError(404, "the message has no such part")
    return part, octets


async def get_part(call: Call) -> Answer:
    """A part of a message, decoded."""
    part, octets = await _part(call)
    headers = {name.decode("ascii"): value.decode("ascii") for name, value in part_headers(part)}
    return Answer(octets, headers.pop("content-type"), headers=headers)


async def get_thumbnail(call: Call) -> Answer:
    """A small picture of an image; an icon for all else."""
    part, octets = await _part(call)
    picture: bytes | None = None
    if part.is_image and len(octets) <= MAX_OCTETS:
        picture = await compute(thumbnail, octets)
    return Answer(picture or ICON, "image/jpeg", headers=_KEEP)
