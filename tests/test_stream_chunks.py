"""``handle_DATA_STREAM`` for a message that comes with BDAT: one stream over all chunks."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.protocol.test_chunking import chunks
from tests.support.content_model import cut
from tests.support.fakes import ENVELOPE, Client, Promises, answering, codes, connect, hooks
from tests.support.streaming import PIECES, Reader, StreamTestCase, both
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP, SMTPReplyError
from twisted_smtpd.stream import HIGH_WATER, StreamInterrupted


class ChunksTests(StreamTestCase):
    async def open(self, handler: Any, protocol: type[SMTP] = SMTP, recipients: int = 1, **options: Any) -> Client:
        """A client whose message may begin."""
        client = connect(handler, protocol, clock=self.clock, **options)
        self.clients.append(client)
        await self.turn()
        client.read()
        greeting = ENVELOPE.replace(b"EHLO", b"LHLO") if protocol is LMTP else ENVELOPE
        said = await self.send(client, greeting + b"RCPT TO:<c@y.example>\r\n" * (recipients - 1))
        self.assertEqual(codes(said)[-1], 250)
        return client

    @both
    async def test_a_chunk_is_read_before_the_next_one_comes(self) -> None:
        reader = Reader()
        client = await self.open(reader)
        self.assertEqual(codes(await self.send(client, b"BDAT 5\r\nhello")), [250])
        self.assertEqual((reader.content, reader.ends), (b"hello", 0))
        self.assertEqual(codes(await self.send(client, b"NOOP\r\nBDAT 3\r\n wo")), [250, 250])
        self.assertEqual((reader.content, reader.ends), (b"hello wo", 0))
        self.assertEqual(await self.send(client, b"BDAT 4 LAST\r\nrld\n"), b"250 2.0.0 OK\r\n")
        self.assertEqual((reader.content, reader.ends, reader.errors), (b"hello world\r\n", 1, []))

    @both
    async def test_what_was_held_back_comes_with_the_last_chunk(self) -> None:
        reader = Reader()
        client = await self.open(reader)
        await self.send(client, b"BDAT 2\r\na\r")
        self.assertEqual(reader.content, b"a")
        await self.send(client, b"BDAT 0 LAST\r\n")
        self.assertEqual((reader.content, reader.ends), (b"a ", 1))

    @both
    async def test_the_hook_answers_after_the_last_chunk(self) -> None:
        promises = Promises()
        client = await self.open(Reader(last=promises))
        self.assertEqual(codes(await self.send(client, b"BDAT 1\r\nxBDAT 1 LAST\r\nyNOOP\r\n")), [250])
        promises.made[0].callback(None)
        await self.turn()
        self.assertEqual(codes(client.read()), [250, 250])

    @both
    async def test_sizes(self) -> None:
        seen: list[Any] = []

        async def hook(server: Any, session: Any, envelope: Any, stream: Any) -> str:
            seen.append(stream.declared_size)
            async for _ in stream:
                seen.append(stream.size)
            return "250 OK"

        client = await self.open(hooks(handle_DATA_STREAM=hook))
        await self.send(client, b"BDAT 2\r\nabBDAT 1 LAST\r\nc")
        self.assertEqual(seen, [None, 2, 3])
        seen.clear()
        await self.send(client, ENVELOPE.replace(b">\r\nRCPT", b"> SIZE=70\r\nRCPT") + b"BDAT 1\r\naBDAT 0 LAST\r\n")
        self.assertEqual(seen, [70, 1])
        seen.clear()
        await self.send(client, ENVELOPE.replace(b">\r\nRCPT", b"> SIZE=70\r\nRCPT") + b"BDAT 4 LAST\r\nabcd")
        self.assertEqual(seen, [4, 4])

    @both
    async def test_rset_ends_the_hook_before_the_next_message(self) -> None:
        promises = Promises()
        reader = Reader(last=promises)
        client = await self.open(reader)
        await self.send(client, b"BDAT 1\r\nx")
        self.assertEqual(await self.send(client, b"RSET\r\n" + ENVELOPE), b"")
        self.assertIsInstance(reader.errors[0], StreamInterrupted)
        promises.made[0].callback(None)
        await self.turn()
        self.assertEqual(codes(client.read())[-3:], [250, 250, 250])
        self.assertEqual(reader.ends, 1)

    @both
    async def test_ehlo_ends_the_hook_too(self) -> None:
        reader = Reader()
        client = await self.open(reader)
        await self.send(client, b"BDAT 1\r\nx")
        self.assertEqual(codes(await self.send(client, b"EHLO again.example\r\n")), [250])
        self.assertIsInstance(reader.errors[0], StreamInterrupted)

    @both
    async def test_the_client_goes_between_chunks_or_in_one(self) -> None:
        for sent in (b"BDAT 1\r\nx", b"BDAT 2\r\nx", b"BDAT 2 LAST\r\nx"):
            reader = Reader()
            client = await self.open(reader)
            await self.send(client, sent)
            await self.lose(client)
            self.assertEqual((reader.content, reader.ends), (b"x", 1), sent)
            self.assertIsInstance(reader.errors[0], StreamInterrupted)

    @both
    async def test_a_hook_that_is_at_something_else_is_cancelled_when_the_client_goes(self) -> None:
        promises = Promises()
        client = await self.open(Reader(each=promises))
        await self.send(client, b"BDAT 1\r\nx")
        await self.lose(client)
        self.assertEqual(promises.cancelled, promises.made)

    @both
    async def test_a_message_that_is_too_large(self) -> None:
        reader = Reader()
        client = await self.open(reader, data_size_limit=5)
        self.assertEqual(codes(await self.send(client, b"BDAT 3\r\nabcBDAT 3\r\ndef")), [250, 552])
        self.assertIsInstance(reader.errors[0], SMTPReplyError)
        self.assertEqual(codes(await self.send(client, b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n")), [552, 552])
        self.assertEqual(codes(await self.send(client, ENVELOPE + b"BDAT 1 LAST\r\nz"))[-1], 250)

    @both
    async def test_a_hook_that_says_no_early_is_heard_at_once(self) -> None:
        client = await self.open(hooks(handle_DATA_STREAM=answering("552 5.2.2 Mailbox full")))
        full = b"552 5.2.2 Mailbox full\r\n"
        await self.send(client, b"BDAT 5\r\nhello")
        self.assertEqual(await self.send(client, b"BDAT 6\r\nQUIT\r\n"), full)
        self.assertEqual(await self.send(client, b"BDAT 6 LAST\r\nQUIT\r\n"), full)
        self.assertEqual(codes(await self.send(client, b"NOOP\r\n")), [250])

    @both
    async def test_so_is_one_that_raises_its_no(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: Any) -> str:
            async for _ in stream:
                raise SMTPReplyError(554, "5.7.1", "Spam")
            return "250 OK"

        client = await self.open(hooks(handle_DATA_STREAM=hook))
        await self.send(client, b"BDAT 5\r\nhello")
        self.assertEqual(await self.send(client, b"BDAT 5\r\nworld"), b"554 5.7.1 Spam\r\n")
        self.assertEqual(await self.send(client, b"BDAT 0 LAST\r\n"), b"554 5.7.1 Spam\r\n")

    @both
    async def test_an_early_yes_waits_for_the_last_chunk(self) -> None:
        client = await self.open(hooks(handle_DATA_STREAM=answering("250 2.6.0 Got it")))
        self.assertEqual(await self.send(client, b"BDAT 5\r\nhello"), b"250 2.0.0 Chunk received\r\n")
        self.assertEqual(await self.send(client, b"BDAT 5 LAST\r\nworld"), b"250 2.6.0 Got it\r\n")

    @both
    async def test_a_hook_that_fails_early(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: Any) -> str:
            raise KeyError("x")

        client = await self.open(hooks(handle_DATA_STREAM=hook))
        self.assertEqual(codes(await self.send(client, b"BDAT 1\r\na")), [250])
        self.assertEqual(codes(await self.send(client, b"BDAT 1 LAST\r\nb")), [451])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    @both
    async def test_a_hook_that_pushes_its_reply(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: Any) -> None:
            async for _ in stream:
                pass
            await server.push("250 2.6.0 Pushed")

        client = await self.open(hooks(handle_DATA_STREAM=hook))
        said = await self.send(client, b"BDAT 1\r\naNOOP\r\nBDAT 1 LAST\r\nbNOOP\r\n")
        self.assertEqual(codes(said), [250, 250, 250, 250])
        self.assertEqual(said.count(b"Pushed"), 1)

    @both
    async def test_lmtp_replies_to_each_recipient(self) -> None:
        class Sorting:
            async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: Any) -> list[str]:
                async for _ in stream:
                    pass
                return ["250 2.1.5 one", "452 4.2.2 two", "550 5.1.1 three"]

        client = await self.open(Sorting(), LMTP, recipients=3)
        self.assertEqual(codes(await self.send(client, b"BDAT 1\r\naNOOP\r\n")), [250, 250])
        self.assertEqual(codes(await self.send(client, b"BDAT 1 LAST\r\nb")), [250, 452, 550])

    @both
    async def test_lmtp_an_early_no_is_said_for_each_after_the_last_chunk(self) -> None:
        client = await self.open(hooks(handle_DATA_STREAM=answering("554 5.7.1 Spam")), LMTP, recipients=2)
        self.assertEqual(codes(await self.send(client, b"BDAT 1\r\na")), [554])
        self.assertEqual(codes(await self.send(client, b"BDAT 1 LAST\r\nb")), [554, 554])

    @both
    async def test_a_client_that_sends_many_chunks_has_to_wait_for_the_hook(self) -> None:
        """The flow control holds between two chunks as within one."""
        promises = Promises()
        client = await self.open(Reader(each=promises), data_size_limit=0)
        sent = 0
        piece = b"BDAT 65000\r\n" + PIECES
        while client.transport.producerState == "producing":
            self.assertLess(sent, 2**22, "the client never had to wait")
            client.protocol.dataReceived(piece)
            sent += len(piece)
        held = client.protocol._body.chunked
        assert held is not None and held.stream is not None
        self.assertLess(held.stream._backlog, HIGH_WATER + 2**17)
        # The hook reads on, and then so does the server.
        while promises.made:
            promises.made.pop(0).callback(None)
            await self.turn()
        for _ in range(20):
            await self.turn()
            while promises.made:
                promises.made.pop(0).callback(None)
        self.assertEqual(client.transport.producerState, "producing")
        said = await self.send(client, b"BDAT 0 LAST\r\n")
        for _ in range(20):
            await self.turn()
            while promises.made:
                promises.made.pop(0).callback(None)
        self.assertEqual(set(codes(said + client.read())), {250})

    @both
    async def test_a_hook_that_does_not_read_is_cut_off(self) -> None:
        client = await self.open(Reader(each=lambda: Deferred()), hook_timeout=30, timeout=300, data_size_limit=0)
        while client.transport.producerState == "producing":
            client.protocol.dataReceived(b"BDAT 65000\r\n" + PIECES)
        for _ in range(40):
            await self.advance(1)
        await self.send(client, b"BDAT 0 LAST\r\n")
        self.assertEqual(codes(client.read() or b"451 x\r\n")[-1], 451)

    @both
    async def test_a_hook_that_does_not_answer_rset(self) -> None:
        async def hook(server: Any, session: Any, envelope: Any, stream: Any) -> str:
            try:
                async for _ in stream:
                    pass
            except StreamInterrupted:
                await Deferred()
            return "250 OK"

        client = await self.open(hooks(handle_DATA_STREAM=hook), hook_timeout=30)
        await self.send(client, b"BDAT 1\r\nx")
        self.assertEqual(await self.send(client, b"RSET\r\n"), b"")
        for _ in range(32):
            await self.advance(1)
        self.assertEqual(codes(client.read()), [250])

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r\n", b".", b"\n", b"\r", b"a", b"QUIT\r\n", b"b" * 50]), max_size=20).map(
            b"".join
        ),
        st.lists(st.integers(0, 200), max_size=6),
        st.lists(st.integers(0, 400), max_size=10),
    )
    def test_any_chunking_and_any_reads(self, body: bytes, places: list[int], reads: list[int]) -> None:
        whole, reader = Reader(), Reader()
        expected = connect(whole).send(ENVELOPE + b"BDAT %d LAST\r\n%b" % (len(body), body))
        client = connect(reader)
        pieces = cut(body, places)
        for read in cut(ENVELOPE + chunks(pieces), reads):
            client.protocol.dataReceived(read)
        self.assertEqual((reader.content, reader.ends), (whole.content, 1))
        self.assertEqual(len(codes(client.read())), len(codes(expected)) + len(pieces) - 1)

    @both
    async def test_asyncio_in_the_hook(self) -> None:
        class Slow(Reader):
            async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: Any) -> str:
                if session.loop is not None:
                    await asyncio.sleep(0)
                return await super().handle_DATA_STREAM(server, session, envelope, stream)

        reader = Slow()
        client = await self.open(reader)
        said = await self.send(client, b"BDAT 1\r\naBDAT 1 LAST\r\nb")
        for _ in range(5):
            await self.turn()
        self.assertEqual(codes(said + client.read()), [250, 250])
        self.assertEqual(reader.content, b"ab")
