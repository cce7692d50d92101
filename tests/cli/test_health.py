"""Tests for :mod:`twisted_smtpd.cli.health`, against servers of the standard library on a free port."""

from __future__ import annotations

import io
import socket
import threading
from contextlib import closing, redirect_stderr

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.__main__ import main

# Seconds for each step; a server that stays silent has a shorter one.
TIMEOUT = "30"


class HealthTests(SynchronousTestCase):
    def ask(self, where: str, timeout: str = TIMEOUT) -> str:
        """The error line; empty if all is well."""
        err = io.StringIO()
        with redirect_stderr(err):
            try:
                main(["healthcheck", where, "--timeout", timeout])
            except SystemExit as error:
                return str(error.code)
        return ""

    def answering(self, *answers: bytes) -> str:
        """A server that says the first to a client, and the next after each line."""
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with closing(listener), closing(listener.accept()[0]) as connection, connection.makefile("rwb") as stream:
                for answer in answers:
                    stream.write(answer)
                    stream.flush()
                    stream.readline()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 30)
        return f"127.0.0.1:{listener.getsockname()[1]}"

    def test_a_server_that_serves(self) -> None:
        self.assertEqual(self.ask(self.answering(b"220 mx.example\r\n", b"221 Bye\r\n")), "")

    def test_a_server_that_turns_clients_away(self) -> None:
        self.assertIn("421", self.ask(self.answering(b"421 Too many connections\r\n", b"221 Bye\r\n")))

    def test_what_is_no_smtp_server(self) -> None:
        error = self.ask(self.answering(b"SSH-2.0-x\r\n"))
        self.assertTrue(error.startswith("twisted-smtpd healthcheck: 127.0.0.1:"), error)
        self.assertNotIn("\n", error)

    def test_a_page(self) -> None:
        head = b"HTTP/1.0 %b\r\nContent-Length: 3\r\n\r\nyes"
        self.assertEqual(self.ask(f"http://{self.answering(head % b'200 OK')}/readyz"), "")
        self.assertIn("503 yes", self.ask(f"http://{self.answering(head % b'503 No')}/readyz"))

    def test_nothing_is_there(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            port = listener.getsockname()[1]
        for where in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/readyz"):
            self.assertIn("refused", self.ask(where))

    def test_one_that_says_nothing(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            self.assertIn("timed out", self.ask(f"127.0.0.1:{listener.getsockname()[1]}", "0.01"))

    def test_what_is_no_place(self) -> None:
        for where in ("localhost", "localhost:smtp", ":", "ftp://localhost/"):
            self.assertIn("neither HOST:PORT nor a URL", self.ask(where))
