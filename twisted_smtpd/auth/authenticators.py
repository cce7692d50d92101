"""Authenticators: ``twisted.cred`` checkers, and one for catchers that lets everybody in."""

from __future__ import annotations

from typing import Any

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from twisted_smtpd.auth.credentials import CramMD5Response
from twisted_smtpd.auth.results import AuthResult, Identity, LoginPassword
from twisted_smtpd.runtime.awaiting import settle, unfinished

__all__ = ["AcceptAnyone", "CredAuthenticator", "IAuthenticator", "IScramAuthenticator"]

log = Logger()


class IAuthenticator(Interface):
    """What the ``authenticator`` argument of :class:`twisted_smtpd.smtp.SMTP` may be: any callable like this.

    If it has an attribute ``any_credentials`` that is ``True``, it is asked about an empty name or password too, and
    about a client that wants to act as another user; and CRAM-MD5 is offered without being asked for.  That is for
    catchers only.
    """

    mechanisms = Attribute(
        "The names of the mechanisms it can work with.  An authenticator without this attribute is offered PLAIN and "
        "LOGIN, and what ``auth_mechanisms`` asks for."
    )

    def __call__(server: Any, session: Any, envelope: Any, mechanism: str, auth_data: Any) -> Any:
        """Decide about a client.

        :param mechanism: its name; PLAIN and LOGIN come with a :class:`~twisted_smtpd.auth.LoginPassword`, CRAM-MD5
            with a :class:`~twisted_smtpd.auth.CramMD5Response`, XOAUTH2 and OAUTHBEARER with a
            :class:`~twisted_smtpd.auth.BearerToken`, EXTERNAL with an :class:`~twisted_smtpd.auth.ExternalIdentity`.
        :returns: an :class:`~twisted_smtpd.auth.AuthResult`, or an awaitable of one.
        :raises twisted_smtpd.SMTPReplyError: the client gets this reply.
        """


class IScramAuthenticator(IAuthenticator):
    """An authenticator that SCRAM works with.

    An attribute ``decoy_secret`` of it, octets, decides on the salts of unknown users.  It should be the same in each
    process and after a restart, as the salts of users are: without it they are random for each process, which tells
    who is unknown.
    """

    def scram_keys(server: Any, session: Any, envelope: Any, mechanism: str, login: bytes) -> Any:
        """Look up a user's keys.

        :param mechanism: its name without ``-PLUS``.
        :returns: :class:`~twisted_smtpd.auth.ScramKeys`, ``None`` for a user that is not known, or an awaitable of
            either.
        """


@implementer(IAuthenticator)
class CredAuthenticator:
    """An authenticator for ``twisted.cred`` checkers.

    A client is let in when one of them takes its credentials.

    :param checkers: providers of :class:`twisted.cred.checkers.ICredentialsChecker`.
    :raises ValueError: if none of them knows what to do with a password.
    """

    def __init__(self, *checkers: Any) -> None:
        self.checkers = checkers
        plain = any(IUsernamePassword in checker.credentialInterfaces for checker in checkers)
        hashed = any(IUsernameHashedPassword in checker.credentialInterfaces for checker in checkers)
        self.mechanisms = frozenset((*(("PLAIN", "LOGIN") if plain else ()), *(("CRAM-MD5",) if hashed else ())))
        if not self.mechanisms:
            raise ValueError("none of these checkers takes passwords")

    async def __call__(
        self, server: Any, session: Any, envelope: Any, mechanism: str, auth_data: LoginPassword | CramMD5Response
    ) -> AuthResult:
        """Ask the checkers, one after the other."""
        wanted, credentials = (
            (IUsernamePassword, UsernamePassword(auth_data.login, auth_data.password))
            if isinstance(auth_data, LoginPassword)
            else (IUsernameHashedPassword, auth_data)
        )
        for checker in self.checkers:
            if wanted in checker.credentialInterfaces:
                try:
                    avatar = await settle(checker.requestAvatarId(credentials), server.loop)
                except UnauthorizedLogin:
                    continue
                if unfinished(avatar):
                    log.error("{checker} gave a {kind}: no client gets in", checker=checker, kind=type(avatar).__name__)
                # A checker gives b"" for an anonymous user.
                elif avatar:
                    # Its name, which is not always the name that was typed: a checker may not care about case.
                    known = avatar.encode() if isinstance(avatar, str) else avatar
                    login = known if isinstance(known, bytes) else auth_data.login
                    return AuthResult(success=True, auth_data=Identity(login))
        return AuthResult(success=False, handled=False)


@implementer(IAuthenticator)
class AcceptAnyone:
    """Lets every client in, with any name and password: for catchers and tests, never for a server with mail in it.

    Names and passwords may be empty.  A client that wants to act as another user is in under its own name.
    """

    any_credentials = True
    mechanisms = frozenset({"PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"})

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, auth_data: Any) -> AuthResult:
        """Say yes."""
        return AuthResult(success=True, auth_data=Identity(auth_data.login))
