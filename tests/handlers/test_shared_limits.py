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

    async def leave(self, key: str, name: str) -> None:
        self.ask()
        self.inside[key].remove(name)

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
        for _ in range(2):
            client.send(b"AUTH PLAIN AGFubmUAd3Jvbmc=\r\n")
            self.assertTrue(self.join(two, "192.0.2.2").read().startswith(b"220 "))
            one.connections.timers.clock.advance(30)  # type: ignore[attr-defined]
        # Both servers hear of it here, since they are one process.
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

    def test_what_is_wrong(self) -> None:
        self.assertRaises(ValueError, SharedLimits, self.store)
        self.assertRaises(ValueError, SharedLimits, self.store, connections=-1)
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
