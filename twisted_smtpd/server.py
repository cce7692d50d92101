"""A connection as the hooks see it: session, envelope, replies, calls of the hooks; the commands come on top."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_smtpd.dialog import Dialog
from twisted_smtpd.extensions import EXTENSIONS, Extension
from twisted_smtpd.hooks import MISSING, settle
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.settings import DEFAULTS, SMTPOptions, settings_for
from twisted_smtpd.wire.commands import parse_command
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Server", "Status", "syntax"]

log = Logger()

F = TypeVar("F", bound=Callable[..., Any])
Status = str | Reply

# Spoken to a mail server by a browser that an attacker sends there, or by a scanner: it must not go on.
HTTP_METHODS = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE"})


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
    default_ident = "ESMTP twisted-smtpd"

    hostname: str
    data_size_limit: int | None
    enable_SMTPUTF8: bool
    line_length_limit: int | None
    max_recipients: int
    bare_newline: str
    decode_data: bool
    ident: str

    session: Session
    envelope: Envelope
    _accepted = 0
    _refused = 0
    _unwelcome = False
    _calls: dict[str, int] | None = None

    def __init__(self, handler: object, **options: Unpack[SMTPOptions]) -> None:
        super().__init__(settings_for(type(self), handler, options))
        self.event_handler = handler

    @property
    def max_command_size_limit(self) -> int:
        """Octets of the longest command line."""
        return self._settings.longest_command

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
        if "CONNECT" in self._settings.hooks:
            # RFC 5321 section 3.1: after 554 the client may still say QUIT.  A hook that fails lets nobody in.
            self._unwelcome = True
            status = await self._call_handler_hook("CONNECT")
            code = Reply.parse(status).code
            self._unwelcome = not 200 <= code < 300
            if self._unwelcome or code == 220:
                await self.push(status)
                return
        await self.push(f"220 {self.hostname} {self.ident}")

    def _peer(self) -> Any:
        address = self.transport.getPeer()  # type: ignore[union-attr]
        if isinstance(address, IPv4Address):
            return (address.host, address.port)
        if isinstance(address, IPv6Address):
            return (address.host, address.port, address.flowInfo, address.scopeID)
        return ""

    def _create_session(self) -> Session:
        """The session of a new connection; may be overridden."""
        return Session(self.loop)

    def _create_envelope(self) -> Envelope:
        """The envelope of a new transaction; may be overridden."""
        return Envelope()

    def peer_gone(self, reason: Failure) -> Coroutine[Any, Any, None] | None:
        if "DISCONNECT" in self._settings.hooks and hasattr(self, "session"):
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
        if self._outflow.blocked_since is not None:
            await self.drain()

    async def _call_handler_hook(self, command: str, *arguments: Any) -> Any:
        """Call ``handle_COMMAND``, if the handler has it.

        :returns: its status, or ``MISSING``.
        """
        if command not in self._settings.hooks:
            return MISSING
        hook = getattr(self.event_handler, f"handle_{command}")
        try:
            status = hook(self, self.session, self.envelope, *arguments)
            if type(status) is not str:
                status = await settle(status, self.loop)
        except SMTPReplyError as error:
            return error.reply
        if type(status) is str and ("\n" in status or status[3:4] == "-"):
            # Returned, so it is whole: its last line must not announce another.
            return Reply.parse(status)
        return status

    def failure_status(self, error: BaseException) -> Coroutine[Any, Any, Any]:
        return self._checked_failure_status(error)

    async def _checked_failure_status(self, error: BaseException) -> Status:
        try:
            status = await self.handle_exception(error)
            Reply.parse(status)
        except Exception:
            log.failure("{session.id}: handle_exception failed", session=self.session)
            self._log_failure(error)
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
        return Reply(451, "4.3.0", (f"Local error in processing, try again later (session {self.session.id})",))

    def _log_failure(self, error: BaseException) -> None:
        failure = Failure(error)
        log.failure("{session.id} {session.peer}: {verb} failed", failure, session=self.session, verb=self._verb)

    def _set_post_data_state(self) -> None:
        """End the transaction."""
        self.envelope = self._create_envelope()
        self._accepted = self._refused = 0

    def _set_rset_state(self) -> None:
        """Forget the transaction, keep the greeting."""
        self._set_post_data_state()

    def command(self, line: bytes) -> Coroutine[Any, Any, None]:
        self._verb = "?"
        verb, argument = parse_command(line)
        command = self._settings.commands.get(verb)
        if command is None:
            raise self._unknown(verb)
        if len(line) + 2 > command.size_limit:
            raise SMTPReplyError(500, "5.5.2", "Line too long")
        self._verb = verb
        if self._settings.call_limits is not None:
            self._count_call(verb)
        if self._unwelcome and verb != "QUIT":
            raise SMTPReplyError(503, "5.5.1", "No service here, say QUIT")
        coroutine: Coroutine[Any, Any, None] = command.method(self, argument)
        if command.foreign:
            return settle(coroutine, self.loop)
        return coroutine

    def _unknown(self, verb: str) -> SMTPReplyError:
        if verb in HTTP_METHODS:
            return SMTPReplyError(521, "5.5.1", "This is a mail server, it does not speak HTTP")
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

    def _no_argument(self, argument: str | None) -> None:
        if argument is not None:
            raise SMTPReplyError(501, "5.5.4", f"Syntax: {self._verb}")


class _Option:
    """Reads an option from the shared settings, unless the instance or a subclass has its own value."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Server | None, owner: type[Server]) -> Any:
        return self if instance is None else instance._settings.values[self._name]


for _name in DEFAULTS:
    if _name not in ("loop", "clock"):
        setattr(Server, _name, _Option(_name))
