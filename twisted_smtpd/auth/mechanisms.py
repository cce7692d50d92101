"""The built-in SASL mechanisms (RFC 4422): what each says on the wire, and what it hands to the authenticator."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from typing import TYPE_CHECKING, Any

from twisted_smtpd.auth.offer import any_credentials, binding_of
from twisted_smtpd.auth.results import AuthResult, Identity, LoginPassword
from twisted_smtpd.auth.scram import BINDINGS, ScramError, ScramKeys, ScramServer
from twisted_smtpd.auth.view import Exchange, Response
from twisted_smtpd.runtime.awaiting import MISSING, settle
from twisted_smtpd.wire.replies import SMTPReplyError

if TYPE_CHECKING:
    from twisted_smtpd.auth.credentials import BearerToken

__all__ = ["cram_md5", "decode_response", "external", "login", "oauthbearer", "plain", "scram", "xoauth2"]

REJECTED = AuthResult(success=False, handled=False)
NOT_SAID = AuthResult(success=False, handled=True)

_XOAUTH2 = re.compile(rb"user=([^\x01]+)\x01auth=Bearer +([!-~]+)\x01\x01", re.IGNORECASE)
# RFC 7628 section 3.1.
_OAUTHBEARER = re.compile(rb"[ny],(?:a=((?:[^=,\0\x01]|=2C|=3D)+))?,\x01((?:[A-Za-z]+=[^\0\x01]*\x01)+)\x01")
_BEARER = re.compile(r"Bearer +([!-~]+)", re.IGNORECASE)


def decode_response(text: bytes) -> bytes:
    """Decode what a client says in an exchange.

    Python takes surplus padding and bits.  Here octets have one spelling, so that nothing is left out.

    :raises SMTPReplyError: 501 5.5.2 if it is not base64.
    """
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error:
        octets = None
    if octets is None or base64.b64encode(octets) != text:
        raise SMTPReplyError(501, "5.5.2", "That is not base64")
    return octets


def malformed() -> SMTPReplyError:
    return SMTPReplyError(501, "5.5.2", "That is not what this mechanism has to say")


async def _first_response(exchange: Exchange, args: list[str]) -> Response:
    """What the client says first: with AUTH itself, or once it is asked (RFC 4954 section 4)."""
    if len(args) == 1:
        return await exchange.server.challenge_auth(b"")
    return b"" if args[1] == "=" else decode_response(args[1].encode())


async def plain(exchange: Exchange, args: list[str]) -> Any:
    """PLAIN (RFC 4616)."""
    response = await _first_response(exchange, args)
    if response is MISSING:
        return NOT_SAID
    parts = response.split(b"\0")
    anything = any_credentials(exchange.server.authenticator)
    if len(parts) != 3 or not (anything or (parts[1] and parts[2])):
        raise malformed()
    authzid, login, password = parts
    if authzid not in (b"", login) and not anything:
        # To act as another user takes rights, and no authenticator here knows about rights.
        return REJECTED
    return exchange.server._authenticate("PLAIN", LoginPassword(login, password))


async def login(exchange: Exchange, args: list[str]) -> Any:
    """LOGIN (draft-murchison-sasl-login), for clients that have no better mechanism."""
    server = exchange.server
    asked = _first_response(exchange, args) if args[1:] else server.challenge_auth(server.AuthLoginUsernameChallenge)
    login = await asked
    if login is MISSING:
        return NOT_SAID
    password = await server.challenge_auth(server.AuthLoginPasswordChallenge)
    if password is MISSING:
        return NOT_SAID
    if not (login and password) and not any_credentials(server.authenticator):
        # LDAP takes a name without a password for an anonymous user, and says yes (RFC 4513 section 5.1.2).
        raise malformed()
    return exchange.server._authenticate("LOGIN", LoginPassword(login, password))


async def cram_md5(exchange: Exchange, args: list[str]) -> Any:
    """CRAM-MD5 (RFC 2195)."""
    if args[1:]:
        # The server speaks first here.
        raise malformed()
    challenge = f"<{secrets.token_hex(16)}@{exchange.server.hostname}>".encode("ascii", "replace")
    response = await exchange.server.challenge_auth(challenge)
    if response is MISSING:
        return NOT_SAID
    login, _, digest = response.rpartition(b" ")
    if len(digest) != 32 or not (login or any_credentials(exchange.server.authenticator)):
        raise malformed()
    # Imported here and below: it loads twisted.cred, which PLAIN, LOGIN and SCRAM do not need.
    from twisted_smtpd.auth.credentials import CramMD5Response

    return exchange.server._authenticate("CRAM-MD5", CramMD5Response(login, challenge, digest.lower()))


async def external(exchange: Exchange, args: list[str]) -> Any:
    """EXTERNAL (RFC 4422 appendix A): the client's certificate says who it is."""
    response = await _first_response(exchange, args)
    if response is MISSING:
        return NOT_SAID
    if b"\0" in response:
        raise malformed()
    from twisted_smtpd.auth.credentials import ExternalIdentity

    tls = exchange.server.session.ssl
    # It is offered only to a client with a certificate that was verified.
    assert tls is not None and tls.peer_certificate is not None
    return exchange.server._authenticate("EXTERNAL", ExternalIdentity(response, tls.peer_certificate))


async def xoauth2(exchange: Exchange, args: list[str]) -> Any:
    """XOAUTH2, as Google's and Microsoft's clients speak it."""
    response = await _first_response(exchange, args)
    if response is MISSING:
        return NOT_SAID
    match = _XOAUTH2.fullmatch(response)
    if match is None:
        raise malformed()
    from twisted_smtpd.auth.credentials import BearerToken

    data = BearerToken(match[1], match[2].decode("ascii"))
    return await _bearer(exchange, "XOAUTH2", data, b'{"status":"400","schemes":"Bearer","scope":""}')


async def oauthbearer(exchange: Exchange, args: list[str]) -> Any:
    """OAUTHBEARER (RFC 7628)."""
    response = await _first_response(exchange, args)
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
    from twisted_smtpd.auth.credentials import BearerToken

    data = BearerToken(login, token[1], values.get("host"), number)
    return await _bearer(exchange, "OAUTHBEARER", data, b'{"status":"invalid_token"}')


async def _bearer(exchange: Exchange, mechanism: str, data: BearerToken, refusal: bytes) -> Any:
    """Check a token; a client with a wrong one is told why before it gets 535 (RFC 7628 section 3.2.3)."""
    result = await settle(exchange.server._authenticate(mechanism, data), exchange.server.loop)
    if result.success is True or result.message is not None:
        return result
    # Counted now, because a client that knows that its guess was wrong may hang up or cancel.
    exchange.count_failure(mechanism)
    if await exchange.server.challenge_auth(refusal) is MISSING:
        return NOT_SAID
    return result


async def scram(exchange: Exchange, mechanism: str, args: list[str]) -> AuthResult:
    """SCRAM (RFC 5802, RFC 7677), with and without channel binding.

    :param mechanism: its whole name.
    """
    server = exchange.server
    response = await _first_response(exchange, args)
    if response is MISSING:
        return NOT_SAID
    plain = mechanism.removesuffix("-PLUS")
    plus_offered = f"{plain}-PLUS" in server.mechanisms and any(binding_of(server, kind) for kind in BINDINGS)
    dialog = ScramServer(mechanism, lambda kind: binding_of(server, kind), plus_offered)
    challenged = proved = False
    try:
        login = dialog.first(response)
        keys = await _scram_keys(exchange, plain, login)
        challenged = True
        response = await server.challenge_auth(dialog.challenge(keys))
        if response is MISSING:
            return NOT_SAID
        proof = dialog.final(response)
        proved = proof is not None
    except ScramError as error:
        if error.malformed:
            raise malformed() from None
        return AuthResult(success=False, handled=False, message=f"535 5.7.8 {error}")
    finally:
        # However it ended: a client has seen a user's salt, and may have left because its guess would fail.
        if challenged and not proved:
            exchange.count_failure(mechanism)
    if proof is None:
        return REJECTED
    # RFC 4954 section 4: what the server says at the end is one more challenge; the answer is empty.
    response = await server.challenge_auth(proof)
    if response is MISSING:
        return NOT_SAID
    if response:
        raise malformed()
    return AuthResult(success=True, auth_data=Identity(login))


async def _scram_keys(exchange: Exchange, mechanism: str, login: bytes) -> ScramKeys:
    exchange.note_login(login)
    server = exchange.server
    authenticator: Any = server.authenticator
    found = authenticator.scram_keys(server, server.session, server.envelope, mechanism, login)
    keys = await settle(found, server.loop)
    if isinstance(keys, ScramKeys):
        return keys
    return ScramKeys.decoy(mechanism, login, secret=getattr(authenticator, "decoy_secret", None))
