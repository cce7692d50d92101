"""Shows what a queue does when the machine is in trouble: nothing that was answered 250 is lost, and clients hear 4xx.

``python scripts/queue_trouble.py`` runs ``-c queue FOLDER + proxy ...`` with a next host that is down, makes trouble,
ends it, and takes the next host up.  A full disk and a lost permission need root.  Exits with 1 for any loss.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from queue_lab import Load, NextHost, Server, judge, waiting

# Python imports it before all else: the clock is set by signals.
CLOCK = """\
import os, signal, time
real, ahead = time.time, [86400.0 * float(os.environ.get("AHEAD", "0"))]
time.time = lambda: real() + ahead[0]
def jump(number, frame):
    ahead[0] += 86400 * (30 if number == signal.SIGUSR1 else -60)
signal.signal(signal.SIGUSR1, jump)
signal.signal(signal.SIGUSR2, jump)
"""


class Trial:
    """One kind of trouble, with a folder and a next host of its own."""

    def __init__(self, name: str, sizes: tuple[int, ...] = (4000, 100_000)) -> None:
        self.name = name
        self.load, self.host = Load(sizes), NextHost()
        self.base = Path(tempfile.mkdtemp())
        self.folder = self.base / "spool"
        self.good = True

    def send(self, server: Server, count: int, start: str) -> Counter[str]:
        """Send messages; returns the codes of the answers."""
        before, answered = Counter(self.load.refused), len(self.load.answered)
        self.load.send(server.port, [f"{start}.{number}@trouble.example" for number in range(count)])
        codes = Counter({"250": len(self.load.answered) - answered})
        for reply, number in (self.load.refused - before).items():
            codes[reply] += number
        print(f"  {start}: {', '.join(f'{number} times {code}' for code, number in codes.items() if number)}")
        return codes

    def expect(self, what: bool, text: str) -> None:
        """Check something."""
        if not what:
            print(f"  WRONG: {text}")
            self.good = False

    def finish(self, server: Server, held: int = 0) -> bool:
        """Take the next host up, wait until all is delivered, and judge."""
        self.host.up()
        until = time.monotonic() + 60
        while (left := waiting(self.folder)) > held and time.monotonic() < until:
            time.sleep(0.2)
        status = server.end()
        self.host.down()
        if held:
            missing = self.load.answered - set(self.host.received)
            print(
                f"  answered 250: {len(self.load.answered)}, arrived: {len(self.host.received)}, held: {len(missing)}"
            )
            self.good = self.good and len(missing) == left == held
        else:
            self.good = judge(self.load, self.host) and self.good and not left
        self.expect(status == -signal.SIGTERM, f"the server ended with {status}")
        tracebacks = sum("Traceback" in line for line in server.log)
        self.expect(not tracebacks, f"{tracebacks} tracebacks in the log")
        shutil.rmtree(self.base, ignore_errors=True)
        print(f"{self.name}: {'nothing is lost' if self.good else 'FAILED'}")
        return self.good


def lines(server: Server, words: str) -> None:
    """Print the first line of the log that has these words."""
    found = next((line[30:].strip() for line in server.log if words in line), f"NO LINE WITH {words!r}")
    print("  log:", re.sub(r"/\S*/spool", "spool", found))


def full_disk(min_free: str = "4M") -> bool:
    """A disk of 12 MB that is filled."""
    trial = Trial(f"full disk, --min-free {min_free}")
    trial.folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(trial.folder)], check=True)
    try:
        server = Server(trial.folder, trial.host.port, ["--retry", "1", "--retry-max", "1", "--min-free", min_free])
        codes = trial.send(server, 400, "filled")
        trial.expect(codes["250"] > 10 and all(code[0] == "4" or code == "250" for code in codes), str(codes))
        if min_free == "0":
            # On a disk without a free octet no outcome can be noted: the deliveries wait until there are some.
            trial.host.up()
            time.sleep(3)
            lines(server, "can't be noted")
            subprocess.run(["mount", "-o", "remount,size=24m", str(trial.folder)], check=True)
        else:
            lines(server, "clients hear 452")
        return trial.finish(server)
    finally:
        subprocess.run(["umount", str(trial.folder)], check=False)


def full_to_the_end() -> bool:
    """The same, where no octet is kept free; then there are more."""
    return full_disk("0")


def filled_by_others() -> bool:
    """A disk that others fill to the last octet while messages are delivered: the outcome can't be noted."""
    trial = Trial("a disk that others fill")
    trial.folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(trial.folder)], check=True)
    ballast = trial.folder / "ballast"
    try:
        server = Server(trial.folder, trial.host.port, ["--retry", "1", "--retry-max", "1", "--min-free", "1M"])
        trial.send(server, 60, "before")
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        codes = trial.send(server, 5, "full")
        trial.expect(not codes["250"], str(codes))
        trial.host.up()
        time.sleep(3)
        ballast.unlink()
        return trial.finish(server)
    finally:
        subprocess.run(["umount", str(trial.folder)], check=False)


def file_limit() -> bool:
    """A limit on the size of files, at which writes end in the middle (``ulimit -f``)."""
    trial = Trial("limit on the size of files", (4000, 100_000, 5_000_000))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

    server = Server(trial.folder, trial.host.port, preexec=limit)
    codes = trial.send(server, 30, "limited")
    trial.expect(codes["250"] > 10 and len(codes) == 2, str(codes))
    lines(server, "can't be written")
    return trial.finish(server)


def permission_lost() -> bool:
    """A folder that the server may not enter any more; root without the right to enter all folders is like others."""
    trial = Trial("permission lost")
    rights = "-dac_override,-dac_read_search"
    before = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    server = Server(trial.folder, trial.host.port, before=before)
    trial.send(server, 10, "before")
    for path in (trial.folder / "bodies", trial.folder):
        path.chmod(0)
    codes = trial.send(server, 10, "lost")
    trial.expect(any(code.startswith("451") for code in codes), str(codes))
    lines(server, "can't be written")
    for path in (trial.folder, trial.folder / "bodies"):
        path.chmod(0o700)
    trial.send(server, 10, "restored")
    return trial.finish(server)


def corrupted() -> bool:
    """One small and one large message whose octets are changed on the disk."""
    trial = Trial("corrupted messages")
    server = Server(trial.folder, trial.host.port)
    trial.send(server, 10, "before")
    large = next(iter((trial.folder / "bodies").iterdir()))
    with open(large, "r+b") as file:
        file.seek(5000)
        file.write(b"?")
    with sqlite3.connect(trial.folder / "queue.db") as connection:
        number, content = connection.execute("SELECT message, content FROM bodies LIMIT 1").fetchone()
        changed = content[:300] + b"?" + content[301:]
        connection.execute("UPDATE bodies SET content = ? WHERE message = ?", (changed, number))
    connection.close()
    trial.send(server, 10, "after")
    trial.host.up()
    time.sleep(3)
    lines(server, "is damaged")
    return trial.finish(server, held=2)


def clock() -> bool:
    """A clock that is set 30 days forward, 60 back, and a start 30 days later."""
    trial = Trial("clock jumps")
    (trial.base / "sitecustomize.py").write_text(CLOCK)
    environment = {"PYTHONPATH": os.pathsep.join([str(trial.base), str(Path(__file__).parent.parent)])}
    options = ["--retry", "0.3"]
    server = Server(trial.folder, trial.host.port, options, environment=environment)
    trial.send(server, 5, "before")
    for number, name in ((signal.SIGUSR1, "forward"), (signal.SIGUSR2, "back")):
        server.process.send_signal(number)
        time.sleep(2)
        trial.send(server, 5, name)
    server.end()
    for ahead in ("-60", "30"):
        server = Server(trial.folder, trial.host.port, options, environment={**environment, "AHEAD": ahead})
        trial.send(server, 5, f"ahead {ahead}")
        if ahead == "-60":
            server.end()
    trial.expect(trial.host.notices == [], f"{len(trial.host.notices)} bounces")
    return trial.finish(server)


def two_servers() -> bool:
    """Two servers on one folder."""
    trial = Trial("two servers on one folder")
    server = Server(trial.folder, trial.host.port)
    second = Server(trial.folder, trial.host.port)
    status = second.process.wait(30)
    print(f"  status {status}:", re.sub(r"/\S*/spool", "spool", second.log[-1].strip()))
    trial.expect(status == 1 and "is in use by process" in second.log[-1], "it was not refused")
    trial.send(server, 5, "first")
    return trial.finish(server)


def main() -> int:
    """Run all, or those that are named; 0 if nothing is lost."""
    trials: list[Callable[[], Any]] = [file_limit, corrupted, clock, two_servers]
    if os.geteuid() == 0:
        trials += [full_disk, full_to_the_end, filled_by_others, permission_lost]
    good = [trial() for trial in trials if sys.argv[1:] in ([], [getattr(trial, "__name__", "")])]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
