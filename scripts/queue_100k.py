"""Fills a queue with 100,000 messages while the next host is down, starts again, and delivers them all.

``python scripts/queue_100k.py [--messages N]`` (with Postfix's ``smtp-source`` installed) prints the memory of the
server, how long a start takes, and how long the delivery.  Exits with 1 if memory grows with the queue, if a start
takes more than 10 seconds, or if a message is lost.
"""

from __future__ import annotations

import argparse
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from queue_lab import ROOT, NextHost, Server, waiting

sys.path.insert(0, str(ROOT / "benchmarks"))

from load import postfix

MEBIBYTE = 2**20


def memory(server: Server) -> float:
    """The memory of a server in MiB."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


class Peak:
    """The most memory that a server has had."""

    def __init__(self, server: Server) -> None:
        self._server, self.value, self._done = server, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self.value = max(self.value, memory(self._server))

    def end(self) -> float:
        """Stop watching."""
        self._done.set()
        self._thread.join()
        return self.value


def fill(port: int, count: int) -> float:
    """Send messages of 2 KB; returns the seconds that it took."""
    began = time.monotonic()
    command = [postfix("smtp-source"), "-d", "-s", "16", "-m", str(count), "-l", "2000", "-f", "a@x.example"]
    subprocess.run([*command, "-t", "b@y.example", f"127.0.0.1:{port}"], check=True, capture_output=True)
    return time.monotonic() - began


def start(folder: Path, port: int) -> tuple[Server, float]:
    """Start a server; returns also the seconds until it greets."""
    began = time.monotonic()
    server = Server(folder, port, ["--retry", "1", "--retry-max", "2"], more=["--log-level", "info"])
    with smtplib.SMTP("127.0.0.1", server.port, timeout=60):
        return server, time.monotonic() - began


def main() -> int:
    """Run it; 0 if all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    count = parser.parse_args().messages
    host = NextHost()
    taken: set[bytes] = set()
    doubles = [0]

    def count_one(envelope: object) -> str:
        found = envelope.content.partition(b" id ")[2].split(None, 1)[0]  # type: ignore[attr-defined]
        doubles[0] += found in taken
        taken.add(found)
        return "250 OK"

    host.answer = count_one
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "spool"
        server, seconds = start(folder, host.port)
        empty = memory(server)
        print(f"empty queue: start {seconds:.1f} s, {empty:.0f} MiB")
        fill(server.port, 1000)
        small = memory(server)
        print(f"{waiting(folder):,} messages queued: {small:.0f} MiB")
        seconds = fill(server.port, count - 1000)
        full = memory(server)
        print(f"{waiting(folder):,} messages queued in {seconds:.0f} s: {full:.0f} MiB")
        server.end()
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        server, seconds = start(folder, host.port)
        good = seconds < 10
        print(f"start with {count:,} messages, {size / MEBIBYTE:.0f} MiB on the disk: {seconds:.1f} s")
        peak = Peak(server)
        time.sleep(5)
        waited = memory(server)
        host.up()
        began = time.monotonic()
        while len(taken) < count and time.monotonic() - began < 900:
            time.sleep(0.5)
        seconds = time.monotonic() - began
        most = peak.end()
        time.sleep(1)
        left = waiting(folder)
        print(f"after the start: {waited:.0f} MiB; {len(taken):,} delivered in {seconds:.0f} s: {most:.0f} MiB at most")
        print(f"left: {left}, doubles: {doubles[0]}")
        server.end()
    host.down()
    good = good and len(taken) == count and not left and max(full, most) < small + 30
    print("all is well" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
