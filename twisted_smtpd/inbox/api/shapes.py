"""Messages in Mailpit's JSON."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from twisted_smtpd.inbox.content import Content, Part
from twisted_smtpd.store.summary import Address, Change, Summary

__all__ = ["change_json", "headers_json", "message_json", "stamp", "summary_json"]

_BRACKETED = re.compile(r"<([^<>]{1,2000})>")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def stamp(moment: datetime) -> str:
    """A time as RFC 3339 has it, in UTC."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _address(address: Address) -> dict[str, str]:
    return {"Name": address.name, "Address": address.address}


def _common(summary: Summary) -> dict[str, Any]:
    return {
        "ID": str(summary.id),
        "MessageID": summary.message_id,
        "From": None if summary.sender is None else _address(summary.sender),
        "To": list(map(_address, summary.to)),
        "Cc": list(map(_address, summary.cc)),
        "Bcc": list(map(_address, summary.bcc)),
        "ReplyTo": list(map(_address, summary.reply_to)),
        "Subject": summary.subject,
        "Username": summary.user or "",
        "Tags": list(summary.tags),
        "Size": summary.size,
        "Read": summary.seen,
        "Mailboxes": list(summary.mailboxes),
        "MailFrom": summary.mail_from,
        "Recipients": list(summary.recipients),
        "Refusal": summary.refusal or "",
        "Session": summary.session,
    }


def summary_json(summary: Summary) -> dict[str, Any]:
    """A message in a list."""
    return {
        **_common(summary),
        "Created": stamp(summary.received),
        "Attachments": summary.attachments,
        "Inline": summary.inline,
        "Snippet": summary.snippet,
    }


def change_json(change: Change) -> dict[str, Any]:
    """A change of the store, for those who listen."""
    value: dict[str, Any] = {"IDs": [str(number) for number in change.ids]}
    if change.summary is not None:
        value["Message"] = summary_json(change.summary)
    return value


def message_json(summary: Summary, content: Content, headers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A whole message, without its attachments.  The sums of large attachments take their time.

    :param headers: its headers, decoded.
    """
    return {
        **_common(summary),
        "Read": True,
        "Date": stamp(_date(headers, summary.received)),
        "ReturnPath": summary.mail_from,
        "ListUnsubscribe": _unsubscribe(headers),
        "Text": content.text,
        "HTML": content.html,
        "Inline": [_part_json(part, content) for part in content.inline],
        "Attachments": [_part_json(part, content) for part in content.attachments],
    }


def _part_json(part: Part, content: Content) -> dict[str, Any]:
    octets = content.payload(part.id) or b""
    sums = {name: hashlib.new(name, octets, usedforsecurity=False).hexdigest() for name in ("md5", "sha1", "sha256")}
    return {
        "PartID": part.id,
        "FileName": part.name,
        "ContentType": part.content_type,
        "ContentID": part.content_id,
        "Size": part.size,
        "Checksums": {name.upper(): value for name, value in sums.items()},
    }


def _values(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    return [value for known, value in headers if known.lower() == name]


def _date(headers: Sequence[tuple[str, str]], otherwise: datetime) -> datetime:
    for value in _values(headers, "date")[:1]:
        try:
            date = parsedate_to_datetime(value[:200])
            # "-0000" gives a time without a zone: it is UTC (RFC 5322 section 3.3).
            return date.replace(tzinfo=date.tzinfo or timezone.utc).astimezone(timezone.utc)
        except (ValueError, TypeError, IndexError, OverflowError):
            break
    return otherwise


def _unsubscribe(headers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    header = " ".join(_values(headers, "list-unsubscribe"))
    post = " ".join(_values(headers, "list-unsubscribe-post"))
    links = _BRACKETED.findall(header)
    mail = [link for link in links if link.lower().startswith("mailto:")]
    web = [link for link in links if link.lower().startswith(("http://", "https://"))]
    wrong = []
    if header and not links:
        wrong.append("no link in angle brackets (RFC 2369)")
    if len(mail) > 1 or len(web) > 1:
        wrong.append("more than one link of a kind")
    if len(mail) + len(web) < len(links):
        wrong.append("a link that is neither mailto: nor http:")
    if post and post.strip() != "List-Unsubscribe=One-Click":
        wrong.append("List-Unsubscribe-Post is not List-Unsubscribe=One-Click (RFC 8058)")
    if post and not any(link.lower().startswith("https://") for link in web):
        wrong.append("List-Unsubscribe-Post without an https: link (RFC 8058)")
    return {"Header": header, "HeaderPost": post, "Links": [*mail, *web][:2], "Errors": ", ".join(wrong)}


def headers_json(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Headers by name, in the order of the alphabet; names are written as Go's library does, ``Message-Id`` for one."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        proper = "-".join(map(str.capitalize, name.split("-"))) if _TOKEN.fullmatch(name) else name
        found.setdefault(proper, []).append(value)
    return dict(sorted(found.items()))
