"""The message that is being received: to memory, or on to a hook that reads while it comes (RFC 5321 section 4.1.1.4).

A message in transfer and a command in progress are two things: the message needs no command to wait for it, and it may
last longer than one command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from twisted_smtpd.stream import ContentStream, StreamEnd, StreamInterrupted
from twisted_smtpd.wire.content import ChunkReader, ContentReader
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from twisted_smtpd.protocol.running import CommandRunner
    from twisted_smtpd.protocol.view import ConnectionView

__all__ = ["Body", "ChunkedMessage"]

# Octets that are read at a time: of commands, and of a message, where each read has a fixed cost.  For 128 KiB and
# more, C libraries would ask the system for the memory at each read.
COMMANDS_AT_ONCE = 2**16
CONTENT_AT_ONCE = 120 * 2**10
#: Only messages with more octets count for their address: all smaller ones that it can have at once are not much.
LARGE = 2**16
# What a large message takes while a handler has it: its content, decoded or parsed, and made ready to be sent on.
COPIES = 3
# While more than half of the memory is taken, a message has to grow in each window by this part of itself.  At an even
# rate it does for an hour; a client that has sent much and then drips doesn't, and would hold memory for as long.
GROWTH = 1 / 60

#: What is run when the whole message has arrived.
Then = Callable[[ContentReader], Coroutine[Any, Any, None]]


class ChunkedMessage:
    """A message that comes in chunks (RFC 3030), from its first BDAT to its last.

    :param reader: collects the content of all chunks.
    :param failed: hears of the failure of a hook whose message will not be whole.
    :ivar stream: gets the content, if a hook reads it while it comes; or ``None``.
    :ivar hook: what that hook comes to, or ``None``.
    :ivar refusal: what the client has heard of it, if it is refused; further chunks hear the same.
    :ivar whole: whether the last chunk has been read.
    """

    __slots__ = ("_failed", "hook", "reader", "refusal", "stream", "whole")

    def __init__(self, reader: ChunkReader, failed: Callable[[Failure], object]) -> None:
        self.reader = reader
        self._failed = failed
        self.stream: ContentStream | None = None
        self.hook: Deferred[Any] | None = None
        self.refusal: Reply | None = None
        self.whole = False

    def interrupt(self, end: StreamEnd) -> None:
        """The message will not be whole: end the hook that reads it.

        :param end: why; the hook is told.
        """
        if self.hook is not None and self.stream is not None and not self.whole:
            self.stream.give_up(StreamInterrupted(end))
            self.hook.addErrback(self._failed)


class Body:
    """What has arrived of a message, and the memory that it takes.

    Awaiting it waits for the end of the message and for its verdict.

    :param connection: the connection.
    :param runner: runs what comes after the message.
    :ivar reader: finds the end, or ``None`` between two messages.
    :ivar stream: gets the message as it comes, or ``None``.
    :ivar chunked: the message that comes with BDAT, from its first chunk to the reply to its last; or ``None``.
    :ivar unread: octets of a chunk that is announced and that nothing reads yet.
    :ivar out_of_memory: whether the message was thrown away because the server held too much.
    :ivar octets: how much has arrived since the connection was made.
    :ivar full_since: since when a hook has not kept up with its stream, or ``None``.
    :ivar rate_mark: when ``min_data_rate`` was last looked at, and how much had arrived by then.
    """

    __slots__ = (
        *("_connection", "_counted", "_refusal", "_runner", "_share", "_then", "chunked", "full_since", "octets"),
        *("out_of_memory", "rate_mark", "reader", "stream", "unread"),
    )

    def __init__(self, connection: ConnectionView, runner: CommandRunner) -> None:
        self._connection = connection
        self._runner = runner
        self._counted = 0
        self._share = 0
        self._refusal: Callable[[str], Exception] | None = None
        self._then: Then | None = None
        self.reader: ContentReader | None = None
        self.stream: ContentStream | None = None
        self.chunked: ChunkedMessage | None = None
        self.unread = 0
        self.out_of_memory = False
        self.octets = 0
        self.full_since: float | None = None
        self.rate_mark = (0.0, 0)

    def begin(self, reader: ContentReader, then: Then | None = None) -> None:
        """Feed what the client sends from now on to a reader, until the reader has seen the end.

        The memory it takes is counted for the whole server until :meth:`release`.

        :param reader: collects the content.
        :param then: gives what is run at the end; without it, the command in progress waits for the end.
        """
        self.reader = reader
        self._then = then
        # What measure_anew() does, without the call.
        self.rate_mark = (self._connection._active, self.octets)
        self._connection.transport.bufferSize = CONTENT_AT_ONCE

    async def read(self, reader: ContentReader) -> None:
        """Begin, and wait for the end."""
        self.begin(reader)
        await self._end()

    async def read_into(
        self, reader: ContentReader, stream: ContentStream, refusal: Callable[[str], Exception]
    ) -> None:
        """Begin, pass everything on as it comes, and wait for the end.

        :param stream: gets the content; the client has to wait while it is full.
        :param refusal: makes the exception that the hook gets for an error of the reader.
        """
        self.stream, self._refusal = stream, refusal
        await self.read(reader)

    # -- chunks --------------------------------------------------------------------------------------------------------

    def begin_chunks(self, message: ChunkedMessage, refusal: Callable[[str], Exception]) -> None:
        """Begin a message that comes in chunks.

        ``min_data_rate`` counts from now to its end, over all chunks and the time between them.

        :param message: the message.
        :param refusal: makes the exception that a hook which reads it gets for an error of the reader.
        """
        self.chunked, self.stream, self._refusal = message, message.stream, refusal
        self.measure_anew()

    async def read_chunk(self, reader: ChunkReader) -> None:
        """Read the chunk that is announced, and wait for its end.

        :param reader: collects it.
        """
        size, self.unread = self.unread, 0
        if size:
            reader.begin(size)
            self.reader = reader
            self._connection.transport.bufferSize = CONTENT_AT_ONCE
            await self._end()

    async def skip_chunk(self) -> None:
        """Read past a chunk that was announced, and that nothing has read; none of it may run as commands."""
        reader = self.chunked.reader if self.chunked is not None else ChunkReader()
        reader.discard()
        await self.read_chunk(reader)

    def finish_chunks(self, message: ChunkedMessage) -> None:
        """The last chunk is there: the message is whole."""
        message.whole = True
        message.reader.finish()
        # What the reader had held back counts, and goes to the hook, like all before it.
        self.reader = message.reader
        self.feed(b"")
        self.reader = None
        # The command goes on: what follows waits.
        self._connection._hold()

    async def abandon_chunks(self) -> None:
        """The message will not be whole: wait for the hook that reads it, so that the next one does not overtake it."""
        message = self.chunked
        if message is not None and message.hook is not None:
            message.interrupt(StreamEnd.ABANDONED)
            try:
                await message.hook
            except (Exception, asyncio.CancelledError):
                if self._connection._gone:
                    raise

    def forget_chunks(self, end: StreamEnd = StreamEnd.ABANDONED) -> None:
        """The message that came in chunks is over.

        :param end: why, if it is not whole.
        """
        message, self.chunked, self.stream = self.chunked, None, None
        self.full_since = None
        if message is not None:
            message.interrupt(end)
            self.out_of_memory = False
            self.release()

    # -- octets --------------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        try:
            await self._runner.next_input()
        except BaseException:
            # The command gave up: the rest of the message must not run as commands.
            self.drop()
            self._connection.finish()
            raise

    def __await__(self) -> Generator[Any, Any, None]:
        return self._received().__await__()

    async def _received(self) -> None:
        then, self._then = self._then, None
        reader = self.reader
        assert then is not None and reader is not None
        await self._end()
        self._runner.keep(True)
        try:
            await then(reader)
        finally:
            self._runner.keep(False)

    def feed(self, data: bytes) -> bytes | None:
        """Take some content.

        This is part of the fast path: one call for each read.

        :returns: what follows the message, or ``None`` if its end is not there yet.
        """
        reader = self.reader
        assert reader is not None
        rest = reader.feed(data)
        self.octets += len(data)
        if self.stream is not None:
            self._feed_stream(self.stream, reader)
        elif reader.error is not None:
            self.release()
        elif not self.out_of_memory:
            size, connections = reader.size, self._connection.connections
            buffered = connections.buffered = connections.buffered + size - self._counted
            self._counted = size
            if buffered > self._connection.max_buffered > 0 or (size > LARGE and self._over_share(size)):
                self.out_of_memory = True
                reader.discard()
                self.release()
        return rest

    def _over_share(self, size: int) -> bool:
        """Count a large message for its address; whether that is more than the address may have."""
        connection = self._connection
        address, limit = connection._address, connection.max_buffered_per_address
        if address is None:
            return False
        held = connection.connections.memory.hold(address, size - self._share)
        self._share = size
        return held > (connection.max_buffered // 4 if limit is None else limit) > 0

    def count_copies(self) -> None:
        """The message is there, and a handler makes copies of it."""
        more = (COPIES - 1) * self._counted
        self._counted += more
        self._connection.connections.buffered += more
        self._over_share(self._counted)

    def _feed_stream(self, stream: ContentStream, reader: ContentReader) -> None:
        connection = self._connection
        connection.connections.hook_runs()
        if reader.error is not None:
            assert self._refusal is not None
            stream.fail(self._refusal(reader.error))
        else:
            stream.put(b"".join(reader.take()))
            if stream.full and self.full_since is None:
                self.full_since = connection._now()
        connection._release()

    def ended(self) -> None:
        """The reader has seen the end: run what comes after the message."""
        reader, then = self.reader, self._then
        assert reader is not None
        self.reader = self._then = None
        if self.chunked is None:
            self.stream = None
        connection = self._connection
        connection._heard = connection._active
        if connection._transcript is not None:
            chunk = reader.chunk if isinstance(reader, ChunkReader) else None
            connection._transcript.content(reader.size if chunk is None else chunk, chunk is not None)
        connection.transport.bufferSize = COMMANDS_AT_ONCE
        if then is None:
            self._runner.hand_over(None)
        else:
            # If the client goes now, the hook must go on: it may have stored half of the message.
            self._runner.start(then(reader), must_finish=True)

    def stream_drained(self) -> None:
        """A hook has taken what its stream held: the client may go on."""
        connection = self._connection
        connection._touch()
        self.full_since = None
        self.measure_anew()
        if not self._runner.at_work:
            connection._read_on()

    def stream_overdue(self) -> None:
        """A hook does not read its content: end it, and read past the rest."""
        self._runner.mark_timed_out()
        self.full_since = None
        assert self.stream is not None
        self.stream.give_up(StreamInterrupted(StreamEnd.OVERDUE))

    def measure_anew(self) -> None:
        """Have ``min_data_rate`` count from the time at which the client last did something."""
        self.rate_mark = (self._connection._active, self.octets)

    def check_rate(self) -> None:
        """Hang up on a client that sends its message too slowly."""
        connection = self._connection
        now = connection._now()
        since, octets = self.rate_mark
        needed = connection.min_data_rate * (now - since)
        if needed and connection.connections.buffered > connection.max_buffered / 2 > 0:
            needed = max(needed, self._counted * GROWTH)
        # What is not read for now can't be counted.
        if not connection.paused and self.octets - octets < needed:
            connection.hang_up("421 4.4.2 Too slow, closing the connection")
        self.rate_mark = now, self.octets

    def take_out_of_memory(self) -> bool:
        """Whether the message was thrown away for lack of memory; then forget it."""
        out_of_memory, self.out_of_memory = self.out_of_memory, False
        return out_of_memory

    def release(self) -> None:
        """The content that was read is no longer kept."""
        self._connection.connections.buffered -= self._counted
        self._counted = 0
        if self._share:
            self._over_share(0)

    def retire(self) -> None:
        """No message comes any more: let go of the connection."""
        del self._connection

    def drop(self) -> None:
        """Receive nothing more of this message."""
        if self.reader is not None:
            self.reader = self.stream = self._then = None
            self.release()
        if self.chunked is not None and not self.chunked.whole:
            self.forget_chunks(StreamEnd.LOST)
