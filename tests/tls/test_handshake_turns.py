"""TLS handshakes take turns: many at once don't keep other clients waiting for all of them."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

from tests.protocol.test_turns import Reactor
from tests.support import tls_dialog
from tests.support.tls_dialog import Peer, SecureTestCase
from tests.support.tls_helpers import Client as TLSSettings
from twisted_smtpd.runtime import output, turns
from twisted_smtpd.runtime.batches import BatchReactor
from twisted_smtpd.tls.transport import MAX_ARRIVED


class HandshakeTurnTests(SecureTestCase):
    """Seen: with 500 clients at once half-way in a handshake, others waited 2 s."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(output, "PLAIN_TRANSPORTS", (tls_dialog.TLSTransport,))
        self.reactor = Reactor()
        # Each step takes as long as a turn may.
        seconds = iter(range(10**6))
        self.patch(turns, "perf_counter", lambda: float(next(seconds)))
        self.server = self.factory(tls_context=self.files())

    def begin(self, host: str = "192.0.2.1") -> Peer:
        """A client that has heard that it may begin with TLS."""
        peer = self.join(self.server, host)
        peer.send(b"EHLO client.example\r\n")
        self.assertEqual(peer.send(b"STARTTLS\r\n"), b"220 2.0.0 Ready to start TLS\r\n")
        transport: Any = peer.transport
        transport.reactor = self.reactor
        return peer

    def hello(self) -> bytes:
        connection: Any = TLSSettings().clientConnectionForTLS(None)
        connection.set_connect_state()
        with contextlib.suppress(tls_dialog.SSL.WantReadError):
            connection.do_handshake()
        return tls_dialog._bio(connection)

    def answered(self, peers: list[Peer]) -> int:
        return sum(1 for peer in peers if peer.transport.value())

    def test_one_step_in_each_turn_of_the_reactor(self) -> None:
        peers = [self.begin() for _ in range(5)]
        for peer in peers:
            peer.deliver(self.hello())
        self.assertEqual(self.answered(peers), 1)
        for done in (2, 3, 4, 5, 5):
            self.reactor.turn()
            self.assertEqual(self.answered(peers), done)

    def test_a_single_client_does_not_wait(self) -> None:
        for _ in range(3):
            peer = self.begin()
            peer.deliver(self.hello())
            self.assertTrue(peer.transport.value())
            self.reactor.turn()

    def test_in_batches_their_turns_count(self) -> None:
        batches = SimpleNamespace(turn=1, reactor=self.reactor)
        peers = [self.begin() for _ in range(3)]
        for peer in peers:
            transport: Any = peer.transport
            transport.reactor = BatchReactor(batches)  # type: ignore[arg-type]
        peers[0].deliver(self.hello())
        self.assertEqual(self.answered(peers), 1)
        # A turn of the reactor that is needed for nothing else would cost more than the rest.
        self.assertFalse(self.reactor.calls)
        batches.turn += 1
        peers[1].deliver(self.hello())
        peers[2].deliver(self.hello())
        self.assertEqual(self.answered(peers), 2)
        self.reactor.turn()
        self.assertEqual(self.answered(peers), 3)

    def test_addresses_take_turns(self) -> None:
        many = [self.begin() for _ in range(5)]
        for peer in many:
            peer.deliver(self.hello())
        other = self.begin("192.0.2.2")
        other.deliver(self.hello())
        for _ in range(2):
            self.reactor.turn()
        self.assertTrue(other.transport.value())

    def test_what_arrives_meanwhile_is_kept(self) -> None:
        first, second = self.begin(), self.begin()
        first.deliver(self.hello())
        hello = self.hello()
        second.deliver(hello[:20])
        second.deliver(hello[20:])
        self.assertFalse(second.transport.value())
        self.reactor.turn()
        self.assertTrue(second.transport.value())

    def test_and_bounded(self) -> None:
        first, second = self.begin(), self.begin()
        first.deliver(self.hello())
        second.deliver(b"\x16" * MAX_ARRIVED)
        self.assertFalse(second.aborted)
        second.deliver(b"\x16")
        self.assertTrue(second.aborted)
        self.reactor.turn()
        self.assertFalse(second.transport.value())

    def test_one_that_is_gone_has_no_turn(self) -> None:
        first, second = self.begin(), self.begin()
        first.deliver(self.hello())
        second.deliver(self.hello())
        second.lose()
        self.reactor.turn()
        self.assertFalse(second.transport.value())
