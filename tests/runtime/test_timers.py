"""The timers of all connections of a server on a single call: nobody is visited late, nothing is left behind."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.runtime.timers import PRECISION, Timers


class Timed:
    """Has one deadline, and remembers when it was met."""

    def __init__(self, clock: Clock, deadline: float) -> None:
        self.clock = clock
        self.deadline = deadline
        self.visits: list[float] = []
        self.met: float | None = None

    def visit(self, now: float) -> float:
        self.visits.append(now)
        if now < self.deadline:
            return self.deadline
        if self.met is None:
            self.met = now
        return now + 1000


class TimersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)

    def add(self, deadline: float, shortest: float = 10) -> Timed:
        watched = Timed(self.clock, deadline)
        self.timers.add(watched, shortest)
        return watched

    def test_a_deadline_is_met(self) -> None:
        watched = self.add(25)
        self.clock.pump([0.1] * 249)
        self.assertIsNone(watched.met)
        self.clock.pump([0.1] * 6)
        self.assertIsNotNone(watched.met)

    def test_one_call_for_all(self) -> None:
        for deadline in range(20, 40):
            self.add(deadline)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_deadline_that_moves_earlier_is_not_missed(self) -> None:
        """No deadline can come sooner than the shortest limit from now: so it is looked at as often."""
        watched = self.add(1000)
        self.clock.advance(15)
        watched.deadline = 25
        self.clock.pump([0.1] * 120)
        assert watched.met is not None
        self.assertLessEqual(watched.met, 26)

    def test_a_shorter_limit_that_comes_later(self) -> None:
        self.add(1000, shortest=100)
        self.clock.advance(1)
        watched = self.add(3, shortest=2)
        self.clock.pump([0.01] * 210)
        assert watched.met is not None
        self.assertLessEqual(watched.met, 3.1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_shorter_limit_does_not_put_off_a_deadline_that_is_near(self) -> None:
        watched = self.add(20, shortest=20)
        self.clock.advance(15)
        self.add(1000, shortest=10)
        self.clock.pump([0.1] * 60)
        assert watched.met is not None
        self.assertLessEqual(watched.met, 21)

    def test_it_does_not_look_more_often_than_it_must(self) -> None:
        watched = [self.add(20 + index / 1000) for index in range(1000)]
        self.clock.pump([0.001] * 30000)
        self.assertLess(max(len(one.visits) for one in watched), 40)

    def test_what_is_removed_is_not_visited(self) -> None:
        watched = self.add(5)
        self.timers.remove(watched)
        self.clock.pump([1] * 20)
        self.assertEqual(watched.visits, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_visit_may_remove_and_add(self) -> None:
        other = Timed(self.clock, 50)

        class Ending(Timed):
            def visit(inner, now: float) -> float:
                self.timers.remove(inner)
                self.timers.add(other, 10)
                return super().visit(now)

        self.timers.add(Ending(self.clock, 5), 10)
        self.clock.pump([1] * 60)
        self.assertIsNotNone(other.met)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_no_timer_is_left_behind_after_the_last_one(self) -> None:
        first, second = self.add(5), self.add(7)
        self.timers.remove(first)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.timers.remove(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_added_to_again_it_goes_on(self) -> None:
        self.timers.remove(self.add(5))
        first, second = self.add(5), self.add(7)
        self.timers.remove(first)
        self.clock.pump([1] * 20)
        self.assertIsNotNone(second.met)

    @settings(deadline=None, database=None, max_examples=60)
    @given(st.lists(st.tuples(st.floats(0, 50), st.floats(10, 100), st.floats(10, 60)), min_size=1, max_size=8))
    def test_every_deadline_is_met_in_time(self, connections: list[tuple[float, float, float]]) -> None:
        clock = Clock()
        timers = Timers(clock)
        made = []
        for start, length, shortest in connections:
            watched = Timed(clock, start + max(length, shortest))
            clock.callLater(start, timers.add, watched, shortest)
            made.append(watched)
        clock.pump([0.1] * 1550)
        for watched in made:
            assert watched.met is not None
            self.assertGreaterEqual(watched.met, watched.deadline)
            self.assertLessEqual(watched.met, watched.deadline + 60 / PRECISION + 0.2)
