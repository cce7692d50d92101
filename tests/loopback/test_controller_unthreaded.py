"""Controllers on a loop that the program runs itself, or that it runs in another thread."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.loopback.controllers import LIMIT, ControllerCase, in_thread, send
from twisted_smtpd.controller import (
    UnixSocketUnthreadedController,
    UnthreadedController,
)
from twisted_smtpd.handlers import Mailbox
from twisted_smtpd.session import Envelope
from twisted_smtpd.smtp import SMTP


class UnthreadedTests(ControllerCase):
    def setUp(self) -> None:
        super().setUp()
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have the loop run in another thread."""
        thread = in_thread(self.loop.run_forever)
        try:
            yield
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            thread.join(LIMIT)

    def begin(self, handler: Any = None, **options: Any) -> UnthreadedController:
        controller = UnthreadedController(handler or self.handler, loop=self.loop, port=0, **options)
        controller.begin()
        return controller

    def test_serves_while_its_loop_runs_and_ends_after_it(self) -> None:
        controller = self.begin()
        with self.running():
            send(controller)
            idle = smtplib.SMTP(controller.hostname, controller.port, timeout=LIMIT)
        self.addCleanup(idle.close)
        controller.end()
        self.assertTrue(controller.ended.is_set())
        self.assertEqual(idle.getreply()[0], 421)
        self.assertEqual(len(self.handler.envelopes), 1)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)

    def test_ends_while_the_loop_goes_on(self) -> None:
        controller = self.begin()
        with self.running():
            self.loop.call_soon_threadsafe(controller.end)
            self.assertTrue(controller.ended.wait(LIMIT))
            self.assertTrue(self.loop.is_running())
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)

    def test_begins_and_ends_again(self) -> None:
        for _ in range(2):
            controller = self.begin()
            with self.running():
                send(controller)
            controller.end()
        self.assertEqual(len(self.handler.envelopes), 2)

    def test_begins_on_a_loop_that_runs_in_another_thread(self) -> None:
        with self.running():
            controller = self.begin()
            send(controller)
            self.loop.call_soon_threadsafe(controller.end)
            self.assertTrue(controller.ended.wait(LIMIT))

    def test_a_loop_that_was_closed_first_does_not_keep_the_port(self) -> None:
        controller = self.begin()
        self.loop.close()
        controller.end()
        self.assertTrue(controller.ended.is_set())
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)

    def test_the_hooks_run_on_this_loop(self) -> None:
        loops = []

        class Asks:
            async def handle_NOOP(self, server: SMTP, session: Any, envelope: Envelope, arg: str | None) -> str:
                loops.extend([asyncio.get_running_loop(), session.loop])
                return "250 OK"

        controller = self.begin(Asks())
        with self.running(), smtplib.SMTP(controller.hostname, controller.port, timeout=LIMIT) as client:
            self.assertEqual(client.noop()[0], 250)
        controller.end()
        self.assertEqual(loops, [self.loop] * 2)

    def test_starttls_does_not_need_the_global_reactor(self) -> None:
        server, context = self.contexts()
        controller = self.begin(tls_context=server)
        with self.running():
            send(controller, context)
        controller.end()
        self.assertEqual(len(self.handler.envelopes), 1)

    def test_the_mailbox_does_not_need_the_global_reactor(self) -> None:
        mail = self.folder() / "mail"
        controller = self.begin(Mailbox(mail))
        with self.running():
            send(controller)
        controller.end()
        self.assertEqual(len(list((mail / "new").iterdir())), 1)

    def test_a_second_begin_is_refused(self) -> None:
        controller = self.begin()
        self.assertRaises(RuntimeError, controller.begin)
        controller.end()

    def test_cancel_tasks_stops_the_loop_unless_told_not_to(self) -> None:
        controller = UnthreadedController(self.handler, loop=self.loop)
        sleeper = self.loop.create_task(asyncio.sleep(LIMIT))
        self.loop.call_soon(controller.cancel_tasks, False)
        with self.assertRaises(asyncio.CancelledError):
            self.loop.run_until_complete(sleeper)
        self.loop.call_soon(controller.cancel_tasks)
        self.loop.run_forever()

    def test_a_unix_socket(self) -> None:
        path = self.folder() / "socket"
        controller = UnixSocketUnthreadedController(self.handler, path, loop=self.loop)
        controller.begin()
        with self.running(), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(path))
            self.assertEqual(client.recv(1000)[:4], b"220 ")
        controller.end()
        self.assertFalse(path.exists())
