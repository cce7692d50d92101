"""A server process that is told to stop ends, whatever its hooks do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import Any

from tests.loopback.servers import LIMIT, MODULE, TWIST, ServerCase, end_in_time

HANDLERS = """\
import threading
from twisted.internet.threads import deferToThread

class Hangs:
    async def handle_DATA(self, server, session, envelope):
        print("at work", flush=True)
        await deferToThread(threading.Event().wait)

class Blocks:
    async def handle_DATA(self, server, session, envelope):
        print("at work", flush=True)
        threading.Event().wait()
"""

# Makes stdin the terminal of a new session, as a window does, and runs a program there.
ON_TERMINAL = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, sys.argv[1:])"
)


class LeavingTests(ServerCase):
    def at_work(self, handler: str, *words: str) -> tuple[subprocess.Popen[str], Any]:
        """A server whose hook never ends, and what its client hears."""
        (self.folder / "hanging.py").write_text(HANDLERS)
        server, port = self.serve(TWIST, "-c", f"hanging.{handler}", *words)
        client = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        self.addCleanup(client.close)
        replies = client.makefile("rb")
        self.addCleanup(replies.close)
        client.sendall(b"HELO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n\r\n.\r\n")
        self.read_until(server, "at work")
        return server, replies

    def test_a_hook_that_hangs_in_a_thread_does_not_keep_the_process(self) -> None:
        """It was there 40 seconds after SIGTERM with --grace 2, and for ever."""
        for words in ((), ("--workers=2",)):
            server, replies = self.at_work("Hangs", "--grace=0", *words)
            server.terminate()
            output, _ = server.communicate(timeout=LIMIT)
            self.assertEqual(server.returncode, -signal.SIGTERM, output)
            self.assertEqual(replies.read().splitlines()[-1], b"421 4.3.2 Shutting down, try again later")

    def test_a_second_signal_ends_the_grace(self) -> None:
        for words in ((), ("--workers=2",)):
            server, replies = self.at_work("Hangs", "--grace=3600", *words)
            server.terminate()
            self.read_until(server, "Closed)")
            server.terminate()
            server.communicate(timeout=LIMIT)
            self.assertEqual(replies.read().splitlines()[-1], b"421 4.3.2 Shutting down, try again later")

    def test_a_third_signal_ends_a_process_whose_reactor_is_blocked(self) -> None:
        for words in ((), ("--workers=2",)):
            server, replies = self.at_work("Blocks", "--grace=3600", *words)
            while server.poll() is None:
                server.terminate()
                try:
                    server.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
            self.assertEqual(server.returncode, -signal.SIGTERM)
            # Of the workers, too, none is left that could answer.
            self.assertNotIn(b"250 OK", replies.read())

    def test_a_server_without_certificates_survives_a_hangup(self) -> None:
        server, port = self.serve(TWIST, "-c", "sink")
        server.send_signal(signal.SIGHUP)
        self.read_until(server, "SIGHUP: there is nothing to reload")
        self.send(port)

    def test_on_a_terminal_a_hangup_ends_it(self) -> None:
        """The window is closed, or it is sent the signal: what is in progress has its grace, and the port is free."""
        (self.folder / "hanging.py").write_text(HANDLERS)
        cases = ((MODULE, True), (MODULE, False), (TWIST, True), ((*MODULE, "--workers=1"), True))
        for command, by_closing in cases:
            master, slave = os.openpty()
            words = (*command, "-l", "127.0.0.1:0", "-c", "hanging.Hangs", "--grace=0")
            server = subprocess.Popen(
                [sys.executable, "-c", ON_TERMINAL, sys.executable, *words],
                cwd=self.folder,
                env=self.environment,
                stdin=slave,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.addCleanup(self.end, server)
            end_in_time(self, server)
            os.close(slave)
            line = self.read_until(server, " listens on 127.0.0.1:")
            port = int(line.rpartition(":")[2])
            with (
                socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client,
                client.makefile("rb") as replies,
            ):
                client.sendall(b"HELO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n\r\n.\r\n")
                self.read_until(server, "at work")
                if by_closing:
                    os.close(master)
                else:
                    server.send_signal(signal.SIGHUP)
                output, _ = server.communicate(timeout=LIMIT)
                self.assertEqual(server.returncode, -signal.SIGTERM, output)
                self.assertIn("SIGHUP: ending, since it was started on a terminal", output)
                self.assertEqual(replies.read().splitlines()[-1], b"421 4.3.2 Shutting down, try again later")
            if not by_closing:
                os.close(master)
