"""Tests for :class:`twisted_smtpd.broker.queue.AMQPQueue`, on a broker in memory."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.test_format import CONTENT, RECIPIENTS, message
from twisted_smtpd.broker import queue as module
from twisted_smtpd.broker.claims import FolderClaims
from twisted_smtpd.broker.errors import BrokerError
from twisted_smtpd.broker.format import Packed, decode
from twisted_smtpd.broker.queue import AMQPQueue
from twisted_smtpd.queue.disk import DamagedMessage
from twisted_smtpd.queue.entries import Delivery, Outcome
from twisted_smtpd.queue.interfaces import IQueue
from twisted_smtpd.wire.replies import Reply

OK, LATER, NO = Reply(250, None, ("OK",)), Reply(451, None, ("later",)), Reply(550, None, ("no",))


class Channel:
    """A channel of pika's adapter."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.is_open = broker, True
        self.acked: list[int] = []

    def queue_declare(self, name: str, passive: bool = False, **options: Any) -> Deferred[Any]:
        count = len(self.broker.queues.setdefault(name, deque()))
        method = type("Method", (), {"message_count": count})
        return succeed(type("Declared", (), {"method": method}))

    def basic_qos(self, prefetch_count: int) -> Deferred[None]:
        return succeed(None)

    def basic_consume(self, name: str) -> Deferred[Any]:
        self.arriving: DeferredQueue[Any] = DeferredQueue()
        return succeed((self.arriving, "tag"))

    def basic_ack(self, tag: int) -> None:
        self.acked.append(tag)

    def hand_out(self, tag: int, body: bytes) -> None:
        self.arriving.put((self, type("Method", (), {"delivery_tag": tag}), None, body))


class Broker:
    """The link to a broker."""

    place, connects = "broker:5672", 1

    def __init__(self) -> None:
        self.queues: dict[str, deque[bytes]] = {}
        self.fails = False
        self.closed = False

    async def publish(self, queue: str, body: bytes, properties: Any, timeout: float) -> None:
        if self.fails:
            raise BrokerError("no confirmation")
        self.queues.setdefault(queue, deque()).append(body)

    async def channel(self) -> Channel:
        return self.open

    async def close(self) -> None:
        self.closed = True


class QueueCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.broker, self.woken = Clock(), Broker(), 0
        self.patch(module, "deferToThread", lambda function, *arguments: succeed(function(*arguments)))
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.queue = self.made(claims=FolderClaims(self.folder), max_body=100)
        self.channel = self.connect()

    def made(self, **options: Any) -> AMQPQueue:
        queue = AMQPQueue(["amqp://localhost"], reactor=self.clock, consume=self.wake, **options)
        queue._link = self.broker  # type: ignore[assignment]
        return queue

    def connect(self) -> Channel:
        self.broker.open = Channel(self.broker)
        self.wait(self.queue._prepare(self.broker.open))
        return self.broker.open

    def wake(self) -> None:
        self.woken += 1

    def wait(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fail_of(self, coroutine: Any, kind: type[Exception]) -> Exception:
        failure = self.failureResultOf(Deferred.fromCoroutine(coroutine), kind)
        assert isinstance(failure.value, kind)
        return failure.value

    def in_queue(self, name: str = "mail") -> list[Packed]:
        return [decode(body) for body in self.broker.queues.get(name, ())]

    def delivery(self, content: bytes = CONTENT, tag: int = 1) -> Delivery:
        """A message that was accepted, and that the broker has handed out."""
        self.wait(self.queue.accept(message(content)))
        self.channel.hand_out(tag, self.broker.queues["mail"].popleft())
        (delivery,) = self.wait(self.queue.take(10))
        assert isinstance(delivery, Delivery)
        return delivery

    def settle(self, delivery: Delivery, *outcomes: Outcome, due: float = 15.0, **options: Any) -> None:
        due += self.queue.now()
        self.wait(self.queue.settle(delivery, dict(enumerate(outcomes)), due, **options))


class AcceptTests(QueueCase):
    def test_it_is_a_queue(self) -> None:
        self.assertTrue(IQueue.providedBy(self.queue))

    def test_a_message_is_in_the_broker(self) -> None:
        id = self.wait(self.queue.accept(message()))
        (packed,) = self.in_queue()
        self.assertEqual((packed.id, packed.content, packed.claim), (id, CONTENT, None))
        self.assertEqual(self.queue.figures, {"published": 1, "failed": 0})

    def test_without_a_confirmation_it_is_not_accepted(self) -> None:
        self.broker.fails = True
        self.fail_of(self.queue.accept(message()), BrokerError)
        self.assertEqual(self.queue.figures, {"published": 0, "failed": 1})

    def test_a_large_message_is_beside_the_broker(self) -> None:
        large = b"x" * 101
        id = self.wait(self.queue.accept(message(large)))
        (packed,) = self.in_queue()
        self.assertEqual((packed.content, packed.size), (b"", 101))
        self.assertEqual((self.folder / id).read_bytes(), large)

    def test_without_a_place_for_it_it_is_refused(self) -> None:
        self.queue = self.made(max_body=100)
        self.fail_of(self.queue.accept(message(b"x" * 101)), BrokerError)
        self.wait(self.queue.accept(message(b"x" * 100)))


class ConsumeTests(QueueCase):
    def test_a_message_is_handed_on(self) -> None:
        delivery = self.delivery()
        self.assertEqual(self.woken, 1)
        self.assertEqual((delivery.sender, delivery.size, delivery.attempts), ("a@x.example", len(CONTENT), 0))
        self.assertEqual(delivery.recipients, dict(enumerate(RECIPIENTS)))
        self.assertEqual(self.wait(self.queue.content(delivery)), CONTENT)
        self.assertEqual(self.channel.acked, [])

    def test_when_all_are_settled_the_broker_forgets_it(self) -> None:
        self.settle(self.delivery(), Outcome("delivered", OK), Outcome("bounced", NO))
        self.assertEqual(self.channel.acked, [1])
        self.assertEqual(sum(map(len, self.broker.queues.values())), 0)

    def test_those_that_are_deferred_wait_in_the_broker(self) -> None:
        self.settle(self.delivery(), Outcome("delivered", OK), Outcome("later", LATER), due=22)
        (packed,) = self.in_queue("mail.retry.20")
        self.assertEqual([one.address for one in packed.recipients], ["ü@y.example"])
        self.assertEqual((packed.attempts, packed.content, packed.last_reply), (1, CONTENT, "451 later"))
        self.assertEqual(self.channel.acked, [1])

    def test_what_nobody_can_be_told_of_is_put_aside(self) -> None:
        self.settle(self.delivery(), Outcome("dead", NO), Outcome("delivered", OK))
        (packed,) = self.in_queue("mail.dead")
        self.assertEqual([one.address for one in packed.recipients], ["b@y.example"])
        self.assertEqual(self.channel.acked, [1])

    def test_notices_are_accepted_before_the_message_ends(self) -> None:
        delivery = self.delivery()
        self.settle(delivery, Outcome("bounced", NO), Outcome("delivered", OK), notices=[message(b"bounce")])
        self.assertEqual([packed.content for packed in self.in_queue()], [b"bounce"])

    def test_if_the_outcome_can_not_be_published_it_has_not_ended(self) -> None:
        delivery = self.delivery()
        self.broker.fails = True
        outcomes = {0: Outcome("later", LATER), 1: Outcome("delivered", OK)}
        self.fail_of(self.queue.settle(delivery, outcomes, 0.0), BrokerError)
        self.assertEqual(self.channel.acked, [])
        self.broker.fails = False
        self.wait(self.queue.settle(delivery, outcomes, 0.0))
        self.assertEqual(self.channel.acked, [1])

    def test_after_a_lost_connection_the_broker_hands_it_out_again(self) -> None:
        delivery = self.delivery()
        self.channel.is_open = False
        self.channel = self.connect()
        self.assertIsNone(self.wait(self.queue.content(delivery)))
        self.settle(delivery, Outcome("later", LATER), Outcome("bounced", NO), notices=[message(b"bounce")])
        self.assertEqual(sum(map(len, self.broker.queues.values())), 0)
        self.assertEqual(self.channel.acked, [])

    def test_one_that_is_given_back_is_taken_again(self) -> None:
        delivery = self.delivery()
        self.queue.give_back(delivery)
        self.assertEqual(self.wait(self.queue.take(10, frozenset([""]))), [])
        self.assertEqual(self.wait(self.queue.take(10)), [delivery])

    def test_a_large_one_is_deleted_with_its_end_only(self) -> None:
        delivery = self.delivery(b"x" * 101)
        self.assertEqual(self.wait(self.queue.content(delivery)), b"x" * 101)
        self.settle(delivery, Outcome("delivered", OK), Outcome("later", LATER))
        self.assertEqual(len(list(self.folder.iterdir())), 1)
        self.channel.hand_out(2, self.broker.queues["mail.retry.10"].popleft())
        (again,) = self.wait(self.queue.take(10))
        self.settle(again, Outcome("delivered", OK))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_damaged_one(self) -> None:
        delivery = self.delivery(b"x" * 101)
        (path,) = self.folder.iterdir()
        path.write_bytes(b"y" * 101)
        self.fail_of(self.queue.content(delivery), DamagedMessage)
        self.wait(self.queue.hold(delivery))
        self.assertEqual(len(self.in_queue("mail.dead")), 1)
        self.assertEqual((self.channel.acked, len(list(self.folder.iterdir()))), ([1], 1))

    def test_what_is_no_message_is_put_aside(self) -> None:
        self.channel.hand_out(7, b"nonsense")
        self.assertEqual(list(self.broker.queues["mail.dead"]), [b"nonsense"])
        self.assertEqual((self.channel.acked, self.woken), ([7], 0))

    def test_those_that_wait_for_long(self) -> None:
        delivery = self.delivery()
        self.queue.give_back(delivery)
        self.clock.advance(100)
        self.assertEqual(self.wait(self.queue.overdue(200, True, 10, {""})), [])
        self.assertEqual(self.wait(self.queue.overdue(50, True, 10, set())), [])
        self.assertEqual(self.wait(self.queue.overdue(50, True, 10, {""})), [delivery])
        self.assertEqual(self.wait(self.queue.take(10)), [])

    def test_how_many_there_are(self) -> None:
        self.delivery()
        self.wait(self.queue.accept(message()))
        self.assertEqual(self.wait(self.queue.usage()).messages, 2)

    def test_the_end(self) -> None:
        self.wait(self.queue.close())
        self.assertTrue(self.broker.closed)
