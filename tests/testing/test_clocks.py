"""Servers for tests where the test freezes the time, or has patched threads and sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd
from twisted_smtpd.runtime.reactors import refuse_patched_threads

HOME = str(Path(twisted_smtpd.__file__).parent.parent)
LIBRARIES = ("gevent", "eventlet")
LIMIT = 60  # seconds, for a program that hangs

# A slow answer needs a timer, and a wait that fails needs a clock that goes on.
SERVE = """
import smtplib
def serve():
    from twisted_smtpd.testing import MailServer
    with MailServer() as server:
        server.fail("RCPT", "slow", delay=0.01)
        server.fail("EHLO", "split")
        with smtplib.SMTP(server.hostname, server.port, timeout=30) as client:
            client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\\n\\nIt works.\\n")
        message = server.wait_for(timeout=30)
        try:
            server.wait_for(2, timeout=0.01)
        except AssertionError:
            print(message["Subject"], message.received.year)
"""


def output_of(program: str) -> str:
    """What a program prints."""
    path = os.pathsep.join((HOME, *filter(None, (os.environ.get("PYTHONPATH"),))))
    command = (sys.executable, "-c", f"{SERVE}\n{program}")
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=LIMIT)
    return run.stdout + run.stderr


class FrozenTests(SynchronousTestCase):
    @skipUnless(find_spec("freezegun"), "freezegun is not installed")
    def test_freezegun(self) -> None:
        program = "from freezegun import freeze_time\nwith freeze_time('{}'{}): serve()\n"
        first, again = program.format("2020-01-01", ""), program.format("2030-01-01", ", tick=True")
        self.assertEqual(output_of(first + again).splitlines(), ["Hello 2020", "Hello 2030"])
        self.assertEqual(output_of(f"import twisted_smtpd.testing.server\n{first}").splitlines(), ["Hello 2020"])

    @skipUnless(find_spec("time_machine"), "time-machine is not installed")
    def test_time_machine(self) -> None:
        program = "import time_machine\nwith time_machine.travel('{}', tick={}): serve()\n"
        first, again = program.format("2020-01-01", False), program.format("2030-01-01", True)
        self.assertEqual(output_of(first + again).splitlines(), ["Hello 2020", "Hello 2030"])


class PatchedTests(SynchronousTestCase):
    def patched(self, name: str, function: str, *modules: str) -> None:
        stands_in: Any = SimpleNamespace(**{function: modules.__contains__})
        real = {key: module for key, module in sys.modules.items() if key.partition(".")[0] not in LIBRARIES}
        self.patch(sys, "modules", {**real, name: stands_in})

    def test_nothing_is_refused_where_nothing_is_patched(self) -> None:
        self.patched("gevent.monkey", "is_module_patched")
        refuse_patched_threads()

    def test_patched_threads_and_sockets_are_named(self) -> None:
        for library, name, function, module in (
            ("gevent", "gevent.monkey", "is_module_patched", "socket"),
            ("gevent", "gevent.monkey", "is_module_patched", "thread"),
            ("eventlet", "eventlet.patcher", "is_monkey_patched", "select"),
        ):
            self.patched(name, function, module)
            error = self.assertRaises(RuntimeError, refuse_patched_threads)
            self.assertIn(f"{library} has patched {module}: ", str(error))

    @skipUnless(find_spec("gevent"), "gevent is not installed")
    def test_gevent(self) -> None:
        last = output_of("from gevent import monkey; monkey.patch_all(); serve()").splitlines()[-1]
        self.assertTrue(last.startswith("RuntimeError: gevent has patched thread: a server can't run"), last)

    @skipUnless(find_spec("eventlet"), "eventlet is not installed")
    def test_eventlet(self) -> None:
        last = output_of("import eventlet; eventlet.monkey_patch(); serve()").splitlines()[-1]
        self.assertTrue(last.startswith("RuntimeError: eventlet has patched thread: a server can't run"), last)
