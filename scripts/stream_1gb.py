"""Shows that a hook that streams keeps the memory flat, and that a slow hook stops the client's TCP.

``python scripts/stream_1gb.py [--megabytes N] [--lag SECONDS]`` starts ``twist smtpd`` with the handler below, sends it
one message, and prints what the server's memory did (``VmRSS`` and ``VmHWM`` of ``/proc``).  Then it sends more to the
same handler while that sleeps, and prints how much the client could send before TCP stopped it.  Exits with 1 if
the memory grew by more than 16 MiB, if content was lost, or if the client was not stopped.  Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
MIB = 2**20
ALLOWED_GROWTH = 16 * MIB
# Between TCP's buffers of both ends, the hook's and the server's: what a client may get rid of to a hook that sleeps.
ALLOWED_AHEAD = 64 * MIB
LINE = b"x" * 76 + b"\r\n"
BLOCK = LINE * (MIB // len(LINE))


class Digest:
    """Takes a message in as it comes, keeps nothing of it but its digest, and waits a while first if told to."""

    async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: Any) -> str:
        """Answer with the number of octets and their digest."""
        digest, size = hashlib.sha256(), 0
        if envelope.mail_from.startswith("slow@"):
            await asyncio.sleep(float(os.environ["LAG"]))
        async for chunk in stream:
            digest.update(chunk)
            size += len(chunk)
        return f"250 {size} {digest.hexdigest()}"


class Server:
    """``twist smtpd`` in a process of its own."""

    def __init__(self, lag: float) -> None:
        environment = {**os.environ, "LAG": str(lag), "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(HERE.parent.parent), os.environ.get("PYTHONPATH")])
        )
        command = [sys.executable, "-m", "twisted", "--reactor=asyncio", "--log-format=text", "smtpd"]
        options = ["-l", "127.0.0.1:0", "-c", "stream_1gb.Digest", "--size=0", "--hostname=mx.example"]
        self.process = subprocess.Popen(
            [*command, *options], env=environment, cwd=HERE.parent, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "listens on 127.0.0.1:" in line:
                self.port = int(line.rpartition(":")[2])
                return
        raise SystemExit("the server did not start")

    def memory(self, field: str) -> int:
        """Octets of ``VmRSS`` (now) or ``VmHWM`` (at most)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.communicate(timeout=30)


class Client:
    """A connection that has been told to send its message."""

    def __init__(self, port: int, sender: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 120)
        self.replies = self.socket.makefile("rb")
        self.expect("220")
        for line, code in (
            ("EHLO c", "250"),
            (f"MAIL FROM:<{sender}@x.example>", "250"),
            ("RCPT TO:<b@y.example>", "250"),
        ):
            self.say(line, code)
        self.say("DATA", "354")

    def say(self, line: str, code: str) -> str:
        """Send a line; its reply's last line, which must have this code."""
        self.socket.sendall(f"{line}\r\n".encode())
        return self.expect(code)

    def expect(self, code: str) -> str:
        """Read a reply; its last line, which must have this code."""
        while True:
            line = self.replies.readline().decode().rstrip()
            if line[3:4] != "-":
                break
        if line[:3] != code:
            raise SystemExit(f"{code} expected, got {line!r}")
        return line

    def send_what_goes(self, seconds: float) -> tuple[int, float]:
        """Send for some seconds what the server takes; how much that was, and when the last of it was taken."""
        self.socket.setblocking(False)
        start = last = time.monotonic()
        sent = 0
        while (now := time.monotonic()) < start + seconds:
            if not select.select([], [self.socket], [], start + seconds - now)[1]:
                break
            sent += self.socket.send(BLOCK[sent % len(BLOCK) :])
            last = time.monotonic()
        self.socket.setblocking(True)
        self.socket.settimeout(120)
        return sent, last - start


def expected(blocks: int) -> str:
    """What the server has to answer for this many blocks."""
    digest = hashlib.sha256()
    for _ in range(blocks):
        digest.update(BLOCK)
    return f"250 2.0.0 {blocks * len(BLOCK)} {digest.hexdigest()}"


def flat(server: Server, megabytes: int) -> bool:
    """Send a large message, and look at the server's memory all the time."""
    client = Client(server.port, "fast")
    before = server.memory("VmRSS")
    start = time.monotonic()
    most = before
    for number in range(megabytes):
        client.socket.sendall(BLOCK)
        if not number % 16:
            most = max(most, server.memory("VmRSS"))
    reply = client.say(".", "250")
    seconds = time.monotonic() - start
    most = max(most, server.memory("VmHWM"))
    grown = most - before
    whole = reply == expected(megabytes)
    print(
        f"{megabytes * len(BLOCK) / MIB:.0f} MiB in {seconds:.1f} s ({megabytes / seconds:.0f} MiB/s): "
        f"memory {before / MIB:.1f} MiB before, {most / MIB:.1f} MiB at most (+{grown / MIB:.1f}), "
        f"content {'whole' if whole else 'WRONG: ' + reply}"
    )
    client.say("QUIT", "221")
    return whole and grown <= ALLOWED_GROWTH


def stopped(server: Server, lag: float) -> bool:
    """Send to a hook that does not read for a while."""
    client = Client(server.port, "slow")
    before = server.memory("VmHWM")
    sent, last = client.send_what_goes(lag * 0.8)
    blocked = last < lag * 0.5 and sent <= ALLOWED_AHEAD
    # The rest of the block begun, so that the digest can be told.
    client.socket.sendall(BLOCK[sent % len(BLOCK) :] if sent % len(BLOCK) else b"")
    whole = client.say(".", "250") == expected(-(-sent // len(BLOCK)))
    grown = server.memory("VmHWM") - before
    print(
        f"a hook that sleeps {lag:g} s: the client was stopped after {last:.2f} s and {sent / MIB:.1f} MiB (most of it "
        f"in the kernel's buffers; the server grew by {grown / MIB:.1f} MiB), content {'whole' if whole else 'WRONG'}"
    )
    client.say("QUIT", "221")
    return blocked and whole and grown <= ALLOWED_GROWTH


def main() -> int:
    """Run both; 0 if all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--lag", type=float, default=5.0)
    options = parser.parse_args()
    server = Server(options.lag)
    try:
        good = [flat(server, options.megabytes), stopped(server, options.lag)]
    finally:
        server.stop()
    print("all is well" if all(good) else "FAILED")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
