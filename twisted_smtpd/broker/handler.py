"""The handler that puts messages into a broker."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from zope.interface import implementer

from twisted_smtpd.broker.addresses import read_urls
from twisted_smtpd.broker.claims import ClaimStore, claim_store
from twisted_smtpd.broker.errors import BrokerError
from twisted_smtpd.broker.queue import MAX_BODY, TIMEOUT, AMQPQueue
from twisted_smtpd.handlers.sink import Sink
from twisted_smtpd.interfaces import HookServer, IDATAHandler, IMAILHandler, IMeasured, IPreceded, IStartable
from twisted_smtpd.metrics.figures import Metric, histogram, total
from twisted_smtpd.options.networks import Network
from twisted_smtpd.queue.handler import Queue
from twisted_smtpd.runtime.histogram import Histogram
from twisted_smtpd.runtime.lifecycle import HandlerStartError, ServerInfo
from twisted_smtpd.session import Envelope, Session

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["AMQP", "add_broker_arguments"]

log = Logger()


@implementer(IMAILHandler, IDATAHandler, IStartable, IPreceded, IMeasured)
class AMQP(Queue):
    """Puts each message into RabbitMQ, and answers 250 when the broker has confirmed it.

    Consumers on this machine or others take the messages out, see :class:`~twisted_smtpd.broker.Consumer`.

    Mail is taken from clients that have signed in, that are on this machine, and that are in ``trust``; from all, if a
    handler in front of it refuses recipients that are not listed, or with ``for_all``.

    :param urls: the nodes, ``amqp://USER:PASSWORD@HOST:PORT/VHOST``; they are used in turn.
    :param name: the name of the queue in the broker.
    :param claims: keeps messages above ``max_body``; without it, these are refused (552).
    :param max_body: octets of a message that goes through the broker itself.
    :param timeout: seconds in which the broker has to confirm a message (451 else).
    :param trust: networks whose clients need not sign in, besides this machine.
    :param for_all: whether mail of all clients for all recipients is taken: the consumers relay nothing.
    """

    def __init__(
        self,
        urls: Sequence[str],
        name: str = "mail",
        *,
        claims: ClaimStore | None = None,
        max_body: int = MAX_BODY,
        timeout: float = TIMEOUT,
        trust: Iterable[Network] = (),
        for_all: bool = False,
    ) -> None:
        super().__init__(name, Sink(), trust=trust, recipients_checked=for_all)
        self._urls, self._name, self._claims = list(urls), name, claims
        self._max_body, self._confirm_timeout = max_body, timeout
        self._reactor: Any = None
        self._took = Histogram()

    def __repr__(self) -> str:
        return f"<AMQP {self._name}>"

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> AMQP:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: the URLs of the nodes, and options.
        """
        add_broker_arguments(parser)
        parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="for the confirmation")
        parser.add_argument("--trust", action="append", default=[], metavar="NETWORK", help="need not sign in")
        parser.add_argument("--for-all", action="store_true", help="take all mail: the consumers relay nothing")
        options = parser.parse_args(list(args))
        return cls(
            read_urls(options.urls, options.url_file, os.environ),
            options.queue,
            claims=None if options.claims is None else claim_store(options.claims),
            max_body=options.max_body,
            timeout=options.timeout,
            trust=options.trust,
            for_all=options.for_all,
        )

    async def start(self, server: ServerInfo) -> None:
        """Connect to the broker.

        A broker that can't be reached is no error: clients hear 451 until it can.

        :raises HandlerStartError: if this would be an open relay, or the confirmation takes longer than a hook may.
        """
        hook_timeout = server.options.get("hook_timeout")
        if isinstance(hook_timeout, (int, float)) and 0 < hook_timeout <= self._confirm_timeout:
            raise HandlerStartError(
                f"--timeout {self._confirm_timeout:g} is not less than --hook-timeout {hook_timeout:g}"
            )
        self._reactor = server.reactor
        await super().start(server)

    def _open(self) -> AMQPQueue:
        return AMQPQueue(
            self._urls,
            self._name,
            reactor=self._reactor,
            claims=self._claims,
            max_body=self._max_body,
            timeout=self._confirm_timeout,
        )

    async def _start_queue(self) -> None:
        try:
            await self._queue.start()
        except BrokerError as error:
            log.error("{error}: clients hear 451", error=error)

    def _start_deliveries(self, server: ServerInfo, loop: Any) -> None:
        """Consumers do that."""

    async def handle_DATA(self, server: HookServer, session: Session, envelope: Envelope) -> Any:
        """Have the broker take a message.

        :returns: 250 when it has confirmed it; 451 if it does not, 552 if the message is too large for it.
        """
        if self._claims is None and len(envelope.content_bytes) > self._max_body:
            return "552 5.3.4 The message is too large"
        since = monotonic()
        status = await super().handle_DATA(server, session, envelope)
        self._took.observe(monotonic() - since)
        return status

    def metrics(self) -> list[Metric]:
        """What the broker has taken since the start."""
        figures = {} if self._queue is None else self._queue.figures
        published: dict[tuple[str, ...], float] = {
            ("confirmed",): figures.get("published", 0),
            ("failed",): figures.get("failed", 0),
        }
        connects = 0 if self._queue is None else self._queue.connects
        return [
            total("smtpd_broker_messages", "Messages that the broker has confirmed, or not.", published, "result"),
            histogram("smtpd_broker_seconds", "From a message's last octet to the broker's confirmation.", self._took),
            total("smtpd_broker_connects", "Connections to nodes of the broker.", connects),
        ]


def add_broker_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that front ends and consumers share."""
    add = parser.add_argument
    add("urls", nargs="*", metavar="URL", help="a node: amqp://USER:PASSWORD@HOST:PORT/VHOST")
    add("--url-file", metavar="FILE", help="a file with a URL in each line")
    add("--queue", default="mail", metavar="NAME", help="the queue's name in the broker [default: mail]")
    add("--claims", metavar="WHERE", help="large messages: a shared folder, or s3://BUCKET/PREFIX")
    add("--max-body", type=int, default=MAX_BODY, metavar="N", help="octets of a message that is not large [8388608]")
