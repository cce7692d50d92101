"""The AUTH command (RFC 4954)."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import traceback
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

from twisted.internet.task import deferLater

from twisted_smtpd.auth.mechanisms import decode_response
from twisted_smtpd.auth.offer import MAX_AUTH_LINE, needs_tls, usable
from twisted_smtpd.auth.results import AuthResult, LoginPassword, plain_login
from twisted_smtpd.auth.view import AuthClient, Mechanism, Response
from twisted_smtpd.logs.events import (
    HOOK_FAILED,
    SIGN_IN,
    SIGN_IN_BLOCKED,
    SIGN_IN_FAILED,
    SIGN_IN_FAULT,
)
from twisted_smtpd.protocol.connection import LINE_TOO_LONG
from twisted_smtpd.protocol.reporting import HIDDEN_LINES
from twisted_smtpd.protocol.states import NO_AUTH_NOW
from twisted_smtpd.runtime.awaiting import CANCELLED, MISSING, HookExit, settle, unfinished
from twisted_smtpd.runtime.throttle import LONGEST_WAIT
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["AuthExchange"]

SUCCESS = Reply(235, "2.7.0", ("Authentication successful",))
INVALID = Reply(535, "5.7.8", ("Authentication credentials invalid",))
UNANSWERED = Reply(454, "4.7.0", ("Temporary authentication failure",))
TOO_MANY = Reply(421, "4.7.0", ("Too many failed authentications, closing the connection",))
ABORTED = Reply(501, "5.7.0", ("Authentication cancelled",))

# Refusals that do not answer a guess: the client has cancelled, or can't be understood.
_NO_GUESS = (500, 501)
# The codes of the last reply while an exchange goes on; 0 is no reply yet.
_OPEN_CODES = (0, 334)

# Shorter words are not taken out of a log, even if the client said them: it could not be read without them.
_SHORTEST_SECRET = 4


class AuthExchange:
    """The AUTH command of one connection, and what counts over several of them.

    :param server: the connection.
    :ivar failures: how often the client has failed.
    :ivar said: what the client has said in this exchange: it must not get into a log.
    """

    __slots__ = ("_failure_counted", "_failure_told", "_inside", "_login", "_reserved", "failures", "said", "server")

    def __init__(self, server: AuthClient) -> None:
        self.server = server
        self.failures = 0
        self.said: tuple[bytes, ...] = ()
        self._failure_counted = self._failure_told = False
        self._login: object = None
        # Whether this exchange has a turn of its address, and whether it is its turn to have a password checked.
        self._reserved = self._inside = False

    def retire(self) -> None:
        """No AUTH comes any more: let go of the connection."""
        del self.server

    async def run(self, arg: str | None) -> None:
        """Carry out AUTH.

        :param arg: the mechanism and the initial response.
        """
        server = self.server
        mechanism, args = await self._wanted(arg)
        self._login = None
        self._failure_counted = self._failure_told = self._reserved = False
        self.said = tuple(word.encode() for word in args[1:])
        server._no_reply_yet()
        try:
            if self.failures >= server.max_auth_failures:
                raise SMTPReplyError(TOO_MANY.code, TOO_MANY.enhanced, TOO_MANY.lines[0])
            await self._take_turn()
            status = await server._call_handler_hook("AUTH", args)
            if status is MISSING:
                await self._exchange(mechanism, args)
            else:
                await self._handled(mechanism.name, status)
        except SMTPReplyError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if server._gone:
                if isinstance(error, CANCELLED):
                    raise
                # Logged here, because only this object knows what must not be in the log.
                server._log_failure(error)
                return
            # Counted, so that a check that breaks on a wrong password isn't a way around the limits.
            self.count_failure()
            reply = await server.status_for(error)
            if server._code in _OPEN_CODES:
                await server.push(reply)
        finally:
            self.said = ()
            if self._reserved and not self._failure_counted:
                server.connections.sign_ins.ended(server._address, server._now())
            self._leave()

    async def _wanted(self, arg: str | None) -> tuple[Mechanism, list[str]]:
        """The mechanism a client asks for, and the words of its command."""
        server = self.server
        if server.envelope.mail_from is not None:
            # A hook has begun to require authentication: the transaction that it did so in is still open.
            raise SMTPReplyError(NO_AUTH_NOW.code, NO_AUTH_NOW.enhanced, NO_AUTH_NOW.text)
        if not server.session.extended_smtp:
            raise SMTPReplyError(503, "5.5.1", "Send EHLO first")
        if server.session.authenticated:
            raise SMTPReplyError(503, "5.5.1", "Already authenticated")
        words = (arg or "").split()
        if not 1 <= len(words) <= 2:
            raise SMTPReplyError(501, "5.5.4", "Syntax: AUTH <mechanism> [<initial response>]")
        # RFC 4422 section 3.1: in capitals, but RFC 4954 section 4 takes any case.
        words[0] = words[0].upper()
        mechanism = server.mechanisms.get(words[0])
        if mechanism is None:
            raise SMTPReplyError(504, "5.5.4", "Unrecognized authentication type")
        if needs_tls(server, mechanism):
            raise SMTPReplyError(538, "5.7.11", "Encryption required for requested authentication mechanism")
        if not usable(server, mechanism):
            raise SMTPReplyError(504, "5.5.4", f"{mechanism.name} can't work on this connection")
        return mechanism, words

    async def _take_turn(self) -> None:
        """Make the client wait if its address has failed before, or has many passwords checked at the moment."""
        server = self.server
        sign_ins, address = server.connections.sign_ins, server._address
        while True:
            if not self._reserved and sign_ins.has_failed(address, server._now()):
                await self._reserve()
            waiter = sign_ins.enter(address)
            if waiter is None:
                self._inside = True
            else:
                # Noted in the callback: if the client goes away at this moment, the wait below is not resumed.
                waiter.addCallback(self._let_through)
                clock = server.connections.timers.clock
                waiter.addTimeout(min(LONGEST_WAIT, server.hook_timeout / 2), clock, _waited_too_long)
                await waiter
            if self._inside:
                return

    def _let_through(self, inside: bool) -> None:
        self._inside = inside

    def _leave(self) -> None:
        """Let other clients of this address have their passwords checked."""
        if self._inside:
            self._inside = False
            self.server.connections.sign_ins.leave(self.server._address)

    async def _reserve(self) -> None:
        """Wait for a turn of an address that has failed before."""
        server = self.server
        seconds = server.connections.sign_ins.wait_for(server._address, server._now())
        if seconds is None:
            server.connections.counts.auth["", "blocked"] += 1
            SIGN_IN_BLOCKED.tell(server)
            server._line = None
            raise SMTPReplyError(421, "4.7.0", "Too many failed authentications from your address, try again later")
        self._reserved = True
        if seconds:
            # At most half of what a hook may take, so that the wait itself is not cut off.
            await deferLater(server.connections.timers.clock, min(seconds, server.hook_timeout / 2))

    # -- the exchange --------------------------------------------------------------------------------------------------

    async def _exchange(self, mechanism: Mechanism, args: list[str]) -> None:
        """Run a mechanism, and act on its verdict."""
        server = self.server
        owner = server.event_handler if mechanism.of_handler else server
        server._hook = mechanism.method
        try:
            given = getattr(owner, mechanism.method)(server, args)
            verdict = await (given if mechanism.builtin else settle(given, server.loop))
            # A hook may return what an authenticator gave it, which may still have to be waited for.
            verdict = await settle(verdict, server.loop)
        except SystemExit as error:
            raise HookExit from error
        except SMTPReplyError as error:
            if not _is_guess(error.reply.code):
                raise
            await self._failed_authentication(mechanism.name, error.reply)
            return
        if isinstance(verdict, AuthResult):
            login = getattr(verdict.auth_data, "login", None)
            if verdict.success is True:
                await self._let_in(mechanism.name, verdict.auth_data, login, verdict.message or SUCCESS)
            else:
                if login is not None:
                    # An authenticator may know better than the client whose password was tried.
                    self.note_login(login)
                await self._failed_authentication(mechanism.name, verdict.message or INVALID)
        elif verdict is None:
            if self.server._code in _OPEN_CODES:
                self._tell_fault(f"auth_{mechanism.name} gave None, and no answer")
                self.count_failure()
            await self._failed_authentication(mechanism.name, UNANSWERED)
        elif verdict is MISSING or verdict is False:
            await self._failed_authentication(mechanism.name, INVALID)
        elif unfinished(verdict) or not verdict:
            kind = type(verdict).__name__
            self._tell_fault(f"auth_{mechanism.name} gave a {kind} that is no identity: the client is refused")
            await self._failed_authentication(mechanism.name, INVALID)
        else:
            await self._let_in(mechanism.name, None, verdict, SUCCESS)

    async def _handled(self, mechanism: str, status: Any) -> None:
        """Send what ``handle_AUTH`` returned; the hook itself notes in the session whether the client is let in."""
        if status is not None or self.server._code in _OPEN_CODES:
            await self.server.push(status)
        if self.server._code // 100 == 5:
            await self._failed_authentication(mechanism, INVALID)

    async def _let_in(self, mechanism: str, auth_data: Any, login_data: Any, status: str | Reply) -> None:
        if self.server._code not in _OPEN_CODES:
            # A client that has been told no must not be in.
            self._tell_fault(f"auth_{mechanism} refused the client, then let it in")
            return
        reply = Reply.parse(status)
        if reply.code >= 300:
            self._tell_fault(f"auth_{mechanism} lets the client in with {reply.code}")
            await self._failed_authentication(mechanism, reply)
            return
        session = self.server.session
        session.authenticated, session.auth_data, session.login_data = True, auth_data, login_data
        self.server.forgive()
        # The account, where it is known; else what the client has said.
        user = login_data if login_data and _is_name(login_data) else self._login
        self._count(mechanism, "success")
        SIGN_IN.tell(self.server, mechanism=mechanism, user=_name_of(login_data if user is None else user))
        self.server._hidden_lines = 0
        await self.server.push(reply)

    async def _failed_authentication(self, mechanism: str, status: str | Reply) -> None:
        """Refuse a client, unless a hook has done so already, and hang up on one that goes on guessing."""
        server = self.server
        if server._code in _OPEN_CODES:
            reply = Reply.parse(status)
            if reply.code < 400:
                # A client that is not in must not be told that it is.
                self._tell_fault(f"AUTH fails with {reply.code}")
                reply = INVALID
            if self._failure_told or (not self._failure_counted and _is_guess(reply.code)):
                # It has an event of its own.
                server._line = None
            await server.push(reply)
            server._line = b""
        if not (self._failure_counted or _is_guess(server._code)):
            # No password was wrong: it could not be checked, or the client has cancelled.
            return
        self.count_failure(mechanism)
        if self.failures >= server.max_auth_failures:
            await server.push(TOO_MANY)

    def count_failure(self, mechanism: str | None = None) -> None:
        """Count a wrong guess, for this connection and for its address, once in an exchange."""
        if self._failure_counted:
            return
        self._failure_counted = True
        self.failures += 1
        self.server._hidden_lines = HIDDEN_LINES
        self.server.connections.sign_ins.failed(self.server._address, self.server._now(), self._reserved)
        if mechanism is not None:
            self._failure_told = True
            self._count(mechanism, "failure")
            SIGN_IN_FAILED.tell(self.server, mechanism=mechanism, user=_name_of(self._login))

    def _count(self, mechanism: str, result: str) -> None:
        self.server.connections.counts.auth[mechanism, result] += 1

    def _tell_fault(self, fault: str) -> None:
        SIGN_IN_FAULT.tell(self.server, fault=fault)

    def note_login(self, login: object) -> None:
        """Remember for the log which user the client says it is."""
        self._login = login

    # -- for hooks -----------------------------------------------------------------------------------------------------

    async def challenge(self, challenge: str | bytes, encode_to_b64: bool) -> Response:
        """Ask the client something; see :meth:`twisted_smtpd.smtp.SMTP.challenge_auth`."""
        octets = challenge.encode() if isinstance(challenge, str) else challenge
        if encode_to_b64:
            octets = base64.b64encode(octets)
        if len(octets) > MAX_AUTH_LINE - len("334 \r\n") or any(not 0x20 <= octet <= 0x7E for octet in octets):
            raise ValueError("a challenge is a line of printable ASCII, of at most 12,288 octets")
        self.server.send_challenge(octets)
        # While the client thinks, others of its address may go on; what it then says may be a guess.
        was_inside = self._inside
        self._leave()
        try:
            line = await self.server.read_line(MAX_AUTH_LINE - len("\r\n"))
        except SMTPReplyError as error:
            if error.reply != LINE_TOO_LONG:
                raise
            # RFC 4954 section 6.
            raise SMTPReplyError(500, "5.5.6", "Authentication exchange line is too long") from None
        line = line.strip(b" \t")
        self.said += (line,)
        if line == b"*":
            return self._gave_up(ABORTED)
        try:
            response = decode_response(line)
        except SMTPReplyError as error:
            return self._gave_up(error.reply)
        self.said += (response,)
        if was_inside:
            await self._take_turn()
        return response

    def _gave_up(self, reply: Reply) -> Response:
        self.server.refuse(reply)
        return MISSING

    def authenticate(self, mechanism: str, auth_data: Any) -> Any:
        """Ask the authenticator, or the callback, about a client.

        :param auth_data: what the client has proved or said.
        :returns: an :class:`AuthResult`, or an awaitable of one.
        """
        server = self.server
        self.note_login(getattr(auth_data, "login", None))
        if server.authenticator is not None:
            given = server.authenticator(server, server.session, server.envelope, mechanism, auth_data)
            return self._judged(given, auth_data)
        if server.auth_callback is not None and isinstance(auth_data, LoginPassword):
            return self._judged(server.auth_callback(mechanism, *auth_data), auth_data)
        return AuthResult(success=False, handled=False)

    def _judged(self, given: Any, auth_data: Any) -> Any:
        if hasattr(given, "__await__"):
            return self._judged_later(given, auth_data)
        if self.server.authenticator is None:
            return AuthResult(success=given is True, handled=given is True, auth_data=auth_data)
        if isinstance(given, AuthResult):
            return given
        kind = type(given).__name__
        self._tell_fault(f"the authenticator gave a {kind}, not an AuthResult: the client is refused")
        return AuthResult(success=False, handled=False)

    async def _judged_later(self, given: Any, auth_data: Any) -> AuthResult:
        result = await settle(given, self.server.loop)
        if hasattr(result, "__await__"):
            result = await settle(result, self.server.loop)
        return self._judged(None if hasattr(result, "__await__") else result, auth_data)  # type: ignore[no-any-return]

    # -- secrets -------------------------------------------------------------------------------------------------------

    def log_failure(self, error: BaseException, what: str | None) -> None:
        """Log an error without anything that the client has said: an exception likes to quote what it was given."""
        text = _without("".join(traceback.format_exception(error)), self.said)
        HOOK_FAILED.tell(self.server, what=what or "AUTH", traceback=text)


def _waited_too_long(result: object, seconds: float) -> NoReturn:
    raise SMTPReplyError(454, "4.7.0", "Too many authentications from your address at once, try again later")


def _is_guess(code: int) -> bool:
    """Whether a refusal says that a password was wrong; if not, it could not be checked, or the client cancelled."""
    return code // 100 != 4 and code not in _NO_GUESS


def _is_name(identity: object) -> bool:
    return isinstance(getattr(identity, "login", identity), (str, bytes, bytearray))


def _name_of(identity: object) -> str | None:
    """The name of a client for the log; ``None`` for anything but a name, since it may hold a password."""
    return plain_login(getattr(identity, "login", identity)) if _is_name(identity) else None


def _without(text: str, said: tuple[bytes, ...]) -> str:
    """A text without anything that the client said: as it arrived, decoded, or a part of that."""
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
