"""``handle_CONNECT`` and ``handle_DISCONNECT``: the beginning and the end of a visit, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, MESSAGE, Client, Promises, answering, codes, connect, hooks, raiser
from tests.support.loops import in_a_loop, turns
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import Reply, SMTPReplyError
from twisted_smtpd.wire.replies import BadStatus


class Visits:
    """A handler that notes when a client goes, and why."""

    def __init__(self, **others: Callable[..., Any]) -> None:
        self.gone: list[tuple[Any, Any]] = []
        self.__dict__.update(others)

    def handle_DISCONNECT(self, server: Any, session: Any, envelope: Any, reason: Any) -> None:
        self.gone.append((session, reason))


class ConnectTests(SynchronousTestCase):
    def test_a_reply_and_a_raised_reply_count_like_a_status(self) -> None:
        for hook, said in (
            (answering(Reply(220, None, ("one", "two"))), b"220-one\r\n220 two\r\n"),
            (answering(succeed("220 hello")), b"220 hello\r\n"),
            (raiser(SMTPReplyError(554, "5.7.1", "no")), b"554 no\r\n"),
            (answering("554-no\n554 never"), b"554-no\r\n554 never\r\n"),
        ):
            self.assertEqual(connect(hooks(handle_CONNECT=hook)).read(), said)

    def test_a_missing_return_lets_nobody_in(self) -> None:
        client = connect(hooks(handle_CONNECT=answering(None)))
        self.assertEqual(codes(client.read()), [451])
        self.assertEqual(codes(client.send(b"EHLO c\r\n")), [503])
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 1)

    def test_a_hook_that_hangs_lets_nobody_in(self) -> None:
        clock, promises = Clock(), Promises()
        client = connect(hooks(handle_CONNECT=promises), clock=clock, hook_timeout=20)
        clock.advance(21)
        self.assertEqual(client.read(), b"451 Processing took too long, try again later\r\n")
        self.assertEqual(codes(client.send(b"EHLO c\r\nMAIL FROM:<>\r\n")), [503, 503])
        self.assertEqual(len(promises.cancelled), 1)

    def test_a_client_that_goes_while_it_waits(self) -> None:
        promises = Promises()
        handler = Visits(handle_CONNECT=promises)
        client = connect(handler)
        client.lose()
        self.assertEqual((len(promises.cancelled), len(handler.gone)), (1, 1))
        self.assertEqual(client.read(), b"")

    def test_a_client_that_is_not_welcome_is_not_served_for_long(self) -> None:
        client = connect(hooks(handle_CONNECT=answering("554 no")), max_errors=3)
        client.read()
        self.assertEqual(codes(client.send(b"NOOP\r\n" * 5)), [503, 503, 503, 421])
        self.assertTrue(client.closed)

    def test_on_lmtp_as_well(self) -> None:
        client = connect(hooks(handle_CONNECT=answering("554 no")), LMTP)
        self.assertEqual(client.read(), b"554 no\r\n")
        self.assertEqual(codes(client.send(b"LHLO c\r\nQUIT\r\n")), [503, 221])

    def test_as_an_asyncio_task(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any) -> str:
            await turns(2)
            return "220 hello"

        async def test(self: ConnectTests) -> None:
            client = connect(hooks(handle_CONNECT=hook))
            self.assertEqual(client.send(b"NOOP\r\n"), b"")
            await turns()
            self.assertEqual(codes(client.read()), [220, 250])

        in_a_loop(test)(self)


class DisconnectTests(SynchronousTestCase):
    """It is called once, with the reason, whichever way the connection ends."""

    def ways(self) -> dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[Client, Clock], object]]]:
        """The hooks, the options, and what happens."""
        data = ENVELOPE + b"DATA\r\n"
        hanging: dict[str, Any] = {"handle_NOOP": lambda *arguments: Deferred()}
        return {
            "at once": ({}, {}, lambda client, clock: None),
            "quit": ({}, {}, lambda client, clock: client.send(b"QUIT\r\n")),
            "idle": ({}, {"timeout": 5}, lambda client, clock: clock.advance(6)),
            "idle in data": ({}, {"timeout": 5}, lambda client, clock: (client.send(data), clock.advance(6))),
            "too long": ({}, {"session_timeout": 5}, lambda client, clock: clock.advance(6)),
            "errors": ({}, {"max_errors": 1}, lambda client, clock: client.send(b"X\r\n")),
            "http": ({}, {}, lambda client, clock: client.send(b"GET / HTTP/1.1\r\n")),
            "in data": ({}, {}, lambda client, clock: client.send(data + b"x")),
            "after data": ({}, {}, lambda client, clock: client.send(MESSAGE)),
            "in a hook": (hanging, {}, lambda client, clock: client.send(b"NOOP\r\n")),
            "hook hangs": (
                hanging,
                {"hook_timeout": 5},
                lambda client, clock: (client.send(b"NOOP\r\n"), clock.advance(6)),
            ),
            "said 421": ({"handle_NOOP": answering("421 x")}, {}, lambda client, clock: client.send(b"NOOP\r\n")),
            "refused": ({"handle_CONNECT": answering("421 x")}, {}, lambda client, clock: None),
            "drained": ({}, {}, lambda client, clock: client.protocol.connections.drain(5)),
            "drained in data": (
                {},
                {},
                lambda client, clock: (client.send(data), client.protocol.connections.drain(5), clock.advance(6)),
            ),
            "half-closed": ({}, {}, lambda client, clock: client.finish_sending()),
        }

    def test_once_with_the_reason(self) -> None:
        for name, (others, options, happens) in self.ways().items():
            clock, handler = Clock(), Visits(**others)
            client = connect(handler, clock=clock, **options)
            happens(client, clock)
            self.assertEqual(handler.gone, [], name)
            client.lose()
            clock.advance(1000)
            self.assertEqual(len(handler.gone), 1, name)
            session, reason = handler.gone[0]
            self.assertIs(session, client.protocol.session)
            self.assertIsInstance(reason, ConnectionDone)
            self.assertEqual(client.protocol.connections.open, set(), name)
            self.assertEqual(client.protocol.connections.buffered, 0, name)

    def test_once_as_an_asyncio_task(self) -> None:
        calls: list[str] = []

        async def handle_DISCONNECT(*arguments: Any) -> None:
            await turns(2)
            calls.append("gone")

        async def test(self: DisconnectTests) -> None:
            for name, (others, options, happens) in self.ways().items():
                clock = Clock()
                client = connect(hooks(handle_DISCONNECT=handle_DISCONNECT, **others), clock=clock, **options)
                await turns()
                happens(client, clock)
                await turns()
                client.lose()
                await turns()
                self.assertEqual(calls, ["gone"], name)
                calls.clear()

        in_a_loop(test)(self)

    def test_what_it_returns_is_not_said(self) -> None:
        client = connect(hooks(handle_DISCONNECT=answering("250 OK")))
        client.lose()
        self.assertEqual(client.read(), b"")
