"""How fast the content readers are: ``python benchmarks/content.py`` prints MB/s for each kind of content.

CPU time, the best of several runs, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from functools import partial

from twisted_smtpd.wire.content import ChunkReader, ContentReader, DotReader

READ = 65536
SIZE_LIMIT = 32 * 1024 * 1024
LINE_LENGTH_LIMIT = 2000
WORDS = b"the quick mail. server sends a network message; again. and then it waits for all of them".split()


def fill(line: Callable[[], bytes], size: int) -> bytes:
    """Whole lines, `size` octets or a little more of them."""
    lines, total = [], 0
    while total < size:
        lines.append(line())
        total += len(lines[-1])
    return b"".join(lines)


def text(chance: random.Random) -> bytes:
    """A line of at most 80 octets."""
    line = bytearray()
    while len(line) < 70:
        line += chance.choice(WORDS) + b" "
    return bytes(line[:78]) + b"\r\n"


def base64(chance: random.Random) -> bytes:
    """A line as base64 has it."""
    return bytes(chance.choices(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=76)) + b"\r\n"


def workloads(size: int) -> dict[str, bytes]:
    """Contents by name, dot-stuffed, without the end of data."""
    chance = random.Random(5321)
    prose = fill(lambda: text(chance), size)
    return {
        "base64": fill(lambda: base64(chance), size),
        "text with dots": prose,
        "one stuffed dot a line": fill(lambda: b".." + text(chance)[2:], size),
        "bare LF": prose.replace(b"\r\n", b"\n"),
        "all dots": b"." * size,
        "all CR": b"\r" * size,
        "all CRLF": b"\r\n" * (size // 2),
        "all CRLF.CRLF but one": b"\r\n..\r\n" * (size // 6),
    }


def run(reader: ContentReader, data: bytes, step: int) -> None:
    """Feed it all, and join what was kept."""
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
    reader.getvalue()


def rate(make: Callable[[], ContentReader], data: bytes, step: int, runs: int) -> float:
    """MB/s, the best of `runs`."""
    best = float("inf")
    for _ in range(runs):
        reader = make()
        begun = time.process_time()
        run(reader, data, step)
        best = min(best, time.process_time() - begun)
    return len(data) / best / 1e6


def dots() -> DotReader:
    """A reader as the server makes it."""
    return DotReader(size_limit=SIZE_LIMIT, line_length_limit=LINE_LENGTH_LIMIT)


def one_chunk(size: int) -> ChunkReader:
    """The same for BDAT, in its first chunk."""
    reader = ChunkReader(size_limit=SIZE_LIMIT, line_length_limit=LINE_LENGTH_LIMIT)
    reader.begin(size)
    return reader


def main() -> None:
    """Print a line for each kind of content."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=5, help="MiB of content")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, MB per second of CPU")
    print(f"{'content':<24}{'DATA, 64 KiB reads':>20}{'DATA, 1 octet':>16}{'BDAT, 64 KiB reads':>20}")
    for name, content in workloads(options.size * 1024 * 1024).items():
        data = content + b"\r\n.\r\n"

        whole = rate(dots, data, READ, options.runs)
        octets = rate(dots, data[:200_000], 1, 2)
        chunk = rate(partial(one_chunk, len(content)), content, READ, options.runs)
        print(f"{name:<24}{whole:>20.0f}{octets:>16.2f}{chunk:>20.0f}")


if __name__ == "__main__":
    main()
