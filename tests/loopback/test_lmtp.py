"""LMTP and streaming over real sockets: ``twist smtpd --lmtp``, ``twist --reactor=asyncio smtpd``, and the proofs."""

from __future__ import annotations

import shutil
import smtplib
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest

import twisted_smtpd
from tests.loopback.servers import LIMIT, ServerCase

HOME = Path(twisted_smtpd.__file__).parent.parent
SCRIPTS = Path(__file__).parents[2] / "scripts"
SKIPPED = 77

VERDICTS = """
class Verdicts:
    async def handle_DATA(self, server, session, envelope):
        for address in envelope.rcpt_tos:
            yield f"{address.partition('@')[0]} for {address}"
"""
ASYNCIO = """
import asyncio
from twisted.internet import reactor, task

class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        await asyncio.wait_for(asyncio.sleep(0.001), 10)
        await task.deferLater(reactor, 0.001)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA_STREAM(self, server, session, envelope, stream):
        size = 0
        async for chunk in stream:
            first, _ = await asyncio.gather(asyncio.to_thread(len, chunk), task.deferLater(reactor, 0.001))
            size += first
        return f"250 {size} octets"
"""


class LoopbackTests(ServerCase):
    def listen(self, *words: str) -> str:
        """Start a server; the last place where it listens."""
        server = self.start(("-m", "twisted"), *words)
        return self.read_until(server, " listens on ").rstrip().rpartition(":")[2]


class LMTPTests(LoopbackTests):
    def send(self, client: smtplib.SMTP) -> None:
        with client:
            for command in ("LHLO c", "MAIL FROM:<a@x.example>", "RCPT TO:<250@y.example>", "RCPT TO:<452@y.example>"):
                self.assertEqual(client.docmd(command)[0], 250)
            self.assertEqual(client.docmd("DATA")[0], 354)
            client.send("Subject: hi\r\n\r\nhello\r\n.\r\n")
            self.assertEqual(client.getreply(), (250, b"2.0.0 for 250@y.example"))
            self.assertEqual(client.getreply(), (452, b"4.3.1 for 452@y.example"))
            self.assertEqual(client.docmd("QUIT")[0], 221)

    def serve_verdicts(self, where: str) -> str:
        (self.folder / "verdicts.py").write_text(VERDICTS)
        return self.listen("--log-format=text", "smtpd", "--lmtp", "-l", where, "-c", "verdicts.Verdicts")

    def test_over_tcp(self) -> None:
        port = self.serve_verdicts("127.0.0.1:0")
        self.send(smtplib.LMTP("127.0.0.1", int(port)))

    def test_over_a_unix_socket(self) -> None:
        # The path of a socket has to be short, so not where the tests' files are.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.serve_verdicts(f"unix:{folder}/lmtp")
        self.send(smtplib.LMTP(f"{folder}/lmtp"))

    def test_with_swaks(self) -> None:
        if shutil.which("swaks") is None:
            raise SkipTest("swaks is not installed")
        port = self.serve_verdicts("127.0.0.1:0")
        command = ["swaks", "--protocol", "LMTP", "--server", f"127.0.0.1:{port}", "--from", "a@x.example"]
        for recipient, status in (("250@y.example", 0), ("550@y.example", 26)):
            done = subprocess.run([*command, "--to", recipient], capture_output=True, text=True, timeout=LIMIT)
            self.assertEqual(done.returncode, status, done.stdout + done.stderr)


class AsyncioReactorTests(LoopbackTests):
    def test_hooks_await_asyncio_and_twisted_alike(self) -> None:
        (self.folder / "mixed.py").write_text(ASYNCIO)
        port = self.listen(
            "--reactor=asyncio", "--log-format=text", "smtpd", "-l", "127.0.0.1:0", "-c", "mixed.Handler"
        )
        with smtplib.SMTP("127.0.0.1", int(port), timeout=LIMIT) as client:
            client.ehlo()
            client.mail("a@x.example")
            self.assertEqual(client.rcpt("b@y.example")[0], 250)
            self.assertEqual(client.data(b"x" * 998 + b"\r\n"), (250, b"2.0.0 1000 octets"))
            client.mail("a@x.example")
            client.rcpt("b@y.example")
            body = (b"x" * 998 + b"\r\n") * 2000
            self.assertEqual(client.data(body), (250, b"2.0.0 2000000 octets"))


class ProofTests(LoopbackTests):
    """The scripts, with less to do."""

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
            timeout=LIMIT,
        )
        if done.returncode == SKIPPED:
            raise SkipTest(done.stdout.strip())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_postfix_delivers_defers_and_bounces_per_recipient(self) -> None:
        self.prove("postfix_lmtp.py")

    def test_the_mail_of_real_clients_arrives_intact(self) -> None:
        self.prove("mail_clients.py")

    def test_a_streamed_message_takes_no_memory_and_a_slow_hook_stops_the_client(self) -> None:
        if not Path("/proc/self/status").exists():
            raise SkipTest("memory is read from /proc")
        self.prove("stream_1gb.py", "--megabytes=64", "--lag=2")

    def test_chunks_of_any_size_are_taken_in_bounded_time_and_memory(self) -> None:
        if not Path("/proc/self/status").exists():
            raise SkipTest("memory is read from /proc")
        self.prove("chunks_30mb.py", "--megabytes=1", "--sizes", "700000", "300", "20")

    def test_a_mailbox_that_is_killed_loses_nothing(self) -> None:
        self.prove("mailbox_kill9.py", "--kills=2", "--clients=4")
