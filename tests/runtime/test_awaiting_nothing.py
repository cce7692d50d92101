"""DONE and NO_HOOK: results that are there already, for all that takes a coroutine; and push(), which may give one."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Client, connect, hooks
from tests.support.loops import in_a_loop, turns
from twisted_smtpd.runtime.awaiting import DONE, MISSING, NO_HOOK, settle, unfinished

BOTH: tuple[tuple[Any, Any], ...] = ((DONE, None), (NO_HOOK, MISSING))


class ThereTests(SynchronousTestCase):
    """One object serves all, so each way to wait for it is taken twice."""

    def test_awaited(self) -> None:
        async def wait(awaitable: Any) -> list[Any]:
            return [await awaitable, await awaitable]

        for there, result in BOTH:
            self.assertRaises(StopIteration, wait(there).send, None)
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(wait(there))), [result] * 2)

    def test_iterated_by_yield_from(self) -> None:
        def wait(awaitable: Any) -> Generator[Any, Any, list[Any]]:
            first = yield from awaitable
            second = yield from awaitable.__await__()
            return [first, second]

        for there, result in BOTH:
            with self.assertRaises(StopIteration) as stop:
                next(wait(there))
            self.assertEqual(stop.exception.value, [result] * 2)

    def test_as_a_deferred(self) -> None:
        for there, result in BOTH:
            for _ in range(2):
                self.assertIs(self.successResultOf(Deferred.fromCoroutine(there)), result)
                self.assertIs(self.successResultOf(ensureDeferred(there)), result)

    def test_settled(self) -> None:
        for there, result in BOTH:
            self.assertIs(self.successResultOf(Deferred.fromCoroutine(settle(there, None))), result)

    def test_it_is_still_something_to_be_waited_for(self) -> None:
        """A hook that is asked for yes or no, and gives this, has not said yes."""
        for there, _ in BOTH:
            self.assertTrue(unfinished(there))
            self.assertTrue(inspect.isawaitable(there))
            self.assertTrue(asyncio.iscoroutine(there))

    def test_closed_it_serves_on(self) -> None:
        for there, result in BOTH:
            there.close()
            self.assertIs(self.successResultOf(Deferred.fromCoroutine(there)), result)

    def test_an_error_thrown_into_it_comes_out(self) -> None:
        self.assertRaises(KeyError, DONE.throw, KeyError())
        self.assertRaises(KeyError, DONE.throw, KeyError)

    @in_a_loop
    async def test_as_a_task(self) -> None:
        for there, result in BOTH:
            for _ in range(2):
                task = asyncio.create_task(there)
                self.assertIn("Task", repr(task))
                self.assertIs(await task, result)
                self.assertIs(await asyncio.ensure_future(there), result)

    @in_a_loop
    async def test_wait_for_gather_and_shield(self) -> None:
        for there, result in BOTH:
            self.assertIs(await asyncio.wait_for(there, 60), result)
            self.assertEqual(await asyncio.gather(there, there), [result] * 2)
            self.assertIs(await asyncio.shield(there), result)

    @in_a_loop
    async def test_settled_on_asyncio(self) -> None:
        for there, result in BOTH:
            loop = asyncio.get_running_loop()
            self.assertIs(await Deferred.fromCoroutine(settle(there, loop)).asFuture(loop), result)

    @in_a_loop
    async def test_a_task_that_is_cancelled_before_it_begins(self) -> None:
        task = asyncio.create_task(DONE)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        await DONE

    @in_a_loop
    async def test_in_debug_mode(self) -> None:
        asyncio.get_running_loop().set_debug(True)
        await asyncio.wait_for(asyncio.create_task(DONE), 60)


class PushTests(SynchronousTestCase):
    """push() sends at once; what it returns ends when the client reads."""

    def blocked(self, handler: Any = None) -> Client:
        client = connect(handler)
        client.protocol._output.pauseProducing()
        return client

    def test_a_client_that_reads_is_not_waited_for(self) -> None:
        client = connect()
        for _ in range(2):
            self.assertIs(client.protocol.push("250 hello"), DONE)
        self.assertEqual(client.read(), b"250 hello\r\n" * 2)

    def test_a_client_that_does_not_is(self) -> None:
        client = self.blocked()
        waiting = [Deferred.fromCoroutine(client.protocol.push(f"250 {number}")) for number in range(3)]  # type: ignore[arg-type]
        self.assertEqual(client.read(), b"250 0\r\n250 1\r\n250 2\r\n")
        for one in waiting:
            self.assertNoResult(one)
        client.protocol._output.resumeProducing()
        for one in waiting:
            self.assertIs(self.successResultOf(one), None)

    def test_until_it_goes(self) -> None:
        client = self.blocked()
        waiting = Deferred.fromCoroutine(client.protocol.push("250 hello"))  # type: ignore[arg-type]
        client.lose()
        self.assertIs(self.successResultOf(waiting), None)

    def test_the_reply_is_on_its_way_before_anybody_waits(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            client = self.blocked()
            client.protocol.push("250 hello")
            self.assertEqual(client.read(), b"250 hello\r\n")

    def test_after_the_end_nothing_is_waited_for(self) -> None:
        client = connect()
        client.send(b"QUIT\r\n")
        self.assertIs(client.protocol.push("250 hello"), DONE)
        self.assertEqual(client.read(), b"")

    def test_a_status_that_is_none_is_an_error_at_once(self) -> None:
        self.assertRaises(ValueError, connect().protocol.push, "hello")

    @in_a_loop
    async def test_in_asyncios_ways_of_waiting(self) -> None:
        """A hook that does so waits until its client reads."""
        ways: list[Any] = [
            lambda server: asyncio.wait_for(server.push("250-one"), 60),
            lambda server: asyncio.create_task(server.push("250-one")),
            lambda server: asyncio.gather(server.push("250-one"), server.push("250-two")),
        ]
        for way in ways:
            for held in (False, True):
                client = await self.asking(way, held)
                self.assertEqual(client.read().endswith(b"OK\r\n"), not held)
                client.protocol._output.resumeProducing()
                await turns()
                self.assertEqual(client.protocol.connections.counts.hook_failures, 0)
                if held:
                    self.assertTrue(client.read().endswith(b"250 2.0.0 OK\r\n"))

    async def asking(self, way: Any, held: bool) -> Client:
        """A client whose hook pushes; it does not read where it is held."""

        async def hook(server: Any, *arguments: Any) -> str:
            if held:
                server._output.pauseProducing()
            await way(server)
            return "250 OK"

        client = connect(hooks(handle_NOOP=hook))
        await turns()
        client.read()
        client.protocol.dataReceived(b"NOOP\r\n")
        await turns()
        return client
