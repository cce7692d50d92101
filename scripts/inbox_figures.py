"""What an inbox with 100,000 messages costs its server: lists, searches, arrivals, memory; and how fast it takes mail.

    python scripts/inbox_figures.py [--messages 100000] [--folder FOLDER]

The server is a process of its own.  Its CPU time is what the kernel says (all threads), divided by the number of
requests.  FOLDER keeps the store for the next run.  Receiving is measured with smtp-source, of Postfix, on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import smtplib
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

TICKS = os.sysconf("SC_CLK_TCK")
SEARCHES = {
    "a word that all messages have": "message",
    "a word that 1 in 100 has": "needle",
    "a part of a word": "eedl",
    "a sender": "from:person77@",
    "a subject and unread": 'subject:"number 777" is:unread',
    "two letters": "zq",
    "with attachments, not of one person": "has:attachment -from:person1@",
    "what no message has": "xylophone",
}


def content(number: int, words: list[str], chance: random.Random) -> bytes:
    """A message of some 3 KB, as programs send them; one in ten has an attachment."""
    lines = [" ".join(chance.choices(words, k=12)) for _ in range(30)]
    if number % 100 == 0:
        lines[3] += " needle"
    text = "\r\n".join(lines)
    who = number % 1000
    head = (
        f"From: Person {who} <person{who}@example.com>\r\nTo: Anne <anne{number % 50}@example.org>\r\n"
        f"Subject: Message number {number}\r\nMessage-ID: <{number}@example.com>\r\nMIME-Version: 1.0\r\n"
    )
    if number % 10:
        return f"{head}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n".encode()
    return (
        f'{head}Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\n{text}\r\n--b\r\n'
        'Content-Type: application/pdf; name="bill.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        f"{'QUJD' * 200}\r\n--b--\r\n"
    ).encode()


async def fill(path: str, number: int) -> None:
    """Make a store with so many messages."""
    from twisted_smtpd.session import Recipient
    from twisted_smtpd.store import Matching, NewMessage, SessionFacts
    from twisted_smtpd.store.sqlite import SQLiteStore

    chance = random.Random(1)
    words = ["".join(chance.choices("etaoinshrdlucmfw", k=chance.randint(2, 9))) for _ in range(20_000)]
    store = SQLiteStore(path)
    there = await store.count(Matching())
    began = datetime.now(timezone.utc) - timedelta(days=30)
    for first in range(there, number, 500):
        adding = []
        for n in range(first, min(first + 500, number)):
            facts = SessionFacts(f"s{n}", ("192.0.2.1", 25), "client.example")
            received = began + timedelta(seconds=n)
            message = NewMessage(
                content(n, words, chance),
                f"person{n % 1000}@example.com",
                (),
                (Recipient(f"anne{n % 50}@example.org"),),
                facts,
                received=received,
                mailboxes=(f"anne{n % 50}",),
            )
            adding.append(store.add(message))
        await gatherResults(adding)
        if first % 10_000 == 0:
            print(f"  {first:,} messages", file=sys.stderr, flush=True)
    await store.close()


class Server:
    """The server, and what the kernel says of it."""

    def __init__(self, folder: str, *words: str, core: int | None = None) -> None:
        command = [sys.executable, "-m", "twisted_smtpd", "--log-level", "info", "-l", "127.0.0.1:0", *words]
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.url = self.port = ""
        for line in self.process.stderr:
            if found := re.search(r"The inbox is at (\S+)", line):
                self.url = found[1]
            if found := re.search(r"listens on 127.0.0.1:(\d+)", line):
                self.port = found[1]
                break
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def cpu(self) -> float:
        """Seconds of CPU."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """MiB in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]

    def get(self, path: str) -> bytes:
        with urlopen(f"{self.url}{path}", timeout=60) as answer:
            return answer.read()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.drain.wait(60)


def measure(server: Server, what: str, call: object, times: int = 20) -> None:
    """Print the CPU time of a call."""
    call()  # type: ignore[operator]
    before, began = server.cpu(), time.perf_counter()
    for _ in range(times):
        call()  # type: ignore[operator]
    took, cpu = time.perf_counter() - began, server.cpu() - before
    print(f"  {what:<50} {cpu / times * 1000:7.1f} ms CPU {took / times * 1000:8.1f} ms", flush=True)


def large_store(path: str, number: int) -> None:
    print(f"filling a store with {number:,} messages", flush=True)
    began = time.perf_counter()
    with contextlib.suppress(SystemExit):
        react(lambda reactor: Deferred.fromCoroutine(fill(path, number)))
    size = os.path.getsize(path) / 2**20
    print(f"  {time.perf_counter() - began:.0f} s, {size:,.0f} MiB", flush=True)


def requests(path: str) -> None:
    """What lists, searches and arrivals cost."""
    options = ("-c", "inbox", "--", "--http", "127.0.0.1:0", "--store", path, "--max-messages", "0")
    server = Server(os.path.dirname(path), *options)
    print(f"a server with this store ({server.memory()} MiB in memory)")
    measure(server, "the list: 50 newest", lambda: server.get("api/v1/messages?limit=50"))
    measure(server, "the list: 50 from the 50,000th on", lambda: server.get("api/v1/messages?limit=50&start=50000"))
    for what, words in SEARCHES.items():
        query = f"api/v1/search?limit=50&query={quote(words)}"
        measure(server, f"search: {what}", lambda query=query: server.get(query))
    measure(server, "the page: list", lambda: server.get(""))
    measure(server, "the page: search of a word that 1 in 100 has", lambda: server.get("?q=needle"))

    client = smtplib.SMTP("127.0.0.1", int(server.port))
    measure(server, "a message arrives", lambda: client.sendmail("a@x.example", ["b@y.example"], LETTER), 200)
    client.quit()
    print(f"  {server.memory()} MiB in memory after all this")
    server.end()


LETTER = "Subject: A letter\r\n\r\n" + ("Twenty words or so in a line that says nothing much at all, really.\r\n" * 58)


def receiving(folder: str, number: int = 10_000) -> None:
    """How many messages a second are received and kept, on one core."""
    if shutil.which("smtp-source") is None:
        print("smtp-source is not there: receiving is not measured")
        return
    for what, words in (
        ("a temporary store of 500 messages", ()),
        ("a store in a file", ("--store", os.path.join(folder, "receiving.db"), "--max-messages", "0")),
    ):
        for connections in ("a connection kept", "a connection each"):
            for file in Path(folder).glob("receiving.db*"):
                file.unlink()
            server = Server(folder, "-c", "inbox", "--", "--http", "127.0.0.1:0", *words, core=0)
            before, began = server.cpu(), time.perf_counter()
            kept = ["-d"] if connections == "a connection kept" else []
            source = ["taskset", "-c", "1", "smtp-source", *kept, "-s", "20", "-l", "4096", "-m", str(number)]
            subprocess.run([*source, "-f", "a@x.example", "-t", "b@y.example", f"127.0.0.1:{server.port}"], check=True)
            took = time.perf_counter() - began
            cpu = server.cpu() - before
            print(
                f"  {what}, {connections}: {number / took:,.0f} a second, {cpu / number * 1e6:.0f} µs CPU each, "
                f"{server.memory()} MiB",
                flush=True,
            )
            server.end()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--folder")
    parser.add_argument("--only", choices=("fill", "requests", "receiving"))
    options = parser.parse_args()
    folder = os.path.abspath(options.folder or tempfile.mkdtemp())
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "large.db")
    if options.only in (None, "fill"):
        large_store(path, options.messages)
    if options.only in (None, "requests"):
        requests(path)
    if options.only in (None, "receiving"):
        print("receiving messages of 4 KB, 20 connections at a time")
        receiving(folder)
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
