"""The protocol of a server for tests: SMTP or LMTP that writes its dialog down, and fails where it is told to."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure as Reason

from twisted_smtpd.auth.results import AuthResult
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.protocol.chunking import reading_chunk
from twisted_smtpd.protocol.reporting import HIDDEN_LINES
from twisted_smtpd.protocol.transcript import Traced, shown_client_line
from twisted_smtpd.protocol.transcript import Transcript as TranscriptInLog
from twisted_smtpd.protocol.verdict import is_many
from twisted_smtpd.runtime.awaiting import DONE, MISSING, settle
from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.testing.failures import Failure, Failures
from twisted_smtpd.testing.transcript import Transcript
from twisted_smtpd.testing.wire import Wire
from twisted_smtpd.wire.commands import parse_chunk
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["LMTPDouble", "SMTPDouble", "failing"]

GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"
END_OF_CONTENT = b"\r\n.\r\n"


class SMTPDouble(SMTP):
    """One SMTP connection of a server for tests, with any handler.

    A handler may have ``message_refused(server, session, envelope, recipients, refusal)``, to keep what a failure at
    MESSAGE has refused.

    :cvar server_failures: what is to go wrong on all connections of this class; ``None`` if each has its own.
    :ivar failures: what is to go wrong.
    :ivar transcript: the dialog.
    :ivar wire: the way out.
    """

    server_failures: ClassVar[Failures | None] = None
    wire: Wire

    def _share(self, settings: Any) -> None:
        super()._share(settings)
        self.failures = Failures() if self.server_failures is None else self.server_failures
        if self.authenticator is not None:
            self.authenticator = FailingAuthenticator(self.authenticator)
        self.transcript = Transcript()
        self._passed = False
        self._hidden: frozenset[str] = frozenset()
        self._cut: Failure | None = None
        self._tail = b""
        self._left = self._chunk_left = 0

    @property
    def time_source(self) -> IReactorTime:
        """The time by which this connection goes."""
        return self.connections.timers.clock

    def makeConnection(self, transport: Any) -> None:
        self.wire = Wire(transport, self.transcript, self.time_source)
        super().makeConnection(self.wire)  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        super().connectionMade()
        self._transcript = WatchedContent(self, self.transcript, self.trace)

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
        if self._passed:
            self._passed = False
        else:
            answers_challenge = self._runner.input is not None
            self.transcript.client(shown_client_line(self, line))
            try:
                if not answers_challenge and self._goes_wrong(line):
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
        if ("CHUNKING" if verb == "BDAT" else verb) in self._hidden:
            self._note_command(verb, line)
            self._runner.start(self._refuse_hidden(verb))
            return True
        failure = self._due("EHLO" if verb == "LHLO" else verb, text)
        if failure is None:
            return self._content_goes_wrong(verb, text)
        if failure.action == "without":
            self._hidden = failure.words
            return False
        self._note_command(verb, line)
        if verb == "RCPT" and failure.action in ("reply", "greylist"):
            self._recipient_refused()
        self._runner.start(self._fail_command(failure, line))
        return True

    def _note_command(self, verb: str, line: bytes) -> None:
        """Note what is refused here, for the log; and that secrets may follow, as after any AUTH that is refused."""
        self._verb, self._line = verb, line
        if verb == "AUTH":
            self._hidden_lines = HIDDEN_LINES

    def _due(self, where: str, line: str) -> Failure | None:
        return self.failures.due(where, line, self.session, self.envelope)

    @property
    def addressed(self) -> str:
        """The sender and the recipients, for a failure's ``match``."""
        return " ".join((self.envelope.mail_from or "", *self.envelope.rcpt_tos))

    async def _refuse_hidden(self, verb: str) -> None:
        # Nothing tells a server without CHUNKING that a chunk follows.
        await self.push("521 5.5.1 No CHUNKING here" if verb == "BDAT" else f"502 5.5.1 {verb} is not available")

    async def _fail_command(self, failure: Failure, line: bytes) -> None:
        if self._verb != "BDAT" or failure.action not in ("reply", "greylist", "raw"):
            await self._fail_at_once(failure, line)
            return

        async def refuse(connection: Any, argument: str | None) -> None:
            if failure.action == "raw":
                await self._fail_at_once(failure, line)
            else:
                raise SMTPReplyError(failure.reply.code, failure.reply.enhanced, "\n".join(failure.reply.lines))

        # The octets that were announced must not run as commands.
        await reading_chunk(refuse)(self, line.decode("ascii", "replace").partition(" ")[2])

    async def _fail_at_once(self, failure: Failure, line: bytes) -> None:
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

    def _content_goes_wrong(self, verb: str, line: str) -> bool:
        """Whether something goes wrong at CONTENT, in the message or the chunk that this command brings."""
        if verb not in ("DATA", "BDAT") or not self._accepted or (verb == "DATA" and self._in_chunks):
            return False
        if not self._in_chunks:
            self._cut = self._due("CONTENT", self.addressed)
            self._left = 0 if self._cut is None else self._cut.octets
        if self._cut is None:
            return False
        if verb == "DATA":
            self._runner.start(self._cut_content())
            return True
        try:
            size, last = parse_chunk(line.partition(" ")[2])
        except SMTPReplyError:
            return False
        if self._left > size and not last:
            self._left -= size
            return False
        self._chunk_left = size
        self._verb = "BDAT"
        self.setRawMode()
        if not size:
            self.rawDataReceived(b"")
        return True

    async def _cut_content(self) -> None:
        self._verb = "DATA"
        await self.push(GO_AHEAD)
        self._chunk_left, self._tail = -1, b"\r\n"
        self.setRawMode()

    def rawDataReceived(self, data: bytes) -> None:
        """Read a part of a message, up to the octet at which something goes wrong, or to its end."""
        if self._cut is None:
            return
        self._left -= len(data)
        if self._chunk_left >= 0:
            self._chunk_left = max(self._chunk_left - len(data), 0)
            ended = not self._chunk_left
        else:
            seen = self._tail + data
            self._tail = seen[-len(END_OF_CONTENT) + 1 :]
            ended = END_OF_CONTENT in seen
        if self._left > 0 and not ended:
            return
        failure, self._cut = self._cut, None
        self.transcript.remark(f"in the middle of the message, after {failure.octets:,} octets")
        if failure.action == "raw":
            self._flush()
            self.wire.write(failure.raw)
            self.close()
        elif failure.action == "reply":
            self.send_reply(failure.reply, verb=self._verb)
            self.close()
        elif failure.action == "drop":
            self.close()
        elif failure.action == "reset":
            self.drop("the test asked for it")
        # With "stall" the rest is read, and nothing is said.

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def push(self, status: str | bytes | Reply) -> Awaitable[None]:
        if self._hidden and self._verb in ("EHLO", "LHLO"):
            text = status.decode("latin-1") if isinstance(status, bytes) else str(status)
            lines = [line for line in text.split("\n") if not self._hides(line)]
            if not lines:
                return DONE
            status = "\n".join(lines)
        return super().push(status)

    def _hides(self, line: str) -> bool:
        """Whether a line of the reply to EHLO tells of an extension that this client must not see."""
        return bool(set(line[4:].upper().split(None, 1)[:1]) & self._hidden)

    def _call_handler_hook(self, command: str, *arguments: Any) -> Awaitable[Any]:
        if command == "CONNECT":
            return self._connected()
        if command in ("DATA", "DATA_STREAM"):
            return self._judge(command, arguments)
        return super()._call_handler_hook(command, *arguments)

    async def _connected(self) -> Any:
        """Let the handler see the client; then let go wrong what is to go wrong at CONNECT."""
        status = await super()._call_handler_hook("CONNECT")
        peer = self.session.peer
        failure = self._due("CONNECT", str(peer[0]) if peer else "")
        try:
            instead = None if failure is None else await self.status_of(failure)
        except SMTPReplyError as error:
            return error.reply
        return status if instead is None else instead

    async def _judge(self, command: str, arguments: Sequence[Any]) -> Any:
        """Let the handler judge a message, apart from what goes wrong at MESSAGE and at ANSWER."""
        try:
            if not self.replies_to_each_recipient:
                refusal = await self.decide("MESSAGE")
                refusals = [refusal] * len(self.envelope.recipients)
            else:
                refusals = [await self._refusal(recipient) for recipient in self.envelope.recipients]
            await self._note_refusals(refusals)
            if refusals and None not in refusals:
                for stream in arguments:
                    async for _ in stream:
                        # It is not kept.
                        pass
                return refusals if self.replies_to_each_recipient else refusals[0]
            status = await self._ask_handler(command, arguments, refusals)
            return await self._with_failures(status, refusals)
        except SMTPReplyError as error:
            return error.reply

    async def _refusal(self, recipient: Recipient) -> str | None:
        """What goes wrong at MESSAGE for one recipient (LMTP)."""
        failure = self._due("MESSAGE", f"{self.envelope.mail_from} {recipient.address}")
        return None if failure is None else await self.status_of(failure)

    @property
    def refusal_listener(self) -> Any:
        """What may have ``message_refused``."""
        return self.event_handler

    async def _note_refusals(self, refusals: Sequence[str | None]) -> None:
        """Tell a handler that wants to know it what it does not get."""
        note = getattr(self.refusal_listener, "message_refused", None)
        if note is None:
            return
        for refusal in dict.fromkeys(refusals):
            if refusal is not None:
                pairs = zip(self.envelope.recipients, refusals, strict=True)
                its = tuple(recipient for recipient, status in pairs if status == refusal)
                note(self, self.session, self.envelope, its, refusal)

    async def _ask_handler(self, command: str, arguments: Sequence[Any], refusals: Sequence[str | None]) -> Any:
        """Call the handler's hook with the recipients that are left."""
        if not any(refusals):
            return await self._ask(command, arguments)
        envelope = self.envelope
        before = envelope.recipients, envelope.rcpt_tos, envelope.rcpt_options, self._accepted
        left = [one for one, refusal in zip(before[0], refusals, strict=True) if refusal is None]
        envelope.recipients, envelope.rcpt_tos = left, [recipient.address for recipient in left]
        envelope.rcpt_options = [option for recipient in left for option in recipient.options]
        self._accepted = len(left)
        try:
            status = await self._ask(command, arguments)
            return [one async for one in status] if hasattr(status, "__aiter__") else status
        finally:
            envelope.recipients, envelope.rcpt_tos, envelope.rcpt_options, self._accepted = before

    async def _ask(self, command: str, arguments: Sequence[Any]) -> Any:
        status = await super()._call_handler_hook(command, *arguments)
        if status is MISSING and command == "DATA" and (hook := self._settings.deprecated_data_hook) is not None:
            status = await settle(hook(self, self.session, self.envelope), self.loop)
        return status

    async def _with_failures(self, status: Any, refusals: Sequence[str | None]) -> Any:
        """The status with what goes wrong at ANSWER, and for the refused recipients."""
        answer = await self.decide("ANSWER") if _is_yes(status) else None
        if answer is not None:
            status = answer
        if not any(refusals):
            return status
        if status is MISSING:
            status = "250 OK"
        left = iter(status if is_many(status) else [status] * refusals.count(None))
        return [next(left) if refusal is None else refusal for refusal in refusals]

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


class WatchedContent(TranscriptInLog):
    """Notes the content in a test's transcript, and writes the dialog into the log if that is asked for.

    :param connection: the connection.
    :param own: the test's transcript.
    :param traced: whether the log has the dialog.
    """

    __slots__ = ("_own", "_traced")

    def __init__(self, connection: Traced, own: Transcript, traced: bool) -> None:
        super().__init__(connection)
        self._own, self._traced = own, traced

    def content(self, octets: int, chunk: bool = False) -> None:
        self._own.content(octets, chunk)
        super().content(octets, chunk)

    def _say(self, side: str, line: str) -> None:
        if self._traced:
            super()._say(side, line)


class LMTPDouble(SMTPDouble, LMTP):
    """One LMTP connection of a server for tests."""


def failing(failures: Failures, lmtp: bool = False) -> type[SMTPDouble]:
    """A protocol whose connections fail, for any handler.

    :param failures: what is to go wrong.
    :param lmtp: whether it is LMTP.
    """
    base = LMTPDouble if lmtp else SMTPDouble
    return type(base.__name__, (base,), {"server_failures": failures, "__module__": __name__})


class FailingAuthenticator:
    """Asks an authenticator, unless something is to go wrong at AUTH.

    :param authenticator: the authenticator; what else it has can be reached.
    """

    def __init__(self, authenticator: Any) -> None:
        self._authenticator = authenticator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._authenticator, name)

    async def __call__(
        self, server: SMTPDouble, session: Session, envelope: Envelope, mechanism: str, credentials: Any
    ) -> Any:
        login = getattr(credentials, "login", b"")
        name = login.decode("utf-8", "replace") if isinstance(login, bytes) else str(login)
        failure = server.failures.due("AUTH", name, session, envelope)
        if failure is not None and (status := await server.status_of(failure)) is not None:
            return AuthResult(success=False, handled=False, message=status)
        given = self._authenticator(server, session, envelope, mechanism, credentials)
        return await settle(given, server.loop)


def _is_yes(status: Any) -> bool:
    """Whether a hook has taken a message, at least for some recipients."""
    if status is MISSING:
        return True
    if isinstance(status, (list, tuple)):
        return any(_is_yes(one) for one in status)
    return str(status).startswith("2")
