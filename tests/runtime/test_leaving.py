"""Signals end the process, whatever its hooks do: in order first, then without a grace, then at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd
from twisted_smtpd.cli.command import Options
from twisted_smtpd.runtime import leaving
from twisted_smtpd.runtime.leaving import MARGIN, THREADS_TIME, BoundedExit
from twisted_smtpd.runtime.lifecycle import STOP_TIMEOUT
from twisted_smtpd.tap import makeService


class Reactor(MemoryReactorClock):
    """Notes what it is told from a signal handler, and calls what waits for it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.from_thread: list[Any] = []

    def callFromThread(self, function: Any, *arguments: Any) -> None:  # type: ignore[override]
        self.from_thread.append(function)

    def callWhenRunning(self, function: Any, *arguments: Any) -> None:  # type: ignore[override]
        function(*arguments)

    def fire(self, phase: str) -> None:
        for function, arguments, options in self.triggers.get(phase, {}).get("shutdown", ()):
            function(*arguments, **options)


class ExitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stopped: list[int] = []
        self.killed: list[int | None] = []
        self.waits: list[float] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, lambda number, frame: self.stopped.append(number))
        self.patch(leaving.threading, "Thread", self.thread)
        self.reactor = Reactor()
        self.exit = BoundedExit(self.reactor, 30, self.hurry, kill=self.killed.append, sleep=self.waits.append)

    def hurry(self) -> None:
        """Ends the grace."""

    def thread(self, target: Callable[..., Any], args: tuple[Any, ...], name: str, daemon: bool) -> Any:
        """Runs nothing; what waits for the end must not keep the process itself."""
        self.assertTrue(daemon)
        return type("Thread", (), {"start": lambda thread: self.waits.append(args[0])})()

    def test_the_first_signal_stops_the_second_ends_the_grace_the_third_the_process(self) -> None:
        """The process stayed for ever when a hook hung in a thread, and a second signal changed nothing."""
        self.exit.install()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
            if number == signal.SIGINT:
                self.assertEqual(self.killed, [])
        self.assertEqual(self.stopped, [signal.SIGTERM])
        self.assertEqual(self.reactor.from_thread, [self.hurry])
        self.assertEqual(self.killed, [signal.SIGTERM])
        self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_the_time_runs_from_the_first_signal(self) -> None:
        """A hook that blocks the reactor would put off all that the reactor does."""
        self.exit.install()
        os.kill(os.getpid(), signal.SIGTERM)
        self.assertEqual(self.waits, [30 + STOP_TIMEOUT + MARGIN])

    def test_threads_have_a_moment_when_all_else_has_ended(self) -> None:
        self.exit.install()
        self.reactor.fire("before")
        self.reactor.fire("during")
        self.assertEqual(self.waits, [30 + STOP_TIMEOUT + MARGIN, THREADS_TIME])
        self.assertNotEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL, "no signal has come")

    def test_signals_that_are_ignored_stay_so(self) -> None:
        """A shell starts its background processes with SIGINT ignored."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.exit.install()
        self.assertEqual(signal.getsignal(signal.SIGINT), signal.SIG_IGN)

    def test_a_worker_leaves_the_signals_to_its_parent(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        self.exit.install(take_signals=False)
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)
        self.reactor.fire("before")
        self.assertEqual(len(self.waits), 1)

    def test_nothing_is_taken_over_outside_the_main_thread(self) -> None:
        self.patch(leaving, "hears_signals", lambda: False)
        before = signal.getsignal(signal.SIGTERM)
        self.exit.install()
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)

    def test_a_line_says_why_it_ends(self) -> None:
        said: list[str] = []
        self.patch(leaving, "_say", said.append)
        self.exit._end(7)
        self.assertEqual((self.waits, self.killed), ([7], [None]))
        self.assertEqual(said, ["twist smtpd: hooks are still at work: ending without them"])

    def test_every_server_of_ours_ends_in_bounded_time(self) -> None:
        for words in (("--grace=7",), ("--grace=7", "--workers=2")):
            self.waits.clear()
            options = Options(Reactor())
            options.parseOptions(("-c", "sink", *words))
            service: Any = makeService(options)
            options.reactor.fire("before")
            self.assertEqual(len(self.waits), 1)
            self.assertGreaterEqual(self.waits[0], 7 + STOP_TIMEOUT)
            self.assertLessEqual(self.waits[0], 60)
            del service


class KillTests(SynchronousTestCase):
    def run_out(self, code: str) -> tuple[int, str]:
        home = str(Path(twisted_smtpd.__file__).parent.parent)
        begin = "import os, signal, sys; from twisted_smtpd.runtime.leaving import _kill, _say\n"
        ended = subprocess.run(
            [sys.executable, "-c", begin + code],
            env={**os.environ, "PYTHONPATH": home},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return ended.returncode, ended.stderr

    def test_it_is_killed_by_the_signal_that_stopped_it(self) -> None:
        self.assertEqual(self.run_out("_kill(signal.SIGTERM)")[0], -signal.SIGTERM)
        self.assertEqual(self.run_out("_kill(None)")[0], 1)
        self.assertEqual(self.run_out("signal.signal(15, lambda *a: None); _kill(signal.SIGTERM)")[0], 1)

    def test_a_pipe_that_is_full_or_gone_does_not_keep_it(self) -> None:
        full = (
            "r, w = os.pipe(); os.set_blocking(w, False)\n"
            "try:\n    while os.write(w, b'x' * 4096): pass\n"
            "except BlockingIOError: pass\n"
            "os.set_blocking(w, True); os.dup2(w, 2); _say('x'); _kill(None)"
        )
        self.assertEqual(self.run_out(full)[0], 1)
        self.assertEqual(self.run_out("os.close(2); _say('x'); _kill(None)")[0], 1)
        self.assertEqual(self.run_out("sys.__stderr__ = None; _say('x'); _kill(None)")[0], 1)
        self.assertEqual(self.run_out("_say('good bye'); _kill(None)"), (1, "good bye\n"))
