"""What DATA and BDAT come to, written down simply: the model that the readers of content are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from twisted_smtpd.wire.content import ChunkReader, DotReader

END = b"\r\n.\r\n"
NEXT = b"MAIL FROM:<next@example.org>\r\n"

# What some server, somewhere, takes for an end of data; and what it is here, un-stuffed and normalised.
LOOKALIKES = {
    "LF_dot_LF": (b"\n.\n", b"\r\n.\r\n"),
    "LF_dot_CR": (b"\n.\r", b"\r\n. "),
    "LF_dot_CRLF": (b"\n.\r\n", b"\r\n.\r\n"),
    "CR_dot_CR": (b"\r.\r", b" . "),
    "CR_dot_LF": (b"\r.\n", b" .\r\n"),
    "CR_dot_CRLF": (b"\r.\r\n", b" .\r\n"),
    "CRLF_dot_LF": (b"\r\n.\n", b"\r\n\r\n"),
    "CRLF_dot_CR": (b"\r\n.\r", b"\r\n "),
    "CRLF_dot_CRCRLF": (b"\r\n.\r\r\n", b"\r\n\r\n"),
    "CRLF_dot_LFCR": (b"\r\n.\n\r", b"\r\n\r\n "),
    "LFCR_dot_LFCR": (b"\n\r.\n\r", b"\r\n .\r\n "),
    "CRLF_NUL_dot_CRLF": (b"\r\n\0.\r\n", b"\r\n\0.\r\n"),
    "CRLF_dot_NUL_CRLF": (b"\r\n.\0\r\n", b"\r\n\0\r\n"),
    "CRLF_dot_CR_NUL_LF": (b"\r\n.\r\0\n", b"\r\n \0\r\n"),
    "CR_NUL_LF_dot_CRLF": (b"\r\0\n.\r\n", b" \0\r\n.\r\n"),
    "CRLF_dot_dot_CRLF": (b"\r\n..\r\n", b"\r\n.\r\n"),
    "CRLF_dot_space_CRLF": (b"\r\n. \r\n", b"\r\n \r\n"),
    "CRLF_space_dot_CRLF": (b"\r\n .\r\n", b"\r\n .\r\n"),
}
BARE = {name for name, (raw, kept) in LOOKALIKES.items() if raw.replace(b"\r\n", b"").strip(b"\0. ")}

Outcome = tuple[bytes, "str | None", int, bytes]


def model_tokens(stream: bytes) -> tuple[list[bytes], bytes]:
    """The content of DATA as CRLFs and single octets, and what follows the end: octet by octet, no cleverness."""
    tokens: list[bytes] = []
    i, at_start = 0, True
    while True:
        if at_start and stream[i : i + 3] == b".\r\n":
            return tokens, stream[i + 3 :]
        if at_start and stream[i : i + 1] == b".":
            i += 1
        at_start = stream[i : i + 2] == b"\r\n"
        tokens.append(b"\r\n" if at_start else stream[i : i + 1])
        assert tokens[-1], "the stream has no end of data"
        i += len(tokens[-1])


def model_judge(
    tokens: list[bytes], size_limit: int | None, line_length_limit: int | None, bare_newline: str, binary: bool
) -> tuple[bytes, str | None, int]:
    """The content kept, the first violation, the octets accepted before it."""
    kept, line = b"", 0
    for number, token in enumerate(tokens):
        if not binary and token in (b"\r", b"\n"):
            if bare_newline == "reject":
                return b"", "newline", len(kept)
            if token == b"\r" and next((t for t in tokens[number:] if t != b"\r"), b"")[-1:] == b"\n":
                # A line end follows, which it belongs to.
                continue
            token = b" " if token == b"\r" else b"\r\n"
        for i in range(len(token)):
            if size_limit and len(kept) + 1 > size_limit:
                return b"", "size", len(kept)
            if line_length_limit and not binary and line + 1 > line_length_limit:
                return b"", "line", len(kept)
            kept += token[i : i + 1]
            line += 1
        if token == b"\r\n":
            line = 0
    return kept, None, len(kept)


def model_data(
    stream: bytes, size_limit: int | None = None, line_length_limit: int | None = None, bare_newline: str = "normalize"
) -> Outcome:
    """What a :class:`DotReader` has to make of it."""
    tokens, rest = model_tokens(stream)
    return *model_judge(tokens, size_limit, line_length_limit, bare_newline, False), rest


def model_bdat(
    content: bytes,
    size_limit: int | None = None,
    line_length_limit: int | None = None,
    bare_newline: str = "normalize",
    binary: bool = False,
) -> tuple[bytes, str | None, int]:
    """What a :class:`ChunkReader` has to make of it."""
    tokens: list[bytes] = []
    i = 0
    while i < len(content):
        tokens.append(content[i : i + 2] if content[i : i + 2] == b"\r\n" else content[i : i + 1])
        i += len(tokens[-1])
    return model_judge(tokens, size_limit, line_length_limit, bare_newline, binary)


def read_data(pieces: list[bytes], discard: bool = False, **options: Any) -> Outcome:
    """Feed the pieces to a :class:`DotReader`; the outcome, and what was not read."""
    reader = DotReader(**options)
    if discard:
        reader.discard()
    for number, piece in enumerate(pieces):
        rest = reader.feed(piece)
        if rest is not None:
            return reader.getvalue(), reader.error, reader.size, rest + b"".join(pieces[number + 1 :])
    raise AssertionError("the end of data was not seen")


def read_bdat(chunks: list[list[bytes]], **options: Any) -> tuple[bytes, str | None, int]:
    """Feed each chunk, given in pieces, to a :class:`ChunkReader`."""
    reader = ChunkReader(**options)
    for pieces in chunks:
        reader.begin(sum(map(len, pieces)))
        for piece in pieces:
            reader.feed(piece)
    reader.finish()
    return reader.getvalue(), reader.error, reader.size


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces, some perhaps empty."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(bounds)]


def octets(data: bytes) -> list[bytes]:
    """The data one octet at a time."""
    return [data[i : i + 1] for i in range(len(data))]


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Whole, one octet at a time, in two everywhere, and in three with a piece no longer than an end in the middle."""
    yield [data]
    yield octets(data)
    for first in range(1, len(data)):
        for second in range(first, min(first + len(END), len(data)) + 1):
            yield [data[:first], data[first:second], data[second:]]


def every_split(data: bytes) -> Iterator[list[bytes]]:
    """Each of the 2 ** (n - 1) ways."""
    for size in range(len(data)):
        for places in itertools.combinations(range(1, len(data)), size):
            yield cut(data, list(places))


streams = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"a", b"\0", b"\r\n", b"\r\n.", END, b"aaaaaaa"]), max_size=24
).map(b"".join)
places = st.lists(st.integers(0, 200), max_size=12)
limits = st.one_of(st.none(), st.integers(0, 40))
policies = st.sampled_from(["normalize", "reject"])
