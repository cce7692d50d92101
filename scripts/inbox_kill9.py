"""Kills an inbox with SIGKILL while it takes mail, again and again: what was answered 250 has to be there afterwards.

    python scripts/inbox_kill9.py [--rounds 20]

After each kill the server is started again on the same file.  At the end SQLite and the index check themselves, and the
numbers that the page shows are compared with the messages.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import shutil
import smtplib
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CLIENTS = 8


def start(store: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "twisted_smtpd", "-l", "127.0.0.1:0", "-c", "inbox", "--"]
    options = ["--http", "127.0.0.1:0", "--store", str(store), "--max-messages", "0", "--mailboxes", "recipient"]
    server = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"listens on 127.0.0.1:(\d+)", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return server, int(found[1])
    sys.exit("the server has not started")


def send(port: int, name: str, taken: list[str]) -> None:
    """Send messages, and note those that were answered 250, until the server is gone."""
    number = 0
    with contextlib.suppress(OSError, smtplib.SMTPException):
        while True:
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                for _ in range(random.randint(1, 5)):
                    number += 1
                    subject = f"{name}-{number}"
                    body = f"{'x' * 78}\r\n" * random.choice((1, 50, 2500))
                    client.sendmail(
                        "a@x.example", [f"u{number % 5}@y.example"], f"Subject: {subject}\r\n\r\n{body}\r\n"
                    )
                    taken.append(subject)


def there(store: Path) -> list[str]:
    """The subjects in the file."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT content FROM contents").fetchall()
    connection.close()
    return [content.split(b"\r\n", 1)[0].decode().partition(": ")[2] for (content,) in rows]


def check(store: Path) -> None:
    """SQLite's own checks, and the numbers."""
    connection = sqlite3.connect(store)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    [(total,)] = connection.execute("SELECT total FROM totals").fetchall()
    [(messages,)] = connection.execute("SELECT count(*) FROM messages").fetchall()
    [(mailed,)] = connection.execute("SELECT sum(total) FROM counts").fetchall()
    assert total == messages == mailed, (total, messages, mailed)
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    folder = Path(tempfile.mkdtemp())
    store, taken = folder / "mail.db", []
    for number in range(rounds):
        server, port = start(store)
        clients = [
            threading.Thread(target=send, args=(port, f"r{number}c{client}", taken)) for client in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        time.sleep(random.uniform(0.1, 1.5))
        server.kill()
        server.wait()
        for client in clients:
            client.join()
        found = there(store)
        missing = set(taken) - set(found)
        print(f"killed {number + 1} times: {len(taken):,} answered 250, {len(found):,} there, {len(missing)} missing")
        assert not missing, sorted(missing)[:10]
        assert len(found) == len(set(found)), sorted(found)
    server, _ = start(store)
    server.terminate()
    server.wait()
    check(store)
    print("the file, the index and the numbers are in order")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
