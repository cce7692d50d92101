"""Attack a real server's TLS with each library: handshakes and sessions in pieces, cut off at many octets, reset, half
closed, without close_notify, with garbage, by clients that don't read or that stall.

    python scripts/tls_attack.py

Another client sends a message after each attack.  At the end the server must have no socket more than before, not much
more memory, and no traceback in its log.  Linux only; it takes a minute or two.
"""

from __future__ import annotations

import contextlib
import os
import select
import smtplib
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from twisted_smtpd.auth.passwords import set_password  # noqa: E402

LIMIT = 30.0
LIBRARIES = {"ssl": "the standard library", "pyopenssl": "pyOpenSSL"}
MESSAGE = (
    b"EHLO client.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n\r\nhello\r\n.\r\nQUIT\r\n"
)
REPLIES = [220, 250, 250, 250, 354, 250, 221]
MANY_NOOPS, NOOP_REPLY = 40_000, b"250 2.0.0 OK\r\n"


class Client:
    """A client whose octets go through our hands.

    :param port: of the server, with TLS from the start.
    :param version: of TLS.
    """

    def __init__(self, port: int, version: ssl.TLSVersion) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = ssl._create_unverified_context()
        context.minimum_version = context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.sent = 0

    def step(self, do: Callable[[], object], send: Callable[[bytes], None]) -> None:
        """Do something, and give and take octets until it is done."""
        while True:
            try:
                do()
            except ssl.SSLWantReadError:
                send(self.outgoing.read())
                data = self.socket.recv(2**16)
                if not data:
                    raise ConnectionError("the server has closed the connection") from None
                self.incoming.write(data)
            else:
                send(self.outgoing.read())
                return

    def in_pieces(self, size: int) -> Callable[[bytes], None]:
        """Sends pieces of this size."""

        def send(data: bytes) -> None:
            for start in range(0, len(data), size):
                self.socket.sendall(data[start : start + size])

        return send

    def until(self, octets: int) -> Callable[[bytes], None]:
        """Sends so many octets, and then raises ``InterruptedError``."""

        def send(data: bytes) -> None:
            self.socket.sendall(data[: octets - self.sent])
            self.sent += len(data)
            if self.sent >= octets:
                raise InterruptedError

        return send

    def session(self, send: Callable[[bytes], None]) -> list[int]:
        """The handshake and a message; the codes of the replies."""
        said = bytearray()
        self.step(self.tls.do_handshake, send)
        self.step(lambda: self.tls.write(MESSAGE), send)
        with contextlib.suppress(ConnectionError, ssl.SSLZeroReturnError):
            while True:
                self.step(lambda: said.extend(self.tls.read(2**14) or b""), send)
                if b"\r\n221" in said:
                    break
        return [int(line[:3]) for line in bytes(said).split(b"\r\n") if line[3:4] == b" "]

    def reset(self) -> None:
        """Close so that the server gets a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Attack:
    """The attacks on one server."""

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid

    def all(self) -> None:
        """Each of them, and after each a client that must be served."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for attack in (self.pieces, self.cuts, self.half_close, self.garbage, self.deaf, self.stalled):
                begun = time.monotonic()
                outcome = attack(version)
                self.decent_client()
                print(
                    f"ok   {version.name} {attack.__name__}: {outcome} ({time.monotonic() - begun:.1f} s)", flush=True
                )

    def client(self, version: ssl.TLSVersion) -> Client:
        return Client(self.port, version)

    def decent_client(self) -> None:
        """Another client's message is taken."""
        with smtplib.SMTP_SSL("127.0.0.1", self.port, timeout=LIMIT, context=ssl._create_unverified_context()) as smtp:
            smtp.sendmail("a@x.example", "b@y.example", "\r\nhello\r\n")

    def pieces(self, version: ssl.TLSVersion) -> str:
        for size in (1, 2, 3, 5, 7, 64):
            client = self.client(version)
            codes = client.session(client.in_pieces(size))
            assert codes == REPLIES, codes
            client.socket.close()
        return "all replies with pieces of 1 to 64 octets"

    def cuts(self, version: ssl.TLSVersion) -> str:
        whole = self.client(version)
        whole.session(whole.until(2**30))
        whole.socket.close()
        for octets in range(0, whole.sent, 3):
            client = self.client(version)
            with contextlib.suppress(InterruptedError):
                if octets:
                    client.session(client.until(octets))
            client.reset() if octets % 2 else client.socket.close()
        return f"cut off or reset at each third of {whole.sent} octets"

    def half_close(self, version: ssl.TLSVersion) -> str:
        for notify in (True, False):
            client = self.client(version)
            send = client.in_pieces(2**14)
            client.step(client.tls.do_handshake, send)
            client.tls.write(MESSAGE.removesuffix(b"QUIT\r\n"))
            if notify:
                # OpenSSL gives up where it finds the greeting instead of the server's close_notify.
                unread = client.incoming.read()
                with contextlib.suppress(ssl.SSLError):
                    client.tls.unwrap()
                client.incoming.write(unread)
            send(client.outgoing.read())
            client.socket.shutdown(socket.SHUT_WR)
            said = bytearray()
            data = client.socket.recv(2**16)
            while data:
                client.incoming.write(data)
                with contextlib.suppress(ssl.SSLError):
                    while piece := client.tls.read(2**14):
                        said += piece
                data = client.socket.recv(2**16)
            codes = [int(line[:3]) for line in bytes(said).split(b"\r\n") if line[3:4] == b" "]
            assert codes == REPLIES[:-1], (notify, codes)
            client.socket.close()
        return "all is answered, with close_notify and without"

    def garbage(self, version: ssl.TLSVersion) -> str:
        for kind in range(60):
            client = self.client(version)
            noise = os.urandom(1 + kind * 7)
            if kind % 3:
                client.step(client.tls.do_handshake, client.in_pieces(2**14))
            if kind % 2:
                noise = bytes([0x14 + kind % 4, 3, 3]) + len(noise).to_bytes(2, "big") + noise
            client.socket.sendall(noise)
            client.socket.shutdown(socket.SHUT_WR)
            while client.socket.recv(2**16):
                pass
            client.socket.close()
        return "60 connections with random octets end"

    def deaf(self, version: ssl.TLSVersion) -> str:
        """A client sends many commands without reading, and then reads all replies."""
        client = self.client(version)
        client.step(client.tls.do_handshake, client.in_pieces(2**14))
        client.tls.write(b"EHLO client.example\r\n" + b"NOOP\r\n" * MANY_NOOPS + b"QUIT\r\n")
        left, before = client.outgoing.read(), rss(self.pid)
        client.socket.setblocking(False)
        taken, until = 0, time.monotonic() + 3
        while taken < len(left) and time.monotonic() < until:
            if select.select([], [client.socket], [], 0.5)[1]:
                taken += client.socket.send(left[taken : taken + 2**14])
        self.decent_client()
        grown = rss(self.pid) - before
        assert grown < 8 * 2**20, grown
        replies = 0
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            readable, writable, _ = select.select(
                [client.socket], [client.socket] if taken < len(left) else [], [], LIMIT
            )
            if writable:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    taken += client.socket.send(left[taken : taken + 2**14])
            if readable:
                data = client.socket.recv(2**16)
                client.incoming.write(data)
                with contextlib.suppress(ssl.SSLError):
                    while piece := client.tls.read(2**14):
                        replies += piece.count(b"\n")
                if not data or (taken >= len(left) and replies >= MANY_NOOPS):
                    break
        client.socket.close()
        assert replies >= MANY_NOOPS, replies
        return f"{replies:,} lines of replies, {grown / 2**20:.1f} MiB more meanwhile"

    def stalled(self, version: ssl.TLSVersion) -> str:
        """100 clients stop within their handshake; another one is served."""
        clients = []
        for octets in range(1, 101):
            client = self.client(version)
            with contextlib.suppress(InterruptedError):
                client.step(client.tls.do_handshake, client.until(octets))
            clients.append(client)
        begun = time.monotonic()
        self.decent_client()
        seconds = time.monotonic() - begun
        for client in clients:
            client.reset()
        return f"another client is served in {seconds:.2f} s beside 100 that stall"


def rss(pid: int) -> int:
    """Octets of resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sockets(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def serving(folder: Path, library: str) -> Iterator[tuple[int, int]]:
    """The server as the command makes it; its port and process."""
    command = [sys.executable, "-m", "twisted_smtpd", "-c", "sink", "--hostname=localhost", "--tls-self-signed"]
    command += ["--listen-tls", "127.0.0.1:0", "--log-level=debug", "--log-file=log", "--max-connections-per-address=0"]
    command += ["--max-idle-commands=1000000", "--command-call-limit=1000000"]
    if library == "pyopenssl":
        # Channel binding needs it.
        set_password(folder / "users", "user", "secret", scram=True)
        command += ["--auth-file=users"]
    server = subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(HOME)})
    try:
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            time.sleep(0.1)
            text = (folder / "log").read_text() if (folder / "log").exists() else ""
            if " listens on " in text:
                break
        else:
            raise SystemExit("the server did not start")
        yield int(text.partition(" listens on 127.0.0.1:")[2].split()[0]), server.pid
    finally:
        server.terminate()
        server.wait(timeout=LIMIT)


def main() -> int:
    for library, name in LIBRARIES.items():
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            with serving(folder, library) as (port, pid):
                attack = Attack(port, pid)
                for _ in range(20):
                    attack.decent_client()
                open_before, memory = sockets(pid), rss(pid)
                print(f"{library}:")
                attack.all()
                until = time.monotonic() + LIMIT
                while sockets(pid) > open_before and time.monotonic() < until:
                    time.sleep(0.1)
                more, grown = sockets(pid) - open_before, (rss(pid) - memory) / 2**20
            log = (folder / "log").read_text()
            good = more <= 0 and grown < 16 and "Traceback" not in log and f" by {name}" in log
            print(f"{'ok  ' if good else 'FAIL'} {more} sockets more, {grown:.1f} MiB more, ", end="")
            print(f"{log.count('Traceback')} tracebacks, {log.count('handshake')} lines about handshakes", flush=True)
            if not good:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
