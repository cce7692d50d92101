"""A client of the next host: SMTP or LMTP, one answer per command and per recipient.

Not :mod:`twisted.mail.smtp`'s: the design page says why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLClientConnectionCreator,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.handlers.forwarding.credentials import CredentialsError, SignIn
from twisted_smtpd.wire.replies import Reply
from twisted_smtpd.wire.sending import MalformedReply, ReplyReader, extensions_of

__all__ = ["ClientError", "ConnectionGone", "SMTPClient"]

log = Logger()

CHUNK = 65536

# Seconds that the next host has to close its side after QUIT; with TLS the transport waits for it.
CLOSE_TIMEOUT = 5.0


class ClientError(Exception):
    """The next host could not be asked.

    :param detail: what happened, for the log.
    :param enhanced: the enhanced status code of :attr:`reply`.
    :param text: its text, which says nothing of the network behind us.
    :ivar reply: a 451 for the client that wants the message sent.
    """

    def __init__(self, detail: str, enhanced: str = "4.4.2", text: str = "Connection to the next host failed") -> None:
        super().__init__(detail)
        self.reply = Reply(451, enhanced, (f"{text}, try again later",))


class ConnectionGone(ClientError):
    """The next host has closed the connection."""


@implementer(IPushProducer)
class _Content:
    """Writes a message, as fast as the next host reads it.

    :param content: what is sent.
    :param beginning: what is sent before it.
    :param ending: what ends it.
    """

    def __init__(self, client: SMTPClient, content: bytes, *, beginning: bytes = b"", ending: bytes = b"") -> None:
        self._client = client
        self._content = content
        self._beginning = beginning
        self._ending = ending
        self._offset = 0
        self._paused = self.done = False

    def start(self) -> None:
        transport: Any = self._client.transport
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        transport: Any = self._client.transport
        while not (self._paused or self.done):
            chunk = self._content[self._offset : self._offset + CHUNK]
            if not self._offset:
                chunk = self._beginning + chunk
            self._offset += CHUNK
            self.done = self._offset >= len(self._content)
            # The next host is not idle while it takes what it is sent.
            self._client.restart_timer()
            transport.write(chunk + self._ending if self.done else chunk)
        if self.done:
            transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


class SMTPClient(Protocol):
    """A connection to the next host.

    Each method that asks something raises :exc:`ClientError` if there is no answer.  An answer that is awaited can be
    cancelled, which ends the connection: the next reply could not be assigned to a question then.

    :param clock: the provider of time.
    :param timeout: seconds the next host may be silent.
    :param lmtp: whether it speaks LMTP (RFC 2033).
    :ivar extensions: what it offers: keyword to words.
    :ivar in_transaction: whether it knows of a transaction that is not ended.
    """

    transport: ITLSTransport

    def __init__(self, clock: IReactorTime, *, timeout: float, lmtp: bool = False) -> None:
        self._clock = clock
        self._timeout = timeout
        self.lmtp = lmtp
        self.extensions: dict[str, str] = {}
        self.in_transaction = False
        #: Whether it has served a transaction before: it may have timed out since.
        self.reused = False
        self._reader = ReplyReader()
        self._arrived: deque[Reply] = deque()
        self._waiting: deque[Deferred[Reply]] = deque()
        self._timer: IDelayedCall | None = None
        self._limit = timeout
        self._content: _Content | None = None
        self._encrypted = False
        self._error: ClientError | None = None
        #: Fires once, when the connection can't be used any more.
        self.on_end: Deferred[None] = Deferred()
        #: Fires once, when it is closed.
        self.closed: Deferred[None] = Deferred()

    @property
    def usable(self) -> bool:
        """Whether the next host can be asked something."""
        return self._error is None

    @property
    def busy(self) -> bool:
        """Whether it has been asked something and has not answered."""
        return bool(self._waiting)

    @property
    def sending(self) -> bool:
        """Whether part of a message, but not its end, has been handed to the transport."""
        return self._content is not None and not self._content.done

    @property
    def delivering(self) -> bool:
        """Whether the end of a message has been handed to the transport, and what becomes of it isn't known."""
        return self._content is not None and self._content.done

    # -- connection ----------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            # Twisted 24.7 lets through that a Unix socket has no such option.
            with suppress(OSError):
                set_no_delay(True)
        self._greeting = self._expect()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        self._fail(ConnectionGone(f"connection lost: {reason.getErrorMessage()}"))
        self.closed.callback(None)

    def abort(self, error: ClientError | None = None) -> None:
        """End the connection at once; the awaited answers fail."""
        self._fail(error or ClientError("given up"))

    def _fail(self, error: ClientError) -> None:
        if self._error is not None:
            return
        self._error = error
        self._stop_timer()
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            answer.errback(error)
        self.on_end.callback(None)

    def quit(self) -> None:
        """Say goodbye and close, without waiting for an answer."""
        if self.usable:
            self._error = ClientError("closed")
            self._stop_timer()
            self._timer = self._clock.callLater(CLOSE_TIMEOUT, self.transport.abortConnection)
            self.transport.write(b"QUIT\r\n")
            self.transport.loseConnection()
            self.on_end.callback(None)

    # -- answers -------------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            self._arrived.extend(self._reader.feed(data))
        except MalformedReply as error:
            self._fail(ClientError(f"bad reply: {error}"))
        while self._arrived and self._error is None:
            self._answered(self._arrived.popleft())

    def _answered(self, reply: Reply) -> None:
        if not self._waiting:
            self._fail(ConnectionGone(f"unasked: {reply}"))
            return
        if self.sending:
            self._answered_early(reply)
            return
        answer = self._waiting.popleft()
        if reply.code == 421:
            # RFC 5321 section 3.8: it closes now, whatever else was asked.
            self._fail(ConnectionGone(f"the next host closes: {reply}"))
        elif self._waiting:
            self.restart_timer()
        else:
            self._stop_timer()
        answer.callback(reply)

    def _answered_early(self, reply: Reply) -> None:
        """Handle a reply to a message that is not sent yet: a refusal may be meant so, but a yes can't be true."""
        answer = self._waiting.popleft() if reply.code >= 400 else None
        self._fail(ClientError(f"answered before the end of data: {reply}"))
        if answer is not None:
            answer.callback(reply)

    def _expect(self) -> Deferred[Reply]:
        answer: Deferred[Reply] = Deferred(self._cancelled)
        self._waiting.append(answer)
        self.restart_timer()
        return answer

    def _cancelled(self, answer: Deferred[Reply]) -> None:
        self._waiting.remove(answer)
        self.abort(ClientError("cancelled"))

    def restart_timer(self) -> None:
        """The next host has shown that it is alive."""
        if self._timer is None:
            self._timer = self._clock.callLater(self._limit, self._timed_out)
        else:
            self._timer.reset(self._limit)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _timed_out(self) -> None:
        self._timer = None
        self._fail(ClientError(f"no answer in {self._limit:g} s", text="The next host takes too long"))

    # -- commands ------------------------------------------------------------------------------------------------------

    def _send(self, lines: Sequence[str]) -> list[Deferred[Reply]]:
        if self._error is not None:
            raise self._error
        for line in lines:
            if any(c in line for c in "\r\n\0"):
                raise ValueError("a command with a line end in it")
        octets = "".join(f"{line}\r\n" for line in lines).encode()
        answers = [self._expect() for _ in lines]
        self.transport.write(octets)
        return answers

    async def ask(self, line: str) -> Reply:
        """Send a command.

        :param line: the command without its CRLF.
        :returns: the reply.
        :raises ClientError: if there is none.
        :raises ValueError: if it has a line end in it.
        """
        (answer,) = self._send((line,))
        return await answer

    async def ask_all(self, lines: Sequence[str]) -> list[Reply]:
        """Send commands, all at once if the next host has PIPELINING (RFC 2920).

        :param lines: the commands.
        :returns: a reply for each.
        """
        if "PIPELINING" not in self.extensions:
            return [await self.ask(line) for line in lines]
        answers = self._send(lines)
        try:
            return [await answer for answer in answers]
        finally:
            for answer in answers:
                # The first failure has been raised; the others are the same.
                answer.addErrback(lambda failure: None)

    async def greet(self, hostname: str) -> None:
        """Hear the greeting and say EHLO, LHLO, or to an old host HELO.

        :param hostname: our name.
        """
        self._must(await self._greeting, 220, "greeting")
        await self._hello(hostname)

    async def _hello(self, hostname: str) -> None:
        self.extensions = {}
        verb = "LHLO" if self.lmtp else "EHLO"
        reply = await self.ask(f"{verb} {hostname}")
        if reply.code >= 500 and reply.code != 521 and not (self.lmtp or self._encrypted):
            verb, reply = "HELO", await self.ask(f"HELO {hostname}")
        self._must(reply, 250, verb)
        if verb != "HELO":
            self.extensions = extensions_of(reply)
            if not ISSLTransport.providedBy(self.transport):
                # RFC 8689 section 2: it means nothing without TLS.
                self.extensions.pop("REQUIRETLS", None)

    async def start_tls(self, options: IOpenSSLClientConnectionCreator, hostname: str) -> None:
        """Do STARTTLS (RFC 3207); nothing is sent in clear after it was asked for.

        :param options: what verifies the next host's certificate.
        :param hostname: our name, for the EHLO inside.
        """
        if "STARTTLS" not in self.extensions:
            raise self._refused("STARTTLS is not offered", "4.7.4")
        self._must(await self.ask("STARTTLS"), 220, "STARTTLS")
        if self._error is not None:
            raise self._error
        if self._arrived or self._reader.pending:
            # An attacker in the middle may have added it, to have it taken for an answer inside TLS.
            raise self._refused("more than the reply to STARTTLS", "4.7.5")
        self.transport.startTLS(options)
        self._encrypted = True
        await self._hello(hostname)

    async def log_in(self, sign_in: SignIn, host: str, port: int) -> None:
        """Authenticate (RFC 4954).

        :param sign_in: knows what to say.
        :param host: the next host's name, and
        :param port: its port, which OAUTHBEARER has in it.
        """
        mechanisms = self.extensions.get("AUTH", "").upper().split()
        try:
            exchange = await sign_in.exchange(mechanisms, host, port)
        except CredentialsError as error:
            self.abort()
            raise ClientError(f"AUTH: {error}", "4.7.0", "The next host does not serve us") from None
        if exchange is None:
            raise self._refused(f"{sign_in.mechanisms} is offered", "4.7.0")
        reply = await self.ask(exchange.command)
        for response in exchange.responses:
            if reply.code == 334:
                reply = await self.ask(response)
        if reply.code == 334 and exchange.farewell is not None:
            # The challenge says what is wrong with the token; the reply to an empty response is the refusal.
            reply = await self.ask(exchange.farewell)
        if reply.code != 235:
            # Its text may repeat what we have sent.
            raise self._refused(f"AUTH: {reply.code} {reply.enhanced or ''}", "4.7.0")

    @property
    def takes_chunks(self) -> bool:
        """Whether a message goes with BDAT (RFC 3030), without DATA before it."""
        return "CHUNKING" in self.extensions

    async def send_content(self, content: bytes, replies: int, timeout: float, chunk: bool = False) -> list[Reply]:
        """Send the message after the 354, and hear what becomes of it.

        :param content: the message as it is sent: its lines end with CRLF, and without `chunk` its dots are stuffed.
        :param chunk: whether to send it with BDAT instead, as one chunk.
        :param replies: how many answers there will be: with LMTP one per accepted recipient.
        :param timeout: seconds the next host may be silent before and between them.
        :returns: the replies; fewer if the connection ended after at least one of them.
        """
        if self._error is not None:
            raise self._error
        self._limit = timeout
        answers = [self._expect() for _ in range(replies)]
        if chunk:
            self._content = _Content(self, content, beginning=b"BDAT %d LAST\r\n" % len(content))
        else:
            self._content = _Content(self, content, ending=b".\r\n")
        self._content.start()
        given: list[Reply] = []
        try:
            for answer in answers:
                given.append(await answer)
        except ClientError:
            # Each answer that has arrived counts: its recipient has the message, or will never get it.
            if not given:
                raise
        finally:
            self._content, self._limit = None, self._timeout
            for answer in answers:
                answer.addErrback(lambda failure: None)
        self.in_transaction = False
        return given

    def _must(self, reply: Reply, code: int, what: str) -> None:
        if reply.code != code:
            raise self._refused(f"{what}: {reply}", "4.3.5" if reply.code >= 500 else "4.4.2")

    def _refused(self, detail: str, enhanced: str) -> ClientError:
        """The next host refuses us.  The message is not to blame, so the error is temporary."""
        error = ClientError(detail, enhanced, "The next host does not serve us")
        self.abort(error)
        return error
