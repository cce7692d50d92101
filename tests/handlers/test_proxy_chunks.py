"""The Proxy sends BDAT to a next host that has CHUNKING, and BINARYMIME only to one that has both."""

from __future__ import annotations

from typing import Any

from tests.support.fakes import codes
from tests.support.next_host import CONTENT, EHLO, NextHostDouble, ProxyTestCase, transaction
from twisted_smtpd.handlers import proxy as proxy_module
from twisted_smtpd.lmtp import LMTP

CHUNKING = EHLO.replace("250 ", "250-") + "\n250 CHUNKING"
BINARY = EHLO.replace("250 ", "250-") + "\n250-BINARYMIME\n250 CHUNKING"
BINARY_CONTENT = b"Subject: x\r\n\r\n\0\n\r.\r\n..\xff\r"


def binary(content: bytes = BINARY_CONTENT) -> bytes:
    start = b"MAIL FROM:<a@x.example> BODY=BINARYMIME\r\nRCPT TO:<b@y.example>\r\n"
    return start + b"BDAT %d LAST\r\n%b" % (len(content), content)


class ChunkTests(ProxyTestCase):
    def test_bdat_where_the_next_host_has_it(self) -> None:
        content = CONTENT + b"..dots\r\n.\r\n"
        sent = transaction(content=content.replace(b"\r\n.", b"\r\n.."))
        by_data, by_chunk = NextHostDouble(), NextHostDouble(EHLO=CHUNKING)
        self.assertEqual(self.say(by_data, sent), self.say(by_chunk, sent))
        self.assertTrue(by_chunk.commands[-1].startswith("BDAT "), by_chunk.commands)
        self.assertNotIn("DATA", by_chunk.commands)
        (first,), (second,) = by_data.messages, by_chunk.messages
        self.assertEqual(first.partition(b"Subject")[2], second.partition(b"Subject")[2])

    def test_a_refusal_is_the_clients(self) -> None:
        host = NextHostDouble(EHLO=CHUNKING, **{".": "552 5.3.4 too big"})
        self.assertTrue(self.say(host, transaction()).endswith(b"552 5.3.4 too big\r\n"))

    def test_lmtp_has_a_reply_for_each_recipient(self) -> None:
        host = NextHostDouble(lmtp=True, LHLO=CHUNKING, **{".": ["250 2.1.5 one", "452 4.2.2 two"]})
        replies = self.say(host, transaction("b@y.example", "c@y.example"), LMTP)
        self.assertEqual(codes(replies), [250, 250, 250, 354, 250, 452])

    def test_a_large_message(self) -> None:
        async def compute(function: Any, *arguments: Any) -> Any:
            return function(*arguments)

        self.patch(proxy_module, "compute", compute)
        host = NextHostDouble(EHLO=CHUNKING.replace("SIZE 10000", "SIZE 0"))
        content = CONTENT + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 5000
        self.assertEqual(codes(self.say(host, transaction(content=content)))[-1], 250)
        self.assertTrue(host.messages[0].endswith(content))

    def test_binary_goes_on_untouched(self) -> None:
        host = NextHostDouble(EHLO=BINARY)
        self.assertEqual(codes(self.say(host, binary())), [250, 250, 250])
        self.assertIn("MAIL FROM:<a@x.example> BODY=BINARYMIME", host.commands)
        self.assertTrue(host.messages[0].endswith(BINARY_CONTENT), host.messages)

    def test_binary_is_refused_where_it_cannot_go_on(self) -> None:
        for offer in (EHLO, CHUNKING, BINARY.replace("250 CHUNKING", "250 HELP")):
            host = NextHostDouble(EHLO=offer)
            said = self.say(host, binary() + b"NOOP\r\n")
            self.assertIn(b"\r\n554 5.6.3 The next host takes no binary message\r\n", said, offer)
            self.assertEqual(host.messages, [])
            self.assertEqual(codes(said)[-1], 250)

    def test_binary_is_offered_only_where_it_can_go_on(self) -> None:
        for offer, expected in ((EHLO, False), (CHUNKING, False), (BINARY, True)):
            host = NextHostDouble(EHLO=offer)
            client = self.join(self.serve(host))
            client.send(transaction())
            said = client.send(b"EHLO again.example\r\n")
            self.assertEqual(b"250-BINARYMIME" in said, expected)
            self.assertIn(b"250-CHUNKING", said)
