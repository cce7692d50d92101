"""The AUTH command (RFC 4954)."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import traceback
from contextlib import suppress
from typing import Any
from urllib.parse import quote, quote_plus

from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_smtpd.auth.mechanisms import Mechanisms, Response, decode_response
from twisted_smtpd.auth.offer import MAX_AUTH_LINE, Mechanism, needs_tls, usable
from twisted_smtpd.auth.results import AuthResult, LoginPassword, loggable
from twisted_smtpd.protocol.dialog import CANCELLED, LINE_TOO_LONG
from twisted_smtpd.protocol.dispatch import Status, syntax
from twisted_smtpd.runtime.awaiting import MISSING, settle, unfinished
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["AuthCommands"]

log = Logger()

SUCCESS = Reply(235, "2.7.0", ("Authentication successful",))
INVALID = Reply(535, "5.7.8", ("Authentication credentials invalid",))
UNANSWERED = Reply(454, "4.7.0", ("Temporary authentication failure",))
TOO_MANY = Reply(421, "4.7.0", ("Too many failed authentications, closing the connection",))
ABORTED = Reply(501, "5.7.0", ("Authentication cancelled",))

# Refusals that are no answer to a guess: the client has cancelled, or can't be understood.
_NO_GUESS = (500, 501)
# What the client has heard when an exchange still goes on.
_OPEN_CODES = (0, 334)

# Shorter words of what a client said stay in a log: without them it could not be read.
_SHORTEST_SECRET = 4


class AuthCommands(Mechanisms):
    """AUTH, and what hooks need for it."""

    auth_callback: Any
    max_auth_failures: int

    _auth_failures = 0
    _failure_counted = False
    _auth_login: object = None
    # What the client has said in this exchange: it must not get into a log.
    _auth_said: tuple[bytes, ...] = ()

    @syntax("AUTH <mechanism> [<initial response>]", when="mechanisms")
    async def smtp_AUTH(self, arg: str | None) -> None:
        mechanism, args = await self._wanted(arg)
        self._auth_login = None
        self._failure_counted = False
        self._auth_said = tuple(word.encode() for word in args[1:])
        self._code = 0
        try:
            await self._take_turn()
            status = await self._call_handler_hook("AUTH", args)
            if status is MISSING:
                await self._exchange(mechanism, args)
            else:
                await self._handled(mechanism.name, status)
        except SMTPReplyError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if self._gone:
                if isinstance(error, CANCELLED):
                    raise
                # Here, where it is known what must not be in the log.
                self._log_failure(error)
                return
            # Counted, so that a check that breaks on a wrong password isn't a way around the limits.
            self._count_failure()
            reply = await self.status_for(error)
            if self._code in _OPEN_CODES:
                await self.push(reply)
        finally:
            self._auth_said = ()

    async def _wanted(self, arg: str | None) -> tuple[Mechanism, list[str]]:
        """The mechanism a client asks for, and the words of its command."""
        if not self.mechanisms:
            raise SMTPReplyError(502, "5.5.1", "AUTH is not offered here")
        await self.check_helo_needed()
        if not self.session.extended_smtp:
            raise SMTPReplyError(503, "5.5.1", "Send EHLO first")
        if self.session.authenticated:
            raise SMTPReplyError(503, "5.5.1", "Already authenticated")
        if self.envelope.mail_from is not None:
            raise SMTPReplyError(503, "5.5.1", "No AUTH within a mail transaction")
        words = (arg or "").split()
        if not 1 <= len(words) <= 2:
            raise SMTPReplyError(501, "5.5.4", "Syntax: AUTH <mechanism> [<initial response>]")
        # RFC 4422 section 3.1: in capitals, but RFC 4954 section 4 takes any case.
        words[0] = words[0].upper()
        mechanism = self.mechanisms.get(words[0])
        if mechanism is None:
            raise SMTPReplyError(504, "5.5.4", "Unrecognized authentication type")
        if needs_tls(self, mechanism):
            raise SMTPReplyError(538, "5.7.11", "Encryption required for requested authentication mechanism")
        if not usable(self, mechanism):
            raise SMTPReplyError(504, "5.5.4", f"{mechanism.name} can't work on this connection")
        return mechanism, words

    async def _take_turn(self) -> None:
        """Have a client wait whose address has failed before."""
        if self._auth_failures >= self.max_auth_failures:
            raise SMTPReplyError(TOO_MANY.code, TOO_MANY.enhanced, TOO_MANY.lines[0])
        seconds = self.connections.sign_ins.wait_for(self._address, self._now())
        if seconds is None:
            log.warn("{session} {client}: AUTH refused, too many failures before", **self._who())
            raise SMTPReplyError(421, "4.7.0", "Too many failed authentications from your address, try again later")
        if seconds:
            # Half of what a hook may take, lest the wait itself be cut off.
            await deferLater(self.connections.timers.clock, min(seconds, self.hook_timeout / 2))

    # -- the exchange --------------------------------------------------------------------------------------------------

    async def _exchange(self, mechanism: Mechanism, args: list[str]) -> None:
        """Run a mechanism, and act on its verdict."""
        owner = self.event_handler if mechanism.of_handler else self
        try:
            given = getattr(owner, mechanism.method)(self, args)
            verdict = await (given if mechanism.builtin else settle(given, self.loop))
            # A hook may return what an authenticator gave it, which may still have to be waited for.
            verdict = await settle(verdict, self.loop)
        except SMTPReplyError as error:
            if error.reply.code // 100 == 4 or error.reply.code in _NO_GUESS:
                raise
            await self._failed_authentication(mechanism.name, error.reply)
            return
        if isinstance(verdict, AuthResult):
            if verdict.success is True:
                login = getattr(verdict.auth_data, "login", None)
                await self._let_in(mechanism.name, verdict.auth_data, login, verdict.message or SUCCESS)
            else:
                await self._failed_authentication(mechanism.name, verdict.message or INVALID)
        elif verdict is None:
            if self._code in _OPEN_CODES:
                log.error(
                    "{session}: auth_{mechanism} gave None, and no answer", **self._who(), mechanism=mechanism.name
                )
                self._count_failure()
            await self._failed_authentication(mechanism.name, UNANSWERED)
        elif verdict is MISSING or verdict is False:
            await self._failed_authentication(mechanism.name, INVALID)
        elif unfinished(verdict) or not verdict:
            log.error(
                "{session}: auth_{mechanism} gave a {kind} that is nobody's identity: the client is refused",
                **self._who(),
                mechanism=mechanism.name,
                kind=type(verdict).__name__,
            )
            await self._failed_authentication(mechanism.name, INVALID)
        else:
            await self._let_in(mechanism.name, None, verdict, SUCCESS)

    async def _handled(self, mechanism: str, status: Any) -> None:
        """Say what ``handle_AUTH`` returned; whether the client is let in, it has noted in the session itself."""
        if status is not None or self._code in _OPEN_CODES:
            await self.push(status)
        if self._code // 100 == 5:
            await self._failed_authentication(mechanism, INVALID)

    async def _let_in(self, mechanism: str, auth_data: Any, login_data: Any, status: Status) -> None:
        if self._code not in _OPEN_CODES:
            # A client that has been told no must not be in.
            log.error(
                "{session}: auth_{mechanism} refused the client, then let it in", mechanism=mechanism, **self._who()
            )
            return
        reply = Reply.parse(status)
        if reply.code >= 300:
            log.error(
                "{session}: auth_{mechanism} lets the client in with {code}",
                **self._who(),
                mechanism=mechanism,
                code=reply.code,
            )
            await self._failed_authentication(mechanism, reply)
            return
        session = self.session
        session.authenticated, session.auth_data, session.login_data = True, auth_data, login_data
        self.forgive()
        user = self._auth_login if self._auth_login is not None else login_data
        log.info(
            "{session} {client}: authenticated with {mechanism} as {user}",
            **self._who(),
            mechanism=mechanism,
            user=_name_of(user),
        )
        await self.push(reply)

    async def _failed_authentication(self, mechanism: str, status: Status) -> None:
        """Refuse a client, unless a hook has done so already, and hang up on one that goes on guessing."""
        if self._code in _OPEN_CODES:
            reply = Reply.parse(status)
            if reply.code < 400:
                # A client that is not in must not be told that it is.
                log.error("{session}: AUTH fails with {code}", **self._who(), code=reply.code)
                reply = INVALID
            await self.push(reply)
        if not self._failure_counted and (self._code // 100 == 4 or self._code in _NO_GUESS):
            # Nobody's password was wrong: it can't be told now, or the client has cancelled.
            return
        self._count_failure(mechanism)
        if self._auth_failures >= self.max_auth_failures:
            self._verb = "?"
            await self.push(TOO_MANY)

    def _count_failure(self, mechanism: str | None = None) -> None:
        if self._failure_counted:
            return
        self._failure_counted = True
        self._auth_failures += 1
        self.connections.sign_ins.failed(self._address, self._now())
        if mechanism is not None:
            log.warn(
                "{session} {client}: AUTH {mechanism} failed for user {user}",
                **self._who(),
                mechanism=mechanism,
                user=_name_of(self._auth_login),
            )

    def _who(self) -> dict[str, Any]:
        peer = self.session.peer
        return {"session": self.session.id, "client": peer[0] if isinstance(peer, tuple) else "a Unix socket"}

    def _note_login(self, login: object) -> None:
        self._auth_login = login

    # -- for hooks -----------------------------------------------------------------------------------------------------

    async def challenge_auth(
        self, challenge: str | bytes, encode_to_b64: bool = True, log_client_response: bool = False
    ) -> Response:
        """Ask the client something (``334``), and wait for what it says.

        :param challenge: without the code; at most 9,200 octets.
        :param encode_to_b64: whether to encode the challenge; one that isn't encoded has to be printable ASCII.
        :param log_client_response: accepted for programs that pass it; what a client says here is never logged.
        :returns: what it says, decoded; ``MISSING`` if it cancels with ``*``, or if it is not base64: it has been
            answered then, and the hook returns ``None``.
        :raises SMTPReplyError: if it says more than 12,288 octets; leave it alone.
        :raises ValueError: if the challenge can't be sent.
        """
        octets = challenge.encode() if isinstance(challenge, str) else challenge
        if encode_to_b64:
            octets = base64.b64encode(octets)
        if len(octets) > MAX_AUTH_LINE - len("334 \r\n") or any(not 0x20 <= octet <= 0x7E for octet in octets):
            raise ValueError("a challenge is a line of printable ASCII, of at most 12,288 octets")
        self._code = 334
        self.send_challenge(octets)
        try:
            line = await self.read_line(MAX_AUTH_LINE - len("\r\n"))
        except SMTPReplyError as error:
            if error.reply != LINE_TOO_LONG:
                raise
            # RFC 4954 section 6.
            raise SMTPReplyError(500, "5.5.6", "Authentication exchange line is too long") from None
        line = line.strip(b" \t")
        self._auth_said += (line,)
        if line == b"*":
            return self._gave_up(ABORTED)
        try:
            response = decode_response(line)
        except SMTPReplyError as error:
            return self._gave_up(error.reply)
        self._auth_said += (response,)
        return response

    def _gave_up(self, reply: Reply) -> Response:
        self.refuse(reply)
        self._code = reply.code
        return MISSING

    async def _auth_interact(self, server_said: str | bytes) -> Response:
        """The same with a whole 334 line, encoded already; for programs that call it."""
        octets = server_said.encode() if isinstance(server_said, str) else server_said
        return await self.challenge_auth(octets.rstrip(b"\r\n").removeprefix(b"334 "), encode_to_b64=False)

    def _authenticate(self, mechanism: str, auth_data: Any) -> Any:
        """Ask the authenticator, or the callback, about a client.

        :param auth_data: what the client has proved or said.
        :returns: an :class:`AuthResult`, or an awaitable of one.
        """
        self._note_login(getattr(auth_data, "login", None))
        if self.authenticator is not None:
            given = self.authenticator(self, self.session, self.envelope, mechanism, auth_data)
            return self._judged(given, auth_data)
        if self.auth_callback is not None and isinstance(auth_data, LoginPassword):
            return self._judged(self.auth_callback(mechanism, *auth_data), auth_data)
        return AuthResult(success=False, handled=False)

    def _judged(self, given: Any, auth_data: Any) -> Any:
        if hasattr(given, "__await__"):
            return self._judged_later(given, auth_data)
        if self.authenticator is None:
            return AuthResult(success=given is True, handled=given is True, auth_data=auth_data)
        if isinstance(given, AuthResult):
            return given
        log.error(
            "{session}: the authenticator gave a {kind}, not an AuthResult: the client is refused",
            session=self.session.id,
            kind=type(given).__name__,
        )
        return AuthResult(success=False, handled=False)

    async def _judged_later(self, given: Any, auth_data: Any) -> AuthResult:
        result = await settle(given, self.loop)
        if hasattr(result, "__await__"):
            result = await settle(result, self.loop)
        return self._judged(None if hasattr(result, "__await__") else result, auth_data)  # type: ignore[no-any-return]

    # -- secrets -------------------------------------------------------------------------------------------------------

    def _log_failure(self, error: BaseException, what: str | None = None) -> None:
        if not self._auth_said:
            super()._log_failure(error, what)
            return
        # An exception likes to quote what it was given.
        text = "".join(traceback.format_exception(error))
        text = _without(text, self._auth_said)
        log.error("{session} {client}: {what} failed\n{text}", **self._who(), what=what or "AUTH", text=text)


def _name_of(identity: object) -> str:
    """Who somebody is, for the log: nothing else is known not to hold a password."""
    name = getattr(identity, "login", identity)
    return loggable(name) if isinstance(name, (str, bytes, bytearray)) else "?"


def _without(text: str, said: tuple[bytes, ...]) -> str:
    """A text in which nothing is left that the client said: as it came, decoded, or a part of that."""
    secrets: set[str] = set()
    for octets in said:
        parts = _parts(octets)
        with suppress(ValueError):
            parts |= _parts(base64.b64decode(octets))
        for part in parts:
            secrets |= _spellings(part)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "********")
    return text


def _parts(said: bytes) -> set[bytes]:
    """What an exception may quote of this: a password, or a token out of ``auth=Bearer TOKEN``."""
    parts = {said}
    for part in re.split(rb"[\0\x01]", said):
        value = re.sub(rb"^[A-Za-z]+=", b"", part)
        words = (word for word in value.split() if len(word) >= _SHORTEST_SECRET)
        parts |= {part, value, *words}
    return parts


def _spellings(part: bytes) -> set[str]:
    """How it may be written in a text: plain, as Python, JSON or a URL has it."""
    text = part.decode("utf-8", "replace")
    return {
        text,
        part.decode("latin-1"),
        repr(part)[2:-1],
        repr(text)[1:-1],
        ascii(text)[1:-1],
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        quote(part),
        quote(part, safe=""),
        quote_plus(part),
    }
