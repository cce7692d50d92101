"""``twist smtpd``: a server from the shell (also ``twistd smtpd``)."""

from __future__ import annotations

import getopt
import sys
from collections.abc import Sequence
from typing import NoReturn

from twisted.application.service import IService
from twisted.copyright import version as twisted_version
from twisted.python import usage

from twisted_smtpd import __version__
from twisted_smtpd.auth.options import AuthOptions, announce
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.options import HandlerOptions, LimitOptions, ListenOptions, ServerOptions
from twisted_smtpd.service import ServerService
from twisted_smtpd.smtp import SMTP

__all__ = ["Options", "makeService"]

EX_USAGE = 64


def _refuse(error: object) -> NoReturn:
    """Exit with one line: Twist would print its own usage, all plugins included, below the line that matters."""
    line = " ".join(str(error).split())
    sys.stderr.write(f"twist smtpd: {line} (see twist smtpd --help)\n")
    sys.exit(EX_USAGE)


# The last group is the first to check its options, so that no handler is made for a command line that is wrong.
class Options(HandlerOptions, ListenOptions, LimitOptions, AuthOptions, ServerOptions):
    """The command line of ``twist smtpd``."""

    longdesc = (
        "An SMTP server that gives each message to a handler.  Without options it listens on 127.0.0.1 and ::1, "
        "port 8025, and prints what it receives."
    )

    def getSynopsis(self) -> str:
        """The first line of the help; Twisted's would repeat that of the command above."""
        return "Usage: twist smtpd [options] [HANDLER ARGUMENTS]"

    def opt_version(self) -> NoReturn:
        """Display the version and exit."""
        print(f"twisted-smtpd {__version__} (Twisted {twisted_version})")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line; exit with 64 and one line on stderr if it is wrong."""
        try:
            super().parseOptions(self._options_first(sys.argv[1:] if options is None else options))
        except usage.UsageError as error:
            _refuse(error)

    def _options_first(self, words: Sequence[str]) -> list[str]:
        """Options may follow the handler's arguments, as in ``-c mailbox DIR -l :2525``; after ``--`` none does."""
        try:
            options, arguments = getopt.gnu_getopt(words, self.shortOpt, self.longOpt)
        except getopt.GetoptError as error:
            raise usage.UsageError(str(error)) from None
        first = []
        for name, value in options:
            if f"{name[2:]}=" in self.longOpt:
                first.append(f"{name}={value}")
            elif f"{name[1:]}:" in self.shortOpt:
                first += [name, value]
            else:
                first.append(name)
        return [*first, "--", *arguments]


def makeService(options: Options) -> IService:
    """The service that ``twist`` runs.

    :param options: the parsed command line.
    """
    lmtp = bool(options["lmtp"])
    if lmtp and any(listener.name.endswith(":25") for listener in options.listeners):
        _refuse("--lmtp: not on port 25, where clients speak SMTP (RFC 2033 section 5)")
    try:
        factory = SMTPFactory(options.handler, protocol=LMTP if lmtp else SMTP, **options.server_options())
    except ValueError as error:
        _refuse(error)
    if options["auth-required"] and not factory.settings.mechanisms:
        _refuse("--auth-required: nobody can authenticate without --auth-file, --auth or --auth-any")
    announce(factory, tls=any(listener.name.startswith(("ssl:", "tls:")) for listener in options.listeners))
    return ServerService(factory, options.listeners, reactor=options.reactor, grace=options["grace"])
