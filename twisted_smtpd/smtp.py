"""The SMTP server protocol (RFC 5321), and the names that aiosmtpd has in ``aiosmtpd.smtp``."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from twisted_smtpd.assemble import settings_for
from twisted_smtpd.auth.offer import builtin
from twisted_smtpd.auth.results import (
    AuthCallbackType,
    AuthenticatorType,
    AuthMechanismType,
    AuthResult,
    LoginPassword,
    auth_mechanism,
)
from twisted_smtpd.auth.view import Mechanism, Response
from twisted_smtpd.extensions import EXTENSIONS
from twisted_smtpd.options.limits import MIB
from twisted_smtpd.options.reference import with_parameters
from twisted_smtpd.options.table import SMTPOptions
from twisted_smtpd.protocol.chunking import bdat
from twisted_smtpd.protocol.commands import guarded, syntax
from twisted_smtpd.protocol.counting import refused
from twisted_smtpd.protocol.greeting import MAX_EHLO_RESPONSES, say_hello
from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.protocol.tls import starttls
from twisted_smtpd.protocol.transaction import Transaction
from twisted_smtpd.runtime.awaiting import MISSING, Waiting
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.addresses import parse_mailbox
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

if TYPE_CHECKING:
    from types import ModuleType

    from typing_extensions import Self, Unpack

    from twisted_smtpd.auth.exchange import AuthExchange

__all__ = [
    "CALL_LIMIT_DEFAULT",
    "DATA_SIZE_DEFAULT",
    "MAX_EHLO_RESPONSES",
    "MISSING",
    "SMTP",
    "AuthCallbackType",
    "AuthMechanismType",
    "AuthResult",
    "AuthenticatorType",
    "Envelope",
    "LoginPassword",
    "Reply",
    "SMTPReplyError",
    "Session",
    "TLSSetupException",
    "__ident__",
    "auth_mechanism",
    "log",
    "syntax",
]

#: aiosmtpd's logger: while a controller runs, the events of its server go to it.
log = logging.getLogger("mail.log")

#: Octets a message may have, unless ``data_size_limit`` says otherwise.
DATA_SIZE_DEFAULT = 32 * MIB
#: How often a client may send a command that a ``command_call_limit`` dict does not name.
CALL_LIMIT_DEFAULT = 20


#: What follows the server's name in its greeting, unless ``ident`` says otherwise.
__ident__ = Transaction.default_ident


class TLSSetupException(Exception):
    """For programs that raise or catch it.  This package never raises it: a failed handshake ends the connection."""


class SMTP(Transaction):
    """One SMTP connection.

    A subclass adds a command with a coroutine method ``smtp_VERB(self, arg)``, decorated with :func:`syntax`, that
    answers with ``await self.push(status)``; or changes one, calling ``await super().smtp_MAIL(arg)``.

    :param handler: the object whose hooks decide what happens.
    :raises TypeError: for an option that does not exist, or a value of the wrong type.
    :raises ValueError: for a value out of bounds.
    """

    __slots__ = ("_auth", "_utf8_reply")

    #: Whether the commands of this class are this package's own; a subclass's may await anything.
    _own_commands = True
    extensions = EXTENSIONS
    authenticator: AuthenticatorType | None
    auth_callback: AuthCallbackType | None
    max_auth_failures: int

    #: What LOGIN asks for.
    AuthLoginUsernameChallenge: str | bytes = "Username:"
    AuthLoginPasswordChallenge: str | bytes = "Password:"

    def __init__(self, handler: object, **options: Unpack[SMTPOptions]) -> None:
        self._share(settings_for(type(self), handler, options))

    @classmethod
    def sharing(cls, settings: SharedSettings) -> Self:
        """A connection for a factory, which has the settings already.

        :param settings: those of this class.
        """
        connection = cls.__new__(cls)
        connection._share(settings)
        return connection

    def _share(self, settings: SharedSettings) -> None:
        super()._share(settings)
        self._auth: AuthExchange | None = None
        # Whether the reply in progress may have UTF-8, though no message with SMTPUTF8 has begun.
        self._utf8_reply = False

    # -- the greeting --------------------------------------------------------------------------------------------------

    @syntax("HELO hostname")
    def smtp_HELO(self, arg: str | None) -> Awaitable[None]:
        return say_hello(self, arg, extended=False)

    @syntax("EHLO hostname")
    def smtp_EHLO(self, arg: str | None) -> Awaitable[None]:
        return say_hello(self, arg, extended=True)

    @guarded("STARTTLS")
    @syntax("STARTTLS", when="tls_context")
    def smtp_STARTTLS(self, arg: str | None) -> Awaitable[None]:
        self._no_argument(arg)
        return starttls(self, self._settings.security.starttls)

    @guarded("XCLIENT")
    @syntax("XCLIENT attribute=value...", when="may_vouch")
    def smtp_XCLIENT(self, arg: str | None) -> Awaitable[None]:
        return self._client_identity().xclient(arg)

    @guarded("XFORWARD")
    @syntax("XFORWARD attribute=value...", when="may_vouch")
    def smtp_XFORWARD(self, arg: str | None) -> Awaitable[None]:
        return self._client_identity().xforward(arg)

    # -- the transaction -----------------------------------------------------------------------------------------------

    # Not delegates: these are the fast path, and three more calls would cost 2 % of a small message.
    smtp_MAIL = guarded("MAIL")(syntax("MAIL FROM:<address>", extended=" [SP <mail-parameters>]")(Transaction._mail))
    smtp_RCPT = guarded("RCPT")(syntax("RCPT TO:<address>", extended=" [SP <rcpt-parameters>]")(Transaction._rcpt))
    smtp_DATA = guarded("DATA")(syntax("DATA")(Transaction._data))

    @guarded("BDAT")
    @syntax("BDAT octets [LAST]")
    def smtp_BDAT(self, arg: str | None) -> Awaitable[None]:
        return bdat(self, arg)

    # -- other commands ------------------------------------------------------------------------------------------------

    @syntax("NOOP [ignored]")
    async def smtp_NOOP(self, arg: str | None) -> None:
        status = await self._call_handler_hook("NOOP", arg)
        await self.push("250 OK" if status is MISSING else status)

    @syntax("QUIT")
    def smtp_QUIT(self, arg: str | None) -> Awaitable[None]:
        # With an argument the client goes as well.
        if "QUIT" in self._settings.asked:
            return self._quit_after_hook()
        rest = self.push("221 Bye")
        self.finish()
        return rest

    async def _quit_after_hook(self) -> None:
        try:
            status = await self._call_handler_hook("QUIT")
            await self.push("221 Bye" if status is MISSING else status)
        finally:
            self.finish()

    @syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> None:
        self._no_argument(arg)
        await self._forget_message()
        self._set_rset_state()
        await self._call_old_hook("rset_hook")
        status = await self._call_handler_hook("RSET")
        await self.push("250 OK" if status is MISSING else status)

    @syntax("HELP [command]")
    async def smtp_HELP(self, arg: str | None) -> None:
        await self.check_auth_needed("HELP")
        if arg is not None:
            command = self._settings.commands.get(arg.upper())
            if command is None or not self._syntax_available(command.method):
                raise SMTPReplyError(504, "5.5.4", f"No help on this; supported commands: {self._help_commands()}")
            text = command.method.__smtp_syntax__  # type: ignore[attr-defined]
            if self.session.extended_smtp and command.method.__smtp_syntax_extended__:  # type: ignore[attr-defined]
                text += command.method.__smtp_syntax_extended__  # type: ignore[attr-defined]
            await self.push(f"214 Syntax: {text}")
            return
        await self.push(f"214 Supported commands: {self._help_commands()}")

    def _help_commands(self) -> str:
        return " ".join(sorted(v for v, c in self._settings.commands.items() if self._syntax_available(c.method)))

    def _syntax_available(self, method: Callable[..., Any]) -> bool:
        if not hasattr(method, "__smtp_syntax__"):
            return False
        when = method.__smtp_syntax_when__  # type: ignore[attr-defined]
        return not when or bool(getattr(self, when, None))

    @syntax("VRFY <address>")
    async def smtp_VRFY(self, arg: str | None) -> None:
        await self.check_auth_needed("VRFY")
        if arg is None:
            raise SMTPReplyError(501, "5.5.4", "Syntax: VRFY <address>")
        text, utf8 = self._without_utf8_word(arg)
        address = parse_mailbox(text, bare_local_part=True, local_part_limit=self.local_part_limit)
        if not (utf8 or address.isascii()):
            raise self._needs_smtputf8()
        await self._ask_about(address, "252 Cannot VRFY user, but will accept message and attempt delivery", utf8)

    def _without_utf8_word(self, arg: str) -> tuple[str, bool]:
        """An argument without the parameter SMTPUTF8; whether it was there (RFC 6531 section 3.7.4.2)."""
        if self.enable_SMTPUTF8 and arg.upper().endswith(" SMTPUTF8"):
            return arg[: -len(" SMTPUTF8")].rstrip(" \t"), True
        return arg, False

    async def _ask_about(self, name: str, otherwise: str, utf8: bool = False) -> None:
        """Ask the hook of the command in progress.

        :param name: the mailbox, list or queue that it is about.
        :param otherwise: the status if no hook answers.
        :param utf8: whether the reply may have UTF-8.
        """
        self._utf8_reply = utf8
        try:
            status = await self._call_handler_hook(self._verb, name)
            await self.push(otherwise if status is MISSING else status)
        finally:
            self._utf8_reply = False
        if self._code >= 400:
            refused(self)

    @property
    def answers_etrn(self) -> bool:
        """Whether the handler has ``handle_ETRN``."""
        return "ETRN" in self._settings.hooks

    @property
    def utf8_replies(self) -> bool:
        return self._utf8_reply or super().utf8_replies

    @syntax("EXPN <list>")
    async def smtp_EXPN(self, arg: str | None) -> None:
        await self.check_auth_needed("EXPN")
        if "EXPN" not in self._settings.asked:
            raise SMTPReplyError(502, "5.5.1", "EXPN is not implemented")
        if arg is None:
            raise SMTPReplyError(501, "5.5.4", "Syntax: EXPN <list>")
        name, utf8 = self._without_utf8_word(arg)
        if not (utf8 or name.isascii()):
            raise self._needs_smtputf8()
        await self._ask_about(name, "502 EXPN is not implemented", utf8)

    @syntax("ETRN <queue>", when="answers_etrn")
    async def smtp_ETRN(self, arg: str | None) -> None:
        await self.check_auth_needed("ETRN")
        if arg is None:
            raise SMTPReplyError(501, "5.5.4", "Syntax: ETRN <queue>")
        await self._ask_about(arg, "458 Unable to queue messages for this node")

    # -- authentication ------------------------------------------------------------------------------------------------

    @guarded("AUTH")
    @syntax("AUTH <mechanism> [<initial response>]", when="mechanisms")
    def smtp_AUTH(self, arg: str | None) -> Awaitable[None]:
        return self._exchange().run(arg)

    @property
    def mechanisms(self) -> Mapping[str, Mechanism]:
        """The mechanisms of AUTH, by name, whether or not they can be used at the moment."""
        return self._settings.mechanisms

    def _exchange(self) -> AuthExchange:
        if self._auth is None:
            # Imported here: few servers have AUTH.
            from twisted_smtpd.auth.exchange import AuthExchange

            self._auth = AuthExchange(self)
        return self._auth

    @property
    def _authenticator(self) -> Any:
        # aiosmtpd has it under this name only, and handlers written for aiosmtpd use it in their auth_* hooks.
        return self.authenticator

    def challenge_auth(
        self, challenge: str | bytes, encode_to_b64: bool = True, log_client_response: bool = False
    ) -> Coroutine[Any, Any, Response]:
        """Ask the client something (``334``), and wait for what it says.

        :param challenge: without the code; at most 9,200 octets.
        :param encode_to_b64: whether to encode the challenge; one that isn't encoded has to be printable ASCII.
        :param log_client_response: accepted for programs that pass it; what a client says here is never logged.
        :returns: what it says, decoded; ``MISSING`` if it cancels with ``*``, or if it is not base64: it has been
            answered then, and the hook returns ``None``.
        :raises SMTPReplyError: if it says more than 12,288 octets; do not catch it.
        :raises ValueError: if the challenge can't be sent.
        """
        return Waiting(self._exchange().challenge(challenge, encode_to_b64))

    def _auth_interact(self, server_said: str | bytes) -> Coroutine[Any, Any, Response]:
        """The same with a whole 334 line, encoded already; for programs that call it."""
        octets = server_said.encode() if isinstance(server_said, str) else server_said
        return self.challenge_auth(octets.rstrip(b"\r\n").removeprefix(b"334 "), encode_to_b64=False)

    @builtin
    def _authenticate(self, mechanism: str, auth_data: Any) -> Any:
        """Ask the authenticator, or the callback, about a client; returns a verdict, or an awaitable of one."""
        return self._exchange().authenticate(mechanism, auth_data)

    def _dissolve(self) -> bool:
        if (done := super()._dissolve()) and self._auth is not None:
            self._auth.retire()
        return done

    def _log_failure(self, error: BaseException, what: str | None = None) -> None:
        if self._auth is not None and self._auth.said:
            self._auth.log_failure(error, what)
        else:
            super()._log_failure(error, what)

    @property
    def _sasl(self) -> ModuleType:
        from twisted_smtpd.auth import mechanisms

        return mechanisms

    # Each mechanism is called with the server itself, and the words that follow AUTH.

    @builtin
    async def auth_PLAIN(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.plain(self._exchange(), args)

    @builtin
    async def auth_LOGIN(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.login(self._exchange(), args)

    @builtin
    async def auth_CRAM__MD5(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.cram_md5(self._exchange(), args)

    @builtin
    async def auth_EXTERNAL(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.external(self._exchange(), args)

    @builtin
    async def auth_XOAUTH2(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.xoauth2(self._exchange(), args)

    @builtin
    async def auth_OAUTHBEARER(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.oauthbearer(self._exchange(), args)

    @builtin
    async def auth_SCRAM__SHA__1(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.scram(self._exchange(), "SCRAM-SHA-1", args)

    @builtin
    async def auth_SCRAM__SHA__1__PLUS(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.scram(self._exchange(), "SCRAM-SHA-1-PLUS", args)

    @builtin
    async def auth_SCRAM__SHA__256(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.scram(self._exchange(), "SCRAM-SHA-256", args)

    @builtin
    async def auth_SCRAM__SHA__256__PLUS(self, server: Any, args: list[str]) -> Any:
        return await self._sasl.scram(self._exchange(), "SCRAM-SHA-256-PLUS", args)


# The options' part of it is made from the table of options.
SMTP.__doc__ = with_parameters(SMTP.__doc__)
