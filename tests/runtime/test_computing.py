"""What computes for long: in a thread, one at a time, and never stuck."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twisted_smtpd.runtime.computing import LARGE, MANY_LINES, compute, give_way, is_large


def start(function: Any, *arguments: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(compute(function, *arguments))


class ComputeTests(TestCase):
    def test_one_at_a_time_and_in_order(self) -> Deferred[Any]:
        at_work: list[int] = []
        seen: list[tuple[int, bool, int]] = []

        def work(number: int) -> int:
            at_work.append(number)
            seen.append((number, threading.current_thread() is here, len(at_work)))
            at_work.remove(number)
            return number

        here = threading.current_thread()
        done = gatherResults([start(work, number) for number in range(20)])
        done.addCallback(self.assertEqual, list(range(20)))
        return done.addCallback(lambda _: self.assertEqual(seen, [(number, False, 1) for number in range(20)]))

    def test_neither_an_error_nor_a_cancelled_call_stops_the_next(self) -> Deferred[Any]:
        go_on = threading.Event()
        first, second, third, last = start(go_on.wait), start(int, "x"), start(int, "2"), start(int, "3")
        third.cancel()
        self.failureResultOf(third, CancelledError)
        go_on.set()
        done = gatherResults([first, self.assertFailure(second, ValueError), last])
        return done.addCallback(lambda results: self.assertEqual((results[0], results[2]), (True, 3)))


class LoopTests(SynchronousTestCase):
    def test_a_loop_that_ended_meanwhile_keeps_nothing_from_the_next(self) -> None:
        go_on = threading.Event()

        async def leave() -> None:
            task = asyncio.ensure_future(compute(go_on.wait))
            await asyncio.sleep(0)
            task.cancel()

        async def ask() -> Any:
            return await compute(int, "5")

        # The end of a loop waits for its threads.
        threading.Timer(0.01, go_on.set).start()
        asyncio.run(leave())
        self.assertEqual(asyncio.run(ask()), 5)


class LargeTests(SynchronousTestCase):
    def test_octets_and_lines_count(self) -> None:
        for content, large in (
            *((None, False), (b"", False), (b"x" * LARGE, False), (b"x" * (LARGE + 1), True)),
            *((b"\n" * MANY_LINES, False), (b"\n" * (MANY_LINES + 1), True), ("\n" * (MANY_LINES + 1), True)),
        ):
            self.assertEqual(is_large(content), large, content and content[:9])  # type: ignore[arg-type]

    def test_a_thread_gives_way_to_the_reactor(self) -> None:
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(0.005)
        give_way()
        self.assertLess(sys.getswitchinterval(), 0.001)
        sys.setswitchinterval(0.0001)
        give_way()
        self.assertLess(sys.getswitchinterval(), 0.0002)


class Uncounted(bytes):
    """A message whose lines must not be counted."""

    def count(self, *arguments: Any) -> int:
        raise AssertionError("the lines of a large message are counted")


class SizeTests(SynchronousTestCase):
    def test_the_lines_of_a_large_message_are_not_counted(self) -> None:
        """Seen: 30 MB of empty lines kept the reactor busy for a tenth of a second each time they were looked at."""
        self.assertTrue(is_large(Uncounted(LARGE + 1)))
