"""A connection with much to do yields to the others, and holding a line back puts no time limit off."""

from __future__ import annotations

import base64
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    ENVELOPE,
    GREETING,
    Client,
    Promises,
    Transport,
    clock_of,
    codes,
    connect,
    hooks,
    pass_time,
)
from tests.support.fakes import make_factory as factory_of
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.protocol import connection as connection_module
from twisted_smtpd.runtime import turns
from twisted_smtpd.runtime.turns import COMMANDS_AT_ONCE, TIME_AT_ONCE

MANY = 1000


class Reactor(Clock):
    """Does in one turn what was due before it, as a reactor does; ``Clock`` does what becomes due in it, too."""

    def __init__(self) -> None:
        super().__init__()
        self._due: list[Any] = []

    def callLater(self, when: float, what: Any, *arguments: Any, **named: Any) -> Any:
        return super().callLater(when, self._due.append, lambda: what(*arguments, **named))

    def turn(self) -> None:
        self.advance(0)
        due, self._due = self._due, []
        for call in due:
            call()


class TurnTests(SynchronousTestCase):
    """Seen: a read of 64 KiB of NOOPs was worked through to its end; with 40 such clients others waited 6 s."""

    def setUp(self) -> None:
        self.seconds = 0.0
        for module in (connection_module, turns):
            self.patch(module, "perf_counter", lambda: self.seconds)
        self.reactor = Reactor()

    def join(self, factory: SMTPFactory, host: str = "192.0.2.1") -> Client:
        transport: Any = Transport(peerAddress=mock.Mock(host=host))
        transport.reactor = self.reactor
        client = Client(factory.buildProtocol(None), transport=transport)
        self.assertEqual(client.read(), GREETING)
        return client

    def factory(self, handler: Any = None) -> SMTPFactory:
        return factory_of(handler, max_idle_commands=0)

    def answered(self, client: Client) -> int:
        return len(codes(client.read()))

    def test_some_commands_are_a_turn(self) -> None:
        client = self.join(self.factory())
        self.assertEqual(len(codes(client.send(b"NOOP\r\n" * MANY))), COMMANDS_AT_ONCE)
        self.assertTrue(0 < self.answered_in_one_turn(client) <= MANY - COMMANDS_AT_ONCE)

    def answered_in_one_turn(self, client: Client) -> int:
        self.reactor.turn()
        return self.answered(client)

    def test_a_millisecond_is_a_turn(self) -> None:
        def slow(*arguments: Any) -> str:
            self.seconds += TIME_AT_ONCE
            return "250 OK"

        client = self.join(self.factory(hooks(handle_NOOP=slow)))
        self.assertTrue(0 < len(codes(client.send(b"NOOP\r\n" * 64))) <= 8)

    def test_all_are_answered_in_the_end_and_in_order(self) -> None:
        client = self.join(self.factory())
        said = client.send(b"NOOP\r\n" * MANY + b"QUIT\r\n")
        while self.reactor.getDelayedCalls():
            self.reactor.turn()
            said += client.read()
        self.assertEqual(codes(said), [250] * MANY + [221])
        self.assertTrue(client.closed)

    def test_many_that_yield_have_one_turn_together(self) -> None:
        """What others wait for them does not grow with their number."""

        def slow(*arguments: Any) -> str:
            self.seconds += TIME_AT_ONCE / 8
            return "250 OK"

        factory = self.factory(hooks(handle_NOOP=slow))
        clients = [self.join(factory) for _ in range(40)]
        for client in clients:
            client.send(b"NOOP\r\n" * 500)
        before = self.seconds
        self.reactor.turn()
        self.assertLess(self.seconds - before, 4 * TIME_AT_ONCE)
        self.assertEqual(sum(1 for client in clients if client.read()), 1)

    def test_addresses_take_turns(self) -> None:
        """Many connections of one address don't put another one's off."""

        def slow(*arguments: Any) -> str:
            self.seconds += TIME_AT_ONCE / 8
            return "250 OK"

        factory = self.factory(hooks(handle_NOOP=slow))
        flood = [self.join(factory, "192.0.2.1") for _ in range(20)]
        other = self.join(factory, "198.51.100.1")
        for client in (*flood, other):
            client.send(b"NOOP\r\n" * 100)
        self.reactor.turn()
        self.assertFalse(other.read())
        self.reactor.turn()
        self.assertTrue(other.read())

    def test_what_comes_meanwhile_waits_behind_it(self) -> None:
        client = self.join(self.factory())
        client.send(b"NOOP\r\n" * (COMMANDS_AT_ONCE + 1))
        self.assertEqual(client.send(b"QUIT\r\n"), b"")
        self.reactor.turn()
        self.assertEqual(codes(client.read()), [250, 221])

    def test_a_client_that_ends_its_side_is_answered(self) -> None:
        client = self.join(self.factory())
        client.send(b"NOOP\r\n" * (COMMANDS_AT_ONCE + 1))
        client.finish_sending()
        self.assertFalse(client.closed)
        self.reactor.turn()
        self.assertEqual(codes(client.read()), [250])
        self.assertTrue(client.closed)

    def test_a_client_that_goes_is_forgotten(self) -> None:
        client = self.join(self.factory())
        client.send(b"NOOP\r\n" * MANY)
        client.lose()
        self.reactor.turn()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_failure_ends_its_own_connection_only(self) -> None:
        factory = self.factory()
        broken, sound = self.join(factory), self.join(factory)
        for client in (broken, sound):
            client.send(b"NOOP\r\n" * (COMMANDS_AT_ONCE + 1))
        with mock.patch.object(type(broken.protocol), "_read_on", side_effect=[ZeroDivisionError, None]):
            self.reactor.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((broken.aborted, sound.aborted), (True, False))

    def test_in_memory_no_one_waits(self) -> None:
        """A transport without a reactor has no others beside it, and a test of a handler gets all its replies."""
        client = connect(max_idle_commands=0)
        self.assertEqual(codes(client.send(b"NOOP\r\n" * MANY)), [250] * MANY)


class WholeLineTests(SynchronousTestCase):
    """``timeout`` runs from the last whole line.  Seen: an octet every few seconds kept a connection for an hour."""

    def drip(self, client: Client) -> int:
        """Send an octet in nine tenths of the timeout, until the connection is closed."""
        for number in range(20):
            if client.closed:
                return number
            client.send(b"x")
            pass_time(client, 90)
        return 20

    def test_before_ehlo(self) -> None:
        client = connect(timeout=100)
        self.assertLessEqual(self.drip(client), 2)
        self.assertEqual(codes(client.read()), [421])

    def test_in_a_command(self) -> None:
        client = connect(timeout=100)
        client.send(ENVELOPE + b"RCPT TO:<")
        self.assertLessEqual(self.drip(client), 2)

    def test_in_auth(self) -> None:
        client = connect(timeout=100, auth_callback=lambda *words: False, auth_require_tls=False)
        client.send(b"EHLO client.example\r\nAUTH LOGIN\r\n")
        self.assertLessEqual(self.drip(client), 2)

    def test_in_a_line_that_is_too_long(self) -> None:
        client = connect(timeout=100)
        client.send(b"x" * 5000)
        self.assertLessEqual(self.drip(client), 2)

    def test_a_whole_line_puts_it_off(self) -> None:
        client = connect(timeout=100, auth_callback=lambda *words: True, auth_require_tls=False)
        client.send(b"EHLO client.example\r\n")
        for line in (b"NOOP\r\n", b"AUTH LOGIN\r\n", base64.b64encode(b"anne") + b"\r\n", b"*\r\n", b"NOOP\r\n"):
            pass_time(client, 90)
            self.assertTrue(client.send(line))
        self.assertFalse(client.closed)

    def test_in_a_message_each_octet_counts(self) -> None:
        """How slow it may be is ``min_data_rate``'s matter."""
        client = connect(timeout=100, min_data_rate=0)
        client.send(ENVELOPE + b"DATA\r\n")
        self.assertEqual(self.drip(client), 20)
        self.assertEqual(codes(client.send(b"\r\n.\r\n"))[-1], 250)
        pass_time(client, 90)
        self.assertFalse(client.closed)

    def test_a_hook_s_time_is_not_the_client_s(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_NOOP=promises), timeout=100)
        client.send(b"NOOP\r\n")
        clock_of(client).advance(90)
        promises.made[0].callback("250 OK")
        pass_time(client, 90)
        self.assertFalse(client.closed)
