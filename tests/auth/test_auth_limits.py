"""Tests for what keeps somebody from guessing passwords."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import formatEvent

from tests.support.auth_helpers import ACCEPTED, REJECTED, RIGHT, WRONG, AuthCase, authenticator, dial
from tests.support.fakes import EHLO, Client, answering, codes, hooks, join, make_factory, raiser
from twisted_smtpd.auth import AuthResult
from twisted_smtpd.runtime import throttle
from twisted_smtpd.runtime.throttle import LONGEST_DELAY, LONGEST_WAIT, Throttle
from twisted_smtpd.wire.replies import SMTPReplyError

GUESS = b"AUTH PLAIN %b\r\n" % WRONG
CUT_OFF = b"421 4.7.0 Too many failed authentications, closing the connection\r\n"
AWAY = b"421 4.7.0 Too many failed authentications from your address, try again later\r\n"


class GuessingTests(AuthCase):
    """aiosmtpd lets a client guess 500 times on one connection, and on 50 at the same time."""

    def setUp(self) -> None:
        self.checked: list[float] = []

        def counted(*arguments: Any) -> Any:
            self.checked.append(self.clock.seconds())
            return authenticator(*arguments)

        self.factory = make_factory(authenticator=counted, max_connections_per_address=0)
        self.clock: Any = self.factory.connections.timers.clock

    def client(self, host: str) -> Client:
        client = join(self.factory, host)
        client.protocol.session.tls = True
        client.send(EHLO)
        return client

    def test_500_wrong_passwords_on_one_connection(self) -> None:
        events = self.events()
        client = self.client("192.0.2.1")
        said = client.send(GUESS * 500)
        for _ in range(100):
            self.clock.advance(0.5)
            said += client.read()
        self.assertEqual(said, REJECTED * 3 + CUT_OFF)
        self.assertTrue(client.closed)
        self.assertEqual(self.checked, [0.0, 1.0, 3.0])
        failures = [formatEvent(event) for event in events if "failed for user" in formatEvent(event)]
        self.assertEqual(len(failures), 3)
        self.assertTrue(all(" 192.0.2.1:40000 AUTH PLAIN failed for user 'anne'" in text for text in failures))

    def test_50_connections_of_one_address_guess_no_faster_than_one(self) -> None:
        self.client("192.0.2.1").send(GUESS * 3)
        self.clock.pump([0.5] * 8)
        self.checked.clear()
        clients = [self.client("192.0.2.1") for _ in range(50)]
        said = [client.send(GUESS * 10) for client in clients]
        # Where the wait would be too long, the client is sent away at once.
        self.assertGreater(said.count(AWAY), 35)
        self.clock.pump([0.5] * 120)
        self.assertLess(len(self.checked), 10)
        self.assertTrue(all(b - a >= 4 for a, b in zip(self.checked, self.checked[1:], strict=False)))

    def test_others_are_not_affected(self) -> None:
        for _ in range(50):
            self.client("192.0.2.1").send(GUESS * 10)
        other = self.client("192.0.2.2")
        self.assertEqual(other.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED)
        self.assertEqual(codes(other.send(b"MAIL FROM:<a@x.example>\r\n")), [250])

    def test_who_comes_from_the_same_address_has_to_wait_but_gets_in(self) -> None:
        self.client("192.0.2.1").send(GUESS)
        other = self.client("192.0.2.1")
        self.assertEqual(other.send(b"AUTH PLAIN %b\r\n" % RIGHT), b"")
        self.clock.advance(1)
        self.assertEqual(other.read(), ACCEPTED)

    def test_an_ipv6_network_is_one_address(self) -> None:
        from twisted.internet.address import IPv6Address

        self.client(IPv6Address("TCP", "2001:db8::1", 1)).send(GUESS)  # type: ignore[arg-type]
        other = self.client(IPv6Address("TCP", "2001:db8::2", 1))  # type: ignore[arg-type]
        self.assertEqual(other.send(GUESS), b"")

    def test_loopback_is_exempt_from_the_delay_but_not_from_the_limit(self) -> None:
        for _ in range(20):
            self.assertEqual(self.client("127.0.0.1").send(GUESS * 9), REJECTED * 3 + CUT_OFF)
        self.assertEqual(self.checked, [0.0] * 60)

    def test_a_client_that_goes_away_while_it_waits(self) -> None:
        self.client("192.0.2.1").send(GUESS)
        waiting = self.client("192.0.2.1")
        waiting.send(GUESS)
        waiting.lose()
        self.clock.pump([1.0] * 40)
        self.assertEqual(len(self.checked), 1)

    def test_two_servers_know_nothing_of_each_other(self) -> None:
        self.client("192.0.2.1").send(GUESS)
        self.assertEqual(dial(host="192.0.2.1").send(GUESS), REJECTED)

    def test_cancelling_is_no_failed_guess(self) -> None:
        client = self.client("192.0.2.1")
        self.assertEqual(codes(client.send(b"AUTH PLAIN\r\n*\r\n" * 4)), [334, 501] * 4)

    def refusing(self, authenticator: Any) -> Client:
        authenticator.mechanisms = ("PLAIN", "XOAUTH2", "OAUTHBEARER")
        return dial(authenticator=authenticator, host="192.0.2.1", clock=self.clock)

    def failures(self, client: Client) -> tuple[int, int]:
        records = client.protocol.connections.sign_ins._records
        return client.protocol._auth.failures, sum(record.failures for record in records.values())

    def test_a_refused_token_counts_once_however_the_exchange_ends(self) -> None:
        for mechanism, message in (
            (b"XOAUTH2", b"user=anne\x01auth=Bearer guess\x01\x01"),
            (b"OAUTHBEARER", b"n,a=anne,\x01auth=Bearer guess\x01\x01"),
        ):
            for last in (b"", b"*\r\n", b"\r\n", b"!\r\n", b"AQ==\r\n", b"A" * 13000 + b"\r\n"):
                client = self.refusing(lambda *arguments: AuthResult(success=False, handled=False))
                client.send(b"AUTH %b %b\r\n" % (mechanism, b64encode(message)) + last)
                client.lose()
                self.assertEqual(self.failures(client), (1, 1), (mechanism, last[:9]))

    def test_cancelling_after_each_refused_token_ends_the_connection(self) -> None:
        client = self.refusing(lambda *arguments: AuthResult(success=False, handled=False))
        guess = b"AUTH XOAUTH2 %b\r\n*\r\n" % b64encode(b"user=anne\x01auth=Bearer guess\x01\x01")
        said = client.send(guess * 4)
        self.clock.pump([1.0] * 8)
        self.assertEqual(codes(said + client.read()), [334, 501] * 3 + [421])
        self.assertTrue(client.closed)

    def test_a_refusal_of_the_authenticators_own_counts(self) -> None:
        for code, counted in ((550, 1), (535, 1), (534, 1), (500, 0), (501, 0), (454, 0)):
            client = self.refusing(raiser(SMTPReplyError(code, None, "no")))
            self.assertEqual(codes(client.send(GUESS)), [code])
            self.assertEqual(self.failures(client), (counted, counted), code)

    def test_a_check_that_breaks_counts_for_the_address_too(self) -> None:
        client = self.refusing(raiser(RuntimeError("no such user")))
        self.assertEqual(codes(client.send(GUESS)), [454])
        self.assertEqual(self.failures(client), (1, 1))

    def test_a_refusal_by_handle_auth_counts(self) -> None:
        client = dial(hooks(handle_AUTH=answering("550 5.7.1 no")), authenticator=authenticator, host="192.0.2.1")
        self.assertEqual(codes(client.send(GUESS)), [550])
        self.assertEqual(self.failures(client), (1, 1))


class ThrottleTests(AuthCase):
    def test_the_delay_grows_and_is_bounded(self) -> None:
        guard, now, waits = Throttle(), 0.0, []
        for _ in range(9):
            wait = guard.wait_for("a", now)
            assert wait is not None
            waits.append(wait)
            now += wait
            guard.failed("a", now)
        self.assertEqual(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30])
        for _ in range(3000):
            guard.failed("a", now)
        self.assertLessEqual(guard.wait_for("a", now) or 0, LONGEST_DELAY)

    def test_a_success_forgives_nothing(self) -> None:
        guard = Throttle()
        guard.failed("a", 0)
        self.assertEqual([guard.wait_for("a", 0), guard.wait_for("a", 0)], [1, 3])

    def test_a_turn_too_far_away_is_not_given(self) -> None:
        guard = Throttle()
        for _ in range(4):
            guard.failed("a", 0)
        turns = [guard.wait_for("a", 0) for _ in range(9)]
        self.assertEqual(turns, [8, 24, *[None] * 7])
        self.assertEqual(guard.wait_for("a", 24), 30)

    def test_it_is_forgotten_in_the_end(self) -> None:
        guard = Throttle()
        guard.failed("a", 0)
        self.assertEqual(guard.wait_for("a", throttle.FORGIVEN_AFTER + 1), 0)

    def test_memory_is_bounded(self) -> None:
        self.patch(throttle, "MAX_ADDRESSES", 3)
        guard = Throttle()
        for address in "abcadef":
            guard.failed(address, 0)
        self.assertEqual(list(guard._records), ["d", "e", "f"])

    def test_the_exempt(self) -> None:
        guard = Throttle()
        guard.failed(None, 0)
        self.assertEqual((guard.wait_for(None, 0), guard._records), (0, {}))

    @given(st.lists(st.tuples(st.booleans(), st.floats(0, 50))))
    def test_no_wait_is_longer_than_the_longest(self, events: list[tuple[bool, float]]) -> None:
        guard, now = Throttle(), 0.0
        for failed, passed in events:
            now += passed
            if failed:
                guard.failed("a", now)
            else:
                wait = guard.wait_for("a", now)
                self.assertTrue(wait is None or 0 <= wait <= LONGEST_WAIT)
