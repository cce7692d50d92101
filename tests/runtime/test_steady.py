"""The machine's clock is set while clients are connected: no limit is cut short, and none is suspended."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python import runtime
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, Client, codes, make_factory
from twisted_smtpd.cli.command import Options
from twisted_smtpd.runtime import steady, timers
from twisted_smtpd.runtime.reactors import LoopReactor
from twisted_smtpd.runtime.steady import differences, make_steady, steady_seconds
from twisted_smtpd.tap import makeService

HOUR = 3600.0


class WallReactor:
    """A reactor as Twisted's are: what is due is decided by the machine's clock.

    :ivar monotonic: the time that passes.
    :ivar wall: the machine's clock, which somebody may set.
    """

    def __init__(self, test: SynchronousTestCase) -> None:
        self.monotonic, self.wall = 1000.0, 10**9 + 0.0
        self.calls: list[Any] = []
        test.patch(steady, "wall_clock", self._wall)
        test.patch(steady.Unfrozen, "monotonic", lambda: self.monotonic)
        self.seconds = steady.wall_clock

    def _wall(self) -> float:
        return self.wall

    def callLater(self, delay: float, function: Any, *arguments: Any) -> Any:
        # A Clock's own calls do all that is asked of one here.
        call = Clock().callLater(0, function, *arguments)
        self.calls.append((self.seconds() + delay, call, function, arguments))
        return call

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.monotonic += 1
            self.wall += 1
            for due, call, function, arguments in list(self.calls):
                if not call.active():
                    self.calls = [one for one in self.calls if one[1] is not call]
                elif due <= self.seconds():
                    call.cancel()
                    function(*arguments)


class ClockCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = WallReactor(self)

    def join(self, **options: Any) -> Client:
        self.factory = make_factory(clock=self.reactor, timeout=300, session_timeout=3 * HOUR, **options)
        return self.again()

    def again(self) -> Client:
        client = Client(self.factory.buildProtocol(None))
        client.read()
        return client


class JumpTests(ClockCase):
    def test_an_hour_forward_cuts_no_message(self) -> None:
        """Each message in progress was cut off with 421 when somebody set the clock."""
        client = self.join()
        client.send(ENVELOPE + b"DATA\r\nSubject: x\r\n")
        self.reactor.advance(10)
        self.reactor.wall += HOUR
        self.reactor.advance(10)
        self.assertEqual(codes(client.send(b"hello\r\n.\r\n")), [250])
        self.assertFalse(client.closed)

    def test_an_hour_back_suspends_no_limit_where_the_process_is_ours(self) -> None:
        """Silent clients stayed for an hour longer when somebody set the clock back."""
        make_steady(self.reactor)
        client = self.join()
        self.reactor.advance(10)
        self.reactor.wall -= HOUR
        self.reactor.advance(310)
        self.assertEqual(codes(client.read()), [421])

    def test_in_another_program_the_next_client_brings_it_to_light(self) -> None:
        """A program's own reactor is left alone, so its timers sleep for an hour; a new connection wakes ours."""
        silent = self.join()
        self.reactor.advance(10)
        self.reactor.wall -= HOUR
        self.reactor.advance(400)
        self.assertEqual(silent.read(), b"")
        self.again()
        self.reactor.advance(1)
        self.assertEqual(codes(silent.read()), [421])

    def test_a_visit_that_work_puts_off_is_left_as_it_is(self) -> None:
        self.join()
        calls = len(self.reactor.calls)
        self.reactor.monotonic += 10 + timers.LATE / 2
        self.again()
        self.assertEqual(len(self.reactor.calls), calls)


class ReactorTests(SynchronousTestCase):
    def test_the_time_goes_on_from_the_clock_at_the_start(self) -> None:
        self.assertLess(abs(steady_seconds() - time.time()), 3600)
        before = steady_seconds()
        self.patch(time, "time", lambda: 0.0)
        self.assertGreaterEqual(steady_seconds(), before)

    def test_twist_smtpd_has_a_reactor_that_does_not_jump(self) -> None:
        class Reactor(MemoryReactorClock):
            seconds = staticmethod(runtime.seconds)

        for words in ((), ("--workers=2",)):
            options = Options(Reactor())
            options.parseOptions(("-c", "sink", *words))
            makeService(options)
            self.assertIs(options.reactor.seconds, steady_seconds)

    def test_controllers_have_one(self) -> None:
        self.assertIs(LoopReactor.seconds, steady_seconds)

    def test_a_clock_of_a_test_is_left_alone(self) -> None:
        clock = Clock()
        make_steady(clock)
        clock.advance(5)
        self.assertEqual((clock.seconds(), differences(clock)()), (5, 5))

    def test_what_counts_seconds_counts_those_that_pass(self) -> None:
        class Reactor(Clock):
            seconds = staticmethod(runtime.seconds)  # type: ignore[assignment]

        self.assertIs(differences(Reactor()), steady.Unfrozen.monotonic)
        make_steady(reactor := Reactor())
        self.assertIs(differences(reactor), steady.Unfrozen.monotonic)
