"""Controllers with real clients.

The global reactor is not touched here, for it is trial's: each controller has a loop of its own.  What concerns the
global reactor is in ``test_controller_scripts``.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import smtplib
import socket
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from tests.loopback.controllers import LIMIT, ControllerCase, Slow, in_thread, send
from twisted_smtpd.auth import AcceptAnyone
from twisted_smtpd.controller import (
    Controller,
    UnixSocketController,
    UnthreadedController,
)
from twisted_smtpd.smtp import SMTP


class StartAndStopTests(ControllerCase):
    def test_takes_a_message_in_another_thread(self) -> None:
        with self.make() as controller:
            send(controller)
            self.assertIsInstance(controller.smtpd, SMTP)
            self.assertEqual(controller.server.sockets[0].getsockname()[1], controller.port)
            self.assertTrue(controller.server.is_serving())
        self.assertEqual(len(self.handler.envelopes), 1)
        self.assertNotIn(threading.get_ident(), self.handler.threads)
        self.assertEqual((controller.smtpd, controller.server), (None, None))

    def test_both_loopback_addresses_are_served_on_one_port(self) -> None:
        with self.make() as controller:
            hosts = {socket.getsockname()[0] for socket in controller.server.sockets}
            for host in hosts:
                with smtplib.SMTP(host, controller.port, timeout=LIMIT) as client:
                    self.assertEqual(client.noop()[0], 250)
        self.assertIn("127.0.0.1", hosts)
        self.assertIn(controller.hostname, hosts)

    def test_an_empty_hostname_is_all_addresses(self) -> None:
        with self.make(hostname="") as controller:
            self.assertIn("0.0.0.0", [socket.getsockname()[0] for socket in controller.server.sockets])
            socket.create_connection(("127.0.0.1", controller.port), timeout=LIMIT).close()

    def test_after_stop_nobody_listens_and_idle_clients_have_heard_421(self) -> None:
        controller = self.make()
        controller.start()
        with smtplib.SMTP(controller.hostname, controller.port, timeout=LIMIT) as client:
            controller.stop()
            self.assertEqual(client.getreply()[0], 421)
            client.close()
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)

    def test_a_second_start_is_an_assertion_error(self) -> None:
        with self.make() as controller, self.assertRaisesRegex(AssertionError, "already running"):
            controller.start()

    def test_several_at_once(self) -> None:
        with self.make() as one, self.make() as two:
            self.assertNotEqual(one.port, two.port)
            send(one)
            send(two)
        self.assertEqual(len(self.handler.envelopes), 2)

    def test_a_port_in_use_is_an_oserror_at_once_and_may_be_cleaned_up_after(self) -> None:
        with self.make() as first:
            second = self.make(port=first.port)
            with self.assertRaises(OSError) as caught:
                second.start()
            self.assertEqual(caught.exception.errno, errno.EADDRINUSE)
            self.assertIsNone(second.server)
            second.stop()
            self.assertRaises(AssertionError, second.stop)

    def test_an_unknown_host_is_an_oserror(self) -> None:
        self.assertRaises(OSError, self.make(hostname="no.such.host.invalid").start)

    def test_an_option_that_does_not_exist_is_a_type_error(self) -> None:
        controller = self.make(nonsense=1)
        with self.assertRaisesRegex(TypeError, "unexpected keyword argument 'nonsense'"):
            controller.start()
        self.assertIsNone(controller.smtpd)

    def test_a_factory_that_takes_too_long_is_a_timeout_and_leaves_nothing_open(self) -> None:
        release = threading.Event()

        class Stuck(Controller):
            def factory(self) -> Any:
                release.wait(LIMIT)
                return super().factory()

        controller = self.make(Stuck, ready_timeout=0.05)
        with self.assertRaisesRegex(TimeoutError, "0.05 s"):
            controller.start()
        release.set()
        controller.ready_timeout = LIMIT
        controller.stop()
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)

    def test_a_loop_that_runs_already_is_refused(self) -> None:
        async def start() -> None:
            controller = Controller(self.handler, port=0, loop=asyncio.get_running_loop())
            with self.assertRaisesRegex(RuntimeError, "UnthreadedController"):
                controller.start()

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        loop.run_until_complete(start())

    def test_stop_closes_the_loop_it_was_given(self) -> None:
        controller = self.make()
        controller.start()
        self.assertTrue(controller.loop.is_running())
        controller.stop()
        self.assertTrue(controller.loop.is_closed())

    def test_stop_in_the_thread_of_the_server_is_refused(self) -> None:
        async def stop(controller: Controller) -> None:
            with self.assertRaisesRegex(RuntimeError, r"await controller\.close\(\)"):
                controller.stop()

        with self.make() as controller:
            asyncio.run_coroutine_threadsafe(stop(controller), controller.loop).result(LIMIT)

    def test_close_in_another_thread_is_refused(self) -> None:
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        with self.make() as controller, self.assertRaisesRegex(RuntimeError, r"stop\(\)"):
            loop.run_until_complete(controller.close())


class GraceTests(ControllerCase):
    def talk(self, controller: Controller, replies: list[Any]) -> None:
        with smtplib.SMTP(controller.hostname, controller.port, timeout=LIMIT) as client:
            try:
                replies.append(client.sendmail("anne@example.com", ["bart@example.com"], "Subject: x\r\n"))
            except smtplib.SMTPException as error:
                replies.append(error)
            finally:
                client.close()

    def test_stop_lets_a_message_in_progress_finish(self) -> None:
        handler, replies = Slow(), []  # type: ignore[var-annotated]
        controller = self.make(Controller, handler, grace=LIMIT)
        controller.start()
        client = in_thread(self.talk, controller, replies)
        self.assertTrue(handler.begun.wait(LIMIT))
        stopper = in_thread(controller.stop)
        handler.go_on.set()
        stopper.join(LIMIT)
        client.join(LIMIT)
        self.assertFalse(stopper.is_alive())
        self.assertEqual(replies, [{}])

    def test_a_message_that_takes_longer_than_the_grace_is_given_up(self) -> None:
        handler, replies = Slow(), []  # type: ignore[var-annotated]
        self.addCleanup(handler.go_on.set)
        controller = self.make(Controller, handler, grace=0.01)
        controller.start()
        client = in_thread(self.talk, controller, replies)
        self.assertTrue(handler.begun.wait(LIMIT))
        controller.stop()
        client.join(LIMIT)
        self.assertEqual(getattr(replies[0], "smtp_code", None), 421, replies)

    def test_a_client_that_sends_its_message_and_no_end_is_given_up(self) -> None:
        controller = self.make(grace=0.01)
        controller.start()
        with smtplib.SMTP(controller.hostname, controller.port, timeout=LIMIT) as client:
            client.ehlo()
            client.mail("anne@example.com")
            client.rcpt("bart@example.com")
            client.docmd("DATA")
            client.send(b"Subject: half a message\r\n")
            controller.stop()
            client.close()
        self.assertEqual(self.handler.envelopes, [])


class FactoryTests(ControllerCase):
    def test_a_protocol_of_ones_own(self) -> None:
        class Mine(SMTP):
            async def smtp_PING(self, arg: str | None) -> None:
                await self.push("259 Pong")

        class MyController(Controller):
            def factory(self) -> SMTP:
                return Mine(self.handler)

        with (
            self.make(MyController) as controller,
            smtplib.SMTP(controller.hostname, controller.port, timeout=LIMIT) as client,
        ):
            self.assertEqual(client.docmd("PING")[0], 259)
            self.assertIsInstance(controller.smtpd, Mine)

    def test_any_twisted_protocol(self) -> None:
        class Hello(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"hello")  # type: ignore[union-attr]

        class HelloController(Controller):
            def factory(self) -> Any:
                return Hello()

        with self.make(HelloController) as controller:
            client = socket.create_connection((controller.hostname, controller.port), timeout=LIMIT)
            self.addCleanup(client.close)
            self.assertEqual(client.recv(100), b"hello")


class TLSTests(ControllerCase):
    def test_implicit_tls_of_an_ssl_context(self) -> None:
        server, context = self.contexts()
        with (
            self.make(ssl_context=server) as controller,
            smtplib.SMTP_SSL(controller.hostname, controller.port, context=context, timeout=LIMIT) as client,
        ):
            client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Secret\r\n")
            client.close()
        self.assertEqual(len(self.handler.envelopes), 1)

    def test_a_proxy_header_comes_before_tls(self) -> None:
        server, context = self.contexts()
        with (
            self.make(ssl_context=server, proxy_from=["127.0.0.1", "::1"]) as controller,
            socket.create_connection((controller.hostname, controller.port), timeout=LIMIT) as client,
        ):
            client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 465\r\n")
            with context.wrap_socket(client) as secure:
                self.assertEqual(secure.recv(1000)[:4], b"220 ")

    def test_a_factory_that_forgets_the_ssl_context_speaks_tls_all_the_same(self) -> None:
        class Forgets(Controller):
            def factory(self) -> SMTP:
                return SMTP(self.handler, proxy_from=["192.0.2.1"])

        server, context = self.contexts()
        with (
            self.make(Forgets, ssl_context=server, proxy_from=["192.0.2.1"]) as controller,
            smtplib.SMTP_SSL(controller.hostname, controller.port, context=context, timeout=LIMIT) as client,
        ):
            self.assertEqual(client.noop()[0], 250)
            client.close()

    def test_auth_that_can_not_be_offered_without_tls_is_said_at_the_start(self) -> None:
        server, _ = self.contexts()
        with self.assertLogs("mail.log", logging.WARNING) as found, self.make(authenticator=AcceptAnyone()):
            pass
        self.assertEqual(len([line for line in found.output if "is offered with TLS only" in line]), 1, found.output)
        for given in ("ssl_context", "tls_context"):
            options: dict[str, Any] = {given: server}
            with self.assertNoLogs("mail.log", logging.WARNING), self.make(authenticator=AcceptAnyone(), **options):
                pass

    def test_starttls(self) -> None:
        server, context = self.contexts()
        with self.make(tls_context=server) as controller:
            send(controller, context)
        self.assertEqual(len(self.handler.envelopes), 1)


class UnixSocketTests(ControllerCase):
    def greeting(self, path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(path))
            return client.recv(1000)

    def test_serves_restarts_and_cleans_up(self) -> None:
        path = self.folder() / "socket"
        for _ in range(2):
            with self.make(UnixSocketController, None, path) as controller:
                self.assertEqual(controller.unix_socket, str(path))
                self.assertEqual(self.greeting(path)[:4], b"220 ")
            self.assertFalse(path.exists())

    def test_stops_though_somebody_has_removed_its_file(self) -> None:
        path = self.folder() / "socket"
        with self.make(UnixSocketController, None, path):
            path.unlink()

    def test_a_second_server_on_the_same_socket_is_refused(self) -> None:
        path = self.folder() / "socket"
        with self.make(UnixSocketController, None, path):
            self.assertRaises(OSError, self.make(UnixSocketController, None, path).start)
            self.assertEqual(self.greeting(path)[:4], b"220 ")


class InACoroutineTests(ControllerCase):
    def test_every_kind_can_be_used_with_async_with(self) -> None:
        async def use(controller: Any) -> None:
            async with controller:
                await asyncio.to_thread(send, controller)
                self.assertIsNotNone(controller.server)
            self.assertIsNone(controller.server)

        for make in (Controller, UnthreadedController):
            asyncio.run(use(make(self.handler, port=0)))
        self.assertEqual(len(self.handler.envelopes), 2)
        self.assertEqual(self.handler.threads, {threading.get_ident()})

    def test_a_second_listen_is_refused(self) -> None:
        async def use() -> None:
            async with UnthreadedController(self.handler, port=0) as controller:
                with self.assertRaises(RuntimeError):
                    await controller.listen()

        asyncio.run(use())

    def test_listen_where_nothing_runs_is_refused(self) -> None:
        from twisted.internet import reactor

        # Somebody else's: what is installed and not running may yet be run by the thread that asks.
        self.patch(reactor, "running", True)
        failures: list[Any] = []

        def listen() -> None:
            failures.append(self.failureResultOf(Deferred.fromCoroutine(Controller(None, port=0).listen())).type)

        in_thread(listen).join(LIMIT)
        self.assertEqual(failures, [RuntimeError])
