"""Messages a second that are made durable: our sink, Maildir, queue and RabbitMQ, and Postfix, in the same run.

``python benchmarks/queueing.py [--save FILE]`` (as root, with Postfix installed) sends messages of 4 KB, 100 KB and
5 MB with Postfix's ``smtp-source``, over 1, 8 and 64 connections that are kept.  The sink keeps nothing and shows what
the protocol costs.  Postfix has ``defer_transports = smtp``, and our queue a next host that is down: both only keep.
"queue + sink" delivers each message as well, to a handler that throws it away.  "amqp" publishes to a RabbitMQ of one
node, if that is installed, and waits for its confirm.

``--cpu`` prints the processor's time for a message instead, of all processes of the server: it means something on a
machine that is busy with other work, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from load import postfix

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "scripts")]

from own_postfix import Postfix, is_here  # noqa: E402

from tests.support.rabbitmq import Node, free_port  # noqa: E402

RABBITMQ = Path("/usr/lib/rabbitmq")

SIZES = {"4 KB": 4000, "100 KB": 100_000, "5 MB": 5_000_000}
CONNECTIONS = (1, 8, 64)
# Messages of a measurement, by size and connections.
COUNTS = {
    ("4 KB", 1): 600,
    ("4 KB", 8): 2500,
    ("4 KB", 64): 2500,
    ("100 KB", 1): 300,
    ("100 KB", 8): 800,
    ("100 KB", 64): 800,
    ("5 MB", 1): 12,
    ("5 MB", 8): 32,
    ("5 MB", 64): 64,
}


@contextmanager
def ours(folder: Path, *handler: str) -> Iterator[int]:
    """``twisted-smtpd`` with a handler; gives its port."""
    command = [sys.executable, "-m", "twisted_smtpd", "-l", "127.0.0.1:0", "--log-level", "warn"]
    # 64 messages of 5 MB count three times while a handler has them.
    command += ["--max-buffered", "2G", "-c", *handler]
    process = subprocess.Popen(command, cwd=HERE.parent, stderr=subprocess.PIPE, text=True)
    try:
        port = 0
        while not port:
            time.sleep(0.1)
            port = listening_port(process.pid)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """``twisted-smtpd`` before a RabbitMQ of one node, without a consumer; gives the port."""
    node = Node(1, folder, free_port())
    try:
        node.start()
        with ours(folder, "amqp", node.url) as port:
            yield port
    finally:
        node.end()


def listening_port(pid: int) -> int:
    """The TCP port on which a process listens; 0 if there is none yet."""
    import socket as sockets

    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in inodes:
            port = int(words[1].rpartition(":")[2], 16)
            with sockets.create_connection(("127.0.0.1", port), 10) as probe:
                # Its handler has started when it greets.
                probe.recv(100)
            return port
    return 0


@contextmanager
def theirs(folder: Path) -> Iterator[int]:
    """Postfix, which only keeps; gives its port."""
    with Postfix(folder, ["defer_transports = smtp", "default_transport = smtp"]) as server:
        time.sleep(1)
        yield server.port


SERVERS: dict[str, Callable[[Path], object]] = {
    "sink": lambda folder: ours(folder, "sink"),
    "mailbox": lambda folder: ours(folder, "mailbox", str(folder / "Maildir")),
    "queue": lambda folder: ours(folder, "queue", str(folder / "spool"), "+", "proxy", "127.0.0.1:1"),
    "queue + sink": lambda folder: ours(folder, "queue", str(folder / "spool"), "+", "sink"),
    "amqp": broker,
    "Postfix": theirs,
}


def descendants() -> set[int]:
    """The processes that have us, or a Postfix of ours, as an ancestor, ``smtp-source`` apart."""
    parents = {}
    found = {os.getpid()}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                name, _, rest = (path / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            parents[int(path.name)] = int(rest.split()[1])
            if name == "master":
                found.add(int(path.name))
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def processor_time() -> float:
    """The seconds that the servers have computed, those of their children that have ended included."""
    ticks = 0
    for process in descendants():
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(port: int, size: int, connections: int, count: int, cpu: bool = False) -> float:
    """Messages a second; or the milliseconds that the processor needs for one."""
    command = [postfix("smtp-source"), "-d", "-s", str(connections), "-m", str(count), "-l", str(size)]
    command += ["-f", "a@bench.example", "-t", "b@bench.example", "-M", "client.example", f"127.0.0.1:{port}"]
    before, began = processor_time(), time.monotonic()
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    took = time.monotonic() - began
    # What is delivered as well has to be delivered.
    time.sleep(2 if cpu else 0)
    return 1000 * (processor_time() - before) / count if cpu else count / took


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--save", help="a file for the table")
    parser.add_argument("--only", nargs="*", help="servers")
    parser.add_argument("--cpu", action="store_true", help="milliseconds of the processor for a message")
    parser.add_argument("--connections", nargs="*", type=int, default=CONNECTIONS)
    options = parser.parse_args()
    names = [
        name
        for name in SERVERS
        if (not options.only or name in options.only)
        and (name != "Postfix" or is_here())
        and (name != "amqp" or RABBITMQ.is_dir())
    ]
    lines = [f"{'size':>7} {'clients':>8}" + "".join(f"{name:>14}" for name in names)]
    print(lines[0], flush=True)
    digits = 2 if options.cpu else 0
    for size, octets in SIZES.items():
        for connections in options.connections:
            rates = []
            for name in names:
                folder = Path(tempfile.mkdtemp())
                try:
                    with SERVERS[name](folder) as port:  # type: ignore[attr-defined]
                        rates.append(measure(port, octets, connections, COUNTS[size, connections], options.cpu))
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
            lines.append(f"{size:>7} {connections:>8}" + "".join(f"{rate:14,.{digits}f}" for rate in rates))
            print(lines[-1], flush=True)
    if options.save:
        Path(options.save).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
