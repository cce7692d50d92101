"""Whoever can reach the page of metrics can't fill the disk with it, nor hold many connections."""

from __future__ import annotations

import tempfile
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.metrics.figures import Metric, Reading
from twisted_smtpd.metrics.page import LIFETIME, MAX_CONNECTIONS, metrics_site


class PageLimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answer: Any = [Reading(None, [Metric.gauge("smtpd_connections", "Clients being served.", 5)])]
        self.site: Any = metrics_site(lambda: self.answer, str, self.clock)

        def spool(*arguments: Any, **options: Any) -> Any:
            self.fail("a body is kept")

        self.patch(tempfile, "TemporaryFile", spool)

    def connect(self) -> tuple[Any, StringTransport]:
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport = StringTransport()
        if channel is not None:
            channel.makeConnection(transport)
        return channel, transport

    def ask(self, request: bytes) -> tuple[bytes, StringTransport]:
        channel, transport = self.connect()
        channel.dataReceived(request)
        return transport.value(), transport

    def test_get_and_head_are_answered_and_the_connection_is_closed(self) -> None:
        for method in (b"GET", b"HEAD"):
            for version in (b"1.0", b"1.1"):
                said, transport = self.ask(method + b" /metrics HTTP/%b\r\nHost: x\r\n\r\n" % version)
                self.assertTrue(said.startswith(b"HTTP/%b 200 OK\r\n" % version), said)
                self.assertIn(b"\r\nConnection: close\r\n", said)
                self.assertEqual(b"smtpd_connections 5" in said, method == b"GET")
                self.assertTrue(transport.disconnecting)

    def test_other_methods_are_refused(self) -> None:
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"FOO"):
            said, transport = self.ask(method + b" /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            self.assertRegex(said, rb"^HTTP/1.1 (405|501) ")
            self.assertTrue(transport.disconnecting)

    def test_a_body_is_refused_before_it_comes(self) -> None:
        """A POST of 400 MB was written to the disk."""
        for method in (b"POST", b"GET", b"HEAD"):
            for header in (b"Content-Length: 1", b"Content-Length: 400000000", b"Transfer-Encoding: chunked"):
                for expect in (b"", b"Expect: 100-continue\r\n"):
                    channel, transport = self.connect()
                    channel.dataReceived(b"%b /metrics HTTP/1.1\r\nHost: x\r\n%b\r\n%b\r\n" % (method, header, expect))
                    self.assertTrue(transport.value().startswith(b"HTTP/1.1 413 "), transport.value())
                    self.assertTrue(transport.disconnecting)
                    before = len(transport.value())
                    for _ in range(4):
                        channel.dataReceived(b"x" * 2**16)
                    self.assertEqual(len(transport.value()), before)

    def test_a_second_request_of_a_connection_is_not_answered(self) -> None:
        said, _ = self.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        self.assertEqual(said.count(b"HTTP/1.1 200 OK"), 1)

    def test_a_head_without_end_is_cut_off(self) -> None:
        for piece in (b"x" * 1000, b"X-A: b\r\n" * 100):
            channel, transport = self.connect()
            channel.dataReceived(b"GET /metrics HTTP/1.1\r\n")
            for _ in range(100):
                if transport.disconnecting:
                    break
                channel.dataReceived(piece)
            self.assertTrue(transport.disconnecting)

    def test_the_number_of_connections_is_bounded(self) -> None:
        """300 idle ones were held."""
        open_ones = [self.connect()[0] for _ in range(MAX_CONNECTIONS)]
        self.assertNotIn(None, open_ones)
        self.assertIsNone(self.connect()[0])
        open_ones[0].connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(self.connect()[0])

    def test_each_ends_in_time_also_one_that_drips(self) -> None:
        for drip in (b"", b"x"):
            channel, transport = self.connect()
            for _ in range(LIFETIME - 1):
                channel.dataReceived(drip)
                self.clock.advance(1)
            self.assertFalse(transport.disconnected)
            self.clock.advance(1)
            channel.dataReceived(drip) if not transport.disconnected else None
            self.clock.advance(1)
            self.assertTrue(transport.disconnected or transport.disconnecting)
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.site.connections, 0)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active() and call.getTime() > 1e6], [])

    def test_one_whose_answer_does_not_come_ends_as_well(self) -> None:
        self.answer = Deferred()
        _, transport = self.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        self.clock.advance(LIFETIME + 1)
        self.assertTrue(transport.disconnected)
