"""What only looks like an end of data, through Proxy: the next host gets one message, and no command of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.support.content_model import BARE, LOOKALIKES, NEXT, octets
from tests.support.fakes import codes
from tests.support.next_host import EHLO, NextHostDouble, ProxyTestCase
from twisted_smtpd.factory import SMTPFactory

# `python scripts/long_runs.py smuggling` tries all hosts with each place at which what is sent can be split.
EVERY_SPLIT = False

HEAD = b"Subject: x\r\n\r\n"
BARE_NEWLINE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
PLACES = {
    "in the middle": (HEAD + b"a", NEXT + b"b\r\n"),
    "at the start of the body": (HEAD, NEXT + b"b\r\n"),
    "at the end": (HEAD + b"a", NEXT),
}
HOSTS = {
    "SMTP": EHLO,
    "LMTP": EHLO,
    "no PIPELINING": "250-next.example\n250 8BITMIME",
    "CHUNKING": "250-next.example\n250-PIPELINING\n250-CHUNKING\n250 8BITMIME",
}


def ways(data: bytes, kind: str) -> Iterator[list[bytes]]:
    """How the octets may come."""
    yield [data]
    if EVERY_SPLIT or kind == "SMTP":
        yield octets(data)
    if EVERY_SPLIT:
        for cut in range(1, len(data)):
            yield [data[:cut], data[cut:]]


class SmugglingTests(ProxyTestCase):
    def send(self, kind: str, content: bytes, chunked: bool, policy: str) -> Iterator[tuple[NextHostDouble, bytes]]:
        """Send a message in each way.

        :returns: the host that it was for, and what the client heard of it.
        """
        head = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n"
        message = b"BDAT %d LAST\r\n%b" % (len(content), content) if chunked else b"DATA\r\n" + content + b".\r\n"
        for pieces in ways(message + b"NOOP\r\n", kind):
            host = NextHostDouble(lmtp=kind == "LMTP", EHLO=HOSTS[kind], LHLO=HOSTS[kind])
            factory = SMTPFactory(self.proxy(host), hostname="mx.example", clock=self.clock, bare_newline=policy)
            client = self.join(factory)
            client.send(head)
            yield host, b"".join(client.send(piece) for piece in pieces)

    def test_the_next_host_gets_one_message(self) -> None:
        for name, (raw, kept) in LOOKALIKES.items():
            for place, (before, behind) in PLACES.items():
                for kind in HOSTS:
                    for chunked in (False, True):
                        sent, whole = before + raw + behind, before + kept + behind
                        if chunked:
                            # There are no dots to be un-stuffed, and none can end it.
                            whole = before + _normalized(raw) + behind
                        what = (name, place, kind, chunked)
                        for host, said in self.send(kind, sent, chunked, "normalize"):
                            self.assertEqual(codes(said)[-2:], [250, 250], what)
                            (message,) = host.messages
                            self.assertTrue(message.endswith(whole), (what, message))
                            self.assertIsNone(BARE_NEWLINE.search(message), what)
                            verbs = [command[:4] for command in host.commands]
                            self.assertEqual(verbs[1:3], ["MAIL", "RCPT"], what)
                            self.assertEqual(len(verbs), 4, what)
                            self.assertNotIn("next@example.org", " ".join(host.commands), what)

    def test_with_reject_none_is_sent_on(self) -> None:
        for name in sorted(BARE):
            raw, _ = LOOKALIKES[name]
            for kind in HOSTS:
                for chunked in (False, True):
                    for host, said in self.send(kind, HEAD + b"a" + raw + NEXT + b"b\r\n", chunked, "reject"):
                        self.assertEqual(codes(said)[-2:], [550, 250], (name, kind, chunked))
                        self.assertEqual(host.messages, [], (name, kind, chunked))


def _normalized(raw: bytes) -> bytes:
    """A model of ``bare_newline="normalize"``: CRs before a LF belong to its line end, each other CR is a blank."""
    return re.sub(rb"\r", b" ", re.sub(rb"\r*\n", b"\n", raw)).replace(b"\n", b"\r\n")
