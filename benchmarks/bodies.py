"""What the messages of a load are made of: lines of one length, as base64 has them, or ordinary text."""

from __future__ import annotations

import functools
import random
import tempfile
import textwrap

KINDS = ("lines", "text")
HEADER = b"From: a@bench.example\r\nTo: b@bench.example\r\nSubject: load\r\n\r\n"
LINE = b"x" * 78 + b"\r\n"
PARAGRAPHS, SENTENCES, WORDS, WIDTH = 200, 6, 12, 76
VOCABULARY = (
    "and as at before but by for from has in is it mail message network of on one queue sends server so that the then "
    "they until which waits with"
)


def body(kind: str, size: int) -> bytes:
    """A body without leading dots.

    :param kind: one of ``KINDS``.
    :param size: its octets, without the CRLF at its end.
    """
    block = LINE if kind == "lines" else _text()
    whole = (block * (size // len(block) + 1))[:size]
    # A cut between CR and LF would leave a bare CR.
    return whole.rstrip(b"\r\n").ljust(size, b"x") + b"\r\n"


@functools.cache
def _text() -> bytes:
    """Some 100 KB of paragraphs: lines of varied length, with full stops, at line ends as well."""
    chance = random.Random(5321)
    words = VOCABULARY.split()
    paragraphs = []
    for _ in range(PARAGRAPHS):
        sentences = [" ".join(chance.choices(words, k=chance.randint(4, 2 * WORDS))) for _ in range(SENTENCES)]
        paragraphs.append(textwrap.wrap(". ".join(map(str.capitalize, sentences)) + ".", WIDTH))
    return "".join("\r\n".join(lines) + "\r\n\r\n" for lines in paragraphs).encode("ascii")


@functools.cache
def message_file(kind: str, size: int) -> str:
    """A file for ``smtp-source -F``: a message with LF at line ends.  It lasts as long as this process.

    :returns: its path.
    """
    file = tempfile.NamedTemporaryFile(prefix="message-")  # noqa: SIM115 - it is removed when it is closed
    file.write((HEADER + body(kind, size)).replace(b"\r\n", b"\n"))
    file.flush()
    _kept.append(file)
    return file.name


_kept: list[object] = []
