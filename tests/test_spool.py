"""``spooled``: a message that comes as a stream, as a file."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from tests.support.fakes import ENVELOPE, Client, Promises, codes, connect
from tests.support.streaming import END, PIECE, PIECES, StreamTestCase, both
from twisted_smtpd import spool
from twisted_smtpd.spool import spooled
from twisted_smtpd.stream import ContentStream, StreamEnd, StreamInterrupted


class Spooling:
    """Reads each message from a file."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.contents: list[bytes] = []
        self.errors: list[BaseException] = []
        self.ends: list[StreamEnd | None] = []
        self.files: list[Any] = []

    async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
        try:
            async with spooled(stream, **self.options) as file:
                self.files.append(file)
                self.contents.append(file.read())
                file.seek(2)
                return f"250 OK {file.read(3).decode()}"
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.ends.append(stream.end)


class Waiting:
    """Reads nothing, and notes the end of the stream before and after it is cancelled."""

    def __init__(self) -> None:
        self.ends: list[StreamEnd | None] = []

    async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: ContentStream) -> str:
        self.ends.append(stream.end)
        try:
            return str(await Promises()())
        finally:
            self.ends.append(stream.end)


class SpoolTests(StreamTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.written: list[int] = []
        self.patch(spool, "in_thread", self.run_at_once)

    def run_at_once(self, function: Any, *arguments: Any) -> Deferred[Any]:
        self.written.append(len(arguments[0]) if arguments and isinstance(arguments[0], bytes) else 0)
        return maybeDeferred(function, *arguments)

    @both
    async def test_a_small_message_stays_in_memory(self) -> None:
        handler = Spooling()
        client = await self.begin(handler)
        self.assertEqual(await self.send(client, b"hello\r\n..\r\n" + END), b"250 2.0.0 OK llo\r\n")
        self.assertEqual((handler.contents, self.written), ([b"hello\r\n.\r\n"], []))
        self.assertEqual(handler.ends, [StreamEnd.WHOLE])

    @both
    async def test_a_large_one_goes_to_a_file_in_a_thread(self) -> None:
        self.written.clear()
        handler = Spooling(max_memory=len(PIECE), folder=self.mktemp_folder())
        client = await self.begin(handler)
        await self.send(client, PIECE)
        self.assertEqual(self.written, [])
        await self.send(client, PIECES)
        self.assertEqual(codes(await self.send(client, PIECES + END)), [250])
        self.assertEqual(handler.contents, [PIECE + 2 * PIECES])
        self.assertGreater(sum(self.written), 2 * len(PIECES) - 10)
        self.assertTrue(handler.files[0].closed)
        # It has no name: nothing has to be removed, whatever happens.
        self.assertEqual(os.listdir(handler.options["folder"]), [])

    @both
    async def test_a_file_in_any_case(self) -> None:
        self.written.clear()
        handler = Spooling(max_memory=0)
        client = await self.begin(handler)
        self.assertEqual(codes(await self.send(client, b"hello\r\n" + END)), [250])
        self.assertEqual(handler.contents, [b"hello\r\n"])
        self.assertEqual(sum(self.written), len(b"hello\r\n"))

    @both
    async def test_chunks_give_one_file(self) -> None:
        handler = Spooling(max_memory=4)
        client = connect(handler, clock=self.clock)
        self.clients.append(client)
        await self.send(client, ENVELOPE)
        said = await self.send(client, b"BDAT 3\r\nabcBDAT 3\r\ndefBDAT 2 LAST\r\n\r\n")
        self.assertEqual((codes(said), handler.contents), ([250] * 3, [b"abcdef\r\n"]))

    @both
    async def test_a_message_that_is_not_whole_leaves_nothing(self) -> None:
        for cut_off, end in ((self.lose, StreamEnd.LOST), (self.overrun, StreamEnd.REFUSED)):
            handler = Spooling(max_memory=1)
            client = await self.begin(handler, data_size_limit=len(PIECES))
            await self.send(client, PIECE)
            await cut_off(client)
            self.assertEqual((handler.files, handler.ends, len(handler.errors)), ([], [end], 1))

    async def overrun(self, client: Client) -> None:
        self.assertEqual(codes(await self.send(client, PIECES + END)), [552])

    @both
    async def test_a_client_that_goes_while_the_disk_is_busy(self) -> None:
        promises = Promises()
        self.patch(spool, "in_thread", promises)
        handler = Spooling(max_memory=1)
        client = await self.begin(handler)
        await self.send(client, PIECE)
        await self.lose(client)
        # The thread that makes the file is not waited for.
        self.assertEqual((promises.cancelled, handler.ends), (promises.made[:1], [StreamEnd.LOST]))

    @both
    async def test_a_full_disk_is_452(self) -> None:
        def full(*arguments: Any) -> Any:
            return maybeDeferred(self.fail_with, OSError(errno.ENOSPC, "No space left on device"))

        self.patch(spool, "in_thread", full)
        client = await self.begin(Spooling(max_memory=1))
        said = await self.send(client, PIECES + END)
        self.assertEqual(codes(said), [452])

    def fail_with(self, error: Exception) -> None:
        raise error

    def mktemp_folder(self) -> str:
        folder = self.mktemp()
        os.mkdir(folder)
        return folder


class EndTests(StreamTestCase):
    """Why a stream has ended, where the hook is cancelled and where it hears an exception."""

    async def open(self, handler: Any, **options: Any) -> Client:
        client = connect(handler, clock=self.clock, **options)
        self.clients.append(client)
        await self.send(client, ENVELOPE)
        return client

    @both
    async def test_the_exception_says_it(self) -> None:
        for ending, end in (
            (b"RSET\r\n", StreamEnd.ABANDONED),
            (b"EHLO again.example\r\n", StreamEnd.ABANDONED),
            (b"QUIT\r\n", StreamEnd.LOST),
            (None, StreamEnd.LOST),
        ):
            handler = Spooling()
            client = await self.open(handler)
            await self.send(client, b"BDAT 3\r\nabc")
            if ending is not None:
                await self.send(client, ending)
            if end is StreamEnd.LOST:
                await self.lose(client)
            (error,) = handler.errors
            assert isinstance(error, StreamInterrupted)
            self.assertEqual((error.end, str(error), handler.ends), (end, end.value, [end]), ending)

    @both
    async def test_a_hook_that_is_cancelled_finds_it_at_the_stream(self) -> None:
        for lost, end in ((True, StreamEnd.LOST), (False, StreamEnd.OVERDUE)):
            handler = Waiting()
            client = await self.begin(handler, hook_timeout=5)
            if lost:
                await self.lose(client)
            else:
                await self.fill(client)
                await self.advance(6)
            self.assertEqual(handler.ends, [None, end])

    def test_an_interruption_without_a_reason(self) -> None:
        self.assertIs(StreamInterrupted().end, StreamEnd.LOST)
