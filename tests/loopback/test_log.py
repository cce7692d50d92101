"""The log of a program: what is in it, where it goes, and what a transcript has beside that of swaks."""

from __future__ import annotations

import json
import re
import shutil
import smtplib
import subprocess
from typing import Any
from unittest import skipUnless

from tests.loopback.servers import LIMIT, MODULE, ServerCase


def swaks_lines(output: str) -> list[tuple[str, str]]:
    """The dialog as swaks shows it, without content."""
    found: list[tuple[str, str]] = []
    for line in output.splitlines():
        if line.startswith((" -> ", "<-  ", "<** ")):
            found.append(("C" if line[0] == " " else "S", line[4:]))
    begin = next(place for place, (_, text) in enumerate(found) if text.startswith("354 "))
    end = next(place for place in range(begin + 1, len(found)) if found[place][0] == "S")
    return found[: begin + 1] + found[end:]


@skipUnless(shutil.which("swaks"), "needs swaks")
class SwaksTests(ServerCase):
    def test_the_transcript_is_that_of_swaks_but_for_masks(self) -> None:
        words = ("--log-format=json", "--trace", "-c", "sink", "--auth-any", "--auth-without-tls")
        server, port = self.serve(MODULE, *words)
        said = subprocess.run(
            [
                *("swaks", "--server", f"127.0.0.1:{port}", "--ehlo", "client.example", "--auth", "LOGIN"),
                *("--auth-user", "anne", "--auth-password", "hunter2-Geheim", "--from", "anne@example.com"),
                *("--to", "bart@example.com,no-domain"),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT,
        ).stdout
        output = self.end(server)
        ours = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        dialog = [(one["side"], one["line"]) for one in ours if one["event"] == "dialog"]
        dialog = [(side, line) for side, line in dialog if "octets of content" not in line]
        theirs = swaks_lines(said)
        self.assertEqual(len(dialog), len(theirs), f"{said}\n{output}")
        masked = 0
        for (side, line), expected in zip(dialog, theirs, strict=True):
            if "***" in line:
                masked += 1
                self.assertEqual(side, expected[0])
            else:
                self.assertEqual((side, line), expected)
        self.assertEqual(masked, 2, "name and password")
        self.assertNotIn("hunter2", output)
        self.assertIn("disconnected", [one["event"] for one in ours])


class OwnLogTests(ServerCase):
    def test_text_and_json_in_a_file(self) -> None:
        for form, pattern in (
            ("text", r'^\S+T\S+ info \S+ 127\.0\.0\.1:\d+ refused "FOO": 500 '),
            ("json", r'^\{"time": '),
        ):
            log = self.folder / f"log.{form}"
            words = ("--log-file", str(log), f"--log-format={form}", "-l", "127.0.0.1:0", "-c", "sink")
            server = self.start(MODULE, *words)
            port = self.port_in(log, server)
            with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
                client.docmd("FOO")
            self.assertEqual(self.end(server), "", "nothing is printed")
            lines = log.read_text().splitlines()
            self.assertTrue([line for line in lines if re.search(pattern, line)], lines)
            self.assertFalse([line for line in lines if "\x1e" in line or "log_" in line or "starting on" in line])

    def test_streams_that_know_ascii_only_get_escapes_and_lose_nothing(self) -> None:
        self.environment.update(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        sender = "\u0431\u043e\u0440\u0438\u0441@x.example"
        for handler in ("console", "debugging"):
            server, port = self.serve(MODULE, "-c", handler)
            with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
                client.sendmail(sender, ["b@y.example"], sender.encode(), mail_options=["SMTPUTF8"])
            output = self.end(server)
            escaped = sender.encode("ascii", "backslashreplace").decode()
            self.assertIn(f"message accepted from=<{escaped}> ", output)
            self.assertGreaterEqual(output.count(escaped), 3, "in the log, in the envelope and in the message")

    def port_in(self, log: Any, server: subprocess.Popen[str]) -> int:
        """The port that the log names, once it does."""
        while server.poll() is None:
            found = re.search(r"listens on 127\.0\.0\.1:(\d+)", log.read_text() if log.exists() else "")
            if found is not None:
                return int(found[1])
        raise AssertionError(f"{server.args} has ended")

    def test_a_wrong_option_is_one_line_and_64(self) -> None:
        for words, text in (
            (("--log-format=xml",), "is not 'text' or 'json'"),
            (("--log-level", "loud"), "is not 'debug'"),
            (("--log-file=/nonesuch/log",), "No such file"),
            (("--log-file",), "requires argument"),
        ):
            status, stdout, stderr = self.run_out(MODULE, *words)
            self.assertEqual((status, stdout, stderr.count("\n")), (64, "", 1), stderr)
            self.assertIn(text, stderr)
