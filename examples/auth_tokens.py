"""Take mail from users with an API token instead of a password, and from machines with a client certificate.

Run it with ``python auth_tokens.py``.  It listens on port 8025 of this machine; the token is "open sesame"::

    swaks -s localhost:8025 -a PLAIN -au anne -ap "open sesame" --from anne@example.com --to you@example.com

Without ``--from`` it is refused: anne may write as anne@… only.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_smtpd import SMTPFactory
from twisted_smtpd.auth import AuthResult, BearerToken, ExternalIdentity, Identity, LoginPassword

# The SHA-256 of each user's token.  A token is long and random, so it needs no slow hash as a password does.
TOKENS = {b"anne": hashlib.sha256(b"open sesame").hexdigest()}
# The SHA-256 fingerprint of each machine's certificate.
MACHINES: dict[str, bytes] = {}


class Authenticator:
    """Lets in each user who has a token, as a password or as a bearer token, or a certificate that is known."""

    mechanisms = ("PLAIN", "LOGIN", "OAUTHBEARER", "EXTERNAL")

    async def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, auth_data: Any) -> AuthResult:
        user = self.user_of(auth_data)
        if user is None:
            return AuthResult(success=False, handled=False)
        return AuthResult(success=True, auth_data=Identity(user))

    def user_of(self, auth_data: LoginPassword | BearerToken | ExternalIdentity) -> bytes | None:
        if isinstance(auth_data, ExternalIdentity):
            return MACHINES.get(hashlib.sha256(auth_data.certificate).hexdigest())
        token = auth_data.token.encode() if isinstance(auth_data, BearerToken) else auth_data.password
        given = hashlib.sha256(token).hexdigest()
        right = hmac.compare_digest(given, TOKENS.get(auth_data.login, ""))
        return auth_data.login if right else None


class Handler:
    """Users write as themselves only."""

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.partition("@")[0].encode() != session.auth_data.login:
            return "550 5.7.1 That is not you"
        envelope.mail_from = address
        return "250 OK"


def make_factory(**options: Any) -> SMTPFactory:
    """The server; its clients must authenticate."""
    return SMTPFactory(Handler(), authenticator=Authenticator(), auth_required=True, **options)


async def main(reactor: Any) -> None:
    """Serve until the program is interrupted."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    endpoint = serverFromString(reactor, "tcp:8025:interface=127.0.0.1")
    # In clear because it is an example on the loopback; elsewhere give it a tls_context instead.
    await endpoint.listen(make_factory(auth_require_tls=False))
    await Deferred()


if __name__ == "__main__":
    react(main)
