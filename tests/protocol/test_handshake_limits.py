"""A connection that is turned away before its TLS handshake is over is dropped: it would wait for the handshake."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost

from tests.support.tls_dialog import Peer, SecureTestCase
from twisted_smtpd.factory import ImplicitTLS


class HandshakeLimitTests(SecureTestCase):
    """Seen: a controller with ``ssl_context``, 5 connections allowed, 600 silent clients: 600 descriptors."""

    def test_a_client_too_many_is_dropped_whichever_way_tls_comes(self) -> None:
        files = self.files()
        for way in ("own", "listener", "wrapped"):
            factory = self.factory(max_connections=2, ssl_context=files if way == "own" else None)

            def join(way: str = way, factory: object = factory) -> Peer:
                if way == "wrapped":
                    return self.join_wrapped(factory, files)  # type: ignore[arg-type]
                return self.join(ImplicitTLS(factory, files) if way == "listener" else factory)  # type: ignore[arg-type]

            peers = [join() for _ in range(5)]
            self.assertEqual([peer.aborted for peer in peers], [False, False, True, True, True], way)
            self.assertEqual(factory.connections.counts.turned_away, 3)
            self.assertTrue(peers[0].handshake().startswith(b"220 "), way)

    def test_those_in_their_handshake_count(self) -> None:
        files = self.files()
        factory = self.factory(max_connections=1, handshake_timeout=20)
        silent = self.join_wrapped(factory, files)
        self.assertTrue(self.join_wrapped(factory, files).aborted)
        self.clock.pump([1.0] * 21)
        silent.lose(ConnectionLost())
        self.assertTrue(self.join_wrapped(factory, files).handshake().startswith(b"220 "))
