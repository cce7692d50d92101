"""What a client may do again and again has an end: commands that achieve nothing, refusals by hooks, and rates."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.auth_helpers import RIGHT, dial
from tests.support.fakes import EHLO, ENVELOPE, MESSAGE, Client, answering, codes, connect, hooks, join, make_factory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.runtime.limits import MAX_ADDRESSES, MINUTE, Rates

MAIL = b"MAIL FROM:<a@x.example>\r\n"
RCPT = b"RCPT TO:<b@y.example>\r\n"


def refusing_no(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
    if address.startswith("no"):
        return "550 no such user"
    envelope.rcpt_tos.append(address)
    return "250 OK"


class IdleCommandTests(SynchronousTestCase):
    """Seen: NOOP or HELP without end, on one connection, for an hour."""

    def test_commands_that_achieve_nothing_have_an_end(self) -> None:
        for line, code in ((b"NOOP", 250), (b"RSET", 250), (b"HELP", 214), (b"VRFY <a@x.example>", 252)):
            client = connect(max_idle_commands=5)
            self.assertEqual(codes(client.send((line + b"\r\n") * 10)), [code] * 5 + [421])
            self.assertTrue(client.closed, line)

    def test_a_greeting_again_and_again_is_one_of_them(self) -> None:
        client = connect(max_idle_commands=5)
        client.send(EHLO * 10)
        self.assertTrue(client.closed)

    def test_it_is_100_by_default(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(b"NOOP\r\n" * 200)), [250] * 100 + [421])

    def test_a_message_begins_the_count_anew(self) -> None:
        client = connect(max_idle_commands=5)
        for _ in range(10):
            self.assertEqual(codes(client.send(b"RSET\r\nNOOP\r\n" + MESSAGE))[-1], 250)
        self.assertFalse(client.closed)

    def test_a_sign_in_begins_the_count_anew(self) -> None:
        client = dial(max_idle_commands=3)
        said = client.send(b"NOOP\r\n" * 2 + b"AUTH PLAIN %b\r\n" % RIGHT + b"NOOP\r\n" * 3)
        self.assertEqual(codes(said), [250, 250, 235, 250, 250, 250])

    def test_zero_is_any_number(self) -> None:
        self.assertEqual(codes(connect(max_idle_commands=0).send(b"NOOP\r\n" * 200)), [250] * 200)


class RefusalTests(SynchronousTestCase):
    """Seen: 100,000 RCPT that a hook refused, on one connection in a second."""

    def test_refused_recipients(self) -> None:
        client = connect(hooks(handle_RCPT=refusing_no), max_refusals=5)
        client.send(EHLO + MAIL)
        self.assertEqual(codes(client.send(b"RCPT TO:<no@y.example>\r\n" * 10)), [550] * 5 + [421])
        self.assertTrue(client.closed)

    def test_refused_senders(self) -> None:
        client = connect(hooks(handle_MAIL=answering("550 no")), max_refusals=5)
        client.send(EHLO)
        self.assertEqual(codes(client.send(MAIL * 10)), [550] * 5 + [421])

    def test_refused_vrfy(self) -> None:
        client = connect(hooks(handle_VRFY=answering("550 no")), max_refusals=5)
        self.assertEqual(codes(client.send(b"VRFY a@x.example\r\n" * 10)), [550] * 5 + [421])

    def test_refused_messages(self) -> None:
        client = connect(hooks(handle_DATA=answering("554 spam")), max_refusals=5)
        said = client.send(MESSAGE * 10)
        self.assertEqual((codes(said).count(554), codes(said)[-1]), (5, 421))

    def test_recipients_that_were_accepted_are_not_lost(self) -> None:
        """The further ones are put off, without a question to the hook, and the message goes to the others."""
        client = connect(hooks(handle_RCPT=refusing_no), max_refusals=5)
        client.send(ENVELOPE)
        said = client.send(b"RCPT TO:<no@y.example>\r\n" * 5 + RCPT * 40)
        self.assertEqual(codes(said), [550] * 5 + [452] * 40)
        self.assertEqual(codes(client.send(b"DATA\r\nhi\r\n.\r\n" + MAIL + RCPT)), [354, 250, 250, 250])

    def test_but_not_without_end(self) -> None:
        client = connect(hooks(handle_RCPT=refusing_no), max_refusals=5)
        client.send(ENVELOPE)
        self.assertEqual(codes(client.send(b"RCPT TO:<no@y.example>\r\n" * 100)), [550] * 5 + [452] * 45 + [421])

    def test_a_message_that_is_accepted_begins_the_count_anew(self) -> None:
        client = connect(hooks(handle_RCPT=refusing_no), max_refusals=5)
        for _ in range(10):
            said = client.send(ENVELOPE + b"RCPT TO:<no@y.example>\r\n" * 4 + b"DATA\r\nhi\r\n.\r\n")
            self.assertEqual(codes(said)[-1], 250)

    def test_lmtp_says_all_its_replies_first(self) -> None:
        client = connect(hooks(handle_DATA=answering("550 full")), LMTP, max_refusals=2)
        said = client.send(b"LHLO x\r\n" + MAIL + RCPT * 4 + b"DATA\r\nhi\r\n.\r\n" + MAIL)
        self.assertEqual(codes(said)[-5:], [550] * 4 + [421])

    def test_a_hook_that_fails_is_not_the_client_s_fault(self) -> None:
        def fail(*arguments: Any) -> str:
            raise ZeroDivisionError

        client = connect(hooks(handle_RCPT=fail), max_refusals=3)
        client.send(EHLO + MAIL)
        self.assertEqual(codes(client.send(RCPT * 10)), [451] * 10)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 10)


class RateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def clients(self, host: str = "192.0.2.1", **options: Any) -> Any:
        factory = make_factory(clock=self.clock, **options)
        return lambda where=host: join(factory, where)

    def test_connections_a_minute(self) -> None:
        new = self.clients(connection_rate=2)

        def served(client: Client) -> bool:
            code = codes(client.read())[0]
            client.lose()
            return code == 220

        self.assertEqual([served(new()) for _ in range(4)], [True, True, False, False])
        self.assertTrue(served(new("198.51.100.7")), "another address is another client")
        self.assertEqual([served(new("127.0.0.1")) for _ in range(4)], [True] * 4)
        self.clock.advance(MINUTE)
        self.assertEqual([served(new()) for _ in range(3)], [True, True, False])

    def test_messages_a_minute_over_all_connections_of_an_address(self) -> None:
        new = self.clients(message_rate=2)
        self.assertEqual([codes(new().send(MESSAGE))[2] for _ in range(3)], [250, 250, 450])
        self.assertEqual(codes(new("198.51.100.7").send(MESSAGE))[2], 250)
        self.clock.advance(MINUTE)
        self.assertEqual(codes(new().send(MESSAGE))[2], 250)

    def test_recipients_a_minute(self) -> None:
        """The surplus is put off; what was accepted is delivered."""
        client = self.clients(recipient_rate=3)()
        said = client.send(EHLO + MAIL + RCPT * 20 + b"DATA\r\nhi\r\n.\r\n")
        self.assertEqual(codes(said)[3:], [250] * 3 + [450] * 17 + [354, 250])

    def test_as_many_addresses_are_remembered(self) -> None:
        rates = Rates()
        for number in range(MAX_ADDRESSES + 5):
            rates.another("messages", str(number), 1, 0.0)
        self.assertEqual(len(rates._minutes), MAX_ADDRESSES)
        self.assertFalse(rates.another("messages", str(MAX_ADDRESSES), 1, 1.0))

    def test_what_is_over_is_forgotten(self) -> None:
        rates = Rates()
        for number in range(10):
            rates.another("messages", str(number), 1, float(number))
        rates.another("messages", "x", 1, MINUTE + 4.5)
        self.assertEqual(len(rates._minutes), 6)
