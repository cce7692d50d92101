"""The credentials of less frequent mechanisms: bearer tokens, certificates, CRAM-MD5's responses."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from twisted.cred.credentials import IUsernameHashedPassword
from zope.interface import implementer

__all__ = ["BearerToken", "CramMD5Response", "ExternalIdentity"]


@dataclass(frozen=True)
class BearerToken:
    """The credentials of XOAUTH2 and OAUTHBEARER (RFC 7628).

    :ivar login: the user as whom the client wants to act; OAUTHBEARER may leave it empty.
    :ivar token: the access token; never shown.
    :ivar host: the host that the client wants to reach, if it names it.
    :ivar port: the port that the client wants to reach, if it names it.
    """

    login: bytes
    token: str = field(repr=False)
    host: str | None = None
    port: int | None = None


@dataclass(frozen=True)
class ExternalIdentity:
    """The credentials of EXTERNAL (RFC 4422 appendix A).

    :ivar login: the user as whom the client wants to act; if it is empty, the certificate decides.
    :ivar certificate: the client's certificate in DER; it has been verified.
    """

    login: bytes
    certificate: bytes = field(repr=False)


@implementer(IUsernameHashedPassword)
@dataclass(frozen=True)
class CramMD5Response:
    """The credentials of CRAM-MD5 (RFC 2195); for ``twisted.cred`` an ``IUsernameHashedPassword``.

    :ivar login: the user's name.
    :ivar challenge: the server's challenge.
    :ivar digest: the client's response, in hexadecimal.
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
        """The same as :meth:`check`, under the name that ``twisted.cred`` calls."""
        return self.check(password)
