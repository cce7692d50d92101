"""Three nodes of RabbitMQ, two front ends behind HAProxy, two consumers: each is killed in turn, under load.

    python scripts/broker_failures.py [FOLDER]

Needs rabbitmq-server (unpacked or installed) and haproxy.  All of it runs on this machine, on free ports of the
loopback.  Counts what clients heard, what arrived, and what arrived twice; says how long the longest wait for a reply
was.  Exits with 1 if a message that got 250 is lost, or if a client heard anything but 250 and 4yz.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.rabbitmq import Node, free_port

QUEUE = "mail"
CLIENTS = 8
SECONDS = 12


class Server:
    """A front end or a consumer."""

    def __init__(self, name: str, words: list[str], folder: Path, ready: str) -> None:
        self.name, self._words, self._ready = name, words, ready
        self._log = folder / f"{name}.log"
        self.start()

    def start(self) -> None:
        before = self._log.read_text().count(self._ready) if self._log.exists() else 0
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "twisted_smtpd", *self._words], stdout=log, stderr=log
            )
        for _ in range(600):
            if self._log.read_text().count(self._ready) > before:
                return
            time.sleep(0.1)
        sys.exit(f"{self.name} does not start: {self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Load:
    """Clients that send all the time, each message with a number of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self.accepted: set[int] = set()
        self.heard: Counter[str] = Counter()
        self.longest = 0.0
        self.began = time.monotonic()
        self._threads = [threading.Thread(target=self._send_all, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _send_all(self) -> None:
        while not self._ends.is_set():
            with self._lock:
                number = next(self._numbers)
            self._send(number)

    def _send(self, number: int) -> None:
        began = time.monotonic()
        try:
            with smtplib.SMTP("127.0.0.1", self._port, "client.example", timeout=60) as client:
                client.sendmail("a@x.example", ["b@y.example"], f"Subject: {number}\r\n\r\n{'x' * 4000}\r\n")
        except smtplib.SMTPResponseException as error:
            heard = str(error.smtp_code)
        except smtplib.SMTPRecipientsRefused as error:
            heard = str(next(iter(error.recipients.values()))[0])
        except (smtplib.SMTPException, OSError):
            heard = "connection lost"
        else:
            heard = "250"
        took = time.monotonic() - began
        with self._lock:
            self.heard[heard] += 1
            self.longest = max(self.longest, took)
            if heard == "250":
                self.accepted.add(number)
        if heard != "250":
            self._ends.wait(0.2)

    def stop(self) -> float:
        """End it; returns the seconds that it went on."""
        self._ends.set()
        for thread in self._threads:
            thread.join()
        return time.monotonic() - self.began


def arrived(folder: Path) -> Counter[int]:
    """How often each message has arrived."""
    counts: Counter[int] = Counter()
    for path in folder.glob("new/*"):
        found = re.search(rb"^Subject: ([0-9]+)\r?$", path.read_bytes(), re.MULTILINE)
        assert found is not None, path
        counts[int(found[1])] += 1
    return counts


def haproxy(ports: list[int], folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    servers = "\n".join(
        f"  server s{number} 127.0.0.1:{one} send-proxy-v2 check-send-proxy check inter 200ms fall 1 rise 1"
        for number, one in enumerate(ports)
    )
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 90s\n  timeout server 90s\n  retries 3\n"
        f"  option redispatch\nlisten smtp\n  bind 127.0.0.1:{port}\n  balance leastconn\n{servers}\n"
    )
    process = subprocess.Popen(["haproxy", "-f", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return process, port


class Cluster:
    """All of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        epmd = free_port()
        self.nodes = [Node(number, folder, epmd) for number in range(3)]
        first, *others = self.nodes
        first.start()
        for node in others:
            node.start()
            node.ctl("stop_app")
            node.ctl("join_cluster", first.name)
            node.ctl("start_app")
        urls = folder / "urls"
        urls.write_text("".join(f"{node.url}\n" for node in self.nodes))
        self.mailbox = folder / "Maildir"
        self.ports = [free_port(), free_port()]
        amqp = ["-c", "amqp", "--", "--url-file", str(urls), "--timeout", "10"]
        self.fronts = [
            Server(
                f"front{number}",
                ["-l", f"127.0.0.1:{port}", "--proxy-from", "127.0.0.1", "--hook-timeout", "30", *amqp],
                folder,
                "Mail goes to",
            )
            for number, port in enumerate(self.ports)
        ]
        consume = ["consume", "--url-file", str(urls), "--retry", "1", "-c", "mailbox", str(self.mailbox)]
        self.consumers = [Server(f"consumer{number}", consume, folder, "go to the handler") for number in range(2)]
        self.haproxy, self.port = haproxy(self.ports, folder)
        # It tries the front ends before it sends clients there.
        time.sleep(2)

    def leader(self) -> Node:
        """The node that leads the queue."""
        for node in self.nodes:
            if node.process is not None:
                text = node.ctl("list_queues", "name", "leader", "--quiet")
                (name,) = re.findall(rf"^{QUEUE}\t(\S+)$", text, re.MULTILINE)
                return next(one for one in self.nodes if one.name == name)
        raise RuntimeError("no node runs")

    def stop(self) -> None:
        self.haproxy.kill()
        for one in (*self.fronts, *self.consumers):
            one.kill()
        for node in self.nodes:
            node.end()


def drained(cluster: Cluster, accepted: set[int]) -> Counter[int]:
    """What has arrived, when all has, or after three minutes."""
    for _ in range(180):
        counts = arrived(cluster.mailbox)
        if accepted <= counts.keys():
            break
        time.sleep(1)
    return counts


@contextlib.contextmanager
def trial(cluster: Cluster, title: str, fine: list[bool]) -> Iterator[Load]:
    """Send all the time while something is done, then count."""
    load = Load(cluster.port)
    time.sleep(3)
    yield load
    time.sleep(SECONDS)
    seconds = load.stop()
    counts = drained(cluster, load.accepted)
    lost = load.accepted - counts.keys()
    doubles = sum(count - 1 for count in counts.values() if count > 1)
    heard = ", ".join(f"{code}: {count}" for code, count in sorted(load.heard.items()))
    print(
        f"{title:<34}{len(load.accepted) / seconds:6.0f}/s  longest {load.longest:5.1f} s  lost {len(lost)}  "
        f"doubles {doubles}  clients heard {heard}",
        flush=True,
    )
    fine.append(not lost and all(code == "connection lost" or code[0] in "24" for code in load.heard))
    shutil.rmtree(cluster.mailbox / "new")
    (cluster.mailbox / "new").mkdir()


def main(folder: Path) -> bool:
    cluster = Cluster(folder)
    fine: list[bool] = []
    try:
        with trial(cluster, "nothing", fine):
            pass
        for number in range(2):
            with trial(cluster, f"front end {number} killed", fine):
                cluster.fronts[number].kill()
                time.sleep(4)
                cluster.fronts[number].start()
        for number in range(2):
            with trial(cluster, f"consumer {number} killed", fine):
                cluster.consumers[number].kill()
                time.sleep(4)
                cluster.consumers[number].start()
        with trial(cluster, "leader of the queue killed", fine):
            leader = cluster.leader()
            leader.kill()
            time.sleep(6)
        leader.start()
        follower = next(node for node in cluster.nodes if node is not cluster.leader())
        with trial(cluster, "another node killed", fine):
            follower.kill()
            time.sleep(6)
        follower.start()
        with trial(cluster, "two nodes killed, then back", fine):
            two = [node for node in cluster.nodes if node is not cluster.nodes[0]]
            for node in two:
                node.kill()
            time.sleep(15)
            for node in two:
                node.start()
    finally:
        cluster.stop()
    return all(fine)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(not main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(not main(Path(temporary)))
