"""What is missing in a message, or wrong, so that servers and mail programs take it for spam or show it badly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from twisted_smtpd.inbox.content import MAX_SEARCHED, Content, headers_of
from twisted_smtpd.store.messages import StoredMessage

__all__ = ["Finding", "check_headers"]

# RFC 5322 section 3.6: headers that may be there once.
_ONCE = ("date", "from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject")
_MESSAGE_ID = re.compile(r"<[^<>@\s]+@[^<>@\s]+>")
# Octets of a line without its CRLF (RFC 5322 section 2.1.1).
_MAX_LINE = 998


@dataclass(frozen=True)
class Finding:
    """What was found.

    :ivar level: ``"bad"`` for what is not allowed, ``"warn"`` for what is not good.
    :ivar text: what it is, in a sentence.
    :ivar rule: where that is written.
    """

    level: Literal["bad", "warn"]
    text: str
    rule: str


def check_headers(stored: StoredMessage, content: Content) -> list[Finding]:
    """Look for what is missing in a message, or wrong.

    :param stored: the message.
    :param content: what is in it.
    """
    octets = stored.message.content
    headers = headers_of(octets)
    named = {name.lower(): value for name, value in reversed(headers)}
    counts = Counter(name.lower() for name, _ in headers)
    return [*_required(named), *_repeated(counts), *_form(octets, named), *_bodies(content, named)]


def _required(named: dict[str, str]) -> Iterator[Finding]:
    if not named.get("from"):
        yield Finding("bad", "There is no From header.", "RFC 5322 section 3.6")
    if not named.get("date"):
        yield Finding("bad", "There is no Date header.", "RFC 5322 section 3.6")
    else:
        try:
            parsedate_to_datetime(named["date"])
        except (TypeError, ValueError, IndexError, OverflowError):
            yield Finding("bad", "The Date header is no date.", "RFC 5322 section 3.3")
    if not named.get("message-id"):
        yield Finding(
            "warn", "There is no Message-ID header: threads break, and spam filters mind.", "RFC 5322 section 3.6.4"
        )
    elif not _MESSAGE_ID.fullmatch(named["message-id"]):
        yield Finding("bad", "The Message-ID has not the form <something@domain>.", "RFC 5322 section 3.6.4")
    if not named.get("subject"):
        yield Finding("warn", "There is no subject.", "RFC 5322 section 3.6.5")
    if not any(named.get(name) for name in ("to", "cc", "bcc")):
        yield Finding("warn", "No header names a recipient: neither To nor Cc.", "RFC 5322 section 3.6.3")


def _repeated(counts: Counter[str]) -> Iterator[Finding]:
    for name in _ONCE:
        if counts[name] > 1:
            yield Finding("bad", f"The header {name.title()} is there {counts[name]} times.", "RFC 5322 section 3.6")


def _form(octets: bytes, named: dict[str, str]) -> Iterator[Finding]:
    if any(len(line.rstrip(b"\r")) > _MAX_LINE for line in octets.split(b"\n")):
        yield Finding("bad", f"A line is longer than {_MAX_LINE} octets.", "RFC 5322 section 2.1.1")
    # Counting takes a fraction of the time of a regular expression, in which no other thread runs.
    if not octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r"):
        yield Finding("warn", "A line does not end with CRLF.", "RFC 5322 section 2.3")
    if not named.get("mime-version") and named.get("content-type"):
        yield Finding("warn", "There is a Content-Type, but no MIME-Version header.", "RFC 2045 section 4")
    if not named.get("content-type") and not octets.isascii():
        yield Finding(
            "bad", "There are octets above 127, but no Content-Type says what they mean.", "RFC 2045 section 5.2"
        )


def _bodies(content: Content, named: dict[str, str]) -> Iterator[Finding]:
    if content.html and not content.text.strip():
        yield Finding("warn", "There is HTML, but no plain text beside it.", "RFC 2046 section 5.1.4")
    text = (content.html or content.text)[:MAX_SEARCHED]
    if "unsubscribe" in text.lower() and not named.get("list-unsubscribe"):
        yield Finding(
            "warn",
            "It speaks of unsubscribing, but has no List-Unsubscribe and List-Unsubscribe-Post headers.",
            "RFC 8058",
        )
