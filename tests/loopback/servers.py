"""Starts servers as processes of their own, for the tests beside it."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import sys
import threading
from collections.abc import Collection
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd

TWIST = ("-m", "twisted", "--log-format=text", "smtpd")
TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=", "smtpd")
MODULE = ("-m", "twisted_smtpd")
LIMIT = 60  # seconds, for a test that hangs

# Wherever the package is: installed, or in the folder the tests are run from.
HOME = str(Path(twisted_smtpd.__file__).parent.parent)


def hear_ctrl_c(test: SynchronousTestCase) -> None:
    """Have the programs that a test starts hear SIGINT, though a shell has its background processes ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A child process inherits what is ignored, and nothing else.
        test.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))


def end_in_time(test: SynchronousTestCase, program: subprocess.Popen[str]) -> None:
    """Kill a program that is there far too long: a test that waits for a line of it would wait forever."""
    timer = threading.Timer(3 * LIMIT, program.kill)
    timer.daemon = True
    timer.start()
    test.addCleanup(timer.cancel)


class ServerCase(SynchronousTestCase):
    """Tests that start servers, each in a folder of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        path = os.pathsep.join(filter(None, (HOME, os.environ.get("PYTHONPATH"))))
        self.environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def start(self, command: tuple[str, ...], *words: str, pass_fds: Collection[int] = ()) -> subprocess.Popen[str]:
        hear_ctrl_c(self)
        server = subprocess.Popen(
            [sys.executable, *command, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=pass_fds,
            # Without a terminal, as a service manager starts it.
            start_new_session=True,
        )
        self.addCleanup(self.end, server)
        end_in_time(self, server)
        return server

    def end(self, server: subprocess.Popen[str]) -> str:
        """Stop a server; what it printed since."""
        if server.poll() is None:
            server.terminate()
        output, _ = server.communicate(timeout=LIMIT) if not server.stdout.closed else ("", "")  # type: ignore[union-attr]
        return output

    def read_until(self, server: subprocess.Popen[str], text: str) -> str:
        """The next line that a server prints with this text in it."""
        return self.lines_until(server, text)[-1]

    def lines_until(self, server: subprocess.Popen[str], text: str) -> list[str]:
        """What a server prints until a line has this text in it."""
        seen = []
        assert server.stdout is not None
        for line in server.stdout:
            seen.append(line)
            if text in line:
                return seen
        raise AssertionError(f"{server.args} ended without {text!r}: {''.join(seen)}")

    def serve(self, command: tuple[str, ...], *words: str) -> tuple[subprocess.Popen[str], int]:
        """Start a server on a free port of the loopback."""
        server = self.start(command, "-l", "127.0.0.1:0", *words)
        line = self.read_until(server, " on 127.0.0.1:")
        return server, int(re.split(r"\D", line.partition("127.0.0.1:")[2])[0])

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
