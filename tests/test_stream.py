"""``handle_DATA_STREAM``: what the hook reads, and how it holds the client back."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.support.fakes import ENVELOPE, MESSAGE, Promises, Recorder, codes, connect, hooks
from tests.support.loops import in_a_loop, turns
from tests.support.streaming import END, PIECE, PIECES, Reader, StreamTestCase, both
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.protocol.connection import MAX_SENT_AHEAD
from twisted_smtpd.smtp import SMTP, SMTPReplyError
from twisted_smtpd.stream import HIGH_WATER, MAX_PIECES, ContentStream, StreamInterrupted
from twisted_smtpd.wire.replies import BadStatus


class ReadingTests(StreamTestCase):
    @both
    async def test_a_chunk_is_read_before_the_message_is_whole(self) -> None:
        reader = Reader()
        client = await self.begin(reader)
        await self.send(client, b"Subject: x\r\n")
        # The CRLF may yet turn out to begin the end of data.
        self.assertEqual(reader.content, b"Subject: x")
        self.assertEqual(reader.ends, 0)
        self.assertEqual(await self.send(client, b"\r\n..y\r\n" + END), b"250 2.0.0 OK\r\n")
        self.assertEqual(reader.content, b"Subject: x\r\n\r\n.y\r\n")
        self.assertEqual((reader.ends, reader.errors), (1, []))

    @both
    async def test_octet_by_octet(self) -> None:
        reader = Reader()
        client = await self.begin(reader)
        said = b""
        for octet in b"a\r\n..b\r\n\r.\n\r\n.\r\nRSET\r\n":
            said += await self.send(client, bytes([octet]))
        self.assertEqual(codes(said), [250, 250])
        self.assertEqual(reader.content, b"a\r\n.b\r\n .\r\n\r\n")

    @both
    async def test_commands_pipelined_behind_data_wait_for_the_hook(self) -> None:
        promises = Promises()
        client = await self.begin(Reader(last=promises))
        self.assertEqual(await self.send(client, b"x\r\n" + END + b"RSET\r\n" + MESSAGE), b"")
        promises.made[0].callback(None)
        await self.turn()
        self.assertEqual(codes(client.read()), [250, 250, 250, 250, 250, 354])
        promises.made[1].callback(None)
        await self.turn()
        self.assertEqual(codes(client.read()), [250])

    @both
    async def test_the_stream_is_preferred_to_handle_data(self) -> None:
        class Both(Reader, Recorder):
            def __init__(self) -> None:
                Reader.__init__(self)
                Recorder.__init__(self)

        handler = Both()
        client = await self.begin(handler)
        await self.send(client, b"x\r\n" + END)
        self.assertEqual((handler.content, handler.envelopes), (b"x\r\n", []))

    @both
    async def test_nothing_is_counted_as_buffered(self) -> None:
        client = await self.begin(Reader(each=Promises()), max_buffered=10)
        await self.send(client, PIECES)
        self.assertEqual(client.protocol.connections.buffered, 0)

    def test_a_plain_function_may_return_a_deferred(self) -> None:
        promise: Deferred[str] = Deferred()
        client = connect(hooks(handle_DATA_STREAM=lambda *arguments: promise))
        self.assertEqual(codes(client.send(MESSAGE))[-1], 354)
        promise.callback("250 OK")
        self.assertEqual(codes(client.read()), [250])

    @both
    async def test_only_one_may_read_at_a_time(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            waiting = Deferred.fromCoroutine(stream.__anext__())
            with contextlib.suppress(RuntimeError):
                await stream.__anext__()
            return f"250 {(await waiting).decode().strip()}"

        client = await self.begin(hooks(handle_DATA_STREAM=hook))
        self.assertEqual(await self.send(client, b"x\r\n" + END), b"250 2.0.0 x\r\n")

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r\n", b".", b"..", b"\n", b"\r", b"a", b"\r\n..\r\n", b"b" * 50]), max_size=30),
        st.integers(0, 2**32),
    )
    def test_it_is_what_handle_data_gets(self, parts: list[bytes], seed: int) -> None:
        body = b"".join(parts)
        if b"\r\n.\r\n" in b"\r\n" + body:
            body = body.replace(b".", b"-")
        sent = ENVELOPE + b"DATA\r\n" + body + b"\r\n.\r\nQUIT\r\n"
        whole, reader, choice = Recorder(), Reader(), random.Random(seed)
        expected = connect(whole).send(sent)
        client = connect(reader)
        while sent:
            size = choice.choice((1, 2, 3, 10, 100))
            client.protocol.dataReceived(sent[:size])
            sent = sent[size:]
        self.assertEqual(client.read(), expected)
        self.assertEqual([reader.content], whole.contents)


class FlowControlTests(StreamTestCase):
    @both
    async def test_a_slow_hook_stops_the_client(self) -> None:
        promises = Promises()
        reader = Reader(each=promises)
        client = await self.begin(reader)
        sent = await self.fill(client)
        self.assertLess(sent, HIGH_WATER + MAX_SENT_AHEAD + 4 * len(PIECES))
        await self.turn()
        while promises.made:
            promises.made.pop().callback(None)
            await self.turn()
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(len(reader.content), sent - len(b"\r\n"))

    @both
    async def test_what_is_kept_for_a_slow_hook_is_bounded(self) -> None:
        promises = Promises()
        reader = Reader(each=promises)
        client = await self.begin(reader)
        total, most = 0, 0
        for _ in range(100):
            total += await self.fill(client)
            most = max(most, total - len(reader.content))
            while client.transport.producerState == "paused":
                await self.turn()
                promises.made.pop().callback(None)
                await self.turn()
        self.assertGreater(total, 10 * most)
        self.assertLess(most, HIGH_WATER + MAX_SENT_AHEAD + 4 * len(PIECES))

    @both
    async def test_small_pieces_stop_the_client_sooner(self) -> None:
        client = await self.begin(Reader(each=Promises()), line_length_limit=0)
        for _ in range(MAX_PIECES + 2):
            client.protocol.dataReceived(b"xy")
        self.assertTrue(client.protocol.paused)

    @both
    async def test_a_client_that_has_to_wait_is_not_too_slow(self) -> None:
        promises = Promises()
        client = await self.begin(Reader(each=promises), min_data_rate=1000, timeout=50)
        await self.fill(client)
        await self.advance(200)
        self.assertFalse(client.closed)
        while promises.made:
            promises.made.pop().callback(None)
            await self.turn()
        await self.advance(20)
        self.assertFalse(client.closed)
        await self.advance(40)
        self.assertEqual(codes(client.read()), [421])

    @both
    async def test_a_client_that_reads_again_does_not_outrun_the_hook(self) -> None:
        client = await self.begin(Reader(each=Promises()))
        sent = await self.fill(client)
        for _ in range(100):
            client.protocol._output.pauseProducing()
            client.protocol._output.resumeProducing()
            client.protocol.dataReceived(PIECES)
        self.assertTrue(client.protocol.paused)
        self.assertLess(client.protocol._body.octets, sent + 1)

    @both
    async def test_the_hook_reads_on_after_the_client_has_shut_down_its_side(self) -> None:
        promises = Promises()
        reader = Reader(each=promises)
        client = await self.begin(reader)
        sent = await self.fill(client)
        client.protocol.dataReceived(END)
        client.finish_sending()
        await self.turn()
        self.assertFalse(client.closed)
        while promises.made:
            promises.made.pop().callback(None)
            await self.turn()
        self.assertEqual(codes(client.read()), [250])
        self.assertTrue(client.closed)
        self.assertEqual(len(reader.content), sent)


class GeneratorTests(StreamTestCase):
    """A hook that yields its statuses, one per recipient."""

    def hook(self, *statuses: Any) -> Any:
        self.content = b""

        async def handle_DATA_STREAM(
            server: Any, session: Any, envelope: Any, stream: ContentStream
        ) -> AsyncIterator[Any]:
            self.content = b""
            async for chunk in stream:
                self.content += chunk
            for status in statuses:
                if isinstance(status, Exception):
                    raise status
                yield status

        return hooks(handle_DATA_STREAM=handle_DATA_STREAM)

    @both
    async def test_it_gets_the_content(self) -> None:
        client = await self.begin(self.hook("250 OK"))
        await self.send(client, b"x\r\n")
        self.assertEqual(codes(await self.send(client, b"y\r\n" + END)), [250])
        self.assertEqual(self.content, b"x\r\ny\r\n")

    @both
    async def test_lmtp_hears_each(self) -> None:
        client = await self.begin(self.hook("250 OK", "452 full", SMTPReplyError(550, None, "no")), LMTP, recipients=4)
        self.assertEqual(codes(await self.send(client, b"x\r\n" + END)), [250, 452, 550, 550])

    @both
    async def test_fewer_statuses_than_recipients(self) -> None:
        client = await self.begin(self.hook(), LMTP)
        self.assertEqual(codes(await self.send(client, b"x\r\n" + END)), [451])
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 1)

    @both
    async def test_a_violation_comes_out_of_it(self) -> None:
        client = await self.begin(self.hook("250 OK"), LMTP, data_size_limit=10)
        self.assertEqual(codes(await self.send(client, PIECE + END)), [552])

    @both
    async def test_its_failure_is_logged_though_nobody_hears_it(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> AsyncIterator[str]:
            try:
                async for _ in stream:
                    pass
            except (StreamInterrupted, SMTPReplyError):
                raise KeyError from None
            yield "250 OK"

        for protocol in (SMTP, LMTP):
            await self.lose(await self.begin(hooks(handle_DATA_STREAM=hook), protocol))
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
            client = await self.begin(hooks(handle_DATA_STREAM=hook), protocol, data_size_limit=10)
            self.assertEqual(codes(await self.send(client, PIECE + END)), [552])
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    @both
    async def test_the_client_goes(self) -> None:
        client = await self.begin(self.hook("250 OK"), LMTP)
        await self.send(client, PIECE)
        await self.lose(client)
        self.assertEqual(self.content, PIECE[:-2])


class AsyncioTests(StreamTestCase):
    """What only an asyncio task can do."""

    def setUp(self) -> None:
        super().setUp()
        self.turn = turns

    def run_in_loop(self, test: Callable[[Any], Awaitable[None]]) -> None:
        in_a_loop(test)(self)
        self.end()

    def test_a_timeout_of_its_own_and_reading_on(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            content, waits = b"", 0
            while True:
                try:
                    content += await asyncio.wait_for(stream.__anext__(), 0.001)
                except asyncio.TimeoutError:
                    waits += 1
                except StopAsyncIteration:
                    return f"250 {len(content)} octets, {'waited' if waits else 'at once'}"

        async def test(self: AsyncioTests) -> None:
            client = await self.begin(hooks(handle_DATA_STREAM=hook))
            await self.send(client, b"12345678\r\n")
            # Until the hook has timed out for certain, and waits again.
            await asyncio.sleep(0.05)
            said = await self.send(client, b"12345678\r\n" + END)
            self.assertEqual(said, b"250 2.0.0 20 octets, waited\r\n")

        self.run_in_loop(test)

    def test_a_timeout_over_all_ends_it(self) -> None:
        async def read(stream: ContentStream) -> None:
            async for _ in stream:
                pass

        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            try:
                await asyncio.wait_for(read(stream), 0.001)
            except asyncio.TimeoutError:
                return "451 Took too long"
            return "250 OK"

        async def test(self: AsyncioTests) -> None:
            client = await self.begin(hooks(handle_DATA_STREAM=hook))
            await self.send(client, b"x\r\n")
            await asyncio.sleep(0.05)
            self.assertEqual(codes(await self.send(client, PIECES + END)), [451])

        self.run_in_loop(test)

    def test_a_thread_may_do_the_writing(self) -> None:
        written: list[bytes] = []

        async def hook(server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
            async for chunk in stream:
                await asyncio.to_thread(written.append, chunk)
            return "250 OK"

        async def test(self: AsyncioTests) -> None:
            client = await self.begin(hooks(handle_DATA_STREAM=hook))
            client.send(b"x\r\n" + END)
            said = b""
            while not said:
                await asyncio.sleep(0.001)
                said = client.read()
            self.assertEqual((codes(said), written), ([250], [b"x\r\n"]))

        self.run_in_loop(test)
