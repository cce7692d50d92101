"""Two servers whose limits are in one Redis, which is killed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from unittest import SkipTest

from tests.loopback.servers import LIMIT, MODULE, ServerCase
from tests.support.rabbitmq import free_port

CLIENT = "192.0.2.1"
HELLO = "EHLO client.example"
TRANSACTION = ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA", "hello\r\n.")


class SharedLimitsTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        program = shutil.which("redis-server")
        if program is None:
            if os.environ.get("CI") == "true":
                raise RuntimeError("redis-server is not installed")
            raise SkipTest("redis-server is not installed")
        self.port = free_port()
        words = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.redis = subprocess.Popen([*words, "--requirepass", "s3cret"], stdout=subprocess.PIPE)
        assert self.redis.stdout is not None
        next(line for line in self.redis.stdout if b"Ready to accept" in line)
        self.addCleanup(self.redis.wait)
        self.addCleanup(self.redis.stdout.close)
        self.addCleanup(self.redis.kill)
        (self.folder / "url").write_text(f"redis://:s3cret@127.0.0.1:{self.port}/1\n")

    def serve_with(self, *limits: str) -> int:
        _, port = self.serve(
            MODULE, "--proxy-from", "127.0.0.1", "-c", "chain", "--", "limits", "file:url", *limits, "+", "sink"
        )
        return port

    def connect(self, port: int, client: str = CLIENT) -> tuple[socket.socket, str]:
        """A client as a balancer names it, and the first line that it hears."""
        connection = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.addCleanup(connection.close)
        connection.sendall(f"PROXY TCP4 {client} 192.0.2.25 4321 25\r\n".encode())
        return connection, self.line(connection)

    def line(self, connection: socket.socket) -> str:
        said = b""
        while not said.endswith(b"\n"):
            octet = connection.recv(1)
            if not octet:
                break
            said += octet
        return said.decode()

    def say(self, connection: socket.socket, *lines: str) -> list[str]:
        """The last line of the reply to each."""
        replies = []
        for line in lines:
            connection.sendall(f"{line}\r\n".encode())
            reply = self.line(connection)
            while reply[3:4] == "-":
                reply = self.line(connection)
            replies.append(reply)
        return replies

    def test_what_one_server_counts_the_other_knows(self) -> None:
        one, two = (self.serve_with("--connections=2", "--messages=2") for _ in range(2))
        first, greeting = self.connect(one)
        self.assertTrue(greeting.startswith("220 "), greeting)
        second, greeting = self.connect(two)
        self.assertTrue(greeting.startswith("220 "), greeting)
        for port in (one, two):
            self.assertTrue(self.connect(port)[1].startswith("421 Too many connections"))
        self.assertTrue(self.connect(one, "192.0.2.2")[1].startswith("220 "))
        self.assertEqual(self.say(first, HELLO, *TRANSACTION)[-1], "250 2.0.0 OK\r\n")
        self.assertEqual(self.say(second, HELLO, *TRANSACTION)[-1], "250 2.0.0 OK\r\n")
        self.assertTrue(self.say(first, TRANSACTION[0])[0].startswith("452 4.7.0 Too many messages"))
        # The last reply: by then the server has heard of the end.
        self.say(second, "QUIT")
        second.close()

    def test_without_redis_clients_are_served(self) -> None:
        port = self.serve_with("--connections=1", "--messages=1")
        first, _ = self.connect(port)
        self.assertEqual(self.say(first, HELLO, *TRANSACTION)[-1], "250 2.0.0 OK\r\n")
        self.redis.kill()
        self.redis.wait()
        second, greeting = self.connect(port)
        self.assertTrue(greeting.startswith("220 "), greeting)
        self.assertEqual(self.say(second, HELLO, *TRANSACTION, *TRANSACTION)[-1], "250 2.0.0 OK\r\n")
