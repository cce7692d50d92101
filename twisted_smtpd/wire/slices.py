"""Large content in slices.

One call of ``replace`` or of a pattern for 30 MB keeps Python's lock for up to half a second, also in a thread, and no
other thread runs meanwhile.  A loop over slices gives it away in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import AnyStr

__all__ = ["SLICE", "rest_of", "slices"]

#: Octets or characters of a slice, at least: a call takes a millisecond or two for so many.
SLICE = 2**16


def slices(content: AnyStr) -> Iterator[AnyStr]:
    """Cut content behind line ends.

    :param content: the content.
    :returns: its pieces in order; each but the last ends with LF and has :data:`SLICE` octets and the rest of a line.
    """
    line_feed = "\n" if isinstance(content, str) else b"\n"
    start = 0
    while len(content) - start > SLICE:
        end = content.find(line_feed, start + SLICE) + 1
        if end == 0:
            break
        yield content[start:end]
        start = end
    if start < len(content):
        yield content[start:] if start else content


def rest_of(content: AnyStr, start: int) -> AnyStr:
    """``content[start:]``, which keeps the lock for the whole copy; this gives it away in between.

    :param content: the content.
    :param start: where the rest begins.
    """
    if isinstance(content, str) or not start or len(content) - start <= SLICE:
        return content[start:]
    # join gives the lock away by itself where it has much to copy.
    return b"".join([content[place : place + SLICE] for place in range(start, len(content), SLICE)])
