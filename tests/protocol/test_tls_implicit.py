"""TLS from the start (RFC 8314): real TLS in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost

from tests.support.fakes import EHLO, ENVELOPE, MESSAGE, Recorder, codes, hooks
from tests.support.tls_dialog import Peer, SecureTestCase
from twisted_smtpd.factory import ImplicitTLS
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.tls import info


class ImplicitTLSTests(SecureTestCase):
    def ways(self, handler: Any = None, split: bool = False, **options: Any) -> list[Peer]:
        """A client of each of the ways to have TLS first."""
        files = self.files()
        plain = self.factory(handler, **options)
        return [
            self.join(self.factory(handler, ssl_context=files, **options), split=split),
            self.join(ImplicitTLS(plain, files), split=split),
            self.join_wrapped(plain, files, split=split),
        ]

    def test_the_greeting_comes_inside_tls(self) -> None:
        for split in (False, True):
            for peer in self.ways(split=split):
                self.assertEqual(peer.greeting, b"")
                self.assertEqual(peer.handshake(), b"220 mx.example ESMTP twisted-smtpd\r\n")
                self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_its_end_is_heard_of_once(self) -> None:
        """A transport that tells of it again does not end what is waited for by then."""
        handler = Recorder()
        for peer in self.ways(handler):
            peer.handshake()
            peer.send(ENVELOPE + b"DATA\r\n")
            peer.protocol.handshakeCompleted()
            self.assertEqual(codes(peer.send(b"hello\r\n.\r\n")), [250])
        self.assertEqual(handler.contents, [b"hello\r\n"] * 3)

    def test_an_exchange_too(self) -> None:
        class Asking(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                await self.push(f"250 {(await self.read_line(100)).decode()}")

        peer = self.connect(protocol=Asking, ssl_context=self.files())
        peer.handshake()
        peer.send(b"ASK\r\n")
        peer.protocol.handshakeCompleted()
        self.assertEqual(peer.send(b"yes\r\n"), b"250 2.0.0 yes\r\n")

    def test_the_connect_hook_sees_tls(self) -> None:
        seen: list[Any] = []

        def handle_CONNECT(server: Any, session: Any, envelope: Any) -> str:
            seen.append((session.tls, session.ssl.version, session.peer))
            return "250 welcome"

        for peer in self.ways(hooks(handle_CONNECT=handle_CONNECT)):
            peer.handshake()
        self.assertEqual(seen, [(True, "TLSv1.3", ("192.0.2.1", 40000))] * 3)

    def test_starttls_is_not_offered_inside(self) -> None:
        for peer in self.ways(tls_context=self.files()):
            peer.handshake()
            said = peer.send(EHLO + b"STARTTLS\r\n")
            self.assertNotIn(b"250-STARTTLS", said)
            self.assertEqual(codes(said), [250, 503])

    def test_a_stalled_handshake_is_cut_off_and_a_failed_one_logged(self) -> None:
        peers = self.ways(handshake_timeout=20)
        self.clock.pump([1.0] * 21)
        for peer in peers:
            self.assertTrue(peer.aborted)
            peer.lose(ConnectionLost())
        self.assertEqual(len(self.logged("no end of the TLS handshake within 20 s")), 3)
        self.assertEqual(len(self.logged("TLS handshake")), 3)
        for peer in self.ways():
            self.log.clear()
            peer.deliver(EHLO)
            peer.lose()
            self.assertEqual(len(self.logged("the client does not speak TLS")), 1)

    def test_a_creator_that_fails_ends_the_connection_and_is_logged(self) -> None:
        files = self.files()
        files.serverConnectionForTLS = lambda protocol: 1 / 0  # type: ignore[assignment,method-assign]
        peer = self.connect(ssl_context=files)
        self.assertEqual((peer.aborted, peer.greeting), (True, b""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_hook_hears_of_a_client_that_never_got_through(self) -> None:
        called: list[str] = []
        handler = hooks(
            handle_CONNECT=lambda *arguments: called.append("CONNECT"),
            handle_DISCONNECT=lambda *arguments: called.append("DISCONNECT"),
        )
        for peer in self.ways(handler):
            peer.deliver(EHLO)
            peer.lose()
        self.assertEqual(called, [])

    def test_a_client_too_many_hears_nothing_in_clear(self) -> None:
        factory = self.factory(ssl_context=self.files(), max_connections=1)
        self.join(factory)
        peer = self.join(factory)
        self.assertEqual((peer.greeting, peer.aborted), (b"", True))

    def test_a_client_too_many_is_not_waited_for_where_the_endpoint_has_tls(self) -> None:
        factory = self.factory(max_connections=1)
        self.join_wrapped(factory, self.files())
        peer = self.join_wrapped(factory, self.files())
        self.assertEqual((peer.greeting, peer.aborted), (b"", True))

    def test_listeners_with_and_without_it_share_a_server(self) -> None:
        factory = self.factory(max_connections=1)
        outer = ImplicitTLS(factory, self.files())
        self.assertEqual(codes(self.join(factory).greeting), [220])
        self.assertTrue(self.join(outer).aborted)

    def test_a_context_that_is_none_is_a_type_error(self) -> None:
        self.assertRaises(TypeError, ImplicitTLS, self.factory(), "cert.pem")


class OddCertificateTests(SecureTestCase):
    """A client's certificate can be such that no library can tell about it."""

    def setUp(self) -> None:
        super().setUp()

        def describe(transport: Any) -> None:
            raise ValueError("a certificate of version 9")

        self.patch(info, "describe", describe)

    def test_nothing_said_in_clear_survives_starttls(self) -> None:
        asked: list[Any] = []
        peer = self.connect(hooks(handle_STARTTLS=lambda *arguments: asked.append(arguments)), tls_context=self.files())
        peer.read()
        peer.send(ENVELOPE + b"RSET\r\n")
        peer.send(b"STARTTLS\r\n")
        peer.handshake()
        self.assertTrue(peer.closed or peer.aborted)
        self.assertIsNone(peer.protocol.envelope.mail_from)
        self.assertIsNone(peer.protocol.session.host_name)
        self.assertEqual(asked, [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_implicit_tls_is_not_greeted(self) -> None:
        asked: list[Any] = []
        peer = self.connect(hooks(handle_CONNECT=lambda *arguments: asked.append(arguments)), ssl_context=self.files())
        self.assertEqual(peer.handshake(), b"")
        self.assertTrue(peer.closed or peer.aborted)
        self.assertEqual(asked, [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
