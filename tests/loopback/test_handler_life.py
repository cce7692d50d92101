"""A handler's start and stop in each way of running a server: the command line, workers, and the controllers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.controllers import LIMIT, ControllerCase, send
from tests.loopback.servers import TWIST, TWISTD, ServerCase
from tests.support.lives import Living
from tests.support.loops import turns
from twisted_smtpd import controller as controllers
from twisted_smtpd.controller import Controller, UnixSocketController, UnthreadedController
from twisted_smtpd.runtime.lifecycle import ServerInfo

# Appends to a file what is called; WHAT is a statement at the start.
HANDLER = """
import asyncio, os
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted_smtpd.handlers import HandlerStartError

def note(text):
    with open("events", "a") as file:
        file.write(text + "\\n")

class Beside(Service):
    def startService(self):
        note("service start")
    def stopService(self):
        note("service stop")

class Handler:
    async def start(self, server):
        note("start " + str(len(server.addresses)))
        {what}
        note("started")
    def services(self):
        return [Beside()]
    async def handle_DATA(self, server, session, envelope):
        note("message")
        return "250 OK"
    async def stop(self):
        note("stop")
"""


class CommandCase(ServerCase):
    def write(self, what: str) -> None:
        (self.folder / "mine.py").write_text(HANDLER.format(what=what))

    def events(self) -> list[str]:
        return (self.folder / "events").read_text().splitlines()


class CommandTests(CommandCase):
    def test_start_message_and_stop_in_order(self) -> None:
        for command, what in (
            (TWIST, "pass"),
            (TWISTD, "pass"),
            (("-m", "twisted", "--reactor=asyncio", "--log-format=text", "smtpd"), "await asyncio.sleep(0)"),
        ):
            (self.folder / "events").write_text("")
            self.write(what)
            server, port = self.serve(command, "-c", "mine.Handler")
            self.assertEqual(self.events(), ["start 1", "started", "service start"])
            self.send(port)
            self.end(server)
            self.assertEqual(self.events()[3:], ["message", "service stop", "stop"])

    def test_a_start_that_fails_is_one_line_and_1(self) -> None:
        for what, line in (
            ("raise OSError('no database')", "twist smtpd: handler Handler: no database"),
            ("raise HandlerStartError('too old')", "twist smtpd: handler Handler: too old"),
            ("1 // 0", "twist smtpd: handler Handler: ZeroDivisionError: integer division or modulo by zero"),
        ):
            self.write(what)
            status, stdout, stderr = self.run_out(TWIST, "-l", "127.0.0.1:0", "-c", "mine.Handler")
            self.assertEqual((status, stderr), (1, f"{line}\n"))
            self.assertEqual("Traceback" in stdout, "ZeroDivision" in line, stdout)
            self.assertNotIn("listens on", stdout)

    def test_a_port_in_use_is_found_before_the_start(self) -> None:
        self.write("pass")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            status, stdout, stderr = self.run_out(TWIST, "-l", where, "-c", "mine.Handler")
        self.assertEqual((status, stdout, stderr.count("\n")), (1, "", 1), stderr)
        self.assertFalse((self.folder / "events").exists())

    def test_a_client_that_comes_before_the_end_of_start_is_served_after_it(self) -> None:
        # The handler itself connects, and goes on when it has seen that the connection is made but says nothing.
        self.write(
            "import socket; self.client = socket.create_connection(server.addresses[0], timeout=5); "
            "self.client.setblocking(False); note('greeted' if self.heard() else 'silence')"
        )
        with (self.folder / "mine.py").open("a") as file:
            file.write(
                "    def heard(self):\n"
                "        try:\n"
                "            return self.client.recv(9)\n"
                "        except BlockingIOError:\n"
                "            return b''\n"
            )
        server, port = self.serve(TWIST, "-c", "mine.Handler")
        self.assertEqual(self.events()[:3], ["start 1", "silence", "started"])
        self.send(port)
        self.end(server)

    def test_sigterm_ends_a_start_that_hangs(self) -> None:
        self.write("await Deferred()")
        server = self.start(TWIST, "-l", "127.0.0.1:0", "-c", "mine.Handler")
        self.read_until(server, "Waiting until the handler has started")
        output = self.end(server)
        self.assertNotIn("Traceback", output)
        self.assertEqual(self.events(), ["start 1"])

    def test_each_worker_starts_and_stops_its_own(self) -> None:
        self.write("pass")
        server = self.start(TWIST, "--workers=2", "-l", "127.0.0.1:0", "-c", "mine.Handler")
        self.read_until(server, "listens on")
        self.read_until(server, "2 workers share the ports")
        self.end(server)
        events = self.events()
        # The second may have been stopped before it came to its start; the parent has no handler.
        self.assertIn(events.count("start 1"), (1, 2))
        self.assertEqual(events.count("started"), events.count("stop"))

    def test_workers_whose_handler_can_not_start_end_with_1(self) -> None:
        self.write("raise OSError('no database')")
        status, _, stderr = self.run_out(TWIST, "--workers=2", "-l", "127.0.0.1:0", "-c", "mine.Handler")
        self.assertEqual((status, stderr), (1, "twist smtpd: handler Handler: no database\n"))
        self.assertEqual(self.events(), ["start 1"])


class OnAsyncio(Living):
    """Waits for asyncio, and notes in which thread it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    async def start(self, server: ServerInfo) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.threads.add(threading.get_ident())
        super().start(server)

    async def stop(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.threads.add(threading.get_ident())
        super().stop()


class ThreadedTests(ControllerCase):
    """Controllers in a thread."""

    def controller(self, handler: object, **options: Any) -> Controller:
        self.handler = handler  # type: ignore[assignment]
        return self.make(**options)

    def test_the_handler_lives_in_the_servers_thread_as_long_as_the_server(self) -> None:
        handler = OnAsyncio()
        controller = self.controller(handler)
        controller.start()
        self.assertEqual(handler.events, ["start"])
        (address,) = {address[:2] for address in handler.servers[0].addresses if address[0] == "127.0.0.1"}
        self.assertEqual(address, ("127.0.0.1", controller.port))
        self.assertEqual(handler.servers[0].hostname, controller.smtpd.hostname)
        self.assertEqual(handler.servers[0].options["max_recipients"], 1000)
        send(controller)
        controller.stop()
        self.assertEqual(handler.events, ["start", "message", "stop"])
        self.assertEqual(len(handler.threads), 1)
        self.assertNotIn(threading.get_ident(), handler.threads)

    def test_two_controllers_share_a_handler(self) -> None:
        handler = Living()
        with self.controller(handler) as one:
            with self.controller(handler) as two:
                send(one)
                send(two)
            self.assertEqual(handler.events, ["start", "message", "message"])
        self.assertEqual(handler.events[3:], ["stop"])

    def test_an_error_of_start_is_raised_and_nothing_listens(self) -> None:
        handler = Living(start=ZeroDivisionError("oh"))
        controller = self.controller(handler)
        with self.assertRaisesRegex(ZeroDivisionError, "oh"):
            controller.start()
        self.assertIsNone(controller.server)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)
        controller.stop()
        self.assertEqual(handler.events, ["start"])

    def test_a_start_that_hangs_is_a_timeout_and_cancelled(self) -> None:
        cancelled = threading.Event()
        handler = Living(start=Deferred(lambda _: cancelled.set()))
        controller = self.controller(handler, ready_timeout=0.05)
        with self.assertRaisesRegex(TimeoutError, "0.05 s"):
            controller.start()
        self.assertTrue(cancelled.wait(LIMIT))
        controller.ready_timeout = LIMIT
        controller.stop()
        self.assertEqual(handler.events, ["start"])
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)

    def test_a_start_that_comes_too_late_is_followed_by_a_stop(self) -> None:
        release, stopped = threading.Event(), threading.Event()

        class Blocking(Living):
            def start(self, server: ServerInfo) -> None:
                release.wait(LIMIT)
                super().start(server)

            def stop(self) -> None:
                super().stop()
                stopped.set()

        handler = Blocking()
        controller = self.controller(handler, ready_timeout=0.05)
        with self.assertRaises(TimeoutError):
            controller.start()
        release.set()
        self.assertTrue(stopped.wait(LIMIT))
        controller.ready_timeout = LIMIT
        controller.stop()
        self.assertEqual(handler.events, ["start", "stop"])

    def test_a_handler_is_stopped_when_its_server_can_not_listen(self) -> None:
        handler = Living()

        class Failing(UnixSocketController):
            def _bind(self) -> Any:
                (binding,) = super()._bind()
                binding._path = "/nowhere/socket"  # type: ignore[attr-defined]
                return [binding]

        with self.assertRaises(OSError):
            self.make(Failing, handler, f"\0{self.mktemp()}").start()
        self.assertEqual(handler.events, ["start", "stop"])

    def test_a_port_in_use_is_found_before_the_start(self) -> None:
        handler = Living()
        with self.make() as first, self.assertRaises(OSError):
            self.controller(handler, port=first.port).start()
        self.assertEqual(handler.events, [])

    def test_an_error_of_stop_is_raised_when_all_is_closed(self) -> None:
        controller = self.controller(Living(stop=ZeroDivisionError("oh")))
        controller.start()
        with self.assertRaisesRegex(ZeroDivisionError, "oh"):
            controller.stop()
        self.assertIsNone(controller.server)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)


class UnthreadedTests(SynchronousTestCase):
    """Controllers on the program's own loop."""

    @contextmanager
    def loop(self) -> Iterator[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        try:
            yield loop
        finally:
            loop.close()
            asyncio.set_event_loop(None)

    def test_async_with(self) -> None:
        handler = OnAsyncio()

        async def main() -> None:
            async with UnthreadedController(handler, port=0) as controller:
                self.assertEqual(handler.events, ["start"])
                await asyncio.to_thread(send, controller)

        asyncio.run(main())
        self.assertEqual(handler.events, ["start", "message", "stop"])

    def test_async_with_a_start_that_fails(self) -> None:
        async def main(handler: Living) -> None:
            async with UnthreadedController(handler, port=0):
                raise AssertionError("not reached")

        handler = Living(start=OSError("no"))
        with self.assertRaisesRegex(OSError, "no"):
            asyncio.run(main(handler))
        self.assertEqual(handler.events, ["start"])

    def test_a_second_listen_during_the_start_is_refused(self) -> None:
        handler = OnAsyncio()

        async def main() -> None:
            controller = UnthreadedController(handler, port=0)
            first = asyncio.ensure_future(controller.listen())
            await asyncio.sleep(0)
            with self.assertRaisesRegex(RuntimeError, "running already"):
                await controller.listen()
            await first
            await controller.close()

        asyncio.run(main())
        self.assertEqual(handler.events, ["start", "stop"])

    def test_a_listen_that_is_cancelled_cancels_the_start(self) -> None:
        cancelled: list[Any] = []
        handler = Living(start=Deferred(cancelled.append))

        async def main() -> None:
            listening = asyncio.ensure_future(UnthreadedController(handler, port=0).listen())
            await turns()
            listening.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await listening

        asyncio.run(main())
        self.assertEqual((handler.events, len(cancelled)), (["start"], 1))

    def test_begin_and_end_run_a_loop_that_does_not_run(self) -> None:
        handler = OnAsyncio()
        with self.loop() as loop:
            controller = UnthreadedController(handler, port=0, loop=loop)
            for _ in range(2):
                controller.begin()
                self.assertEqual(handler.events[-1], "start")
                controller.end()
        self.assertEqual(handler.events, ["start", "stop"] * 2)

    def test_begin_from_another_thread(self) -> None:
        handler = OnAsyncio()
        with self.loop() as loop:
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            controller = UnthreadedController(handler, port=0, loop=loop)
            controller.begin()
            send(controller)
            loop.call_soon_threadsafe(controller.end)
            self.assertTrue(controller.ended.wait(LIMIT))
            loop.call_soon_threadsafe(loop.stop)
            thread.join(LIMIT)
        self.assertEqual(handler.events, ["start", "message", "stop"])
        self.assertEqual(handler.threads, {thread.ident})

    def test_begin_in_the_running_loop_runs_a_plain_start_only(self) -> None:
        plain, waiting = Living(), Living(start=Deferred())

        async def main() -> None:
            controller = UnthreadedController(plain, port=0)
            controller.begin()
            await controller.finalize()
            with self.assertRaisesRegex(RuntimeError, r"await controller\.listen\(\)"):
                UnthreadedController(waiting, port=0).begin()
            await turns()

        asyncio.run(main())
        self.assertEqual((plain.events, waiting.events), (["start", "stop"], ["start"]))

    def test_begin_raises_the_error_of_start(self) -> None:
        async def main() -> None:
            UnthreadedController(Living(start=OSError("no")), port=0).begin()

        with self.assertRaisesRegex(OSError, "no"):
            asyncio.run(main())
        with self.loop() as loop, self.assertRaisesRegex(OSError, "no"):
            UnthreadedController(Living(start=OSError("no")), port=0, loop=loop).begin()

    def test_begin_does_not_wait_for_ever(self) -> None:
        self.patch(controllers, "DEFAULT_READY_TIMEOUT", 0.01)
        with self.loop() as loop:
            controller = UnthreadedController(Living(start=Deferred()), port=0, loop=loop)
            self.assertRaises(TimeoutError, controller.begin)
            self.assertIsNone(controller.server)

    def test_a_closed_loop_stops_a_handler_that_does_not_wait(self) -> None:
        handler = Living()
        with self.loop() as loop:
            controller = UnthreadedController(handler, port=0, loop=loop)
            controller.begin()
        controller.end()
        self.assertEqual(handler.events, ["start", "stop"])
