"""The headers that say where a message came from, and the removal of forged ones."""

from __future__ import annotations

import re
from email.header import Header
from typing import AnyStr

from twisted_smtpd.session import Envelope, Session

__all__ = ["TRACE_HEADERS", "split_header", "trace_header", "trace_values"]

TRACE_HEADERS = ("X-Peer", "X-MailFrom", "X-RcptTo")

# A name with blanks behind it is obsolete (RFC 5322 section 4.5) but read by many, so a forged one counts as well.
# So does a bare CR as a line end: the email package takes it for one.
_LINE = r"(?:(?P<forged>(?i:X-Peer|X-MailFrom|X-RcptTo)[ \t]*:)|(?P<header>(?:[!-9;-~]+[ \t]*)?:)|[ \t])"
_LINE += r"[^\r\n]*(?:\r\n?|\n|\Z)"
_MBOX = r"From [^\r\n]*(?:\r\n?|\n)(?=[!-9;-~]+[ \t]*:)"
_TEXT_LINE, _TEXT_MBOX = re.compile(_LINE), re.compile(_MBOX)
_BYTES_LINE, _BYTES_MBOX = re.compile(_LINE.encode()), re.compile(_MBOX.encode())

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def trace_values(session: Session, envelope: Envelope) -> dict[str, str]:
    """The values of the trace headers, in order.

    :returns: a value without line ends and other control characters for each of :data:`TRACE_HEADERS`.
    """
    values = ("" if session.peer is None else str(session.peer), envelope.mail_from or "", ", ".join(envelope.rcpt_tos))
    return {name: _CONTROL.sub("?", value) for name, value in zip(TRACE_HEADERS, values, strict=True)}


def trace_header(values: dict[str, str], utf8: bool = False) -> bytes:
    """The trace headers as they stand at the top of a message: CRLF line ends, folded (RFC 5322 section 2.2.3).

    :param values: see :func:`trace_values`.
    :param utf8: whether the message's own headers are in UTF-8 (RFC 6532), so that these are too; if not, what is not
        ASCII becomes encoded words (RFC 2047).
    """
    lines = []
    for name, value in values.items():
        if utf8 and not value.isascii():
            # Between two recipients.
            value = value.replace(", ", ",\r\n ")
        elif len(value) > 60 or not value.isascii():
            value = Header(value, header_name=name).encode(linesep="\r\n")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("utf-8")


def split_header(content: AnyStr) -> tuple[AnyStr, AnyStr]:
    """Split a message into header and body, and leave out headers with the names of the trace headers.

    Headers can be put before what is returned whatever the client has sent: a body without a header before it gets the
    empty line it needs, and a first line that would continue our last header is taken for such a body.  An mbox
    ``From`` line is left out.

    :param content: the message.
    :returns: the header, and the rest with the empty line between.
    """
    if isinstance(content, str):
        line, mbox, empty, separator = _TEXT_LINE, _TEXT_MBOX, "", "\r\n"
    else:
        line, mbox, empty, separator = _BYTES_LINE, _BYTES_MBOX, b"", b"\r\n"
    match = mbox.match(content)
    position = start = match.end() if match else 0
    kept = []
    # Where the lines to keep begin; None inside a forged header, which its continuation lines belong to.
    run: int | None = start
    while match := line.match(content, position):
        if match["forged"] is not None:
            if run is not None:
                kept.append(content[run:position])
            run = None
        elif match["header"] is not None:
            if run is None:
                run = position
        elif position == start:
            break
        position = match.end()
    if run is not None:
        kept.append(content[run:position])
    body = content[position:]
    if body and body[:1] not in (separator[:1], separator[1:]):
        body = separator + body
    return empty.join(kept), body
