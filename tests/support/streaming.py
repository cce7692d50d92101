"""What the tests of ``handle_DATA_STREAM`` share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, Client, codes, connect
from tests.support.loops import in_a_loop, turns
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.stream import ContentStream

PIECE = b"x" * 998 + b"\r\n"
PIECES = PIECE * 65
END = b".\r\n"


class Reader:
    """Reads a stream to its end and keeps what it was given; waits before it answers, and after each chunk, if told."""

    def __init__(
        self, each: Callable[[], Any] = lambda: succeed(None), last: Callable[[], Any] = lambda: succeed(None)
    ) -> None:
        self.each, self.last = each, last
        self.chunks: list[bytes] = []
        self.errors: list[BaseException] = []
        self.ends = 0

    @property
    def content(self) -> bytes:
        return b"".join(self.chunks)

    async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
        try:
            async for chunk in stream:
                self.chunks.append(chunk)
                await self.each()
        except BaseException as error:
            self.errors.append(error)
            await self.last()
            raise
        finally:
            self.ends += 1
        await self.last()
        return "250 OK"


def both(test: Callable[[Any], Awaitable[None]]) -> Callable[[Any], None]:
    """Run a test with hooks that are driven as plain coroutines, then where they are asyncio tasks."""

    def run(self: StreamTestCase) -> None:
        self.turn = lambda: succeed(None)
        self.successResultOf(Deferred.fromCoroutine(test(self)))  # type: ignore[arg-type]
        self.end()
        self.turn = turns
        in_a_loop(test)(self)
        self.end()

    run.__name__ = test.__name__
    return run


class StreamTestCase(SynchronousTestCase):
    turn: Callable[[], Awaitable[None]]

    def setUp(self) -> None:
        self.clock = Clock()
        self.clients: list[Client] = []

    async def begin(self, handler: Any, protocol: type[SMTP] = SMTP, recipients: int = 1, **options: Any) -> Client:
        """A client that has been told to send its message."""
        client = connect(handler, protocol, clock=self.clock, **options)
        self.clients.append(client)
        await self.turn()
        client.read()
        greeting = ENVELOPE.replace(b"EHLO", b"LHLO") if protocol is LMTP else ENVELOPE
        more = b"RCPT TO:<c@y.example>\r\n" * (recipients - 1)
        self.assertEqual(codes(await self.send(client, greeting + more + b"DATA\r\n"))[-1], 354)
        return client

    async def send(self, client: Client, data: bytes) -> bytes:
        said = client.send(data)
        await self.turn()
        return said + client.read()

    async def lose(self, client: Client) -> None:
        client.lose()
        await self.turn()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.turn()

    async def fill(self, client: Client) -> int:
        """Send until the client has to wait; how much that was."""
        sent = 0
        while client.transport.producerState == "producing":
            self.assertLess(sent, 2**22, "the client never had to wait")
            client.protocol.dataReceived(PIECES)
            sent += len(PIECES)
        return sent

    def end(self) -> None:
        """Nothing is left behind."""
        for client in self.clients:
            if client.transport.connected:
                client.lose()
            self.assertEqual(client.protocol.connections.open, set())
            self.assertEqual(client.protocol.connections.buffered, 0)
        self.clients.clear()
        self.assertEqual(self.clock.getDelayedCalls(), [])
