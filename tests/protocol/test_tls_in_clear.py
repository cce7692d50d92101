"""A client that speaks TLS where the dialog begins in clear; and one that has made too many errors in a line."""

from __future__ import annotations

from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, ENVELOPE, MESSAGE, Promises, codes, connect, hooks
from tests.support.tls_dialog import SecureTestCase
from tests.support.tls_helpers import client_hello

RECORD = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


class HelloTests(SynchronousTestCase):
    """It heard "Lines end with CR LF" or nothing, nothing was logged, and it stayed until the timeout."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lines(self) -> list[str]:
        return [line for line in map(formatEvent, self.events) if "speaks TLS" in line]

    def test_a_line_in_the_log_and_it_is_closed(self) -> None:
        for hello in (
            client_hello(),
            RECORD,
            RECORD + b"a\nb" * 20,
            RECORD + b"a\r\nb\r\n\r\nc" * 20,
            RECORD + b"a\nb\r\nc",
            RECORD + b"x" * 5000,
            RECORD + b"\r",
        ):
            for whole in (True, False):
                self.events.clear()
                client = connect()
                said = client.send(hello) if whole else b"".join(client.send(bytes([octet])) for octet in hello)
                self.assertEqual(said, b"", hello)
                self.assertTrue(client.closed)
                (line,) = self.lines()
                self.assertIn(" 192.0.2.1:40000 the client speaks TLS at once", line)

    def test_also_where_the_server_has_not_greeted_yet(self) -> None:
        waiting = Promises()
        client = connect(hooks(handle_CONNECT=waiting))
        self.assertEqual(client.send(client_hello()), b"")
        waiting.made[0].callback("220 hello")
        self.assertEqual(client.read(), b"220 hello\r\n")
        self.assertTrue(client.closed)
        self.assertEqual(len(self.lines()), 1)

    def test_also_in_an_exchange_of_auth(self) -> None:
        client = connect(auth_callback=lambda *arguments: True, auth_require_tls=False)
        client.send(EHLO + b"AUTH PLAIN\r\n")
        self.assertEqual(client.send(client_hello()), b"")
        self.assertTrue(client.closed)

    def test_a_message_may_have_these_octets(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\n" + RECORD + b"\r\n.\r\n"))[-1], 250)
        self.assertFalse(client.closed)

    def test_a_line_that_only_resembles_it_is_answered(self) -> None:
        for line in (b"\x16\r\n", b"\x15\x03\x01\r\n", b"NOOP \x16\x03\r\n"):
            client = connect()
            self.assertEqual(len(codes(client.send(line))), 1, line)
            self.assertFalse(client.closed)


class StartTLSTests(SecureTestCase):
    def test_starttls_is_no_such_thing(self) -> None:
        peer = self.connect(tls_context=self.files())
        peer.starttls()
        self.assertEqual(codes(peer.send(MESSAGE))[-1], 250)
        self.assertEqual(self.logged("speaks TLS"), [])


class LastErrorTests(SynchronousTestCase):
    """``max_errors=1`` and a line without end: it heard "421 closing", and stayed for 300 seconds."""

    def test_the_last_error_closes_wherever_it_is_found(self) -> None:
        for line in (b"x" * 4000, b"x" * 4000 + b"\r", b"x\nx", b"FOO\r\n", b"x" * 4000 + b"\r\n", b"\xff\r\n"):
            client = connect(max_errors=1)
            said = client.send(line)
            self.assertEqual(codes(said)[-1], 421, line)
            self.assertTrue(client.closed, line)

    def test_the_tenth_does_as_well(self) -> None:
        client = connect()
        client.send(b"FOO\r\n" * 9)
        self.assertFalse(client.closed)
        self.assertEqual(codes(client.send(b"x" * 4000)), [500, 421])
        self.assertTrue(client.closed)

    def test_one_in_an_exchange_of_auth_does_as_well(self) -> None:
        client = connect(auth_callback=lambda *arguments: True, auth_require_tls=False, max_errors=1)
        client.send(EHLO + b"AUTH PLAIN\r\n")
        self.assertEqual(codes(client.send(b"x" * 20000))[-1], 421)
        self.assertTrue(client.closed)

    def test_a_line_that_is_not_the_last_error_leaves_it_open(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(b"x" * 4000)), [500])
        self.assertFalse(client.closed)
        self.assertEqual(codes(client.send(b"x\r\nNOOP\r\n")), [250])
