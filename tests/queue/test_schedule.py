"""When a delivery is tried again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.queue.schedule import Schedule


class ScheduleTests(SynchronousTestCase):
    def test_waits_double_up_to_the_longest(self) -> None:
        waits = [Schedule().wait(attempt, lambda: 0.0) for attempt in range(1, 12)]
        self.assertEqual(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600])
        self.assertEqual(Schedule().wait(10**6, lambda: 0.0), 3600)

    def test_chance_makes_a_wait_shorter_by_a_fifth_at_most(self) -> None:
        self.assertEqual(Schedule().wait(1, lambda: 1.0), 8)
        self.assertEqual(len({Schedule().wait(20) for _ in range(9)}), 9)

    def test_bounds(self) -> None:
        for wrong in ({"first": 0.0}, {"first": 20.0, "longest": 10.0}, {"expiry": 0.0}, {"warning": -1.0}):
            self.assertRaises(ValueError, Schedule, **wrong)
