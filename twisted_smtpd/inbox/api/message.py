"""One message."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, as_json, plain_text
from twisted_smtpd.inbox.api.shapes import headers_json, message_json
from twisted_smtpd.inbox.content import Content, headers_of
from twisted_smtpd.runtime.computing import compute, is_large
from twisted_smtpd.store.messages import StoredMessage
from twisted_smtpd.store.summary import Summary

__all__ = [
    "get_codes",
    "get_headers",
    "get_links",
    "get_message",
    "get_source",
    "get_transcript",
    "view_html",
    "view_text",
    "whole_answer",
]

_CID = re.compile(r"""(?<=["'(=\s])cid:([^"'<>()\s]{1,998})""", re.IGNORECASE)
_EMBED = '<base target="_blank">'
# Where _EMBED goes: behind the tag of the head, or else behind the declaration.
_HEAD = re.compile(r"<head(?:\s[^<>]*)?>", re.IGNORECASE)
_DOCTYPE = re.compile(r"\s*<!doctype[^<>]*>", re.IGNORECASE)
# Nothing in it runs, and it is no page of ours: sandbox gives it an origin of its own.
_POLICY = (
    "sandbox{popups}; default-src 'none'; style-src 'unsafe-inline'{remote}; img-src 'self' data:{remote}; "
    "font-src data:{remote}; media-src 'self'{remote}; form-action 'none'; base-uri 'none'"
)


async def _content(call: Call, stored: StoredMessage) -> Content:
    return await call.context.contents.of(stored)


async def _worked(stored: StoredMessage, work: Callable[..., Answer], *arguments: Any) -> Answer:
    """Make an answer, in a thread if the message is large."""
    if is_large(stored.message.content):
        answer: Answer = await compute(work, *arguments)
        return answer
    return work(*arguments)


def _whole(stored: StoredMessage, content: Content) -> Answer:
    return as_json(message_json(Summary.of(stored), content, headers_of(stored.message.content)))


async def whole_answer(call: Call, stored: StoredMessage) -> Answer:
    """A whole message in JSON; from now on it counts as read."""
    content = await _content(call, stored)
    if not stored.seen:
        await call.ask("mark", [stored.id], True)
    return await _worked(stored, _whole, stored, content)


async def get_message(call: Call) -> Answer:
    """A message; from now on it counts as read."""
    return await whole_answer(call, await call.message())


async def get_headers(call: Call) -> Answer:
    """The headers of a message."""
    stored = await call.message()
    return as_json(headers_json(headers_of(stored.message.content)))


async def get_source(call: Call) -> Answer:
    """A message as it came."""
    stored = await call.message()
    how = "attachment" if call.query["dl"] else "inline"
    headers = {"Content-Disposition": f'{how}; filename="{stored.id}.eml"'}
    return Answer(stored.message.content, "text/plain; charset=utf-8", headers=headers)


async def get_transcript(call: Call) -> Answer:
    """The dialog of the session in which a message came."""
    stored = await call.message()
    transcript: str | None = await call.ask("transcript", stored.message.session.id)
    if transcript is None:
        raise APIError(404, "there is no transcript of this session")
    return plain_text(transcript)


async def get_links(call: Call) -> Answer:
    """The links in a message."""
    stored = await call.message()
    content = await _content(call, stored)
    part: str = call.query["contains"] or ""
    return await _worked(stored, lambda: as_json({"Links": [link for link in content.links if part in link]}))


async def get_codes(call: Call) -> Answer:
    """The one-time codes in a message."""
    stored = await call.message()
    content = await _content(call, stored)
    length: int | None = call.query["length"]
    return await _worked(
        stored, lambda: as_json({"Codes": [code for code in content.codes if length in (None, len(code))]})
    )


async def view_text(call: Call) -> Answer:
    """The text of a message."""
    stored = await call.message()
    content = await _content(call, stored)
    return await _worked(stored, plain_text, content.text)


async def view_html(call: Call) -> Answer:
    """The HTML of a message, as it came but for its inline images."""
    stored = await call.message()
    content = await _content(call, stored)
    if not content.html:
        raise APIError(404, "this message has no HTML part")
    base = f"{call.context.settings.base}/api/v1/message/{stored.id}/part/"
    return await _worked(stored, _page, content, base, call.query["embed"], call.query["remote"])


def _page(content: Content, base: str, embedded: bool, remote: bool) -> Answer:
    def linked(match: re.Match[str]) -> str:
        part = content.by_content_id(match[1])
        return match[0] if part is None else base + part.id

    html = _CID.sub(linked, content.html)
    if embedded:
        begin = _HEAD.search(html) or _DOCTYPE.match(html)
        place = begin.end() if begin else 0
        html = f"{html[:place]}{_EMBED}{html[place:]}"
    policy = _POLICY.format(
        popups=" allow-popups allow-popups-to-escape-sandbox" if embedded else "",
        remote=" http: https:" if remote else "",
    )
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
    return Answer(html.encode("utf-8", "replace"), "text/html; charset=utf-8", headers=headers)
