"""Gives a delivery to a handler's hooks, as a connection would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from twisted_smtpd.handlers.chain import Chain
from twisted_smtpd.protocol.verdict import by_recipient, each_status, is_many
from twisted_smtpd.queue.entries import Delivery, domain_of, envelope_of, session_of
from twisted_smtpd.runtime.awaiting import CANCELLED, MISSING, settle
from twisted_smtpd.runtime.handler_check import deprecated_data_hook
from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.stream import ContentStream
from twisted_smtpd.wire.replies import BadStatus, Reply, SMTPReplyError

__all__ = ["Consumer", "DeliveryServer"]

log = Logger()

# Octets of a piece of a stream.
_PIECE = 2**16
_FAILED = Reply(451, "4.3.0", ("The handler failed",))
_OVERDUE = Reply(451, "4.4.7", ("The handler took too long",))
_TAKEN = Reply(250, None, ("OK",))


class DeliveryServer:
    """The ``server`` that the hooks get for a delivery.

    :ivar hostname: the server's name.
    :ivar ident: what it calls itself.
    :ivar replies_to_each_recipient: true: each recipient has a verdict of its own.
    :ivar from_queue: true: the queue gives the notices that the next host can't, and shares connections out itself.
    :ivar came_with_lmtp: whether the message came in by LMTP.
    """

    replies_to_each_recipient = True
    from_queue = True

    def __init__(
        self, hostname: str, ident: str, session: Session, envelope: Envelope, handler: object, lmtp: bool, loop: Any
    ) -> None:
        self.hostname, self.ident = hostname, ident
        self.session, self.envelope, self.event_handler = session, envelope, handler
        self.came_with_lmtp = lmtp
        self.loop = loop

    async def push(self, status: str | Reply) -> None:
        """There is no client to hear it."""


class Consumer:
    """Consumes deliveries with a handler.

    Its hooks are called as for a connection: ``handle_MAIL``, ``handle_RCPT`` for each recipient, then ``handle_DATA``
    or ``handle_DATA_STREAM``.  Of a handler that has ``one_next_host`` only ``handle_DATA`` is called.

    :param handler: the handler.
    :param hostname: the server's name.
    :param ident: what it calls itself.
    :param timeout: seconds that a delivery may take.
    :param clock: the provider of time.
    :param loop: the running asyncio loop, or ``None``.
    """

    def __init__(self, handler: object, hostname: str, ident: str, *, timeout: float, clock: Any, loop: Any) -> None:
        self.handler, self.hostname = handler, hostname
        self._ident, self._timeout, self._clock, self._loop = ident, timeout, clock, loop
        #: Whether all recipients go to the same host.
        self.one_next_host = bool(getattr(handler, "one_next_host", False))

    def destination(self, address: str) -> str:
        """What a message for this address goes to."""
        return "" if self.one_next_host else domain_of(address)

    @property
    def success(self) -> str:
        """What a yes means: ``"delivered"``; ``"relayed"``; ``""`` if the next host tells the sender itself (DSN)."""
        relays = [one for one in _parts(self.handler) if hasattr(one, "next_host_gives_notices")]
        if not relays:
            return "delivered"
        return "" if all(one.next_host_gives_notices for one in relays) else "relayed"

    async def give(self, delivery: Delivery, content: bytes) -> list[Reply]:
        """Have the handler consume a delivery.

        :param content: the message.
        :returns: what it answers for each recipient, in their order; a failure is a 451.
        """
        giving: Deferred[list[Reply]] = Deferred.fromCoroutine(self._give(delivery, content))
        if not giving.called:
            giving.addTimeout(self._timeout, self._clock)
        try:
            replies = await giving
        except DeferredTimeout:
            log.error("{id}: the handler took longer than {timeout:g} s", id=delivery.id, timeout=self._timeout)
            replies = [_OVERDUE] * len(delivery.recipients)
        except SMTPReplyError as error:
            replies = [error.reply] * len(delivery.recipients)
        except CANCELLED:
            raise
        except Exception:
            log.failure("{id}: the handler failed", id=delivery.id)
            replies = [_FAILED] * len(delivery.recipients)
        return [one if one.code // 100 in (2, 4, 5) else _FAILED for one in replies]

    async def _give(self, delivery: Delivery, content: bytes) -> list[Reply]:
        session, envelope = session_of(delivery, self._loop), envelope_of(delivery, content)
        lmtp = bool(delivery.facts.get("lmtp"))
        server = DeliveryServer(self.hostname, self._ident, session, envelope, self.handler, lmtp, self._loop)
        if self.one_next_host:
            return await self._give_content(server, session, envelope)
        transaction = _Transaction(self, server, session, envelope)
        refused = await transaction.begin()
        if len(refused) == len(delivery.recipients):
            await self.call("RSET", server, session, envelope)
            return [refused[number] for number in sorted(refused)]
        given = iter(await self._give_content(server, session, envelope))
        return [refused.get(number) or next(given) for number in range(len(delivery.recipients))]

    async def call(self, name: str, *arguments: Any) -> Any:
        """Call a hook, if the handler has it; returns its status or ``MISSING``."""
        hook = getattr(self.handler, f"handle_{name}", None)
        if hook is None:
            return MISSING
        return await self._settled(hook, *arguments)

    async def _settled(self, hook: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await settle(hook(*arguments), self._loop)
        except SMTPReplyError as error:
            return error.reply
        except (SystemExit, asyncio.CancelledError) as error:
            raise RuntimeError(f"the hook ended with {type(error).__name__}") from error

    async def _give_content(self, server: DeliveryServer, session: Session, envelope: Envelope) -> list[Reply]:
        count = len(envelope.recipients)
        if getattr(self.handler, "handle_DATA_STREAM", None) is not None:
            status = await self._stream(server, session, envelope)
        elif (older := deprecated_data_hook(self.handler)) is not None:
            status = await self._settled(older, server, session, envelope)
        else:
            status = await self.call("DATA", server, session, envelope)
        if status is MISSING:
            return [_TAKEN] * count
        if isinstance(status, str):
            status = by_recipient(status, count)
        if is_many(status):
            return await settle(_gathered(status, count), self._loop)  # type: ignore[no-any-return]
        return [Reply.parse(status)] * count

    async def _stream(self, server: DeliveryServer, session: Session, envelope: Envelope) -> Any:
        content = envelope.content_bytes
        envelope.content = envelope.original_content = None
        pieces = (content[begin : begin + _PIECE] for begin in range(0, len(content), _PIECE))

        def feed() -> None:
            # As long as the hook keeps up.
            while not stream.full:
                piece = next(pieces, None)
                if piece is None:
                    stream.finish()
                    return
                stream.put(piece)

        stream = ContentStream(feed, lambda: None, len(content))
        feed()
        return await self.call("DATA_STREAM", server, session, envelope, stream)


def _parts(handler: object) -> list[Any]:
    """A handler, or the handlers of a chain."""
    return [part for one in handler.handlers for part in _parts(one)] if isinstance(handler, Chain) else [handler]


async def _gathered(status: Any, count: int) -> list[Reply]:
    return [reply async for reply in each_status(status, count, lambda: None)]


class _Transaction:
    """MAIL and RCPT, as :class:`~twisted_smtpd.protocol.transaction.Transaction` does them."""

    def __init__(self, consumer: Consumer, server: DeliveryServer, session: Session, envelope: Envelope) -> None:
        self._consumer, self._server, self._session, self._envelope = consumer, server, session, envelope

    async def begin(self) -> dict[int, Reply]:
        """Name sender and recipients; what is refused leaves the envelope.

        :returns: the refusals by position.
        """
        envelope = self._envelope
        sender, options = envelope.mail_from, envelope.mail_options
        recipients, envelope.recipients = envelope.recipients, []
        envelope.mail_from, envelope.mail_options, envelope.rcpt_tos, envelope.rcpt_options = None, [], [], []
        reply = await self._ask("MAIL", sender, list(options))
        if reply is None:
            envelope.mail_from, envelope.mail_options = sender, options
        elif reply.code >= 300:
            return dict.fromkeys(range(len(recipients)), reply)
        elif envelope.mail_from is None:
            envelope.mail_from = sender
        return await self._name(recipients)

    async def _name(self, recipients: list[Recipient]) -> dict[int, Reply]:
        envelope, refused = self._envelope, {}
        for number, recipient in enumerate(recipients):
            known, known_options = len(envelope.rcpt_tos), len(envelope.rcpt_options)
            reply = await self._ask("RCPT", recipient.address, list(recipient.options))
            if reply is not None and reply.code >= 300:
                refused[number] = reply
                del envelope.rcpt_tos[known:], envelope.rcpt_options[known_options:]
                continue
            if reply is None:
                envelope.rcpt_tos.append(recipient.address)
                envelope.rcpt_options.extend(recipient.options)
            envelope.recipients.append(recipient)
        return refused

    async def _ask(self, name: str, *arguments: Any) -> Reply | None:
        status = await self._consumer.call(name, self._server, self._session, self._envelope, *arguments)
        if status is MISSING:
            return None
        try:
            return Reply.parse(status)
        except BadStatus:
            log.error("handle_{name} returned no status", name=name)
            return _FAILED
