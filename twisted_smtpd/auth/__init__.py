"""Authentication (RFC 4954): mechanisms, authenticators, password files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_smtpd.on_demand import on_demand
from twisted_smtpd.runtime.awaiting import MISSING

if TYPE_CHECKING:
    from twisted_smtpd.auth.authenticators import (
        AcceptAnyone,
        CredAuthenticator,
        IAuthenticator,
        IScramAuthenticator,
    )
    from twisted_smtpd.auth.credentials import BearerToken, CramMD5Response, ExternalIdentity
    from twisted_smtpd.auth.passwords import PasswordFile, PasswordFileError, set_password
    from twisted_smtpd.auth.results import AuthResult, Identity, LoginPassword, auth_mechanism
    from twisted_smtpd.auth.scram import ScramKeys

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

# Most servers need little of this.
__getattr__ = on_demand(
    __name__,
    {
        "AcceptAnyone": "authenticators",
        "AuthResult": "results",
        "BearerToken": "credentials",
        "CramMD5Response": "credentials",
        "CredAuthenticator": "authenticators",
        "ExternalIdentity": "credentials",
        "IAuthenticator": "authenticators",
        "IScramAuthenticator": "authenticators",
        "Identity": "results",
        "LoginPassword": "results",
        "PasswordFile": "passwords",
        "PasswordFileError": "passwords",
        "ScramKeys": "scram",
        "auth_mechanism": "results",
        "set_password": "passwords",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
