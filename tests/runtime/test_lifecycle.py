"""Which methods of a handler are called at the start and at the end, when, and how often."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support.lives import INFO, Beside, Living
from tests.support.loops import in_a_loop
from twisted_smtpd.controller import Controller
from twisted_smtpd.handlers import Chain, Debugging, Proxy, Sink, Webhook
from twisted_smtpd.interfaces import IOffersServices, IStartable, IStoppable
from twisted_smtpd.runtime import lifecycle
from twisted_smtpd.runtime.lifecycle import (
    STOP_TIMEOUT,
    HandlerUse,
    ServerInfo,
    has_life,
    ignored_methods,
    offered_services,
)


def run(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


class LifeCase(SynchronousTestCase):
    def start(self, handler: object, info: ServerInfo = INFO) -> HandlerUse:
        use = HandlerUse(handler)
        self.successResultOf(run(use.start(info)))
        return use

    def stop(self, use: HandlerUse) -> None:
        self.successResultOf(run(use.stop()))


class RecognitionTests(LifeCase):
    def test_a_start_that_needs_one_argument_is_called_and_its_stop_too(self) -> None:
        handler = Living()
        self.stop(self.start(handler))
        self.assertEqual(handler.events, ["start", "stop"])
        self.assertEqual(handler.servers, [INFO])

    def test_start_and_stop_of_a_thread_or_a_scheduler_are_left_alone(self) -> None:
        called: list[Any] = []

        class Optional:
            def start(self, paused: bool = False) -> None:
                called.append(paused)

            def stop(self) -> None:
                called.append("stop")

        class Worker(threading.Thread):
            def stop(self) -> None:
                called.append("stop")

        for handler in (Worker(), Optional(), mock.MagicMock(), mock.Mock(), object(), None):
            self.stop(self.start(handler))
            self.assertEqual(self.successResultOf(run(offered_services(object()))), [])
        self.assertEqual(called, [])

    def test_a_controller_that_is_its_own_handler_is_left_alone(self) -> None:
        class Own(Controller):
            def __init__(self) -> None:
                super().__init__(self, port=0)

        own = Own()
        self.stop(self.start(own))
        self.assertFalse(has_life(own))
        self.assertIsNone(own.server)

    def test_a_stop_alone_is_called_only_if_it_is_declared(self) -> None:
        class Stop:
            stopped = 0

            def stop(self) -> None:
                self.stopped += 1

        plain, declared = Stop(), implementer(IStoppable)(type("Declared", (Stop,), {}))()
        for handler in (plain, declared):
            self.stop(self.start(handler))
        self.assertEqual((plain.stopped, declared.stopped), (0, 1))
        self.assertEqual((ignored_methods(plain), ignored_methods(declared)), (["stop"], []))

    def test_a_declared_start_is_called_whatever_its_signature(self) -> None:
        @implementer(IStartable)
        class Declared:
            def start(self, *arguments: Any) -> None:
                self.arguments = arguments

        handler = Declared()
        self.start(handler)
        self.assertEqual(handler.arguments, (INFO,))

    def test_what_has_a_life(self) -> None:
        for handler, expected in (
            (Sink(), False),
            (object(), False),
            (Living(), True),
            (type("Offers", (), {"services": lambda self: []})(), True),
            (type("HasSome", (), {"services": ["web"]})(), False),
        ):
            self.assertEqual(has_life(handler), expected, handler)

    def test_built_in_handlers_verify(self) -> None:
        for handler, provided in (
            (Debugging(), (IStartable,)),
            (Chain(Sink()), (IStartable, IStoppable, IOffersServices)),
            (Proxy("mail.example", 25), (IStoppable,)),
            (Webhook("http://app.example/"), (IStoppable,)),
        ):
            for interface in provided:
                self.assertTrue(verifyObject(interface, handler))


class WaitingTests(LifeCase):
    def test_a_start_that_returns_a_deferred_is_waited_for(self) -> None:
        promise: Deferred[None] = Deferred()
        use = HandlerUse(Living(start=promise))
        started = run(use.start(INFO))
        self.assertNoResult(started)
        promise.callback(None)
        self.successResultOf(started)

    def test_coroutine_functions(self) -> None:
        class Coroutines(Living):
            async def start(self, server: ServerInfo) -> None:
                await succeed(None)
                self.events.append("start")

            async def stop(self) -> None:
                await succeed(None)
                self.events.append("stop")

        handler = Coroutines()
        self.stop(self.start(handler))
        self.assertEqual(handler.events, ["start", "stop"])

    @in_a_loop
    async def test_asyncio_awaitables(self) -> None:
        class OnAsyncio(Living):
            async def start(self, server: ServerInfo) -> None:
                await asyncio.sleep(0)
                self.events.append("start")

            def stop(self) -> Any:
                return asyncio.ensure_future(self.end())

            async def end(self) -> None:
                await asyncio.sleep(0)
                self.events.append("stop")

        handler = OnAsyncio()
        use, loop = HandlerUse(handler), asyncio.get_running_loop()
        await run(use.start(INFO)).asFuture(loop)
        await run(use.stop()).asFuture(loop)
        self.assertEqual(handler.events, ["start", "stop"])

    def test_a_generator_by_mistake_is_an_error_and_no_start(self) -> None:
        class Yields(Living):
            def start(self, server: ServerInfo) -> Any:
                yield "this never runs"

        use = HandlerUse(Yields())
        self.failureResultOf(run(use.start(INFO)), TypeError)
        self.stop(use)

    def test_a_start_that_is_cancelled_is_no_start(self) -> None:
        handler = Living(start=Deferred())
        use = HandlerUse(handler)
        started = run(use.start(INFO))
        started.cancel()
        self.failureResultOf(started, CancelledError)
        self.stop(use)
        self.assertEqual(handler.events, ["start"])

    def test_a_stop_that_hangs_is_cancelled_in_time(self) -> None:
        clock, cancelled = Clock(), []
        hanging: Deferred[None] = Deferred(cancelled.append)
        use = self.start(Living(stop=hanging), ServerInfo("mx.example", (), clock, {}))
        stopped = run(use.stop())
        clock.advance(STOP_TIMEOUT - 1)
        self.assertNoResult(stopped)
        clock.advance(1)
        error = self.failureResultOf(stopped, TimeoutError).value
        self.assertEqual(str(error), "stop() of Living took longer than 10 s")
        self.assertEqual(cancelled, [hanging])
        self.assertEqual(clock.getDelayedCalls(), [])


class CountingTests(LifeCase):
    def test_stopped_once_and_never_without_a_start(self) -> None:
        handler = Living()
        self.stop(HandlerUse(handler))
        use = self.start(handler)
        self.stop(use)
        self.stop(use)
        self.assertEqual(handler.events, ["start", "stop"])

    def test_not_stopped_after_a_start_that_failed(self) -> None:
        handler = Living(start=OSError("no"))
        use = HandlerUse(handler)
        self.failureResultOf(run(use.start(INFO)), OSError)
        self.stop(use)
        self.assertEqual(handler.events, ["start"])

    def test_one_server_starts_it_once(self) -> None:
        use = self.start(Living())
        self.failureResultOf(run(use.start(INFO)), RuntimeError)

    def test_it_can_be_started_again(self) -> None:
        handler = Living()
        use = self.start(handler)
        self.stop(use)
        self.successResultOf(run(use.start(INFO)))
        self.stop(use)
        self.assertEqual(handler.events, ["start", "stop"] * 2)

    def test_the_first_of_several_servers_starts_it_and_the_last_stops_it(self) -> None:
        handler = Living()
        one, two = self.start(handler), self.start(handler)
        self.stop(one)
        self.stop(one)
        self.assertEqual(handler.events, ["start"])
        self.stop(two)
        self.assertEqual(handler.events, ["start", "stop"])

    def test_a_second_server_waits_for_a_start_in_progress(self) -> None:
        promise: Deferred[None] = Deferred()
        handler = Living(start=promise)
        one, two = HandlerUse(handler), HandlerUse(handler)
        first, second = run(one.start(INFO)), run(two.start(INFO))
        self.assertNoResult(second)
        promise.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.stop(one)
        self.stop(two)
        self.assertEqual(handler.events, ["start", "stop"])

    def test_if_the_first_start_fails_the_second_server_tries_itself(self) -> None:
        promise: Deferred[None] = Deferred()
        handler = Living(start=promise)
        first, second = run(HandlerUse(handler).start(INFO)), run(HandlerUse(handler).start(INFO))
        handler.results["start"] = None
        promise.errback(OSError("no"))
        self.failureResultOf(first, OSError)
        self.successResultOf(second)
        self.assertEqual(handler.events, ["start", "start"])

    def test_who_gives_up_waiting_takes_no_turn(self) -> None:
        promise: Deferred[None] = Deferred()
        handler = Living(start=promise)
        one, two = HandlerUse(handler), HandlerUse(handler)
        run(one.start(INFO))
        second = run(two.start(INFO))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        promise.callback(None)
        self.stop(two)
        self.stop(one)
        self.assertEqual(handler.events, ["start", "stop"])

    def test_a_server_in_another_thread_is_woken_there(self) -> None:
        promise: Deferred[None] = Deferred()
        handler, woken = Living(start=promise), []
        run(HandlerUse(handler).start(INFO))
        reactor: Any = type("Reactor", (), {"callFromThread": lambda self, function: woken.append(function)})()
        waiting: list[Deferred[Any]] = []

        def other() -> None:
            waiting.append(run(HandlerUse(handler).start(ServerInfo("mx.example", (), reactor, {}))))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        promise.callback(None)
        self.assertNoResult(waiting[0])
        (fire,) = woken
        fire()
        self.successResultOf(waiting[0])

    def test_nothing_is_remembered_of_a_handler_that_is_not_used(self) -> None:
        before = len(lifecycle._lives)
        failing = HandlerUse(Living(start=OSError("no")))
        self.failureResultOf(run(failing.start(INFO)), OSError)
        self.stop(self.start(Living()))
        self.assertEqual(len(lifecycle._lives), before)

    def test_a_fork_does_not_stop_what_its_parent_has_started(self) -> None:
        handler = Living()
        use = self.start(handler)
        self.patch(lifecycle, "_lives", {})
        self.stop(use)
        self.assertEqual(handler.events, ["start"])
        again = self.start(handler)
        self.stop(again)
        self.assertEqual(handler.events, ["start", "start", "stop"])

    if not hasattr(os, "register_at_fork"):
        test_a_fork_does_not_stop_what_its_parent_has_started.skip = "no fork here"  # type: ignore[attr-defined]


class ServicesTests(LifeCase):
    def offered(self, given: Any) -> Deferred[Any]:
        return run(offered_services(type("Offers", (), {"services": lambda self: given})()))

    def test_now_or_later(self) -> None:
        service = Beside([])
        self.assertEqual(self.successResultOf(self.offered([service])), [service])
        self.assertEqual(self.successResultOf(self.offered(succeed((service,)))), [service])

    def test_anything_else_is_an_error(self) -> None:
        self.failureResultOf(self.offered(["web"]), TypeError)
        self.failureResultOf(self.offered(None), TypeError)
