"""Credentials for authenticators, and their results; the names are those of aiosmtpd's API."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from twisted_smtpd.options.table import AuthCallbackType, AuthenticatorType

__all__ = [
    "AuthCallbackType",
    "AuthMechanismType",
    "AuthResult",
    "AuthenticatorType",
    "Identity",
    "LoginPassword",
    "auth_mechanism",
    "loggable",
    "plain_login",
]

F = TypeVar("F", bound=Callable[..., Any])

#: ``auth_MECHANISM(server, args)``.
AuthMechanismType = Callable[[Any, list[str]], Any]

# RFC 4422 section 3.1.
MECHANISM_NAME = re.compile(r"[A-Z0-9_-]{1,20}")
# How many characters of a user's name are logged.
LOGGED_LOGIN = 64


@dataclass(kw_only=True)
class AuthResult:
    """The result of an authenticator or of an ``auth_*`` hook.

    :param success: whether the client is authenticated; only ``True`` itself counts as yes.
    :param handled: without success, whether the client has had its reply.  If in fact it has not, it gets 535.
    :param message: the status for the client, instead of the usual one.
    :param auth_data: becomes ``session.auth_data``; its attribute ``login``, if any, becomes ``session.login_data``.
    """

    success: bool
    handled: bool = True
    message: str | None = None
    auth_data: Any = field(default=None, repr=False)


class LoginPassword(NamedTuple):
    """The credentials of PLAIN and LOGIN.

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
    """A client's identity, without its secret.

    :ivar login: the user's name.
    """

    login: bytes


def auth_mechanism(actual_name: str) -> Callable[[F], F]:
    """Name the mechanism of an ``auth_*`` hook (a decorator).

    Without it the hook's name tells: ``auth_SCRAM__SHA__1`` is ``SCRAM-SHA-1``.

    :param actual_name: 1 to 20 letters, digits, hyphens and underscores; case does not matter.
    :raises ValueError: if a mechanism can't have this name (RFC 4422 section 3.1).
    """
    name = actual_name.upper()
    if MECHANISM_NAME.fullmatch(name) is None:
        raise ValueError(f"not the name of a mechanism: {actual_name!r}")

    def decorate(method: F) -> F:
        method.__auth_mechanism_name__ = name  # type: ignore[attr-defined]
        return method

    return decorate


def loggable(login: object) -> str:
    """A user's name for the log: quoted, in ASCII, without line ends and other control characters."""
    return ascii(plain_login(login))


def plain_login(login: object) -> str:
    """A user's name as text, of at most 64 characters."""
    if isinstance(login, (bytes, bytearray)):
        login = bytes(login).decode("utf-8", "backslashreplace")
    text = str(login)
    return text if len(text) <= LOGGED_LOGIN else f"{text[:LOGGED_LOGIN]}..."
