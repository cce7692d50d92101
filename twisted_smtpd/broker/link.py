"""A connection to one node of a broker, with a channel on which each message is confirmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pika import BasicProperties, URLParameters
from pika.adapters.twisted_connection import TwistedProtocolConnection
from pika.exceptions import AMQPError, NackError, UnroutableError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.logger import Logger

from twisted_smtpd.broker.addresses import place_of
from twisted_smtpd.broker.errors import BrokerError

__all__ = ["Link"]

log = Logger()

# Seconds until a connection that was lost without a word is noticed; a URL may have another heartbeat.
HEARTBEAT = 10
_FAILURES = (AMQPError, ConnectError, ConnectionClosed, DeferredTimeout, OSError)


class Link:
    """A connection to the first of some nodes that can be reached; it is made when it is needed.

    :param urls: the nodes.
    :param reactor: the reactor.
    :param prepare: called with each new channel, before it is used; it may be a coroutine function.
    :param connect_timeout: seconds that connecting to a node may take.
    """

    def __init__(
        self, urls: Sequence[str], reactor: Any, prepare: Callable[[Any], Any], *, connect_timeout: float = 5.0
    ) -> None:
        self._urls, self._reactor, self._prepare = list(urls), reactor, prepare
        self._timeout = connect_timeout
        self._next = 0
        self._connection: Any = None
        self._channel: Any = None
        self._waiting: list[Deferred[Any]] | None = None
        self._closed = False
        #: How often a connection was made.
        self.connects = 0

    @property
    def place(self) -> str:
        """The node that is used, or would be used next."""
        return place_of(self._urls[self._next])

    async def channel(self) -> Any:
        """The channel.

        :raises BrokerError: no node can be reached.
        """
        if self._closed:
            raise BrokerError("closed")
        if self._channel is not None and self._channel.is_open:
            return self._channel
        if self._waiting is not None:
            turn: Deferred[Any] = Deferred()
            self._waiting.append(turn)
            return await turn
        self._waiting = []
        try:
            channel = await self._connect()
        except BaseException as error:
            waiting, self._waiting = self._waiting, None
            for turn in waiting:
                turn.errback(error if isinstance(error, BrokerError) else BrokerError("given up"))
            raise
        waiting, self._waiting = self._waiting, None
        for turn in waiting:
            turn.callback(channel)
        return channel

    async def _connect(self) -> Any:
        problems = []
        for _ in self._urls:
            try:
                return await self._connect_to(self._urls[self._next])
            except _FAILURES as error:
                problems.append(f"{self.place}: {_text(error)}")
                self._to_the_next()
        raise BrokerError(f"no node can be reached: {'; '.join(problems)}")

    async def _connect_to(self, url: str) -> Any:
        parameters = URLParameters(url)
        if "heartbeat" not in url:
            parameters.heartbeat = HEARTBEAT
        # pika's own use of ssl is for its other adapters.
        tls, parameters.ssl_options = parameters.ssl_options is not None, None
        endpoint: Any = HostnameEndpoint(self._reactor, parameters.host, parameters.port)
        if tls:
            endpoint = wrapClientTLS(optionsForClientTLS(parameters.host), endpoint)
        factory: Any = Factory.forProtocol(lambda: TwistedProtocolConnection(parameters, custom_reactor=self._reactor))
        factory.noisy = False
        connection = await endpoint.connect(factory).addTimeout(self._timeout, self._reactor)
        try:
            await connection.ready.addTimeout(self._timeout, self._reactor)
            channel = await connection.channel().addTimeout(self._timeout, self._reactor)
            await channel.confirm_delivery().addTimeout(self._timeout, self._reactor)
            prepared = self._prepare(channel)
            if prepared is not None:
                await Deferred.fromCoroutine(prepared).addTimeout(self._timeout, self._reactor)
        except BaseException:
            _abort(connection)
            raise
        self.connects += 1
        self._connection, self._channel = connection, channel
        connection.closed.addBoth(self._lost, connection)
        log.info("connected to the broker at {place}", place=place_of(url))
        return channel

    def _lost(self, reason: Any, connection: Any) -> None:
        if connection is self._connection:
            self._connection = self._channel = None
            if not self._closed:
                text = _text(getattr(reason, "value", reason))
                log.warn("the connection to the broker at {place} is lost: {reason}", place=self.place, reason=text)
                self._to_the_next()

    def _to_the_next(self) -> None:
        self._next = (self._next + 1) % len(self._urls)

    def drop(self) -> None:
        """Close the connection; the next use connects to the next node."""
        if self._connection is not None:
            _abort(self._connection)

    async def publish(self, queue: str, body: bytes, properties: BasicProperties, timeout: float) -> None:
        """Have the broker take a message; if a node does not, once more on the next one.

        :param queue: the queue.
        :param timeout: seconds that it may take, both tries together.
        :raises BrokerError: it has not confirmed the message.  It may have it all the same.
        """
        deadline = self._reactor.seconds() + timeout
        try:
            await self._publish_once(queue, body, properties, deadline)
        except DeferredTimeout:
            raise BrokerError(f"no confirmation from {self.place} in {timeout:g} s") from None
        except _FAILURES as error:
            log.warn("{place} has not taken a message: {error}; once more", place=self.place, error=_text(error))
            if isinstance(error, (NackError, UnroutableError)) and len(self._urls) > 1:
                self.drop()
        else:
            return
        try:
            await self._publish_once(queue, body, properties, deadline)
        except _FAILURES as error:
            raise BrokerError(f"{self.place}: {_text(error)}") from None

    async def _publish_once(self, queue: str, body: bytes, properties: BasicProperties, deadline: float) -> None:
        publishing = Deferred.fromCoroutine(self._hand_over(queue, body, properties))
        if not publishing.called:
            publishing.addTimeout(max(deadline - self._reactor.seconds(), 0.001), self._reactor)
        await publishing

    async def _hand_over(self, queue: str, body: bytes, properties: BasicProperties) -> None:
        channel = await self.channel()
        await channel.basic_publish("", queue, body, properties, mandatory=True)

    async def close(self) -> None:
        """Close the connection; it is not used any more."""
        self._closed = True
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and connection.is_open:
            closed = connection.closed
            connection.close()
            try:
                await closed.addTimeout(self._timeout, self._reactor)
            except (CancelledError, *_FAILURES):
                _abort(connection)


def _abort(connection: Any) -> None:
    if connection.transport is not None:
        connection.transport.abortConnection()


def _text(error: object) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
