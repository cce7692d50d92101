"""Takes messages out of a broker and has a handler consume them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_smtpd.broker.claims import ClaimStore
from twisted_smtpd.broker.queue import AMQPQueue
from twisted_smtpd.queue.consumer import Consumer as HandlerConsumer
from twisted_smtpd.queue.delivery import Deliverer
from twisted_smtpd.queue.schedule import Schedule
from twisted_smtpd.runtime.handler_check import check_handler
from twisted_smtpd.runtime.host_name import own_name
from twisted_smtpd.runtime.lifecycle import HandlerUse, ServerInfo
from twisted_smtpd.runtime.reactors import running_loop

__all__ = ["Consumer"]

log = Logger()


class Consumer(Service):
    """Delivers messages that :class:`~twisted_smtpd.broker.AMQP` has put into a broker.

    The handler's hooks are called as in a :class:`~twisted_smtpd.queue.Queue`.  A message whose recipients are all
    settled is acknowledged; one that has to wait goes into a queue for that, and comes back; one for whose failure
    has no sender to tell goes into the queue of the dead.  Bounces are messages in the same queue.

    Several consumers, on this machine or others, share the messages.  One that ends without a word loses none: the
    broker hands its messages to the others.

    :param urls: the nodes, ``amqp://USER:PASSWORD@HOST:PORT/VHOST``.
    :param handler: consumes the messages.
    :param name: the queue's name in the broker.
    :param schedule: when a message is tried again, and given up.
    :param claims: where large messages are.
    :param deliveries: how many deliveries are made at the same time.
    :param delivery_timeout: seconds that one may take.
    :param hostname: the server's name; that of this machine by default.
    :param reactor: the reactor, if not the global one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        handler: Any,
        name: str = "mail",
        *,
        schedule: Schedule | None = None,
        claims: ClaimStore | None = None,
        deliveries: int = 20,
        delivery_timeout: float = 900.0,
        hostname: str | None = None,
        reactor: Any = None,
    ) -> None:
        if deliveries < 1:
            raise ValueError(f"deliveries must be 1 or more, not {deliveries}")
        check_handler(handler)
        self.handler = handler
        self._urls, self._name, self._claims = list(urls), name, claims
        self._schedule = schedule or Schedule()
        self._concurrency, self._timeout = deliveries, delivery_timeout
        self._hostname, self._reactor = hostname or own_name(), reactor
        self._use = HandlerUse(handler)
        self._queue: AMQPQueue | None = None
        self._deliverer: Deliverer | None = None

    def startService(self) -> Deferred[None]:
        """Begin to deliver.

        :returns: fires when the broker and the handler are ready; fails if one of them is not.
        """
        super().startService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        await self._use.start(ServerInfo(self._hostname, (), self._reactor, {}))
        consumer = HandlerConsumer(
            self.handler,
            self._hostname,
            "twisted-smtpd",
            timeout=self._timeout,
            clock=self._reactor,
            loop=running_loop(),
        )
        self._queue = AMQPQueue(
            self._urls,
            self._name,
            reactor=self._reactor,
            consume=self._wake,
            prefetch=self._concurrency,
            claims=self._claims,
        )
        self._deliverer = Deliverer(
            self._queue, consumer, self._schedule, clock=self._reactor, concurrency=self._concurrency
        )
        self._deliverer.start()
        try:
            await self._queue.start()
        except BaseException:
            await self._stop()
            raise
        log.info("messages of {queue} go to the handler {name}", queue=self._queue, name=type(self.handler).__name__)

    def _wake(self) -> None:
        if self._deliverer is not None:
            self._deliverer.wake()

    @property
    def figures(self) -> dict[str, int]:
        """What was delivered since the start."""
        return {} if self._deliverer is None else dict(self._deliverer.figures)

    def stopService(self) -> Deferred[None]:
        """End the deliveries under way, and leave the others to the broker.

        :returns: fires when that is done.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        deliverer, self._deliverer = self._deliverer, None
        if deliverer is not None:
            await deliverer.stop()
        await self._use.stop()
        queue, self._queue = self._queue, None
        if queue is not None:
            await queue.close()
