"""Show how long another client waits while one handler gets its worst messages, or many clients flood the server.

    python scripts/others_latency.py [--seconds 4] [--only WORD ...]

Another client connects, says EHLO, MAIL, RCPT and DATA, waits for the 250 of a small message, and begins again.  Each
line of the table has the time from its connecting to that 250: how many sessions it had, the median, the worst.
Everything comes from 127.0.0.1, which has no share per address, so nothing but the turns protects that client.  The
clients that flood are in a process of their own and connect again when they are cut off.  ``--only`` names lines, by
any of their words.  Takes some ten minutes; the table of ``docs/how-to/internet.rst`` is its output.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import platform
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import twisted

HOME = str(Path(__file__).parent.parent.absolute())
ENVELOPE = b"EHLO a.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
SIZE = 30_000_000

HANDLERS = """\
from twisted_smtpd.handlers import Message

class Parsed(Message):
    def handle_message(self, message):
        pass

class Refusing:
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address.startswith("no"):
            return "550 5.1.1 no"
        envelope.rcpt_tos.append(address)
        return "250 OK"
"""
WEB = """\
from twisted.internet import reactor
from twisted.web import resource, server

class Page(resource.Resource):
    isLeaf = True

    def render_POST(self, request):
        return b""

port = reactor.listenTCP(0, server.Site(Page()), interface="127.0.0.1")
print(f"web on 127.0.0.1:{port.getHost().port}", flush=True)
reactor.run()
"""


# -- what is sent ------------------------------------------------------------------------------------------------------


def nested() -> bytes:
    """A message whose parts are in parts, as deep as its header's limits and a size let it be."""
    depth = 2000
    begin = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(depth))
    return begin + b"\r\nhello\r\n" + b"".join(b"--%d--\r\n" % n for n in reversed(range(depth)))


def many_parts() -> bytes:
    """A message of many small parts."""
    return b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"--b\r\nX: y\r\n\r\n\r\n" * (SIZE // 60)


MESSAGES = {
    "header, 2990 short lines": b"a:\r\n" * 2990 + b"\r\nhello\r\n",
    "header, 510 KiB": b"Received: ; " + b"\r\n ".join([b"=?utf-8?q?=41?= " * 11] * 2800) + b"\r\n\r\nhello\r\n",
    "MIME, 2000 levels": nested(),
    "MIME, 500000 parts": many_parts(),
    "30 MB, Base64": b"Subject: x\r\n\r\n" + (b"QUFB" * 19 + b"\r\n") * (SIZE // 78),
    "30 MB, empty lines": b"Subject: x\r\n\r\n" + b"\r\n" * (SIZE // 2),
    "30 MB, dots and ESC": b"Subject: x\r\n\r\n" + b"..\x1b\r\n" * (SIZE // 5),
}
PASSWORD = base64.b64encode(b"\0anne\0wrong")
FLOODS = {
    "NOOP": b"NOOP\r\n" * 10_000,
    "HELP": b"HELP\r\n" * 10_000,
    "RCPT refused": b"MAIL FROM:<a@x.example>\r\n" + b"RCPT TO:<no@y.example>\r\n" * 2_000,
    "AUTH, wrong": b"AUTH PLAIN " + PASSWORD + b"\r\n",
    "half a handshake": b"",
    "connects": b"",
    "idle": b"",
}


@cache
def client_hello() -> bytes:
    """The first octets that a TLS client sends."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="mx.example").do_handshake()
    return out.read()


# -- the clients that flood --------------------------------------------------------------------------------------------


async def read_to_end(client: socket.socket) -> None:
    with suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(client, 1 << 16):
            pass


async def flood(kind: str, port: int) -> None:
    """What one client does on one connection."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        if kind == "connects":
            return
        if kind == "half a handshake":
            await loop.sock_sendall(client, client_hello())
            await loop.sock_recv(client, 1 << 16)
            return
        if kind == "idle":
            await read_to_end(client)
            return
        if kind in MESSAGES:
            # It waits for the replies to its envelope, so that a refusal does not have the content run as commands.
            await loop.sock_sendall(client, ENVELOPE)
            replies = b""
            while b"354 " not in replies:
                more = await loop.sock_recv(client, 1 << 16)
                if not more or b"\r\n452" in replies + more:
                    return
                replies += more
            await loop.sock_sendall(client, MESSAGES[kind] + b".\r\nQUIT\r\n")
            await read_to_end(client)
            return
        await loop.sock_sendall(client, b"EHLO a.example\r\n")
        reader = asyncio.ensure_future(read_to_end(client))
        while not reader.done():
            await loop.sock_sendall(client, FLOODS[kind])
            if kind == "AUTH, wrong":
                # An answer is slow on purpose.
                await asyncio.wait([reader], timeout=0.1)
        await reader


async def flood_all(kind: str, clients: int, port: int) -> None:
    async def again_and_again() -> None:
        while True:
            with suppress(OSError):
                await flood(kind, port)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(again_and_again() for _ in range(clients)))


# -- the server and the other client -----------------------------------------------------------------------------------


@contextmanager
def program(*command: str, folder: str) -> Iterator[list[int]]:
    """Run a program; gives the ports that it says it listens on."""
    running = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": HOME},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert running.stdout is not None
    try:
        named = next(line for line in running.stdout if " on 127.0.0.1:" in line)
        ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", named)]
        # What it prints from now on is thrown away by another program, so that it never waits for this one.
        with subprocess.Popen(["cat"], stdin=running.stdout, stdout=subprocess.DEVNULL):
            running.stdout.close()
            yield ports
            running.kill()
    finally:
        running.kill()
        running.wait()


@contextmanager
def smtpd(*words: str, folder: str) -> Iterator[list[int]]:
    command = [sys.executable, "-m", "twisted", "--log-format=text", "smtpd", "-l127.0.0.1:0"]
    with program(*command, *words, folder=folder) as ports:
        yield ports


def session(port: int) -> float:
    """One session of the other client; the seconds it took."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client, client.makefile("rb") as replies:
        for line in (b"", *ENVELOPE.splitlines(keepends=True), b"Subject: hi\r\n\r\nhello\r\n.\r\n"):
            client.sendall(line)
            reply = b"...-"
            while reply[3:4] == b"-":
                reply = replies.readline()
            if not reply.startswith((b"2", b"354")):
                raise ConnectionError(f"to {line!r}: {reply!r}")
        return time.perf_counter() - began


def watch(port: int, seconds: float) -> tuple[list[float], int]:
    """The times of the other client's sessions, and how many were refused."""
    times, refused = [], 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            times.append(session(port))
        except OSError:
            refused += 1
        time.sleep(0.002)
    return times, refused


def measure(name: str, kind: str, clients: int, ports: list[int], seconds: float) -> None:
    """Print a line of the table."""
    flooding = None
    if clients:
        port = ports[-1] if kind == "half a handshake" else ports[0]
        command = [sys.executable, __file__, "--flood", kind, str(clients), str(port)]
        flooding = subprocess.Popen(["nice", *command], env={**os.environ, "PYTHONPATH": HOME})
        time.sleep(1)
    try:
        times, refused = watch(ports[0], seconds)
    finally:
        if flooding is not None:
            flooding.kill()
            flooding.wait()
    note = f"  {refused} refused" if refused else ""
    median, worst = (statistics.median(times) * 1000, max(times) * 1000) if times else (0, 0)
    print(f"{name:<11}{kind:<26}{clients:>7}{len(times):>10}{median:>9.1f}{worst:>9.1f}{note}", flush=True)


def certificate(folder: str) -> None:
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mx.example -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, stderr=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description="Show how long another client waits.")
    parser.add_argument("--seconds", type=float, default=4, help="for each line of the table")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="only lines that have this in them")
    parser.add_argument("--flood", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        kind, clients, port = options.flood
        asyncio.run(flood_all(kind, int(clients), int(port)))
    versions = f"Python {platform.python_version()}, Twisted {twisted.__version__}"
    print(f"{platform.system()}, {os.cpu_count()} CPUs, {versions}; milliseconds\n")
    print(f"{'handler':<11}{'what the others do':<26}{'clients':>7}{'sessions':>10}{'median':>9}{'worst':>9}")

    def chosen(name: str, kind: str) -> bool:
        return not options.only or any(word in f"{name} {kind}" for word in options.only)

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        Path(folder, "watched.py").write_text(HANDLERS)
        next_host = stack.enter_context(smtpd("-csink", folder=folder))
        web = stack.enter_context(program(sys.executable, "-c", WEB, folder=folder))
        handlers = {
            "sink": ("-csink",),
            "debugging": ("-cdebugging",),
            "Message": ("-cwatched.Parsed",),
            "mailbox": ("-cmailbox", "mail"),
            "proxy": ("-cproxy", f"127.0.0.1:{next_host[0]}"),
            "webhook": ("-cwebhook", f"http://127.0.0.1:{web[0]}/"),
        }
        for name, words in handlers.items():
            if not any(chosen(name, kind) for kind in MESSAGES):
                continue
            with smtpd(*words, folder=folder) as ports:
                measure(name, "nothing", 0, ports, options.seconds)
            for kind in MESSAGES:
                for clients in (1, 5) if chosen(name, kind) else ():
                    with smtpd(*words, folder=folder) as ports:
                        measure(name, kind, clients, ports, options.seconds)
        certificate(folder)
        passwords = [sys.executable, "-m", "twisted_smtpd.auth", "users", "anne"]
        here = {**os.environ, "PYTHONPATH": HOME}
        subprocess.run(passwords, cwd=folder, input="secret\n", text=True, check=True, env=here)
        words = ("--auth-file=users", "--auth-without-tls", "--tlscert=cert.pem", "--tlskey=key.pem", "--no-requiretls")
        words += ("--listen-tls=127.0.0.1:0", "-cwatched.Refusing")
        for kind in FLOODS:
            for clients in (1, 40, 200, 500) if chosen("flood", kind) else ():
                with smtpd(*words, folder=folder) as ports:
                    measure("flood", kind, clients, ports, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
