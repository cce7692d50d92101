"""Lines and content in.

The way of an octet through :meth:`Connection.dataReceived` is part of the fast path: what would be a call of its own
elsewhere is written out there.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

from twisted_smtpd.protocol.body import Body
from twisted_smtpd.protocol.replies import MAX_HELD, Replies
from twisted_smtpd.protocol.running import CommandRunner
from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.protocol.view import CLOSED, FINISHING, STOPPING
from twisted_smtpd.runtime.connections import ICounted
from twisted_smtpd.runtime.turns import COMMANDS_AT_ONCE, TIME_AT_ONCE, reactor_of
from twisted_smtpd.runtime.twisted_private import running_loop
from twisted_smtpd.wire.replies import Reply

__all__ = ["LINE_TOO_LONG", "MAX_SENT_AHEAD", "Connection", "announces_chunk"]

# What a client may send ahead while its command is being worked on (octets); beyond, TCP makes it wait.
MAX_SENT_AHEAD = 2**16

# As numbers: to look for a number in bytes takes a fifth of the time that it takes to look for bytes.
LF = ord("\n")
CR = ord("\r")

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
class Connection(Replies):
    """One connection: splits what arrives into lines and content.

    A subclass says in :meth:`lineReceived` what a line means, as with each ``LineReceiver``.

    :param settings: what this connection shares with others of its server.
    :param runner: its command in progress.
    :param body: the message it is receiving.
    """

    __slots__ = (
        *("_active", "_advancing", "_buffer", "_heard", "_input_stopped", "_offset", "_peer_address"),
        *("_peer_finished", "_skipping_line", "_stopped", "_yielded", "line_mode", "loop", "paused"),
    )

    delimiter = b"\r\n"
    bare_newline: str

    _active: float
    _heard: float

    def __init__(self, settings: SharedSettings, runner: CommandRunner, body: Body) -> None:
        super().__init__(settings, runner, body)
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

    # -- its beginning -------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = running_loop()
        self._open_output(self._output_blocked, self._output_free)
        self._active = self._heard = self._now()
        # Asked for once: a transport makes a new object each time.
        self._peer_address: Any = self.transport.getPeer()  # type: ignore[union-attr]

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
        line only.  Each LF is answered all the same, or a client that ends its lines so would wait forever.

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
            reply = self._unfit_line(line[:-1]) or (None if lenient else BARE_LINE_FEED)
            if skipping == BEHIND_LINE_FEED and reply is not None:
                self._refuse_unread(reply)
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

    def _output_blocked(self) -> None:
        self._hold()

    def _output_free(self) -> None:
        # The time in which the client did not read counts neither for the hook nor as silence.
        self._touch()
        self._runner.restart_clock()
        if not self._runner.at_work:
            self._release()
            self._advance()
