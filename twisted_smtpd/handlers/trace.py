"""The headers that say where a message came from, and the removal of forged ones."""

from __future__ import annotations

import re
from email.header import Header
from typing import AnyStr

from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.slices import rest_of

__all__ = ["TRACE_HEADERS", "modern_header", "split_header", "trace_header", "trace_values", "with_header"]

TRACE_HEADERS = ("X-Peer", "X-MailFrom", "X-RcptTo")

# A name with blanks behind it is obsolete (RFC 5322 section 4.5) but read by many, so a forged one counts as well.
# So does a bare CR as a line end: the email package takes it for one.
_LINE = r"(?:(?P<forged>(?i:X-Peer|X-MailFrom|X-RcptTo)[ \t]*:)|(?P<header>[!-9;-~]+[ \t]*:)|[ \t])"
_LINE += r"[^\r\n]*(?:\r\n?|\n|\Z)"
# What a mailbox in the mbox format has between its messages.  "From :" is a header (RFC 5322 section 4.5).
_MBOX = r">*From (?![ \t]*:)[^\r\n]*(?:\r\n?|\n|\Z)"
_TEXT_LINE, _TEXT_MBOX = re.compile(_LINE), re.compile(_MBOX)
_BYTES_LINE, _BYTES_MBOX = re.compile(_LINE.encode()), re.compile(_MBOX.encode())

_NAME = r"(?<![^\r\n])([!-9;-~]+)[ \t]+(?=:)"
_TEXT_NAME, _BYTES_NAME = re.compile(_NAME), re.compile(_NAME.encode())

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
        encoded = "=?" in value
        if utf8 and not value.isascii() and not encoded:
            # Between two recipients.
            value = value.replace(", ", ",\r\n ")
        elif len(value) > 60 or encoded or not value.isascii():
            # What looks like an encoded word is encoded once more, so that it is what is read.
            value = Header(value, "utf-8" if encoded else None, header_name=name).encode(linesep="\r\n")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("utf-8")


def with_header(content: AnyStr) -> AnyStr:
    """A message as it goes on, if no headers are put before it: with the header that :func:`split_header` finds, trace
    headers included.

    :param content: the message.
    """
    header, body = _split(content, leave_out=False)
    return header[:0].join((header, body))


def split_header(content: AnyStr) -> tuple[AnyStr, AnyStr]:
    """Split a message into header and body, and leave out headers with the names of the trace headers.

    Headers can be put before what is returned whatever the client has sent: a body without a header before it gets the
    empty line it needs, and a first line that is no header, or would continue our last one, is taken for such a body.
    Lines ``From …`` or ``>From …`` at the very start become headers ``X-Mailbox-Line: From …``.  Nothing else changes,
    and no other octet is left out.  It is what Postfix does.

    :param content: the message.
    :returns: the header, and the rest with the empty line between.
    """
    return _split(content, leave_out=True)


def modern_header(header: AnyStr) -> AnyStr:
    """A header without the blanks that obsolete syntax may have before a colon (RFC 5322 section 4.5).

    The :mod:`email` package takes ``Subject : hi`` for the first line of the body, and leaves out ``From : a@b``.

    :param header: what :func:`split_header` returns.
    """
    # Few headers have either, and to search for them takes a hundredth of the time.
    if isinstance(header, str):
        return _TEXT_NAME.sub(r"\1", header) if " :" in header or "\t:" in header else header
    return _BYTES_NAME.sub(rb"\1", header) if b" :" in header or b"\t:" in header else header


def _split(content: AnyStr, leave_out: bool) -> tuple[AnyStr, AnyStr]:
    if isinstance(content, str):
        line, mbox, empty, separator, mailbox_line = _TEXT_LINE, _TEXT_MBOX, "", "\r\n", "X-Mailbox-Line: "
    else:
        line, mbox, empty, separator, mailbox_line = _BYTES_LINE, _BYTES_MBOX, b"", b"\r\n", b"X-Mailbox-Line: "
    position = 0
    kept = []
    while match := mbox.match(content, position):
        kept.append(mailbox_line + match[0])
        position = match.end()
    start = position
    # Where the lines to keep begin; None inside a forged header, which its continuation lines belong to.
    run: int | None = start
    while match := line.match(content, position):
        if match["forged"] is not None and leave_out:
            if run is not None:
                kept.append(content[run:position])
            run = None
        elif match["header"] is not None or match["forged"] is not None:
            if run is None:
                run = position
        elif position == start:
            break
        position = match.end()
    if run is not None:
        kept.append(content[run:position])
    body = rest_of(content, position)
    if body and body[:1] not in (separator[:1], separator[1:]):
        body = empty.join((separator, body))
    return empty.join(kept), body
