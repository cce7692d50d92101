"""``-c queue`` as a user starts it, with ``twisted-smtpd queue`` beside it; and the scripts, with less to do."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.loopback.servers import LIMIT, MODULE, ServerCase

SCRIPTS = Path(__file__).parents[2] / "scripts"


class QueueTests(ServerCase):
    def queue(self, verb: str, *words: str) -> str:
        status, out, err = self.run_out((*MODULE, "queue"), verb, "spool", *words)
        self.assertEqual((status, err), (0, ""))
        return out

    def test_mail_waits_for_the_next_host_over_a_restart_and_is_delivered(self) -> None:
        next_host, port = self.serve(MODULE, "-c", "sink")
        self.end(next_host)
        words = ("-c", "queue", "spool", "+", "proxy", f"127.0.0.1:{port}")
        server, client_port = self.serve(MODULE, *words)
        self.send(client_port)
        id = re.search(r"queued as ([0-9A-F]+)", self.read_until(server, "message accepted"))
        assert id is not None
        self.read_until(server, f"{id[1]}: deferred")
        self.assertIn("4.4.1", self.queue("list"))
        self.end(server)
        self.assertEqual(self.queue("hold", id[1]), "1 message held\n")
        self.start(MODULE, "-l", f"127.0.0.1:{port}", "-c", "sink")
        server, _ = self.serve(MODULE, *words)
        self.assertEqual(self.queue("retry", "--held"), "1 message due\n")
        self.read_until(server, f"{id[1]}: delivered")
        self.assertEqual(self.queue("list"), "0 messages, 0 B\n")

    def test_a_second_server_on_the_folder_is_an_error_of_one_line(self) -> None:
        words = ("-c", "queue", "spool", "+", "sink")
        server, _ = self.serve(MODULE, *words)
        status, _, err = self.run_out(MODULE, "-l", "127.0.0.1:0", *words)
        self.assertEqual(status, 1)
        self.assertIn(f"spool/queue.db is in use by process {server.pid}", err)
        self.assertNotIn("Traceback", err)

    def test_metrics(self) -> None:
        words = ("--metrics", "127.0.0.1:0", "-c", "queue", "spool", "+", "sink")
        server = self.start(MODULE, "-l", "127.0.0.1:0", *words)
        lines = "".join([*self.lines_until(server, "Metrics are at"), self.read_until(server, "To try it")])
        place = re.search(r"http://[0-9.:]+/metrics", lines)
        port = re.search(r"--server 127\.0\.0\.1:([0-9]+)", lines)
        assert place is not None and port is not None, lines
        self.send(int(port[1]))
        self.read_until(server, ": delivered")
        page = urllib.request.urlopen(place[0], timeout=LIMIT).read().decode()
        self.assertIn('smtpd_queue_recipients_total{outcome="delivered"} 1.0', page)
        self.assertIn("smtpd_queue_messages ", page)


class ProofTests(ServerCase):
    def prove(self, name: str, *words: str) -> None:
        script = SCRIPTS / name
        if not script.exists():
            raise SkipTest("the scripts are not installed")
        done = subprocess.run(
            [sys.executable, str(script), *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_queue_that_is_killed_loses_nothing(self) -> None:
        self.prove("queue_kill9.py", "rounds", "--rounds=2", "--clients=3")

    def test_damaged_messages_are_held_and_the_others_delivered(self) -> None:
        self.prove("queue_trouble.py", "corrupted")
