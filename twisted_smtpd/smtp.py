"""The SMTP server protocol (RFC 5321), and the names that aiosmtpd has in ``aiosmtpd.smtp``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted_smtpd.auth.exchange import AuthCommands
from twisted_smtpd.auth.results import (
    AuthCallbackType,
    AuthenticatorType,
    AuthMechanismType,
    AuthResult,
    LoginPassword,
    auth_mechanism,
)
from twisted_smtpd.options.reference import with_parameters
from twisted_smtpd.options.table import MIB
from twisted_smtpd.protocol.dispatch import Status, syntax
from twisted_smtpd.protocol.proxy import ProxyHeader
from twisted_smtpd.protocol.tls import TLSCommands
from twisted_smtpd.protocol.transaction import Transaction
from twisted_smtpd.protocol.xclient import ClientCommands
from twisted_smtpd.runtime.awaiting import MISSING
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.addresses import parse_mailbox
from twisted_smtpd.wire.commands import parse_helo_name
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = [
    "CALL_LIMIT_DEFAULT",
    "DATA_SIZE_DEFAULT",
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
    "auth_mechanism",
    "syntax",
]

#: Octets a message may have, unless ``data_size_limit`` says otherwise.
DATA_SIZE_DEFAULT = 32 * MIB
#: How often a client may send a command that a ``command_call_limit`` dict does not name.
CALL_LIMIT_DEFAULT = 20

# A handler may give each client limits of its own.
MAX_EHLO_RESPONSES = 64


class TLSSetupException(Exception):
    """For programs that raise or catch it; this package raises none: a failed handshake ends the connection."""


class SMTP(AuthCommands, ClientCommands, TLSCommands, ProxyHeader, Transaction):
    """One SMTP connection.

    A subclass adds a command with a coroutine method ``smtp_VERB(self, arg)``, decorated with :func:`syntax`, that
    answers with ``await self.push(status)``; or changes one, calling ``await super().smtp_MAIL(arg)``.

    :param handler: the object whose hooks decide what happens.
    :raises TypeError: for an option that does not exist, or a value of the wrong type.
    :raises ValueError: for a value out of bounds.
    """

    @property
    def _authenticator(self) -> Any:
        # Handlers written for aiosmtpd, where it has no other name, use it in their auth_* hooks.
        return self.authenticator

    @syntax("HELO hostname")
    async def smtp_HELO(self, arg: str | None) -> None:
        await self._greet(arg, extended=False)

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, arg: str | None) -> None:
        await self._greet(arg, extended=True)

    async def _greet(self, arg: str | None, extended: bool) -> None:
        if arg is None:
            raise SMTPReplyError(501, "5.5.4", f"Syntax: {self._verb} hostname")
        name = parse_helo_name(arg)
        session = self.session
        before = session.host_name, session.extended_smtp
        session.host_name, session.extended_smtp = None, extended
        accepted = False
        try:
            status = await (self._ehlo_status(name) if extended else self._helo_status(name))
            await self.push(status)
            accepted = self._code < 300
        finally:
            if accepted:
                session.host_name = session.host_name or name
                self._set_rset_state()
            else:
                # RFC 5321 section 4.1.4: a refused EHLO leaves the state as it was.
                session.host_name, session.extended_smtp = before

    async def _helo_status(self, name: str) -> Status:
        status = await self._call_handler_hook("HELO", name)
        if status is MISSING:
            self.session.host_name = name
            return f"250 {self.hostname}"
        return status  # type: ignore[no-any-return]

    async def _ehlo_status(self, name: str) -> Status:
        if "EHLO" not in self._settings.hooks:
            self.session.host_name = name
            return self._ehlo_response()
        lines = self._ehlo_lines()
        if self._settings.ehlo_takes_responses:
            answer = await self._call_handler_hook("EHLO", name, [*lines, "250 HELP"])
            return Reply.parse("\n".join(answer)) if isinstance(answer, (list, tuple)) else answer
        await self.push("\n".join(lines))
        return await self._call_handler_hook("EHLO", name)  # type: ignore[no-any-return]

    def _ehlo_lines(self) -> list[str]:
        keywords = (extension.keyword(self) for extension in self._settings.extensions)
        return [f"250-{self.hostname}", *(f"250-{keyword}" for keyword in keywords if keyword is not None)]

    def _ehlo_response(self) -> str:
        settings, state = self._settings, None
        if settings.ehlo_state is not None:
            state = settings.ehlo_state(self)
            if (known := settings.ehlo_responses.get(state)) is not None:
                return known
        response = "\n".join((*self._ehlo_lines(), "250 HELP"))
        if state is not None:
            if len(settings.ehlo_responses) >= MAX_EHLO_RESPONSES:
                settings.ehlo_responses.clear()
            settings.ehlo_responses[state] = response
        return response

    @syntax("NOOP [ignored]")
    async def smtp_NOOP(self, arg: str | None) -> None:
        status = await self._call_handler_hook("NOOP", arg)
        await self.push("250 OK" if status is MISSING else status)

    @syntax("QUIT")
    async def smtp_QUIT(self, arg: str | None) -> None:
        self._no_argument(arg)
        try:
            status = await self._call_handler_hook("QUIT")
            await self.push("221 Bye" if status is MISSING else status)
        finally:
            self.finish()

    @syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> None:
        self._no_argument(arg)
        self._set_rset_state()
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
        text, utf8 = arg, False
        if self.enable_SMTPUTF8 and arg.upper().endswith(" SMTPUTF8"):
            # RFC 6531 section 3.7.4.2
            text, utf8 = arg[: -len(" SMTPUTF8")], True
        address = parse_mailbox(text, bare_local_part=True, local_part_limit=self.local_part_limit)
        if not (utf8 or address.isascii()):
            raise self._needs_smtputf8()
        status = await self._call_handler_hook("VRFY", address)
        await self.push(
            "252 Cannot VRFY user, but will accept message and attempt delivery" if status is MISSING else status
        )

    @syntax("EXPN <list>")
    async def smtp_EXPN(self, arg: str | None) -> None:
        await self.check_auth_needed("EXPN")
        raise SMTPReplyError(502, "5.5.1", "EXPN is not implemented")


# The options' part of it is made from the table of options.
SMTP.__doc__ = with_parameters(SMTP.__doc__)
