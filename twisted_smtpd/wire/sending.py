"""The client's side of the wire: reads a server's replies and EHLO response, and prepares content to be sent."""

from __future__ import annotations

import re

from twisted_smtpd.wire.line_ends import normalize
from twisted_smtpd.wire.replies import Reply
from twisted_smtpd.wire.slices import slices

__all__ = ["MalformedReply", "ReplyReader", "end_lines", "extensions_of", "stuff_dots"]

# RFC 5321 section 4.5.3.1.5 allows 512 octets.  Longer lines are common, but a line without an end is an attack.
MAX_LINE = 4096
# The most octets of all lines of one reply together.
MAX_REPLY = 65536

_line = re.compile(rb"([2-5])([0-9])([0-9])(?:([- ])(.*))?", re.DOTALL)


class MalformedReply(ValueError):
    """A server sent something that is not a reply."""


class ReplyReader:
    """Reads a server's replies from the pieces in which they arrive.

    A line may end with LF alone.  A code that is not in RFC 5321 section 4.2.1 (``571``) becomes the general code with
    the same first digit (``550``): section 4.2 has clients look at the first digit of unknown codes.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._code: tuple[bytes, ...] = ()
        self._lines: list[str] = []
        self._octets = 0

    @property
    def pending(self) -> bool:
        """Whether a part of the next reply has arrived."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """Read on.

        :param data: the octets that arrived.
        :returns: the replies that are complete now.
        :raises MalformedReply: for a malformed reply, and for one that is too long.
        """
        self._buffer += data
        replies = []
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            line = self._buffer[start:end]
            start = end + 1
            reply = self._take(line[:-1] if line.endswith(b"\r") else line)
            if reply is not None:
                replies.append(reply)
        self._buffer = self._buffer[start:]
        if len(self._buffer) > MAX_LINE:
            raise MalformedReply(f"a reply line of more than {MAX_LINE} octets")
        return replies

    def _take(self, line: bytes) -> Reply | None:
        match = _line.fullmatch(line)
        if match is None or len(line) > MAX_LINE:
            raise MalformedReply(f"not a reply: {line[:40]!r}")
        code = match.groups()[:3]
        if self._lines and code != self._code:
            raise MalformedReply("a reply with two codes")
        self._octets += len(line)
        if self._octets > MAX_REPLY:
            raise MalformedReply(f"a reply of more than {MAX_REPLY} octets")
        self._code = code
        # A bare CR would start another line in Reply.
        self._lines.append((match[5] or b"").replace(b"\r", b"?").decode("utf-8", "replace"))
        if match[4] == b"-":
            return None
        number = int(b"".join(code)) if code[1] <= b"5" else int(code[0]) * 100 + 50
        texts, self._lines, self._octets = self._lines, [], 0
        prefixed = [f"{number}-{text}" for text in texts]
        return Reply.parse("\n".join((*prefixed[:-1], f"{number} {texts[-1]}")))


def extensions_of(reply: Reply) -> dict[str, str]:
    """The extensions in an EHLO response (RFC 5321 section 4.1.1.1).

    :returns: for each keyword, in upper case, the text that follows it.
    """
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, words = line.strip().replace("=", " ", 1).partition(" ")
        # Some servers send AUTH twice, once as "AUTH=LOGIN" for old clients: the words of both count.
        found[keyword.upper()] = f"{found.get(keyword.upper(), '')} {words}".strip()
    return found


def end_lines(content: bytes) -> bytes:
    """A message whose lines all end with CRLF; other CRs become blanks.

    See :func:`~twisted_smtpd.wire.content.normalize`.

    :param content: the message.
    :returns: octets that are empty or end with CRLF.
    """
    return b"".join(map(_prepare, slices(content)))


def _prepare(content: bytes) -> bytes:
    """The same for whole lines of a message."""
    ends = content.count(b"\r\n")
    if content.count(b"\n") != ends or content.count(b"\r") != ends:
        content = normalize(content)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    return content


def stuff_dots(content: bytes) -> bytes:
    """A message in the form in which it is sent after 354; the final dot is missing.

    A line that begins with a dot gets another one, so that nothing in the message can look like an end of data to the
    next host (RFC 5321 section 4.5.2).

    :param content: the message, whose lines end with CRLF.
    """
    return b"".join(map(_stuffed, slices(content)))


def _stuffed(lines: bytes) -> bytes:
    """The same for whole lines."""
    if lines.startswith(b"."):
        lines = b"." + lines
    return lines.replace(b"\r\n.", b"\r\n..")
