"""Replies: the status that a hook returns, and its form on the wire (RFC 5321 section 4.2, RFC 2034, RFC 3463)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "LAST_CODES",
    "AlreadySent",
    "BadStatus",
    "Reply",
    "SMTPReplyError",
    "encode_known",
    "encode_status",
    "fitting_enhanced",
    "whole_statuses",
]

# RFC 5321 section 4.5.3.1.5: a reply line has 512 octets, the code and CRLF included.
MAX_REPLY_LINE = 512

#: After these replies the server closes the connection (RFC 5321 section 3.8, RFC 7504).
LAST_CODES = frozenset({421, 521})

# The second digit is 0 to 5 in RFC 5321 section 4.2.1, but clients have to go by the first (section 4.3.2).  3yz is an
# answer to DATA and AUTH, and no other one is known there.
_CODE = re.compile(r"([245][0-9][0-9]|3[0-5][0-9])(?:([ -])(.*))?")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: (.*))?")
_LINE_END = re.compile(r"\r\n|\r|\n")
# RFC 5321 section 4.2: a reply's text is printable ASCII and tabs.  The C1 controls and U+2028/9 matter for clients
# that are sent UTF-8: terminals obey them, and some software splits lines at them.
_CONTROL = {c: "?" for c in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029) if c != 0x09}

# RFC 2034 section 4: no code on the greeting and the replies to HELO and EHLO.  (3xx has no class in RFC 3463.)
_NEVER_ENHANCED = frozenset({"", "HELO", "EHLO", "LHLO"})

_FITTING_BY_VERB = {
    ("MAIL", 2): "2.1.0",
    ("RCPT", 2): "2.1.5",
    ("AUTH", 2): "2.7.0",
    ("MAIL", 552): "5.3.4",
    ("DATA", 552): "5.3.4",
    ("BDAT", 552): "5.3.4",
    ("RCPT", 552): "5.2.2",
    ("RCPT", 452): "4.5.3",
    ("MAIL", 553): "5.1.7",
    ("MAIL", 4): "4.1.0",
    ("RCPT", 4): "4.1.0",
    ("MAIL", 550): "5.1.0",
    ("RCPT", 550): "5.1.0",
    ("DATA", 550): "5.6.0",
    ("DATA", 554): "5.6.0",
    ("BDAT", 550): "5.6.0",
    ("BDAT", 554): "5.6.0",
    ("AUTH", 454): "4.7.0",
}
_FITTING_BY_CODE = {
    421: "4.3.2",
    432: "4.7.12",
    450: "4.2.0",
    451: "4.3.0",
    452: "4.3.1",
    454: "4.7.0",
    455: "4.5.4",
    500: "5.5.2",
    501: "5.5.4",
    502: "5.5.1",
    503: "5.5.1",
    504: "5.5.4",
    521: "5.3.2",
    530: "5.7.0",
    534: "5.7.9",
    535: "5.7.8",
    538: "5.7.11",
    551: "5.1.6",
    553: "5.1.3",
    555: "5.5.4",
    556: "5.1.10",
}


class BadStatus(ValueError):
    """A hook returned something that is not a status."""


@dataclass(frozen=True)
class Reply:
    """One SMTP reply (RFC 5321 section 4.2).

    :param code: the reply code: any from 200 to 299 and from 400 to 599, or one from 300 to 359.
    :param enhanced: the enhanced status code (RFC 3463) such as ``"5.1.1"``, or ``None`` for the usual one for the
        command.
    :param lines: the lines of the text; a line end inside a line starts another.
    :raises BadStatus: (a ``ValueError``) if the code is out of range, if the enhanced code is malformed or of another
        class, or if a line is not a string.
    """

    code: int
    enhanced: str | None = None
    lines: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        if not isinstance(self.code, int) or _CODE.fullmatch(f"{self.code:d}") is None:
            raise BadStatus(f"a reply code is between 200 and 599, not {self.code!r}")
        if self.enhanced is not None:
            match = _ENHANCED.fullmatch(self.enhanced) if isinstance(self.enhanced, str) else None
            if match is None or match[2] is not None or match[1][0] != f"{self.code:d}"[0]:
                raise BadStatus(f"{self.enhanced!r} is no enhanced status code for a {self.code:d} reply")
        lines = (self.lines,) if isinstance(self.lines, str) else tuple(self.lines)
        if not all(isinstance(line, str) for line in lines):
            raise BadStatus("the lines of a reply are strings")
        # A reply without a line would never be sent, and the client would wait for it.
        split = tuple(part for line in lines for part in _LINE_END.split(line)) or ("",)
        object.__setattr__(self, "lines", split)

    def __str__(self) -> str:
        prefix = f"{self.enhanced} " if self.enhanced else ""
        last = len(self.lines) - 1
        return "\n".join(f"{self.code:d}{' ' if i == last else '-'}{prefix}{line}" for i, line in enumerate(self.lines))

    @classmethod
    def parse(cls, status: object) -> Reply:
        """Read a status that a hook has returned.

        :param status: a :class:`Reply`; or a string of one line (``"250 OK"``), of several lines that each start with
            the code (``"250-one\\r\\n250 two"``), or of several lines of which only the first has the code.
        :raises BadStatus: if it is none of these.
        """
        if isinstance(status, Reply):
            return status
        if not isinstance(status, str):
            raise BadStatus(f"a status is a str or a Reply, not {type(status).__name__}: did the hook forget `return`?")
        code, texts, _ = _read(status)
        found = [_ENHANCED.fullmatch(text) for text in texts]
        first = found[0]
        if first is None or first[1][0] != str(code)[0]:
            return cls(code, None, texts)
        rest = (m[2] or "" if m and m[1] == first[1] else text for m, text in zip(found, texts, strict=True))
        return cls(code, first[1], tuple(rest))


class AlreadySent(Reply):
    """Stands for the reply that a hook has pushed by itself: sending it sends nothing."""


class SMTPReplyError(Exception):
    """Raise it in a hook or a command: the client gets this reply.

    :param code: the reply code: see :class:`Reply`.
    :param enhanced: the enhanced status code, or ``None`` for the usual one.
    :param text: the text, lines separated by newlines.
    :ivar reply: the same as a :class:`Reply`.
    :raises BadStatus: as :class:`Reply` does.
    """

    def __init__(self, code: int, enhanced: str | None = None, text: str = "") -> None:
        super().__init__(code, enhanced, text)
        self.reply = Reply(code, enhanced, (text,))

    def __str__(self) -> str:
        return str(self.reply)


def whole_statuses(text: str) -> list[str]:
    """Take statuses apart that were joined with line ends, as GNU Mailman answers for several recipients.

    :param text: what a hook has returned.
    :returns: each status; the text alone if it is one status of several lines.
    """
    found = []
    lines: list[str] = []
    for line in _LINE_END.split(text.rstrip("\r\n")):
        match = _CODE.fullmatch(line)
        if match is None or (lines and lines[0][:3] != match[1]):
            return [text]
        lines.append(line)
        if match[2] != "-":
            found.append("\n".join(lines))
            lines = []
    return [text] if lines else found


def fitting_enhanced(code: int, verb: str) -> str | None:
    """The usual enhanced status code for a reply.

    :param code: the reply code.
    :param verb: the command answered; ``""`` for the greeting.
    :returns: ``None`` for replies without an enhanced status code (RFC 2034).
    """
    if verb in _NEVER_ENHANCED or code // 100 == 3:
        return None
    return (
        _FITTING_BY_VERB.get((verb, code))
        or _FITTING_BY_CODE.get(code)
        or _FITTING_BY_VERB.get((verb, code // 100))
        or f"{code // 100}.0.0"
    )


def encode_status(
    status: str | Reply, verb: str = "", enhanced: bool = True, utf8: bool = False, more: bool = False
) -> tuple[int, bytes]:
    """The code of a status, and its form on the wire.

    A line end in the text starts a new line of the reply, and other control characters become ``?``, so the text can't
    forge a reply.  Lines that would be longer than 512 octets are folded.

    :param status: see :meth:`Reply.parse`.
    :param verb: the command answered; ``""`` for the greeting.
    :param enhanced: whether to send an enhanced status code.  If not (and always on the greeting, HELO, EHLO and LHLO,
        RFC 2034 section 4), the code of a :class:`Reply` is left out; the text of a ``str`` is sent as it is.
    :param utf8: whether the client understands UTF-8 (RFC 6531 section 3.7.4.2); if not, characters beyond ASCII become
        ``?``.
    :param more: whether a status whose last line is ``250-`` stays open, so that the next status continues it.
    :raises BadStatus: see :meth:`Reply.parse`.
    """
    if not isinstance(status, (str, Reply)):
        # The cache would raise a TypeError for a status that can't be hashed.
        Reply.parse(status)
    return encode_known(status, verb, enhanced, utf8, more)[:2]


@lru_cache(maxsize=512)
def encode_known(
    status: str | Reply, verb: str, enhanced: bool, utf8: bool = False, more: bool = True
) -> tuple[int, bytes, bool]:
    """The same without the check of the status' type; results are cached.

    :returns: also whether the reply is simple: complete, ASCII, not a refusal, and the connection stays open.
    """
    wanted = enhanced and verb not in _NEVER_ENHANCED
    code, texts, open_ended = _read(status) if isinstance(status, str) else (status.code, status.lines, False)
    prefix = b""
    if wanted:
        reply = Reply.parse(status)
        texts = reply.lines
        class_and_detail = reply.enhanced or fitting_enhanced(code, verb)
        prefix = f"{class_and_detail} ".encode() if class_and_detail else b""
    room = MAX_REPLY_LINE - len("250 ") - len(prefix) - len("\r\n")
    encoding = "utf-8" if utf8 else "ascii"
    pieces = [piece for text in texts for piece in _fold(text.translate(_CONTROL).encode(encoding, "replace"), room)]
    start = b"%d-" % code
    wire = [start + prefix + piece for piece in pieces]
    if not (more and open_ended):
        wire[-1] = b"%d %b%b" % (code, prefix, pieces[-1])
    simple = wire[-1][3:4] != b"-" and code < 400 and all(map(str.isascii, texts))
    return code, b"\r\n".join(wire) + b"\r\n", simple


def _read(status: str) -> tuple[int, tuple[str, ...], bool]:
    """The code of a status, its lines without the code, and whether the last line announces another (``250-``)."""
    lines = _LINE_END.split(status.rstrip("\r\n"))
    first = _CODE.fullmatch(lines[0])
    if first is None:
        raise BadStatus(f"a status starts with a reply code between 200 and 599, not {lines[0][:40]!r}")
    texts = []
    for line in lines:
        match = _CODE.fullmatch(line)
        texts.append(match[3] or "" if match is not None and match[1] == first[1] else line)
    return int(first[1]), tuple(texts), lines[-1].startswith(f"{first[1]}-")


def _fold(line: bytes, room: int) -> Iterator[bytes]:
    """Cut a line into pieces that fit, at a space if possible, and never inside a character."""
    start = 0
    while len(line) - start > room:
        end = start + room
        while line[end] & 0xC0 == 0x80:
            end -= 1
        space = line.rfind(b" ", start, end + 1)
        if space > start:
            end = space
        yield line[start:end].rstrip(b" ")
        start = end
        while line.startswith(b" ", start):
            start += 1
    yield line[start:]
