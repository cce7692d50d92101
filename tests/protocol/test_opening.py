"""What comes before SMTP comes in one order: PROXY header, TLS, trust for XCLIENT, greeting; a failure ends it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost

from tests.support.fakes import EHLO, answering, codes, connect, hooks, raiser
from tests.support.tls_dialog import SecureTestCase
from twisted_smtpd.protocol import opening
from twisted_smtpd.protocol.opening import STEPS
from twisted_smtpd.protocol.proxy import read_proxy_header
from twisted_smtpd.protocol.states import State, state_of
from twisted_smtpd.protocol.tls import start_implicit_tls
from twisted_smtpd.protocol.xclient import trust_xclient
from twisted_smtpd.smtp import SMTP

BALANCER = "10.1.2.3"
HEADER = b"PROXY TCP4 203.0.113.7 192.0.2.9 50001 25\r\n"
GREETING = b"220 mx.example ESMTP twisted-smtpd\r\n"


class StepsTests(SecureTestCase):
    """The steps of any connection, with others in their place."""

    def setUp(self) -> None:
        super().setUp()
        self.ran: list[str] = []

    def step(self, name: str, answer: Any = True) -> Any:
        async def run(client: SMTP) -> bool:
            self.ran.append(name)
            # No step is a command: the client may still only leave.
            self.assertIs(state_of(client), State.UNWELCOME)
            if isinstance(answer, Deferred):
                return bool(await answer)
            if isinstance(answer, Exception):
                raise answer
            return bool(answer)

        return run

    def open(self, *steps: Any) -> Any:
        self.patch(
            opening, "STEPS", [step if isinstance(step, tuple) else (lambda client: True, step) for step in steps]
        )
        return connect(
            hooks(handle_CONNECT=answering("220 hello"), handle_DISCONNECT=lambda *_: self.ran.append("gone"))
        )

    def test_the_order(self) -> None:
        self.assertEqual([step for _, step in STEPS], [read_proxy_header, start_implicit_tls, trust_xclient])

    def test_a_step_that_is_not_needed_is_not_taken(self) -> None:
        client = self.open((lambda client: False, self.step("one", False)), self.step("two"))
        self.assertEqual((self.ran, client.read()), (["two"], b"220 hello\r\n"))

    def test_one_after_the_other_then_the_greeting(self) -> None:
        client = self.open(self.step("one"), self.step("two"))
        self.assertEqual((self.ran, client.read()), (["one", "two"], b"220 hello\r\n"))

    def test_a_step_that_waits_holds_up_the_rest(self) -> None:
        there: Deferred[bool] = Deferred()
        client = self.open(self.step("one", there), self.step("two"))
        self.assertEqual((self.ran, client.send(EHLO)), (["one"], b""))
        there.callback(True)
        self.assertEqual((self.ran, codes(client.read())), (["one", "two"], [220, 250]))

    def test_a_step_that_says_no_is_the_last(self) -> None:
        client = self.open(self.step("one"), self.step("two", False), self.step("three"))
        self.assertEqual((self.ran, client.read()), (["one", "two"], b""))
        client.lose()
        self.assertEqual(self.ran, ["one", "two"])

    def test_a_step_that_fails_is_the_last(self) -> None:
        client = self.open(self.step("one", KeyError()), self.step("two"))
        self.assertEqual((self.ran, codes(client.read())), (["one"], [451]))
        self.assertEqual(codes(client.send(EHLO + b"MAIL FROM:<a@x.example>\r\nQUIT\r\n")), [503, 503, 221])
        client.lose()
        self.assertEqual(self.ran, ["one"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_client_that_goes_meanwhile(self) -> None:
        there: Deferred[bool] = Deferred()
        client = self.open(self.step("one", there), self.step("two"))
        client.lose()
        self.assertEqual((self.ran, client.protocol.connections.open), (["one"], set()))


class Witness:
    """Notes what is known of the client when a hook is called.

    :param proxy: the answer to the PROXY header.
    :param connect: the answer to the client.
    """

    def __init__(self, proxy: Any = True, connect: str = "250 welcome") -> None:
        self.proxy, self.connect = proxy, connect
        self.seen: list[Any] = []

    def note(self, name: str, server: SMTP) -> None:
        self.seen.append((name, server.session.peer[0], server.session.tls, server.may_vouch))

    def handle_PROXY(self, server: SMTP, *arguments: Any) -> Any:
        self.note("PROXY", server)
        return self.proxy

    def handle_CONNECT(self, server: SMTP, *arguments: Any) -> str:
        self.note("CONNECT", server)
        return self.connect

    def handle_DISCONNECT(self, server: SMTP, *arguments: Any) -> None:
        self.note("DISCONNECT", server)


PROXY = ("PROXY", "203.0.113.7", False, False)
CONNECT = ("CONNECT", "203.0.113.7", True, True)


class OrderTests(SecureTestCase):
    """The steps themselves, all of them on one connection."""

    def open(self, handler: Any, split: bool = False, **options: Any) -> Any:
        options = {
            "ssl_context": self.files(),
            "proxy_from": ["10.0.0.0/8"],
            "xclient_from": ["203.0.113.0/24"],
            **options,
        }
        return self.connect(handler, BALANCER, split, **options)

    def test_each_step_knows_what_those_before_found_out(self) -> None:
        for split in (False, True):
            handler = Witness()
            peer = self.open(handler, split)
            self.assertEqual((peer.greeting, handler.seen), (b"", []))
            self.assertEqual(peer.handshake(before=HEADER), GREETING)
            self.assertEqual(handler.seen, [PROXY, CONNECT])
            self.assertIn(b"250-XCLIENT ", peer.send(EHLO))

    def test_trust_is_for_the_client_that_the_header_names(self) -> None:
        handler = Witness()
        peer = self.open(handler, xclient_from=[BALANCER])
        peer.handshake(before=HEADER)
        self.assertEqual(handler.seen[1], ("CONNECT", "203.0.113.7", True, False))

    def assertEnded(self, peer: Any, handler: Witness, seen: list[Any]) -> None:
        """No step after the one that failed has run, and no hook hears of the connection's end."""
        protocol = peer.protocol
        self.assertEqual((handler.seen, peer.transport.value()), (seen, b""))
        self.assertFalse(protocol.may_vouch)
        peer.lose(ConnectionLost())
        self.assertEqual(handler.seen, seen)
        self.assertEqual((protocol.connections.open, dict(protocol.connections.per_address)), (set(), {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_header_that_is_none(self) -> None:
        for data in (b"EHLO x\r\n", b"PROXY TCP4\r\n", b"\x16\x03\x01\x02\0"):
            handler = Witness()
            peer = self.open(handler)
            peer.deliver(data)
            self.assertTrue(peer.aborted)
            self.assertFalse(peer.transport.TLS)
            self.assertEnded(peer, handler, [])

    def test_a_header_that_does_not_come(self) -> None:
        handler = Witness()
        peer = self.open(handler, proxy_protocol_timeout=3)
        peer.deliver(HEADER[:-1])
        self.clock.pump([0.5] * 8)
        self.assertTrue(peer.aborted)
        self.assertFalse(peer.transport.TLS)
        self.assertEnded(peer, handler, [])

    def test_a_header_that_is_refused(self) -> None:
        for answer in (False, "550 5.7.1 no"):
            handler = Witness(answer)
            peer = self.open(handler)
            peer.deliver(HEADER)
            # Not even a reply: the client waits for TLS.
            self.assertTrue(peer.aborted)
            self.assertFalse(peer.transport.TLS)
            self.assertEnded(peer, handler, [PROXY])

    def test_a_hook_that_fails_refuses_the_header(self) -> None:
        handler = Witness()
        handler.handle_PROXY = raiser(KeyError())  # type: ignore[method-assign]
        peer = self.open(handler)
        peer.deliver(HEADER)
        self.assertTrue(peer.aborted)
        self.assertFalse(peer.transport.TLS)
        self.assertEnded(peer, handler, [])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_handshake_that_fails(self) -> None:
        handler = Witness()
        peer = self.open(handler)
        peer.deliver(HEADER + EHLO)
        peer.transport.clear()
        self.assertEnded(peer, handler, [PROXY])

    def test_a_handshake_that_does_not_end(self) -> None:
        handler = Witness()
        peer = self.open(handler, handshake_timeout=5)
        peer.deliver(HEADER)
        self.clock.pump([0.5] * 12)
        self.assertTrue(peer.aborted)
        self.assertEnded(peer, handler, [PROXY])

    def test_a_client_that_is_refused_at_the_greeting(self) -> None:
        """It has met the handler, so it takes its leave of it; it may only quit."""
        handler = Witness(connect="554 5.7.1 no")
        peer = self.open(handler)
        self.assertEqual(codes(peer.handshake(before=HEADER)), [554])
        self.assertEqual(codes(peer.send(b"XCLIENT NAME=x\r\nQUIT\r\n")), [503, 221])
        peer.lose()
        self.assertEqual([name for name, *_ in handler.seen], ["PROXY", "CONNECT", "DISCONNECT"])

    def test_without_the_options_there_is_no_step(self) -> None:
        handler = Witness()
        peer = self.connect(handler, BALANCER)
        self.assertEqual(peer.greeting, GREETING)
        self.assertEqual(handler.seen, [("CONNECT", BALANCER, False, False)])
