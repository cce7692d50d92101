"""The connections to the next host are shared: a client has its share of them, and each for a bounded time."""

from __future__ import annotations

from typing import Any

from tests.support.fakes import Client, codes
from tests.support.next_host import NextHostDouble, ProxyTestCase, transaction
from tests.support.tls_dialog import Peer, SecureTestCase
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Proxy

START = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n"
DATA = b"DATA\r\nSubject: hi\r\n\r\nhello\r\n.\r\n"


class ShareTests(ProxyTestCase):
    """Seen: one client with 20 transactions, never ended, and forwarding stood still for all."""

    def client(self, factory: SMTPFactory, host: Any) -> Client:
        client = Client(factory.buildProtocol(None), host)
        client.send(b"EHLO client.example\r\n")
        return client

    def test_a_client_has_a_quarter_of_the_connections(self) -> None:
        host = NextHostDouble()
        factory = self.serve(host, max_connections=8)
        greedy = [self.client(factory, "192.0.2.1") for _ in range(10)]
        said = [codes(client.send(START)) for client in greedy]
        self.assertEqual([one == [250, 250] for one in said], [True] * 2 + [False] * 8)
        other = self.client(factory, "198.51.100.1")
        self.assertEqual(codes(other.send(START + DATA))[-1], 250)
        self.assertLessEqual(len(host.lines), 3)

    def test_an_ipv6_client_s_64_is_one_client(self) -> None:
        factory = self.serve(NextHostDouble(), max_connections=4)
        self.assertEqual(codes(self.client(factory, "2001:db8::1").send(START)), [250, 250])
        self.assertNotEqual(codes(self.client(factory, "2001:db8::2").send(START)), [250, 250])

    def test_loopback_clients_have_any_number(self) -> None:
        factory = self.serve(NextHostDouble(), max_connections=4)
        for _ in range(4):
            self.assertEqual(codes(self.client(factory, "127.0.0.1").send(START)), [250, 250])

    def test_a_connection_given_back_is_the_client_s_next_one(self) -> None:
        factory = self.serve(NextHostDouble(), max_connections=4)
        first, second = (self.client(factory, "192.0.2.1") for _ in range(2))
        first.send(START)
        second.send(START)
        first.send(b"RSET\r\n")
        self.assertEqual(codes(second.read()), [250])

    def test_one_that_was_lost_counts_no_more(self) -> None:
        host = NextHostDouble()
        factory = self.serve(host, max_connections=4)
        self.client(factory, "192.0.2.1").send(START)
        host.lines[0].hang_up()
        self.assertEqual(codes(self.client(factory, "192.0.2.1").send(START)), [250, 250])

    def test_who_has_least_is_served_first(self) -> None:
        """Not who came first: one client may have many that wait."""
        host = NextHostDouble()
        factory = self.serve(host, max_connections=2, max_connections_per_client=2)
        greedy = [self.client(factory, "192.0.2.1") for _ in range(5)]
        for client in greedy:
            client.send(START)
        other = self.client(factory, "198.51.100.1")
        other.send(START)
        greedy[0].send(b"RSET\r\n")
        self.assertEqual(codes(other.read()), [250])


class HoldTests(ProxyTestCase):
    def test_none_is_taken_before_there_is_a_recipient(self) -> None:
        host = NextHostDouble()
        client = self.join(self.serve(host))
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@x.example>\r\n")), [250])
        self.assertEqual(host.lines, [])
        self.assertEqual(codes(client.send(b"RCPT TO:<b@y.example>\r\n" + DATA)), [250, 354, 250])

    def test_a_host_that_is_down_is_asked_once_for_a_message(self) -> None:
        """Not for each recipient: each would wait until the attempt has timed out."""
        host = NextHostDouble()
        host.hold_connections = True
        client = self.join(self.serve(host, timeout=10))
        client.send(START + b"RCPT TO:<c@y.example>\r\n" * 5)
        self.clock.advance(11)
        self.assertEqual(codes(client.read()), [451] * 6)

    def test_a_connection_is_held_for_a_bounded_time(self) -> None:
        """And the message of a slow client is delivered all the same."""
        host = NextHostDouble()
        factory = self.serve(host, max_connections=1, hold=60)
        slow = self.join(factory)
        slow.send(START)
        self.clock.advance(61)
        self.assertEqual(host.commands[-1], "RSET")
        other = self.join(factory)
        self.assertEqual(codes(other.send(transaction()))[-1], 250)
        self.assertEqual(codes(slow.send(b"RCPT TO:<c@y.example>\r\n" + DATA)), [452, 354, 250])
        self.assertEqual(len(host.messages), 2)

    def test_however_many_recipients_are_named(self) -> None:
        host = NextHostDouble()
        client = self.join(self.serve(host, hold=60))
        client.send(START)
        said = []
        for _ in range(8):
            self.clock.advance(10)
            said += codes(client.send(b"RCPT TO:<c@y.example>\r\n"))
        self.assertEqual(said, [250] * 5 + [452] * 3)

    def test_a_message_has_the_time_that_it_needs(self) -> None:
        host = NextHostDouble(**{".": None})
        client = self.join(self.serve(host, hold=60, timeout=500, data_timeout=500))
        client.send(START + DATA)
        self.clock.advance(100)
        host.lines[0].say("250 2.0.0 queued")
        self.assertEqual(codes(client.read()), [250])

    def test_while_the_next_host_thinks_its_own_limit_counts(self) -> None:
        host = NextHostDouble(**{"RCPT TO:<c@": None})
        client = self.join(self.serve(host, hold=10, timeout=50))
        client.send(START + b"RCPT TO:<c@y.example>\r\n")
        self.clock.pump([5, 6, 5])
        host.lines[0].say("250 2.1.5 ok")
        self.assertEqual(codes(client.read()), [250])
        self.clock.pump([1, 1])
        self.assertEqual(host.commands[-1], "RSET")

    def test_no_timer_is_left(self) -> None:
        factory = self.serve(NextHostDouble(), keep=1)
        client = self.join(factory)
        client.send(START)
        client.lose()
        self.clock.pump([1, 1, 10, 10])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_its_bounds(self) -> None:
        for options in ({"hold": 0}, {"max_connections_per_client": 0}):
            self.assertRaises(ValueError, Proxy, "next.example", 25, **options)


class ReplacedSessionTests(SecureTestCase):
    """Seen: MAIL, STARTTLS and gone, 20 times: none of the 20 connections was ever given back."""

    def test_a_session_is_not_replaced_within_a_transaction(self) -> None:
        peer: Peer = self.connect(tls_context=self.files())
        said = codes(peer.send(b"EHLO x\r\n" + START + b"STARTTLS\r\nRSET\r\nSTARTTLS\r\n"))
        self.assertEqual(said[1:], [250, 250, 503, 250, 220])
