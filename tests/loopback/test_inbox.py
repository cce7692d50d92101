"""The inbox as a user starts it."""

from __future__ import annotations

import json
import os
import re
import smtplib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.loopback.servers import LIMIT, MODULE, TWIST, ServerCase


class InboxTests(ServerCase):
    def begin(self, command: tuple[str, ...], *words: str) -> tuple[subprocess.Popen[str], str, int]:
        """Start an inbox: the program, the page's URL, the port for mail."""
        server = self.start(command, "-l", "127.0.0.1:0", "-c", "inbox", "--", "--http", "127.0.0.1:0", *words)
        assert server.stdout is not None
        if command == MODULE:
            # The page comes first.
            line = server.stdout.readline()
            self.assertIn("The inbox is at", line)
        else:
            line = self.read_until(server, "The inbox is at")
        url = re.search(r"http://\S+", line)
        assert url is not None
        port = int(self.read_until(server, "listens on").rpartition(":")[2])
        return server, url[0], port

    def messages(self, url: str) -> list[str]:
        with urlopen(f"{url}api/v1/messages", timeout=LIMIT) as answer:
            return [message["Subject"] for message in json.load(answer)["messages"]]

    def deliver(self, port: int, subject: str) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.sendmail("a@x.example", ["b@y.example"], f"Subject: {subject}\r\n\r\nhello\r\n")

    def test_a_temporary_store(self) -> None:
        self.environment["TMPDIR"] = str(self.folder)
        server, url, port = self.begin(MODULE)
        self.deliver(port, "Lunch")
        self.assertEqual(self.messages(url), ["Lunch"])
        [folder] = self.folder.glob("twisted-smtpd-*")
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertNotIn("Traceback", self.end(server))
        self.assertEqual((list(self.folder.glob("twisted-smtpd-*")), server.returncode), ([], -15))

    def test_twist(self) -> None:
        server, url, port = self.begin(TWIST, "--store", "mail.db")
        self.deliver(port, "Lunch")
        self.assertEqual(self.messages(url), ["Lunch"])
        self.assertNotIn("Traceback", self.end(server))

    def test_import_beside_a_server(self) -> None:
        (self.folder / "old.eml").write_bytes(b"Subject: Old\n\nhello\n")
        server, url, port = self.begin(MODULE, "--store", "mail.db")
        self.deliver(port, "New")
        words = ("inbox", "import", "--store", "mail.db", "old.eml")
        command = [*self.command_of(MODULE), *words]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=LIMIT, capture_output=True)
        self.deliver(port, "Newer")
        self.assertEqual(self.messages(url), ["Newer", "Old", "New"])
        self.end(server)

    def test_a_store_in_a_file_survives_a_kill(self) -> None:
        path = self.folder / "mail.db"
        server, _, port = self.begin(MODULE, "--store", str(path))
        for number in range(3):
            self.deliver(port, f"Number {number}")
        server.kill()
        server.wait(LIMIT)
        server, url, port = self.begin(MODULE, "--store", str(path))
        self.assertEqual(self.messages(url), ["Number 2", "Number 1", "Number 0"])
        self.end(server)
        # Closed in an orderly way, it is one file.
        self.assertEqual(sorted(file.name for file in self.folder.glob("mail.db*")), ["mail.db", "mail.db.lock"])

    def test_mail_over_http_waiting_and_failures(self) -> None:
        server, url, port = self.begin(MODULE, "--mailboxes", "listener", "--http-trust-programs")

        def ask(method: str, path: str, body: Any = None) -> Any:
            octets = None if body is None else json.dumps(body).encode()
            with urlopen(Request(f"{url}{path}", octets, method=method), timeout=LIMIT) as answer:
                return json.load(answer)

        sender = {"Email": "a@x.example"}
        ask("POST", "api/v1/send", {"From": sender, "To": [{"Email": "b@y.example"}], "Subject": "By HTTP"})
        with ThreadPoolExecutor(1) as threads, urlopen(f"{url}api/v1/events", timeout=LIMIT) as events:
            waiting = threads.submit(ask, "GET", "api/v1/wait?query=subject:SMTP&timeout=30")
            self.deliver(port, "By SMTP")
            self.assertEqual(waiting.result(LIMIT)["Subject"], "By SMTP")
            lines = [events.readline() for _ in range(5)]
            self.assertIn(b"event: new\n", lines)
            # What has no end is no reason to wait at the end.
            names = [mailbox["Name"] for mailbox in ask("GET", "api/v1/mailboxes")]
            self.assertEqual(names, [f"127.0.0.1:{port}", str(port), "http"])
            ask("POST", "api/v1/failures", {"where": "rcpt", "what": "451 4.7.1 Later", "times": 1})
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as refused:
                self.deliver(port, "Refused")
            self.assertEqual(refused.exception.recipients["b@y.example"], (451, b"4.7.1 Later"))
            self.assertNotIn("Traceback", self.end(server))
            self.assertEqual(events.read()[-1:], b"\n")

    def test_mistakes_are_one_line(self) -> None:
        Path(self.folder / "other.db").write_bytes(b"something else" * 100)
        for words, text in (
            (("--workers", "2", "-c", "inbox"), "not with an inbox"),
            (("-c", "inbox", "--", "--http", "0.0.0.0:0"), "--http-token"),
            (("-c", "inbox", "--", "--http", "127.0.0.1:0", "--store", "missing/mail.db"), "No such file"),
            (("-c", "inbox", "--", "--http", "127.0.0.1:0", "--store", "other.db"), "no SQLite database"),
        ):
            result = subprocess.run(
                [*self.command_of(MODULE), "-l", "127.0.0.1:0", *words],
                cwd=self.folder,
                env={**self.environment, "TMPDIR": os.devnull},
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
            self.assertNotEqual(result.returncode, 0, words)
            self.assertIn(text, result.stderr)
            self.assertNotIn("Traceback", result.stderr)

    def command_of(self, command: tuple[str, ...]) -> list[str]:
        return [sys.executable, *command]
