"""From a line to its command, and from one state to the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd.logs.events import HOOK_FAILED, TLS_IN_CLEAR, TURNED_AWAY
from twisted_smtpd.protocol.body import Body
from twisted_smtpd.protocol.commands import unknown_command
from twisted_smtpd.protocol.connection import LINE_TOO_LONG, TLS_HELLO, announces_chunk
from twisted_smtpd.protocol.extensions import Extension
from twisted_smtpd.protocol.hooks import Hooks
from twisted_smtpd.protocol.opening import open_connection
from twisted_smtpd.protocol.reporting import report_end, report_refusal
from twisted_smtpd.protocol.running import CommandRunner
from twisted_smtpd.protocol.settings import Command, SharedSettings
from twisted_smtpd.protocol.states import (
    NEEDS_AUTH,
    NEEDS_HELO,
    RECIPIENT,
    SENDER,
    TABLE,
    State,
    Verdicts,
    state_of,
    transaction_state,
)
from twisted_smtpd.protocol.timeouts import Timeouts
from twisted_smtpd.protocol.tls import TLSLayer
from twisted_smtpd.protocol.transcript import Transcript
from twisted_smtpd.protocol.xclient import ClientIdentity
from twisted_smtpd.runtime.awaiting import CANCELLED, DONE
from twisted_smtpd.runtime.connections import limited_address
from twisted_smtpd.session import Session
from twisted_smtpd.wire.commands import parse_command
from twisted_smtpd.wire.content import ContentReader
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["Dispatch"]


@implementer(IHandshakeListener)
class Dispatch(Hooks):
    """Carries out command lines; :class:`twisted_smtpd.smtp.SMTP` documents its arguments.

    :ivar implicit_tls: what makes the TLS connection where TLS comes first; a factory may set it before the connection
        is made.
    """

    __slots__ = (
        *("_accepted", "_barrier", "_calls", "_commands", "_held_together", "_identity", "_idle_commands", "_met"),
        *("_refusals", "_refused", "_surplus", "_tls", "_verb", "implicit_tls"),
    )

    #: The ESMTP extensions, in the order in which EHLO lists them.
    extensions: tuple[Extension, ...] = ()
    #: Octets of a command line, CRLF included (RFC 5321 section 4.5.3.1.4), before what extensions add.
    command_size_limit: int = 512
    #: The same for single commands, by verb, instead of what extensions add.
    command_size_limits: Mapping[str, int] = {}
    #: Octets of a local part; 0 for no limit of its own.
    local_part_limit: int = 0
    #: Commands that a base class has and this one has not.
    withheld_commands: frozenset[str] = frozenset()
    #: Options that must have a certain value in this protocol, by name.
    required_options: Mapping[str, Any] = {}
    #: What may come when.
    states: Mapping[State, Verdicts] = TABLE
    #: Whether recipients count that a hook put into the envelope by itself, without a RCPT.
    hooks_may_address = True
    #: Whether there is a reply for each recipient after a message (LMTP).
    replies_to_each_recipient = False
    #: The command that has to come first, as a refusal names it.
    first_command = "HELO"
    default_ident = "ESMTP twisted-smtpd"
    _commands: dict[str, Command]

    def _share(self, settings: SharedSettings) -> None:
        """Begin with the settings that this connection shares with others."""
        runner = CommandRunner(self)
        body = Body(self, runner)
        Hooks.__init__(self, settings, runner, body)
        self._verb = ""
        self._accepted = 0
        self._refused = 0
        self._surplus = 0
        self._idle_commands = 0
        self._refusals = 0
        self._barrier: State | None = State.UNWELCOME
        self._commands = settings.dispatch[State.UNWELCOME]
        self._met = False
        self._held_together = True
        self._calls: dict[str, int] | None = None
        self._tls: TLSLayer | None = None
        self._identity: ClientIdentity | None = None
        self.implicit_tls: IOpenSSLServerConnectionCreator | None = None

    @property
    def max_command_size_limit(self) -> int:
        """Octets of the longest command line."""
        return self._settings.longest_command

    @property
    def may_vouch(self) -> bool:
        """Whether the client may say for which other client it speaks (XCLIENT)."""
        return self._identity is not None and self._identity.may_vouch

    @property
    def may_start_tls(self) -> bool:
        """Whether STARTTLS is possible: there is no TLS yet, and the transport has it."""
        return not self.session.tls and hasattr(self.transport, "startTLS")

    # -- the connection's beginning and end ----------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.envelope = self._create_envelope()
        super().connectionMade()
        if self.trace:
            self._transcript = Transcript(self)
        self._timeouts = Timeouts(self, self._runner, self._body, self._active)
        if ISSLTransport.providedBy(self.transport):
            # The endpoint that listens has added TLS.
            self.implicit_tls = None
            self._tls = TLSLayer(self, handshaking=True)
        elif self.implicit_tls is None:
            self.implicit_tls = self._settings.security.implicit
        refusal = self._admit()
        if refusal is not None:
            self.turn_away(refusal)
            return
        try:
            rest = open_connection(self)
        except Exception as error:
            self._command_failed(error)
        else:
            if rest is DONE:
                self._find_state()
            else:
                self._runner.start(rest)  # type: ignore[arg-type]
        self._advance()

    # -- for asyncio: loop.create_server(lambda: SMTP(handler)) --------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Serve a connection that asyncio has accepted.

        :param transport: asyncio's transport, without TLS.
        :raises RuntimeError: if it has TLS.
        """
        # Imported here: few programs need it.
        from twisted_smtpd.runtime.asyncio_sockets import move_socket, reactor_for

        reactor = reactor_for(transport, self)
        self.connections = self._settings.connections_on(reactor)
        move_socket(transport, self, reactor)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; for classes that override this.

        :param error: why, or ``None`` if it was closed.
        """

    def data_received(self, data: bytes) -> None:
        """Nothing arrives by way of asyncio: the connection's socket has moved."""

    def eof_received(self) -> None:
        """Nothing arrives by way of asyncio."""

    def pause_writing(self) -> None:
        """Nothing is written by way of asyncio."""

    def resume_writing(self) -> None:
        """Nothing is written by way of asyncio."""

    # -- the session ---------------------------------------------------------------------------------------------------

    def turn_away(self, status: str) -> None:
        """Refuse a client before its greeting, and close.

        :param status: what to say; ``{hostname}`` stands for the server's name.
        """
        if self.implicit_tls is not None or (self._tls is not None and self._tls.handshaking):
            # The client waits for a handshake, and would take a reply in clear for a broken one.  Or the reply would
            # wait for the end of the handshake, and no limit counts the connections that wait like that.
            reply = Reply.parse(status.format(hostname=self._settings.values["hostname"]))
            TURNED_AWAY.tell(self, code=reply.code, reply=str(reply))
            self.drop(str(reply))
            return
        self.send_reply(status.format(hostname=self._settings.values["hostname"]), verb="")
        self.close()

    def _meet(self) -> None:
        self._met = True
        self._verb = ""

    def _stands_for(self, peer: Any) -> str | None:
        self.session.peer = peer
        return self._count_for(limited_address(peer[0]) if peer else None)

    def _client_identity(self) -> ClientIdentity:
        if self._identity is None:
            self._identity = ClientIdentity(self)
        return self._identity

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._tls is not None:
            self._tls.lost(reason)
        report_end(self, reason)
        super().connectionLost(reason)
        if self._settings.lost_is_heard:
            error: Any = reason.value
            self.connection_lost(None if isinstance(error, ConnectionDone) else error)
        self._held_together = False
        if self._met and "DISCONNECT" in self._settings.hooks:
            self._runner.say_goodbye(self._call_disconnect(reason))
        else:
            self._dissolve()

    def _dissolve(self) -> bool:
        """Take the parts of a connection that has ended from each other, unless something still uses them.

        They refer to the connection.  Without these cycles it is freed at once, its message too, and not when the
        garbage collector comes.

        :returns: whether it was done.
        """
        if self._held_together or self._runner.coroutine is not None or self._advancing:
            return False
        # Not a second time.
        self._held_together = True
        self._runner.retire()
        self._body.retire()
        self._timeouts.retire()
        self._tls = self._identity = self._transcript = None
        return True

    async def _call_disconnect(self, reason: Failure) -> None:
        try:
            await self._call_handler_hook("DISCONNECT", reason.value)
        except Exception:
            HOOK_FAILED.tell_failure(self, Failure(), what="handle_DISCONNECT")

    # -- TLS and other things that are waited for ----------------------------------------------------------------------

    @property
    def _has_tls(self) -> bool:
        return self._tls is not None

    def _tls_layer(self) -> TLSLayer:
        if self._tls is None:
            self._tls = TLSLayer(self)
        return self._tls

    def handshakeCompleted(self) -> None:
        """The transport has TLS now."""
        self._tls_layer().completed()

    async def _read_content(self, reader: ContentReader) -> None:
        await self._body.read(reader)

    async def _sleep(self) -> None:
        await self._runner.next_input()

    def _wake(self) -> None:
        if self._runner.input is not None:
            self._touch()
            self._runner.hand_over(None)
            self._go_on()

    async def _wait(self, seconds: float, give_up: Callable[[], None], waiting: Coroutine[Any, Any, None]) -> None:
        self._timeouts.wait_at_most(seconds, give_up)
        await waiting
        self._timeouts.no_longer_waiting()

    async def read_line(self, limit: int) -> bytes:
        """The client's next line, without its CRLF.

        :param limit: octets it may have.
        :raises SMTPReplyError: if it is longer, or ends with LF alone where that ends no line.
        """
        line = await self._runner.next_input(limit)
        if isinstance(line, Reply):
            raise SMTPReplyError(line.code, line.enhanced, line.lines[0])
        return line  # type: ignore[no-any-return]

    # -- commands ------------------------------------------------------------------------------------------------------

    def lineReceived(self, line: bytes) -> None:
        """A line, without its line end: a command, or what a command waits for."""
        settings = self._settings
        if self._transcript is not None:
            self._transcript.client_line(line)
        if (len(line) > settings.fits_all or self._runner.input is not None) and self._is_other_line(line):
            return
        self._verb = "?"
        self._line = line
        commands = self._commands
        try:
            verb, argument = parse_command(line, commands)
            command = commands.get(verb)
            if command is None:
                raise unknown_command(verb, bool(self._hidden_lines))
            self._verb = verb
            if settings.call_limits is not None:
                self._count_call(verb, settings.call_limits)
            rest = command.method(self, argument)
        except Exception as error:
            if line.startswith(TLS_HELLO):
                self._tls_in_clear()
                return
            if self._verb == "?" and announces_chunk(line):
                self.finish()
            self._command_failed(error)
            return
        # DATA returns the body, which arrives without a coroutine that waits for it.
        if rest is not DONE and rest is not self._body:
            self._runner.start(rest)  # type: ignore[arg-type]

    def _tls_in_clear(self) -> None:
        TLS_IN_CLEAR.tell(self)
        self._why = "TLS on a port that begins in clear"
        super()._tls_in_clear()

    def _is_other_line(self, line: bytes) -> bool:
        """Take a line for which a command waits, or that is too long.

        :returns: whether it was one of these; if not, it is a command.
        """
        waited_for = self._runner.input is not None
        reply = self._unfit_line(line)
        if line.startswith(TLS_HELLO):
            self._tls_in_clear()
        elif reply is not None or (not waited_for and self._is_too_long(line)):
            self._refuse_line(LINE_TOO_LONG, line)
        elif waited_for:
            self._runner.hand_over(line)
        else:
            return False
        return True

    def _is_too_long(self, line: bytes) -> bool:
        """Whether a line that is not too long for every command is too long for its own."""
        try:
            verb, _ = parse_command(line, self._commands)
        except SMTPReplyError:
            return False
        command = self._commands.get(verb)
        return command is not None and len(line) + 2 > command.size_limit

    def _count_call(self, verb: str, limits: Mapping[str, int]) -> None:
        if self._calls is None:
            self._calls = {}
        count = self._calls[verb] = self._calls.get(verb, 0) + 1
        if count > limits.get(verb, limits["*"]):
            raise SMTPReplyError(421, "4.7.0", f"{verb} sent too many times")

    def _find_state(self) -> None:
        self._commands = self._settings.dispatch[state_of(self)]

    def _command_done(self) -> None:
        # What _find_state does, without the call: a hook may have changed session and envelope.
        self._commands = self._settings.dispatch[state_of(self)]
        self._release()
        if self._gone:
            self.leave()
            self._dissolve()

    def _command_failed(self, error: BaseException) -> None:
        if isinstance(error, SMTPReplyError):
            self._command_done()
            self.refuse(error.reply)
        elif self._gone and isinstance(error, CANCELLED):
            self.leave()
            self._dissolve()
        else:
            self._runner.start(self._answer_failure(error))

    async def _answer_failure(self, error: BaseException) -> None:
        self.send_reply(await self.status_for(error))

    async def check_helo_needed(self, helo: str = "") -> bool:
        """Refuse a command before HELO or EHLO.  A class that overrides this is asked before MAIL, RCPT and DATA.

        :param helo: the command to ask for.
        :returns: whether it was refused.
        """
        if self.session.host_name:
            return False
        text = NEEDS_HELO.text.replace("HELO", helo or self.first_command)
        raise SMTPReplyError(NEEDS_HELO.code, NEEDS_HELO.enhanced, text)

    async def check_auth_needed(self, command: str) -> bool:
        """Refuse a command before authentication, where that is required.

        A class that overrides this is asked before MAIL, RCPT, DATA, VRFY, EXPN and HELP.

        :param command: its verb.
        :returns: whether it was refused.
        """
        if self.auth_required and not self.session.authenticated:
            raise SMTPReplyError(NEEDS_AUTH.code, NEEDS_AUTH.enhanced, NEEDS_AUTH.text)
        return False

    def _no_argument(self, argument: str | None) -> None:
        if argument is not None:
            raise SMTPReplyError(501, "5.5.4", f"Syntax: {self._verb}")

    # -- state ---------------------------------------------------------------------------------------------------------

    def _sender_accepted(self) -> None:
        """A MAIL without a hook was accepted."""
        # A class may make envelopes that have a recipient already.
        self._commands = self._settings.dispatch[transaction_state(self) if self.envelope.rcpt_tos else SENDER]

    def _recipient_accepted(self) -> None:
        if not self._accepted:
            self._commands = self._settings.dispatch[RECIPIENT]
        self._accepted += 1

    def forgive(self) -> None:
        super().forgive()
        self._idle_commands = self._refusals = 0

    def count_idle(self) -> None:
        """Count a command that achieves nothing.

        :raises SMTPReplyError: 421 if there have been too many.
        """
        self._idle_commands += 1
        if self._idle_commands > self.max_idle_commands > 0:
            raise SMTPReplyError(421, "4.7.0", "Too many commands without a message, closing the connection")

    def _recipient_refused(self) -> None:
        self._refused += 1

    def _set_barrier(self, barrier: State | None) -> None:
        # The state follows when the command is done; meanwhile no other one runs.
        self._barrier = barrier

    def _renew_session(self) -> Session:
        before, self.session = self.session, self._create_session()
        self.session.inherit(before)
        self._set_rset_state()
        return self.session

    def _set_post_data_state(self) -> None:
        """End the transaction."""
        self.envelope = self._create_envelope()
        self._accepted = self._refused = self._surplus = 0
        if self._body.chunked is not None:
            self._body.forget_chunks()
        if self.session.xforward:
            # XFORWARD holds for one message: the next one may come from another client.
            self.session.xforward = {}

    @property
    def _in_chunks(self) -> bool:
        return self._body.chunked is not None

    def _forget_message(self) -> Awaitable[None]:
        """End a message of which only some chunks have come; what this returns waits for the hook that reads it."""
        return DONE if self._body.chunked is None else self._body.abandon_chunks()

    def _set_rset_state(self) -> None:
        """Forget the transaction, keep the greeting."""
        self._set_post_data_state()

    def _refusal_sent(self, code: int, wire: bytes) -> None:
        report_refusal(self, code, wire)
