"""Content on its way in: incremental readers for DATA (RFC 5321 section 4.5.2) and BDAT (RFC 3030).

Only CRLF ends a line and only CRLF.CRLF ends DATA, and both are looked for in the octets as they arrived.  Other
sequences that some servers take for an end of data (``LF.LF``, ``LF.CRLF``, ``CR.CR`` ...) are content here, so a
client can't smuggle in a second message.

After an error in the content a reader goes on to the real end.  No Python code runs for each line: each piece that
arrives is searched and checked as a whole.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from twisted_smtpd.wire.line_ends import find_equal_lines, has_bare_newline, normalize

__all__ = ["ChunkReader", "ContentReader", "DotReader"]

_CRLF = b"\r\n"
_CR = b"\r"
_LF = b"\n"
_DOT = ord(".")
_LINE_DOT = b"\r\n."
_END_OF_DATA = b"\r\n.\r\n"

# A piece that ends with one of these may end in the middle of an end of data; the longest comes first.
_UNDECIDED = tuple(_END_OF_DATA[:length] for length in (4, 3, 2, 1))

_BARE_NEWLINE = re.compile(rb"\r(?!\n)|(?<!\r)\n")

# For smaller pieces the search for lines of equal length costs more than it saves.
_LARGE = 16384

# Pieces shorter than _SMALL are joined until they have _GATHERED octets.  Otherwise a client that sends one octet at a
# time would make the server hold an object for each octet.
_SMALL = 4096
_GATHERED = 65536
# Most messages arrive in one piece and gather nothing.  They share this object, which is never changed.
_NOTHING = bytearray()

_UNLIMITED = sys.maxsize

# A line that is none of a header's: it neither begins one (RFC 5322 section 2.2) nor continues one.
_NO_HEADER_LINE = re.compile(rb"^(?![!-9;-~]+[ \t]*:|[ \t])", re.MULTILINE)
# The shortest header line, with its CRLF.
_SHORTEST = len(b"a:\r\n")


def _find_end_of_data(data: bytes) -> tuple[int, bool]:
    """Find the first CRLF.CRLF.

    :returns: its index, or -1; and whether there may be stuffed dots before it.
    """
    # The search for one octet is many times as fast as for three, and base64 has no dots, only the header before it
    # has.  The end of data is mostly at the end.
    dot = data.rfind(b".")
    if dot < 0:
        return -1, False
    end = dot - len(_CRLF)
    if end >= 0 and data.startswith(_END_OF_DATA, end):
        dot = data.rfind(b".", 0, end)
        if dot < 0:
            return end, False
    else:
        end = -1
    # Where there are dots in most lines, as in text, this search decides.  A Python built with a profile, as those of
    # the distributions are, takes half the time of a search by a pattern; one built without takes a tenth more.
    if data.rfind(_LINE_DOT, 0, dot + 1) < 0:
        return end, False
    # bytes is searched faster from the right than from the left.
    if end < 0 and data.rfind(_END_OF_DATA) < 0:
        return -1, True
    return data.find(_END_OF_DATA), True


@dataclass(eq=False, repr=False, slots=True)
class _Limits:
    """The limits of a reader; one that does not hold is as high as can be.

    :ivar of_header: whether there are any for the header.
    :ivar line_length: 0 for no limit.
    :ivar short: octets of a message that keeps to all of them, whatever its lines are.
    """

    size: int
    line_length: int
    header_size: int
    header_lines: int
    normalizing: bool
    of_header: bool
    short: int


@lru_cache(maxsize=64)
def _limits(
    size: int | None, line_length: int | None, bare_newline: str, header_size: int, header_lines: int
) -> _Limits:
    if bare_newline not in ("normalize", "reject"):
        raise ValueError(f'bare_newline is "normalize" or "reject", not {bare_newline!r}')
    of_header = bool(header_size or header_lines)
    size, line_length = size or _UNLIMITED, line_length or 0
    header_size, header_lines = header_size or _UNLIMITED, header_lines or _UNLIMITED
    short = min(_SMALL, size, line_length or _UNLIMITED, header_size, header_lines * _SHORTEST)
    return _Limits(size, line_length, header_size, header_lines, bare_newline == "normalize", of_header, short)


class ContentReader(ABC):
    """The base of the readers: it applies the newline policy and the limits, and keeps the content.

    :param size_limit: the most octets of content, counted as kept (dots un-stuffed, newlines normalized); ``None`` or 0
        for no limit.
    :param line_length_limit: the most octets of a line, counted as kept, its CRLF included; ``None`` or 0 for no limit.
    :param bare_newline: how a CR or LF that is not part of a CRLF is treated: ``"normalize"`` makes a CRLF of a LF with
        the CRs before it, and a blank of any other CR; ``"reject"`` makes it an error.
    :param header_size_limit: the most octets of the header, counted as kept; 0 for no limit.
    :param header_line_limit: the most lines of the header; 0 for no limit.
    :raises ValueError: if `bare_newline` is neither.

    :ivar error: the first violation: ``"size"``, ``"line"``, ``"newline"`` or ``"header"``; ``None`` before the first
        one.  After it nothing is kept.
    :ivar size: how many octets have been kept; it no longer grows after :attr:`error` or :meth:`discard`.
    """

    __slots__ = (
        "_chunks",
        "_crs",
        "_dropping",
        "_gathered",
        "_head",
        "_head_lines",
        "_head_size",
        "_held",
        "_lead_left",
        "_limits",
        "_line_length",
        "_textual",
        "error",
        "size",
    )

    # Octets that the reader searches before the first ones that arrive; they are not content.
    _lead: ClassVar[bytes] = b""

    def __init__(
        self,
        size_limit: int | None = None,
        line_length_limit: int | None = None,
        bare_newline: str = "normalize",
        header_size_limit: int = 0,
        header_line_limit: int = 0,
    ) -> None:
        self._limits = limits = _limits(
            size_limit, line_length_limit, bare_newline, header_size_limit, header_line_limit
        )
        self.error: str | None = None
        self.size = 0
        # The pieces that the header has come in, until it is whole; or None.
        self._head: list[bytes] | None = [] if limits.of_header else None
        self._head_size = self._head_lines = 0
        self._textual = True
        self._dropping = False
        # CRs that the last piece ended with: a LF may follow them.
        self._crs = 0
        self._line_length = 0
        self._chunks: list[bytes] = []
        self._gathered = _NOTHING
        self._held = lead = self._lead
        self._lead_left = len(lead)

    @abstractmethod
    def feed(self, data: bytes) -> bytes | None:
        """Read on.

        :param data: what arrived.
        :returns: ``None`` before the end, else the octets that follow it.
        """

    def take(self) -> list[bytes]:
        """The content read since the last call, in pieces; the reader forgets it."""
        if self._gathered:
            self._close_gathered()
        chunks, self._chunks = self._chunks, []
        return chunks

    def getvalue(self) -> bytes:
        """The content read since the last :meth:`take`, or from the start, in one piece."""
        if self._gathered:
            self._close_gathered()
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def discard(self) -> None:
        """Forget the content and keep nothing more; the end is still found, and limits no longer apply."""
        self._dropping = True
        self._chunks = []
        self._gathered = _NOTHING

    def _accept(self, piece: bytes) -> None:
        """Check and keep a piece of content that is un-stuffed and does not start or end in the middle of a CRLF."""
        if len(piece) >= _LARGE and self._is_faultless(piece):
            if self._head is not None and self._header_is_too_long(self._head, piece):
                self.error = "header"
                self.discard()
                return
            self.size += len(piece)
            self._keep(piece)
            return
        error = None
        if self._textual and (self._crs or has_bare_newline(piece)):
            if self._limits.normalizing:
                piece = self._normalize(piece)
            else:
                error = "newline"
                piece = piece[: next(_BARE_NEWLINE.finditer(piece)).start()]
        # Each check cuts the piece off at the violation it finds, so that the next check can only find an earlier one.
        if self.size + len(piece) > self._limits.size:
            error = "size"
            piece = piece[: self._limits.size - self.size]
        if self._limits.line_length and (end := self._find_overlong(piece)) >= 0:
            error = "line"
            piece = piece[:end]
        if self._head is not None and self._header_is_too_long(self._head, piece):
            error = "header"
        self.size += len(piece)
        if error is None:
            self._keep(piece)
        else:
            self.error = error
            self.discard()

    def _normalize(self, piece: bytes) -> bytes:
        """Normalize a piece, and hold back the CRs at its end."""
        whole = piece.rstrip(_CR)
        held = len(piece) - len(whole)
        if not whole:
            self._crs += held
            return b""
        if self._crs and not whole.lstrip(_CR).startswith(_LF):
            whole = self._blanks() + whole
        self._crs = held
        return normalize(whole)

    def _blanks(self) -> bytes:
        """What the CRs that were held back come to if no LF follows them."""
        # No more than it takes to go beyond the limits: then they are an error anyway.
        count, self._crs = min(self._crs, self._limits.size - self.size + 1), 0
        return b" " * (min(count, self._limits.line_length + 1) if self._limits.line_length else count)

    def _header_is_too_long(self, head: list[bytes], piece: bytes) -> bool:
        """Count a piece that is part of the header, or ends it."""
        if piece.startswith(_CRLF) and (not head or head[-1].endswith(_CRLF)):
            self._head = None
            return False
        end = piece.find(b"\r\n\r\n") + len(_CRLF)
        if end >= len(_CRLF):
            piece = piece[:end]
            self._head = None
        if piece:
            head.append(piece)
        self._head_size += len(piece)
        self._head_lines += piece.count(b"\n")
        if self._head_size <= self._limits.header_size and self._head_lines <= self._limits.header_lines:
            return False
        self._head = None
        # Only now: the first line that is none of a header's ends it, too, and to look for that takes longer.
        header = b"".join(head)
        other = _NO_HEADER_LINE.search(header)
        if other is None or other.start() > header.rfind(b"\n"):
            # The last line may not be whole yet.
            return True
        return (
            other.start() > self._limits.header_size
            or header.count(b"\n", 0, other.start()) > self._limits.header_lines
        )

    def _is_faultless(self, piece: bytes) -> bool:
        """Whether a piece has no violation, if that can be found out fast because most lines have the same length."""
        if not self._textual or self._crs or self.size + len(piece) > self._limits.size:
            return False
        start, stop, length = find_equal_lines(piece)
        if stop - start < len(piece) // 2:
            return False
        head, tail = piece[:start], piece[stop:]
        if has_bare_newline(head + tail):
            return False
        if not self._limits.line_length:
            return True
        # If the head fits, _find_overlong may measure it again without the part of its line that came before it.
        return not (
            length > self._limits.line_length or self._find_overlong(head) >= 0 or self._find_overlong(tail) >= 0
        )

    def _find_overlong(self, piece: bytes) -> int:
        """The index of the first octet that makes a line too long, or -1."""
        limit, size = self._limits.line_length, len(piece)
        start = -self._line_length
        rfind = piece.rfind
        if start < 0 and size - start > limit:
            newline = rfind(b"\n", 0, start + limit)
            if newline < 0:
                return start + limit
            start = newline + 1
        # Go from line end to line end, each time to the last one within the limit.  That is linear in the octets, since
        # two steps always get further than the limit.
        while size - start > limit:
            newline = rfind(b"\n", start, start + limit)
            if newline < 0:
                return start + limit
            start = newline + 1
        newline = rfind(b"\n")
        self._line_length = size - (start if newline < 0 else newline + 1)
        return -1

    def _keep(self, piece: bytes) -> None:
        # Most short messages are one piece, which need not be gathered.
        if len(piece) < _SMALL and self._chunks:
            if self._gathered:
                self._gathered += piece
            else:
                self._gathered = bytearray(piece)
            if len(self._gathered) >= _GATHERED:
                self._close_gathered()
        elif piece:
            if self._gathered:
                self._close_gathered()
            self._chunks.append(piece)

    def _close_gathered(self) -> None:
        self._chunks.append(bytes(self._gathered))
        self._gathered = _NOTHING


class DotReader(ContentReader):
    """The content after DATA: dot-stuffed lines up to CRLF.CRLF (RFC 5321 section 4.5.2).

    The CRLF before the final dot is content; a dot is un-stuffed after CRLF and at the very start, nowhere else.

    The parameters are those of :class:`ContentReader`.
    """

    __slots__ = ()

    # With the CRLF of the DATA command before it, the first line is searched like any other.
    _lead = _CRLF

    def feed(self, data: bytes) -> bytes | None:
        """Read on; not to be called again after the end of data.

        :param data: what arrived.
        :returns: ``None`` while the end of data has not been seen, else what follows it, perhaps ``b""``.
        """
        if self._lead_left and self._held == _CRLF:
            if (rest := self._take_short(data)) is not None:
                return rest
            if data and data[0] != _DOT:
                # The lead is needed for a dot at the very start only; without a dot the copies that it costs are saved.
                self._held, self._lead_left = b"", 0
        if self._held:
            data = self._held + data
        end, stuffed = _find_end_of_data(data)
        cut = end + len(_CRLF)
        if end < 0:
            self._held = next((seam for seam in _UNDECIDED if data.endswith(seam)), b"")
            cut = len(data) - len(self._held)
        if cut and not self._dropping:
            piece = data[:cut]
            if stuffed:
                piece = _CRLF.join(piece.rsplit(_LINE_DOT))
            if self._lead_left:
                piece = piece[self._lead_left :]
                self._lead_left = 0
            self._accept(piece)
        return None if end < 0 else data[end + len(_END_OF_DATA) :]

    def _take_short(self, data: bytes) -> bytes | None:
        """Take a message that is whole, short, and without errors or stuffed dots, as many are.

        :returns: what follows it; or ``None`` if it was not taken, and nothing has changed.
        """
        if len(data) > self._limits.short or self._dropping:
            return None
        rest = b""
        size = len(data) - len(".\r\n")
        if not data.endswith(_END_OF_DATA):
            # The client has sent its next commands along (RFC 2920).
            size = data.rfind(_END_OF_DATA) + len(_CRLF)
            if size < len(_CRLF):
                return None
            rest = data[size + len(".\r\n") :]
        if data[0] == _DOT:
            return None
        # If there is another end of data before this one, it has such a dot.
        dot = data.rfind(b".", 0, size)
        if dot >= 0 and data.rfind(_LINE_DOT, 0, dot + 1) >= 0:
            return None
        content = data[:size]
        if has_bare_newline(content):
            return None
        self.size = size
        self._chunks.append(content)
        return rest


class ChunkReader(ContentReader):
    """The content of one message's BDAT chunks (RFC 3030 section 2): octets are counted, and dots are not stuffed.

    A line, and even a CRLF, may be divided between two chunks.

    :param binary: whether the message is BODY=BINARYMIME (RFC 3030 section 3): no newline policy, no limit on lines.

    The other parameters are those of :class:`ContentReader`.

    :ivar chunk: the octets of the chunk that has been begun.
    """

    __slots__ = ("_left", "chunk")

    def __init__(
        self,
        *,
        size_limit: int | None = None,
        line_length_limit: int | None = None,
        bare_newline: str = "normalize",
        header_size_limit: int = 0,
        header_line_limit: int = 0,
        binary: bool = False,
    ) -> None:
        super().__init__(
            size_limit,
            None if binary else line_length_limit,
            bare_newline,
            header_size_limit,
            header_line_limit,
        )
        self._textual = not binary
        self._left = self.chunk = 0

    def begin(self, size: int) -> None:
        """Start the next chunk.

        :param size: its octets, 0 or more.
        """
        self._left = self.chunk = size

    def feed(self, data: bytes) -> bytes | None:
        """Read on in this chunk.

        :param data: what arrived.
        :returns: ``None`` while the chunk is not complete, else what follows it, perhaps ``b""``.
        """
        piece, rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        if not self._dropping:
            if self._held:
                piece, self._held = self._held + piece, b""
            if piece.endswith(b"\r"):
                piece, self._held = piece[:-1], b"\r"
            self._accept(piece)
        return None if self._left else rest

    def finish(self) -> None:
        """Take in the CRs that were held back, if any, after the LAST chunk: they are bare CRs."""
        held, self._held = self._held, b""
        if not self._dropping:
            self._accept(held)
            if self._crs:
                self._accept(self._blanks())
