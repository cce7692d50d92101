"""The time limits, as one table: when each applies, since when it counts, how long it is, and what happens then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted_smtpd.protocol.settings import RATE_WINDOW
from twisted_smtpd.protocol.view import TOO_LONG, ConnectionView

if TYPE_CHECKING:
    from twisted_smtpd.protocol.body import Body
    from twisted_smtpd.protocol.running import CommandRunner

__all__ = ["CLOSING_TIME", "SITUATIONS", "Limit", "Situation", "Timeouts"]

# Seconds that a client has to read the last reply before its connection is closed, and a cancelled hook to end.
CLOSING_TIME = 10.0


class Timeouts:
    """The time limits of one connection; :class:`~twisted_smtpd.runtime.timers.Timers` has them checked.

    :param connection: the connection.
    :param runner: its command in progress.
    :param body: the message being received.
    :param connected_at: when the connection was made, in seconds.
    :ivar give_up: called when a step before SMTP has taken too long, or ``None`` while no step is waited for.
    :ivar give_up_at: when that is, in seconds.
    """

    __slots__ = ("body", "connected_at", "connection", "give_up", "give_up_at", "runner")

    def __init__(self, connection: ConnectionView, runner: CommandRunner, body: Body, connected_at: float) -> None:
        self.connection = connection
        self.runner = runner
        self.body = body
        self.connected_at = connected_at
        self.give_up: Callable[[], None] | None = None
        self.give_up_at = 0.0

    def wait_at_most(self, seconds: float, give_up: Callable[[], None]) -> None:
        """Have something done unless :meth:`no_longer_waiting` is called in time.

        :param seconds: a limit from the settings, so that it is not below their ``shortest_limit``.
        """
        self.give_up_at = min(self.connection._now() + seconds, self.session_end())
        self.give_up = give_up

    def no_longer_waiting(self) -> None:
        """What was waited for has come."""
        self.give_up = None

    def retire(self) -> None:
        """No limit holds any more: let go of the connection."""
        self.give_up = None
        del self.connection

    def session_end(self) -> float:
        """When the session has lasted as long as it may."""
        return self.connected_at + self.connection.session_timeout

    def visit(self, now: float) -> float:
        """Do what is overdue; return the next deadline."""
        situation = next(situation for situation in SITUATIONS if situation.applies(self))
        return min(limit.visit(self, now) for limit in situation.limits)


@dataclass(eq=False, repr=False)
class Limit:
    """One row of the table.

    :ivar since: when the time begins, in seconds.
    :ivar seconds: how long it lasts.
    :ivar then: what happens at its end.
    """

    name: str
    since: Callable[[Timeouts], float | None]
    seconds: Callable[[Timeouts], float]
    then: Callable[[Timeouts], object]

    def visit(self, timeouts: Timeouts, now: float) -> float:
        """Act if it is over; return the next deadline."""
        since = self.since(timeouts)
        if since is None:
            # A limit of the same situation has just acted.
            return now + CLOSING_TIME
        deadline = since + self.seconds(timeouts)
        if now < deadline:
            return deadline
        self.then(timeouts)
        return now + CLOSING_TIME


@dataclass(eq=False, repr=False)
class Situation:
    """What a connection is waiting for, and the limits in force meanwhile.

    :ivar name: the same in a few words.
    :ivar applies: whether a connection is in it; the first one that applies counts.
    """

    name: str
    applies: Callable[[Timeouts], object]
    limits: tuple[Limit, ...]


def _hang_up(status: str) -> Callable[[Timeouts], object]:
    return lambda timeouts: timeouts.connection.hang_up(status)


def _hook_stuck(timeouts: Timeouts) -> None:
    timeouts.connection._hook_stuck(CLOSING_TIME)
    timeouts.connection.hang_up("421 4.3.0 Processing took too long, try again later")


def _abort(timeouts: Timeouts) -> None:
    timeouts.connection.abort()


def _unread(timeouts: Timeouts) -> None:
    timeouts.connection.abort("the client does not read its replies")


def _session(then: Callable[[Timeouts], object]) -> Limit:
    return Limit("session_timeout", lambda t: t.connected_at, lambda t: t.connection.session_timeout, then)


def _idle(then: Callable[[Timeouts], object]) -> Limit:
    return Limit("timeout", lambda t: t.connection._active, lambda t: t.connection.timeout, then)


def _cancelled(then: Callable[[Timeouts], object]) -> Limit:
    """A hook that was cancelled has some time to end."""
    return Limit(
        "hook_timeout and 10 s", lambda t: t.runner.since, lambda t: t.connection.hook_timeout + CLOSING_TIME, then
    )


_SESSION_OVER = _session(_hang_up("421 4.4.2 Connection was open for too long, closing it"))
_HOOK = Limit(
    "hook_timeout", lambda t: t.runner.since, lambda t: t.connection.hook_timeout, lambda t: t.runner.overdue()
)
_IDLE = _hang_up("421 4.4.2 Idle for too long, closing the connection")
_SILENT = _idle(_IDLE)
# Not since the last octet: one every few minutes would keep the connection.
_NO_LINE = Limit("timeout", lambda t: t.connection._heard, lambda t: t.connection.timeout, _IDLE)
# The hook may finish; then the session ends.  This limit comes first: what ends the hook has the next command read.
_SESSION_OVER_AFTER_HOOK = _session(lambda t: t.connection._end_comes(TOO_LONG))

#: The table.
SITUATIONS = (
    Situation(
        "waits for a step before SMTP (PROXY header, TLS handshake)",
        lambda t: t.give_up is not None and t.connection._closing_since is None,
        (
            Limit(
                "handshake_timeout or proxy_protocol_timeout",
                lambda t: t.give_up_at,
                lambda t: 0.0,
                lambda t: t.give_up is not None and t.give_up(),
            ),
        ),
    ),
    Situation(
        "the client has gone; a hook that was cancelled goes on",
        lambda t: t.connection._gone and t.runner.timed_out,
        (_cancelled(lambda t: t.connection.leave()),),
    ),
    Situation("the client has gone; a hook has its message", lambda t: t.connection._gone, (_HOOK,)),
    Situation(
        "is closing",
        lambda t: t.connection._closing_since is not None,
        (Limit("10 s", lambda t: t.connection._closing_since, lambda t: CLOSING_TIME, _abort),),
    ),
    Situation(
        "the client does not read its replies",
        lambda t: t.connection._output.blocked_since is not None,
        (
            Limit("timeout", lambda t: t.connection._output.blocked_since, lambda t: t.connection.timeout, _unread),
            _session(_unread),
        ),
    ),
    Situation(
        "a hook that was cancelled goes on",
        lambda t: t.runner.pending is not None and t.runner.input is None and t.runner.timed_out,
        (_SESSION_OVER_AFTER_HOOK, _cancelled(_hook_stuck)),
    ),
    Situation(
        "a hook is at work",
        lambda t: t.runner.pending is not None and t.runner.input is None,
        (_SESSION_OVER_AFTER_HOOK, _HOOK),
    ),
    Situation(
        "a hook does not read its stream",
        lambda t: t.body.full_since is not None,
        (
            Limit(
                "hook_timeout",
                lambda t: t.body.full_since,
                lambda t: t.connection.hook_timeout,
                lambda t: t.body.stream_overdue(),
            ),
            _SESSION_OVER,
        ),
    ),
    Situation(
        "a message arrives",
        # Between two chunks, too, unless it is refused already.
        lambda t: t.body.reader is not None or (t.body.chunked is not None and t.body.chunked.refusal is None),
        (
            _SILENT,
            _SESSION_OVER,
            Limit("min_data_rate", lambda t: t.body.rate_mark[0], lambda t: RATE_WINDOW, lambda t: t.body.check_rate()),
        ),
    ),
    Situation("waits for the client", lambda t: True, (_NO_LINE, _SESSION_OVER)),
)
