"""What handlers that print messages share: texts that a terminal does not obey, and a stream that may be lost."""

from __future__ import annotations

import os
import re
from typing import TextIO

from twisted.logger import Logger

from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["harmless", "in_encoding", "one_line", "warn_if_lost", "write_whole"]

log = Logger()

# A terminal obeys the characters of C0 and C1, and bidirectional controls make it show another text than there is.
_DANGEROUS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def harmless(text: str) -> str:
    """A text with backslash escapes for what a terminal would obey; line ends and tabs stay."""
    return _DANGEROUS.sub(_escape, text)


def one_line(text: object) -> str:
    """A harmless text without line ends."""
    return harmless(str(text)).replace("\n", "\\x0a")


def in_encoding(text: str, encoding: str | None) -> str:
    """A text with backslash escapes for what a stream can't take.

    :param encoding: the stream's, if it has one.
    """
    return text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text


def write_whole(stream: TextIO, text: str) -> None:
    """Print a text in one piece, so that another thread can't print in the middle.

    :raises SMTPReplyError: if the stream's reader has gone; the message is not printed, and the client keeps it.
    :raises OSError: if the stream is broken.
    :raises ValueError: if the stream is closed.
    """
    try:
        stream.write(text)
        flush = getattr(stream, "flush", None)
        if flush is not None:
            flush()
    except BrokenPipeError:
        raise SMTPReplyError(451, "4.3.0", "The handler's output is closed, try again later") from None


def warn_if_lost(stream: TextIO, handler: str) -> None:
    """Warn in the log if what is printed is lost.

    :param handler: the handler's name.
    """
    if _goes_nowhere(stream):
        log.warn("WHAT IS PRINTED IS LOST: the {handler} handler's output is closed, or /dev/null", handler=handler)


def _goes_nowhere(stream: TextIO) -> bool:
    if getattr(stream, "closed", False):
        return True
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except (AttributeError, OSError, ValueError):
        # There is no file behind it, as with twistd's own stream, which writes to the log.
        return False
