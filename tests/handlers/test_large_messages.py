"""Large and ugly messages don't stop the others: their header is limited, and what takes long runs in a thread."""

from __future__ import annotations

import io
import threading
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.fakes import ENVELOPE, codes, connect
from twisted_smtpd.handlers import Debugging, Message
from twisted_smtpd.handlers import debugging as debugging_module
from twisted_smtpd.runtime.computing import LARGE
from twisted_smtpd.session import Envelope, Session

UGLY = b"a:\r\n" * 1_000_000
LINES = b"Subject: hi\r\n\r\n" + b"hello\r\n" * (LARGE // 7)


class HeaderTests(SynchronousTestCase):
    """Seen: this message held the reactor for 5.7 s in ``Proxy``, and longer in ``Message`` and ``Debugging``."""

    def test_a_header_of_a_million_lines_is_refused(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\n" + UGLY + b".\r\n"))[-1], 552)
        self.assertEqual(client.protocol.connections.buffered, 0)

    def test_a_header_of_many_octets_is_refused(self) -> None:
        line = b"X-A: " + b"x" * 70 + b"\r\n"
        client = connect(header_line_limit=0)
        self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\n" + line * 10_000 + b".\r\n"))[-1], 552)

    def test_a_large_body_is_not(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\n" + LINES + b".\r\n"))[-1], 250)


class ThreadTests(TestCase):
    """What is done for each line of a large message is not done in the reactor's thread."""

    def setUp(self) -> None:
        self.session, self.envelope = Session(None), Envelope()
        self.session.peer = ("192.0.2.1", 1)
        self.envelope.mail_from = "a@x.example"
        self.envelope.rcpt_tos = ["b@y.example"]
        self.threads: list[Any] = []

    def noting(self, module: Any, name: str) -> None:
        """Note the threads in which a function of a module is called."""
        function = getattr(module, name)

        def call(*arguments: Any) -> Any:
            self.threads.append(threading.current_thread())
            return function(*arguments)

        self.patch(module, name, call)

    def judged(self, handler: Any, content: bytes) -> Deferred[Any]:
        self.envelope.content = self.envelope.original_content = content
        server: Any = None
        return Deferred.fromCoroutine(handler.handle_DATA(server, self.session, self.envelope))

    async def check(self, handler: Any) -> None:
        await self.judged(handler, LINES[:1000])
        self.assertEqual(self.threads, [threading.current_thread()])
        await self.judged(handler, LINES)
        self.assertNotEqual(self.threads[1], threading.current_thread())

    def test_message_parses_in_a_thread(self) -> Deferred[None]:
        class Handler(Message):
            def handle_message(self, message: Any) -> None:
                assert message["Subject"] == "hi"
                case.assertIs(threading.current_thread(), here)

        case, here = self, threading.current_thread()
        self.noting(__import__("twisted_smtpd.handlers.message", fromlist=["split_header"]), "split_header")
        return Deferred.fromCoroutine(self.check(Handler()))

    def test_an_overridden_prepare_message_is_called_in_the_reactor_s_thread(self) -> Deferred[None]:
        here = threading.current_thread()
        seen: list[Any] = []

        class Handler(Message):
            def prepare_message(self, session: Any, envelope: Any) -> Any:
                seen.append(threading.current_thread())
                return super().prepare_message(session, envelope)

            def handle_message(self, message: Any) -> None:
                pass

        def check(_: Any) -> None:
            self.assertEqual(seen, [here])

        return self.judged(Handler(), LINES).addCallback(check)

    def test_debugging_escapes_in_a_thread(self) -> Deferred[None]:
        self.noting(debugging_module, "_printable")
        stream = io.StringIO()

        def check(_: Any) -> None:
            self.assertEqual(stream.getvalue().count("---------- MESSAGE FOLLOWS"), 2)
            self.assertGreater(stream.getvalue().count("hello\n"), LINES.count(b"hello\r\n"))

        return Deferred.fromCoroutine(self.check(Debugging(stream))).addCallback(check)
