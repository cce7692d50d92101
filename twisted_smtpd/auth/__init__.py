"""Authentication (RFC 4954): mechanisms, authenticators, password files."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from twisted_smtpd.on_demand import on_demand
from twisted_smtpd.runtime.awaiting import MISSING

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

# The server needs the names above, and most servers nothing of this.
__getattr__ = on_demand(
    __name__,
    {
        "AcceptAnyone": "authenticators",
        "CredAuthenticator": "authenticators",
        "IAuthenticator": "authenticators",
        "IScramAuthenticator": "authenticators",
        "PasswordFile": "passwords",
        "PasswordFileError": "passwords",
        "set_password": "passwords",
    },
)
