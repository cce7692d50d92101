"""What the parts of a connection may ask of it.

A part (the command in progress, the message being received, TLS ...) keeps its own state, and knows the connection as a
:class:`ConnectionView`.  So both directions can be seen: the connection imports its parts, and the parts import this.
Names with an underscore are for this package only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.protocol.states import State
from twisted_smtpd.runtime.connections import Connections
from twisted_smtpd.runtime.output import Output
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.content import ContentReader
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    import asyncio

    from twisted.internet.interfaces import IOpenSSLServerConnectionCreator

    from twisted_smtpd.protocol.transcript import Transcript

__all__ = ["CLOSED", "FINISHING", "OPEN", "STOPPING", "TOO_LONG", "ClientView", "ConnectionView"]

# How near the end of a connection is.  TOO_LONG and STOPPING: it ends after the command or message in progress, because
# it was open for too long or because the server stops.  FINISHING: it ends after the command in progress.  CLOSED:
# nothing is read or sent any more.
OPEN, TOO_LONG, STOPPING, FINISHING, CLOSED = range(5)


class ConnectionView(Protocol):
    """A connection: what is read, sent, counted, and how it ends.

    :ivar transport: the transport.
    :ivar connections: what all connections of the server share.
    :ivar paused: whether nothing is read for now.
    :ivar loop: the running asyncio loop, or ``None`` where the reactor is another one.
    :ivar _settings: what this connection shares with those of the same class, handler and options.
    :ivar _output: the way out.
    :ivar _address: the address that the limits per address count the connection for, or ``None`` for none.
    :ivar _active: when the client last sent something, or its command was done, in seconds.
    :ivar _heard: when the last line or message of the client's was complete, or its command was done, in seconds.
    :ivar _now: gives the time in seconds.
    :ivar _gone: whether the connection is lost.
    :ivar _closing_since: since when the connection has been closing, or ``None``.
    :ivar _transcript: writes down the dialog, or ``None``.
    """

    transport: Any
    connections: Connections
    paused: bool
    loop: asyncio.AbstractEventLoop | None
    timeout: float
    session_timeout: float
    hook_timeout: float
    min_data_rate: float
    max_buffered: int
    max_buffered_per_address: int | None
    _settings: SharedSettings
    _output: Output
    _active: float
    _address: str | None
    _heard: float
    _now: Callable[[], float]
    _gone: bool
    _closing_since: float | None
    _transcript: Transcript | None

    def _hold(self) -> None:
        """Read nothing more for now."""

    def _release(self) -> None:
        """Read on, unless the client doesn't read its replies or a hook lags behind its message."""

    def _go_on(self) -> None:
        """Work through what has arrived, if nothing is in the way."""

    def _read_on(self) -> None:
        """A command waits for input: read on, though it isn't done."""

    def _touch(self) -> None:
        """Note that something has happened: ``timeout`` counts from now."""

    def _command_done(self) -> None:
        """The command in progress has ended."""

    def _hook_overdue(self) -> None:
        """A hook has taken too long: say which one."""

    def _hook_stuck(self, seconds: float) -> None:
        """A hook that was cut off goes on: say so."""

    def _command_failed(self, error: BaseException) -> None:
        """The command in progress has ended with an error: answer it."""

    def _end_comes(self, stage: int) -> None:
        """Have the connection end.

        :param stage: how soon, one of the stages above; a call for a sooner end still holds.
        """

    def finish(self) -> None:
        """Close the connection after the command in progress."""

    def hang_up(self, status: str) -> None:
        """Say why, and close."""

    def drop(self, why: str) -> None:
        """Close at once, without a word; the log tells why."""

    def abort(self, why: str = "") -> None:
        """Close at once; the log tells why."""

    def leave(self) -> None:
        """No longer count as a connection of the server, and have no time limits any more."""


class ClientView(ConnectionView, Protocol):
    """A connection as commands see it: session, envelope, state, replies, hooks.

    :ivar implicit_tls: what makes the TLS connection where TLS comes first, or ``None``.
    :ivar utf8_replies: whether the client may be sent UTF-8.
    :ivar _verb: the command in progress.
    :ivar _hook: the hook that was called last.
    :ivar _code: the code of the last reply.
    :ivar _line: what the next refusal answers, see :class:`~twisted_smtpd.protocol.reporting.Reported`.
    :ivar _hidden_lines: how many of the next unknown commands may be secrets.
    """

    session: Session
    envelope: Envelope
    event_handler: Any
    hostname: str
    ident: str
    data_size_limit: int | None
    max_recipients: int
    enable_SMTPUTF8: bool
    enhanced_status_codes: bool
    auth_required: bool
    require_starttls: bool
    implicit_tls: IOpenSSLServerConnectionCreator | None
    _verb: str
    _hook: str
    _code: int
    _line: bytes | None
    _hidden_lines: int

    def _peer(self) -> Any:
        """The address of the other end of the connection."""

    @property
    def may_vouch(self) -> bool:
        """Whether the client may say for which other client it speaks."""

    @property
    def may_start_tls(self) -> bool:
        """Whether there is no TLS yet, and the transport has it."""

    def push(self, status: str | Reply) -> Awaitable[None]:
        """Send a reply, and wait while the client does not read."""

    def turn_away(self, status: str) -> None:
        """Refuse a client before its greeting, and close."""

    async def status_for(self, error: BaseException) -> Any:
        """The status for a hook that failed."""

    async def _call_old_hook(self, name: str) -> None:
        """Call a deprecated hook of the class's."""

    def _call_handler_hook(self, command: str, *arguments: Any) -> Awaitable[Any]:
        """Call a hook of the handler."""

    def _set_barrier(self, barrier: State | None) -> None:
        """Enter :attr:`State.UNWELCOME` or :attr:`State.WEAK`, or leave it."""

    def _find_state(self) -> None:
        """Find the state anew, after session or envelope have changed."""

    @property
    def _in_chunks(self) -> bool:
        """Whether some chunks of a message have come, and not the last one."""

    def _meet(self) -> None:
        """Note that the client is greeted: a reply answers no command now, and ``handle_DISCONNECT`` will be called."""

    def _renew_session(self) -> Session:
        """Forget what the client has said until now; what is known of its connection stays."""

    def _forget_message(self) -> Awaitable[None]:
        """End a message of which only some chunks have come."""

    def _set_rset_state(self) -> None:
        """Forget the transaction, keep the greeting."""

    def _stands_for(self, peer: Any) -> str | None:
        """Take a trusted proxy's word for who the client is; returns why it can't be served, or ``None``."""

    # -- input ---------------------------------------------------------------------------------------------------------

    @property
    def _unread(self) -> bool:
        """Whether more has arrived than was read."""

    def _take_input(self) -> bytes:
        """Take what has arrived and is not read yet."""

    def _flush(self) -> None:
        """Send the replies that are due now."""

    async def drain(self) -> None:
        """Wait until the client reads what it is sent."""

    async def _read_content(self, reader: ContentReader) -> None:
        """Give what arrives to a reader, and wait until it has seen the end."""

    async def _sleep(self) -> None:
        """Wait for :meth:`_wake`; meanwhile what the client sends is not read."""

    def _wake(self) -> None:
        """End the waiting in :meth:`_sleep`."""

    async def _wait(self, seconds: float, give_up: Callable[[], None], waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something other than a command.

        :param seconds: how long at most.
        :param give_up: what is done then.
        :param waiting: what waits.
        """
