"""Messages that wait for a connection to the next host: none is forgotten, and none waits for another's end."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.support.fakes import Client, codes
from tests.support.next_host import NextHostDouble, ProxyTestCase, transaction
from twisted_smtpd.factory import SMTPFactory

TOO_MANY = b"451 4.4.5 Too many messages for the next host, try again later\r\n"


class WaitingTests(ProxyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.host = NextHostDouble()
        self.factory: SMTPFactory = self.serve(self.host, max_connections=1, timeout=30)

    def begin(self) -> Client:
        """A client whose first recipient needs the only connection there is; the sender is answered at once."""
        client = self.join(self.factory)
        client.protocol.dataReceived(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
        return client

    def test_the_first_that_waits_gets_the_connection_that_becomes_free(self) -> None:
        first, second, third = self.begin(), self.begin(), self.begin()
        self.assertEqual([codes(client.read()) for client in (first, second, third)], [[250, 250], [250], [250]])
        first.send(b"RSET\r\n")
        self.assertEqual(codes(second.read()), [250])
        self.assertEqual(third.read(), b"")

    def test_one_that_has_waited_too_long_takes_no_turn_from_the_next(self) -> None:
        first, second = self.begin(), self.begin()
        first.read()
        self.clock.advance(20)
        third = self.begin()
        self.clock.advance(11)
        self.assertIn(TOO_MANY, second.read())
        self.assertEqual(codes(third.read()), [250])
        first.send(b"RSET\r\n")
        self.assertEqual(codes(third.read()), [250])

    def test_one_whose_client_has_gone_takes_no_turn_from_the_next(self) -> None:
        first, second, third = self.begin(), self.begin(), self.begin()
        first.read()
        second.lose()
        first.send(b"RSET\r\n")
        self.assertEqual(codes(third.read()), [250, 250])

    def test_a_connection_that_dies_lets_the_next_make_one(self) -> None:
        first, second = self.begin(), self.begin()
        first.read()
        self.host.lines[0].hang_up()
        self.assertEqual(codes(second.read()), [250, 250])
        self.assertEqual(len(self.host.lines), 2)

    def test_one_that_can_not_be_made_lets_the_next_try(self) -> None:
        first, second = self.begin(), self.begin()
        first.read()
        self.host.refuse_connections = True
        self.host.lines[0].hang_up()
        self.assertIn(451, codes(second.read()))
        self.host.refuse_connections = False
        self.assertEqual(codes(self.begin().read()), [250, 250])

    def test_a_kept_connection_that_has_died_is_not_used(self) -> None:
        client = self.join(self.factory)
        self.assertEqual(codes(client.send(transaction()))[-1], 250)
        self.host.lines[0].hang_up()
        self.assertEqual(codes(client.send(transaction()))[-1], 250)
        self.assertEqual(len(self.host.lines), 2)
        self.assertEqual(len(self.host.messages), 2)

    def test_the_end_of_the_server_ends_the_waiting(self) -> None:
        first, second = self.begin(), self.begin()
        first.read()
        proxy = self.factory.handler
        ending = Deferred.fromCoroutine(proxy.stop())  # type: ignore[attr-defined]
        self.assertIn(451, codes(second.read()))
        ending.addErrback(lambda failure: failure.trap(CancelledError))
