"""8-bit content on its way to a host that offers 8BITMIME (RFC 6152), and the value of SIZE (RFC 1870)."""

from __future__ import annotations

from tests.support.fakes import codes, connect
from tests.support.next_host import NextHostDouble, ProxyTestCase, transaction
from twisted_smtpd.factory import SMTPFactory

PLAIN = b"Subject: hi\r\n\r\nhello\r\n"
EIGHT_BIT = b"Subject: hi\r\n\r\nh\xe9llo\r\n"
BODY_ONLY_IN_HEADER = b"Subject: h\xc3\xa9\r\n\r\nhello\r\n"


class EightBitTests(ProxyTestCase):
    def mails(self, content: bytes, mail: str = "", **options: bool) -> list[str]:
        """What the next host hears of the sender before it is sent the message."""
        host = NextHostDouble(EHLO="250-next.example\n250 8BITMIME")
        said = self.say(host, transaction(mail=mail, content=content), **options)
        self.assertEqual(codes(said)[-1], 250)
        (message,) = host.messages
        self.assertTrue(message.endswith(content))
        self.assertEqual([command[:4] for command in host.commands][-3:], ["MAIL", "RCPT", "DATA"])
        return [command for command in host.commands if command.startswith("MAIL")]

    def test_the_next_host_is_told_if_it_can_be(self) -> None:
        """The client had said no BODY, and neither did we."""
        for content in (EIGHT_BIT, BODY_ONLY_IN_HEADER):
            for mail in ("", " BODY=7BIT"):
                self.assertEqual(self.mails(content, mail)[-1], "MAIL FROM:<a@x.example> BODY=8BITMIME")
                (said,) = self.mails(content, mail, verify_recipients=False)
                self.assertEqual(said, "MAIL FROM:<a@x.example> BODY=8BITMIME")

    def test_a_client_that_said_so_costs_no_second_transaction(self) -> None:
        for body in ("8BITMIME", "8bitmime"):
            self.assertEqual(self.mails(EIGHT_BIT, f" BODY={body}"), ["MAIL FROM:<a@x.example> BODY=8BITMIME"])

    def test_nothing_is_said_of_ascii(self) -> None:
        self.assertEqual(self.mails(PLAIN), ["MAIL FROM:<a@x.example>"])
        self.assertEqual(self.mails(PLAIN, " BODY=7BIT"), ["MAIL FROM:<a@x.example> BODY=7BIT"])

    def test_where_it_is_not_offered_the_message_is_refused(self) -> None:
        host = NextHostDouble(EHLO="250 next.example")
        self.assertEqual(codes(self.say(host, transaction(content=EIGHT_BIT)))[-1], 554)
        self.assertEqual(host.messages, [])

    def test_a_kept_connection_serves_one_after_the_other(self) -> None:
        host = NextHostDouble(EHLO="250-next.example\n250 8BITMIME")
        client = self.join(self.serve(host))
        for content in (EIGHT_BIT, PLAIN, EIGHT_BIT):
            self.assertEqual(codes(client.send(transaction(content=content)))[-1], 250)
        self.assertEqual(
            [message.partition(b"Subject")[2] for message in host.messages],
            [content.partition(b"Subject")[2] for content in (EIGHT_BIT, PLAIN, EIGHT_BIT)],
        )


class SizeTests(ProxyTestCase):
    def test_its_syntax_is_checked_without_a_limit_too(self) -> None:
        for limit in (0, 1000):
            for value, code in (("10", 250), ("a=b;c", 501), ("-1", 501), ("1" * 21, 501), ("0x10", 501)):
                client = connect(data_size_limit=limit)
                said = codes(client.send(b"EHLO a\r\nMAIL FROM:<a@x.example> SIZE=%b\r\n" % value.encode()))
                self.assertEqual(said, [250, code], (limit, value))

    def test_nothing_but_a_number_goes_on(self) -> None:
        host = NextHostDouble()
        factory = SMTPFactory(self.proxy(host), hostname="mx.example", clock=self.clock, data_size_limit=0)
        self.assertEqual(codes(self.join(factory).send(b"MAIL FROM:<a@x.example> SIZE=a=b;c\r\n")), [501])
        self.assertEqual(host.commands, [])
