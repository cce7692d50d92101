"""What a message costs that comes with BDAT: ``python benchmarks/chunks.py [--rounds N] [--write docs/explanation/]``.

Messages of 100 KB and 5 MB are sent over one connection, with DATA, with BDAT in one chunk and in chunks of 64 KiB, to
twisted-smtpd and, as root, to a Postfix of its own, whose ``smtpd`` takes them and whose ``cleanup`` throws them away
(``DISCARD``).  All commands that may be pipelined are.  The figures are the server's CPU time for a message, the median
of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bodies  # noqa: E402
from load import HOST, KIB, MIB  # noqa: E402
from measure import Cores, cpu_seconds, free_port, process_tree, started, take_cores  # noqa: E402
from peers import PEERS  # noqa: E402

ENVELOPE = b"MAIL FROM:<a@bench.example>\r\nRCPT TO:<b@bench.example>\r\n"
CHUNK = 64 * KIB
SIZES = {"100 KB": (100 * KIB, 1000), "5 MB": (5 * MIB, 50)}
PARTS = ["twisted-smtpd", "Postfix's smtpd", "Postfix's cleanup"]
WAYS = ("DATA", "BDAT", "BDAT, 64 KiB")

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mail_owner = postfix
myhostname = bench.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
message_size_limit = 0
max_use = 1000000
in_flow_delay = 0
smtpd_recipient_restrictions = check_recipient_access static:DISCARD, permit_mynetworks, reject
"""

MASTER_CF = """\
127.0.0.1:{port} inet n - n - 1 smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

#: CPU seconds so far, of each part that has a column of its own.
Clock = Callable[[], dict[str, float]]


@dataclass
class Served:
    """A server that runs.

    :ivar port: where it listens.
    :ivar clock: the CPU time that it has used.
    """

    port: int
    clock: Clock


@contextlib.contextmanager
def ours(cores: Cores) -> Iterator[Served]:
    """The server of this checkout."""
    port = free_port()
    peer = next(peer for peer in PEERS if peer.name == "twisted-smtpd")
    script = Path(__file__).parent / "servers" / peer.script
    with started([sys.executable, str(script), "--port", str(port)], port, cores) as server:
        yield Served(port, lambda: {"twisted-smtpd": cpu_seconds(server.process.pid)})


@contextlib.contextmanager
def postfix(cores: Cores) -> Iterator[Served]:
    """A Postfix of its own."""
    with tempfile.TemporaryDirectory(prefix="chunks-") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        for part in ("etc", "queue", "data"):
            (folder / part).mkdir()
        (folder / "etc" / "main.cf").write_text(MAIN_CF.format(folder=folder))
        (folder / "etc" / "master.cf").write_text(MASTER_CF.format(port=port))
        shutil.chown(folder / "data", "postfix")
        command = ["postfix", "-c", str(folder / "etc")]
        os.sched_setaffinity(0, {cores.server})
        try:
            subprocess.run([*command, "start"], check=True, capture_output=True)
        finally:
            os.sched_setaffinity(0, {cores.load})
        try:
            master = int((folder / "queue" / "pid" / "master.pid").read_text())

            def clock() -> dict[str, float]:
                names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in process_tree(master)}
                return {
                    f"Postfix's {part}": sum(cpu_seconds(pid) for pid, found in names.items() if found == part)
                    for part in ("smtpd", "cleanup")
                }

            yield Served(port, clock)
        finally:
            subprocess.run([*command, "stop"], check=True, capture_output=True)


class Client:
    """One connection that sends messages."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")
        self._expect(220)
        self._socket.sendall(b"EHLO client.example\r\n")
        self._expect(250)

    def _expect(self, *codes: int) -> None:
        for code in codes:
            # Or a server that sends replies one by one waits 40 ms for our acknowledgement.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            while True:
                line = self._replies.readline()
                if line[3:4] == b" ":
                    break
            if int(line[:3]) != code:
                raise SystemExit(f"{code} expected, got {line!r}")

    def send(self, way: str, body: bytes) -> None:
        """Send a message."""
        if way == "DATA":
            self._socket.sendall(ENVELOPE + b"DATA\r\n")
            self._expect(250, 250, 354)
            self._socket.sendall(body + b".\r\n")
            self._expect(250)
            return
        size = len(body) if way == "BDAT" else CHUNK
        pieces = [body[place : place + size] for place in range(0, len(body), size)]
        last = pieces.pop()
        parts = [ENVELOPE]
        for piece in pieces:
            parts += [b"BDAT %d\r\n" % len(piece), piece]
        self._socket.sendall(b"".join([*parts, b"BDAT %d LAST\r\n" % len(last), last]))
        self._expect(*[250] * (len(pieces) + 3))

    def close(self) -> None:
        """Say QUIT."""
        self._socket.sendall(b"QUIT\r\n")
        self._expect(221)
        self._socket.close()


def measure(server: Served, way: str, size: int, messages: int) -> dict[str, float]:
    """CPU seconds for a message, of each part of a server."""
    body = bodies.body("lines", size)
    client = Client(server.port)
    for _ in range(max(3, messages // 20)):
        client.send(way, body)
    before = server.clock()
    for _ in range(messages):
        client.send(way, body)
    after = server.clock()
    client.close()
    return {part: (after[part] - before[part]) / messages for part in after}


def table(samples: dict[tuple[str, str], dict[str, list[float]]]) -> str:
    """The figures, as a table."""
    parts = sorted({part for found in samples.values() for part in found}, key=PARTS.index)
    lines = [".. list-table:: CPU of the server for a message, in µs", "   :header-rows: 1", "", "   * - message"]
    lines += ["     - sent with", *(f"     - {part}" for part in parts)]
    for (size, way), found in samples.items():
        lines += [f"   * - {size}", f"     - {way}"]
        lines += [
            f"     - {statistics.median(found[part]) * 1e6:,.0f}" if part in found else "     -" for part in parts
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the table there")
    arguments = parser.parse_args()
    servers = [ours]
    if shutil.which("postfix") and os.geteuid() == 0:
        servers.append(postfix)
    cores = take_cores()
    samples: dict[tuple[str, str], dict[str, list[float]]] = {(size, way): {} for size in SIZES for way in WAYS}
    for number in range(arguments.rounds):
        for serve in servers if number % 2 else reversed(servers):
            with serve(cores) as server:
                for size, way in samples:
                    begin = time.perf_counter()
                    for part, seconds in measure(server, way, *SIZES[size]).items():
                        samples[size, way].setdefault(part, []).append(seconds)
                        print(f"  {size:7} {way:13} {part:18} {seconds * 1e6:10,.1f} µs", file=sys.stderr, flush=True)
                    print(f"  {time.perf_counter() - begin:.1f} s", file=sys.stderr)
    ordered = {
        key: dict(sorted(found.items(), key=lambda pair: pair[0] != "twisted-smtpd")) for key, found in samples.items()
    }
    text = table(ordered)
    print(text)
    if arguments.write is not None:
        (arguments.write / "chunks-table.txt").write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
