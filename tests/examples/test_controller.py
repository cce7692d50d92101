"""The examples of controllers, and those on their page, do what they say; each runs in a process of its own."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import sys
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd
from tests.loopback.servers import end_in_time, hear_ctrl_c

PROJECT = Path(__file__).parent.parent.parent
HOME = str(Path(twisted_smtpd.__file__).parent.parent)
LIMIT = 60  # seconds, for a program that hangs

DOCTEST = """
import doctest, sys
failed, tried = doctest.testfile(sys.argv[1], module_relative=False,
                                 optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
print(tried, "examples")
sys.exit(bool(failed))
"""


class ProgramCase(SynchronousTestCase):
    def setUp(self) -> None:
        path = os.pathsep.join(filter(None, (HOME, os.environ.get("PYTHONPATH"))))
        self.environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self.folder = self.mktemp()
        os.makedirs(self.folder)

    def start(self, *words: str) -> subprocess.Popen[str]:
        hear_ctrl_c(self)
        program = subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(self.end, program)
        end_in_time(self, program)
        return program

    def end(self, program: subprocess.Popen[str]) -> None:
        if program.poll() is None:
            program.kill()
        program.communicate(timeout=LIMIT)

    def run_out(self, *words: str) -> str:
        program = self.start(*words)
        output, _ = program.communicate(timeout=LIMIT)
        self.assertEqual(program.returncode, 0, output)
        return output


@skipUnless((PROJECT / "examples").is_dir(), "the examples are not installed")
class ExampleTests(ProgramCase):
    def example(self, name: str) -> str:
        return str((PROJECT / "examples" / name).absolute())

    def test_a_test_of_a_program_that_sends_mail(self) -> None:
        self.assertRegex(self.run_out(self.example("controller_in_tests.py")), r"Ran 2 tests[^$]*OK")

    def test_an_asyncio_program_takes_mail_and_ends_with_ctrl_c(self) -> None:
        program = self.start(self.example("controller_asyncio.py"), "0")
        assert program.stdout is not None
        port = int(program.stdout.readline().rpartition(" ")[2])
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.sendmail("anne@example.com", ["bart@example.com"], "Subject: x\r\n\r\n")
            self.assertEqual(program.stdout.readline(), "anne@example.com wrote 14 bytes\n")
            program.send_signal(signal.SIGINT)
            self.assertEqual(client.getreply()[0], 421)
            client.close()
        output, _ = program.communicate(timeout=LIMIT)
        self.assertEqual((program.returncode, output), (0, ""))


@skipUnless((PROJECT / "docs").is_dir(), "the documentation is not installed")
class PageTests(ProgramCase):
    def test_the_examples_on_the_pages_are_right(self) -> None:
        pages = (("reference/controllers.rst", 30), ("reference/embedding.rst", 7), ("how-to/migrating.rst", 6))
        for page, at_least in pages:
            path = str((PROJECT / "docs" / page).absolute())
            count = int(self.run_out("-c", DOCTEST, path).split()[-2])
            self.assertGreaterEqual(count, at_least, page)
