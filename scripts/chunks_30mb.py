"""Sends a message of 30 MB with BDAT, in chunks of 16 MB down to 1 octet, and prints what each takes.

``python scripts/chunks_30mb.py [--megabytes N] [--sizes OCTETS ...]`` starts ``twisted-smtpd`` with the handler below
and sends it the message once for each size of chunks; all of a message's commands are pipelined.  For each it prints
the time, the server's CPU time and the most memory it had (``VmHWM`` of ``/proc``).  Exits with 1 if a message is not
taken whole, a chunk has not exactly one reply, or the memory is above 4 times the message and 64 MiB.  Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
SIZES = (16_000_000, 1_000_000, 65_536, 1_000, 78, 1)
LINE = b"x" * 76 + b"\r\n"
AT_ONCE = 2**18
CHUNK_TAKEN = b"250 2.0.0 Chunk received\r\n"


class Digest:
    """Answers with the octets of a message and their digest."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        return f"250 {len(envelope.content)} {hashlib.sha256(envelope.content).hexdigest()}"


class Server:
    """``twisted-smtpd`` in a process of its own."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(HERE.parent.parent), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "twisted_smtpd", "-l", "127.0.0.1:0", "-c", "chunks_30mb.Digest"]
        self.process = subprocess.Popen(
            [*command, "--hostname=mx.example", "--size=0"],
            env={**os.environ, "PYTHONPATH": path},
            cwd=HERE.parent,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"listens on 127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                return
        raise SystemExit("the server did not start")

    def memory(self) -> int:
        """The most octets it has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(30)


class Replies(threading.Thread):
    """Reads what the server says to its end, and counts the chunks that it has taken."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        self.taken = 0
        self.rest = b""

    def run(self) -> None:
        """Read on."""
        data = b""
        while more := self.connection.recv(2**20):
            whole, newline, data = (data + more).rpartition(b"\n")
            lines = whole + newline
            self.taken += lines.count(CHUNK_TAKEN)
            self.rest += lines.replace(CHUNK_TAKEN, b"")


def send(port: int, content: bytes, size: int) -> tuple[int, bytes]:
    """Send a message in chunks; how many were taken, and what else the server has said."""
    with socket.create_connection(("127.0.0.1", port), 600) as connection:
        replies = Replies(connection)
        replies.start()
        connection.sendall(b"EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
        batch, octets = [], 0
        for place in range(0, len(content), size):
            chunk = content[place : place + size]
            batch += [b"BDAT %d\r\n" % len(chunk), chunk]
            octets += len(chunk) + 10
            if octets > AT_ONCE:
                connection.sendall(b"".join(batch))
                batch, octets = [], 0
        connection.sendall(b"".join([*batch, b"BDAT 0 LAST\r\nQUIT\r\n"]))
        replies.join(600)
    return replies.taken, replies.rest


def attempt(content: bytes, size: int) -> bool:
    """Send the message to a new server, in chunks of one size."""
    server = Server()
    try:
        before, start = server.cpu(), time.monotonic()
        taken, said = send(server.port, content, size)
        seconds, cpu, memory = time.monotonic() - start, server.cpu() - before, server.memory()
    finally:
        server.stop()
    chunks = -(-len(content) // size)
    answer = f"250 2.0.0 {len(content)} {hashlib.sha256(content).hexdigest()}\r\n221 ".encode()
    good = taken == chunks and answer in said and memory < 4 * len(content) + 2**26
    print(
        f"{'ok    ' if good else 'FAILED'} {chunks:>10,} chunks of {size:>10,}: {seconds:7.2f} s, CPU {cpu:7.2f} s, "
        f"memory {memory / 2**20:4.0f} MiB",
        flush=True,
    )
    if not good:
        print(f"       {taken} chunks were taken; the last reply: {said[-200:]!r}")
    return good


def main() -> int:
    """Run it; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=30)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    octets = arguments.megabytes * 1_000_000
    content = (LINE * (octets // len(LINE) + 1))[: octets - 2] + b"\r\n"
    good = [attempt(content, size) for size in arguments.sizes]
    print("all is well" if all(good) else "FAILED")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
