"""What a connection may take how long for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_smtpd.assemble import RATE_WINDOW, Settings
from twisted_smtpd.protocol.connection import TOO_LONG, Connection
from twisted_smtpd.runtime.awaiting import InputWait
from twisted_smtpd.stream import ContentStream, StreamInterrupted
from twisted_smtpd.wire.content import ContentReader

__all__ = ["CLOSING_TIME", "Deadlines"]

log = Logger()

# How long a connection that is to be closed may take to take in its last reply, and a hook to end when cancelled.
CLOSING_TIME = 10.0


class Deadlines(Connection):
    """Looks after the time limits when :class:`~twisted_smtpd.runtime.timers.Timers` comes by; the dialog notes times.

    :ivar _active: when the client last sent something, or its command was done.
    :ivar _connected_at: when the connection was made.
    """

    __slots__ = (
        *("_active", "_cancelled", "_connected_at", "_content_octets", "_full_since", "_input", "_pending"),
        *("_pending_since", "_rate_mark", "_reader", "_stream", "_timed_out"),
    )

    timeout: float
    session_timeout: float
    hook_timeout: float
    min_data_rate: float
    _active: float
    _connected_at: float

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._input: InputWait | None = None
        self._reader: ContentReader | None = None
        self._stream: ContentStream | None = None
        self._pending: Deferred[Any] | None = None
        self._pending_since = 0.0
        self._timed_out = False
        self._cancelled = False
        self._rate_mark = (0.0, 0)
        self._content_octets = 0
        self._full_since: float | None = None

    def visit(self, now: float) -> float:
        """Do what is overdue; return the next deadline."""
        if self._gone:
            return self._hook_deadline(now, self.leave)
        if self._closing_since is not None:
            return self._due(now, self._closing_since + CLOSING_TIME, self.abort)
        session_end = self._connected_at + self.session_timeout
        blocked_since = self._output.blocked_since
        if blocked_since is not None:
            return self._due(now, min(blocked_since + self.timeout, session_end), self.abort)
        if self._pending is not None and self._input is None:
            # The hook may end; then the session does.
            if now >= session_end:
                self._end_comes(TOO_LONG)
            return self._hook_deadline(now, self._hook_stuck)
        if self._full_since is not None:
            return min(
                self._due(now, self._full_since + self.hook_timeout, self._stream_overdue),
                self._due(now, session_end, self._open_too_long),
            )
        deadline = min(
            self._due(now, self._active + self.timeout, self._idle),
            self._due(now, session_end, self._open_too_long),
        )
        if self._reader is not None:
            deadline = min(deadline, self._due(now, self._rate_mark[0] + RATE_WINDOW, self._check_rate))
        return deadline

    def _hook_deadline(self, now: float, stuck: Callable[[], None]) -> float:
        deadline = self._pending_since + self.hook_timeout
        if not self._timed_out:
            return self._due(now, deadline, self._hook_overdue)
        return self._due(now, deadline + CLOSING_TIME, stuck)

    def _due(self, now: float, deadline: float, act: Callable[[], None]) -> float:
        if now < deadline:
            return deadline
        act()
        return now + CLOSING_TIME

    def _idle(self) -> None:
        self.hang_up("421 4.4.2 Idle for too long, closing the connection")

    def leave(self) -> None:
        """Be counted and watched no more."""
        raise NotImplementedError

    def _open_too_long(self) -> None:
        self.hang_up("421 4.4.2 Connection was open for too long, closing it")

    def _check_rate(self) -> None:
        now = self._now()
        since, octets = self._rate_mark
        if self._content_octets - octets < self.min_data_rate * (now - since):
            self.hang_up("421 4.4.2 Too slow, closing the connection")
        self._rate_mark = now, self._content_octets

    def _hook_overdue(self) -> None:
        self._timed_out = True
        self._cancel_hook()

    def _cancel_hook(self) -> None:
        # Once: what a hook awaits to clean up is left alone, and so is a hook that tries again for ever.
        if self._pending is not None and not self._cancelled:
            self._cancelled = True
            try:
                self._pending.cancel()
            except Exception:
                log.failure("a hook's Deferred can't be cancelled")

    def _stream_overdue(self) -> None:
        """A hook does not read its content: end it, and read past the rest."""
        self._timed_out = True
        self._full_since = None
        assert self._stream is not None
        self._stream.give_up(StreamInterrupted("the hook took too long"))

    def _hook_stuck(self) -> None:
        log.error("a hook went on after it was cancelled for taking over {limit} s", limit=self.hook_timeout)
        self.hang_up("421 4.3.0 Processing took too long, try again later")
