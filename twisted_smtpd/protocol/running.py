"""The command in progress, and what it waits for: a hook's Deferred, or the client's next input."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_smtpd.runtime.awaiting import InputWait, NeedsAsyncioReactor

if TYPE_CHECKING:
    from twisted_smtpd.protocol.view import ConnectionView

__all__ = ["CommandRunner"]

log = Logger()

T = TypeVar("T")


class CommandRunner:
    """Runs one coroutine at a time: a command, or what is left of one.

    A coroutine can wait for a ``Deferred`` (a hook that really waits) or for an ``InputWait`` (a line, the end of a
    message, the end of a handshake).  One that waits for neither costs a single ``send(None)``.

    :param connection: the connection whose commands these are.
    :ivar coroutine: the command in progress, or ``None``.
    :ivar pending: the Deferred it waits for, or ``None``.
    :ivar input: the input it waits for, or ``None``.
    :ivar line_limit: octets of the line it waits for, without its CRLF; 0 while it waits for none.
    :ivar since: when its hook began, in seconds: ``hook_timeout`` counts from here.
    :ivar timed_out: whether the hook was cancelled because it took too long.
    :ivar must_finish: whether it goes on when its client has gone, because it has a whole message.
    """

    __slots__ = (
        *("_cancelled", "_connection", "_context", "_inside", "coroutine", "input", "line_limit", "must_finish"),
        *("pending", "since", "timed_out"),
    )

    def __init__(self, connection: ConnectionView) -> None:
        self._connection = connection
        self._context: Context | None = None
        self._inside = False
        self._cancelled = False
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.pending: Deferred[Any] | None = None
        self.input: InputWait | None = None
        self.line_limit = 0
        self.since = 0.0
        self.timed_out = False
        self.must_finish = False

    @property
    def at_work(self) -> bool:
        """Whether a command is in progress that does not wait for the client's input: nothing is read meanwhile."""
        return self.coroutine is not None and self.input is None

    def enter(self, function: Callable[[Any], T], argument: Any) -> T:
        """Call a function in the connection's context: a context variable that a hook sets holds for the connection."""
        if self._inside:
            return function(argument)
        if self._context is None:
            self._context = copy_context()
        self._inside = True
        try:
            return self._context.run(function, argument)
        finally:
            self._inside = False

    # -- running -------------------------------------------------------------------------------------------------------

    def start(self, coroutine: Coroutine[Any, Any, Any], must_finish: bool = False) -> None:
        """Run a command until it is done, or waits.

        :param must_finish: whether it goes on when its client has gone.
        """
        self.coroutine = coroutine
        self.must_finish = must_finish
        self.since = self._connection._active
        self._cancelled = False
        self._step(coroutine, None)

    def _step(self, coroutine: Coroutine[Any, Any, Any], value: Any) -> None:
        connection = self._connection
        connection._hold()
        connection.connections.hook_runs()
        try:
            if value is not None and isinstance(value, Failure):
                awaited = self.enter(value.throwExceptionIntoGenerator, coroutine)
            else:
                awaited = self.enter(coroutine.send, value)
            while not isinstance(awaited, (Deferred, InputWait)):
                awaited = self.enter(coroutine.throw, NeedsAsyncioReactor(awaited))
        except StopIteration:
            self.coroutine = None
            self.timed_out = False
            connection._command_done()
        except (KeyboardInterrupt, GeneratorExit):
            # What ends a program is for the reactor; no client must be left waiting.
            self.coroutine = None
            connection.abort()
            raise
        except BaseException as error:
            self.coroutine = None
            connection._command_failed(error)
        else:
            self._suspend(coroutine, awaited)

    def _suspend(self, coroutine: Coroutine[Any, Any, Any], awaited: Deferred[Any] | InputWait) -> None:
        if isinstance(awaited, InputWait):
            if self._connection._gone:
                self.coroutine = self.input = None
                coroutine.close()
            else:
                awaited.listen(lambda value: self._step(coroutine, value))
            return
        self.pending = awaited
        awaited.addBoth(self._resume, coroutine)
        if self._connection._gone and not self.must_finish:
            self.cancel_hook()

    def _resume(self, result: object, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.pending = None
        connection = self._connection
        connection._touch()
        try:
            # The coroutine reads the result from the Deferred itself; a failure can't be read while callbacks run.
            self._step(coroutine, result if isinstance(result, Failure) else None)
        except BaseException:
            # KeyboardInterrupt: the reactor would end with it, a Deferred would only keep it.
            log.failure("a hook ended the program: its connection is closed")
            return
        connection._go_on()

    def restart_clock(self) -> None:
        """Give the hook all of its time again, since it was not the hook that was waited for."""
        self.since = self._connection._now()

    def keep(self, must_finish: bool) -> None:
        """Say whether the command in progress goes on when its client has gone."""
        self.must_finish = must_finish

    # -- input ---------------------------------------------------------------------------------------------------------

    async def next_input(self, line_limit: int = 0) -> Any:
        """Wait for what the connection reads next; it calls :meth:`hand_over` with that.

        :param line_limit: octets of a line, without its CRLF; 0 where it is no line.
        """
        connection = self._connection
        self.line_limit = line_limit
        self.input = InputWait(connection._read_on)
        try:
            return await self.input
        except BaseException:
            # The command gave up, at a timeout of its own for instance: the next line is a command again, once this
            # one is done.
            self.input, self.line_limit = None, 0
            connection._hold()
            raise

    def hand_over(self, value: Any) -> None:
        """Resume the command with the input it waits for."""
        wait, self.input, self.line_limit = self.input, None, 0
        assert wait is not None
        self._connection._hold()
        self.since = self._connection._active
        wait.resume(value)

    # -- its end -------------------------------------------------------------------------------------------------------

    def cancel_hook(self) -> None:
        """Cancel what the command waits for, but only once: a hook may clean up, and may even go on."""
        if self.pending is not None and not self._cancelled:
            self._cancelled = True
            try:
                self.pending.cancel()
            except Exception:
                log.failure("a hook's Deferred can't be cancelled")

    def overdue(self) -> None:
        """The hook has taken too long: cancel it."""
        self.mark_timed_out()
        self.cancel_hook()

    def mark_timed_out(self) -> None:
        """The hook has taken too long, and is told so."""
        self.timed_out = True
        self._connection._hook_overdue()

    def take_timed_out(self) -> bool:
        """Whether the hook took too long; then forget it."""
        timed_out, self.timed_out = self.timed_out, False
        return timed_out

    def client_gone(self) -> None:
        """End the command in progress, unless it has a whole message."""
        if self.pending is not None:
            if not self.must_finish:
                self.cancel_hook()
        elif self.input is not None and self.coroutine is not None:
            coroutine, self.coroutine = self.coroutine, None
            try:
                self.enter(CoroutineType.close, coroutine)
            except Exception:
                log.failure("a command failed when its client had gone")
        self.input = None

    def retire(self) -> None:
        """No command comes any more: let go of the connection."""
        self._context = None
        del self._connection

    def say_goodbye(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run ``handle_DISCONNECT``, beside a hook that still has the whole message."""
        if self.coroutine is None:
            self.start(coroutine, must_finish=True)
        else:
            done: Deferred[None] = self.enter(Deferred.fromCoroutine, coroutine)
            done.addErrback(lambda failure: log.failure("handle_DISCONNECT failed", failure))
