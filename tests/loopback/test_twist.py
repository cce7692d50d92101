"""``twist smtpd`` and its other names, as processes of their own."""

from __future__ import annotations

import mailbox
import os
import signal
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd

TWIST = ("-m", "twisted", "--log-format=text", "smtpd")
TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=", "smtpd")
MODULE = ("-m", "twisted_smtpd")
LIMIT = 60  # seconds, for a test that hangs

# Wherever the package is: installed, or in the folder the tests are run from.
HOME = str(Path(twisted_smtpd.__file__).parent.parent)


class ServerCase(SynchronousTestCase):
    """Tests that start servers, each in a folder of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        path = os.pathsep.join(filter(None, (HOME, os.environ.get("PYTHONPATH"))))
        self.environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def start(self, command: tuple[str, ...], *words: str) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [sys.executable, *command, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(self.end, server)
        return server

    def end(self, server: subprocess.Popen[str]) -> str:
        """Stop a server; what it printed since."""
        if server.poll() is None:
            server.terminate()
        output, _ = server.communicate(timeout=LIMIT) if not server.stdout.closed else ("", "")  # type: ignore[union-attr]
        return output

    def read_until(self, server: subprocess.Popen[str], text: str) -> str:
        seen = []
        assert server.stdout is not None
        for line in server.stdout:
            seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"{server.args} ended without {text!r}: {''.join(seen)}")

    def serve(self, command: tuple[str, ...], *words: str) -> tuple[subprocess.Popen[str], int]:
        """Start a server on a free port of the loopback."""
        server = self.start(command, "-l", "127.0.0.1:0", *words)
        line = self.read_until(server, " on 127.0.0.1:") if command != MODULE else self.read_until(server, '"places"')
        return server, int(line.partition("127.0.0.1:")[2].partition('"')[0])

    def send(self, port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\r\n\r\nIt works.\r\n")

    def run_out(self, command: tuple[str, ...], *words: str) -> tuple[int, str, str]:
        """Run a command that is to end by itself: its status, stdout and stderr."""
        ended = subprocess.run(
            [sys.executable, *command, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        return ended.returncode, ended.stdout, ended.stderr


class TwistTests(ServerCase):
    def test_prints_message_and_envelope_by_default(self) -> None:
        server, port = self.serve(TWIST)
        self.send(port)
        output = self.end(server)
        for text in ("anne@example.com", "bart@example.com", "Subject: Hello", "It works."):
            self.assertIn(text, output)

    def test_says_how_to_send_a_first_message(self) -> None:
        server, port = self.serve(TWIST)
        self.assertIn(f"swaks --server 127.0.0.1:{port} --to you@example.com", self.read_until(server, "To try it"))

    def test_every_name_of_the_command_serves(self) -> None:
        for number, command in enumerate((TWIST, TWISTD, MODULE)):
            server, port = self.serve(command, "-c", "mailbox", f"mail{number}")
            self.send(port)
            (message,) = mailbox.Maildir(self.folder / f"mail{number}", create=False)
            self.assertEqual(message["Subject"], "Hello")
            self.end(server)

    def test_handler_in_the_current_folder(self) -> None:
        (self.folder / "mine.py").write_text(
            "class Handler:\n"
            "    async def handle_DATA(self, server, session, envelope):\n"
            "        return '250 Taken by mine'\n"
        )
        _, port = self.serve(TWIST, "-c", "mine.Handler")
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.ehlo()
            client.mail("anne@example.com")
            client.rcpt("bart@example.com")
            self.assertEqual(client.data("Subject: Hello\r\n")[1], b"2.0.0 Taken by mine")

    def test_a_wrong_command_line_is_one_line_and_64(self) -> None:
        for command in (TWIST, TWISTD, MODULE):
            status, stdout, stderr = self.run_out(command, "--size=10X")
            self.assertEqual((status, stdout, stderr.count("\n")), (64, "", 1), stderr)
            self.assertIn("twist smtpd: --size: '10X'", stderr)

    def test_a_port_in_use_is_one_line_and_1(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            status, stdout, stderr = self.run_out(TWIST, "-l", where)
        self.assertEqual((status, stdout, stderr.count("\n")), (1, "", 1), stderr)
        self.assertTrue(stderr.startswith(f"twist smtpd: can't listen on {where}: "), stderr)

    def test_an_unknown_host_is_one_line_and_1(self) -> None:
        status, stdout, stderr = self.run_out(TWIST, "-l", "256.256.256.256:0")
        self.assertEqual((status, stdout, stderr.count("\n")), (1, "", 1), stderr)

    def test_a_message_in_progress_is_taken_in_before_the_end(self) -> None:
        server, port = self.serve(TWIST, "-c", "mailbox", "mail", "--grace=50")
        client = smtplib.SMTP("127.0.0.1", port, timeout=LIMIT)
        self.addCleanup(client.close)
        client.ehlo()
        client.mail("anne@example.com")
        client.rcpt("bart@example.com")
        self.assertEqual(client.docmd("DATA")[0], 354)
        client.send("Subject: Hello\r\n")
        server.send_signal(signal.SIGTERM)
        self.read_until(server, f"(TCP Port {port} Closed)")
        client.send("\r\nIt works.\r\n.\r\n")
        self.assertEqual(client.getreply()[0], 250)
        self.assertEqual(client.getreply()[0], 421)
        self.assertEqual(len(mailbox.Maildir(self.folder / "mail", create=False)), 1)
        server.communicate(timeout=LIMIT)

    def test_an_idle_client_hears_421_at_the_end(self) -> None:
        server, port = self.serve(TWIST, "-c", "sink")
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client, client.makefile("rb") as replies:
            self.assertEqual(replies.readline()[:4], b"220 ")
            server.terminate()
            self.assertEqual(replies.readline()[:4], b"421 ")
            self.assertEqual(replies.read(), b"")
