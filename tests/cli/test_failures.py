"""Failures on demand, from the command line: any handler, deterministic, and errors in one line."""

from __future__ import annotations

from tests.support.command_line import CommandLine
from tests.support.fakes import Client, codes
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.tap import _factory
from twisted_smtpd.testing.tls import FailingTLS

HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<anne@example.com>\r\n"
CONTENT = b"Subject: hi\r\n\r\nhello\r\n.\r\n"


def rcpt(number: int) -> bytes:
    return b"RCPT TO:<b%d@example.com>\r\n" % number


class FailureOptionTests(CommandLine):
    def client(self, *words: str) -> Client:
        options = self.parse(*words)
        factory = _factory(options)
        client = Client(factory.buildProtocol(None), "127.0.0.1")
        self.addCleanup(client.lose)
        return client

    def refusals(self, *words: str) -> list[int]:
        """The codes of 40 recipients."""
        client = self.client("-c", "sink", *words)
        client.send(HELLO + MAIL)
        client.read()
        return [codes(client.send(rcpt(number)))[0] for number in range(40)]

    def test_the_same_seed_gives_the_same_failures(self) -> None:
        first = self.refusals("--fail", "rcpt=451:30%", "--fail-seed", "7")
        self.assertEqual(first, self.refusals("--fail", "rcpt=451:30%", "--fail-seed", "7"))
        self.assertNotEqual(first, self.refusals("--fail", "rcpt=451:30%", "--fail-seed", "8"))
        self.assertEqual(set(first), {250, 451})
        self.assertIn(first.count(451), range(4, 24))

    def test_times_after_and_match(self) -> None:
        self.assertEqual(self.refusals("--fail", "rcpt=452 4.2.2 full:times=2:after=1")[:4], [250, 452, 452, 250])
        self.assertEqual(self.refusals("--fail", "RCPT=no such user:match=b3@")[2:5], [250, 550, 250])

    def test_any_handler_fails_before_and_after_its_hooks(self) -> None:
        client = self.client("-c", "sink", "--fail", "message=552:times=1", "--fail", "answer=451:times=1")
        client.send(HELLO)
        client.read()
        for expected in (552, 451, 250):
            client.send(MAIL + rcpt(1) + b"DATA\r\n")
            client.read()
            self.assertEqual(codes(client.send(CONTENT)), [expected])

    def test_connect_is_refused_for_a_handler_without_that_hook(self) -> None:
        client = self.client("-c", "sink", "--fail", "connect=554 go away")
        self.assertEqual(codes(client.read()), [554])

    def test_an_extension_is_hidden(self) -> None:
        client = self.client("-c", "sink", "--fail", "ehlo=without size chunking")
        client.read()
        said = client.send(HELLO)
        self.assertNotIn(b"SIZE", said)
        self.assertNotIn(b"CHUNKING", said)
        self.assertIn(b"PIPELINING", said)

    def test_lmtp(self) -> None:
        client = self.client("-c", "sink", "--lmtp", "-l", "8026", "--fail", "message=452:match=b2@")
        self.assertIsInstance(client.protocol, LMTP)
        client.send(b"LHLO client.example\r\n" + MAIL + rcpt(1) + rcpt(2) + rcpt(3) + b"DATA\r\n")
        client.read()
        self.assertEqual(codes(client.send(CONTENT)), [250, 452, 250])

    def test_tls_fails_only_where_there_is_tls(self) -> None:
        options = self.parse("-c", "sink", "--tls-self-signed", "--listen-tls", "8465", "--fail", "tls=expired")
        self.assertIsInstance(options.listeners[-1].tls, FailingTLS)
        self.assertIsInstance(options.server_options()["tls_context"], FailingTLS)
        self.flushWarnings()
        self.assertIn("TLS can't fail without --tlscert", self.refused("--fail", "tls=expired"))

    def test_an_error_is_one_line(self) -> None:
        for text, words in (
            ("rcpt", "'rcpt' is not WHERE=WHAT, such as rcpt=451:10%"),
            ("=451", "'=451' is not WHERE=WHAT"),
            ("rcpt=", "'rcpt=' is not WHERE=WHAT"),
            ("rcpt=451:10", "'451:10' is no reply"),
            ("rcpt=451:times=x", "'times=x': a number is wanted"),
            ("rcpt=451:0%", "chance: above 0, at most 1"),
            ("rcpt=451:101%", "chance: above 0, at most 1"),
            ("rcpt=451:times=1:times=2", "has times twice"),
            ("recpt=451", "RECPT is neither a command nor one of CONNECT, TLS"),
            ("rcpt=explode", "'explode' can't happen at RCPT"),
            ("data=slow:delay=inf", "delay: between 0 and 86,400 seconds, not inf"),
        ):
            self.assertIn(words, self.refused("--fail", text))
        self.assertIn("--fail: not with --workers", self.refused("--fail", "rcpt=451", "--workers", "2"))
