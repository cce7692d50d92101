"""The tests of TLS once more, where the server does without Twisted's layer: with each engine."""

from __future__ import annotations

import gc
import weakref
from errno import EWOULDBLOCK
from types import SimpleNamespace
from typing import Any
from unittest import mock

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.protocols.tls import TLSMemoryBIOProtocol

from tests.protocol import test_tls, test_tls_implicit
from tests.support import tls_dialog
from tests.support.fakes import ENVELOPE, Recorder, codes, hooks
from tests.support.tls_dialog import Peer, SecureTestCase
from tests.support.tls_helpers import Client
from twisted_smtpd.runtime import output
from twisted_smtpd.tls import certificates, transport

EHLO = b"EHLO client.example\r\n"


class Keys:
    """An authenticator that offers channel binding."""

    mechanisms = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")

    def __call__(self, *arguments: Any) -> Any:
        raise AssertionError("no client signs in here")

    def scram_keys(self, *arguments: Any) -> Any:
        raise AssertionError("no client signs in here")


# These need a transport whose producer can be asked.
OF_PRODUCERS = frozenset(
    {
        "test_nothing_that_comes_while_the_client_does_not_read_runs_either",
        "test_tls_starts_when_the_client_has_read_everything",
    }
)


class _OnSockets:
    """Has the transport of the tests taken for a plain socket."""

    patch: Any
    _testMethodName: str

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        if self._testMethodName not in OF_PRODUCERS:
            self.patch(output, "PLAIN_TRANSPORTS", (tls_dialog.TLSTransport,))


def forbid_ssl() -> Any:
    """While this lasts, pyOpenSSL does the work of servers with certificate files."""
    return mock.patch.object(certificates.ServerCertificates, "choose_engine", lambda *arguments, **options: None)


class _WithPyOpenSSL(_OnSockets):
    addCleanup: Any

    def setUp(self) -> None:
        super().setUp()
        forbidden = forbid_ssl()
        forbidden.start()
        self.addCleanup(forbidden.stop)


class SSLStartTLSTests(_OnSockets, test_tls.StartTLSTests):
    pass


class SSLHandshakeTests(_OnSockets, test_tls.HandshakeTests):
    pass


class SSLReloadTests(_OnSockets, test_tls.ReloadTests):
    pass


class SSLImplicitTests(_OnSockets, test_tls_implicit.ImplicitTLSTests):
    pass


class PyOpenSSLStartTLSTests(_WithPyOpenSSL, test_tls.StartTLSTests):
    pass


class PyOpenSSLHandshakeTests(_WithPyOpenSSL, test_tls.HandshakeTests):
    pass


class PyOpenSSLReloadTests(_WithPyOpenSSL, test_tls.ReloadTests):
    pass


class PyOpenSSLImplicitTests(_WithPyOpenSSL, test_tls_implicit.ImplicitTLSTests):
    pass


class ChoiceTests(SecureTestCase):
    """Which engine does the work, and that it is without Twisted's layer."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(output, "PLAIN_TRANSPORTS", (tls_dialog.TLSTransport,))

    def secured(self, handler: Any = None, **options: Any) -> Peer:
        peer = self.connect(handler, tls_context=self.files(), **options)
        peer.starttls()
        return peer

    def engine(self, **options: Any) -> str:
        peer = self.secured(**options)
        self.assertIsInstance(peer.transport.protocol, transport.TLSTransport)
        handle: Any = peer.protocol.transport
        name = type(handle.getHandle()).__name__
        by_ssl = name == "SSLObjectConnection"
        self.assertEqual(peer.protocol.session.ssl.library, "ssl" if by_ssl else "pyOpenSSL")
        self.assertEqual(len(self.logged("by the standard library" if by_ssl else "by pyOpenSSL")), 1)
        self.assertEqual(len(self.logged(" by ")), 1)
        return name

    def test_the_standard_library_where_it_can_do_it(self) -> None:
        self.assertEqual(self.engine(), "SSLObjectConnection")

    def test_pyopenssl_for_channel_binding(self) -> None:
        self.assertEqual(self.engine(authenticator=Keys()), "ServerConnection")

    def test_without_files_in_memory_pyopenssl_does_it(self) -> None:
        self.patch(certificates, "made_of", lambda *arguments: None)
        self.assertEqual(self.engine(), "ServerConnection")

    def test_a_subclass_that_makes_its_own_connections_is_asked(self) -> None:
        asked: list[object] = []

        class Own(certificates.CertificateFiles):
            def serverConnectionForTLS(self, tlsProtocol: object) -> Any:
                asked.append(tlsProtocol)
                return super().serverConnectionForTLS(tlsProtocol)

        files = self.files()
        files.__class__ = Own
        peer = self.connect(tls_context=files)
        peer.starttls()
        self.assertEqual(len(asked), 1)
        self.assertIsInstance(peer.transport.protocol, TLSMemoryBIOProtocol)

    def test_an_engine_that_cannot_be_made_ends_the_connection(self) -> None:
        files = self.files()
        self.patch(files, "engine", lambda: 1 / 0)
        peer = self.connect(tls_context=files)
        peer.send(EHLO)
        peer.deliver(b"STARTTLS\r\n")
        self.assertTrue(peer.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


def deaf(data: bytes) -> int:
    """What a socket whose client doesn't read does."""
    raise BlockingIOError(EWOULDBLOCK, "full")


class GuaranteesTests(SecureTestCase):
    """What Twisted's layer guarantees, with both engines."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(output, "PLAIN_TRANSPORTS", (tls_dialog.TLSTransport,))

    def peers(self, handler: Any = None, settings: Client | None = None, **options: Any) -> list[Peer]:
        """A client for each engine."""
        peers = []
        for more in ({}, {"authenticator": Keys()}):
            peer = self.connect(handler, tls_context=self.files(), **options, **more)
            peer.starttls(settings)
            peers.append(peer)
        return peers

    def test_the_end_and_a_cut_are_told_apart(self) -> None:
        seen: list[type | None] = []
        handler = hooks(handle_DISCONNECT=lambda server, session, envelope, error: seen.append(type(error)))
        for peer in self.peers(handler):
            peer.send(EHLO)
            assert peer.tls is not None
            peer.tls.shutdown()
            peer.deliver(peer._outgoing())
            self.assertTrue(peer.transport.disconnecting)
            with self.assertRaises(SSL.ZeroReturnError):
                peer.tls.bio_write(peer.transport.value())
                peer.tls.recv(100)
            peer.lose(ConnectionDone())
        for peer in self.peers(handler):
            peer.send(EHLO)
            peer.lose(ConnectionDone())
        self.assertEqual(seen, [ConnectionDone, ConnectionDone, ConnectionLost, ConnectionLost])

    def test_octets_that_are_no_tls_end_it(self) -> None:
        said = []
        for peer in self.peers():
            peer.send(EHLO)
            peer.deliver(b"\x17\x03\x03\x00\x20" + bytes(32))
            self.assertTrue(peer.transport.disconnecting)
            alert: bytes = peer.transport.value()
            said.append((alert[:1], len(alert)))
            peer.deliver(b"more")
            peer.lose()
        self.assertEqual(said[0], said[1])

    def test_many_records_at_once_and_records_in_pieces(self) -> None:
        content = b"x" * 70 + b"\r\n"
        for peer in self.peers(recorder := Recorder()):
            peer.send(EHLO)
            peer.send(ENVELOPE)
            peer.send(b"DATA\r\n")
            assert peer.tls is not None
            for _ in range(3000):
                peer.tls.send(content)
            peer.tls.send(b".\r\n")
            octets = peer._outgoing()
            for start in range(0, len(octets), 65521):
                peer.deliver(octets[start : start + 65521])
            self.assertEqual(codes(peer.read()), [250])
            self.assertEqual(recorder.contents[-1], content * 3000)

    def test_commands_octet_by_octet(self) -> None:
        for peer in self.peers():
            assert peer.tls is not None
            peer.tls.send(EHLO + ENVELOPE)
            octets = peer._outgoing()
            for index in range(len(octets)):
                peer.deliver(octets[index : index + 1])
            self.assertEqual(codes(peer.read()), [250, 250, 250, 250])

    def test_what_a_handler_writes_itself_is_encrypted(self) -> None:
        def hook(server: Any, *arguments: Any) -> str:
            server.transport.write(b"250-first\r\n")
            server.transport.writeSequence([b"250-", b"second\r\n"])
            return "250 third"

        for peer in self.peers(hooks(handle_NOOP=hook)):
            said = peer.send(b"NOOP\r\n")
            self.assertEqual(sorted(said.split(b"\r\n")), [b"", b"250 2.0.0 third", b"250-first", b"250-second"])

    def test_what_came_before_close_notify_is_answered(self) -> None:
        for peer in self.peers():
            # As in a batch of clients that have sent something: replies wait for its end.
            batches = SimpleNamespace(holding=True, senders=[], hook_ran=False)
            peer.protocol._output._batches = batches
            assert peer.tls is not None
            peer.tls.send(EHLO)
            peer.tls.shutdown()
            peer.deliver(peer._outgoing())
            for sender in batches.senders:
                sender.send_held()
            self.assertEqual(codes(peer.read()), [250])
            self.assertTrue(peer.transport.disconnecting)
            peer.lose()

    def test_the_alert_is_sent_behind_octets_that_have_replies(self) -> None:
        for peer in self.peers():
            assert peer.tls is not None
            peer.tls.send(EHLO)
            peer.deliver(peer._outgoing() + b"\x17\x03\x03\x00\x20" + bytes(32))
            self.assertFalse(peer.aborted)
            self.assertTrue(peer.transport.disconnecting)
            with self.assertRaises(SSL.Error) as caught:
                peer.read()
            self.assertIn("alert", str(caught.exception))
            peer.lose()

    def test_it_is_closed_when_both_have_said_so(self) -> None:
        for peer in self.peers():
            self.assertEqual(codes(peer.send(EHLO + b"QUIT\r\n")), [250, 221])
            self.assertFalse(peer.transport.disconnecting)
            assert peer.tls is not None
            peer.tls.shutdown()
            peer.deliver(peer._outgoing())
            self.assertTrue(peer.transport.disconnecting)
            peer.lose()

    def test_nothing_of_a_connection_waits_for_the_garbage_collector(self) -> None:
        """Seen: each connection stayed, with its message and OpenSSL's memory, until the collector came."""
        gc.disable()
        self.addCleanup(gc.enable)
        for peer in self.peers():
            peer.send(EHLO + ENVELOPE)
            peer.lose()
            self.freed(peer)

    def test_nor_does_one_that_ends_within_its_handshake(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        peer = self.connect(tls_context=self.files())
        peer.send(EHLO + b"STARTTLS\r\n")
        peer.deliver(b"\x16\x03\x01")
        peer.lose()
        self.freed(peer)

    def test_a_new_handshake_is_refused(self) -> None:
        """To renegotiate costs a client little, and a server much."""
        for peer in self.peers(settings=Client(version=SSL.TLS1_2_VERSION)):
            peer.send(EHLO)
            assert peer.tls is not None
            finished = peer.tls.get_finished()
            peer.tls.renegotiate()
            self.assertRaises(SSL.WantReadError, peer.tls.do_handshake)
            peer.deliver(peer._outgoing())
            with self.assertRaises(SSL.Error) as caught:
                peer.read()
            self.assertIn("no renegotiation", str(caught.exception))
            self.assertEqual(peer.tls.get_finished(), finished)
            peer.lose()

    def test_an_alert_of_the_client_ends_it_and_is_logged(self) -> None:
        for number, peer in enumerate(self.peers(), 1):
            peer.send(EHLO)
            assert peer.tls is not None
            peer.tls.bio_write(b"\x17\x03\x03\x00\x20" + bytes(32))
            self.assertRaises(SSL.Error, peer.tls.recv, 100)
            peer.deliver(peer._outgoing())
            self.assertTrue(peer.transport.disconnecting)
            peer.lose()
            self.assertEqual(len(self.logged("alert bad record mac")), number)

    def test_a_client_that_does_not_read_is_not_listened_to(self) -> None:
        for peer in self.peers(max_idle_commands=10**6, command_call_limit=10**6):
            peer.send(EHLO)
            # The socket takes nothing more; the transport keeps what is to be sent, and says so to what registers.
            peer.transport.send = deaf  # type: ignore[method-assign]
            peer.transport.room = 0
            assert peer.tls is not None
            peer.tls.send(b"NOOP\r\n" * 1000)
            peer.deliver(peer._outgoing())
            answered = len(codes(peer.read()))
            self.assertIsNotNone(peer.protocol._output.blocked_since)
            peer.tls.send(b"NOOP\r\n" * 100)
            peer.deliver(peer._outgoing())
            self.assertEqual(peer.read(), b"")
            del peer.transport.send
            peer.transport.room = None
            peer.transport.producer.resumeProducing()
            self.assertEqual(answered + len(codes(peer.read())), 1100)
            peer.lose()

    def freed(self, peer: Peer) -> None:
        protocol, engine = weakref.ref(peer.protocol), weakref.ref(peer.protocol.transport.getHandle())
        peer.transport.protocol = None
        del peer.protocol
        self.assertIsNone(protocol())
        self.assertIsNone(engine())

    def test_what_the_socket_does_not_take_of_a_handshake_waits_in_the_transport(self) -> None:
        for taken in (0, 1, 100, OSError()):
            peer = self.connect(tls_context=self.files())
            peer.send(EHLO + b"STARTTLS\r\n")
            whole = peer.transport.send

            def send(data: bytes, taken: Any = taken, peer: Peer = peer, whole: Any = whole) -> int:
                peer.transport.send = whole  # type: ignore[method-assign]
                if isinstance(taken, OSError):
                    raise taken
                return int(whole(data[:taken]))

            peer.transport.send = send  # type: ignore[method-assign]
            peer.handshake()
            self.assertEqual(codes(peer.send(EHLO)), [250], taken)
