"""Stop servers whose hooks hang, and say how long that takes and what the client hears.

    python scripts/stop_hanging.py

Ends with status 1 if a server is not out within the grace (2 seconds here) and 3 more; 15 more where a hook blocks the
reactor, which can't stop anything then.

What it printed (Linux, Python 3.11, Twisted 26.10); before, the first two did not end at all:

    handler        options                     signals   seconds  client heard
    Thread                                          1       4.0  421
    Thread         --grace=3600                     2       2.3  421
    Thread         --workers=2                      1       4.0  421
    Thread         --workers=2 --grace=3600         2       2.3  421
    AsyncioThread                                   1       2.0  421
    Stubborn                                        1       2.0  421
    Blocks                                          1      17.0  nothing
    Blocks         --grace=3600                     3       0.6  nothing
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HANDLERS = """\
import asyncio, threading
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

class Thread:
    async def handle_DATA(self, server, session, envelope):
        print("at work", flush=True)
        await deferToThread(threading.Event().wait)

class AsyncioThread:
    async def handle_DATA(self, server, session, envelope):
        print("at work", flush=True)
        await asyncio.to_thread(threading.Event().wait)

class Stubborn:
    async def handle_DATA(self, server, session, envelope):
        print("at work", flush=True)
        while True:
            try:
                await Deferred()
            except Exception:
                pass

class Blocks:
    async def handle_DATA(self, server, session, envelope):
        print("at work", flush=True)
        threading.Event().wait()
"""
GRACE = 2
HOME = str(Path(__file__).parent.parent.absolute())

# The handler, more words for the command line, the signals, and the seconds that it may take.
CASES = (
    ("Thread", [], 1, GRACE + 3),
    ("Thread", ["--grace=3600"], 2, 3),
    ("Thread", ["--workers=2"], 1, GRACE + 3),
    ("Thread", ["--workers=2", "--grace=3600"], 2, 3),
    ("AsyncioThread", [], 1, GRACE + 3),
    ("Stubborn", [], 1, GRACE + 3),
    ("Blocks", [], 1, GRACE + 16),
    ("Blocks", ["--grace=3600"], 3, 3),
)


def stop(handler: str, words: list[str], signals: int) -> tuple[float, str]:
    """Stop one server; the seconds it took, and what its client heard last."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hanging.py").write_text(HANDLERS)
        reactor = ["--reactor=asyncio"] if handler == "AsyncioThread" else []
        command = [sys.executable, "-m", "twisted", *reactor, "--log-format=text", "smtpd", "-l", "127.0.0.1:0"]
        server = subprocess.Popen(
            [*command, "-c", f"hanging.{handler}", f"--grace={GRACE}", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": HOME},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert server.stdout is not None
        port = next(line for line in server.stdout if " on 127.0.0.1:" in line).rpartition(":")[2]
        with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as client, client.makefile("rb") as replies:
            client.sendall(b"HELO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n\r\n.\r\n")
            next(line for line in server.stdout if "at work" in line)
            began = time.monotonic()
            for number in range(signals):
                time.sleep(0.3 if number else 0)
                server.send_signal(signal.SIGTERM)
            try:
                server.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
            took = time.monotonic() - began
            try:
                heard = replies.read().splitlines()[5:]
            except ConnectionError:
                heard = []
        return took, heard[0].decode()[:3] if heard else "nothing"


def main() -> int:
    status = 0
    print("handler        options                     signals   seconds  client heard")
    for handler, words, signals, limit in CASES:
        took, heard = stop(handler, words, signals)
        status = 1 if took > limit else status
        print(f"{handler:14} {' '.join(words):28}{signals:6}{took:10.1f}  {heard}{'  TOO LONG' * (took > limit)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
