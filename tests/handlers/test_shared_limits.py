"""Tests for :mod:`twisted_smtpd.handlers.shared_limits`, with counters in memory."""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Client, hooks
from twisted_smtpd import SMTPFactory
from twisted_smtpd.handlers import Chain
from twisted_smtpd.handlers import shared_limits as module
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.handlers.shared_limits import PAUSE, SharedLimits
from twisted_smtpd.runtime.lifecycle import ServerInfo

HELLO, MAIL, RCPT = b"EHLO x\r\n", b"MAIL FROM:<a@x.example>\r\n", b"RCPT TO:<b@y.example>\r\n"
TRANSACTION = MAIL + RCPT + b"DATA\r\nhello\r\n.\r\n"
INFO = ServerInfo("mx.example", (), None, {})


class Memory:
    """Counters in memory."""

    place = "memory"

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.inside: dict[str, set[str]] = {}
        self.fails = False
        self.asked = 0

    def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def count(self, key: str, by: int, seconds: int) -> int:
        self.ask()
        self.counts[key] += by
        return self.counts[key]

    async def look(self, key: str) -> int:
        self.ask()
        return self.counts[key]

    async def enter(self, key: str, name: str, most: int) -> bool:
        self.ask()
        inside = self.inside.setdefault(key, set())
        if len(inside) >= most:
            return False
        inside.add(name)
        return True

    async def leave(self, key: str, name: str) -> bool:
        self.ask()
        self.inside.get(key, set()).discard(name)
        return True

    def ask(self) -> None:
        self.asked += 1
        if self.fails:
            raise ConnectionError("it is down")


class SharedLimitsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = Memory()
        self.now = 1000.0
        self.patch(module, "monotonic", lambda: self.now)

    def server(self, **options: Any) -> SMTPFactory:
        """One of several servers."""
        limits = SharedLimits(self.store, **options)
        self.successResultOf(Deferred.fromCoroutine(limits.start(INFO)))
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(limits.stop())))
        return SMTPFactory(Chain(limits, hooks()), clock=Clock(), auth_callback=know, auth_require_tls=False)

    def join(self, factory: SMTPFactory, host: str = "192.0.2.1") -> Client:
        return Client(factory.buildProtocol(None), host)

    def test_connections_of_all_servers(self) -> None:
        one, two = self.server(connections=2), self.server(connections=2)
        first = self.join(one)
        self.join(two)
        for factory in (one, two):
            self.assertTrue(self.join(factory).read().startswith(b"421 Too many connections from your address"))
            self.assertTrue(self.join(factory, "192.0.2.2").read().startswith(b"220 "))
        first.lose()
        self.assertTrue(self.join(two).read().startswith(b"220 "))

    def test_one_that_was_turned_away_does_not_count(self) -> None:
        factory = self.server(connections=1)
        first = self.join(factory)
        self.join(factory).lose()
        first.lose()
        self.assertEqual(
            {key: len(names) for key, names in self.store.inside.items()}, {"smtpd:connections:192.0.2.1": 0}
        )

    def test_messages(self) -> None:
        one, two = self.server(messages=2), self.server(messages=2)
        client = self.join(one)
        self.assertIn(b"250 2.0.0 OK", client.send(HELLO + TRANSACTION + TRANSACTION))
        said = self.join(two).send(HELLO + MAIL)
        self.assertIn(b"452 4.7.0 Too many messages from your address, try again later", said)

    def test_recipients(self) -> None:
        one, two = self.server(recipients=3), self.server(recipients=3)
        self.join(one).send(HELLO + MAIL + RCPT + RCPT)
        said = self.join(two).send(HELLO + MAIL + RCPT + RCPT)
        self.assertEqual(said.count(b"452 4.7.0 Too many recipients from your address"), 1)

    def test_wrong_passwords(self) -> None:
        one, two = self.server(failures=2), self.server(failures=2)
        client = self.join(one)
        client.send(HELLO)
        for number in range(2):
            # Both servers hear of it here, since they are one process; it counts once.
            self.assertEqual(self.store.counts["smtpd:failures:192.0.2.1"], number)
            self.assertTrue(self.join(two).read().startswith(b"220 "))
            client.send(b"AUTH PLAIN AGFubmUAd3Jvbmc=\r\n")
            self.assertTrue(self.join(two, "192.0.2.2").read().startswith(b"220 "))
            one.connections.timers.clock.advance(30)  # type: ignore[attr-defined]
        self.assertTrue(self.join(two).read().startswith(b"421 Too many failed sign-ins"))

    def test_an_ipv6_network_is_one_client(self) -> None:
        factory = self.server(connections=1)
        self.join(factory, "2001:db8::1")
        self.assertTrue(self.join(factory, "2001:db8::2").read().startswith(b"421 "))
        self.assertTrue(self.join(factory, "2001:db8:0:1::2").read().startswith(b"220 "))

    def test_loopback_is_exempt(self) -> None:
        factory = self.server(connections=1, messages=1, recipients=1, failures=1)
        for host in ("127.0.0.1", "::1"):
            self.join(factory, host)
            self.assertIn(b"250 2.0.0 OK", self.join(factory, host).send(HELLO + TRANSACTION + TRANSACTION))
        self.assertEqual(self.store.asked, 0)

    def test_while_redis_is_down_clients_are_served(self) -> None:
        factory = self.server(connections=1, messages=1, recipients=1, failures=1)
        self.store.fails = True
        for _ in range(3):
            self.assertIn(b"250 2.0.0 OK", self.join(factory).send(HELLO + TRANSACTION + TRANSACTION))
        self.assertEqual(self.store.asked, 1, "each client would wait for it")
        self.store.fails = False
        self.now += PAUSE + 1
        self.join(factory)
        self.assertTrue(self.join(factory).read().startswith(b"421 "))

    def test_a_connection_that_ends_while_redis_is_down_counts_no_more(self) -> None:
        factory = self.server(connections=1)
        client = self.join(factory)
        self.store.fails = True
        client.lose()
        self.store.fails = False
        self.now += PAUSE
        self.join(factory, "192.0.2.2")
        self.assertTrue(self.join(factory).read().startswith(b"220 "))
        asked = self.store.asked
        self.join(factory, "192.0.2.3")
        # It is told once: this is the new connection alone.
        self.assertEqual(self.store.asked - asked, 1)

    def test_one_that_was_never_started_can_be_stopped(self) -> None:
        limits = SharedLimits(self.store, failures=1)
        self.successResultOf(Deferred.fromCoroutine(limits.stop()))

    def test_a_connection_that_redis_noted_without_an_answer_counts_no_more(self) -> None:
        factory = self.server(connections=1)
        enter = self.store.enter

        async def too_late(*arguments: Any) -> bool:
            await enter(*arguments)
            raise TimeoutError

        self.patch(self.store, "enter", too_late)
        client = self.join(factory)
        self.patch(self.store, "enter", enter)
        client.lose()
        self.now += PAUSE
        self.join(factory, "192.0.2.2")
        self.assertTrue(self.join(factory).read().startswith(b"220 "))

    def test_no_more_are_remembered_than_a_bound(self) -> None:
        self.patch(module, "MAX_LEFT", 3)
        factory = self.server(connections=9)
        clients = [self.join(factory) for _ in range(5)]
        self.store.fails = True
        for client in clients:
            client.lose()
        self.store.fails = False
        self.now += PAUSE
        self.join(factory, "192.0.2.2")
        self.assertEqual(len(self.store.inside["smtpd:connections:192.0.2.1"]), 2)

    def test_the_handler_that_is_left_counts(self) -> None:
        first, second = (SharedLimits(self.store, failures=2) for _ in range(2))
        for limits in (first, second):
            self.successResultOf(Deferred.fromCoroutine(limits.start(INFO)))
        self.successResultOf(Deferred.fromCoroutine(first.stop()))
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(second.stop())))
        factory = SMTPFactory(Chain(second, hooks()), clock=Clock(), auth_callback=know, auth_require_tls=False)
        self.join(factory).send(HELLO + b"AUTH PLAIN AGFubmUAd3Jvbmc=\r\n")
        self.assertEqual(self.store.counts["smtpd:failures:192.0.2.1"], 1)

    def test_what_is_wrong(self) -> None:
        self.assertRaises(ValueError, SharedLimits, self.store)
        for name in ("connections", "messages", "recipients", "failures"):
            self.assertRaises(ValueError, SharedLimits, self.store, **{name: -1})
        for url in ("localhost", "http://h", "redis://", "redis://:s3cret@h:x", "redis://:s3cret@h/x"):
            error = self.assertRaises(HandlerError, make_handler, "limits", [url, "--messages=1"])
            self.assertNotIn("s3cret", str(error))
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("redis://:s3cret@h:1/2\n")
        made = SharedLimits.from_cli(ArgumentParser(), f"file:{path}", "--connections=5")
        self.assertEqual(repr(made), "<SharedLimits in h:1>")


def know(mechanism: str, login: bytes, password: bytes) -> bool:
    return password == b"right"
