"""Line ends in content: finds those that are not CRLF, and makes CRLF of them.

No Python code runs for each line: a piece of content is searched as a whole.
"""

from __future__ import annotations

from io import IncrementalNewlineDecoder

__all__ = ["find_equal_lines", "has_bare_newline", "normalize"]

_CRLF = b"\r\n"
_CR = b"\r"
_LF = b"\n"

# For shorter lines the search for lines of equal length costs more than it saves.
EQUAL_LINE = 16


def has_bare_newline(piece: bytes) -> bool:
    """Whether there is a CR or LF that is not part of a CRLF."""
    # The decoder notes which kinds of line end it saw: one pass in C, faster than counting or translate().
    decoder = IncrementalNewlineDecoder(None, False)
    decoder.decode(piece.decode("latin-1"), True)
    return decoder.newlines not in (None, "\r\n")


def find_equal_lines(piece: bytes) -> tuple[int, int, int]:
    """Find lines of equal length (as in base64) at the start of a piece or in its middle.

    For such lines it takes a fraction of the time of :func:`has_bare_newline` to make sure that each ends with CRLF
    and has no other CR or LF: every n-th octet is a CR, the one after it a LF, and the remaining octets have neither.

    :returns: where the lines start (behind a CRLF) and stop, and the length of each with its CRLF; zeros if no such
        lines were found.
    """
    nothing = 0, 0, 0
    for end in piece.find(b"\n"), piece.find(b"\n", len(piece) // 2):
        length = piece.find(b"\n", end + 1) - end
        if end > 0 and length >= EQUAL_LINE and piece.find(b"\n", end + length + 1) == end + 2 * length:
            break
    else:
        return nothing
    behind = min(_run(piece[end::-length], b"\n"), _run(piece[end - 1 :: -length], b"\r"))
    ahead = min(_run(piece[end::length], b"\n"), _run(piece[end - 1 :: length], b"\r"))
    count = behind + ahead - 2
    if count < 1:
        return nothing
    start = end + 1 - (behind - 1) * length
    stop = start + count * length
    inside = bytearray(memoryview(piece)[start:stop])
    inside[length - 1 :: length] = inside[length - 2 :: length] = bytes(count)
    return nothing if b"\r" in inside or b"\n" in inside else (start, stop, length)


def _run(octets: bytes, octet: bytes) -> int:
    """How many times an octet is repeated at the start."""
    size = len(octets)
    # Stripping takes thirty times as long as comparing.
    return size if octets == octet * size else size - len(octets.lstrip(octet))


def normalize(piece: bytes) -> bytes:
    """Make a CRLF of each line end, and a blank of each other CR.

    A line ends with a LF; the CRs before it belong to its end.  A blank is what Postfix makes of a CR, too: a line end
    would start another header line, which the client's own server has not seen as one.
    """
    piece = piece.replace(_CRLF, _LF)
    if _CR in piece:
        # Some clients send CR CR LF, so mostly this is done with one more step.  Many CRs before one LF are taken away
        # by halves, so that no content takes more than a few steps.
        if _CRLF in (piece := piece.replace(_CRLF, _LF)):
            run = 1 << len(piece).bit_length()
            while run := run >> 1:
                piece = piece.replace(_CR * run + _LF, _LF)
        piece = piece.replace(_CR, b" ")
    return piece.replace(_LF, _CRLF)
