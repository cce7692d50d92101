"""What passes between mechanisms and authenticators: credentials, verdicts, the names of aiosmtpd's API."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from twisted_smtpd.on_demand import on_demand
from twisted_smtpd.options.table import AuthCallbackType, AuthenticatorType

if TYPE_CHECKING:
    from twisted_smtpd.auth.credentials import BearerToken, CramMD5Response, ExternalIdentity

__all__ = [
    "AuthCallbackType",
    "AuthMechanismType",
    "AuthResult",
    "AuthenticatorType",
    "BearerToken",
    "CramMD5Response",
    "ExternalIdentity",
    "Identity",
    "LoginPassword",
    "auth_mechanism",
    "loggable",
]

# They load twisted.cred, and few servers have their mechanisms.
__getattr__ = on_demand(
    __name__, {"BearerToken": "credentials", "CramMD5Response": "credentials", "ExternalIdentity": "credentials"}
)

F = TypeVar("F", bound=Callable[..., Any])

#: ``auth_MECHANISM(server, args)``.
AuthMechanismType = Callable[[Any, list[str]], Any]

# RFC 4422 section 3.1.
MECHANISM_NAME = re.compile(r"[A-Z0-9_-]{1,20}")
# What of a user's name is put in a log line.
LOGGED_LOGIN = 64


@dataclass(kw_only=True)
class AuthResult:
    """What an authenticator, or an ``auth_*`` hook, says of a client.

    :param success: whether the client is who it says it is; only ``True`` itself lets it in.
    :param handled: whether a client that is not let in has been answered already.  If it hasn't in fact, it hears 535.
    :param message: the status for the client, if not the usual one.
    :param auth_data: becomes ``session.auth_data``; its ``login`` attribute, if it has one, ``session.login_data``.
    """

    success: bool
    handled: bool = True
    message: str | None = None
    auth_data: Any = field(default=None, repr=False)


class LoginPassword(NamedTuple):
    """What PLAIN and LOGIN give an authenticator.

    :ivar login: the user's name.
    :ivar password: the password; never shown.
    """

    login: bytes
    password: bytes

    def __str__(self) -> str:
        return f"LoginPassword(login={loggable(self.login)}, password=...)"

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Identity:
    """Who a client is, without the secret that it proved it with.

    :ivar login: the user's name.
    """

    login: bytes


def auth_mechanism(actual_name: str) -> Callable[[F], F]:
    """Decorate an ``auth_*`` hook with the name of its mechanism, where that can't be told from its own.

    Without it ``auth_SCRAM__SHA__1`` is ``SCRAM-SHA-1``.

    :param actual_name: 1 to 20 letters, digits, hyphens and underscores; case does not matter.
    :raises ValueError: if it can't be a mechanism's name (RFC 4422 section 3.1).
    """
    name = actual_name.upper()
    if MECHANISM_NAME.fullmatch(name) is None:
        raise ValueError(f"not the name of a mechanism: {actual_name!r}")

    def decorate(method: F) -> F:
        method.__auth_mechanism_name__ = name  # type: ignore[attr-defined]
        return method

    return decorate


def loggable(login: object) -> str:
    """A user's name in quotes, in ASCII, without anything that could end a log line or steer a terminal."""
    if isinstance(login, (bytes, bytearray)):
        login = bytes(login).decode("utf-8", "backslashreplace")
    text = str(login)
    return ascii(text if len(text) <= LOGGED_LOGIN else f"{text[:LOGGED_LOGIN]}...")
