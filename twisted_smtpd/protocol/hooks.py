"""The session on a connection, its options, and the calls of the handler's hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import CoroutineType
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.python.failure import Failure

from twisted_smtpd.logs.events import HOOK_FAILED, HOOK_FAULT, HOOK_SLOW, HOOK_STUCK
from twisted_smtpd.options.table import DEFAULTS, OPTIONS, assign_options
from twisted_smtpd.protocol.body import Body
from twisted_smtpd.protocol.connection import Connection
from twisted_smtpd.protocol.running import CommandRunner
from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.protocol.shortage import is_shortage, report_shortage
from twisted_smtpd.protocol.verdict import by_recipient
from twisted_smtpd.runtime.awaiting import CANCELLED, MISSING, NO_HOOK, HookExit, settle
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.replies import AlreadySent, BadStatus, Reply, SMTPReplyError

__all__ = ["TOOK_TOO_LONG", "Hooks", "Status"]

Status = str | Reply

TOOK_TOO_LONG = Reply(451, "4.3.0", ("Processing took too long, try again later",))

# What these hooks return is no status, or what they push is looked at elsewhere.
_NO_STATUS = frozenset({"handle_AUTH", "handle_DISCONNECT", "handle_PROXY", "handle_STARTTLS"})
# The hooks that may answer for each recipient.
VERDICTS = frozenset({"handle_DATA", "handle_DATA_STREAM"})


class Hooks(Connection):
    """A connection with a session and an envelope, which it shows to the handler's hooks.

    :ivar session: what is known of the client.
    :ivar envelope: the transaction.
    :ivar event_handler: the handler.
    """

    # Each connection has its own options, too: a hook may change them.
    __slots__ = (
        *("_hook", "envelope", "event_handler", "session"),
        *(name for name in OPTIONS if name != "line_length_limit"),
    )

    hostname: str
    timeout: float
    session_timeout: float
    hook_timeout: float
    min_data_rate: float
    max_buffered: int
    max_buffered_per_address: int | None
    data_size_limit: int | None
    enable_SMTPUTF8: bool
    #: Read, and set, from the class by programs written for aiosmtpd; so it is no slot.
    line_length_limit: int | None = DEFAULTS["line_length_limit"]
    header_size_limit: int
    header_line_limit: int
    max_idle_commands: int
    max_recipients: int
    max_refusals: int
    bare_newline: str
    decode_data: bool
    default_domain: str | None
    ident: str
    trace: bool
    tls_context: Any
    require_starttls: bool
    auth_required: bool
    auth_require_tls: bool

    session: Session
    envelope: Envelope
    #: How many recipients the message has.
    _accepted: int

    def __init__(self, settings: SharedSettings, runner: CommandRunner, body: Body) -> None:
        super().__init__(settings, runner, body)
        # There is neither before a client has come.
        self.session = self.envelope = self.loop = None  # type: ignore[assignment]
        self._hook = ""
        self.event_handler = settings.handler
        assign_options(self, settings.own)

    @property
    def __ident__(self) -> str:
        return self.ident

    @__ident__.setter
    def __ident__(self, ident: str) -> None:
        self.ident = ident

    @property
    def utf8_replies(self) -> bool:
        return self.envelope.smtp_utf8

    # -- the session ---------------------------------------------------------------------------------------------------

    def _begin_session(self) -> None:
        self.session = self._create_session()
        self.session.peer = self._peer()

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

    def _create_envelope(self) -> Envelope:
        """The envelope of a new transaction; may be overridden."""
        return Envelope()

    # -- replies and hooks ---------------------------------------------------------------------------------------------

    def _call_handler_hook(self, command: str, *arguments: Any) -> Awaitable[Any]:
        """Call ``handle_COMMAND``, if the handler has it.

        :returns: an awaitable of its status, or of ``MISSING``.
        """
        name = self._settings.hooks.get(command)
        return NO_HOOK if name is None else self._run_hook(name, arguments)

    async def _call_old_hook(self, name: str) -> None:
        """Call ``ehlo_hook`` or ``rset_hook``, if the class has it; it may push lines."""
        if name in self._settings.old_hooks:
            await settle(getattr(self, name)(), self.loop)

    async def _run_hook(self, name: str, arguments: tuple[Any, ...]) -> Any:
        self._hook = name
        before = self._code
        self._no_reply_yet()
        try:
            status = getattr(self.event_handler, name)(self, self.session, self.envelope, *arguments)
            if type(status) is CoroutineType and self.loop is None:
                status = await status
            elif type(status) is not str:
                status = await settle(status, self.loop)
        except SMTPReplyError as error:
            status = error.reply
        except SystemExit as error:
            raise HookExit from error
        except (Exception, asyncio.CancelledError) as error:
            if self._reads_chunks(name) or not self._answered_by(name) or self._gone:
                raise
            self.connections.counts.hook_failures += 1
            if not (self._runner.timed_out and isinstance(error, CANCELLED)):
                self._log_failure(error, name)
            status = None
        if self._body.chunked is not None and self._reads_chunks(name):
            # The replies that were sent meanwhile are those to its chunks.
            pass
        elif not self._code:
            self._no_reply_yet(before)
        elif self._answered_by(name):
            return self._already_sent(name, status)
        if isinstance(status, str):
            if "\n" in status or status[3:4] == "-":
                # A returned status is complete: its last line must not announce another one, as a pushed one may.
                return by_recipient(status, self._accepted) if name in VERDICTS else Reply.parse(status)
        elif isinstance(status, bytes) and name not in _NO_STATUS:
            return Reply.parse(status)
        return status

    def _reads_chunks(self, name: str) -> bool:
        """Whether a hook reads a message whose chunks are not all there: it can't answer for it yet."""
        message = self._body.chunked
        return message is not None and not message.whole and name in VERDICTS

    def _answered_by(self, name: str) -> bool:
        """Whether a hook has pushed the reply itself, so that another one would be taken for the next command's."""
        return self._replied and name not in _NO_STATUS and not self.closing

    def _already_sent(self, name: str, status: Any) -> Any:
        """What stands for the status of such a hook.

        :param name: the hook.
        :param status: what it returned, or the reply that it raised.
        """
        if status is not None:
            fault = f"{name} has pushed a {self._code} reply; what it returned then is not sent"
            HOOK_FAULT.tell(self, fault=fault)
        return AlreadySent(self._code)

    def _check_replied(self, method: str, result: Any) -> None:
        """Check that a subclass's command has sent a reply; without one the client would wait forever.

        :param method: the command's name.
        :param result: what it returned.
        :raises BadStatus: if it has not.
        """
        if self._replied or self._code // 100 == 3 or self._needs_no_reply:
            return
        returned = "" if result is None else f", and returned {result!r:.80}"
        raise BadStatus(f"{method} has sent no reply{returned}: a command sends it with `await self.push(status)`")

    def _hook_overdue(self) -> None:
        HOOK_SLOW.tell(self, hook=self._hook or self._verb, allowed=self.hook_timeout)

    def _hook_stuck(self, seconds: float) -> None:
        HOOK_STUCK.tell(self, seconds=seconds)

    async def status_for(self, error: BaseException) -> Any:
        """The status for a hook that failed."""
        timed_out = self._runner.take_timed_out()
        if isinstance(error, SMTPReplyError):
            return error.reply
        self.connections.counts.hook_failures += 1
        if timed_out and isinstance(error, CANCELLED):
            return TOOK_TOO_LONG
        try:
            # Complete, as above: a last line "451-" must not swallow the next reply.
            return Reply.parse(await self.handle_exception(error))
        except (Exception, SystemExit, asyncio.CancelledError) as broken:
            self._log_failure(error)
            if self._gone and isinstance(broken, CANCELLED):
                raise
            if broken is not error:
                self._log_failure(broken, "handle_exception")
            return Reply(500, "5.3.0", (f"Internal error (session {self.session.id})",))

    async def handle_exception(self, error: BaseException) -> Status:
        """The status for a command that failed; may be overridden.

        The error's text is only logged: it may hold a password.

        :param error: what was raised.
        """
        if hasattr(self.event_handler, "handle_exception") and not self._gone:
            status = await settle(self.event_handler.handle_exception(error), self.loop)
            if status is not MISSING:
                return status  # type: ignore[no-any-return]
        if not is_shortage(error):
            self._log_failure(error)
        elif (reply := report_shortage(error, self._verb, self)) is not None:
            return reply
        # RFC 4954 section 6: 454 is what AUTH has for it.
        code, enhanced = (454, "4.7.0") if self._verb == "AUTH" else (451, "4.3.0")
        return Reply(code, enhanced, (f"Local error in processing, try again later (session {self.session.id})",))

    def _log_failure(self, error: BaseException, what: str | None = None) -> None:
        HOOK_FAILED.tell_failure(self, Failure(error), what=what or self._verb)
