"""The built-in SASL mechanisms (RFC 4422): what each says on the wire, and what it hands to the authenticator."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from typing import Any, Literal

from twisted_smtpd.auth.offer import binding_of
from twisted_smtpd.auth.results import (
    AuthResult,
    BearerToken,
    CramMD5Response,
    ExternalIdentity,
    Identity,
    LoginPassword,
)
from twisted_smtpd.auth.scram import BINDINGS, ScramError, ScramKeys, ScramServer
from twisted_smtpd.protocol.dispatch import Server
from twisted_smtpd.runtime.awaiting import MISSING, _Missing, settle
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["Mechanisms"]

#: What a client said, decoded; or ``MISSING`` when it gave up and has been told so.
Response = bytes | Literal[_Missing.MISSING]

REJECTED = AuthResult(success=False, handled=False)
NOT_SAID = AuthResult(success=False, handled=True)

_XOAUTH2 = re.compile(rb"user=([^\x01]+)\x01auth=Bearer +([!-~]+)\x01\x01", re.IGNORECASE)
# RFC 7628 section 3.1.
_OAUTHBEARER = re.compile(rb"[ny],(?:a=((?:[^=,\0\x01]|=2C|=3D)+))?,\x01((?:[A-Za-z]+=[^\0\x01]*\x01)+)\x01")
_BEARER = re.compile(r"Bearer +([!-~]+)", re.IGNORECASE)


def decode_response(text: bytes) -> bytes:
    """Decode what a client says in an exchange.

    :raises SMTPReplyError: 501 5.5.2 if it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SMTPReplyError(501, "5.5.2", "That is not base64") from None


def malformed() -> SMTPReplyError:
    return SMTPReplyError(501, "5.5.2", "That is not what this mechanism has to say")


class Mechanisms(Server):
    """One ``auth_*`` method per mechanism: called with the server itself, and the words that follow AUTH."""

    authenticator: Any

    #: What LOGIN asks for.
    AuthLoginUsernameChallenge: str | bytes = "Username:"
    AuthLoginPasswordChallenge: str | bytes = "Password:"

    async def challenge_auth(
        self, challenge: str | bytes, encode_to_b64: bool = True, log_client_response: bool = False
    ) -> Response:
        """Ask the client something; see :class:`twisted_smtpd.auth.exchange.AuthCommands`."""
        raise NotImplementedError

    def _authenticate(self, mechanism: str, auth_data: Any) -> Any:
        raise NotImplementedError

    async def _first_response(self, args: list[str]) -> Response:
        """What the client says first: with AUTH itself, or once it is asked (RFC 4954 section 4)."""
        if len(args) == 1:
            return await self.challenge_auth(b"")
        return b"" if args[1] == "=" else decode_response(args[1].encode())

    async def auth_PLAIN(self, server: Any, args: list[str]) -> Any:
        """PLAIN (RFC 4616)."""
        response = await self._first_response(args)
        if response is MISSING:
            return NOT_SAID
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise malformed()
        authzid, login, password = parts
        if authzid not in (b"", login):
            # To act as somebody else takes rights that no authenticator here knows of.
            return REJECTED
        return self._authenticate("PLAIN", LoginPassword(login, password))

    async def auth_LOGIN(self, server: Any, args: list[str]) -> Any:
        """LOGIN (draft-murchison-sasl-login), for clients that know nothing better."""
        login = await (self._first_response(args) if args[1:] else self.challenge_auth(self.AuthLoginUsernameChallenge))
        if login is MISSING:
            return NOT_SAID
        password = await self.challenge_auth(self.AuthLoginPasswordChallenge)
        if password is MISSING:
            return NOT_SAID
        if not login or not password:
            # A directory takes a name without a password for nobody in particular, and says yes.
            raise malformed()
        return self._authenticate("LOGIN", LoginPassword(login, password))

    async def auth_CRAM__MD5(self, server: Any, args: list[str]) -> Any:
        """CRAM-MD5 (RFC 2195)."""
        if args[1:]:
            # The server speaks first here.
            raise malformed()
        challenge = f"<{secrets.token_hex(16)}@{self.hostname}>".encode("ascii", "replace")
        response = await self.challenge_auth(challenge)
        if response is MISSING:
            return NOT_SAID
        login, _, digest = response.rpartition(b" ")
        if not login or len(digest) != 32:
            raise malformed()
        return self._authenticate("CRAM-MD5", CramMD5Response(login, challenge, digest.lower()))

    async def auth_EXTERNAL(self, server: Any, args: list[str]) -> Any:
        """EXTERNAL (RFC 4422 appendix A): the client's certificate says who it is."""
        response = await self._first_response(args)
        if response is MISSING:
            return NOT_SAID
        if b"\0" in response:
            raise malformed()
        tls = self.session.ssl
        # It is offered only to a client with a certificate that was verified.
        assert tls is not None and tls.peer_certificate is not None
        return self._authenticate("EXTERNAL", ExternalIdentity(response, tls.peer_certificate))

    async def auth_XOAUTH2(self, server: Any, args: list[str]) -> Any:
        """XOAUTH2, as Google's and Microsoft's clients speak it."""
        response = await self._first_response(args)
        if response is MISSING:
            return NOT_SAID
        match = _XOAUTH2.fullmatch(response)
        if match is None:
            raise malformed()
        data = BearerToken(match[1], match[2].decode("ascii"))
        return await self._bearer("XOAUTH2", data, b'{"status":"400","schemes":"Bearer","scope":""}')

    async def auth_OAUTHBEARER(self, server: Any, args: list[str]) -> Any:
        """OAUTHBEARER (RFC 7628)."""
        response = await self._first_response(args)
        if response is MISSING:
            return NOT_SAID
        match = _OAUTHBEARER.fullmatch(response)
        if match is None:
            raise malformed()
        pairs = (pair.partition(b"=") for pair in match[2].split(b"\x01")[:-1])
        values = {key.decode().lower(): value.decode("utf-8", "replace") for key, _, value in pairs}
        token = _BEARER.fullmatch(values.get("auth", ""))
        if token is None:
            raise malformed()
        login = (match[1] or b"").replace(b"=2C", b",").replace(b"=3D", b"=")
        port = values.get("port", "")
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else None
        data = BearerToken(login, token[1], values.get("host"), number)
        return await self._bearer("OAUTHBEARER", data, b'{"status":"invalid_token"}')

    async def _bearer(self, mechanism: str, data: BearerToken, refusal: bytes) -> Any:
        """Have a token checked; who has a wrong one is told why before it hears 535 (RFC 7628 section 3.2.3)."""
        result = await settle(self._authenticate(mechanism, data), self.loop)
        if result.success is True or result.message is not None:
            return result
        # Now: whoever knows that its guess was wrong may hang up, or cancel.
        self._count_failure(mechanism)
        if await self.challenge_auth(refusal) is MISSING:
            return NOT_SAID
        return result

    async def auth_SCRAM__SHA__1(self, server: Any, args: list[str]) -> Any:
        """SCRAM-SHA-1 (RFC 5802)."""
        return await self._scram("SCRAM-SHA-1", args)

    async def auth_SCRAM__SHA__1__PLUS(self, server: Any, args: list[str]) -> Any:
        """SCRAM-SHA-1-PLUS (RFC 5802)."""
        return await self._scram("SCRAM-SHA-1-PLUS", args)

    async def auth_SCRAM__SHA__256(self, server: Any, args: list[str]) -> Any:
        """SCRAM-SHA-256 (RFC 7677)."""
        return await self._scram("SCRAM-SHA-256", args)

    async def auth_SCRAM__SHA__256__PLUS(self, server: Any, args: list[str]) -> Any:
        """SCRAM-SHA-256-PLUS (RFC 7677)."""
        return await self._scram("SCRAM-SHA-256-PLUS", args)

    async def _scram(self, mechanism: str, args: list[str]) -> AuthResult:
        response = await self._first_response(args)
        if response is MISSING:
            return NOT_SAID
        plain = mechanism.removesuffix("-PLUS")
        plus_offered = f"{plain}-PLUS" in self.mechanisms and any(binding_of(self, kind) for kind in BINDINGS)
        exchange = ScramServer(mechanism, lambda kind: binding_of(self, kind), plus_offered)
        try:
            login = exchange.first(response)
            keys = await self._scram_keys(plain, login)
            response = await self.challenge_auth(exchange.challenge(keys))
            if response is MISSING:
                return NOT_SAID
            proof = exchange.final(response)
        except ScramError as error:
            if error.malformed:
                raise malformed() from None
            return AuthResult(success=False, handled=False, message=f"535 5.7.8 {error}")
        if proof is None:
            return REJECTED
        # RFC 4954 section 4: what the server has to say at the end is one more challenge, answered by nothing.
        response = await self.challenge_auth(proof)
        if response is MISSING:
            return NOT_SAID
        if response:
            raise malformed()
        return AuthResult(success=True, auth_data=Identity(login))

    async def _scram_keys(self, mechanism: str, login: bytes) -> ScramKeys:
        self._note_login(login)
        found = self.authenticator.scram_keys(self, self.session, self.envelope, mechanism, login)
        keys = await settle(found, self.loop)
        return keys if isinstance(keys, ScramKeys) else ScramKeys.decoy(mechanism, login)

    def _note_login(self, login: bytes) -> None:
        """Remember for the log who the client says it is."""
        raise NotImplementedError

    def _count_failure(self, mechanism: str) -> None:
        """Count a wrong guess, for this connection and for its address, once in an exchange."""
        raise NotImplementedError
