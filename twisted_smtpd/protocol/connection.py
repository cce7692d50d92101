"""Lines in, replies out, and the end of a connection.

The way of an octet through :meth:`Connection.dataReceived`, and of a reply through :meth:`Connection.push`, is the
fast path: what would be a call of its own elsewhere is written out there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.protocol.body import Body
from twisted_smtpd.protocol.running import CommandRunner
from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.protocol.timeouts import CLOSING_TIME, Timeouts
from twisted_smtpd.protocol.transcript import Transcript
from twisted_smtpd.protocol.view import CLOSED, FINISHING, OPEN, STOPPING
from twisted_smtpd.runtime.awaiting import DONE, Waiting
from twisted_smtpd.runtime.batches import joined
from twisted_smtpd.runtime.connections import Connections, ICounted, limited_address
from twisted_smtpd.runtime.output import Output
from twisted_smtpd.runtime.turns import COMMANDS_AT_ONCE, TIME_AT_ONCE, reactor_of
from twisted_smtpd.runtime.twisted_private import running_loop
from twisted_smtpd.wire.replies import LAST_CODES, AlreadySent, Reply, encode_known, encode_status

__all__ = ["LINE_TOO_LONG", "MAX_SENT_AHEAD", "Connection", "announces_chunk"]

# What a client may send ahead while its command is being worked on (octets); beyond, TCP makes it wait.
MAX_SENT_AHEAD = 2**16
# Replies of one read go out in one write, but a hook may push without end (octets).
MAX_HELD = 2**14

# As numbers: to look for a number in bytes takes a fifth of the time that it takes to look for bytes.
LF = ord("\n")
CR = ord("\r")
HYPHEN = ord("-")

# How a TLS handshake begins (RFC 8446 section 5.1): its content type, and the first octet of all versions.
TLS_HELLO = b"\x16\x03"

LINE_TOO_LONG = Reply(500, "5.5.2", ("Line too long",))
BARE_LINE_FEED = Reply(500, "5.5.2", ("Lines end with CR LF, not with LF alone",))

# What comes next is the rest of a line that has been refused; or what stands behind a line feed that ends no line.
REFUSED = 1
BEHIND_LINE_FEED = 2


def announces_chunk(line: bytes) -> bool:
    """Whether a chunk seems to follow a line; where that was not understood, the chunk would run as commands."""
    return line[:4].upper() == b"BDAT"


@implementer(IHalfCloseableProtocol, ICounted)
class Connection(LineReceiver):
    """One connection: splits what arrives into lines and content, and sends the replies in order.

    A subclass says in :meth:`lineReceived` what a line means, as with each ``LineReceiver``.

    :param settings: what this connection shares with others of its server.
    :param runner: its command in progress.
    :param body: the message it is receiving.
    :ivar connections: the server's connections; a factory sets its own before the connection is made.
    """

    # A connection's state is in slots: Python takes a third of the time to find it there, and less memory.
    __slots__ = (
        *("_active", "_address", "_advancing", "_body", "_buffer", "_closing_since", "_code", "_ending", "_errors"),
        *(
            "_gone",
            "_heard",
            "_hidden_lines",
            "_input_stopped",
            "_line",
            "_messages",
            "_now",
            "_offset",
            "_open_code",
            "_open_lines",
            "_out",
            "_output",
            "_peer_address",
        ),
        *("_peer_finished", "_runner", "_said", "_settings", "_skipping_line", "_stopped", "_timeouts", "_why"),
        *("_transcript", "_yielded"),
        *("connections", "line_mode", "loop", "paused"),
    )

    delimiter = b"\r\n"
    bare_newline: str
    enhanced_status_codes: bool
    max_errors: int

    _verb: str
    _output: Output
    _timeouts: Timeouts
    _now: Callable[[], float]
    _active: float
    _heard: float
    #: The replies that the recipients of a message have got, where each has one of its own.
    _replies: list[bytes] = []  # noqa: RUF012 - never changed here; LMTP has its own

    def __init__(self, settings: SharedSettings, runner: CommandRunner, body: Body) -> None:
        self._settings = settings
        self._runner = runner
        self._body = body
        self.connections: Connections = settings.connections
        self.line_mode = 1
        self.paused = False
        self._stopped = False
        self._yielded = False
        self._buffer = b""
        self._offset = 0
        self._advancing = False
        self._skipping_line = 0
        self._input_stopped = False
        self._peer_finished = False
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

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.loop: asyncio.AbstractEventLoop | None = running_loop()
        self._now = self.connections.timers.now
        batches = self.connections.batches = joined(transport, self.connections.batches)
        self._output = Output(transport, self._now, self._output_blocked, self._output_free, batches)
        self._active = self._heard = self._now()
        # Asked for once: a transport makes a new object each time.
        self._peer_address: Any = transport.getPeer()

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

    # -- what arrives --------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        self._active = self._now()
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
        body = self._body
        done = 0
        try:
            while not self.paused:
                if self._ending and self._ended():
                    break
                buffer = self._buffer
                if not buffer:
                    break
                start = self._offset
                if body.reader is not None:
                    self._buffer, self._offset = b"", 0
                    if (rest := body.feed(buffer[start:])) is not None:
                        self._buffer = rest
                        body.ended()
                    if self._buffer or self._ending:
                        continue
                    break
                if not self.line_mode:
                    self._buffer, self._offset = b"", 0
                    self._heard = self._active
                    self.rawDataReceived(buffer[start:])  # type: ignore[no-untyped-call]
                    continue
                if start:
                    # There was a command before this one.  The clock is looked at for each fourth only.
                    done += 1
                    if not done & 3:
                        now = perf_counter()
                        if done == 4:
                            until = now + TIME_AT_ONCE
                        elif (now > until or done >= COMMANDS_AT_ONCE) and self._yield():
                            break
                end = buffer.find(LF, start)
                if end < 0:
                    self._part_of_line()
                    if self._ending and not self.paused:
                        self._ended()
                    break
                if end + 1 < len(buffer):
                    self._offset = end + 1
                else:
                    # A buffer that is read to its end must be false.
                    self._buffer, self._offset = b"", 0
                self._heard = self._active
                # An empty line at the start of the buffer would look at its last octet.
                if buffer[end - 1] != CR or self._skipping_line or not end:
                    self._odd_line(buffer[start:end])
                else:
                    self.lineReceived(buffer[start : end - 1])  # type: ignore[no-untyped-call]
                if not (self._buffer or self._ending):
                    # What the next round would find out.
                    break
        finally:
            self._advancing = False
        if self._out:
            # What _flush does, without the call.
            data, self._out = self._out, b""
            if self._transcript is not None:
                self._transcript.server_lines(data)
            self._output.write(data)
        if self._input_stopped and len(self._buffer) - self._offset <= MAX_SENT_AHEAD and not self.paused:
            self._input_stopped = False
            if self._ending != CLOSED:
                self.transport.resumeProducing()  # type: ignore[union-attr]
        if self._peer_finished and not self.paused:
            self.close()

    def _yield(self) -> bool:
        """Let other connections have their turn before what has arrived is worked through.

        :returns: whether there may be others.
        """
        reactor = reactor_of(self.transport)
        if reactor is None:
            return False
        self._yielded = self.paused = True
        self.connections.turns.wait(self, self._address, reactor)
        return True

    def take_turn(self) -> None:
        """Go on with what has arrived."""
        self._yielded = False
        if not self._runner.at_work:
            self._read_on()

    def _ended(self) -> bool:
        """End the connection if that is due; whether it has ended."""
        if self._ending == FINISHING:
            self.close()
        elif self._ending == CLOSED:
            return True
        elif self._runner.coroutine is not None or self._body.reader is not None:
            return False
        elif self._ending == STOPPING:
            self.shut_down()
        else:
            self.hang_up("421 4.4.2 Connection was open for too long, closing it")
        return True

    def _odd_line(self, line: bytes) -> None:
        """Take a line that ends with LF alone, or a part of one that has been refused.

        What stands behind a LF that ends no line is not carried out, since a server before this one may have seen one
        line only.  Each LF is answered all the same, or a client that ends its lines so would wait for ever.

        :param line: without its LF.
        """
        skipping, lenient = self._skipping_line, self.bare_newline == "normalize"
        if not skipping and line.startswith(TLS_HELLO):
            self._tls_in_clear()
            return
        # A LF that may yet turn out to end no line counts.
        too_long = self._unfit_line(line + b"\n")
        if not skipping and lenient and not too_long:
            self.lineReceived(line)  # type: ignore[no-untyped-call]
        elif line.endswith(b"\r"):
            self._skipping_line = 0
            if skipping == BEHIND_LINE_FEED and not lenient:
                self._refuse_unread(BARE_LINE_FEED)
        else:
            # A line that was too long goes on to its CRLF, with either policy.
            self._skipping_line = BEHIND_LINE_FEED
            if skipping != REFUSED:
                self._refuse_unread(too_long or BARE_LINE_FEED, line if not skipping else b"")

    def _part_of_line(self) -> None:
        """Check a line whose end has not arrived: it must not grow without limit."""
        part = self._buffer[self._offset :]
        if self._skipping_line != REFUSED:
            if not self._skipping_line and part.startswith(TLS_HELLO):
                self._tls_in_clear()
                return
            reply = self._unfit_line(part[:-1] if part.endswith(b"\r") else part)
            if reply is None:
                return
            self._refuse_unread(reply, b"" if self._skipping_line else part)
            self._skipping_line = REFUSED
        # The CR may belong to the CRLF that ends the line.
        self._buffer, self._offset = (b"\r" if part.endswith(b"\r") else b""), 0

    def _unfit_line(self, line: bytes) -> Reply | None:
        # A command's limit counts the CRLF, which isn't here.
        limit = self._runner.line_limit or self._settings.longest_command - 2
        return LINE_TOO_LONG if len(line) > limit else None

    def _tls_in_clear(self) -> None:
        """A client begins TLS where it can't: it would wait for an answer that never comes."""
        self.close()

    def _refuse_unread(self, reply: Reply, line: bytes = b"") -> None:
        """Refuse a line that does not get to :meth:`lineReceived`."""
        if self._transcript is not None:
            self._transcript.refused_line()
        self._refuse_line(reply, line)

    def _refuse_line(self, reply: Reply, line: bytes = b"") -> None:
        if self._runner.input is not None:
            self._runner.hand_over(reply)
        else:
            if announces_chunk(line):
                self.finish()
            # It is not kept.
            self._line = b""
            self.refuse(reply, "?")

    def _hold(self) -> None:
        self.paused = True

    def _release(self) -> None:
        stream = self._body.stream
        self.paused = (
            self._stopped
            or self._yielded
            or self._output.blocked_since is not None
            or (stream is not None and stream.full)
        )

    def _go_on(self) -> None:
        if not self.paused:
            self._advance()

    def _read_on(self) -> None:
        self._release()
        if not self.paused and not self._advancing:
            self._advance()

    def _touch(self) -> None:
        self._active = self._heard = self._now()

    @property
    def _unread(self) -> bool:
        return bool(self._buffer)

    def _take_input(self) -> bytes:
        arrived, self._buffer, self._offset = self._buffer[self._offset :], b"", 0
        return arrived

    def readConnectionLost(self) -> None:
        """The client has shut down its side: answer what has arrived, then close."""
        self._peer_finished = True
        self._go_on()

    def writeConnectionLost(self) -> None:
        """We never shut down one side only."""

    # -- what a LineReceiver has ---------------------------------------------------------------------------------------

    def clearLineBuffer(self) -> bytes:
        """Take what has arrived and is not read yet.

        :returns: it.
        """
        return self._take_input()

    def setRawMode(self) -> None:
        """Pass what arrives to ``rawDataReceived``, which a subclass must have, until :meth:`setLineMode`.

        :raises TypeError: if the class has no such method of its own.
        :raises RuntimeError: while a message is received.
        """
        if type(self).rawDataReceived is LineReceiver.rawDataReceived:
            raise TypeError(f"{type(self).__name__} needs a rawDataReceived() for setRawMode()")
        self._refuse_during_message()
        self._answers_by_itself()
        self.line_mode = 0

    def setLineMode(self, extra: bytes = b"") -> None:
        """Read commands again.

        :param extra: octets that were read and not used; they are read before what arrives next.
        :raises RuntimeError: while a message is received.
        """
        self._refuse_during_message()
        self._answers_by_itself()
        self.line_mode = 1
        self._buffer, self._offset = extra + self._buffer[self._offset :], 0
        self._go_on()

    def _answers_by_itself(self) -> None:
        # A command that decides how the rest is read may reply when it has read it.
        self._code = self._code or 300

    def _refuse_during_message(self) -> None:
        if self._body.reader is not None:
            raise RuntimeError("a message is being received: its end decides what is read after it")

    def sendLine(self, line: bytes) -> None:
        """Send a line that is no reply, after the replies that are due.

        :param line: without its CRLF.
        """
        if self._ending != CLOSED:
            if line[:3].isdigit():
                # A reply after all: the command need not send another.
                self._code = int(line[:3])
            self._out += line + self.delimiter
            if not self._advancing or len(self._out) > MAX_HELD:
                self._flush()

    def pauseProducing(self) -> None:
        """Read nothing more until :meth:`resumeProducing`.

        A connection that is not resumed ends after ``timeout``, like one whose client is silent.
        """
        self._stopped = self.paused = True
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def resumeProducing(self) -> None:
        """Read on, unless a command is in progress: then when it is done."""
        self._stopped = False
        if self._ending == CLOSED:
            return
        # The client was not silent, nor slow: it was not read from.
        self._touch()
        self._body.measure_anew()
        if not self._input_stopped:
            self.transport.resumeProducing()  # type: ignore[union-attr]
        if not self._runner.at_work:
            self._read_on()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.close()

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

    def _output_blocked(self) -> None:
        self._hold()

    def _output_free(self) -> None:
        # The time in which the client did not read counts neither for the hook nor as silence.
        self._touch()
        self._runner.restart_clock()
        if not self._runner.at_work:
            self._release()
            self._advance()

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
        self._buffer, self._offset = b"", 0
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
        self._buffer, self._offset = b"", 0
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
        self._buffer, self._offset = b"", 0
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
