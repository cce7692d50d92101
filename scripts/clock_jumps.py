"""Set the clock under a running server: an hour forward during a message, an hour back under a silent client.

    python scripts/clock_jumps.py [CHECKOUT]

Only the server's own clock is set, not the machine's.  Ends with status 1 if the message is cut off, or if the silent
client is still there 10 seconds after its ``--timeout`` of 2.

What it printed (Linux, Python 3.11, Twisted 26.10):

    default  forward  the message gets 250
    default  back     the silent client hears 421 after 2 s
    asyncio  forward  the message gets 250
    asyncio  back     the silent client hears 421 after 2 s

Before, with the reactors' own clock:

    default  forward  the message gets 421
    default  back     the silent client hears silence after 12 s
    asyncio  forward  the message gets 250
    asyncio  back     the silent client hears silence after 12 s
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
from typing import Any

# Python imports it before all else.
CLOCK = """\
import signal, time
real, ahead = time.time, [0]
time.time = lambda: real() + ahead[0]
def jump(number, frame):
    ahead[0] += 3600 if number == signal.SIGUSR1 else -3600
signal.signal(signal.SIGUSR1, jump)
signal.signal(signal.SIGUSR2, jump)
"""
HOME = str(Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent.parent).absolute())


def code(replies: Any) -> str:
    try:
        return replies.readline().decode()[:3] or "nothing"
    except TimeoutError:
        return "silence"
    except ConnectionError:
        return "a reset"


def forward(server: subprocess.Popen[str], client: socket.socket, replies: Any) -> tuple[str, bool]:
    client.sendall(b"HELO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n")
    said = [code(replies) for _ in range(5)]
    assert said[-1] == "354", said
    client.sendall(b"Subject: x\r\n")
    time.sleep(0.5)
    server.send_signal(signal.SIGUSR1)
    time.sleep(1)
    client.sendall(b"\r\nhello\r\n.\r\n")
    verdict = code(replies)
    return f"the message gets {verdict}", verdict == "250"


def back(server: subprocess.Popen[str], client: socket.socket, replies: Any) -> tuple[str, bool]:
    code(replies)
    server.send_signal(signal.SIGUSR2)
    began = time.monotonic()
    heard = code(replies)
    return f"the silent client hears {heard} after {time.monotonic() - began:.0f} s", heard == "421"


def main() -> int:
    status = 0
    for reactor in ("default", "asyncio"):
        for jump in (forward, back):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "sitecustomize.py").write_text(CLOCK)
                server = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "twisted", f"--reactor={reactor}", "--log-format=text", "smtpd"),
                        *("-c", "sink", "-l", "127.0.0.1:0", "--timeout=2", "--session-timeout=60"),
                    ],
                    cwd=HOME,
                    env={**os.environ, "PYTHONPATH": f"{folder}:{HOME}"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                assert server.stdout is not None
                port = int(next(line for line in server.stdout if " on 127.0.0.1:" in line).rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", port), timeout=12) as client:
                    text, good = jump(server, client, client.makefile("rb"))
                server.kill()
                server.communicate()
                status = status if good else 1
                print(f"{reactor:8} {jump.__name__:8} {text}")
    return status


if __name__ == "__main__":
    sys.exit(main())
