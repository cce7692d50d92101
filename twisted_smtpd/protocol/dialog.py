"""The machine under the commands: lines in, one command at a time, replies out, and what may go wrong with them."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.assemble import Settings
from twisted_smtpd.protocol.body import Intake
from twisted_smtpd.protocol.connection import CLOSED, FINISHING, STOPPING
from twisted_smtpd.protocol.timeouts import CLOSING_TIME
from twisted_smtpd.runtime.awaiting import InputWait, NeedsAsyncioReactor
from twisted_smtpd.runtime.batches import joined
from twisted_smtpd.runtime.connections import ICounted, limited_address
from twisted_smtpd.runtime.output import Output
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["Dialog"]

log = Logger()

T = TypeVar("T")

# What a client may send ahead while its command is being worked on; beyond, TCP makes it wait.
MAX_SENT_AHEAD = 2**16

# As an octet: bytes are searched for a number in a fifth of the time that they are searched for bytes.
LF = ord("\n")

CANCELLED = (CancelledError, asyncio.CancelledError)

TOOK_TOO_LONG = Reply(451, "4.3.0", ("Processing took too long, try again later",))
LINE_TOO_LONG = Reply(500, "5.5.2", ("Line too long",))
BARE_LINE_FEED = Reply(500, "5.5.2", ("Lines end with CR LF, not with LF alone",))


@implementer(IHalfCloseableProtocol, ICounted)
class Dialog(Intake):
    """One connection: reads commands, runs one at a time, sends the replies in order.

    A subclass says what a command line means (:meth:`command`), what the dialog opens with (:meth:`opening`), and what
    a defect answers (:meth:`failure_status`).

    :param settings: what this connection shares with others.
    :ivar connections: the server's connections; a factory sets its own before the connection is made.
    """

    __slots__ = (
        *("_address", "_context", "_input_stopped", "_inside", "_keep_when_gone", "_line_limit"),
        *("_peer_address", "_peer_finished", "_running", "_skipping_line", "loop"),
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._skipping_line = False
        self._line_limit = 0
        self._running: Coroutine[Any, Any, Any] | None = None
        self._keep_when_gone = False
        self._inside = False
        self._address: str | None = None
        self._input_stopped = False
        self._peer_finished = False

    # -- for the subclass ----------------------------------------------------------------------------------------------

    def opening(self) -> Coroutine[Any, Any, None]:
        """What is run when the connection stands: the greeting."""
        raise NotImplementedError

    def command(self, line: bytes) -> Coroutine[Any, Any, None] | None:
        """Carry out a command line.

        :returns: a coroutine that does, or does what is left; ``None`` if it is done.
        :raises SMTPReplyError: if it isn't one.
        """
        raise NotImplementedError

    def failure_status(self, error: BaseException) -> Coroutine[Any, Any, Any]:
        """The status for a command that failed with this."""
        raise NotImplementedError

    def peer_gone(self, reason: Failure) -> Coroutine[Any, Any, None] | None:
        """What is run when the connection has ended."""
        return None

    # -- connection ----------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self._context: Context = copy_context()
        transport: Any = self.transport
        # The public function raises where there is none, which costs ten times as much.
        self.loop: asyncio.AbstractEventLoop | None = _get_running_loop()
        timers = self.connections.timers
        self._now = timers.clock.seconds
        batches = self.connections.batches = joined(transport, self.connections.batches)
        self._output = Output(transport, self._now, self._output_blocked, self._output_free, batches)
        self._active = self._connected_at = self._now()
        # Asked for once: a transport makes a new object each time.
        self._peer_address: Any = transport.getPeer()
        self._address = self.counted_address()
        refusal = self.connections.admit(self, self._address, self._settings.values)
        timers.add(self, min(CLOSING_TIME, self._settings.shortest_limit))
        if refusal is None:
            self._open()
        else:
            self.turn_away(refusal)

    def counted_address(self) -> str | None:
        """The address that the limits per address count this connection for, or ``None`` for none."""
        return limited_address(getattr(self._peer_address, "host", ""))

    def turn_away(self, status: str) -> None:
        """Refuse a client before its greeting, and close.

        :param status: what to say; ``{hostname}`` stands for the server's name.
        """
        self._verb = ""
        self.send_reply(status.format(hostname=self._settings.values["hostname"]))
        self.close()

    def _open(self) -> None:
        self._start(self.opening())
        self._advance()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self._ending = CLOSED
        self._out = b""
        self._buffer, self._offset = b"", 0
        self._abandon()
        if not self._keep_when_gone or self._running is None or self.connections.grace_over:
            # Else it counts until its hook is done, or clients that hang up after DATA would escape all limits.
            self.leave()
        farewell = self.peer_gone(reason)
        if farewell is not None:
            self._start_farewell(farewell)

    def _abandon(self) -> None:
        """The client is gone: end what is under way, save a hook that has the whole message."""
        self._output.stop()
        self._drop_reader()
        if self._pending is not None:
            self._cancel_pending()
        elif self._input is not None and self._running is not None:
            running, self._running = self._running, None
            try:
                self._enter(CoroutineType.close, running)
            except Exception:
                log.failure("a command failed when its client had gone")
        self._input = None

    def _cancel_pending(self) -> None:
        if not self._keep_when_gone:
            self._cancel_hook()

    def leave(self) -> None:
        self.connections.timers.remove(self)
        self.connections.dismiss(self, self._address)

    def abort(self) -> None:
        if self._gone:
            self.leave()
        else:
            super().abort()

    def readConnectionLost(self) -> None:
        """The client has shut down its side: answer what has arrived, then close."""
        self._peer_finished = True
        if not self.paused:
            self._advance()

    def writeConnectionLost(self) -> None:
        """We never shut down one side only."""

    # -- what arrives --------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        now = self._now
        self._active = now()
        if self._buffer:
            data = self._buffer[self._offset :] + data
        self._buffer, self._offset = data, 0
        if not self.paused:
            self._advance()
        if not self._buffer:
            return
        if len(self._buffer) - self._offset > MAX_SENT_AHEAD and not self._input_stopped and not self._gone:
            self._input_stopped = True
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def _advance(self) -> None:
        """Work through what has arrived, as far as it goes."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self.paused:
                if self._ending and self._ended():
                    break
                buffer, start = self._buffer, self._offset
                if not buffer:
                    break
                if self._reader is not None:
                    self._buffer, self._offset = b"", 0
                    self.rawDataReceived(buffer[start:])
                    continue
                end = buffer.find(b"\r\n", start)
                if end < 0:
                    self._part_of_line()
                    break
                if end + 2 < len(buffer):
                    self._offset = end + 2
                else:
                    # An empty buffer is one that is false.
                    self._buffer, self._offset = b"", 0
                if self._skipping_line:
                    self._skipping_line = False
                else:
                    self.lineReceived(buffer[start:end])
        finally:
            self._advancing = False
        if self._out:
            # What _flush does, without the call.
            data, self._out = self._out, b""
            self._output.write(data)
        if self._input_stopped and len(self._buffer) - self._offset <= MAX_SENT_AHEAD and not self.paused:
            self._input_stopped = False
            if self._ending != CLOSED:
                self.transport.resumeProducing()  # type: ignore[union-attr]
        if self._peer_finished and not self.paused:
            self.close()

    def _ended(self) -> bool:
        """End the connection if that is due; whether it has ended."""
        if self._ending == FINISHING:
            self.close()
        elif self._ending == CLOSED:
            return True
        elif self._running is not None or self._reader is not None:
            return False
        elif self._ending == STOPPING:
            self.shut_down()
        else:
            self._open_too_long()
        return True

    def _part_of_line(self) -> None:
        """Judge a line whose end has not arrived: it must not grow without bound, nor hang on a line feed."""
        part = self._buffer[self._offset :]
        if not self._skipping_line:
            reply = self._unfit_line(part[:-1] if part.endswith(b"\r") else part)
            if reply is None:
                return
            self._skipping_line = True
            self._refuse_line(reply)
        # The CR may belong to the CRLF that ends the line.
        self._buffer, self._offset = (b"\r" if part.endswith(b"\r") else b""), 0

    def _unfit_line(self, line: bytes) -> Reply | None:
        # A command's limit counts the CRLF, which isn't here.
        limit = self._line_limit or self._settings.longest_command - 2
        if LF in line[:limit]:
            return BARE_LINE_FEED
        return LINE_TOO_LONG if len(line) > limit else None

    def _refuse_line(self, reply: Reply) -> None:
        if self._input is not None:
            self._hand_over(reply)
        else:
            self._verb = "?"
            self.refuse(reply)

    def lineReceived(self, line: bytes) -> None:
        """A line, without its CRLF: a command, or what a command waits for."""
        if LF in line or len(line) + 2 > self._settings.longest_command or self._input is not None:
            reply = self._unfit_line(line)
            if reply is not None:
                self._refuse_line(reply)
            else:
                self._hand_over(line)
            return
        try:
            coroutine = self.command(line)
        except Exception as error:
            self._failed(error)
        else:
            if coroutine is not None:
                self._start(coroutine)

    async def read_line(self, limit: int) -> bytes:
        """The client's next line, without its CRLF.

        :param limit: octets it may have.
        :raises SMTPReplyError: if it has more, or is none.
        """
        self._line_limit = limit
        self._input = InputWait(self._input_awaited)
        try:
            line = await self._input
        except BaseException:
            # The command gave up, by a timeout of its own say: the next line is a command again, once this one is done.
            self._input, self._line_limit = None, 0
            self.paused = True
            raise
        if isinstance(line, Reply):
            raise SMTPReplyError(line.code, line.enhanced, line.lines[0])
        return line  # type: ignore[no-any-return]

    def _hand_over(self, value: Any) -> None:
        wait, self._input, self._line_limit = self._input, None, 0
        assert wait is not None
        self.paused = True
        self._pending_since = self._active
        wait.resume(value)

    def _input_awaited(self) -> None:
        """A command waits for input: read on, though it isn't done."""
        self._unpause()
        if not self.paused and not self._advancing:
            self._advance()

    def _unpause(self) -> None:
        """Read on, unless the client doesn't read, or a hook doesn't keep up with its content."""
        self.paused = self._output.blocked_since is not None or (self._stream is not None and self._stream.full)

    # -- running a command ---------------------------------------------------------------------------------------------

    def _enter(self, function: Callable[[Any], T], argument: Any) -> T:
        """Run in this connection's context: what a hook sets in a context variable holds for the connection."""
        if self._inside:
            return function(argument)
        self._inside = True
        try:
            return self._context.run(function, argument)
        finally:
            self._inside = False

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._running = coroutine
        self._pending_since = self._active
        self._cancelled = False
        self._step(coroutine, None)

    def _step(self, coroutine: Coroutine[Any, Any, Any], value: Any) -> None:
        """Run a command until it is done, or waits."""
        self.paused = True
        self.connections.hook_runs()
        try:
            if value is not None and isinstance(value, Failure):
                awaited = self._enter(value.throwExceptionIntoGenerator, coroutine)
            else:
                awaited = self._enter(coroutine.send, value)
            while not isinstance(awaited, (Deferred, InputWait)):
                awaited = self._enter(coroutine.throw, NeedsAsyncioReactor(awaited))
        except StopIteration:
            self._running = None
            self._timed_out = False
            if self._gone:
                self.leave()
            self._unpause()
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            self._running = None
            raise
        except BaseException as error:
            self._running = None
            self._failed(error)
        else:
            self._suspend(coroutine, awaited)

    def _suspend(self, coroutine: Coroutine[Any, Any, Any], awaited: Deferred[Any] | InputWait) -> None:
        if isinstance(awaited, InputWait):
            if self._gone:
                self._running = self._input = None
                coroutine.close()
            else:
                awaited.listen(lambda value: self._step(coroutine, value))
            return
        self._pending = awaited
        awaited.addBoth(self._resume, coroutine)
        if self._gone:
            self._cancel_pending()

    def _resume(self, result: object, coroutine: Coroutine[Any, Any, Any]) -> None:
        # The coroutine reads the result from the Deferred itself; a failure can't be read while callbacks run.
        self._resumed(coroutine, result if isinstance(result, Failure) else None)

    def _resumed(self, coroutine: Coroutine[Any, Any, Any], failure: Failure | None) -> None:
        self._pending = None
        self._active = self._now()
        try:
            self._step(coroutine, failure)
        except BaseException:
            # What ends a program is for the reactor, which would close the connection; a Deferred keeps it to itself.
            log.failure("a command was ended by what is to end the program")
            self.abort()
            return
        if not self.paused:
            self._advance()

    def _failed(self, error: BaseException) -> None:
        """A command ended with an error: answer it."""
        if isinstance(error, SMTPReplyError):
            self._unpause()
            self.refuse(error.reply)
        elif self._gone and isinstance(error, CANCELLED):
            log.debug("client gone while a hook was pending")
            self.leave()
        else:
            self._start(self._answer_failure(error))

    async def status_for(self, error: BaseException) -> Any:
        """The status for a hook that failed."""
        timed_out, self._timed_out = self._timed_out, False
        if isinstance(error, SMTPReplyError):
            return error.reply
        self.connections.counts.hook_failures += 1
        if timed_out and isinstance(error, CANCELLED):
            return TOOK_TOO_LONG
        return await self.failure_status(error)

    async def _answer_failure(self, error: BaseException) -> None:
        self.send_reply(await self.status_for(error))

    def _start_farewell(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._running is None:
            self._keep_when_gone = True
            self._start(coroutine)
        else:
            # A hook that has the whole message is still at work.
            done: Deferred[None] = self._enter(Deferred.fromCoroutine, coroutine)
            done.addErrback(lambda failure: log.failure("handle_DISCONNECT", failure))

    # -- a client that does not read -----------------------------------------------------------------------------------

    def _output_blocked(self) -> None:
        self.paused = True

    def _output_free(self) -> None:
        # That the client didn't read is no fault of a hook's, nor is it silent now.
        self._active = self._pending_since = self._now()
        if self._running is None or self._input is not None:
            self._unpause()
            self._advance()

    def shut_down(self) -> bool:
        """The server is stopping: say so, unless a message is being taken in.

        :returns: whether the connection is ending.
        """
        waits_for_line = self._input is not None
        if self._reader is not None or (self._running is not None and not waits_for_line):
            self._end_comes(STOPPING)
            return False
        self.hang_up("421 4.3.2 Shutting down, try again later")
        return True
