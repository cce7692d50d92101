"""``handle_DATA_STREAM``: a hook or a message that ends before its time, or too late."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.support.fakes import ENVELOPE, Client, Promises, codes, hooks, join, make_factory
from tests.support.loops import in_a_loop, turns
from tests.support.streaming import END, PIECE, PIECES, Reader, StreamTestCase, both
from twisted_smtpd.protocol.timeouts import CLOSING_TIME
from twisted_smtpd.smtp import SMTP, SMTPReplyError
from twisted_smtpd.stream import ContentStream, StreamInterrupted
from twisted_smtpd.wire.replies import BadStatus


class EarlyEndTests(StreamTestCase):
    """The hook answers before it has the whole message."""

    async def early(self, hook: Callable[..., Any], expected: int) -> Client:
        client = await self.begin(hooks(handle_DATA_STREAM=hook), data_size_limit=200000)
        for _ in range(10):
            self.assertEqual(await self.send(client, PIECES), b"")
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(codes(await self.send(client, b"QUIT\r\n.\r\nRSET\r\n")), [expected, 250])
        return client

    @both
    async def test_accepting(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            await stream.__anext__()
            return "250 enough"

        await self.early(hook, 250)

    @both
    async def test_refusing_without_a_look(self) -> None:
        async def hook(*arguments: Any) -> str:
            return "554 no"

        await self.early(hook, 554)

    @both
    async def test_a_plain_function(self) -> None:
        await self.early(lambda *arguments: "550 no", 550)

    @both
    async def test_raising_a_reply(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            async for _ in stream:
                raise SMTPReplyError(552, "5.2.2", "Mailbox full")
            return "250 OK"

        await self.early(hook, 552)

    @both
    async def test_failing(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            await stream.__anext__()
            raise KeyError

        await self.early(hook, 451)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    @both
    async def test_a_missing_return(self) -> None:
        async def hook(*arguments: Any) -> None:
            """Forgets."""

        await self.early(hook, 451)
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 1)

    @both
    async def test_while_the_client_has_to_wait(self) -> None:
        promise: Deferred[str] = Deferred()

        async def hook(*arguments: Any) -> str:
            return await promise

        client = await self.begin(hooks(handle_DATA_STREAM=hook))
        await self.fill(client)
        promise.callback("250 OK")
        await self.turn()
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(codes(await self.send(client, END)), [250])


class SlowHookTests(StreamTestCase):
    @both
    async def test_a_hook_that_never_reads_is_cancelled_and_the_rest_read_past(self) -> None:
        promises = Promises()
        client = await self.begin(hooks(handle_DATA_STREAM=promises), hook_timeout=20)
        await self.fill(client)
        await self.advance(19)
        self.assertEqual(promises.cancelled, [])
        await self.advance(2)
        self.assertEqual(len(promises.cancelled), 1)
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(await self.send(client, PIECES * 9), b"")
        said = await self.send(client, b"QUIT\r\n.\r\nRSET\r\n")
        self.assertEqual(said, b"451 4.3.0 Processing took too long, try again later\r\n250 2.0.0 OK\r\n")

    @both
    async def test_a_hook_that_has_not_seen_the_end_can_not_accept(self) -> None:
        promises = Promises()

        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            try:
                async for _ in stream:
                    await promises()
            except BaseException:
                pass
            return "250 OK"

        client = await self.begin(hooks(handle_DATA_STREAM=hook), hook_timeout=20)
        await self.fill(client)
        await self.advance(21)
        self.assertEqual(codes(await self.send(client, END)), [451])

    @both
    async def test_a_hook_that_goes_on_when_cancelled_is_hung_up_on(self) -> None:
        promise: Deferred[str] = Deferred()

        async def hook(*arguments: Any) -> str:
            with contextlib.suppress(CancelledError, asyncio.CancelledError):
                await Deferred()
            return await promise

        client = await self.begin(hooks(handle_DATA_STREAM=hook), hook_timeout=20)
        await self.fill(client)
        await self.advance(21)
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(await self.send(client, END), b"")
        for _ in range(3):
            await self.advance(20 + CLOSING_TIME)
        self.assertEqual(codes(client.read()), [421])
        self.assertTrue(client.closed)
        promise.callback("250 OK")

    @both
    async def test_a_hook_that_has_the_whole_message_has_its_time(self) -> None:
        reader = Reader(last=Promises())
        client = await self.begin(reader, hook_timeout=20)
        await self.send(client, b"x\r\n" + END)
        await self.advance(19)
        self.assertEqual(client.read(), b"")
        await self.advance(2)
        self.assertEqual(codes(client.read()), [451])

    @both
    async def test_time_spent_on_a_message_that_keeps_coming_does_not_count(self) -> None:
        reader = Reader()
        client = await self.begin(reader, hook_timeout=20, min_data_rate=0)
        for _ in range(10):
            await self.send(client, PIECES)
            await self.advance(15)
        self.assertEqual(codes(await self.send(client, END)), [250])


class GoneTests(StreamTestCase):
    """The message does not come to its end."""

    @both
    async def test_a_hook_that_reads_hears_it(self) -> None:
        reader = Reader()
        client = await self.begin(reader)
        await self.send(client, b"x\r\n")
        await self.lose(client)
        self.assertEqual([type(error) for error in reader.errors], [StreamInterrupted])

    @both
    async def test_a_hook_that_cleans_up_is_left_to_it(self) -> None:
        promises = Promises()
        reader = Reader(last=promises)
        client = await self.begin(reader)
        await self.send(client, b"x\r\n")
        await self.lose(client)
        self.assertEqual((promises.cancelled, reader.ends), ([], 0))
        promises.made[0].callback(None)
        await self.turn()
        self.assertEqual(reader.ends, 1)

    @both
    async def test_a_hook_that_is_at_something_else_is_cancelled(self) -> None:
        promises = Promises()
        reader = Reader(each=promises)
        client = await self.begin(reader)
        await self.send(client, b"x\r\n")
        await self.lose(client)
        self.assertEqual(len(promises.cancelled), 1)
        self.assertIsInstance(reader.errors[0], (CancelledError, asyncio.CancelledError))

    @both
    async def test_a_hook_that_has_given_up_reading_is_cancelled(self) -> None:
        promises = Promises()

        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            reading = Deferred.fromCoroutine(stream.__anext__())
            reading.addErrback(lambda failure: failure.trap(CancelledError))
            reading.cancel()
            return str(await promises())

        client = await self.begin(hooks(handle_DATA_STREAM=hook))
        await self.lose(client)
        self.assertEqual(len(promises.cancelled), 1)

    @both
    async def test_its_own_failure_is_logged(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            try:
                return str([chunk async for chunk in stream])
            except StreamInterrupted:
                raise KeyError from None

        await self.lose(await self.begin(hooks(handle_DATA_STREAM=hook)))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    @both
    async def test_a_failure_before_is_logged_once(self) -> None:
        async def hook(*arguments: Any) -> str:
            raise KeyError

        client = await self.begin(hooks(handle_DATA_STREAM=hook))
        await self.send(client, b"x\r\n")
        await self.lose(client)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    @both
    async def test_an_early_answer_is_forgotten(self) -> None:
        client = await self.begin(hooks(handle_DATA_STREAM=lambda *arguments: "250 OK"))
        await self.lose(client)
        self.assertEqual(client.read(), b"")

    @both
    async def test_a_half_message_is_none_when_the_client_shuts_down_its_side(self) -> None:
        reader = Reader()
        client = await self.begin(reader)
        await self.send(client, b"x\r\n.\r")
        client.finish_sending()
        self.assertTrue(client.closed)
        self.assertEqual(client.read(), b"")
        await self.lose(client)
        self.assertEqual([type(error) for error in reader.errors], [StreamInterrupted])

    @both
    async def test_a_client_that_is_silent_is_told_and_the_hook_too(self) -> None:
        reader = Reader()
        client = await self.begin(reader, timeout=30)
        await self.advance(31)
        self.assertEqual(codes(client.read()), [421])
        await self.lose(client)
        self.assertEqual([type(error) for error in reader.errors], [StreamInterrupted])

    @both
    async def test_a_hook_with_the_whole_message_goes_on(self) -> None:
        promises = Promises()
        reader = Reader(last=promises)
        client = await self.begin(reader)
        await self.send(client, b"x\r\n" + END)
        await self.lose(client)
        self.assertEqual(promises.cancelled, [])
        promises.made[0].callback(None)
        await self.turn()
        self.assertEqual(reader.errors, [])

    def test_a_program_that_overrides_data_on_asyncio_tells_the_hook_as_well(self) -> None:
        class Mine(SMTP):
            async def smtp_DATA(self, arg: str | None) -> None:
                await asyncio.sleep(0)
                await super().smtp_DATA(arg)

        async def test(self: GoneTests) -> None:
            reader = Reader()
            client = await self.begin(reader, Mine)
            await self.send(client, b"x\r\n")
            await self.lose(client)
            self.assertEqual([type(error) for error in reader.errors], [StreamInterrupted])

        self.turn = turns
        in_a_loop(test)(self)


class ViolationTests(StreamTestCase):
    VIOLATIONS = (
        ({"data_size_limit": 100000}, PIECES * 2, 552, b"QUIT\r\n"),
        ({"line_length_limit": 500}, PIECE, 500, b"QUIT\r\n"),
        ({"bare_newline": "reject"}, b"x\ny\r\n", 550, b"QUIT\r\n"),
    )

    @both
    async def test_the_hook_hears_it_at_once_and_the_client_at_the_end(self) -> None:
        for options, content, code, rest in self.VIOLATIONS:
            reader = Reader()
            client = await self.begin(reader, **options)
            self.assertEqual(await self.send(client, b"fine\r\n"), b"")
            self.assertEqual(await self.send(client, content), b"")
            (error,) = reader.errors
            assert isinstance(error, SMTPReplyError)
            self.assertEqual(error.reply.code, code)
            self.assertTrue(reader.content.startswith(b"fine"))
            self.assertEqual(codes(await self.send(client, rest + PIECES + END + b"NOOP\r\n")), [code, 250])

    @both
    async def test_a_hook_that_accepts_all_the_same_is_overruled(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            try:
                async for _ in stream:
                    pass
            except SMTPReplyError:
                pass
            return "250 OK"

        for options, content, code, _ in self.VIOLATIONS:
            client = await self.begin(hooks(handle_DATA_STREAM=hook), **options)
            self.assertEqual(codes(await self.send(client, content + END)), [code])

    @both
    async def test_a_hook_that_lags_behind_hears_it_instead_of_the_rest(self) -> None:
        promises = Promises()
        reader = Reader(each=promises)
        client = await self.begin(reader, data_size_limit=100000)
        for _ in range(3):
            await self.send(client, PIECES)
        await self.send(client, END)
        promises.made[0].callback(None)
        await self.turn()
        self.assertEqual(len(reader.chunks), 1)
        self.assertEqual([type(error) for error in reader.errors], [SMTPReplyError])
        self.assertEqual(codes(client.read()), [552])

    @both
    async def test_the_next_command_waits_until_the_hook_has_cleaned_up(self) -> None:
        promises = Promises()
        reader = Reader(last=promises)
        client = await self.begin(reader, data_size_limit=10)
        self.assertEqual(await self.send(client, PIECE + END + b"RSET\r\n"), b"")
        promises.made[0].callback(None)
        await self.turn()
        self.assertEqual(codes(client.read()), [552, 250])

    @both
    async def test_a_client_that_goes_does_not_cut_off_the_cleaning_up(self) -> None:
        promises = Promises()
        client = await self.begin(Reader(last=promises), data_size_limit=10)
        await self.send(client, PIECE)
        await self.lose(client)
        self.assertEqual((len(promises.made), promises.cancelled), (1, []))
        promises.made[0].callback(None)

    @both
    async def test_nor_that_of_a_hook_that_heard_it_late(self) -> None:
        reading, cleaning = Promises(), Promises()
        client = await self.begin(Reader(each=reading, last=cleaning), data_size_limit=100)
        await self.send(client, b"x\r\ny")
        await self.send(client, PIECE)
        reading.made[0].callback(None)
        await self.turn()
        await self.lose(client)
        self.assertEqual((len(cleaning.made), cleaning.cancelled), (1, []))
        cleaning.made[0].callback(None)

    @both
    async def test_a_hook_that_fails_over_it_is_logged(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            try:
                return str([chunk async for chunk in stream])
            except SMTPReplyError:
                raise KeyError from None

        client = await self.begin(hooks(handle_DATA_STREAM=hook), data_size_limit=10)
        self.assertEqual(codes(await self.send(client, PIECE + END)), [552])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    @both
    async def test_an_endless_violation_is_not_kept(self) -> None:
        client = await self.begin(Reader(each=Promises()), line_length_limit=100)
        for _ in range(50):
            await self.send(client, PIECES)
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(client.protocol.connections.buffered, 0)


class DrainTests(StreamTestCase):
    @both
    async def test_a_message_in_progress_is_taken_in(self) -> None:
        reader = Reader()
        client = await self.begin(reader)
        drained = client.protocol.connections.drain(10)
        self.assertEqual(codes(await self.send(client, b"x\r\n" + END)), [250, 421])
        self.assertTrue(client.closed)
        await self.lose(client)
        self.successResultOf(drained)

    @both
    async def test_a_message_that_takes_too_long_is_not(self) -> None:
        reader = Reader()
        client = await self.begin(reader)
        drained = client.protocol.connections.drain(10)
        await self.send(client, b"x\r\n")
        await self.advance(10)
        self.assertEqual(codes(client.read()), [421])
        self.assertTrue(client.closed)
        await self.lose(client)
        self.assertEqual([type(error) for error in reader.errors], [StreamInterrupted])
        self.successResultOf(drained)

    def test_a_factory_counts_the_connection_until_it_is_gone(self) -> None:
        factory = make_factory(Reader())
        client = join(factory)
        client.send(ENVELOPE + b"DATA\r\n")
        drained = factory.drain(10)
        self.assertNoResult(drained)
        client.send(END)
        client.lose()
        self.successResultOf(drained)
