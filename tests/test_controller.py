"""The controllers, as far as no thread and no client is needed."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import twisted.internet.reactor  # noqa: F401 - or a loop that a test closes would become that of all tests
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import MESSAGE, Client, Promises, Transport, codes, hooks
from twisted_smtpd import controller as controllers
from twisted_smtpd.controller import (
    BaseController,
    Controller,
    UnixSocketController,
    UnixSocketUnthreadedController,
    UnthreadedController,
    get_localhost,
)
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.runtime import listening, localhost, reactors
from twisted_smtpd.runtime.listening import RunningServer, bind_inet, bind_unix
from twisted_smtpd.smtp import SMTP

ALL = (
    Controller,
    UnthreadedController,
    lambda handler, **kwargs: UnixSocketController(handler, "socket", **kwargs),
    lambda handler, **kwargs: UnixSocketUnthreadedController(handler, "socket", **kwargs),
)


class ArgumentTests(SynchronousTestCase):
    def test_arguments_that_are_not_its_own_are_those_of_the_protocol(self) -> None:
        for make in ALL:
            controller = make(None, data_size_limit=10, ident="Here")
            self.assertEqual(controller.SMTP_kwargs, {"data_size_limit": 10, "ident": "Here", "enable_SMTPUTF8": True})

    def test_factory_makes_a_protocol_with_these_arguments(self) -> None:
        handler = object()
        smtp = Controller(handler, enable_SMTPUTF8=False, server_hostname="mx.example", timeout=7).factory()
        self.assertIs(smtp.event_handler, handler)
        self.assertEqual((smtp.hostname, smtp.enable_SMTPUTF8, smtp.timeout), ("mx.example", False, 7))

    def test_server_kwargs_are_deprecated_and_yield_to_the_others(self) -> None:
        given = {"hostname": "a.example", "timeout": 5, "ident": "Old"}
        controller = Controller(None, server_kwargs=given, server_hostname="b.example", timeout=6)
        (warning,) = self.flushWarnings()
        self.assertIs(warning["category"], DeprecationWarning)
        self.assertEqual(Path(warning["filename"]).stem, "test_controller")
        self.assertEqual(
            controller.SMTP_kwargs, {"hostname": "b.example", "timeout": 6, "ident": "Old", "enable_SMTPUTF8": True}
        )
        self.assertEqual(given, {"hostname": "a.example", "timeout": 5, "ident": "Old"})

    def test_the_environment_decides_on_the_time_a_start_may_take(self) -> None:
        self.assertEqual(Controller(None).ready_timeout, controllers.DEFAULT_READY_TIMEOUT)
        self.assertEqual(Controller(None, ready_timeout=2).ready_timeout, 2)
        self.patch(os, "environ", {**os.environ, "AIOSMTPD_CONTROLLER_TIMEOUT": "33"})
        self.assertEqual(Controller(None, ready_timeout=2).ready_timeout, 33)

    def test_hostname_and_port_have_the_defaults_of_aiosmtpd(self) -> None:
        controller = Controller(None)
        self.assertEqual((controller.hostname, controller.port), (get_localhost(), 8025))
        self.assertEqual(Controller(None, "").hostname, "")
        self.assertIs(type(UnixSocketController(None, Path("x")).unix_socket), str)

    def test_the_base_class_listens_nowhere(self) -> None:
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        with self.assertRaises(NotImplementedError):
            loop.run_until_complete(BaseController(None).listen())


class NotRunningTests(SynchronousTestCase):
    def test_stop_before_start_is_an_assertion_error_unless_it_may_be(self) -> None:
        with self.assertRaisesRegex(AssertionError, "not running"):
            Controller(None).stop()
        Controller(None).stop(no_assert=True)

    def test_close_before_listen_does_nothing(self) -> None:
        for make in ALL:
            self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(make(None).close())))


class LocalhostTests(SynchronousTestCase):
    def bind(self, error: OSError | None) -> None:
        def bind(self: Any, address: Any) -> None:
            if error is not None:
                raise error

        self.patch(localhost.socket, "socket", type("Socket", (socket.socket,), {"bind": bind}))

    def test_ipv6_where_it_can_be_bound_or_is_in_use(self) -> None:
        for error in (None, OSError(errno.EADDRINUSE, "in use")):
            self.bind(error)
            self.assertEqual(get_localhost(), "::1")

    def test_ipv4_where_there_is_no_ipv6(self) -> None:
        for code in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            self.bind(OSError(code, "no"))
            self.assertEqual(get_localhost(), "127.0.0.1")
        self.patch(localhost.socket, "has_ipv6", False)
        self.assertEqual(get_localhost(), "127.0.0.1")

    def test_other_errors_are_raised(self) -> None:
        self.bind(OSError(errno.EFAULT, "oh"))
        self.assertRaises(OSError, get_localhost)


class BindTests(SynchronousTestCase):
    def bound(self, hosts: Any, port: int = 0) -> int:
        bindings, found = bind_inet(hosts, port)
        for binding in bindings:
            self.addCleanup(binding.close)
        return found

    def test_a_port_in_use_is_named_with_the_reason(self) -> None:
        port = self.bound(["127.0.0.1"])
        with self.assertRaisesRegex(OSError, rf"can't listen on \('127.0.0.1', {port}\): ") as caught:
            bind_inet(["127.0.0.1"], port)
        self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_all_addresses_get_the_same_port(self) -> None:
        bindings, port = bind_inet(["127.0.0.1", "127.0.0.2"], 0)
        for binding in bindings:
            self.addCleanup(binding.close)
        with self.assertRaises(OSError):
            bind_inet(["127.0.0.2"], port)

    def test_a_free_port_is_one_that_is_free_on_all_addresses(self) -> None:
        bind, tries = listening._bind_one, []

        def fail_twice(family: int, address: Any) -> Any:
            tries.append(address)
            if len(tries) in (2, 4):
                raise OSError(errno.EADDRINUSE, "in use")
            return bind(family, address)

        self.patch(listening, "_bind_one", fail_twice)
        port = self.bound(["127.0.0.1", "127.0.0.2"])
        self.assertEqual(tries[-2:], [("127.0.0.1", 0), ("127.0.0.2", port)])
        self.assertEqual(len(tries), 6)

    def test_an_address_family_that_is_missing_is_left_out_unless_it_is_the_only_one(self) -> None:
        bind = listening._bind_one

        def without_ipv6(family: int, address: Any) -> Any:
            if family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "no IPv6")
            return bind(family, address)

        self.patch(listening, "_bind_one", without_ipv6)
        self.assertGreater(self.bound(["127.0.0.1", "::1"]), 0)
        with self.assertRaisesRegex(OSError, "no IPv6"):
            bind_inet(["::1"], 0)

    def test_nothing_stays_bound_when_one_address_fails(self) -> None:
        taken = self.bound(["127.0.0.2"])
        with self.assertRaises(OSError):
            bind_inet(["127.0.0.1", "127.0.0.2"], taken)
        self.assertEqual(self.bound(["127.0.0.1"], taken), taken)

    def test_an_address_named_twice_is_bound_once(self) -> None:
        self.assertEqual(len(bind_inet(["127.0.0.1", "127.0.0.1"], 0)[0]), 1)


class BindUnixTests(SynchronousTestCase):
    def setUp(self) -> None:
        # mktemp's names are too long for a socket.
        self.path = os.path.relpath(self.mktemp())
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)

    def test_a_socket_that_nobody_listens_on_is_replaced(self) -> None:
        self.listener.bind(self.path)
        self.listener.close()
        self.assertEqual(len(bind_unix(self.path)), 1)

    def test_a_socket_in_use_is_not_touched(self) -> None:
        self.listener.bind(self.path)
        self.listener.listen()
        with self.assertRaises(OSError) as caught:
            bind_unix(self.path)
        self.assertEqual(caught.exception.errno, errno.EADDRINUSE)
        self.assertTrue(stat.S_ISSOCK(os.stat(self.path).st_mode))

    def test_a_file_is_not_removed(self) -> None:
        with open(self.path, "w") as file:
            file.write("precious")
        self.assertRaises(OSError, bind_unix, self.path)
        self.assertEqual(os.stat(self.path).st_size, 8)

    def test_a_path_that_is_too_long_or_not_there_is_an_oserror(self) -> None:
        self.assertRaises(OSError, bind_unix, "/tmp/" + "x" * 200)
        self.assertRaises(OSError, bind_unix, self.path + "/no/such/folder")

    def test_the_umask_decides_who_may_connect(self) -> None:
        self.addCleanup(os.umask, os.umask(0o027))
        (binding,) = bind_unix(self.path)
        port: Any = binding.listen(MemoryReactorClock(), SMTPFactory(None))
        self.addCleanup(port.socket.close)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o750)


class FakePort:
    connected = True

    def __init__(self) -> None:
        self.done: list[str] = []

    def stopListening(self) -> Deferred[None]:
        self.done.append("stopListening")
        return succeed(None)

    def stopReading(self) -> None:
        self.done.append("stopReading")

    def connectionLost(self, reason: object) -> None:
        self.done.append("connectionLost")


class FakeBinding:
    def __init__(self, error: Exception | None = None) -> None:
        self.port, self.error, self.closed = FakePort(), error, 0

    def listen(self, reactor: Any, factory: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.port

    def close(self) -> None:
        self.closed += 1


class RunningServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def server(self, make: Any) -> RunningServer:
        return RunningServer(make, self.clock)

    def smtp(self, handler: Any = None, **options: Any) -> SMTP:
        return SMTP(handler or object(), hostname="mx.example", **options)

    def test_a_factory_that_fails_fails_the_start(self) -> None:
        def none() -> None:
            return None

        def fail() -> None:
            raise ZeroDivisionError

        for make, error in ((none, RuntimeError), (fail, ZeroDivisionError), (object, TypeError)):
            binding = FakeBinding()
            self.assertRaises(error, self.server(make).open, [binding])
            self.assertEqual((binding.port.done, binding.closed), ([], 1))

    def test_a_place_that_fails_closes_the_others(self) -> None:
        first, second = FakeBinding(), FakeBinding(OSError("no"))
        self.assertRaises(OSError, self.server(self.smtp).open, [first, second])
        self.assertEqual(first.port.done, ["stopReading", "connectionLost"])
        self.assertEqual((first.closed, second.closed), (1, 1))

    def test_a_factory_that_fails_later_has_the_client_try_again_later(self) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        transport = StringTransport()
        self.server(fail).buildProtocol(None).makeConnection(transport)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(codes(transport.value()), [421])
        self.assertTrue(transport.disconnecting)

    def test_protocols_made_by_hand_share_the_limits_of_their_server(self) -> None:
        server = self.server(lambda: self.smtp(max_connections=1))
        one = Client(server.buildProtocol(None))
        two = Client(server.buildProtocol(None))
        self.assertEqual((codes(one.read()), codes(two.read())), ([220], [421]))

    def test_servers_of_the_same_handler_do_not_share_limits(self) -> None:
        handler = object()
        clients = [
            Client(self.server(lambda: self.smtp(handler, max_connections=1)).buildProtocol(None)) for _ in range(2)
        ]
        self.assertEqual([codes(client.read()) for client in clients], [[220], [220]])

    def test_shutting_stops_listening_and_lets_a_message_in_progress_finish(self) -> None:
        promises = Promises()
        server = self.server(lambda: self.smtp(hooks(handle_DATA=promises)))
        binding = FakeBinding()
        server.open([binding])
        idle, busy = Client(server.buildProtocol(None)), Client(server.buildProtocol(None))
        idle.read()
        busy.send(MESSAGE)
        ended = server.shut(10)
        self.assertEqual(binding.port.done, ["stopListening"])
        self.assertEqual(codes(idle.read()), [421])
        idle.lose()
        self.assertNoResult(ended)
        promises.made[0].callback("250 Kept")
        self.assertEqual(codes(busy.read()), [250, 421])
        busy.lose()
        self.successResultOf(ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_foreign_protocols_are_cut_off(self) -> None:
        server = self.server(Protocol)
        server.open([])
        transport = Transport()
        protocol = server.buildProtocol(None)
        protocol.makeConnection(transport)
        self.successResultOf(server.shut(10))
        self.assertTrue(transport.disconnected)

    def test_ports_are_closed_at_once_for_a_reactor_that_does_not_run(self) -> None:
        server, binding = self.server(self.smtp), FakeBinding()
        server.open([binding])
        server.abandon()
        self.assertEqual(binding.port.done, ["stopReading", "connectionLost"])


class LingeringTests(SynchronousTestCase):
    def test_at_shutdown_a_client_that_does_not_let_go_is_cut_off(self) -> None:
        clock = Clock()
        factory = SMTPFactory(object(), hostname="mx.example", clock=clock)
        client = Client(factory.buildProtocol(None))
        drained = factory.drain(grace=60)
        clock.advance(0.9)
        self.assertFalse(client.aborted)
        clock.advance(1.2)
        self.assertTrue(client.aborted)
        client.lose()
        self.successResultOf(drained)
        self.assertEqual(clock.getDelayedCalls(), [])


class Threadless:
    """A reactor whose other thread is this one, later."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.run_at_once = True

    def callFromThread(self, function: Any) -> None:
        self.calls.append(function)
        if self.run_at_once:
            function()


class CallInTests(SynchronousTestCase):
    def test_gives_the_result_or_the_error(self) -> None:
        reactor = Threadless()
        self.assertEqual(reactors.call_in(reactor, lambda: 7, 1), 7)
        self.assertEqual(reactors.call_in(reactor, lambda: succeed(8), 1), 8)
        self.assertRaises(ZeroDivisionError, reactors.call_in, reactor, lambda: 1 // 0, 1)

    def test_what_was_waited_for_too_long_is_not_done_any_more(self) -> None:
        reactor, done = Threadless(), []
        reactor.run_at_once = False
        with self.assertRaisesRegex(TimeoutError, r"0\.001 s"):
            reactors.call_in(reactor, lambda: done.append(1), 0.001)
        reactor.calls[0]()
        self.assertEqual(done, [])

    def test_a_timeout_of_the_function_itself_is_not_mistaken(self) -> None:
        def fail() -> None:
            raise TimeoutError("mine")

        with self.assertRaisesRegex(TimeoutError, "mine"):
            reactors.call_in(Threadless(), fail, 1)


class LoopReactorTests(SynchronousTestCase):
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        return loop

    def spin(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(0.01, loop.stop)
        loop.run_forever()

    def test_timers_and_readers_go_along_to_another_loop(self) -> None:
        first, second, heard = self.loop(), self.loop(), []
        reactor: Any = reactors.LoopReactor(first)
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)

        class Reader:
            def fileno(self) -> int:
                return near.fileno()

            def doRead(self) -> None:
                heard.append(near.recv(10))

            def logPrefix(self) -> str:
                return "reader"

        reactor.addReader(Reader())
        reactor.callLater(0, heard.append, "timer")
        reactor.move(second)
        far.send(b"hello")
        self.spin(first)
        self.assertEqual(heard, [])
        self.spin(second)
        self.assertCountEqual(heard, ["timer", b"hello"])
        reactor.removeAll()

    def test_is_free_when_it_has_no_users_or_its_loop_is_gone(self) -> None:
        loop = self.loop()
        reactor, user = reactors.LoopReactor(loop), self
        self.assertTrue(reactor.is_free())
        reactor.users.add(user)
        self.assertFalse(reactor.is_free())
        loop.close()
        self.assertTrue(reactor.is_free())
        reactor.stopped = True
        self.assertFalse(reactor.is_free())

    def test_opens_no_files(self) -> None:
        loop = self.loop()
        before = len(os.listdir("/proc/self/fd"))
        reactor = reactors.LoopReactor(loop)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(reactor.getReaders(), [])

    if not os.path.isdir("/proc/self/fd"):
        test_opens_no_files.skip = "open files can't be counted here"  # type: ignore[attr-defined]


class WaitForTests(SynchronousTestCase):
    def test_in_a_task_and_outside(self) -> None:
        async def wait(result: Deferred[int]) -> int:
            return await reactors.wait_for(result)  # type: ignore[no-any-return]

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(wait(succeed(1)))), 1)
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        pending: Deferred[int] = Deferred()
        loop.call_later(0.001, pending.callback, 2)
        self.assertEqual(loop.run_until_complete(wait(pending)), 2)
