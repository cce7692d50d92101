"""A queue whose messages are in a broker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32

from pika import BasicProperties
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from twisted_smtpd.broker.claims import ClaimStore
from twisted_smtpd.broker.errors import BrokerError
from twisted_smtpd.broker.format import CONTENT_TYPE, VERSION, FormatError, Packed, decode, pack
from twisted_smtpd.broker.link import Link
from twisted_smtpd.broker.topology import Topology
from twisted_smtpd.queue.disk import DamagedMessage
from twisted_smtpd.queue.entries import Delivery, NewMessage, Outcome, Usage, new_id
from twisted_smtpd.queue.interfaces import IQueue
from twisted_smtpd.session import Recipient

__all__ = ["AMQPQueue"]

log = Logger()

#: Octets of a message that goes through the broker itself: RabbitMQ 4 takes 16 MiB at most.
MAX_BODY = 8 * 2**20
#: Seconds in which the broker has to confirm a message.
TIMEOUT = 30.0
# Seconds between two attempts to connect a consumer.
_PAUSE = 2.0


class _Taken:
    """A message that the broker has handed to us.

    :ivar channel: the channel it came by; when that is closed, the broker hands it to somebody again.
    :ivar tag: names it there.
    """

    __slots__ = ("channel", "packed", "tag")

    def __init__(self, channel: Any, tag: int, packed: Packed) -> None:
        self.channel, self.tag, self.packed = channel, tag, packed


@implementer(IQueue)
class AMQPQueue:
    """Keeps messages in quorum queues of RabbitMQ.  It needs ``pika``.

    A message is durable when most nodes have it.  Its deliveries have one destination: all recipients together.

    :param urls: the nodes, ``amqp://USER:PASSWORD@HOST:PORT/VHOST``; they are used in turn.
    :param name: the name of the queue in the broker.
    :param reactor: the reactor.
    :param consume: called when there are deliveries to be taken; ``None`` for a front end, which takes none.
    :param prefetch: how many messages are taken from the broker before they are settled.
    :param claims: keeps messages above ``max_body``; without it, they are refused.
    :param max_body: octets of a message that goes through the broker itself.
    :param timeout: seconds in which the broker has to confirm a message; less than the server's ``hook_timeout``.
    """

    def __init__(
        self,
        urls: Sequence[str],
        name: str = "mail",
        *,
        reactor: Any,
        consume: Callable[[], object] | None = None,
        prefetch: int = 20,
        claims: ClaimStore | None = None,
        max_body: int = MAX_BODY,
        timeout: float = TIMEOUT,
    ) -> None:
        self.topology = Topology(name)
        self._reactor, self._consume, self._prefetch = reactor, consume, prefetch
        self._claims, self._max_body, self._timeout = claims, max_body, timeout
        self._link = Link(urls, reactor, self._prepare)
        self._started, self._start_time = reactor.seconds(), time.time()
        self._ready: deque[Delivery] = deque()
        self._taken: dict[int, _Taken] = {}
        self._number = 0
        self._closed = False
        self._again: Any = None
        #: What has happened since the start.
        self.figures = {"published": 0, "failed": 0}

    def __repr__(self) -> str:
        return f"<AMQPQueue {self.topology.name} at {self._link.place}>"

    @property
    def connects(self) -> int:
        """How often a node was connected to."""
        return self._link.connects

    async def start(self) -> None:
        """Connect, and begin to take messages if they are wanted.

        :raises BrokerError: no node can be reached.
        """
        await self._link.channel()

    async def _prepare(self, channel: Any) -> None:
        await self.topology.declare(channel)
        if self._consume is None:
            return
        # What came by the channel before is handed out again.
        self._ready.clear()
        self._taken = {number: one for number, one in self._taken.items() if one.channel.is_open}
        await channel.basic_qos(prefetch_count=self._prefetch)
        arriving, _ = await channel.basic_consume(self.topology.name)
        reading = Deferred.fromCoroutine(self._read(channel, arriving))
        reading.addErrback(lambda failure: failure.trap(CancelledError))

    async def _read(self, channel: Any, arriving: Any) -> None:
        """Take what arrives, until the channel is closed; then connect again."""
        while True:
            try:
                _, method, _, body = await arriving.get()
            except Exception:
                break
            await self._arrived(channel, method.delivery_tag, body)
        if not self._closed:
            self._connect_again()

    def _connect_again(self) -> None:
        if self._closed:
            return
        connecting = Deferred.fromCoroutine(self._link.channel())
        connecting.addErrback(self._not_connected)

    def _not_connected(self, failure: Any) -> None:
        if not self._closed:
            log.error("{error}; tried again in {pause:g} s", error=failure.value, pause=_PAUSE)
            self._again = self._reactor.callLater(_PAUSE, self._connect_again)

    async def _arrived(self, channel: Any, tag: int, body: bytes) -> None:
        try:
            packed = decode(body)
        except FormatError as error:
            log.error("what is no message is put into {dead}: {error}", dead=self.topology.dead, error=error)
            try:
                await self._publish(self.topology.dead, body, "")
                channel.basic_ack(tag)
            except Exception as failure:
                log.error("it could not be put there: {failure}", failure=failure)
            return
        self._number += 1
        self._taken[self._number] = _Taken(channel, tag, packed)
        self._ready.append(self._delivery(self._number, packed))
        assert self._consume is not None
        self._consume()

    def _delivery(self, number: int, packed: Packed) -> Delivery:
        return Delivery(
            number,
            number,
            packed.id,
            packed.arrived,
            packed.sender,
            packed.size,
            packed.checksum,
            packed.facts,
            "",
            packed.attempts,
            packed.warned,
            dict(enumerate(packed.recipients)),
            packed.last_reply,
            None if packed.claim is not None else packed.content,
        )

    # -- IQueue --------------------------------------------------------------------------------------------------------

    async def accept(self, message: NewMessage) -> str:
        now = self.now()
        id = new_id(now)
        packed = pack(message, id, now)
        if packed.size > self._max_body:
            if self._claims is None:
                raise BrokerError(f"a message of {packed.size:,} octets, and there is no place for large ones")
            claim = await deferToThread(self._claims.put, id, message.content)
            packed = packed.left_to(packed.recipients, claim=claim, content=b"")
        try:
            await self._publish(self.topology.name, packed.encode(), id)
        except BaseException:
            self.figures["failed"] += 1
            # A claim stays: the broker may have the message all the same.
            raise
        self.figures["published"] += 1
        return id

    async def _publish(self, queue: str, body: bytes, id: str) -> None:
        properties = BasicProperties(
            content_type=CONTENT_TYPE,
            delivery_mode=2,
            message_id=id,
            timestamp=int(self.now()),
            headers={"version": VERSION},
            app_id="twisted-smtpd",
        )
        await self._link.publish(queue, body, properties, self._timeout)

    async def take(self, limit: int, skip: Any = frozenset()) -> list[Delivery]:
        if "" in skip:
            return []
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    async def content(self, delivery: Delivery) -> bytes | None:
        taken = self._taken.get(delivery.number)
        if taken is None:
            return None
        content = delivery.content
        if content is None:
            if self._claims is None:
                raise OSError("the message is large, and there is no place for such")
            content = await deferToThread(self._claims.get, taken.packed.claim or "")
        if len(content) != delivery.size or crc32(content) != delivery.checksum:
            raise DamagedMessage("the message is not what was accepted")
        return content

    async def settle(
        self,
        delivery: Delivery,
        outcomes: Mapping[int, Outcome],
        due: float,
        notices: Iterable[NewMessage] = (),
        warned: bool = False,
    ) -> None:
        taken = self._taken.get(delivery.number)
        if taken is None or not taken.channel.is_open:
            # The broker hands the message out again: what was done here is done once more.
            self._taken.pop(delivery.number, None)
            return
        packed = taken.packed
        later, dead = (self._of_kind(delivery, outcomes, kind) for kind in ("later", "dead"))
        for notice in notices:
            await self.accept(notice)
        if later:
            reply = next(outcome.reply for outcome in outcomes.values() if outcome.kind == "later")
            again = packed.left_to(
                later, attempts=packed.attempts + 1, warned=packed.warned or warned, last_reply=str(reply)
            )
            await self._publish(self.topology.retry(due - self.now()), again.encode(), packed.id)
        if dead:
            reply = next(outcome.reply for outcome in outcomes.values() if outcome.kind == "dead")
            await self._publish(self.topology.dead, packed.left_to(dead, last_reply=str(reply)).encode(), packed.id)
        await self._end(delivery, keep_claim=bool(later or dead))

    def _of_kind(self, delivery: Delivery, outcomes: Mapping[int, Outcome], kind: str) -> list[Recipient]:
        return [delivery.recipients[position] for position, outcome in outcomes.items() if outcome.kind == kind]

    async def _end(self, delivery: Delivery, keep_claim: bool) -> None:
        taken = self._taken.pop(delivery.number)
        if taken.channel.is_open:
            taken.channel.basic_ack(taken.tag)
        if taken.packed.claim is not None and not keep_claim and self._claims is not None:
            try:
                await deferToThread(self._claims.delete, taken.packed.claim)
            except OSError as error:
                log.error("{id}: a large message is left over: {error}", id=delivery.id, error=error)

    async def hold(self, delivery: Delivery) -> None:
        taken = self._taken.get(delivery.number)
        if taken is not None:
            await self._publish(self.topology.dead, taken.packed.encode(), delivery.id)
            await self._end(delivery, keep_claim=True)

    def give_back(self, delivery: Delivery) -> None:
        if delivery.number in self._taken:
            self._ready.append(delivery)

    async def overdue(self, age: float, warned: bool, limit: int, among: Any) -> list[Delivery]:
        """Of those that were taken from the broker; the others follow when these are settled."""
        if "" not in among:
            return []
        now = self.now()
        found = [one for one in self._ready if now - one.arrived >= age and (warned or not one.warned)][:limit]
        for one in found:
            self._ready.remove(one)
        return found

    async def usage(self) -> Usage:
        channel = await self._link.channel()
        declared = await channel.queue_declare(self.topology.name, passive=True)
        return Usage(declared.method.message_count + len(self._taken), 0, 0.0)

    def now(self) -> float:
        return float(self._start_time + self._reactor.seconds() - self._started)

    async def close(self) -> None:
        self._closed = True
        if self._again is not None and self._again.active():
            self._again.cancel()
        await self._link.close()
