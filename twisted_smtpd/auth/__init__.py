"""Authentication (RFC 4954): mechanisms, authenticators, password files."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted_smtpd.auth.results import (
    AuthResult,
    BearerToken,
    CramMD5Response,
    ExternalIdentity,
    Identity,
    LoginPassword,
    auth_mechanism,
)
from twisted_smtpd.auth.scram import ScramKeys
from twisted_smtpd.hooks import MISSING

if TYPE_CHECKING:
    from twisted_smtpd.auth.authenticators import (
        AcceptAnyone,
        CredAuthenticator,
        IAuthenticator,
        IScramAuthenticator,
    )
    from twisted_smtpd.auth.passwords import PasswordFile, PasswordFileError, set_password

__all__ = [
    "MISSING",
    "AcceptAnyone",
    "AuthResult",
    "BearerToken",
    "CramMD5Response",
    "CredAuthenticator",
    "ExternalIdentity",
    "IAuthenticator",
    "IScramAuthenticator",
    "Identity",
    "LoginPassword",
    "PasswordFile",
    "PasswordFileError",
    "ScramKeys",
    "auth_mechanism",
    "set_password",
]

_HOMES = {
    "AcceptAnyone": "authenticators",
    "CredAuthenticator": "authenticators",
    "IAuthenticator": "authenticators",
    "IScramAuthenticator": "authenticators",
    "PasswordFile": "passwords",
    "PasswordFileError": "passwords",
    "set_password": "passwords",
}


# On demand: the server needs the names above, and most servers nothing of this.
def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{home}"), name)
