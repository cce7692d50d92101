"""A controller's start that can't go on, and clocks that stand still."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Recorder
from twisted_smtpd.controller import Controller
from twisted_smtpd.runtime.host_name import own_name
from twisted_smtpd.runtime.reactors import LoopReactor, SteadyLoop
from twisted_smtpd.smtp import SMTP


class TimeoutTests(SynchronousTestCase):
    def test_a_start_that_timed_out_leaves_no_port(self) -> None:
        """Seen: it stayed bound until factory() returned: a second start failed, and clients waited in its backlog."""

        class Slow(Controller):
            def factory(self) -> Any:
                going_on.wait(60)
                return SMTP(self.handler, hostname="mx.example")

        going_on = threading.Event()
        self.addCleanup(going_on.set)
        # A loop of its own: the thread that all share must not be blocked.
        controller = Slow(Recorder(), "127.0.0.1", 0, loop=asyncio.new_event_loop(), ready_timeout=0.2)
        try:
            said = str(self.assertRaises(TimeoutError, controller.start))
            self.assertIn("factory()", said)
            with socket.socket() as client:
                self.assertNotEqual(client.connect_ex(("127.0.0.1", controller.port)), 0)
        finally:
            going_on.set()
            controller.ready_timeout = 60
            controller.stop(no_assert=True)

    def test_the_machines_name_is_not_asked_for_in_the_servers_thread(self) -> None:
        """Seen: a getfqdn() of 7 s let start() fail, and all other servers of the thread stand still."""

        def getfqdn() -> str:
            threads.append(threading.get_ident())
            return "found.example"

        threads: list[int] = []
        self.patch(socket, "getfqdn", getfqdn)
        own_name.cache_clear()
        self.addCleanup(own_name.cache_clear)
        # A loop of its own: the global reactor is the test runner's.
        controller = Controller(Recorder(), "127.0.0.1", 0, loop=asyncio.new_event_loop())
        with controller, smtplib.SMTP("127.0.0.1", controller.port) as client:
            self.assertIn(b"found.example", client.ehlo()[1])
        self.assertEqual(set(threads), {threading.get_ident()})


class ClockTests(SynchronousTestCase):
    """Seen: with freezegun, start() failed after 5 s: "the server's thread is busy, or blocked"."""

    def test_the_loop_has_a_clock_of_its_own(self) -> None:
        loop = SteadyLoop()
        self.addCleanup(loop.close)
        before = loop.time()
        self.patch(time, "monotonic", lambda: before - 1000)
        self.assertGreaterEqual(loop.time(), before)

    def test_a_call_from_a_thread_needs_no_timer(self) -> None:
        loop = SteadyLoop()
        self.addCleanup(loop.close)
        reactor = LoopReactor(loop)
        called: list[int] = []
        # A timer of this reactor would be set by another clock than the one that is looked at.
        self.patch(reactor, "callLater", lambda *arguments: self.fail("a timer was set"))
        reactor.callFromThread(called.append, 1)
        reactor.callFromThread(loop.stop)
        loop.run_forever()
        self.assertEqual(called, [1])
