"""What goes wrong on the way lets nobody in, and limits hold for those who would slip past them."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, MESSAGE, Promises, codes, connect, hooks, join, make_factory, pass_time
from tests.support.proxy_headers import UNIX, v2
from tests.support.tls_dialog import SecureTestCase
from twisted_smtpd import tls


class OddCertificateTests(SecureTestCase):
    """A client's certificate can be such that no library can tell about it."""

    def setUp(self) -> None:
        super().setUp()

        def describe(transport: Any) -> None:
            raise ValueError("a certificate of version 9")

        self.patch(tls, "describe", describe)

    def test_nothing_said_in_clear_survives_starttls(self) -> None:
        asked: list[Any] = []
        peer = self.connect(hooks(handle_STARTTLS=lambda *arguments: asked.append(arguments)), tls_context=self.files())
        peer.read()
        peer.send(ENVELOPE)
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


class EndOfProgramTests(SynchronousTestCase):
    def test_a_hook_that_has_waited_and_then_ends_the_program_leaves_no_client_waiting(self) -> None:
        # The reactor sees to it where the hook has not waited.
        waited: Deferred[None] = Deferred()
        ended: list[Any] = []

        async def handle_RCPT(*_: object) -> str:
            await waited
            raise SystemExit(3)

        factory = make_factory(hooks(handle_RCPT=handle_RCPT, handle_DISCONNECT=lambda *_: ended.append(1)))
        client = join(factory)
        client.send(ENVELOPE)
        waited.callback(None)
        self.assertTrue(client.transport.disconnecting or client.transport.disconnected)
        client.lose()
        self.assertEqual((len(factory.connections.open), ended), (0, [1]))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)


class LimitTests(SynchronousTestCase):
    def test_clients_that_hang_up_after_data_still_count(self) -> None:
        promises = Promises()
        factory = make_factory(hooks(handle_DATA=promises), max_connections_per_address=2, hook_timeout=10)
        for _ in range(5):
            client = join(factory)
            client.send(MESSAGE)
            client.lose()
        self.assertEqual(len(promises.made), 2)
        self.assertEqual(len(factory.connections.open), 2)
        promises.made[0].callback("250 OK")
        self.assertEqual(len(factory.connections.open), 1)
        self.assertEqual(promises.cancelled, [])
        pass_time(client, 60)
        self.assertEqual(promises.cancelled, [promises.made[1]])
        self.assertEqual(factory.connections.open, set())
        self.assertEqual(factory.connections.timers.clock.getDelayedCalls(), [])

    def test_draining_waits_for_the_hook_of_a_client_that_is_gone(self) -> None:
        promises = Promises()
        factory = make_factory(hooks(handle_DATA=promises))
        client = join(factory)
        client.send(MESSAGE)
        client.lose()
        drained = factory.drain(10)
        self.assertNoResult(drained)
        promises.made[0].callback("250 OK")
        self.successResultOf(drained)

    def test_draining_ends_with_the_grace_period_all_the_same(self) -> None:
        factory = make_factory(hooks(handle_DATA=Promises()))
        client = join(factory)
        client.send(MESSAGE)
        client.lose()
        drained = factory.drain(10)
        pass_time(client, 11)
        self.successResultOf(drained)

    def test_a_session_that_hooks_keep_busy_ends_in_time(self) -> None:
        clock = Clock()
        slow = hooks(handle_NOOP=lambda *arguments: deferLater(clock, 7, lambda: "250 OK"))
        client = connect(slow, session_timeout=600, clock=clock)
        for _ in range(700):
            if client.closed:
                break
            client.protocol.dataReceived(b"NOOP\r\n")
            pass_time(client, 1)
        self.assertTrue(client.closed)
        self.assertLess(clock.seconds(), 620)
        self.assertTrue(client.read().endswith(b"421 4.4.2 Connection was open for too long, closing it\r\n"))

    def test_dripping_octets_do_not_prolong_a_hook_that_does_not_read(self) -> None:
        client = connect(hooks(handle_DATA_STREAM=Promises()), hook_timeout=100, session_timeout=10**6, timeout=50)
        client.send(ENVELOPE + b"DATA\r\n" + (b"x" * 98 + b"\r\n") * 4000)
        for _ in range(3):
            client.protocol.dataReceived(b"x")
            pass_time(client, 40)
        client.protocol.dataReceived(b"\r\n.\r\n")
        self.assertEqual(codes(client.read())[-1], 451)

    def test_one_deferred_that_cannot_be_cancelled_stops_no_clock_but_its_own(self) -> None:
        def refuse(promise: Deferred[Any]) -> None:
            raise RuntimeError("no")

        factory = make_factory(hooks(handle_NOOP=Promises(refuse)), hook_timeout=20, timeout=300)
        stuck, idle = join(factory), join(factory)
        stuck.send(b"NOOP\r\n")
        pass_time(idle, 400)
        self.assertTrue(stuck.closed)
        self.assertTrue(idle.closed)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_time_a_client_does_not_read_is_charged_to_nobody(self) -> None:
        client = connect(timeout=300)
        client.transport.room = 10
        client.send(b"NOOP\r\nNOOP\r\n")
        client.send(b"NOOP\r\n")
        pass_time(client, 290)
        client.transport.room = None
        client.transport.producer.resumeProducing()
        pass_time(client, 250)
        self.assertFalse(client.closed)


class CommandTests(SynchronousTestCase):
    def test_a_chunk_is_never_taken_for_commands(self) -> None:
        client = connect()
        said = client.send(b"EHLO x\r\nBDAT 30\r\nMAIL FROM:<evil@x.example>\r\n")
        self.assertEqual(codes(said), [250, 521])
        self.assertTrue(client.closed)

    def test_draining_answers_a_client_that_authenticates(self) -> None:
        def callback(mechanism: str, login: bytes, password: bytes) -> bool:
            return True

        client = connect(auth_callback=callback, auth_require_tls=False)
        client.send(b"EHLO x\r\nAUTH PLAIN\r\n")
        client.protocol.connections.drain(10)
        self.assertEqual(codes(client.read()), [421])
        self.assertTrue(client.closed)

    def test_a_unix_socket_that_a_proxy_tells_of_may_not_vouch(self) -> None:
        client = connect(host=UNIXAddress("/run/x"), proxy_from=["unix"], xclient_from=["unix"])
        client.send(v2(UNIX, 0x31))
        self.assertEqual(client.protocol.session.peer, "")
        client.send(b"EHLO x\r\n")
        self.assertEqual(codes(client.send(b"XCLIENT LOGIN=root\r\n")), [550])

    def test_a_name_in_xclient_is_checked_like_one_in_helo(self) -> None:
        client = connect(host="127.0.0.1", xclient_from=["127.0.0.1"])
        client.send(b"EHLO x\r\n")
        self.assertEqual(codes(client.send(b"XCLIENT HELO=" + b"a" * 256 + b"\r\n")), [501])
