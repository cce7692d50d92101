"""The protocol of a server for tests: SMTP or LMTP that writes its dialog down, and fails where it is told to."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure as Reason

from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.testing.failures import Failure, Failures
from twisted_smtpd.testing.transcript import Transcript
from twisted_smtpd.testing.wire import Wire
from twisted_smtpd.wire.content import ContentReader
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["LMTPDouble", "SMTPDouble"]

GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"
END_OF_CONTENT = b"\r\n.\r\n"


class SMTPDouble(SMTP):
    """One SMTP connection of a server for tests.

    :ivar failures: what is to go wrong; the server sets it.
    :ivar transcript: the dialog.
    :ivar wire: the way out.
    """

    wire: Wire

    def _share(self, settings: Any) -> None:
        super()._share(settings)
        self.failures = Failures()
        self.transcript = Transcript()
        self._passed = False
        self._hidden: frozenset[str] = frozenset()
        self._cut: Failure | None = None
        self._tail = b""
        self._left = 0

    @property
    def time_source(self) -> IReactorTime:
        """The time by which this connection goes."""
        return self.connections.timers.clock

    def makeConnection(self, transport: Any) -> None:
        self.wire = Wire(transport, self.transcript, self.time_source)
        super().makeConnection(self.wire)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Reason = connectionDone) -> None:
        self.transcript.remark("the connection has ended")
        self.wire.lost()
        super().connectionLost(reason)

    async def drain(self) -> None:
        # Before TLS: a reply that is sent in pieces must have left.
        await self.wire.emptied()
        await super().drain()

    # -- commands ------------------------------------------------------------------------------------------------------

    def lineReceived(self, line: bytes) -> None:
        if self._runner.input is not None:
            self.transcript.secret()
        elif self._passed:
            self._passed = False
        else:
            self.transcript.client(line)
            try:
                if self._goes_wrong(line):
                    return
            except Exception as error:
                # The test's own `match` has failed.
                self._command_failed(error)
                return
        super().lineReceived(line)

    def _goes_wrong(self, line: bytes) -> bool:
        """Whether something else happens than the command."""
        text = line.decode("utf-8", "replace")
        verb = text.split(None, 1)[0].upper() if text.strip() else ""
        if verb in self._hidden:
            self._verb = verb
            self._runner.start(self._refuse_hidden(verb))
            return True
        failure = self._due("EHLO" if verb == "LHLO" else verb, text)
        if failure is None:
            if verb == "DATA" and self._accepted and (cut := self._due("CONTENT", self.addressed)) is not None:
                self._runner.start(self._cut_content(cut))
                return True
            return False
        if failure.action == "without":
            self._hidden = failure.words
            return False
        self._verb = verb
        if verb == "RCPT" and failure.action in ("reply", "greylist"):
            self._recipient_refused()
        self._runner.start(self._fail_command(failure, line))
        return True

    def _due(self, where: str, line: str) -> Failure | None:
        return self.failures.due(where, line, self.session, self.envelope)

    @property
    def addressed(self) -> str:
        """The sender and the recipients, for a failure's ``match``."""
        return " ".join((self.envelope.mail_from or "", *self.envelope.rcpt_tos))

    async def _refuse_hidden(self, verb: str) -> None:
        await self.push(f"502 5.5.1 {verb} is not available")

    async def _fail_command(self, failure: Failure, line: bytes) -> None:
        if failure.action in ("reply", "greylist"):
            await self.push(failure.reply)
        elif failure.action == "raw":
            self._flush()
            self.wire.write(failure.raw)
        elif not await self.fail(failure):
            if failure.action == "split":
                self._flush()
                self.wire.split_next(failure.delay)
            # The line is read again, as if it had come now.
            self._passed = True
            self.setLineMode(line + self.delimiter)

    async def fail(self, failure: Failure) -> bool:
        """Let happen what happens without a reply; or wait, where the reply is slow.

        :returns: whether the connection has ended.
        """
        self.transcript.remark(f"failure: {failure.action}")
        if failure.action == "drop":
            self._flush()
            self.close()
            return True
        if failure.action == "reset":
            self.drop("the test asked for it")
            return True
        if failure.action == "stall":
            await Deferred()
        if failure.action == "slow":
            await deferLater(self.time_source, failure.delay)
        return False

    # -- content -------------------------------------------------------------------------------------------------------

    async def _received(self, reader: ContentReader) -> None:
        self.transcript.content(reader.size)
        await super()._received(reader)

    async def _cut_content(self, failure: Failure) -> None:
        self._verb = "DATA"
        await self.push(GO_AHEAD)
        self._cut, self._left, self._tail = failure, failure.octets, b"\r\n"
        self.setRawMode()

    def rawDataReceived(self, data: bytes) -> None:
        """Read a part of a message, up to the octet at which something goes wrong, or to its end."""
        if self._cut is None:
            return
        seen = self._tail + data
        self._tail = seen[-len(END_OF_CONTENT) + 1 :]
        self._left -= len(data)
        if self._left > 0 and END_OF_CONTENT not in seen:
            return
        failure, self._cut = self._cut, None
        self.transcript.remark(f"in the middle of the message, after {failure.octets:,} octets")
        if failure.action == "raw":
            self._flush()
            self.wire.write(failure.raw)
            self.close()
        elif failure.action == "reply":
            self.send_reply(failure.reply, verb="DATA")
            self.close()
        elif failure.action == "drop":
            self.close()
        elif failure.action == "reset":
            self.drop("the test asked for it")
        # With "stall" the rest is read, and nothing is said.

    def hide(self, responses: list[str]) -> list[str]:
        """The lines of a reply to EHLO without the extensions that this client must not see."""
        return [line for line in responses if not (set(line[4:].upper().split(None, 1)[:1]) & self._hidden)]

    async def decide(self, where: str) -> str | None:
        """Let go wrong what is to go wrong at MESSAGE or ANSWER.

        :returns: the status to answer with, or ``None`` for the usual one.
        :raises SMTPReplyError: if the connection has been closed.
        """
        failure = self._due(where, self.addressed)
        return None if failure is None else await self.status_of(failure)

    async def status_of(self, failure: Failure) -> str | None:
        """Carry a failure out, in a hook.

        :returns: the status that the hook has to answer with, or ``None`` for the usual one.
        :raises SMTPReplyError: if the connection has been closed.
        """
        if failure.action in ("reply", "greylist"):
            return str(failure.reply)
        if failure.action == "raw":
            self._flush()
            self.wire.replace_next(failure.raw)
        elif failure.action == "split":
            self._flush()
            self.wire.split_next(failure.delay)
        elif await self.fail(failure):
            # Nothing is sent on a closed connection; the message counts as not answered.
            raise SMTPReplyError(421, "4.3.0", "The connection has been closed")
        return None


class LMTPDouble(SMTPDouble, LMTP):
    """One LMTP connection of a server for tests."""
