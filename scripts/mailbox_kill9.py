"""Shows that the Mailbox handler loses nothing it has answered 250 for, whenever its process is killed.

``python scripts/mailbox_kill9.py [--kills N] [--clients N]`` runs ``twist smtpd -c mailbox DIR`` under load and kills
it with SIGKILL, again and again.  Afterwards every message that was answered 250 must be in the Maildir, whole, and
no message in it may be half of one.  Prints the figures; exits with 1 for any loss.

A killed process is not a power cut: that the message was synchronised to the disk is a matter for
``tests/handlers/test_mailbox.py``, which watches the calls of ``fsync``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = "".join(chr(ord("a") + n % 26) for n in range(70))


class Server:
    """``twist smtpd -c mailbox`` on a free port."""

    def __init__(self, maildir: Path) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "twisted",
                "--log-format=text",
                "smtpd",
                "-l",
                "127.0.0.1:0",
                "-c",
                "mailbox",
                str(maildir),
            ],
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "listens on 127.0.0.1:" in line:
                self.port = int(line.rpartition(":")[2])
                break
        else:
            raise SystemExit("the server did not start")
        # Read on, or the log fills the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def kill(self) -> None:
        """Kill it as nothing can be prepared for."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


def message(name: str) -> bytes:
    """A message of up to 200 KB with its own checksum."""
    lines = random.Random(name).randrange(1, 2500)
    body = "".join(f"{number} {LINE}\r\n" for number in range(lines))
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f"Message-ID: <{name}>\r\nX-Digest: {digest}\r\n\r\n{body}".encode()


def is_whole(stored: bytes) -> bool:
    """Whether what is in the Maildir has the body its header promises."""
    head, _, body = stored.partition(b"\n\n")
    digest = hashlib.sha256(body.replace(b"\n", b"\r\n")).hexdigest()
    return f"X-Digest: {digest}".encode() in head.split(b"\n")


class Load:
    """Clients that send until they are told to stop or the server dies.

    :ivar answered: the names of the messages that were answered 250.
    """

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self.sent = 0
        self.refused: Counter[str] = Counter()
        self._lock = threading.Lock()

    def send(self, port: int, name: str) -> None:
        """Send messages until the connection breaks."""
        try:
            with socket.create_connection(("127.0.0.1", port), 30) as connection, connection.makefile("rb") as replies:
                self._converse(connection, replies, name)
        except OSError:
            return

    def _converse(self, connection: socket.socket, replies: object, name: str) -> None:
        def expect(count: int) -> str:
            for _ in range(count):
                line = b"   -"
                while line[3:4] == b"-":
                    line = replies.readline()  # type: ignore[attr-defined]
            if not line.endswith(b"\r\n"):
                raise ConnectionResetError
            return line.decode()

        expect(1)
        connection.sendall(b"EHLO c\r\n")
        expect(1)
        for number in range(10**6):
            unique = f"{name}.{number}@kill9.example"
            connection.sendall(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
            expect(3)
            with self._lock:
                self.sent += 1
            connection.sendall(message(unique) + b".\r\n")
            reply = expect(1)
            with self._lock:
                if reply[:3] == "250":
                    self.answered.add(unique)
                else:
                    self.refused[reply.strip()] += 1


def judge(maildir: Path, load: Load) -> bool:
    """Compare the Maildir with what was answered."""
    found: Counter[str] = Counter()
    halves = 0
    for folder in ("new", "cur"):
        for path in (maildir / folder).iterdir():
            stored = path.read_bytes()
            if is_whole(stored):
                found[stored.partition(b"Message-ID: <")[2].partition(b">")[0].decode()] += 1
            else:
                halves += 1
    missing = load.answered - set(found)
    twice = sum(count > 1 for count in found.values())
    unanswered = len(set(found) - load.answered)
    left = sum(1 for _ in (maildir / "tmp").iterdir())
    print(
        f"sent {load.sent}, answered 250 {len(load.answered)}, refused {sum(load.refused.values())}; in the "
        f"Maildir {sum(found.values())}: missing {len(missing)}, half-written {halves}, twice {twice}; stored but "
        f"killed before the answer {unanswered}, left in tmp {left}"
    )
    for reply, count in load.refused.items():
        print(f"refused {count} times: {reply}")
    return not (missing or halves or twice or load.refused) and bool(load.answered)


def main() -> int:
    """Run it; 0 if nothing is lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    load = Load()
    with tempfile.TemporaryDirectory() as folder:
        maildir = Path(folder) / "mail"
        for kill in range(options.kills):
            server = Server(maildir)
            clients = [
                threading.Thread(target=load.send, args=(server.port, f"{kill}.{client}"))
                for client in range(options.clients)
            ]
            for client in clients:
                client.start()
            time.sleep(random.uniform(0.2, 1.5))
            server.kill()
            for client in clients:
                client.join()
        print(f"killed {options.kills} times under {options.clients} clients")
        good = judge(maildir, load)
    print("nothing is lost" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
