"""What is due is delivered, tried again, or given up; and no destination waits for another."""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_bytes, policy
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.queues import MemoryQueue
from twisted_smtpd.queue import delivery as module
from twisted_smtpd.queue.consumer import Consumer
from twisted_smtpd.queue.delivery import AGAIN, GRACE, SWEEP, Deliverer
from twisted_smtpd.queue.disk import DamagedMessage
from twisted_smtpd.queue.entries import NewMessage, domain_of
from twisted_smtpd.queue.schedule import DAY, HOUR, Schedule
from twisted_smtpd.runtime.database import DatabaseDamaged
from twisted_smtpd.session import Recipient

CONTENT = b"Subject: hi\r\n\r\nhello\r\n"
UNREACHABLE = "451 4.4.1 The next host can't be reached"


class Handler:
    """A handler.

    :ivar answer: gives the answer to a message; a Deferred is waited for.
    :ivar seen: recipients of each message that it was given.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Any], Any] = lambda envelope: "250 OK"
        self.seen: list[str] = []
        self.messages: list[bytes] = []
        self.ids: list[str] = []

    def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        self.seen.append(",".join(envelope.rcpt_tos))
        self.messages.append(envelope.content)
        self.ids.append(envelope.queue_id)
        return self.answer(envelope)


class OneHost(Handler):
    one_next_host = True
    next_host_gives_notices = False


class DelivererCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(10**9)
        self.queue = MemoryQueue(self.clock)
        self.handler = Handler()
        self.log: list[str] = []
        observer = lambda event: self.log.append(event.get("log_format", "").format(**event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def deliver(self, handler: Any = None, **options: Any) -> Deliverer:
        self.handler = handler or self.handler
        consumer = Consumer(self.handler, "mx.example", "test", timeout=60, clock=self.clock, loop=None)
        deliverer = Deliverer(self.queue, consumer, Schedule(), clock=self.clock, **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(deliverer.stop()))
        deliverer.start()
        self.settle()
        return deliverer

    def settle(self) -> None:
        """Let all happen that needs no time."""
        for _ in range(300):
            self.clock.advance(0)

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        until = self.clock.seconds() + seconds
        while self.clock.seconds() < until:
            self.clock.advance(step)
            self.clock.advance(0)
            self.clock.advance(0)

    def accept(self, *recipients: str, sender: str = "anne@a.example", may_bounce: bool = True, **more: Any) -> str:
        one_host = getattr(self.handler, "one_next_host", False)
        return self.queue.accept(
            NewMessage(
                sender,
                [Recipient(one, [], dict(more)) for one in recipients or ("bart@b.example",)],
                CONTENT,
                {"may_bounce": may_bounce, "parameters": {}},
                ["" if one_host else domain_of(one) for one in recipients or ("bart@b.example",)],
            )
        )


class OutcomeTests(DelivererCase):
    def test_a_yes_ends_it(self) -> None:
        ids = [self.accept(), self.accept("c@c.example")]
        deliverer = self.deliver()
        self.assertEqual((sorted(self.handler.ids), self.queue.waiting()), (sorted(ids), []))
        self.assertEqual(deliverer.figures["delivered"], 2)
        self.assertIn(f"{ids[0]}: delivered 'bart@b.example' '250 OK'", self.log)

    def test_one_that_comes_later_is_delivered_at_once(self) -> None:
        deliverer = self.deliver()
        self.accept()
        deliverer.wake()
        self.settle()
        self.assertEqual(self.handler.seen, ["bart@b.example"])

    def test_not_now_is_tried_again_with_growing_waits_and_the_same_id(self) -> None:
        self.handler.answer = lambda envelope: "450 4.2.1 busy"
        id, began, tries = self.accept(), self.clock.seconds(), []
        self.deliver()
        while len(self.handler.seen) < 5:
            count = len(self.handler.seen)
            self.pass_time(1)
            if len(self.handler.seen) > count:
                tries.append(self.clock.seconds() - began)
        waits = [after - before for before, after in zip([0, *tries], tries, strict=False)]
        for wait, longest in zip(waits, (10, 20, 40, 80), strict=True):
            self.assertTrue(0.8 * longest <= wait <= longest + 1, (wait, longest))
        self.assertEqual(set(self.handler.ids), {id})

    def test_a_no_is_a_bounce_through_the_queue(self) -> None:
        def answer(envelope: Any) -> str:
            return "250 OK" if envelope.mail_from == "<>" else "550 5.1.1 no such user"

        self.handler.answer = answer
        self.accept()
        deliverer = self.deliver()
        self.pass_time(2)
        self.assertEqual(self.handler.seen, ["bart@b.example", "anne@a.example"])
        self.assertEqual(self.queue.waiting(), [])
        self.assertIn(
            b"Final-Recipient: rfc822; bart@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\n", self.handler.messages[1]
        )
        self.assertEqual(deliverer.figures["notices"], 1)

    def test_verdicts_by_recipient(self) -> None:
        def answer(envelope: Any) -> Any:
            verdicts = {"yes@b.example": "250 OK", "no@b.example": "550 5.1.1 no", "later@b.example": "450 4.2.1 later"}
            return [verdicts.get(one, "250 OK") for one in envelope.rcpt_tos]

        self.handler.answer = answer
        self.accept("yes@b.example", "no@b.example", "later@b.example")
        self.deliver()
        self.pass_time(2)
        self.assertEqual(self.queue.waiting(), [("anne@a.example", "later@b.example")])
        self.assertEqual(self.handler.seen, ["yes@b.example,no@b.example,later@b.example", "anne@a.example"])

    def test_no_bounce_for_a_bounce_nor_for_a_sender_that_may_be_forged(self) -> None:
        self.handler.answer = lambda envelope: "550 5.1.1 no such user"
        self.accept("one@b.example", sender="")
        self.accept("two@b.example", may_bounce=False)
        self.deliver()
        self.pass_time(2)
        self.assertEqual((sorted(self.queue.dead()), self.queue.waiting()), (["one@b.example", "two@b.example"], []))
        self.assertEqual(len(self.handler.seen), 2)

    def test_notify_never_and_delay_ask_for_no_bounce(self) -> None:
        self.handler.answer = lambda envelope: "550 5.1.1 no such user"
        for value in ("NEVER", "DELAY", "SUCCESS,DELAY"):
            self.accept(NOTIFY=value)
        self.deliver()
        self.pass_time(2)
        self.assertEqual((self.queue.dead(), self.queue.waiting(), len(self.handler.seen)), ([], [], 3))

    def test_a_bounce_that_is_refused_ends_there(self) -> None:
        self.handler.answer = lambda envelope: "550 5.1.1 no such user"
        self.accept()
        self.deliver()
        self.pass_time(5)
        self.assertEqual(self.handler.seen, ["bart@b.example", "anne@a.example"])
        self.assertEqual((self.queue.dead(), self.queue.waiting()), (["anne@a.example"], []))

    def test_success_is_told_where_it_is_asked_for(self) -> None:
        for handler, action in ((Handler(), b"delivered"), (OneHost(), b"relayed")):
            self.handler = handler
            self.accept(NOTIFY="SUCCESS,FAILURE")
            self.accept(NOTIFY="FAILURE")
            deliverer = self.deliver()
            self.pass_time(2)
            self.assertEqual(handler.seen, ["bart@b.example", "bart@b.example", "anne@a.example"])
            self.assertIn(b"Action: " + action, handler.messages[2])
            self.successResultOf(Deferred.fromCoroutine(deliverer.stop()))

    def test_a_next_host_with_dsn_tells_itself(self) -> None:
        self.handler = OneHost()
        self.handler.next_host_gives_notices = True
        self.accept(NOTIFY="SUCCESS")
        self.deliver()
        self.pass_time(2)
        self.assertEqual(len(self.handler.seen), 1)

    def test_a_handler_that_fails_or_hangs_is_a_not_now(self) -> None:
        def fail(envelope: Any) -> Any:
            raise LookupError("broken")

        for answer, wait in ((fail, 0.0), (lambda envelope: Deferred(), 61.0), (lambda envelope: "nonsense", 0.0)):
            self.handler.answer = answer
            self.accept()
            deliverer = self.deliver()
            self.pass_time(wait)
            self.assertEqual(len(self.queue.waiting()), 1)
            self.assertEqual(deliverer.figures["deferred"], 1)
            self.successResultOf(Deferred.fromCoroutine(deliverer.stop()))
            self.queue = MemoryQueue(self.clock)
        self.assertEqual(len(self.flushLoggedErrors()), 2)


class AgeTests(DelivererCase):
    def notices(self) -> list[Any]:
        return [message_from_bytes(one, policy=policy.default) for one in self.handler.messages if one != CONTENT]

    def test_a_warning_after_four_hours_and_a_bounce_after_five_days(self) -> None:
        def answer(envelope: Any) -> str:
            return "250 OK" if envelope.mail_from == "<>" else "450 4.2.1 busy"

        self.handler.answer = answer
        self.accept()
        self.deliver()
        self.pass_time(4 * HOUR - 60, 30)
        self.assertEqual(self.notices(), [])
        self.pass_time(HOUR + 120, 30)
        (warning,) = self.notices()
        self.assertEqual(warning["subject"], "Delayed mail (still being retried)")
        self.pass_time(5 * DAY - 6 * HOUR, 300)
        self.assertEqual(len(self.notices()), 1)
        self.pass_time(2 * HOUR, 30)
        _, bounce = self.notices()
        self.assertEqual(bounce["subject"], "Undelivered mail returned to sender")
        self.assertIn("Status: 4.4.7", str(bounce))
        self.assertEqual(self.queue.waiting(), [])

    def test_nothing_is_given_up_just_after_a_start(self) -> None:
        """After a week without power, the next host may be starting as well."""
        self.handler.answer = lambda envelope: UNREACHABLE
        self.accept(may_bounce=False)
        self.clock.advance(7 * DAY)
        self.deliver()
        self.pass_time(HOUR - 60, 30)
        self.assertEqual((len(self.queue.waiting()), len(self.queue.dead())), (1, 0))
        self.pass_time(HOUR + SWEEP, 30)
        self.assertEqual((len(self.queue.waiting()), len(self.queue.dead())), (0, 1))

    def test_those_for_a_host_that_is_down_are_warned_and_given_up_as_well(self) -> None:
        self.handler.answer = lambda envelope: UNREACHABLE
        for number in range(100):
            self.accept(f"{number}@b.example", may_bounce=False)
        self.deliver()
        self.pass_time(5 * DAY + 2000, 300)
        self.assertEqual((self.queue.waiting(), len(self.queue.dead())), ([], 100))


class PlaceTests(DelivererCase):
    def test_a_host_that_is_down_is_tried_with_one_message(self) -> None:
        self.handler = OneHost()
        self.handler.answer = lambda envelope: UNREACHABLE
        for number in range(100):
            self.accept(f"{number}@b.example")
        self.deliver(concurrency=5)
        self.assertEqual(len(self.handler.seen), 1)
        self.pass_time(12)
        self.assertEqual(len(self.handler.seen), 2)
        # 8 to 10 seconds, 16 to 20, 32 to 40.
        self.pass_time(60)
        self.assertEqual(len(self.handler.seen), 4)
        self.handler.answer = lambda envelope: "250 OK"
        self.pass_time(400)
        self.assertEqual(self.queue.waiting(), [])

    def test_a_destination_that_hangs_holds_up_no_other(self) -> None:
        self.handler.answer = lambda envelope: Deferred() if "slow" in envelope.rcpt_tos[0] else "250 OK"
        for number in range(200):
            self.accept(f"{number}@slow.example")
        for number in range(30):
            self.accept(f"{number}@quick.example")
        self.deliver(concurrency=4)
        self.pass_time(30)
        self.assertEqual(len([one for one in self.handler.seen if "quick" in one]), 30)
        self.assertEqual(len([one for one in self.handler.seen if "slow" in one]), 2)

    def test_destinations_that_can_not_be_reached_are_not_remembered_without_end(self) -> None:
        self.patch(module, "MAX_PLACES", 5)
        self.handler.answer = lambda envelope: UNREACHABLE
        for number in range(40):
            self.accept(f"b@{number}.example")
        deliverer = self.deliver()
        self.pass_time(5)
        self.assertEqual(len(set(self.handler.seen)), 40)
        self.assertLessEqual(len(deliverer._places), 5)

    def test_no_more_at_a_time_than_allowed(self) -> None:
        self.handler = OneHost()
        self.handler.answer = lambda envelope: Deferred()
        for number in range(50):
            self.accept(f"{number}@b.example")
        self.deliver(concurrency=7)
        self.pass_time(3)
        self.assertEqual(len(self.handler.seen), 7)

    def test_a_thousand_that_need_no_waiting(self) -> None:
        for number in range(1000):
            self.accept(f"{number}@b.example")
        self.deliver()
        self.pass_time(100)
        self.assertEqual((len(self.handler.seen), self.queue.waiting()), (1000, []))


class TroubleTests(DelivererCase):
    def test_an_outcome_that_can_not_be_noted_is_noted_later_and_nothing_is_delivered_twice(self) -> None:
        self.queue.failing = [OSError("disk full")] * 3
        self.accept()
        self.deliver()
        self.pass_time(3 * AGAIN + 1)
        self.assertEqual((len(self.handler.seen), self.queue.waiting()), (1, []))

    def test_a_queue_that_can_not_be_read_is_one_line_and_tried_again(self) -> None:
        take, broken = self.queue.take, [True]

        async def fail(*arguments: Any) -> Any:
            if broken:
                raise DatabaseDamaged("spool/queue.db is damaged")
            return await take(*arguments)

        self.patch(self.queue, "take", fail)
        self.accept()
        self.deliver()
        self.pass_time(20)
        lines = [line for line in self.log if "can't be read" in line]
        self.assertEqual((len(lines), "spool/queue.db is damaged" in lines[0]), (1, True))
        broken.clear()
        self.pass_time(2)
        self.assertEqual((len(self.handler.seen), self.queue.waiting()), (1, []))

    def test_a_damaged_message_is_held_and_the_others_are_delivered(self) -> None:
        bad, _ = self.accept("bad@b.example"), self.accept("good@b.example")
        self.queue.damaged[bad] = DamagedMessage("the content is damaged")
        self.deliver()
        self.pass_time(3)
        self.assertEqual(self.handler.seen, ["good@b.example"])
        self.assertEqual(self.queue.waiting(), [("anne@a.example", "bad@b.example")])
        self.assertIn(f"{bad}: the content is damaged; it is held", self.log)

    def test_a_message_that_can_not_be_read_now_is_tried_later(self) -> None:
        bad = self.accept()
        self.queue.damaged[bad] = PermissionError("no")
        self.deliver()
        del self.queue.damaged[bad]
        self.pass_time(12)
        self.assertEqual((len(self.handler.seen), self.queue.waiting()), (1, []))

    def test_stop_waits_a_moment_then_gives_back(self) -> None:
        ends: list[Deferred[str]] = []
        self.handler.answer = lambda envelope: ends.append(Deferred()) or ends[-1]  # type: ignore[func-returns-value]
        self.accept("quick@b.example")
        self.accept("slow@c.example")
        deliverer = self.deliver()
        stopping = Deferred.fromCoroutine(deliverer.stop())
        ends[self.handler.seen.index("quick@b.example")].callback("250 OK")
        self.assertNoResult(stopping)
        self.clock.advance(GRACE)
        self.successResultOf(stopping)
        self.assertEqual(self.queue.waiting(), [("anne@a.example", "slow@c.example")])
        self.assertEqual((self.queue.taken, self.clock.getDelayedCalls()), ({}, []))
