"""The command line of ``twist smtpd``."""

from __future__ import annotations

import getopt
import sys
from collections.abc import Sequence
from typing import NoReturn

from twisted.copyright import version as twisted_version
from twisted.python import usage

from twisted_smtpd import __version__
from twisted_smtpd.cli.auth import AuthOptions
from twisted_smtpd.cli.handler import HandlerOptions
from twisted_smtpd.cli.proxies import TrustOptions
from twisted_smtpd.cli.server import ServerOptions
from twisted_smtpd.cli.tls import TLSOptions
from twisted_smtpd.cli.workers import WorkerOptions

__all__ = ["Options", "refuse"]

EX_USAGE = 64


def refuse(error: object) -> NoReturn:
    """Exit with 64 and one line: Twist would print its own usage, all plugins included, below the line that matters.

    :param error: what is wrong, and what to do.
    """
    line = " ".join(str(error).split())
    sys.stderr.write(f"twist smtpd: {line} (see twist smtpd --help)\n")
    sys.exit(EX_USAGE)


# The last group is the first to check its options, so that no handler is made for a command line that is wrong.
class Options(HandlerOptions, WorkerOptions, TLSOptions, TrustOptions, AuthOptions, ServerOptions):
    """The command line of ``twist smtpd``."""

    longdesc = (
        "An SMTP server that gives each message to a handler.  Without options it listens on 127.0.0.1 and ::1, "
        "port 8025, and prints what it receives."
    )

    def getSynopsis(self) -> str:
        """The first line of the help; Twisted's would repeat that of the command above."""
        return "Usage: twist smtpd [options] [HANDLER ARGUMENTS] [-- HANDLER OPTIONS]"

    def opt_version(self) -> NoReturn:
        """Display the version and exit."""
        print(f"twisted-smtpd {__version__} (Twisted {twisted_version})")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line; exit with 64 and one line on stderr if it is wrong."""
        try:
            self.words = list(sys.argv[1:] if options is None else options)
            super().parseOptions(self._options_first(self.words))
        except usage.UsageError as error:
            refuse(error)

    def _options_first(self, words: Sequence[str]) -> list[str]:
        """Options may follow the handler's arguments, as in ``-c mailbox DIR -l :2525``; after ``--`` none does."""
        try:
            options, arguments = getopt.gnu_getopt(words, self.shortOpt, self.longOpt)
        except getopt.GetoptError as error:
            hint = "" if "requires" in error.msg else " (a handler's own options follow `--`)"
            raise usage.UsageError(f"{error.msg}{hint}") from None
        first = []
        for name, value in options:
            if f"{name[2:]}=" in self.longOpt:
                first.append(f"{name}={value}")
            elif f"{name[1:]}:" in self.shortOpt:
                first += [name, value]
            else:
                first.append(name)
        return [*first, "--", *arguments]
