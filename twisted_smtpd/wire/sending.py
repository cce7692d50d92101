"""The client's side of the wire: a server's replies, what its EHLO response offers, and content on its way out."""

from __future__ import annotations

import re

from twisted_smtpd.wire.replies import Reply

__all__ = ["MalformedReply", "ReplyReader", "extensions_of", "prepare_content"]

# RFC 5321 section 4.5.3.1.5 says 512 octets; servers that say more are common, one without an end is an attack.
MAX_LINE = 4096
# Octets of all lines of one reply.
MAX_REPLY = 65536

_line = re.compile(rb"([2-5])([0-9])([0-9])(?:([- ])(.*))?", re.DOTALL)
_line_end = re.compile(rb"\r\n|\r|\n")


class MalformedReply(ValueError):
    """What a server sent is no reply."""


class ReplyReader:
    """Reads a server's replies, in whatever pieces they arrive.

    A line may end with LF alone.  A code that RFC 5321 section 4.2.1 does not have (``571``) becomes the one that says
    no more than its first digit (``550``), as section 4.2 wants a client to read it.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._code: tuple[bytes, ...] = ()
        self._lines: list[str] = []
        self._octets = 0

    @property
    def pending(self) -> bool:
        """Whether part of a reply has arrived."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """Take in some octets.

        :returns: the replies they complete.
        :raises MalformedReply: if they are no reply, or one without a reasonable end.
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
        # A bare CR would start another line of the reply we make of it.
        self._lines.append((match[5] or b"").replace(b"\r", b"?").decode("utf-8", "replace"))
        if match[4] == b"-":
            return None
        number = int(b"".join(code)) if code[1] <= b"5" else int(code[0]) * 100 + 50
        texts, self._lines, self._octets = self._lines, [], 0
        prefixed = [f"{number}-{text}" for text in texts]
        return Reply.parse("\n".join((*prefixed[:-1], f"{number} {texts[-1]}")))


def extensions_of(reply: Reply) -> dict[str, str]:
    """What an EHLO response offers (RFC 5321 section 4.1.1.1).

    :returns: keyword in upper case to the words behind it, as they stand.
    """
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, words = line.strip().replace("=", " ", 1).partition(" ")
        # Some servers say AUTH twice, "AUTH=LOGIN" for old clients: the words add up.
        found[keyword.upper()] = f"{found.get(keyword.upper(), '')} {words}".strip()
    return found


def prepare_content(content: bytes) -> bytes:
    """A message as it follows the 354: with dots doubled, without the final dot (RFC 5321 section 4.5.2).

    Each CR or LF that stands alone becomes CRLF: whatever a handler has put into the message, the only end of data the
    next host can see is ours.

    :returns: octets that are empty or end with CRLF.
    """
    ends = content.count(b"\r\n")
    if content.count(b"\n") != ends or content.count(b"\r") != ends:
        content = _line_end.sub(b"\r\n", content)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..")
