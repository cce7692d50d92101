"""The handler that queues messages for another one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from twisted.logger import Logger
from zope.interface import alsoProvides, implementer

from twisted_smtpd.handlers.chain import PASS, Chain
from twisted_smtpd.handlers.listed import Recipients, Senders
from twisted_smtpd.handlers.received import count_received
from twisted_smtpd.handlers.registry import make_handler
from twisted_smtpd.interfaces import (
    HookServer,
    IDATAHandler,
    IMAILHandler,
    IMeasured,
    IOffersServices,
    IPreceded,
    IReloadable,
    IStartable,
)
from twisted_smtpd.metrics.figures import Metric, total
from twisted_smtpd.options.networks import Network, Networks
from twisted_smtpd.protocol.shortage import is_shortage
from twisted_smtpd.queue.consumer import Consumer
from twisted_smtpd.queue.delivery import Deliverer
from twisted_smtpd.queue.disk import MIN_FREE, DiskQueue
from twisted_smtpd.queue.entries import QueueFull, new_message
from twisted_smtpd.queue.interfaces import IQueue
from twisted_smtpd.queue.schedule import Schedule, seconds_of
from twisted_smtpd.runtime.awaiting import settle
from twisted_smtpd.runtime.database import DatabaseError
from twisted_smtpd.runtime.handler_check import check_handler
from twisted_smtpd.runtime.lifecycle import (
    HandlerStartError,
    HandlerUse,
    ServerInfo,
    offered_services,
    reloadables,
)
from twisted_smtpd.runtime.reactors import running_loop
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from twisted.application.service import IService

__all__ = ["Queue"]

log = Logger()

# Octets of a header in which Received headers are counted.
_MAX_HEADER = 2**20

_LOCAL = ("127.0.0.0/8", "::1", "unix")
_OPEN = (
    "it would queue mail of everybody for everybody: listen on loopback addresses only, or give --auth-required, "
    "--trust NETWORK, or a recipients handler in front of it (chain recipients LIST + queue FOLDER + ...)"
)


class _Bounds(TypedDict):
    """Bounds of a :class:`DiskQueue`."""

    max_messages: int
    max_octets: int
    min_free: int


@implementer(IMAILHandler, IDATAHandler, IStartable, IOffersServices, IPreceded, IMeasured)
class Queue:
    """Makes each message durable, answers 250, and has another handler consume it afterwards.

    A message whose recipient is refused for the moment is tried again; a sender whose recipient is refused for good
    gets a bounce.  Each recipient is consumed at least once; ``envelope.queue_id`` is the same each time.

    Mail is taken from clients that have signed in, that are on this machine, and that are in ``trust``; from all, if a
    handler in front of it refuses recipients that are not listed.

    :param folder: the folder of the queue; it is created, in a folder that exists.  Or a queue, an
        :class:`~twisted_smtpd.queue.interfaces.IQueue`.
    :param handler: the handler that consumes the messages.
    :param schedule: when a message is tried again, and given up.
    :param trust: networks whose clients need not sign in, besides this machine.
    :param recipients_checked: whether a handler in front of it refuses recipients that are not ours.  It is known for
        :class:`~twisted_smtpd.handlers.Recipients` of the same chain.
    :param max_messages: how many messages are queued at most (452 beyond).
    :param max_octets: the octets that they have together at most (452 beyond).
    :param min_free: octets that have to stay free on the disk (452 else).
    :param deliveries: how many deliveries are made at the same time; with ``Proxy`` not more than its
        ``max_connections``.
    :param delivery_timeout: seconds that one may take.
    :param max_hops: ``Received`` headers a message may have; one that has more runs in circles.
    :raises ValueError: if an argument is out of bounds.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | Any,
        handler: Any,
        *,
        schedule: Schedule | None = None,
        trust: Iterable[Network] = (),
        recipients_checked: bool = False,
        max_messages: int = 1_000_000,
        max_octets: int = 10 * 2**30,
        min_free: int = MIN_FREE,
        deliveries: int = 20,
        delivery_timeout: float = 900.0,
        max_hops: int = 50,
    ) -> None:
        for name, value in (
            *(("max_messages", max_messages), ("max_octets", max_octets), ("deliveries", deliveries)),
            *(("delivery_timeout", delivery_timeout), ("max_hops", max_hops)),
        ):
            if value <= 0:
                raise ValueError(f"{name} must be above 0, not {value!r}")
        check_handler(handler)
        self.handler = handler
        self.schedule = schedule or Schedule()
        self.option_defaults = getattr(handler, "option_defaults", {})
        self._folder = folder
        self._bounds = _Bounds(max_messages=max_messages, max_octets=max_octets, min_free=min_free)
        self._trust = list(trust)
        self._trusted = Networks([*_LOCAL, *self._trust])
        self._recipients_checked = recipients_checked
        self._senders_checked = False
        self._deliveries, self._timeout, self._max_hops = deliveries, delivery_timeout, max_hops
        self._queue: Any = None
        self._consumer: Consumer | None = None
        self._deliverer: Deliverer | None = None
        self._use = HandlerUse(handler)
        self._full = False
        if reloadables(handler):
            alsoProvides(self, IReloadable)

    def __repr__(self) -> str:
        return f"<Queue {self._folder} for {self.handler!r}>"

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Queue:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: the folder and options, a ``+``, and the handler that consumes the messages, or several with a
            ``+`` between them.
        """
        own, consumers = (args[: args.index("+")], args[args.index("+") + 1 :]) if "+" in args else (args, ())
        defaults = Schedule()
        parser.add_argument("folder")
        parser.add_argument("--retry", type=seconds_of, default=defaults.first, help="until the first retry")
        parser.add_argument("--retry-max", type=seconds_of, default=defaults.longest, help="between retries at most")
        parser.add_argument("--expire", type=seconds_of, default=defaults.expiry, help="until a message is given up")
        parser.add_argument(
            "--warn", type=seconds_of, default=defaults.warning, help="until the sender is told; 0: never"
        )
        parser.add_argument("--max-messages", type=int, default=1_000_000)
        parser.add_argument("--max-size", type=_octets, default=10 * 2**30, help="of all messages together")
        parser.add_argument("--min-free", type=_octets, default=MIN_FREE, help="of the disk")
        parser.add_argument("--deliveries", type=int, default=20, help="at the same time")
        parser.add_argument("--trust", action="append", default=[], metavar="NETWORK")
        options = parser.parse_args(list(own))
        if not consumers or not consumers[0]:
            parser.error("it takes a + and the handler that consumes the messages: queue FOLDER + proxy HOST:PORT")
        schedule = Schedule(options.retry, max(options.retry_max, options.retry), options.expire, options.warn)
        name, *arguments = consumers
        handler = make_handler("chain", consumers) if "+" in arguments else make_handler(name, arguments)
        return cls(
            options.folder,
            handler,
            schedule=schedule,
            trust=options.trust,
            max_messages=options.max_messages,
            max_octets=options.max_size,
            min_free=options.min_free,
            deliveries=options.deliveries,
        )

    def preceded_by(self, handlers: Sequence[object]) -> None:
        """Be told by a chain which handlers are asked before this one."""
        for handler in handlers:
            if isinstance(handler, Chain):
                self.preceded_by(handler.handlers)
            elif isinstance(handler, Recipients):
                self._recipients_checked |= handler.admits_listed_only
            elif isinstance(handler, Senders):
                self._senders_checked |= handler.admits_listed_only

    # -- its life ------------------------------------------------------------------------------------------------------

    async def start(self, server: ServerInfo) -> None:
        """Open the folder, start the handler, and begin to deliver.

        :raises HandlerStartError: if another server uses the folder, if it can't be used, or if this would be an open
            relay.
        """
        self._refuse_open_relay(server)
        loop = running_loop()
        try:
            self._queue = self._open()
            await self._start_queue()
        except (DatabaseError, OSError) as error:
            await self._close()
            raise HandlerStartError(str(error)) from error
        try:
            await self._use.start(server)
        except BaseException:
            await self._close()
            raise
        self._start_deliveries(server, loop)

    async def _start_queue(self) -> None:
        if hasattr(self._queue, "start"):
            await settle(self._queue.start(), running_loop())

    def _start_deliveries(self, server: ServerInfo, loop: Any) -> None:
        ident = str(server.options.get("ident") or "twisted-smtpd")
        self._consumer = Consumer(
            self.handler, server.hostname, ident, timeout=self._timeout, clock=server.reactor, loop=loop
        )
        concurrency = min(self._deliveries, getattr(self.handler, "max_connections", self._deliveries))
        self._deliverer = Deliverer(
            self._queue, self._consumer, self.schedule, clock=server.reactor, concurrency=concurrency
        )
        self._deliverer.start()

    def _open(self) -> Any:
        if IQueue.providedBy(self._folder):
            return self._folder
        return DiskQueue(self._folder, **self._bounds)

    def _refuse_open_relay(self, server: ServerInfo) -> None:
        if server.options.get("auth_required") or self._trust or self._recipients_checked:
            return
        if any(_host(address) not in self._trusted for address in server.addresses):
            raise HandlerStartError(_OPEN)

    async def stop(self) -> None:
        """End the deliveries, stop the handler, and give up the folder."""
        deliverer, self._deliverer = self._deliverer, None
        try:
            if deliverer is not None:
                await deliverer.stop()
            await self._use.stop()
        finally:
            await self._close()

    async def _close(self) -> None:
        queue, self._queue = self._queue, None
        if queue is not None:
            await settle(queue.close(), running_loop())

    async def services(self) -> list[IService]:
        """The services of the handler that consumes the messages."""
        return await offered_services(self.handler)

    async def reload(self) -> None:
        """Have the handler that consumes the messages read its files again."""
        for one in reloadables(self.handler):
            await settle(one.reload(), running_loop())

    def metrics(self) -> list[Metric]:
        """What was delivered since the start, and how full the queue is."""
        figures = {} if self._deliverer is None else self._deliverer.figures
        handlers = self.handler.metrics() if IMeasured.providedBy(self.handler) else ()
        outcomes: dict[tuple[str, ...], float] = {
            (outcome,): figures.get(outcome, 0) for outcome in ("delivered", "deferred", "failed")
        }
        return [
            Metric.gauge("smtpd_queue_messages", "Messages in the queue.", figures.get("messages", 0)),
            Metric.gauge("smtpd_queue_bytes", "Messages in the queue.", figures.get("octets", 0)),
            Metric.gauge("smtpd_queue_oldest_seconds", "The age of the oldest one.", figures.get("age", 0)),
            total("smtpd_queue_recipients", "Recipients by the outcome of an attempt.", outcomes, "outcome"),
            total("smtpd_queue_notices", "Bounces and other notices to senders.", figures.get("notices", 0)),
            *handlers,
        ]

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def handle_MAIL(
        self, server: HookServer, session: Session, envelope: Envelope, address: str, mail_options: list[str]
    ) -> Any:
        """Refuse a client that may not send mail to everybody, where recipients are not checked."""
        if self._recipients_checked or self._is_known(session):
            return PASS
        return _reply(550, "5.7.1", "Relaying denied: sign in first")

    def _is_known(self, session: Session) -> bool:
        return bool(session.authenticated) or _host(session.peer) in self._trusted

    async def handle_DATA(self, server: HookServer, session: Session, envelope: Envelope) -> Any:
        """Queue a message.

        :returns: 250 when it is durable; 452 if the queue is full, 451 if it can't be written, 554 if it runs in
            circles.
        :raises OSError: if the machine is short of something.
        """
        if not envelope.rcpt_tos:
            # Hooks that say 250 and append nothing have discarded each copy.
            return "250 OK"
        if self._queue is None:
            return _reply(451, "4.3.2", "The queue has been closed, try again later")
        if count_received(_header(envelope.content_bytes)) > self._max_hops:
            return _reply(554, "5.4.6", f"Too many hops: the message has been through over {self._max_hops} hosts")
        message = new_message(
            session,
            envelope,
            [self._destination(address) for address in envelope.rcpt_tos],
            lmtp=server.replies_to_each_recipient,
            may_bounce=self._senders_checked or self._is_known(session),
        )
        try:
            id = await settle(self._queue.accept(message), session.loop)
        except QueueFull as error:
            self._note_full(error)
            return _reply(452, "4.3.1", "The queue is full, try again later")
        except (DatabaseError, OSError) as error:
            if is_shortage(error):
                raise
            log.error("{session.id}: the queue can't be written: {error}", session=session, error=error)
            return _reply(451, "4.3.0", "The message can't be queued, try again later")
        self._full = False
        if self._deliverer is not None:
            self._deliverer.wake()
        return f"250 2.0.0 queued as {id}"

    def _destination(self, address: str) -> str:
        return "" if self._consumer is None else self._consumer.destination(address)

    def _note_full(self, error: QueueFull) -> None:
        """One line until there is room again: every client that tries is refused."""
        if not self._full:
            self._full = True
            log.error("{error}: clients hear 452", error=error)


def _header(content: bytes) -> bytes:
    """The header of a message, as far as it is worth reading."""
    end = content.find(b"\r\n\r\n", 0, _MAX_HEADER)
    return content[: end if end >= 0 else _MAX_HEADER]


def _host(peer: Any) -> str:
    """An address as :class:`Networks` takes it: ``""`` for a Unix socket; ``"?"`` for none."""
    if isinstance(peer, tuple):
        return str(peer[0])
    return "" if isinstance(peer, str) else "?"


def _reply(code: int, enhanced: str, text: str) -> Reply:
    return Reply(code, enhanced, (text,))


def _octets(text: str) -> int:
    factor = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:].upper())
    return int(text) if factor is None else int(text[:-1]) * factor
