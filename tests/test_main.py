"""Tests for :mod:`twisted_smtpd.__main__`; ``tests/loopback/test_log.py`` runs it."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd import __main__ as main_module
from twisted_smtpd.cli.command import Command
from twisted_smtpd.runtime.exit_status import call_program, program_name


class _Service:
    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def startService(self) -> None:
        self.calls.append("start")

    def stopService(self) -> None:
        self.calls.append("stop")


class MainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(call_program, program_name())
        self.calls: list[Any] = []
        self.reactor: Any = MemoryReactorClock()
        self.reactor.run = lambda: self.calls.append("run")
        self.patch(Command, "begin_log", lambda options, lock: self.calls.append("log"))
        self.patch(os, "kill", lambda *call: self.calls.append(call))

    def options(self, *words: str) -> Command:
        options = Command(self.reactor)
        options.parseOptions(["-c", "sink", *words])
        return options

    def test_the_ports_are_bound_before_the_log_begins(self) -> None:
        """So that a port in use is one line on stderr, and nothing else."""
        main_module.run(self.options(), _Service(self.calls))  # type: ignore[arg-type]
        self.assertEqual(self.calls, ["start", "run"])
        # And signals are heard before it begins.
        (begins,) = self.reactor.whenRunningHooks
        begins[0](None)
        self.assertEqual(self.calls[-1], "log")
        (trigger,) = self.reactor.triggers["before"]["shutdown"]
        trigger[0]()
        self.assertEqual(self.calls[-1], "stop")

    def test_the_status_tells_which_signal_has_ended_it(self) -> None:
        options = self.options()
        main_module.makeService(options)
        assert options.exit is not None
        options.exit.number = signal.SIGUSR1
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        main_module.run(options, _Service(self.calls))  # type: ignore[arg-type]
        self.assertEqual(self.calls[-1], (os.getpid(), signal.SIGUSR1))

    def test_it_is_called_twisted_smtpd(self) -> None:
        self.options()
        self.assertEqual(program_name(), "twisted-smtpd")
