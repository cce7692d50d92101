"""The examples of the how-to pages."""

from __future__ import annotations

import asyncio
import http.server
import json
import runpy
import smtplib
import sqlite3
import threading
from typing import Any, ClassVar
from unittest import skipUnless

from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.examples.test_examples import EXAMPLES
from twisted_smtpd.session import Envelope, Session

MESSAGE = b"Message-ID: <1@x>\r\nFrom: Anne <anne@example.com>\r\nSubject: =?utf-8?q?H=C3=A9lp?=\r\n\r\nIt burns.\r\n"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name), run_name="example")


def envelope(content: bytes = MESSAGE) -> Envelope:
    made = Envelope()
    made.mail_from, made.rcpt_tos, made.content = "anne@example.com", ["support@example.com"], content
    return made


@skipUnless(EXAMPLES.is_dir(), "the examples are not installed")
class TicketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.handler = example("support_tickets.py")["Tickets"](self.path)
        self.handler.start(None)

    def rows(self) -> list[Any]:
        with sqlite3.connect(self.path) as database:
            return database.execute("SELECT id, sender, subject, text FROM ticket").fetchall()

    def test_a_message_is_a_ticket(self) -> None:
        said = asyncio.run(self.handler.handle_DATA(None, Session(None), envelope()))
        self.assertEqual(said, "250 2.0.0 Ticket 1")
        self.assertEqual(self.rows(), [(1, "Anne <anne@example.com>", "Hélp", "It burns.\n")])

    def test_a_message_that_comes_again_is_the_same_ticket(self) -> None:
        for _ in range(2):
            self.assertEqual(self.handler.store(MESSAGE), 1)
        self.assertEqual(self.handler.store(MESSAGE.replace(b"<1@x>", b"<2@x>")), 2)
        self.assertEqual(len(self.rows()), 2)

    def test_other_addresses_are_refused(self) -> None:
        made = Envelope()
        for address, code in (("support@example.com", "250"), ("SUPPORT@example.com", "250"), ("x@example.com", "550")):
            said = asyncio.run(self.handler.handle_RCPT(None, Session(None), made, address, []))
            self.assertEqual(said[:3], code)


class TwistedTicketTests(TestCase):
    timeout = 60

    @skipUnless(EXAMPLES.is_dir(), "the examples are not installed")
    @inlineCallbacks
    def test_a_message_is_a_ticket(self) -> Any:
        from twisted.internet import reactor
        from twisted.internet.defer import Deferred

        path = self.mktemp()
        serve = example("support_tickets_twisted.py")["serve"]
        factory, listening = yield Deferred.fromCoroutine(serve(reactor, path, 0))
        try:
            yield deferToThread(self.send, listening.getHost().port)
        finally:
            yield maybeDeferred(listening.stopListening)
            yield factory.drain(0)
            yield factory.stop_handler()
        with sqlite3.connect(path) as database:
            (row,) = database.execute("SELECT sender, subject FROM ticket").fetchall()
        self.assertEqual(row, ("Anne <anne@example.com>", "Hélp"))

    def send(self, port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=30) as client:
            client.sendmail("anne@example.com", ["support@example.com"], MESSAGE)


class Service(http.server.BaseHTTPRequestHandler):
    """A web service that knows spam."""

    answer: ClassVar[Any] = {"spam": False}

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(self.answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@skipUnless(EXAMPLES.is_dir(), "the examples are not installed")
class FilterTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.filters = example("filters.py")

    def test_a_footer(self) -> None:
        changed = self.filters["Footer"]().with_footer(MESSAGE)
        self.assertIn(b"It burns.\r\n-- \r\nSent through example.com\r\n", changed)
        self.assertIn(b"X-Filtered-By: example.com\r\n", changed)
        self.assertIn(b"Message-ID: <1@x>\r\n", changed)

    def test_what_is_signed_keeps_its_text(self) -> None:
        signed = b"DKIM-Signature: v=1\r\n" + MESSAGE
        self.assertNotIn(b"Sent through", self.filters["Footer"]().with_footer(signed))

    @inlineCallbacks
    def test_a_web_service(self) -> Any:
        from twisted.internet.defer import Deferred

        server = http.server.HTTPServer(("127.0.0.1", 0), Service)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        handler = self.filters["Scanned"](f"http://127.0.0.1:{server.server_port}/")

        def ask() -> Any:
            return Deferred.fromCoroutine(handler.handle_DATA(None, Session(None), envelope()))

        try:
            self.assertIs((yield ask()), self.filters["PASS"])
            self.patch(Service, "answer", {"spam": True})
            self.assertTrue((yield ask()).startswith("550 "))
            self.patch(Service, "answer", ["nonsense"])
            handler.timeout = 30
            with self.assertRaises(TypeError):
                yield ask()
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        self.assertTrue((yield ask()).startswith("451 "))
