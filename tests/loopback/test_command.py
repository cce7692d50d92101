"""``twisted-smtpd``, a command of its own right: several listeners, SIGHUP, workers, nothing left behind."""

from __future__ import annotations

import mailbox
import os
import re
import shlex
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import skipUnless

from tests.loopback.servers import HOME, LIMIT, MODULE, ServerCase, end_in_time
from tests.support.tls_helpers import issue
from twisted_smtpd.auth.passwords import set_password

EXAMPLE = Path(__file__).parents[2] / "examples" / "listeners.toml"

FILTER = """
from twisted_smtpd.handlers import PASS
class OurUsers:
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        return PASS if address.endswith("@example.com") else "550 5.1.1 not ours"
"""

SUBJECT = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nx\r\n"

# Prints what was imported, when the server has stopped.
IMPORTS = """
import atexit, sys
from twisted_smtpd.__main__ import main
atexit.register(lambda: print("plugins:", [n for n in sys.modules if n.startswith("twisted.plugins.")], flush=True))
main()
"""


class ExampleTests(ServerCase):
    def setUp(self) -> None:
        if not EXAMPLE.is_file():
            self.skipTest("the examples are not installed")
        super().setUp()
        (self.folder / "filters.py").write_text(FILTER)
        issued = issue("mx.example")
        (self.folder / "fullchain.pem").write_bytes(issued.pem + issued.key_pem)
        set_password(self.folder / "users", "anne", "secret", kind="scrypt")
        text = EXAMPLE.read_text()
        # Only where it listens and where its files are is another.
        for there, here in (
            ("0.0.0.0:25", "127.0.0.1:0"),
            ("[::]:25", "127.0.0.2:0"),
            ("0.0.0.0:465", "127.0.0.3:0"),
            ("/var/mail/in", "in"),
            ("/etc/smtpd/", ""),
        ):
            self.assertIn(there, text)
            text = text.replace(there, here)
        (self.folder / "smtpd.toml").write_text(text)

    def serve_it(self, *words: str) -> tuple[subprocess.Popen[str], list[int]]:
        server = self.start(MODULE, "--config", "smtpd.toml", *words)
        lines = [self.read_until(server, " listens on ") for _ in range(2)]
        return server, [int(port) for line in lines for port in re.findall(r"127\.0\.0\.[123]:([0-9]+)", line)]

    def check(self, ports: list[int]) -> None:
        mx, other, submissions = ports
        for host, port in (("127.0.0.1", mx), ("127.0.0.2", other)):
            with smtplib.SMTP(host, port, timeout=LIMIT) as client:
                client.sendmail("anne@example.net", ["bart@example.com"], "Subject: Hello\r\n\r\nHello\r\n")
                self.assertRaises(smtplib.SMTPRecipientsRefused, client.sendmail, "a@b.example", ["x@y.example"], "x")
                self.assertNotIn("auth", client.esmtp_features)
        self.assertEqual(len(mailbox.Maildir(self.folder / "in", create=False)), 2)
        context = ssl._create_unverified_context()
        with smtplib.SMTP_SSL("127.0.0.3", submissions, timeout=LIMIT, context=context) as client:
            self.assertEqual(client.docmd("EHLO x")[0], 250)
            self.assertEqual(client.docmd("MAIL FROM:<a@b.example>")[0], 530)
            client.ehlo()
            client.login("anne", "secret")
            self.assertEqual(client.docmd("MAIL FROM:<a@b.example>")[0], 250)

    def test_it_runs_as_it_stands(self) -> None:
        self.assertEqual(self.run_out(MODULE, "--config", "smtpd.toml", "--check")[0], 0)
        server, ports = self.serve_it()
        self.check(ports)
        self.end(server)

    def test_it_runs_with_workers(self) -> None:
        server, ports = self.serve_it("--workers=2")
        self.check(ports)
        self.end(server)
        self.assertEqual(server.returncode, -signal.SIGTERM)

    def test_a_hangup_reads_files_again_and_says_what_needs_a_restart(self) -> None:
        server, _ = self.serve_it()
        file = self.folder / "smtpd.toml"
        file.write_text(file.read_text().replace("= 500", "= 400"))
        server.send_signal(signal.SIGHUP)
        seen = "".join(self.read_until(server, "restart for") for _ in range(1))
        self.assertIn("max_connections", seen)
        self.read_until(server, "users again: 1 users")
        self.end(server)

    def test_a_port_in_use_is_one_line(self) -> None:
        server, (port, *_) = self.serve_it()
        file = self.folder / "smtpd.toml"
        file.write_text(file.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        status, stdout, stderr = self.run_out(MODULE, "--config", "smtpd.toml")
        self.assertEqual((status, stdout, stderr.count("\n")), (1, "", 1), stderr)
        self.assertTrue(stderr.startswith("twisted-smtpd: can't listen on "), stderr)
        self.end(server)


class CommandTests(ServerCase):
    def test_mail_is_printed_on_stdout_and_the_log_goes_to_stderr(self) -> None:
        # The path of a socket has to be short.
        places = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, places)
        for words, place in (((), "stderr"), (("--log-file=log",), "log")):
            with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
                server = subprocess.Popen(
                    [sys.executable, *MODULE, "-l", f"unix:{places}/s{len(words)}", *words],
                    stdout=out,
                    stderr=err,
                    env=self.environment,
                    cwd=self.folder,
                )
            self.addCleanup(server.wait, LIMIT)
            self.addCleanup(server.terminate)
            client = smtplib.LMTP()
            self.addCleanup(client.close)
            for _ in range(2000):
                try:
                    client.connect(f"{places}/s{len(words)}")
                    break
                except OSError:
                    self.assertIsNone(server.poll())
                    signal.sigtimedwait([], 0.01)
            client.docmd("EHLO", "x")
            client.sendmail(
                "anne@example.com", ["bart@example.com"], "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nx\r\n"
            )
            server.terminate()
            server.wait(LIMIT)
            self.assertIn("Subject: Grüße\n", (self.folder / "out").read_text(encoding="utf-8"))
            logged = (self.folder / ("err" if place == "stderr" else "log")).read_text()
            self.assertIn(" listens on ", logged)
            self.assertNotIn("listens on", (self.folder / "out").read_text(encoding="utf-8"))

    def test_no_plugin_is_searched_that_is_not_asked_for(self) -> None:
        home = self.folder / "home"
        shutil.copytree(
            Path(HOME) / "twisted", home / "twisted", ignore=shutil.ignore_patterns("__pycache__", "*.cache")
        )
        (home / "twisted" / "plugins" / "costly.py").write_text("raise SystemExit('it was loaded')\n")
        self.environment["PYTHONPATH"] = os.pathsep.join((str(home), self.environment["PYTHONPATH"]))
        for words in ((), ("--reactor=asyncio",), ("-l", "[::1]:0", "--check"), ("-c", "mailbox", "x")):
            server = self.start(("-c", IMPORTS), "-l", "127.0.0.1:0", *words)
            if "--check" not in words:
                self.read_until(server, " listens on ")
                server.send_signal(signal.SIGTERM)
            server.communicate(timeout=LIMIT)
        self.assertEqual(list(home.rglob("dropin.cache")), [])

    def test_a_check_says_what_the_start_would_warn_of(self) -> None:
        (self.folder / "mine.py").write_text("class Handler:\n    async def handle_RCTP(self, server): ...\n")
        status, stdout, stderr = self.run_out(MODULE, "--check", "-c", "mine.Handler")
        self.assertEqual((status, stdout.count("\n")), (0, 1), stderr)
        self.assertIn("no server calls handle_RCTP: did you mean handle_RCPT?", stderr)

    @skipUnless(Path("/proc/self/fd").is_dir(), "needs /proc")
    def test_a_closed_stream_is_not_replaced_by_a_client(self) -> None:
        # The log would be sent to the client whose socket gets descriptor 2.
        log = self.folder / "log"
        command = shlex.join([sys.executable, *MODULE, "-l", "127.0.0.1:0", "-c", "console", "--log-file", str(log)])
        closed = f"exec {command} <&- >&- 2>&-"
        server: Any = subprocess.Popen(["sh", "-c", closed], cwd=self.folder, env=self.environment)
        self.addCleanup(server.wait, LIMIT)
        end_in_time(self, server)
        while server.poll() is None:
            found = re.search(r"listens on 127\.0\.0\.1:(\d+)", log.read_text() if log.exists() else "")
            if found is not None:
                break
        for number in range(3):
            self.assertEqual(os.readlink(f"/proc/{server.pid}/fd/{number}"), os.devnull)
        self.send(int(found[1]))  # type: ignore[index]
        server.terminate()
        self.assertEqual(server.wait(LIMIT), -signal.SIGTERM)
        self.assertIn("WHAT IS PRINTED IS LOST", log.read_text())

    def test_a_wrong_reactor_is_one_line(self) -> None:
        status, stdout, stderr = self.run_out(MODULE, "--reactor=nonesuch")
        self.assertEqual((status, stdout, stderr.count("\n")), (64, "", 1), stderr)
        self.assertIn("--reactor: there is no reactor 'nonesuch'", stderr)

    def test_a_log_that_can_not_be_written_is_one_line(self) -> None:
        status, stdout, stderr = self.run_out(MODULE, "--log-file=/nonesuch/log")
        self.assertEqual((status, stdout, stderr.count("\n")), (64, "", 1), stderr)

    def test_the_status_is_that_of_the_signal(self) -> None:
        server, _ = self.serve(MODULE, "-c", "sink")
        self.end(server)
        self.assertEqual(server.returncode, -signal.SIGTERM)
