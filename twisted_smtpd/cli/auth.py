"""The command-line options about authentication."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin, ICheckerFactory, UnsupportedInterfaces
from twisted.logger import Logger
from twisted.python import usage

from twisted_smtpd.cli.groups import OptionGroup, flag_row, own_parameter_row, parameter_row
from twisted_smtpd.options.command import COMMAND
from twisted_smtpd.options.reference import flag_text
from twisted_smtpd.options.table import TABLE
from twisted_smtpd.runtime.plugins import find_plugins

if TYPE_CHECKING:
    from twisted_smtpd.factory import SMTPFactory

__all__ = ["AuthOptions", "announce"]

log = Logger()


class AuthOptions(AuthOptionMixin, OptionGroup):
    """Which clients may send.

    :ivar authenticator: checks their passwords, once the options are parsed; ``None`` if there is no AUTH.
    """

    supportedInterfaces = (IUsernamePassword, IUsernameHashedPassword)
    authenticator: Any = None

    optFlags: ClassVar[list[list[str | None]]] = [
        flag_row(COMMAND["auth-any"]),
        flag_row(TABLE["auth_required"]),
        flag_row(TABLE["auth_require_tls"]),
    ]
    optParameters: ClassVar[list[list[Any]]] = [
        own_parameter_row(COMMAND["auth-file"]),
        parameter_row(TABLE["auth_mechanisms"]),
    ]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # The mixin took the standard output of the moment when it was imported.
        self.authOutput = sys.stdout

    def opt_auth(self, description: str) -> None:
        # Not the mixin's, which has Twisted write a dropin.cache, and says what is secret in its errors.
        kind, _, argument = description.partition(":")
        for factory in find_plugins(ICheckerFactory):
            if factory.authType == kind:
                break
        else:
            raise usage.UsageError(f"--auth: there is no kind {kind!r} of checkers: see --help-auth")
        try:
            self.addChecker(factory.generateChecker(argument))
        except UnsupportedInterfaces:
            raise usage.UsageError(f"--auth: {kind} can't check passwords") from None
        except Exception as error:  # each kind has a parser of its own
            text = f"{type(error).__name__}: {error}"
            raise usage.UsageError(f"--auth: {kind}: {text.replace(argument, '***') if argument else text}") from None

    opt_auth.__doc__ = flag_text(COMMAND["auth"])

    def addChecker(self, checker: Any) -> None:
        """Take a checker that ``--auth`` asks for."""
        # Here and below, since most servers have no AUTH.
        from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

        if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
            # The command line gives it str, but a client sends octets, and the two are never equal.
            checker.users = {_octets(name): _octets(password) for name, password in checker.users.items()}
        super().addChecker(checker)

    def postOptions(self) -> None:
        super().postOptions()
        chosen = [name for name in ("auth-any", "auth-file") if self[name]]
        if "credCheckers" in self:
            chosen.append("auth")
        if len(chosen) > 1:
            raise usage.UsageError(f"--{chosen[0]} and --{chosen[1]} contradict each other")
        if chosen:
            self.authenticator = self._make_authenticator()
            return
        for name in ("auth-mechanisms", "auth-without-tls"):
            if self[name]:
                raise usage.UsageError(f"--{name} needs --auth-file, --auth or --auth-any")

    def _make_authenticator(self) -> Any:
        # Imported here: without these options they, and the hashes of passwords, are not needed.
        from twisted_smtpd.auth.authenticators import AcceptAnyone, CredAuthenticator
        from twisted_smtpd.auth.passwords import PasswordFile, PasswordFileError

        if self["auth-any"]:
            return AcceptAnyone()
        if "credCheckers" in self:
            return CredAuthenticator(*self["credCheckers"])
        try:
            return PasswordFile(self["auth-file"])
        except PasswordFileError as error:
            raise usage.UsageError(f"--auth-file: {error}") from None

    def server_options(self) -> dict[str, Any]:
        options = dict(super().server_options())
        if self["auth-required"]:
            options["auth_required"] = True
        if self.authenticator is not None:
            options["authenticator"] = self.authenticator
            options["auth_require_tls"] = not (self["auth-without-tls"] or self["auth-any"])
        if self["auth-mechanisms"] is not None:
            options["auth_mechanisms"] = self["auth-mechanisms"]
        return options


def _octets(text: str | bytes) -> bytes:
    return os.fsencode(text) if isinstance(text, str) else text


def announce(factory: SMTPFactory, tls: bool) -> None:
    """Say at the start which mechanisms there are, and warn of passwords in clear.

    :param factory: the server.
    :param tls: whether a listener has TLS of its own.
    """
    settings = factory.settings
    factory.endpoint_has_tls = tls
    if not settings.mechanisms:
        return
    # Imported here: a server without AUTH does not need it.
    from twisted_smtpd.auth.authenticators import AcceptAnyone
    from twisted_smtpd.auth.offer import warn_of_no_tls

    names = " ".join(settings.mechanisms)
    if isinstance(settings.values["authenticator"], AcceptAnyone):
        log.warn("AUTH {names}: ANY NAME WITH ANY PASSWORD IS LET IN.  Don't use this for real mail.", names=names)
    elif not settings.values["auth_require_tls"]:
        log.warn("AUTH {names} is offered in clear as well: passwords can be read on their way", names=names)
    elif tls or settings.security.can_have_tls:
        log.info("AUTH {names} is offered once there is TLS", names=names)
    else:
        warn_of_no_tls(settings)
