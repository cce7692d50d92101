"""Start a controller, send it a message, stop it: 200 times, while files, threads and memory are watched.

    python scripts/controller_cycles.py [--cycles N] [--own-loop]

``--own-loop`` gives each controller an asyncio loop, and so a thread, of its own.  Ends with status 1 if the process
has more open files or threads at the end than after the first tenth of the cycles, or 1 MiB more memory.

What it printed (Linux, Python 3.11, Twisted 26.10):

    cycles  files  threads  memory (KiB)
        20     10        2         49140
        60     10        2         49216
       100     10        2         49216
       140     10        2         49220
       200     10        2         49220
    200 messages, 5.2 ms a cycle
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import smtplib
import sys
import threading
import time
from typing import Any

from twisted_smtpd.controller import Controller

ALLOWED_KIB = 1024


class Counting:
    """A handler that waits a little, as one that does something would."""

    def __init__(self) -> None:
        self.messages = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Count a message."""
        await asyncio.sleep(0)
        self.messages += 1
        return "250 OK"


def measure() -> tuple[int, int, int]:
    """Open files, threads, and KiB of memory."""
    gc.collect()
    with open("/proc/self/status") as status:
        memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return len(os.listdir("/proc/self/fd")), threading.active_count(), memory


def cycle(handler: Counting, own_loop: bool) -> None:
    """One start, one message, one stop, with another client that stays to the end."""
    controller = Controller(handler, port=0, loop=asyncio.new_event_loop() if own_loop else None)
    controller.start()
    idle = smtplib.SMTP(controller.hostname, controller.port)
    with smtplib.SMTP(controller.hostname, controller.port) as client:
        client.sendmail("anne@example.com", ["bart@example.com"], "Subject: again\r\n\r\n" + "Hello\r\n" * 1000)
    controller.stop()
    idle.close()


def main() -> int:
    """Run the cycles; the exit status."""
    parser = argparse.ArgumentParser(description="Timers a controller being started and stopped.")
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--own-loop", action="store_true")
    options = parser.parse_args()
    handler = Counting()
    warm_up = max(1, options.cycles // 10)
    started = time.monotonic()
    first = last = measure()
    print("cycles  files  threads  memory (KiB)")
    for number in range(1, options.cycles + 1):
        cycle(handler, options.own_loop)
        if number % warm_up == 0:
            last = measure()
            first = last if number == warm_up else first
            print(f"{number:6}  {last[0]:5}  {last[1]:7}  {last[2]:12}")
    seconds = time.monotonic() - started
    print(f"{handler.messages} messages, {1000 * seconds / options.cycles:.1f} ms a cycle")
    grown = last[0] > first[0] or last[1] > first[1] or last[2] > first[2] + ALLOWED_KIB
    return 1 if grown or handler.messages != options.cycles else 0


if __name__ == "__main__":
    sys.exit(main())
