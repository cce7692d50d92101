"""Shows that the queue loses nothing it has answered 250 for, wherever its process is killed.

``python scripts/queue_kill9.py rounds [--rounds N] [--clients N]`` runs ``-c queue FOLDER + proxy ...`` under load,
kills it with SIGKILL again and again, and takes the next host up and down meanwhile.

``python scripts/queue_kill9.py faults`` kills it at each system call that changes a disk or sends something: before the
first call, the second, and so on, until the server has done all its work without being killed.  (Before one call is
after the one before it.)  SQLite's calls and those on sockets are killed by ``strace``, which counts them by thread;
``fsync`` and ``unlink``, which several threads call, are counted in Python.  All of it is done with a new folder, and
with one that is there.

Afterwards each message that was answered 250 must have reached the next host, whole; doubles must have the same id, and
nothing may be left in the folder.  Exits with 1 for any loss.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from queue_lab import ROOT, Load, NextHost, Server, judge, wait_until_empty

# SQLite writes with pwrite64 and synchronises with fdatasync; our files are written with write and fsync.
CALLS = ("openat", "write", "pwrite64", "fdatasync", "ftruncate", "mkdir", "sendto")
COUNTED = ("fsync", "unlink")
# Python imports it before all else.
COUNTER = """\
import itertools, os, signal
name, _, number = os.environ["FAULT"].partition(" ")
call, counter = getattr(os, name), itertools.count(1)
def counted(*arguments, **named):
    if next(counter) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments, **named)
setattr(os, name, counted)
"""


def leftovers(folder: Path) -> list[str]:
    """What is in the folder's ``bodies`` though the queue is empty."""
    return os.listdir(folder / "bodies")


def rounds(count: int, clients: int) -> bool:
    """Kill the server again and again under load."""
    load, host = Load(), NextHost()
    host.defers = 0.05
    done = threading.Event()

    def up_and_down() -> None:
        while not done.wait(random.uniform(0.3, 2.0)):
            host.down()
            if done.wait(random.uniform(0.1, 1.0)):
                break
            host.up()

    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "spool"
        host.up()
        switching = threading.Thread(target=up_and_down)
        switching.start()
        downs = 0
        for number in range(count):
            server = Server(folder, host.port)
            assert server.started, server.log
            threads = [
                threading.Thread(target=load.send, args=(server.port, names(f"{number}.{client}")))
                for client in range(clients)
            ]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.05, 1.2))
            server.end(signal.SIGKILL)
            for thread in threads:
                thread.join()
            downs += host.controller is None
        done.set()
        switching.join()
        host.defers = 0.0
        host.up()
        server = Server(folder, host.port)
        left = wait_until_empty(folder, 300)
        server.end()
        strays = leftovers(folder)
        host.down()
    print(f"killed {count} times under {clients} clients, {downs} times while the next host was down")
    good = judge(load, host)
    print(f"left in the queue: {left}, files left: {len(strays)}; refused: {dict(load.refused) or 'none'}")
    return good and not left and not strays


def names(start: str) -> Iterator[str]:
    """Names of messages, without end."""
    number = 0
    while True:
        number += 1
        yield f"{start}.{number}@kill9.example"


def faults(calls: Sequence[str]) -> bool:
    """Kill the server at each system call."""
    good, killed, doubles, points = True, 0, 0, 0
    for call in calls:
        for new in (True, False):
            last = 0
            for number in range(1, 1000):
                outcome = one_fault(call, number, new)
                good = good and outcome is not None
                if outcome is None:
                    print(f"LOST at {call} {number}")
                    outcome = (True, 0)
                points += 1
                doubles += outcome[1]
                if not outcome[0]:
                    break
                last = number
            killed += last
            print(f"{call}, {'new' if new else 'old'} folder: killed before each of its {last} calls", flush=True)
    print(f"{points} runs, {killed} of them killed; doubles: {doubles}, each with the same id")
    return good


def make_ready(folder: Path, port: int) -> None:
    """Have a server make the folder."""
    server = Server(folder, port)
    # When it greets, it has started.
    with smtplib.SMTP("127.0.0.1", server.port, timeout=30):
        pass
    server.end()


def faulty(call: str, number: int, base: Path, port: int) -> Server:
    """A server that is killed before one call."""
    folder = base / "spool"
    if call in COUNTED:
        (base / "sitecustomize.py").write_text(COUNTER)
        environment = {"FAULT": f"{call} {number}", "PYTHONPATH": os.pathsep.join([str(base), str(ROOT)])}
        return Server(folder, port, environment=environment)
    # Of the files that are opened only those of the queue count: Python opens hundreds at its start.
    paths = [folder / name for name in ("queue.db", "queue.db-wal", "queue.db.lock", "bodies")]
    only = [word for path in paths for word in ("-P", str(path))] if call == "openat" else []
    inject = ["-e", f"inject={call}:signal=SIGKILL:when={number}"]
    return Server(
        folder, port, before=["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", *only, *inject]
    )


def one_fault(call: str, number: int, new: bool) -> tuple[bool, int] | None:
    """Kill the server before one call.

    :returns: whether it was killed, and how many doubles there were; ``None`` if something was lost.
    """
    load, host = Load((500, 100_000)), NextHost()
    host.up()
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "spool"
        if not new:
            make_ready(folder, host.port)
        server = faulty(call, number, Path(base), host.port)
        if server.started:
            load.send(server.port, [f"{call}.{number}.{one}@fault.example" for one in range(3)])
            until = time.monotonic() + 5
            while len(host.received) < len(load.answered) and server.process.poll() is None:
                if time.monotonic() > until:
                    break
                time.sleep(0.02)
        try:
            server.process.wait(1)
            was_killed = True
        except subprocess.TimeoutExpired:
            was_killed = False
            # strace takes no signal; the lock has the server's number.
            os.kill(int((folder / "queue.db.lock").read_text()), signal.SIGTERM)
            server.process.wait(60)
        second = Server(folder, host.port)
        left = wait_until_empty(folder, 30)
        second.end()
        strays = leftovers(folder)
        host.down()
    doubles = sum(count - 1 for count in host.received.values())
    same = all(len(ids) == 1 for ids in host.ids.values())
    lost = load.answered - set(host.received)
    if lost or left or strays or host.broken or not same or not second.started:
        print(f"lost {lost}, left {left}, strays {strays}, broken {host.broken}, log {second.log}")
        return None
    return was_killed, doubles


def main() -> int:
    """Run it; 0 if nothing is lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("rounds", "faults"))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--calls", default=",".join((*CALLS, *COUNTED)))
    options = parser.parse_args()
    good = rounds(options.rounds, options.clients) if options.what == "rounds" else faults(options.calls.split(","))
    print("nothing is lost" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
