"""Calling hooks: names and signatures, and what hooks may await on the asyncio reactor, here a private event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import MESSAGE, Client, Promises, Recorder, codes, connect, hooks, last_line
from tests.support.loops import in_a_loop, turns
from twisted_smtpd.runtime.awaiting import MISSING, NeedsAsyncioReactor, hook_names, settle, takes_responses
from twisted_smtpd.smtp import SMTP


async def said_to(client: Client, data: bytes) -> bytes:
    client.protocol.dataReceived(data)
    await turns()
    return client.read()


async def greeted(handler: Any, protocol: type[SMTP] = SMTP, **options: Any) -> Client:
    client = connect(handler, protocol, **options)
    await turns()
    client.read()
    return client


class NamesTests(SynchronousTestCase):
    def test_hooks_of_the_class_its_bases_and_the_instance(self) -> None:
        class Base:
            def handle_MAIL(self) -> None: ...

        class Handler(Base):
            def handle_RCPT(self) -> None: ...

            def auth_PLAIN(self) -> None: ...

        handler = Handler()
        handler.handle_DATA = None  # type: ignore[attr-defined]
        self.assertEqual(hook_names(handler), {"MAIL", "RCPT", "DATA"})

    def test_missing_says_its_name(self) -> None:
        self.assertEqual(repr(MISSING), "MISSING")


class TakesResponsesTests(SynchronousTestCase):
    def test_four_arguments(self) -> None:
        class Handler:
            async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: Any) -> None: ...

        self.assertFalse(takes_responses(Handler().handle_EHLO))
        self.assertFalse(takes_responses(lambda server, session, envelope, hostname, *, keyword=1: ""))

    def test_five_arguments(self) -> None:
        class Handler:
            async def handle_EHLO(
                self, server: Any, session: Any, envelope: Any, hostname: Any, lines: Any
            ) -> None: ...

        self.assertTrue(takes_responses(Handler().handle_EHLO))
        self.assertTrue(takes_responses(lambda *arguments: ""))
        self.assertTrue(takes_responses(lambda a, b, c, d, e, f=1: ""))

    def test_something_without_a_signature(self) -> None:
        self.assertFalse(takes_responses(dict.fromkeys))
        self.assertFalse(takes_responses("no function"))  # type: ignore[arg-type]


class SettleWithoutLoopTests(SynchronousTestCase):
    def settle(self, result: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(settle(result, None)))

    def test_values_are_themselves(self) -> None:
        for value in ("250 OK", None, 5, ["250 OK"]):
            self.assertIs(self.settle(value), value)

    def test_deferreds_and_coroutines(self) -> None:
        async def coroutine() -> str:
            return await succeed("x")

        self.assertEqual(self.settle(coroutine()), "x")
        self.assertEqual(self.settle(succeed("x")), "x")
        self.failureResultOf(Deferred.fromCoroutine(settle(fail(KeyError()), None)), KeyError)

    def test_the_error_names_what_was_awaited_and_the_remedy(self) -> None:
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        message = str(NeedsAsyncioReactor(loop.create_future()))
        self.assertIn("Future", message)
        self.assertIn("--reactor=asyncio", message)


class LoopTests(SynchronousTestCase):
    """A hook is an asyncio task: whatever works in one works in it, and Deferreds do as well."""

    async def reply(self, hook: Callable[..., Any]) -> str:
        client = await greeted(hooks(handle_NOOP=hook))
        client.protocol.dataReceived(b"NOOP\r\n")
        while not client.transport.value():
            await asyncio.sleep(0.001)
        return last_line(client.read())

    @in_a_loop
    async def test_a_coroutine(self) -> None:
        async def hook(server: SMTP, session: Any, *arguments: Any) -> str:
            task = asyncio.current_task()
            return f"250 {task is not None} {session.loop is asyncio.get_running_loop()}"

        self.assertEqual(await self.reply(hook), "250 2.0.0 True True")

    @in_a_loop
    async def test_plain_functions_cost_no_turn(self) -> None:
        client = connect(hooks(handle_NOOP=lambda *arguments: "250 OK"))
        self.assertEqual(codes(client.send(b"NOOP\r\nNOOP\r\n")), [250, 250])

    @in_a_loop
    async def test_asyncio_awaitables(self) -> None:
        async def hook(*arguments: Any) -> str:
            await asyncio.sleep(0.001)
            done, _ = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0, "x"))])
            async with asyncio.Lock():
                return f"250 {done.pop().result()}"

        self.assertEqual(await self.reply(hook), "250 2.0.0 x")

    @in_a_loop
    async def test_a_thread(self) -> None:
        async def hook(*arguments: Any) -> str:
            other = await asyncio.to_thread(threading.current_thread)
            return f"250 {other is not threading.current_thread()}"

        self.assertEqual(await self.reply(hook), "250 2.0.0 True")

    @in_a_loop
    async def test_deferreds(self) -> None:
        async def hook(*arguments: Any) -> str:
            late: Deferred[str] = Deferred()
            asyncio.get_running_loop().call_soon(late.callback, "b")
            return "250 " + await succeed("a") + await late

        self.assertEqual(await self.reply(hook), "250 2.0.0 ab")

    @in_a_loop
    async def test_deferreds_that_fail(self) -> None:
        async def hook(*arguments: Any) -> str:
            late: Deferred[str] = Deferred()
            asyncio.get_running_loop().call_soon(late.errback, KeyError("b"))
            try:
                await late
            except KeyError:
                return "250 caught"
            return "550"

        self.assertEqual(await self.reply(hook), "250 2.0.0 caught")

    @in_a_loop
    async def test_gather_of_deferreds_and_coroutines(self) -> None:
        async def hook(*arguments: Any) -> str:
            promises = [Deferred[str]() for _ in range(2)]
            for index, promise in enumerate(promises):
                asyncio.get_running_loop().call_soon(promise.callback, f"d{index}")

            async def child() -> str:
                return await promises[1] + "!"

            return "250 " + " ".join(await asyncio.gather(promises[0], child(), asyncio.sleep(0, "s")))

        self.assertEqual(await self.reply(hook), "250 2.0.0 d0 d1! s")

    @in_a_loop
    async def test_a_timeout_of_its_own(self) -> None:
        promises = Promises()

        async def hook(*arguments: Any) -> str:
            try:
                await asyncio.wait_for(promises(), 0.001)
            except asyncio.TimeoutError:
                return "451 too slow"
            return "250 OK"

        self.assertEqual(await self.reply(hook), "451 4.3.0 too slow")
        self.assertEqual(promises.cancelled, promises.made)

    @in_a_loop
    async def test_futures_tasks_and_other_awaitables_returned_by_plain_functions(self) -> None:
        class Awaited:
            def __await__(self) -> Generator[Any, Any, str]:
                yield from asyncio.sleep(0).__await__()
                return "250 awaited"

        def future(*arguments: Any) -> asyncio.Future[str]:
            made: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(made.set_result, "250 future")
            return made

        self.assertEqual(await self.reply(future), "250 2.0.0 future")
        self.assertEqual(await self.reply(lambda *arguments: Awaited()), "250 2.0.0 awaited")
        self.assertEqual(await self.reply(lambda *arguments: succeed("250 deferred")), "250 2.0.0 deferred")

    @in_a_loop
    async def test_failures(self) -> None:
        async def hook(*arguments: Any) -> str:
            await asyncio.sleep(0)
            raise KeyError("secret")

        said = await self.reply(hook)
        self.assertEqual(said[:10], "451 4.3.0 ")
        self.assertNotIn("secret", said)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    @in_a_loop
    async def test_tasks_that_are_no_hooks_are_left_alone(self) -> None:
        made: list[str] = []

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            made.append(coroutine.__name__)
            return asyncio.Task(coroutine, loop=loop, **options)

        asyncio.get_running_loop().set_task_factory(factory)

        async def hook(*arguments: Any) -> str:
            return "250 " + await asyncio.create_task(child())

        async def child() -> str:
            return await succeed("x")

        self.assertEqual(await self.reply(hook), "250 2.0.0 x")
        # A loop that is bridged is not bridged again.
        self.assertEqual(await self.reply(hook), "250 2.0.0 x")
        before = len(made)

        async def stranger() -> str:
            return "y"

        self.assertEqual(await asyncio.create_task(stranger()), "y")
        self.assertEqual(made[before:], ["stranger"])


class CancellationTests(SynchronousTestCase):
    @in_a_loop
    async def test_a_client_that_goes_cancels_the_task_and_what_it_awaits(self) -> None:
        promises = Promises()
        ended: list[str] = []

        async def hook(*arguments: Any) -> str:
            try:
                await promises()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return "250 OK"

        client = await greeted(hooks(handle_NOOP=hook))
        await said_to(client, b"NOOP\r\n")
        client.lose()
        await turns()
        self.assertEqual(ended, ["cancelled"])
        self.assertEqual(promises.cancelled, promises.made)
        self.assertEqual(self.flushLoggedErrors(), [])

    @in_a_loop
    async def test_a_deferred_that_is_cancelled_from_elsewhere(self) -> None:
        promises = Promises()

        async def hook(*arguments: Any) -> str:
            try:
                await promises()
            except CancelledError:
                return "450 cancelled"
            return "250 OK"

        client = await greeted(hooks(handle_NOOP=hook))
        await said_to(client, b"NOOP\r\n")
        promises.made[0].cancel()
        await turns()
        self.assertEqual(last_line(client.read()), "450 4.2.0 cancelled")

    @in_a_loop
    async def test_a_message_is_taken_in_though_its_client_goes(self) -> None:
        stored: list[Any] = []

        async def hook(server: Any, session: Any, envelope: Any) -> str:
            await asyncio.sleep(0.005)
            stored.append(envelope.content)
            return "250 OK"

        client = await greeted(hooks(handle_DATA=hook))
        await said_to(client, MESSAGE)
        client.lose()
        while not stored:
            await asyncio.sleep(0.001)
        await turns()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(client.protocol.connections.buffered, 0)

    @in_a_loop
    async def test_hook_timeout(self) -> None:
        clock = Clock()

        async def hook(*arguments: Any) -> str:
            await asyncio.sleep(3600)
            return "250 OK"

        client = await greeted(hooks(handle_NOOP=hook), hook_timeout=10, clock=clock)
        await said_to(client, b"NOOP\r\n")
        clock.pump([0.5] * 22)
        await turns()
        self.assertEqual(last_line(client.read()), "451 4.3.0 Processing took too long, try again later")
        self.assertEqual(codes(await said_to(client, b"RSET\r\n")), [250])

    @in_a_loop
    async def test_a_task_that_ignores_cancellation(self) -> None:
        clock = Clock()
        free = asyncio.Event()

        async def hook(*arguments: Any) -> str:
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue
            return "250 OK"

        client = await greeted(hooks(handle_NOOP=hook), hook_timeout=10, clock=clock)
        await said_to(client, b"NOOP\r\n")
        clock.pump([0.5] * 44)
        await turns()
        self.assertEqual(codes(client.read()), [421])
        self.assertTrue(client.closed)
        client.lose()
        free.set()
        await turns()
        self.assertEqual(self.flushLoggedErrors(), [])

    @in_a_loop
    async def test_a_hook_that_cancels_itself(self) -> None:
        async def hook(*arguments: Any) -> str:
            raise asyncio.CancelledError

        client = await greeted(hooks(handle_NOOP=hook))
        self.assertEqual(codes(await said_to(client, b"NOOP\r\n")), [451])
        self.flushLoggedErrors(asyncio.CancelledError, CancelledError)

    @in_a_loop
    async def test_the_other_hooks(self) -> None:
        promises = Promises()
        said: list[str] = []

        async def connected(*arguments: Any) -> str:
            await asyncio.sleep(0)
            return "220 hello"

        async def disconnected(*arguments: Any) -> None:
            await asyncio.sleep(0)
            await promises()
            said.append("gone")

        async def failed(error: BaseException) -> str:
            await asyncio.sleep(0)
            return f"542 {type(error).__name__}"

        async def broken(*arguments: Any) -> str:
            raise KeyError

        client = connect(
            hooks(handle_CONNECT=connected, handle_DISCONNECT=disconnected, handle_exception=failed, handle_NOOP=broken)
        )
        await turns()
        self.assertEqual(client.read(), b"220 hello\r\n")
        self.assertEqual(await said_to(client, b"NOOP\r\n"), b"542 5.0.0 KeyError\r\n")
        client.lose()
        await turns()
        promises.made[0].callback(None)
        await turns()
        self.assertEqual(said, ["gone"])


class ForeignCommandTests(SynchronousTestCase):
    """A command of a program's own is a task as well."""

    @in_a_loop
    async def test_asyncio_around_super(self) -> None:
        class Mine(SMTP):
            async def smtp_MAIL(self, arg: str | None) -> None:
                await asyncio.sleep(0)
                await super().smtp_MAIL(arg)

            async def smtp_DATA(self, arg: str | None) -> None:
                await asyncio.wait_for(super().smtp_DATA(arg), 60)

        handler = Recorder()
        client = await greeted(handler, Mine)
        self.assertEqual(codes(await said_to(client, MESSAGE + MESSAGE)), [250, 250, 250, 354, 250] * 2)
        self.assertEqual(handler.contents, [b"Subject: hi\r\n\r\nhello\r\n"] * 2)

    @in_a_loop
    async def test_octet_by_octet(self) -> None:
        class Mine(SMTP):
            async def smtp_DATA(self, arg: str | None) -> None:
                await asyncio.sleep(0)
                await super().smtp_DATA(arg)

        handler = Recorder()
        client = await greeted(handler, Mine)
        for octet in MESSAGE + b"NOOP\r\n":
            client.protocol.dataReceived(bytes((octet,)))
        await turns(200)
        self.assertEqual(codes(client.read()), [250, 250, 250, 354, 250, 250])

    @in_a_loop
    async def test_lines_read_in_a_task(self) -> None:
        class Mine(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                first = await self.read_line(100)
                await asyncio.sleep(0)
                second = await asyncio.wait_for(self.read_line(100), 60)
                await self.push(f"250 {first.decode()} {second.decode()}")

        client = await greeted(None, Mine)
        self.assertEqual(
            await said_to(client, b"ASK\r\none\r\ntwo\r\nNOOP\r\n"), b"250 2.0.0 one two\r\n250 2.0.0 OK\r\n"
        )

    @in_a_loop
    async def test_a_command_that_no_longer_waits_for_a_line(self) -> None:
        class Mine(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                try:
                    await asyncio.wait_for(self.read_line(100), 0.001)
                except asyncio.TimeoutError:
                    # Meanwhile a line comes: it is a command, but not before this one is done.
                    client.protocol.dataReceived(b"NOOP\r\n")
                    await asyncio.sleep(0)
                    await self.push("250 too late")

        client = await greeted(None, Mine)
        client.send(b"ASK\r\n")
        while not client.transport.value():
            await asyncio.sleep(0.001)
        await turns()
        self.assertEqual(client.read(), b"250 2.0.0 too late\r\n250 2.0.0 OK\r\n")

    @in_a_loop
    async def test_the_rest_of_a_message_nobody_waits_for_is_no_command(self) -> None:
        class Mine(SMTP):
            async def smtp_DATA(self, arg: str | None) -> None:
                await asyncio.wait_for(super().smtp_DATA(arg), 0.001)

        handler = Recorder()
        client = await greeted(handler, Mine)
        client.send(MESSAGE[:-10])
        while not client.closed:
            await asyncio.sleep(0.001)
        self.assertEqual(codes(client.read())[-1], 451)
        client.protocol.dataReceived(b"MAIL FROM:<evil@x.example>\r\n")
        await turns()
        self.assertEqual(client.read(), b"")
        client.lose()
        self.assertEqual((handler.envelopes, client.protocol.connections.buffered), ([], 0))
        self.flushLoggedErrors(asyncio.TimeoutError)

    @in_a_loop
    async def test_a_silent_client_is_idle_though_a_task_waits_for_it(self) -> None:
        class Mine(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                await self.read_line(100)

        clock = Clock()
        client = await greeted(None, Mine, timeout=10, hook_timeout=1, clock=clock)
        client.send(b"ASK\r\n")
        await turns()
        clock.pump([0.5] * 16)
        self.assertFalse(client.closed)
        clock.pump([0.5] * 8)
        self.assertEqual(codes(client.read()), [421])
        client.lose()
        await turns()
        self.assertEqual(self.flushLoggedErrors(), [])
