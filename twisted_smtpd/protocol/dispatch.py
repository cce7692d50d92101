"""A connection as the hooks see it: session, envelope, replies, calls of the hooks; the commands come on top."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_smtpd.assemble import Settings, settings_for
from twisted_smtpd.options.table import OPTIONS, SMTPOptions, assign_options
from twisted_smtpd.protocol.dialog import CANCELLED, Dialog
from twisted_smtpd.protocol.extensions import EXTENSIONS, Extension
from twisted_smtpd.runtime.awaiting import MISSING, settle
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.commands import parse_command
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from twisted_smtpd.auth.offer import Mechanism

__all__ = ["Barrier", "Server", "Status", "syntax"]

log = Logger()

F = TypeVar("F", bound=Callable[..., Any])
Status = str | Reply

# Spoken to a mail server by a browser that an attacker sends there, or by a scanner: it must not go on.
HTTP_METHODS = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE"})


@dataclass(frozen=True)
class Barrier:
    """A state in which few commands are carried out.

    :ivar passing: the verbs of these.
    :ivar refusal: code, enhanced code and text that any other command gets.
    """

    passing: frozenset[str]
    refusal: tuple[int, str, str]


UNWELCOME = Barrier(frozenset({"QUIT"}), (503, "5.5.1", "No service here, say QUIT"))


def syntax(text: str, extended: str | None = None, when: str | None = None) -> Callable[[F], F]:
    """Decorate an ``smtp_VERB`` method with what HELP says of it.

    :param text: the command's syntax.
    :param extended: what is added to it after EHLO.
    :param when: the name of an attribute of the server; where that is false, HELP does not know the command.
    """

    def decorate(method: F) -> F:
        method.__smtp_syntax__ = text  # type: ignore[attr-defined]
        method.__smtp_syntax_extended__ = extended  # type: ignore[attr-defined]
        method.__smtp_syntax_when__ = when  # type: ignore[attr-defined]
        return method

    return decorate


class Server(Dialog):
    """What every command works with; :class:`twisted_smtpd.smtp.SMTP` documents its arguments."""

    # The options are a connection's own, too: one may be given others.
    __slots__ = (
        *("_accepted", "_barrier", "_calls", "_met", "_refused", "envelope", "event_handler", "session"),
        *OPTIONS,
    )

    #: The ESMTP extensions, in the order in which EHLO lists them.
    extensions: tuple[Extension, ...] = EXTENSIONS
    #: Octets of a command line, CRLF included (RFC 5321 section 4.5.3.1.4), before what extensions add.
    command_size_limit: int = 512
    #: The same for single commands, by verb, instead of what extensions add.
    command_size_limits: Mapping[str, int] = {}
    #: Octets of a local part; 0 for no limit of its own.
    local_part_limit: int = 0
    #: Commands that a base class has and this one has not.
    withheld_commands: frozenset[str] = frozenset()
    #: Options that the protocol leaves no choice of, by name.
    required_options: Mapping[str, Any] = {}
    default_ident = "ESMTP twisted-smtpd"
    #: Whether the client's word is taken for whom it speaks for.
    may_vouch = False
    hostname: str
    data_size_limit: int | None
    enable_SMTPUTF8: bool
    line_length_limit: int | None
    max_recipients: int
    bare_newline: str
    decode_data: bool
    ident: str
    tls_context: Any
    require_starttls: bool
    auth_required: bool
    auth_require_tls: bool

    session: Session
    envelope: Envelope

    def __init__(self, handler: object, **options: Unpack[SMTPOptions]) -> None:
        self._share(settings_for(type(self), handler, options))

    @classmethod
    def sharing(cls, settings: Settings) -> Self:
        """A connection for a factory, which has the settings already.

        :param settings: those of this class.
        """
        connection = cls.__new__(cls)
        connection._share(settings)
        return connection

    def _share(self, settings: Settings) -> None:
        super().__init__(settings)
        self._accepted = 0
        self._refused = 0
        self._barrier: Barrier | None = None
        self._met = False
        self._calls: dict[str, int] | None = None
        self.event_handler = settings.handler
        assign_options(self, settings.own)

    @property
    def max_command_size_limit(self) -> int:
        """Octets of the longest command line."""
        return self._settings.longest_command

    @property
    def mechanisms(self) -> Mapping[str, Mechanism]:
        """The mechanisms of AUTH, by name, whether or not they can be used at the moment."""
        return self._settings.mechanisms

    @property
    def __ident__(self) -> str:
        return self.ident

    @property
    def utf8_replies(self) -> bool:
        return self.envelope.smtp_utf8

    # -- connection ----------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.envelope = self._create_envelope()
        super().connectionMade()

    async def opening(self) -> None:
        self.session = self._create_session()
        self.session.peer = self._peer()
        # An error on the way there must let nobody in.
        self._barrier = UNWELCOME
        if await self.before_greeting():
            await self.greet()

    async def before_greeting(self) -> bool:
        """What comes before SMTP; a base class's part comes first.

        :returns: whether the client is still to be served.
        """
        return True

    async def greet(self) -> None:
        """Greet the client, if ``handle_CONNECT`` lets it in."""
        self._met = True
        self._barrier = UNWELCOME
        if "CONNECT" in self._settings.hooks:
            # RFC 5321 section 3.1: after 554 the client may still say QUIT.  A hook that fails lets nobody in.
            status = await self._call_handler_hook("CONNECT")
            code = 250 if status is MISSING else Reply.parse(status).code
            if not 200 <= code < 300:
                await self.push(status)
                return
            if code == 220:
                self._barrier = self.first_barrier()
                await self.push(status)
                return
        self._barrier = self.first_barrier()
        await self.push(f"220 {self.hostname} {self.ident}")

    def first_barrier(self) -> Barrier | None:
        """What still stands in the way of a client that was greeted."""
        return None

    def _peer(self) -> Any:
        address = self._peer_address
        if isinstance(address, IPv4Address):
            return (address.host, address.port)
        if isinstance(address, IPv6Address):
            return (address.host, address.port, address.flowInfo, address.scopeID)
        return ""

    def _create_session(self) -> Session:
        """The session of a new connection; may be overridden."""
        return Session(self.loop)

    def _renew_session(self) -> Session:
        """Forget what the client has said until now; what is known of its connection stays."""
        before, self.session = self.session, self._create_session()
        self.session.inherit(before)
        self._set_rset_state()
        return self.session

    def _create_envelope(self) -> Envelope:
        """The envelope of a new transaction; may be overridden."""
        return Envelope()

    def peer_gone(self, reason: Failure) -> Coroutine[Any, Any, None] | None:
        if "DISCONNECT" in self._settings.hooks and self._met:
            return self._call_disconnect(reason)
        return None

    async def _call_disconnect(self, reason: Failure) -> None:
        try:
            await self._call_handler_hook("DISCONNECT", reason.value)
        except Exception:
            log.failure("{session.id}: handle_DISCONNECT failed", session=self.session)

    # -- replies and hooks ---------------------------------------------------------------------------------------------

    async def push(self, status: Status) -> None:
        """Send a reply, and wait while the client does not read.

        :param status: see :meth:`Reply.parse`.  One that ends in a ``250-`` line is continued by the next reply.
        :raises BadStatus: if it is no status.
        """
        self._code = self.send_reply(status, more=True)
        if self._output.blocked_since is not None:
            await self.drain()

    def _pushed(self, status: Status) -> Coroutine[Any, Any, None] | None:
        """Push a status that is whole, and return what is left to await, if anything: mostly that saves a coroutine."""
        if self._settings.foreign_push:
            return self.push(_whole(status))
        self._code = self.send_reply(status)
        return self.drain() if self._output.blocked_since is not None else None

    async def _call_handler_hook(self, command: str, *arguments: Any) -> Any:
        """Call ``handle_COMMAND``, if the handler has it.

        :returns: its status, or ``MISSING``.
        """
        try:
            status = self._begin_hook(command, *arguments)
            if type(status) is CoroutineType:
                status = await status
        except SMTPReplyError as error:
            return error.reply
        return _whole(status)

    def _begin_hook(self, command: str, *arguments: Any) -> Any:
        """Call ``handle_COMMAND``, if the handler has it.

        :returns: its status, or ``MISSING``, or a coroutine that gives it.
        """
        name = self._settings.hooks.get(command)
        if name is None:
            return MISSING
        status = getattr(self.event_handler, name)(self, self.session, self.envelope, *arguments)
        if type(status) is str or (type(status) is CoroutineType and self.loop is None):
            return status
        return settle(status, self.loop)

    def failure_status(self, error: BaseException) -> Coroutine[Any, Any, Any]:
        return self._checked_failure_status(error)

    async def _checked_failure_status(self, error: BaseException) -> Status:
        try:
            # Whole: a last line that announces another must not swallow the next reply.
            status = Reply.parse(await self.handle_exception(error))
        except (Exception, *CANCELLED) as broken:
            self._log_failure(error)
            if self._gone and isinstance(broken, CANCELLED):
                raise
            if broken is not error:
                self._log_failure(broken, "handle_exception")
            return Reply(500, "5.3.0", (f"Internal error (session {self.session.id})",))
        return status

    async def handle_exception(self, error: BaseException) -> Status:
        """The status for a command that failed; may be overridden.

        The error's text is only logged: it may hold a password.

        :param error: what was raised.
        """
        if hasattr(self.event_handler, "handle_exception") and not self._gone:
            return await settle(self.event_handler.handle_exception(error), self.loop)  # type: ignore[no-any-return]
        self._log_failure(error)
        # RFC 4954 section 6: 454 is what AUTH has for it.
        code, enhanced = (454, "4.7.0") if self._verb == "AUTH" else (451, "4.3.0")
        return Reply(code, enhanced, (f"Local error in processing, try again later (session {self.session.id})",))

    def _log_failure(self, error: BaseException, what: str | None = None) -> None:
        failure = Failure(error)
        log.failure(
            "{session.id} {session.peer}: {verb} failed", failure, session=self.session, verb=what or self._verb
        )

    def _set_post_data_state(self) -> None:
        """End the transaction."""
        self.envelope = self._create_envelope()
        self._accepted = self._refused = 0
        if self.session.xforward:
            # It holds for one message: the next one may be another client's.
            self.session.xforward = {}

    def _set_rset_state(self) -> None:
        """Forget the transaction, keep the greeting."""
        self._set_post_data_state()

    def command(self, line: bytes) -> Coroutine[Any, Any, None] | None:
        self._verb = "?"
        settings = self._settings
        commands = settings.commands
        verb, argument = parse_command(line, commands)
        command = commands.get(verb)
        if command is None:
            raise self._unknown(verb)
        if len(line) + 2 > command.size_limit:
            raise SMTPReplyError(500, "5.5.2", "Line too long")
        self._verb = verb
        if settings.call_limits is not None:
            self._count_call(verb)
        if self._barrier is not None and verb not in self._barrier.passing:
            raise SMTPReplyError(*self._barrier.refusal)
        at_once = command.at_once
        if at_once is not None:
            session = self.session
            if session.host_name and (session.authenticated or not self.auth_required):
                return at_once(self, argument)  # type: ignore[no-any-return]
        if command.foreign:
            return self._run_foreign(command.method, argument)
        return command.method(self, argument)  # type: ignore[no-any-return]

    async def _run_foreign(self, method: Callable[..., Any], argument: str | None) -> None:
        await settle(method(self, argument), self.loop)

    def _unknown(self, verb: str) -> SMTPReplyError:
        if verb in HTTP_METHODS:
            return SMTPReplyError(521, "5.5.1", "This is a mail server, it does not speak HTTP")
        if verb == "BDAT":
            # Its chunk would run as commands.
            return SMTPReplyError(521, "5.5.1", "CHUNKING is not offered here, closing the connection")
        return SMTPReplyError(500, "5.5.1", f"Command {verb[:32]} not recognized")

    def _count_call(self, verb: str) -> None:
        limits = self._settings.call_limits
        assert limits is not None
        if self._calls is None:
            self._calls = {}
        count = self._calls[verb] = self._calls.get(verb, 0) + 1
        if count > limits.get(verb, limits["*"]):
            raise SMTPReplyError(421, "4.7.0", f"{verb} sent too many times")

    async def check_helo_needed(self, helo: str = "HELO") -> bool:
        """Refuse a command before the greeting.

        :param helo: the command to ask for.
        :returns: whether it was refused.
        """
        if self.session.host_name:
            return False
        raise SMTPReplyError(503, "5.5.1", f"Send {helo} first")

    async def check_auth_needed(self, command: str) -> bool:
        """Refuse a command before authentication, where that is required.

        :param command: its verb.
        :returns: whether it was refused.
        """
        if self.auth_required and not self.session.authenticated:
            raise SMTPReplyError(530, "5.7.0", "Authentication required")
        return False

    def _no_argument(self, argument: str | None) -> None:
        if argument is not None:
            raise SMTPReplyError(501, "5.5.4", f"Syntax: {self._verb}")


def _whole(status: Any) -> Any:
    """A status that a hook has returned: its last line must not announce another, as that of one it pushes may."""
    if type(status) is str and ("\n" in status or status[3:4] == "-"):
        return Reply.parse(status)
    return status
