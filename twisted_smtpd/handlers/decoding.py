"""Headers that hold a line end once they are decoded (RFC 2047, RFC 2231)."""

from __future__ import annotations

import email.message
import re
from email.header import Header
from typing import Any

__all__ = ["tame_headers"]

# What may hide a character in a header, and what str.splitlines() takes for a line end.
_HIDING = re.compile(r"=\?|\*[0-9]*\*?=")
_LINE_ENDS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def tame_headers(message: email.message.Message) -> None:
    """Change the headers of a message that have a line end in them when they are decoded.

    The :mod:`email` package folds a long header anew from its decoded text when it writes a message.  A line end in
    there would start a header line that the client has not sent as one: a second ``X-MailFrom``, for example, behind
    the removal of forged ones.  A line end in a text becomes a blank; in a header with a structure nothing is decoded.

    :param message: one of a modern policy, such as :data:`email.policy.default`.
    """
    headers = list(message.raw_items())
    tamed = [(name, _tamed(message.policy, name, source)) for name, source in headers]
    if tamed == headers:
        return
    for name in set(message.keys()):
        del message[name]
    for name, source in tamed:
        message.set_raw(name, source)


def _tamed(policy: Any, name: str, source: Any) -> Any:
    if _HIDING.search(str(source)) is None:
        return source
    decoded = _decoded(policy, name, source)
    if decoded is not None and _LINE_ENDS.search(decoded) is None:
        return source
    if decoded is not None:
        text = _LINE_ENDS.sub(" ", decoded)
        encoded = Header(text, "utf-8", header_name=name).encode()
        if _decoded(policy, name, encoded) == text:
            return encoded
    return source.replace("=?", "= ?").replace("%", "%25")


def _decoded(policy: Any, name: str, source: str) -> str | None:
    """A header's text; ``None`` if the package can't read it, which a line end in an address is one reason for."""
    try:
        return str(policy.header_fetch_parse(name, source))
    except Exception:
        return None
