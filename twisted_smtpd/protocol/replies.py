"""Replies out, and the end of a connection.

The way of a reply through :meth:`Replies.push` is part of the fast path: what would be a call of its own elsewhere is
written out there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from twisted_smtpd.protocol.body import Body
from twisted_smtpd.protocol.running import CommandRunner
from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.protocol.timeouts import CLOSING_TIME, Timeouts
from twisted_smtpd.protocol.transcript import Transcript
from twisted_smtpd.protocol.view import CLOSED, FINISHING, OPEN, STOPPING
from twisted_smtpd.runtime.awaiting import DONE, Waiting
from twisted_smtpd.runtime.batches import joined
from twisted_smtpd.runtime.connections import Connections, limited_address
from twisted_smtpd.runtime.output import Output
from twisted_smtpd.wire.replies import LAST_CODES, AlreadySent, Reply, encode_known, encode_status

__all__ = ["MAX_HELD", "Replies"]

# Replies of one read go out in one write, but a hook may push without end (octets).
MAX_HELD = 2**14

HYPHEN = ord("-")


class Replies(LineReceiver):
    """The half of a connection that answers: sends the replies in order, is counted, and ends.

    :param settings: what this connection shares with others of its server.
    :param runner: its command in progress.
    :param body: the message it is receiving.
    :ivar connections: the server's connections; a factory sets its own before the connection is made.
    """

    # A connection's state is in slots: Python takes a third of the time to find it there, and less memory.
    __slots__ = (
        *("_address", "_body", "_closing_since", "_code", "_ending", "_errors", "_gone", "_hidden_lines", "_line"),
        *("_messages", "_now", "_open_code", "_open_lines", "_out", "_output", "_runner", "_said", "_settings"),
        *("_timeouts", "_transcript", "_why", "connections"),
    )

    enhanced_status_codes: bool
    max_errors: int

    _verb: str
    _output: Output
    _timeouts: Timeouts
    _now: Callable[[], float]
    #: Whether what has arrived is being worked through: the replies go out when that is done.
    _advancing: bool
    _peer_address: Any
    #: The replies that the recipients of a message have got, where each has one of its own.
    _replies: list[bytes] = []  # noqa: RUF012 - never changed here; LMTP has its own

    def __init__(self, settings: SharedSettings, runner: CommandRunner, body: Body) -> None:
        self._settings = settings
        self._runner = runner
        self._body = body
        self.connections: Connections = settings.connections
        self._out = b""
        self._open_lines = b""
        self._open_code = 0
        self._code = 0
        self._errors = 0
        self._address: str | None = None
        self._ending = OPEN
        self._closing_since: float | None = None
        self._gone = False
        # What the log tells, see Reported.
        self._line: bytes | None = b""
        self._hidden_lines = 0
        self._said = b""
        self._why = ""
        self._messages = 0
        self._transcript: Transcript | None = None

    # -- its beginning -------------------------------------------------------------------------------------------------

    def _open_output(self, blocked: Callable[[], None], freed: Callable[[], None]) -> None:
        """Make the way out.

        :param blocked: called when the client does not read.
        :param freed: called when it reads again.
        """
        transport: Any = self.transport
        self._now = self.connections.timers.now
        batches = self.connections.batches = joined(transport, self.connections.batches)
        self._output = Output(transport, self._now, blocked, freed, batches)

    def _admit(self) -> str | None:
        """Count the connection; returns why it can't be served, or ``None``."""
        self._address = self._counted_address()
        refusal = self.connections.admit(self, self._address, self._settings.values)
        self.connections.timers.add(self._timeouts, min(CLOSING_TIME, self._settings.shortest_limit))
        return refusal

    def _counted_address(self) -> str | None:
        """The address that the limits per address count this connection for, or ``None`` for none."""
        host = getattr(self._peer_address, "host", "")
        security = self._settings.security
        # A proxy's own connection does not count as a client.
        if security.proxies is not None and host in security.proxies:
            return None
        if security.xclients is not None and host in security.xclients:
            return None
        return limited_address(host)

    def _count_for(self, address: str | None) -> str | None:
        """Count the connection for another address; returns why it can't be served any longer, or ``None``."""
        refusal = self.connections.recount(self._address, address, self._settings.values)
        if refusal is None:
            self._address = address
        return refusal

    # -- replies -------------------------------------------------------------------------------------------------------

    @property
    def utf8_replies(self) -> bool:
        """Whether the client may be sent UTF-8."""
        return False

    def push(self, status: str | bytes | Reply) -> Awaitable[None]:
        """Send a reply, and wait while the client does not read.

        The reply is on its way when this returns, behind those that are due: they go out together.  What it returns is
        to be awaited; a generator may ``yield from`` it.

        :param status: see :meth:`Reply.parse`; or a string's UTF-8.  One that ends in a ``250-`` line is continued by
            the next reply.
        :raises BadStatus: if it is no status.
        """
        if type(status) is str:
            # Nearly all are simple, and then there is no need to ask whether the client may be sent UTF-8.
            code, wire, simple = encode_known(status, self._verb, self.enhanced_status_codes)
            if not simple and self.utf8_replies:
                code, wire = encode_status(status, self._verb, self.enhanced_status_codes, True, True)
        elif type(status) is AlreadySent:
            self._code = status.code
            return DONE
        else:
            if isinstance(status, bytes):
                status = status.decode("utf-8", "replace")
            code, wire = encode_status(status, self._verb, self.enhanced_status_codes, self.utf8_replies, True)
            simple = False
        self._code = code
        if not simple or self._ending or self._open_lines:
            self._send_with_care(code, wire, True)
        else:
            self._said = wire
            if self._advancing and not self._out:
                self._out = wire
            else:
                self._out += wire
                if not self._advancing or len(self._out) > MAX_HELD:
                    self._flush()
        return DONE if self._output.blocked_since is None else Waiting(self._output.drained())

    def send_reply(self, status: str | Reply, more: bool = False, verb: str | None = None) -> int:
        """Send a reply without waiting for the client.

        :param status: see :meth:`Reply.parse`.
        :param more: whether a status that ends in a ``250-`` line is to be continued by the next one.
        :param verb: what it replies to, which decides on its enhanced code; by default the command in progress.
        :returns: its code.
        :raises BadStatus: if it is no status.
        """
        if type(status) is AlreadySent:
            self._code = status.code
            return status.code
        verb = self._verb if verb is None else verb
        code, wire = encode_status(status, verb, self.enhanced_status_codes, self.utf8_replies, more)
        self._code = code
        self._send_with_care(code, wire, more)
        return code

    def _send_with_care(self, code: int, wire: bytes, more: bool) -> None:
        """Send a reply that says no, that may close the connection, or that continues lines which were pushed before.

        :param more: whether one that ends in a ``250-`` line is to be continued by the next one.
        """
        if self._ending == CLOSED:
            return
        if more and wire[3] == HYPHEN and wire[wire.rfind(b"\n", 0, -1) + 4] == HYPHEN:
            self._open_lines += wire
            self._open_code = code
            return
        if self._open_lines:
            # Lines that a hook pushed before it changed its mind must not come before another code.
            if self._open_code == code:
                wire = self._open_lines + wire
            self._open_lines = b""
        self._said = wire
        self._out += wire
        if code >= 400:
            self._refusal_sent(code, wire)
            if code in LAST_CODES:
                self.finish()
        if not self._advancing or len(self._out) > MAX_HELD:
            self._flush()

    def _refusal_sent(self, code: int, wire: bytes) -> None:
        """A reply that says no is on its way; for subclasses.

        :param code: its code.
        :param wire: the reply.
        """

    def send_challenge(self, challenge: bytes) -> None:
        """Send a 334 reply (RFC 4954 section 4): one line, however long.

        :param challenge: printable ASCII.
        """
        self._code = 334
        if self._ending == CLOSED:
            return
        self._open_lines = b""
        self._out += b"334 %b\r\n" % challenge
        if not self._advancing:
            self._flush()

    def refuse(self, reply: Reply, verb: str | None = None) -> None:
        """Send a reply for the client's own mistake, and hang up on a client that makes too many.

        :param reply: the reply.
        :param verb: see :meth:`send_reply`.
        """
        self.send_reply(reply, verb=verb)
        self._errors += 1
        self.connections.counts.errors += 1
        if self._errors >= self.max_errors and self._ending < FINISHING:
            self.send_reply("421 4.7.0 Too many errors, closing the connection", verb="?")

    def forgive(self) -> None:
        """The client has got something right: earlier mistakes no longer count."""
        self._errors = 0

    def _no_reply_yet(self, code: int = 0) -> None:
        """Forget the code of the last reply.

        :param code: what it was before, to take that back.
        """
        self._code = code

    @property
    def _replied(self) -> bool:
        """Whether a whole reply was pushed since its code was forgotten that does not ask for more (3yz)."""
        return not self._open_lines and self._code != 0 and self._code // 100 != 3

    @property
    def _needs_no_reply(self) -> bool:
        """Whether a command may end without a reply, since the connection ends."""
        transport: Any = self.transport
        return bool(self._ending or self._gone or getattr(transport, "disconnecting", False))

    async def drain(self) -> None:
        """Wait until the client reads what it is sent."""
        await self._output.drained()

    def _flush(self) -> None:
        if self._out:
            data, self._out = self._out, b""
            if self._transcript is not None:
                self._transcript.server_lines(data)
            self._output.write(data)

    # -- its end -------------------------------------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Whether the last reply has been sent: nothing more is read, and the connection is going."""
        return self._closing_since is not None

    def finish(self) -> None:
        """Close the connection after the command in progress."""
        self._end_comes(FINISHING)

    def _end_comes(self, stage: int) -> None:
        self._ending = max(self._ending, stage)

    def close(self) -> None:
        """Send the replies that are due, then close; whatever else the client sends is not read."""
        if self._ending == CLOSED:
            return
        self._flush()
        self._ending = CLOSED
        self._closing_since = self._now()
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        self._output.close()

    def hang_up(self, status: str) -> None:
        """Say why, and close."""
        if self._closing_since is not None:
            return
        self._open_lines = b""
        self._line = b""
        self.send_reply(status, verb="?")
        self.close()

    def drop(self, why: str) -> None:
        """Close at once, without a word, and read nothing more.

        :param why: the reason, for the log.
        """
        self._why = self._why or why
        if self._closing_since is None:
            self._closing_since = self._now()
        self._ending = CLOSED
        self._out = b""
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        self.abort()

    def abort(self, why: str = "") -> None:
        """Close at once; where the client has gone already, stop waiting for its hook.

        :param why: the reason, for the log.
        """
        self._why = self._why or why
        if self._gone:
            self.leave()
        else:
            self.transport.abortConnection()  # type: ignore[union-attr]

    def shut_down(self) -> bool:
        """The server is stopping: say so, unless a message is being received.

        :returns: whether the connection is ending.
        """
        if self._timeouts.give_up is not None:
            # There is no greeting yet that a 421 could follow.
            self.drop("the server is shutting down")
            return True
        if self._body.reader is not None or self._runner.at_work:
            self._end_comes(STOPPING)
            return False
        self.hang_up("421 4.3.2 Shutting down, try again later")
        return True

    def give_up(self) -> None:
        """The server stops without waiting any longer: say so, and close."""
        unheard = self._closing_since is not None or self._output.blocked_since is not None
        if self._gone or unheard or self._timeouts.give_up is not None:
            self.abort("the server is shutting down")
        else:
            # What is being done may have been done already, as when the connection is cut off.  But a client that
            # hears 421 knows that it has to come again.
            self.hang_up("421 4.3.2 Shutting down, try again later")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self._ending = CLOSED
        self._out = b""
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        self._output.stop()
        self._body.drop()
        runner = self._runner
        runner.client_gone()
        if not runner.must_finish or runner.coroutine is None or self.connections.grace_over:
            # If not, it counts until its hook is done, or clients that hang up after DATA would escape all limits.
            self.leave()

    def leave(self) -> None:
        """No longer count as a connection of the server, and have no time limits any more."""
        self.connections.timers.remove(self._timeouts)
        self.connections.dismiss(self, self._address)
