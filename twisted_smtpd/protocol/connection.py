"""A connection's way out: the replies that are due, in order, and its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.protocols.basic import LineReceiver

from twisted_smtpd.assemble import Settings
from twisted_smtpd.runtime.output import Output
from twisted_smtpd.wire.replies import Reply, encode_known, encode_status

__all__ = ["Connection"]

# Replies of one read go out in one write, but a hook may push without end (octets).
MAX_HELD = 2**14

HYPHEN = ord("-")

# How far the end of a connection has come.  Not at all; it was open for too long, or the server is stopping: what is in
# progress is the last thing; it is closed after the command in progress; nothing is read or sent any more.
OPEN, TOO_LONG, STOPPING, FINISHING, CLOSED = range(5)


class Connection(LineReceiver):
    """Sends replies and closes; what comes in is :class:`twisted_smtpd.protocol.dialog.Dialog`'s.

    :param settings: what this connection shares with the others of its server.
    """

    # A connection's state is in slots: Python takes a third of the time to find it there, and less memory.
    __slots__ = (
        *("_advancing", "_buffer", "_closing_since", "_code", "_ending", "_errors", "_gone", "_now", "_offset"),
        *("_open_code", "_open_lines", "_out", "_output", "_settings", "_verb", "paused", "connections"),
    )

    delimiter = b"\r\n"
    enhanced_status_codes: bool
    max_errors: int

    _output: Output
    _now: Callable[[], float]

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.connections = settings.connections
        self.paused = False
        self._buffer = b""
        self._offset = 0
        self._out = b""
        self._verb = ""
        self._code = 0
        self._advancing = False
        self._open_lines = b""
        self._open_code = 0
        self._ending = OPEN
        self._closing_since: float | None = None
        self._gone = False
        self._errors = 0

    @property
    def utf8_replies(self) -> bool:
        """Whether the client may be sent UTF-8."""
        return False

    @property
    def closing(self) -> bool:
        """Whether the last reply has been sent: nothing more is read, and the connection is going."""
        return self._closing_since is not None

    def send_reply(self, status: str | Reply, more: bool = False) -> int:
        """Put a reply behind those that are due; they go out together.

        :param status: see :meth:`Reply.parse`.
        :param more: whether a status that ends in a ``250-`` line is to be continued by the next one.
        :returns: its code.
        :raises BadStatus: if it is no status.
        """
        if type(status) is str and status.isascii():
            # Nearly all are, and then nobody has to be asked for UTF-8.
            code, wire = encode_known(status, self._verb, self.enhanced_status_codes, False, more)
        else:
            code, wire = encode_status(status, self._verb, self.enhanced_status_codes, self.utf8_replies, more)
        if self._ending == CLOSED:
            return code
        if more and wire[3] == HYPHEN and wire[wire.rfind(b"\n", 0, -1) + 4] == HYPHEN:
            self._open_lines += wire
            self._open_code = code
            return code
        if self._open_lines:
            # Lines that a hook pushed before it changed its mind must not stand in front of another code.
            if self._open_code == code:
                wire = self._open_lines + wire
            self._open_lines = b""
        self._out += wire
        if code in (421, 521):
            self.finish()
        if not self._advancing or len(self._out) > MAX_HELD:
            self._flush()
        return code

    def send_challenge(self, challenge: bytes) -> None:
        """Send a 334 reply (RFC 4954 section 4): one line, however long.

        :param challenge: printable ASCII.
        """
        if self._ending == CLOSED:
            return
        self._open_lines = b""
        self._out += b"334 %b\r\n" % challenge
        if not self._advancing:
            self._flush()

    def refuse(self, reply: Reply) -> None:
        """Send a reply for the client's own mistake, and hang up on a client that makes too many."""
        self.send_reply(reply)
        self._errors += 1
        self.connections.counts.errors += 1
        if self._errors >= self.max_errors and self._ending < FINISHING:
            self._verb = "?"
            self.send_reply("421 4.7.0 Too many errors, closing the connection")

    def forgive(self) -> None:
        """The client has got something right: earlier mistakes no longer count."""
        self._errors = 0

    def finish(self) -> None:
        """Close the connection after the command in progress."""
        self._end_comes(FINISHING)

    def _end_comes(self, stage: int) -> None:
        self._ending = max(self._ending, stage)

    async def drain(self) -> None:
        """Wait until the client reads what it is sent."""
        await self._output.drained()

    def _flush(self) -> None:
        if self._out:
            data, self._out = self._out, b""
            self._output.write(data)

    def close(self) -> None:
        """Send the replies that are due, then close; whatever else the client sends is not read."""
        if self._ending == CLOSED:
            return
        self._flush()
        self._ending = CLOSED
        self._closing_since = self._now()
        self._buffer, self._offset = b"", 0
        self._output.close()

    def abort(self) -> None:
        """Close at once."""
        transport: Any = self.transport
        if not self._gone:
            transport.abortConnection()

    def drop(self) -> None:
        """Close at once, without a word, and read nothing more."""
        if self._closing_since is None:
            self._closing_since = self._now()
        self._ending = CLOSED
        self._out = b""
        self._buffer, self._offset = b"", 0
        self.abort()

    def hang_up(self, status: str) -> None:
        """Say why, and close."""
        if self._closing_since is not None:
            return
        self._verb = "?"
        self._open_lines = b""
        self.send_reply(status)
        self.close()
