"""``twist smtpd --workers``, as processes of their own."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import smtplib
import socket
import subprocess
import urllib.request
from typing import Any

from tests.loopback.servers import LIMIT, MODULE, TWIST, TWISTD, ServerCase

# Says in its answer which process took the message.
HANDLER = """
import os
class Handler:
    async def handle_DATA(self, server, session, envelope):
        return f"250 {os.getpid()}"
"""


# As systemd starts a service: the socket is descriptor 3, and variables say so to this one process.
SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="smtp")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class WorkersTests(ServerCase):
    def setUp(self) -> None:
        if not hasattr(os, "pidfd_open"):
            self.skipTest("no way to wait for a process that is not a child")
        super().setUp()
        (self.folder / "mine.py").write_text(HANDLER)

    def serve_two(self, *words: str, command: tuple[str, ...] = TWIST) -> subprocess.Popen[str]:
        """Start two workers on a free port; return when both serve."""
        places = ("-l", "127.0.0.1:0", "--metrics=127.0.0.1:0")
        self.server = server = self.start(command, "--workers=2", "-c", "mine.Handler", *places, *words)
        self.page = self.said(server, r"Metrics are at (http:[^\s\"]+)")
        self.port = int(self.said(server, r"listens on 127\.0\.0\.1:([0-9]+)"))
        self.until_up(2)
        return server

    def said(self, server: subprocess.Popen[str], pattern: str) -> str:
        """What a line of the log says."""
        found = re.search(pattern, self.read_until(server, pattern.split("(")[0].split(" 1")[0]))
        assert found is not None
        return found[1]

    def until_up(self, count: int) -> str:
        """Read the metrics until so many workers answer; the page itself waits for them, so this is no busy loop."""
        for _ in range(2000):
            with urllib.request.urlopen(self.page, timeout=LIMIT) as page:
                text: str = page.read().decode()
            if len(re.findall(r"^smtpd_worker_up\{.*\} 1(\.0)?$", text, re.MULTILINE)) == count:
                return text
            select.select([], [], [], 0.01)
        raise AssertionError(text)

    def until_refused(self) -> None:
        """Wait until nobody listens; the ports are closed just after that is logged."""
        for _ in range(2000):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT).close()
            except ConnectionRefusedError:
                return
            select.select([], [], [], 0.01)
        raise AssertionError("somebody still listens")

    def client(self) -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", self.port, timeout=LIMIT)
        self.addCleanup(client.close)
        client.ehlo()
        return client

    def deliver(self, client: Any) -> int:
        """Send a message; the process that took it."""
        client.mail("anne@example.com")
        client.rcpt("bart@example.com")
        code, text = client.data("Subject: Hello\r\n\r\nIt works.\r\n")
        self.assertEqual(code, 250, text)
        return int(text.split()[-1])

    def all_workers(self) -> dict[int, smtplib.SMTP]:
        """A connection to each worker."""
        found: dict[int, smtplib.SMTP] = {}
        for _ in range(200):
            client = self.client()
            found.setdefault(self.deliver(client), client)
            if len(found) == 2:
                return found
        raise AssertionError("all connections went to one worker")

    def await_end(self, pid: int) -> None:
        """Wait until a process that is not this one's child has ended."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        ended, _, _ = select.select([descriptor], [], [], LIMIT)
        os.close(descriptor)
        self.assertTrue(ended, f"{pid} lives")

    def test_the_port_is_shared_and_the_page_knows_all(self) -> None:
        self.serve_two()
        self.assertEqual(len(self.all_workers()), 2)
        page = self.until_up(2)
        for number in (1, 2):
            (accepted,) = re.findall(
                rf'^smtpd_messages_total{{verdict="accepted",worker="{number}"}} ([0-9.]+)$', page, re.M
            )
            self.assertGreaterEqual(float(accepted), 1)

    def test_a_dead_worker_is_replaced_and_takes_no_other_with_it(self) -> None:
        self.serve_two()
        (dead, _), (alive, client) = self.all_workers().items()
        os.kill(dead, signal.SIGKILL)
        self.await_end(dead)
        # The port still answers, before and after there is another one.
        self.assertEqual(self.deliver(self.client()), alive)
        self.assertEqual(self.deliver(client), alive)
        self.assertIn("_restarts_total", self.until_up(2))
        self.assertNotIn(dead, self.all_workers())

    def test_a_message_in_progress_is_taken_in_before_the_end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.serve_two("--grace=50")
            clients = self.all_workers()
            for client in clients.values():
                client.mail("anne@example.com")
                client.rcpt("bart@example.com")
                self.assertEqual(client.docmd("DATA")[0], 354)
            server.send_signal(number)
            for _ in range(3):
                self.read_until(server, f"(TCP Port {self.port} Closed)")
            self.until_refused()
            for pid, client in clients.items():
                client.send("Subject: Hello\r\n\r\nIt works.\r\n.\r\n")
                self.assertEqual(client.getreply(), (250, b"2.0.0 %d" % pid))
                self.assertEqual(client.getreply()[0], 421)
            server.communicate(timeout=LIMIT)
            self.assertEqual(server.returncode, -number)
            for pid in clients:
                self.await_end(pid)

    def test_workers_end_when_their_parent_is_killed(self) -> None:
        server = self.serve_two()
        clients = self.all_workers()
        server.kill()
        for pid, client in clients.items():
            self.assertEqual(client.getreply()[0], 421)
            self.await_end(pid)

    def test_workers_survive_a_hangup(self) -> None:
        server = self.serve_two()
        before = self.all_workers()
        server.send_signal(signal.SIGHUP)
        for pid, client in before.items():
            self.assertEqual(self.deliver(client), pid)

    def test_a_unix_socket(self) -> None:
        server = self.serve_two("-l", "unix:s")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            # The whole path may be longer than a socket address has room for.
            client.connect(os.path.relpath(self.folder / "s"))
            self.assertEqual(client.recv(4), b"220 ")
        self.end(server)
        self.assertFalse((self.folder / "s").exists())

    def test_a_socket_from_systemd(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as bound:
            self.port = bound.getsockname()[1]
            command = ("-c", SYSTEMD, str(bound.fileno()), *TWIST)
            words = ("--workers=2", "-c", "mine.Handler", "-l", "systemd:domain=INET:name=smtp")
            server = self.start(command, *words, pass_fds=[bound.fileno()])
            self.read_until(server, "2 workers share")
        self.all_workers()

    def test_the_same_reactor_and_twistd(self) -> None:
        self.serve_two(command=("-m", "twisted", "--reactor=asyncio", "--log-format=text", "smtpd"))
        self.all_workers()
        self.serve_two(command=TWISTD)
        self.all_workers()

    def test_each_line_is_in_the_form_and_of_the_level_that_the_command_line_says(self) -> None:
        self.serve_two("--log-format=json", "--trace", command=MODULE)
        workers = self.all_workers()
        for client in workers.values():
            client.docmd("NOOP", "x" * 400)
            client.close()
        events = [json.loads(line) for line in self.end(self.server).splitlines()]
        sessions = {event["session"].partition("-")[0] for event in events if event.get("line", "").startswith("NOOP")}
        self.assertEqual(len(sessions), 2)
        for session in sessions:
            times = [event["time"] for event in events if event.get("session", "").startswith(session)]
            self.assertEqual(times, sorted(times))

    def test_the_last_words_of_a_worker_are_read(self) -> None:
        (self.folder / "mine.py").write_text(HANDLER.replace("return", "os.write(2, b'it broke\\n'); os._exit(3) ;"))
        server = self.serve_two("--log-format=json", command=MODULE)
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            self.deliver(self.client())
        self.assertEqual(self.read_until(server, "it broke"), "it broke\n")
        self.assertIn("ended with status 3", json.loads(self.read_until(server, "another one starts"))["message"])

    def test_what_can_not_start_ends_with_its_status_and_one_line(self) -> None:
        for words, status in ((("-c", "nonsense"), 64), (("-c", "sink", "--auth-required"), 64)):
            ended, _, stderr = self.run_out(TWIST, "--workers=3", "-l", "127.0.0.1:0", *words)
            self.assertEqual((ended, stderr.count("\n")), (status, 1), stderr)
            self.assertTrue(stderr.startswith("twist smtpd: "), stderr)

    def test_a_port_in_use_is_one_line_and_1(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            server = self.start(TWIST, "--workers=2", "-c", "sink", "-l", where)
            output, _ = server.communicate(timeout=LIMIT)
        self.assertEqual((server.returncode, output.count("\n")), (1, 1), output)
        self.assertTrue(output.startswith(f"twist smtpd: can't listen on {where}: "), output)
