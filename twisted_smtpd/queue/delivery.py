"""Takes what is due from a queue, has it consumed, and notes what has become of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from twisted_smtpd.queue.bounces import DELAYED, DELIVERED, FAILED, RELAYED, Kind, make_notice, wants
from twisted_smtpd.queue.consumer import Consumer
from twisted_smtpd.queue.disk import DamagedMessage
from twisted_smtpd.queue.entries import Delivery, NewMessage, Outcome, Usage
from twisted_smtpd.queue.schedule import Schedule
from twisted_smtpd.runtime.awaiting import CANCELLED
from twisted_smtpd.wire.escaping import quoted_text
from twisted_smtpd.wire.replies import Reply

__all__ = ["Deliverer"]

log = Logger()

# Deliveries that wait in memory for their turn.
READY = 64
# Destinations that are remembered because they could not be reached.
MAX_PLACES = 10_000
# Octets of messages that are being delivered at the same time, unless it is one message alone.
MAX_OCTETS = 64 * 2**20
# Seconds between two looks at what is due, and at what has waited for long; and before a queue that fails is asked
# again.
TICK, SWEEP, AGAIN = 1.0, 60.0, 5.0
# Seconds that deliveries have to finish when the server stops.
GRACE = 5.0
_UNREADABLE = Reply(451, "4.3.0", ("The message can't be read",))


class _Place:
    """What is known of a destination.

    :ivar active: deliveries to it at the moment.
    :ivar failures: how often it could not be reached in a row.
    :ivar until: when it is tried again.
    :ivar reply: why it could not be reached.
    :ivar ready: deliveries that wait for their turn.
    """

    def __init__(self) -> None:
        self.active = self.failures = 0
        self.until = 0.0
        self.reply: Reply | None = None
        self.ready: deque[Delivery] = deque()


def _unreachable(replies: list[Reply]) -> bool:
    """Whether the next host could not be asked at all: then it isn't for any other message either."""
    return all(
        reply.code // 100 == 4 and (reply.enhanced in ("4.3.2", "4.3.5") or (reply.enhanced or "").startswith("4.4."))
        for reply in replies
    )


class Deliverer:
    """Delivers what is due.

    * Destinations take turns, and one of several has half of the deliveries at most.
    * One that can't be reached is tried with one message at a time, at the intervals of the schedule; when it is back,
      all its messages are due.

    :param queue: the queue.
    :param consumer: consumes the deliveries.
    :param schedule: when a delivery is tried again.
    :param clock: the provider of time.
    :param concurrency: deliveries at the same time.
    """

    def __init__(
        self, queue: Any, consumer: Consumer, schedule: Schedule, *, clock: Any, concurrency: int = 20
    ) -> None:
        self._queue, self._consumer, self._schedule, self._clock = queue, consumer, schedule, clock
        self._concurrency = concurrency
        self._per_place = concurrency if consumer.one_next_host else max(1, concurrency // 2)
        self._places: dict[str, _Place] = {}
        self._deliveries: dict[int, Deferred[None]] = {}
        self._octets = 0
        self._asked: int | None = None
        self._began = 0.0
        self._stopped = True
        self._looking = self._look_again = self._failing = False
        self._timers: dict[str, Any] = {}
        self._sweeping: Deferred[None] | None = None
        #: What has been done since the start, and how full the queue was when it was last looked at.
        self.figures = {"delivered": 0, "deferred": 0, "failed": 0, "notices": 0}

    def start(self) -> None:
        """Begin to deliver."""
        self._stopped = False
        self._began = self._queue.now()
        self._tick()
        self._sweep()

    async def stop(self) -> None:
        """Take nothing more, and end what is under way: what is not done then is done again after the next start."""
        self._stopped = True
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        for place in self._places.values():
            self._give_back_ready(place)
        pending = list(self._deliveries.values())
        if self._sweeping is not None:
            pending.append(self._sweeping)
        if pending:
            ending = self._clock.callLater(GRACE, _cancel, pending)
            await DeferredList([_watched(one) for one in pending], consumeErrors=True)
            if ending.active():
                ending.cancel()

    def wake(self) -> None:
        """A message has come in."""
        if len(self._deliveries) < self._concurrency:
            self._look()

    # -- what is due ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timers["tick"] = self._clock.callLater(TICK, self._tick)
        self._look()
        usage: Deferred[Usage] = maybeDeferred(self._queue.usage)
        usage.addCallback(self._note_usage).addErrback(lambda _: None)

    def _look(self) -> None:
        """Take what is due, if there is room for it."""
        if self._stopped:
            return
        if self._looking:
            self._look_again = True
            return
        self._looking, self._look_again = True, False
        looking = Deferred.fromCoroutine(self._take())
        looking.addErrback(self._not_taken).addBoth(self._looked)

    def _not_taken(self, failure: Any) -> None:
        """One line until it works again: it is tried each second."""
        if not self._failing and failure.check(*CANCELLED) is None:
            log.error("{queue} can't be read: {error}", queue=self._queue, error=failure.value)
        self._failing = True

    async def _take(self) -> None:
        waiting = sum(len(place.ready) for place in self._places.values())
        if waiting < READY // 2:
            skip = {name for name, place in self._places.items() if self._is_full(place)}
            for delivery in await self._queue.take(READY - waiting, skip):
                if self._stopped:
                    self._queue.give_back(delivery)
                else:
                    self._places.setdefault(delivery.destination, _Place()).ready.append(delivery)
            self._failing = False

    def _looked(self, _: object) -> None:
        self._looking = False
        self._forget_places()
        self._fill()
        if self._look_again:
            self._look()

    def _is_full(self, place: _Place) -> bool:
        return len(place.ready) >= READY // 4 or not self._may_begin(place)

    def _may_begin(self, place: _Place) -> bool:
        if place.failures:
            return not place.active and self._queue.now() >= place.until
        return place.active < self._per_place

    def _note_usage(self, usage: Usage) -> None:
        if self._asked is not None and usage.asked != self._asked:
            for place in self._places.values():
                place.until = self._queue.now()
        self._asked = usage.asked
        figures = {"messages": usage.messages, "octets": usage.octets, "age": int(usage.oldest)}
        self.figures.update(figures)

    def _fill(self) -> None:
        """Begin deliveries, from each destination in turn."""
        began = True
        while began and not self._stopped:
            began = False
            for name, place in list(self._places.items()):
                if not place.ready:
                    if not place.active and not place.failures:
                        del self._places[name]
                    continue
                if len(self._deliveries) >= self._concurrency:
                    return
                size = place.ready[0].size
                if self._may_begin(place) and (self._octets + size <= MAX_OCTETS or not self._deliveries):
                    self._begin(place, place.ready.popleft())
                    # Behind the others.
                    self._places[name] = self._places.pop(name)
                    began = True

    def _forget_places(self) -> None:
        """Forget destinations that could not be reached, beyond a number: those that are due first."""
        surplus = len(self._places) - MAX_PLACES
        if surplus > 0:
            idle = [name for name, place in self._places.items() if not place.active and not place.ready]
            for name in sorted(idle, key=lambda name: self._places[name].until)[:surplus]:
                del self._places[name]

    def _begin(self, place: _Place, delivery: Delivery) -> None:
        place.active += 1
        self._octets += delivery.size
        working: Deferred[None] = Deferred.fromCoroutine(self._deliver(place, delivery))
        self._deliveries[delivery.number] = working
        working.addErrback(self._interrupted, delivery)
        working.addCallback(self._ended, place, delivery)

    def _interrupted(self, failure: Any, delivery: Delivery) -> None:
        self._queue.give_back(delivery)
        if failure.check(*CANCELLED) is None:
            log.failure("{id}: the delivery failed", failure, id=delivery.id)

    def _ended(self, _: object, place: _Place, delivery: Delivery) -> None:
        place.active -= 1
        self._octets -= delivery.size
        self._deliveries.pop(delivery.number, None)
        # Not in this call: thousands of deliveries that need no waiting would be so many calls deep.
        self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._fill()
        if len(self._deliveries) < self._concurrency:
            self._look()

    def _give_back_ready(self, place: _Place) -> None:
        while place.ready:
            self._queue.give_back(place.ready.popleft())

    # -- one delivery --------------------------------------------------------------------------------------------------

    async def _deliver(self, place: _Place, delivery: Delivery) -> None:
        content = await self._content(delivery)
        if content is None:
            return
        replies = await self._consumer.give(delivery, content)
        self._note_reached(place, replies)
        await self._settle(delivery, content, replies)

    async def _content(self, delivery: Delivery) -> bytes | None:
        """The message; ``None`` if there is none to deliver: then the delivery has ended."""
        try:
            content: bytes | None = await self._queue.content(delivery)
        except DamagedMessage as error:
            log.error("{id}: {error}; it is held", id=delivery.id, error=error)
            await self._queue.hold(delivery)
            return None
        except OSError as error:
            log.error("{id}: {error}", id=delivery.id, error=error)
            await self._settle(delivery, b"", [_UNREADABLE] * len(delivery.recipients))
            return None
        if content is None:
            self._queue.give_back(delivery)
        return content

    def _note_reached(self, place: _Place, replies: list[Reply]) -> None:
        if not _unreachable(replies):
            place.failures, place.reply = 0, None
        elif self._queue.now() >= place.until or not place.failures:
            # Deliveries that have failed at the same time count once.
            place.failures += 1
            place.until = self._queue.now() + self._schedule.wait(place.failures)
            place.reply = replies[0]
            self._give_back_ready(place)

    async def _settle(self, delivery: Delivery, content: bytes, replies: list[Reply]) -> None:
        """Note the outcome; as long as that fails, the delivery is not over, or it would be made again."""
        now = self._queue.now()
        outcomes, notices, warned = self._judge(delivery, content, replies, now)
        due = now + self._schedule.wait(delivery.attempts + 1)
        told = False
        while True:
            try:
                await self._queue.settle(delivery, outcomes, due, notices, warned)
                break
            except CANCELLED:
                raise
            except Exception as error:
                if not told:
                    log.error("{id}: the outcome can't be noted yet: {error}", id=delivery.id, error=error)
                    told = True
                if self._stopped:
                    self._queue.give_back(delivery)
                    return
                await _sleep(self._clock, AGAIN)
        self._report(delivery, outcomes, notices)

    def _report(self, delivery: Delivery, outcomes: Mapping[int, Outcome], notices: list[NewMessage]) -> None:
        names = {"delivered": "delivered", "later": "deferred"}
        for position, outcome in outcomes.items():
            self.figures[names.get(outcome.kind, "failed")] += 1
            log.info(
                "{id}: {kind} {address} {reply}",
                id=delivery.id,
                kind={"later": "deferred", "dead": "failed, no sender to tell"}.get(outcome.kind, outcome.kind),
                address=quoted_text(delivery.recipients[position].address),
                reply=quoted_text(outcome.reply),
            )
        self.figures["notices"] += len(notices)

    # -- verdicts ------------------------------------------------------------------------------------------------------

    def _judge(
        self, delivery: Delivery, content: bytes, replies: list[Reply], now: float
    ) -> tuple[dict[int, Outcome], list[NewMessage], bool]:
        """What becomes of each recipient, the notices, and whether one of them warns of a delay."""
        age = now - delivery.arrived
        # The next host may be starting as well: after a start nothing is given up before it has been tried again.
        expired = age >= self._schedule.expiry and now - self._began >= self._schedule.longest
        late = 0 < self._schedule.warning <= age and not delivery.warned
        outcomes: dict[int, Outcome] = {}
        told: dict[Kind, dict[int, Reply]] = {}
        for (position, recipient), reply in zip(delivery.recipients.items(), replies, strict=True):
            if reply.code < 300:
                outcomes[position] = Outcome("delivered", reply)
                kind = {"delivered": DELIVERED, "relayed": RELAYED}.get(self._consumer.success)
            elif reply.code >= 500 or expired:
                kind = FAILED
                outcomes[position] = Outcome("bounced" if self._may_tell(delivery) else "dead", reply)
                if not wants(recipient, FAILED):
                    outcomes[position] = Outcome("bounced", reply)
            else:
                outcomes[position] = Outcome("later", reply)
                kind = DELAYED if late else None
            if kind is not None and wants(recipient, kind) and self._may_tell(delivery):
                told.setdefault(kind, {})[position] = _expired(reply) if kind is FAILED and reply.code < 500 else reply
        notices = [
            make_notice(
                kind,
                delivery,
                about,
                content,
                hostname=self._consumer.hostname,
                now=now,
                until=delivery.arrived + self._schedule.expiry,
                destination=self._consumer.destination(delivery.sender),
            )
            for kind, about in told.items()
        ]
        return outcomes, notices, late

    def _may_tell(self, delivery: Delivery) -> bool:
        """Whether a notice may be sent: not to the null sender, nor to an address that anybody may have put there."""
        return bool(delivery.sender and delivery.facts.get("may_bounce"))

    # -- what has waited for long --------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        self._timers["sweep"] = self._clock.callLater(SWEEP, self._sweep)
        if self._sweeping is None:
            sweeping: Deferred[None] = Deferred.fromCoroutine(self._sweep_places())
            self._sweeping = sweeping
            sweeping.addErrback(self._sweep_failed).addBoth(self._swept)

    def _sweep_failed(self, failure: Any) -> None:
        if failure.check(*CANCELLED) is None:
            log.error("{queue}: {error}", queue=self._queue, error=failure.value)

    def _swept(self, _: object) -> None:
        self._sweeping = None

    async def _sweep_places(self) -> None:
        """Give up, or tell the senders of, messages for destinations that can't be reached: few of them are tried."""
        for age, warned in ((self._schedule.expiry, True), (self._schedule.warning, False)):
            while not self._stopped and age:
                among = {name for name, place in self._places.items() if place.reply is not None}
                found = await self._queue.overdue(age, warned, READY, among) if among else []
                for delivery in found:
                    await self._settle_unreached(delivery)
                if len(found) < READY:
                    break

    async def _settle_unreached(self, delivery: Delivery) -> None:
        place = self._places.get(delivery.destination)
        reply = place.reply if place is not None else None
        content = await self._content(delivery)
        if content is None:
            return
        if reply is None:
            self._queue.give_back(delivery)
            return
        await self._settle(delivery, content, [reply] * len(delivery.recipients))


def _expired(reply: Reply) -> Reply:
    """What the sender is told of a message that was tried for too long."""
    return Reply(reply.code, "4.4.7", (f"Delivery time expired; the last answer was: {reply.code}", *reply.lines))


def _cancel(pending: list[Deferred[None]]) -> None:
    for one in pending:
        one.cancel()


def _watched(one: Deferred[None]) -> Deferred[None]:
    """Fires when another Deferred does, and leaves that one alone."""
    watching: Deferred[None] = Deferred()

    def fire(result: Any) -> Any:
        watching.callback(None)
        return result

    one.addBoth(fire)
    return watching


def _sleep(clock: Any, seconds: float) -> Deferred[None]:
    timer: Any = None
    sleeping: Deferred[None] = Deferred(lambda _: timer.cancel())
    timer = clock.callLater(seconds, sleeping.callback, None)
    return sleeping
