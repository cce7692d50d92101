"""How a message's content comes in: to a reader, which keeps it, or on to a hook that reads while it comes."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted_smtpd.assemble import Settings
from twisted_smtpd.protocol.timeouts import Deadlines
from twisted_smtpd.runtime.awaiting import InputWait
from twisted_smtpd.stream import ContentStream
from twisted_smtpd.wire.content import ContentReader

__all__ = ["Intake"]

# How much is read at a time: of commands, and of a message, of which each read costs the same.  From 128 KiB on, C
# libraries ask the system for the memory, each time.
COMMANDS_AT_ONCE = 2**16
CONTENT_AT_ONCE = 120 * 2**10


class Intake(Deadlines):
    """Takes in a message's content and counts what it occupies; when there is content to take, the dialog says.

    :ivar _counted: octets of this connection's message in ``connections.buffered``.
    :ivar _out_of_memory: whether the message was thrown away because the server held too much.
    """

    __slots__ = ("_counted", "_out_of_memory")

    max_buffered: int

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._counted = 0
        self._out_of_memory = False

    def content_received(self, reader: ContentReader) -> Coroutine[Any, Any, None]:
        """What is run when a reader that was given to :meth:`begin_content` has seen the end."""
        raise NotImplementedError

    def content_error(self, error: str) -> Exception:
        """What a hook that reads a message hears of its violation, a reader's ``error``."""
        raise NotImplementedError

    def _input_awaited(self) -> None:
        """A command waits for input: read on."""
        raise NotImplementedError

    def _hand_over(self, value: Any) -> None:
        """Resume the command that waits for input with it."""
        raise NotImplementedError

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a command, or what is left of it."""
        raise NotImplementedError

    def _unpause(self) -> None:
        """Read on, unless there is a reason not to."""
        raise NotImplementedError

    def begin_content(self, reader: ContentReader, stream: ContentStream | None = None) -> None:
        """Feed what the client sends from now on to a reader, until the reader has seen the end.

        The memory it takes is counted for the whole server until :meth:`release_content`.

        :param reader: collects the content.
        :param stream: gets the content as it comes; the client has to wait while it is full.
        """
        self._stream = stream
        self._reader = reader
        self._rate_mark = (self._active, self._content_octets)
        self.transport.bufferSize = CONTENT_AT_ONCE  # type: ignore[union-attr]

    async def read_content(self, reader: ContentReader, stream: ContentStream | None = None) -> None:
        """Do what :meth:`begin_content` does, and wait for the end."""
        self.begin_content(reader, stream)
        self._input = InputWait(self._input_awaited)
        try:
            await self._input
        except BaseException:
            # The command gave up: the rest of the message must not run as commands.
            self._input = None
            self._drop_reader()
            self.paused = True
            self.finish()
            raise

    def rawDataReceived(self, data: bytes) -> None:
        """Some content, and what follows it."""
        reader = self._reader
        assert reader is not None
        rest = reader.feed(data)
        self._content_octets += len(data)
        if self._stream is not None:
            self.connections.hook_runs()
        if reader.error is not None:
            self.release_content()
            if self._stream is not None:
                self._stream.fail(self.content_error(reader.error))
                self._unpause()
        elif self._stream is not None:
            self._stream.put(b"".join(reader.take()))
            if self._stream.full and self._full_since is None:
                self._full_since = self._now()
            self._unpause()
        elif not self._out_of_memory:
            size, connections = reader.size, self.connections
            buffered = connections.buffered = connections.buffered + size - self._counted
            self._counted = size
            if buffered > self.max_buffered > 0:
                self._out_of_memory = True
                reader.discard()
                self.release_content()
        if rest is not None:
            self._reader = self._stream = None
            self._buffer = rest
            self.transport.bufferSize = COMMANDS_AT_ONCE  # type: ignore[union-attr]
            if self._input is not None:
                self._hand_over(None)
            else:
                self._start(self.content_received(reader))

    def stream_drained(self) -> None:
        """A hook has taken what its stream held: the client may go on."""
        self._active = self._now()
        self._full_since = None
        self._rate_mark = (self._active, self._content_octets)
        if self._input is not None:
            self._input_awaited()

    def release_content(self) -> None:
        """The content that was read is no longer kept."""
        self.connections.buffered -= self._counted
        self._counted = 0

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader = self._stream = None
            self.release_content()
