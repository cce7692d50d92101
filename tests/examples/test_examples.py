"""The examples do what they say."""

from __future__ import annotations

import io
import runpy
import sys
import textwrap
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from tests.support.queues import MemoryQueue
from twisted_smtpd import SMTPFactory
from twisted_smtpd.queue import Queue
from twisted_smtpd.runtime.lifecycle import ServerInfo

PROJECT = Path(__file__).parent.parent.parent
EXAMPLES = PROJECT / "examples"


def converse(factory: Any, *lines: str) -> list[str]:
    """The server's replies to a client that says all this at once."""
    transport = StringTransportWithDisconnection(peerAddress=IPv4Address("TCP", "127.0.0.1", 1234))
    protocol = factory.buildProtocol(transport.getPeer())
    transport.protocol = protocol
    protocol.makeConnection(transport)
    protocol.dataReceived("".join(f"{line}\r\n" for line in lines).encode())
    return transport.value().decode().splitlines()


@skipUnless(EXAMPLES.is_dir(), "the examples are not installed")
class ExampleTests(SynchronousTestCase):
    def example(self, name: str) -> dict[str, Any]:
        return runpy.run_path(str(EXAMPLES / name), run_name="example")

    def test_ten_lines_takes_mail_for_its_domain_only(self) -> None:
        handler = self.example("ten_lines.py")["Handler"]()
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        replies = converse(
            SMTPFactory(handler, clock=Clock()),
            "EHLO client.example.com",
            "MAIL FROM:<anne@example.com>",
            "RCPT TO:<bart@elsewhere.example>",
            "RCPT TO:<bart@example.com>",
            "DATA",
            "Subject: Hello",
            ".",
            "QUIT",
        )
        expected = ["250 2.1.0", "550 5.7.1", "250 2.1.5", "354 End d", "250 2.0.0", "221 2.0.0"]
        self.assertEqual([reply[:9] for reply in replies[-6:]], expected)
        self.assertEqual(stdout.getvalue(), "anne@example.com wrote 16 bytes to ['bart@example.com']\n")

    def test_a_consumer_behind_a_queue_takes_each_message_once(self) -> None:
        clock, path = Clock(), self.mktemp()
        orders = self.example("consume_once.py")["Orders"].from_cli(ArgumentParser(), path)
        self.addCleanup(orders.database.close)
        spool = MemoryQueue(clock)
        # The machine stops each time before the outcome is noted.
        spool.failing = [OSError("no power")] * 999
        queue, calls = Queue(spool, orders), []
        take = orders.handle_DATA
        self.patch(orders, "handle_DATA", lambda *arguments: (calls.append(arguments), take(*arguments))[1])
        server = ServerInfo("mx.example", [("127.0.0.1", 25)], clock, {})
        for _ in range(3):
            self.assertEqual(Deferred.fromCoroutine(queue.start(server)).called, True)
            if not spool.waiting():
                lines = ("EHLO x", "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA", "One piano", ".")
                replies = converse(SMTPFactory(queue, clock=clock), *lines)
                self.assertIn("queued as", replies[-1])
            clock.advance(1)
            Deferred.fromCoroutine(queue.stop())
            clock.advance(60)
        found = orders.database.execute("SELECT sender, text FROM orders").fetchall()
        self.assertEqual((found, len(calls)), ([("a@x.example", b"One piano\r\n")], 3))

    def test_ten_lines_has_ten_lines_and_stands_in_the_readme(self) -> None:
        code = (EXAMPLES / "ten_lines.py").read_text().partition("class Handler")
        lines = [line for line in f"{code[1]}{code[2]}".splitlines() if line]
        self.assertEqual(len(lines), 10 - 1)
        shown = [line.strip() for line in (PROJECT / "README.rst").read_text().splitlines()]
        start = shown.index(lines[0])
        self.assertEqual([line for line in shown[start : start + 11] if line][:9], [line.strip() for line in lines])

    def test_a_test_of_the_examples_stands_in_the_readme(self) -> None:
        code = (EXAMPLES / "testing" / "test_hello.py").read_text()
        readme = (PROJECT / "README.rst").read_text()
        self.assertIn(textwrap.indent(code, "    "), readme)

    def test_parse_while_it_comes_tells_the_parts(self) -> None:
        handler = self.example("parse_while_it_comes.py")["Parts"]()
        type(handler).handle_DATA_STREAM.__globals__["deferToThread"] = maybeDeferred
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        replies = converse(
            SMTPFactory(handler, clock=Clock()),
            "EHLO client.example.com",
            "MAIL FROM:<anne@example.com>",
            "RCPT TO:<bart@example.com>",
            "DATA",
            "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
            'Content-Type: multipart/mixed; boundary="b"',
            "",
            "--b",
            "",
            "Hello",
            "--b",
            "Content-Type: image/png",
            "",
            "--b--",
            ".",
            "QUIT",
        )
        self.assertIn("250 2.0.0 OK, 2 parts", replies)
        self.assertEqual(stdout.getvalue(), "'Gr\u00fc\u00dfe': 138 octets, text/plain, image/png\n")

    def test_embedded_listens_opens_tickets_and_drains(self) -> None:
        example = self.example("embedded.py")
        reactor, desk = MemoryReactorClock(), example["Desk"]()
        self.successResultOf(Deferred.fromCoroutine(example["serve"](reactor, "tcp:2525:interface=127.0.0.1", desk)))
        ((port, factory, _, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (2525, "127.0.0.1"))
        replies = converse(
            factory,
            "EHLO client.example.com",
            "MAIL FROM:<anne@example.com>",
            "RCPT TO:<sales@example.com>",
            "RCPT TO:<support@example.com>",
            "DATA",
            "Subject: It burns",
            "",
            "Help!",
            ".",
            "QUIT",
        )
        self.assertIn("550 5.1.1 No such mailbox", replies)
        self.assertIn("250 2.0.0 This is ticket 1", replies)
        self.assertEqual([(t.sender, t.subject) for t in desk.tickets], [("anne@example.com", "It burns")])
        ((stop, args, kwargs),) = reactor.triggers["before"]["shutdown"]
        self.successResultOf(stop(*args, **kwargs))
        self.assertTrue(converse(factory, "NOOP")[0].startswith("421"))
