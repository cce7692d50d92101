"""What the rarer mechanisms give an authenticator: bearer tokens, certificates, CRAM-MD5's responses."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from twisted.cred.credentials import IUsernameHashedPassword
from zope.interface import implementer

__all__ = ["BearerToken", "CramMD5Response", "ExternalIdentity"]


@dataclass(frozen=True)
class BearerToken:
    """What XOAUTH2 and OAUTHBEARER (RFC 7628) give an authenticator.

    :ivar login: whom the client wants to act as; OAUTHBEARER may leave it empty.
    :ivar token: the access token; never shown.
    :ivar host: the host the client meant to reach, if it says so.
    :ivar port: the same for the port.
    """

    login: bytes
    token: str = field(repr=False)
    host: str | None = None
    port: int | None = None


@dataclass(frozen=True)
class ExternalIdentity:
    """What EXTERNAL (RFC 4422 appendix A) gives an authenticator.

    :ivar login: whom the client wants to act as; empty if that is to follow from its certificate.
    :ivar certificate: the client's certificate, in DER; it has been verified.
    """

    login: bytes
    certificate: bytes = field(repr=False)


@implementer(IUsernameHashedPassword)
@dataclass(frozen=True)
class CramMD5Response:
    """What CRAM-MD5 (RFC 2195) gives an authenticator; for ``twisted.cred`` it is an ``IUsernameHashedPassword``.

    :ivar login: the user's name.
    :ivar challenge: what the client was asked.
    :ivar digest: what it answered, in hexadecimal.
    """

    login: bytes
    challenge: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @property
    def username(self) -> bytes:
        """The same as ``login``."""
        return self.login

    def check(self, password: bytes) -> bool:
        """Whether the client has this password."""
        expected = hmac.new(password, self.challenge, hashlib.md5).hexdigest().encode()
        return hmac.compare_digest(expected, self.digest)

    def checkPassword(self, password: bytes) -> bool:
        """The same, as ``twisted.cred`` calls it."""
        return self.check(password)
