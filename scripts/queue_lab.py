"""What the scripts about the queue share: a server with a queue as a process, a next host, and clients."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LINE = "".join(chr(ord("a") + n % 26) for n in range(70))

sys.path.insert(0, str(ROOT))


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def message(name: str, size: int) -> bytes:
    """A message of about a size, with its own checksum."""
    body = "".join(f"{number:8} {LINE}\r\n" for number in range(max(1, size // 81)))
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f"Message-ID: <{name}>\r\nX-Digest: {digest}\r\n\r\n{body}".encode()


class NextHost:
    """A server that takes messages, and is up or down.

    :ivar received: how often each message has come, by its Message-ID.
    :ivar broken: messages that were not whole.
    :ivar ids: the queue's ids of each message, from the Received header.
    :ivar defers: the part of the messages that is answered 451.
    """

    def __init__(self, port: int | None = None) -> None:
        from twisted_smtpd.controller import Controller

        self.port = free_port() if port is None else port
        self.received: Counter[str] = Counter()
        self.ids: dict[str, set[str]] = {}
        self.notices: list[bytes] = []
        self.broken = 0
        self.defers = 0.0
        self.answer: Callable[[Any], str | None] = lambda envelope: None
        self.new: Callable[[], Any] = lambda: Controller(self, "127.0.0.1", self.port)
        self.controller: Any = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = self.answer(envelope)
        if answer is not None:
            return answer
        if random.random() < self.defers:
            return "451 4.3.0 not now"
        content: bytes = envelope.content
        if envelope.null_sender:
            self.notices.append(content)
            return "250 OK"
        header, _, body = content.partition(b"\r\n\r\n")
        if f"X-Digest: {hashlib.sha256(body).hexdigest()}".encode() not in header:
            self.broken += 1
        name = header.partition(b"Message-ID: <")[2].partition(b">")[0].decode()
        self.received[name] += 1
        found = re.search(rb"\sid\s([0-9A-F]+)", header)
        self.ids.setdefault(name, set()).add(found[1].decode() if found else "none")
        return "250 OK"

    def up(self) -> None:
        """Listen, if it does not."""
        if self.controller is None:
            self.controller = self.new()
            self.controller.start()

    def down(self) -> None:
        """Close the port, and all connections."""
        if self.controller is not None:
            self.controller.stop()
            self.controller = None


class Server:
    """``twisted-smtpd -c queue FOLDER + proxy ...`` on a port.

    :param folder: of the queue.
    :param next_port: where the next host is.
    :param options: of the queue.
    :param before: a command that runs the server, strace for instance.
    :param port: where it listens.
    """

    def __init__(
        self,
        folder: Path | str,
        next_port: int,
        options: Sequence[str] = ("--retry", "0.3", "--retry-max", "1"),
        *,
        before: Sequence[str] = (),
        more: Sequence[str] = (),
        port: int | None = None,
        preexec: Callable[[], Any] | None = None,
        environment: dict[str, str] | None = None,
        consumer: Sequence[str] = (),
    ) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        consumer = consumer or ("proxy", f"127.0.0.1:{next_port}")
        words = ["-l", f"127.0.0.1:{port or 0}", *more, "-c", "queue", "--", str(folder), *options, "+", *consumer]
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "twisted_smtpd", *words],
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=preexec,
        )
        self.log: list[str] = []
        self.port = 0
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if "listens on 127.0.0.1:" in line:
                self.port = int(line.rpartition(":")[2])
                break
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    @property
    def started(self) -> bool:
        """Whether it listens, or did."""
        return bool(self.port)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self.reader.join(10)
        return status


def queue_command(*words: str) -> str:
    """What ``twisted-smtpd queue`` prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "twisted_smtpd", "queue", *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def waiting(folder: Path | str) -> int:
    """How many messages are in a queue."""
    return int(queue_command("list", str(folder)).splitlines()[-1].split()[0].replace(",", ""))


def wait_until_empty(folder: Path | str, seconds: float = 60) -> int:
    """Wait until all is delivered; returns what is left."""
    until = time.monotonic() + seconds
    while (left := waiting(folder)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


class Load:
    """Clients.

    :ivar answered: the names of the messages that were answered 250.
    :ivar refused: the other answers.
    """

    def __init__(self, sizes: Sequence[int] = (500, 4000, 4000, 20_000, 100_000)) -> None:
        self.answered: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.sent = 0
        self._sizes = sizes
        self._lock = threading.Lock()

    def send(self, port: int, names: Iterable[str]) -> None:
        """Send messages on one connection, until there are no more or it breaks."""
        try:
            with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=30) as client:
                for name in names:
                    self._send_one(client, name)
        except (OSError, smtplib.SMTPException):
            return

    def _send_one(self, client: smtplib.SMTP, name: str) -> None:
        content = message(name, random.Random(name).choice(self._sizes))
        client.ehlo_or_helo_if_needed()
        for code, reply in (client.mail("a@x.example"), client.rcpt("b@y.example")):
            if code != 250:
                with self._lock:
                    self.refused[f"{code} {reply.decode()}"] += 1
                client.rset()
                return
        with self._lock:
            self.sent += 1
        code, reply = client.data(content)
        with self._lock:
            if code == 250:
                self.answered.add(name)
            else:
                self.refused[f"{code} {reply.decode()}"] += 1


def judge(load: Load, host: NextHost) -> bool:
    """Compare what was answered with what has arrived, print the figures, and say whether nothing is lost."""
    missing = load.answered - set(host.received)
    doubles = sum(count - 1 for name, count in host.received.items())
    told_apart = sum(1 for name, count in host.received.items() if count > 1 and len(host.ids[name]) == 1)
    print(
        f"answered 250: {len(load.answered):,}; of these arrived: {len(load.answered) - len(missing):,}, lost: "
        f"{len(missing)}, broken: {host.broken}"
    )
    twice = sum(1 for count in host.received.values() if count > 1)
    unanswered = len(set(host.received) - load.answered)
    print(
        f"doubles: {doubles}, of {twice} messages, {told_apart} of which came with the same id; arrived though the "
        f"server died before its answer: {unanswered}"
    )
    return not missing and not host.broken and bool(load.answered) and told_apart == twice


def save(path: str, value: Any) -> None:
    """Keep figures for the documentation."""
    Path(path).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
