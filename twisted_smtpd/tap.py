"""``twist smtpd``: a server from the shell (also ``twistd smtpd``)."""

from __future__ import annotations

import getopt
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService, Service
from twisted.copyright import version as twisted_version
from twisted.python import usage

from twisted_smtpd import __version__
from twisted_smtpd.cli.auth import AuthOptions, announce
from twisted_smtpd.cli.groups import LIMITS, HandlerOptions, LimitOptions, ServerOptions
from twisted_smtpd.cli.tls import TLSOptions, TrustOptions
from twisted_smtpd.cli.workers import WorkerOptions
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.metrics.figures import Collect, Reading, snapshot
from twisted_smtpd.service import ServerService
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.workers.worker import WorkerService

__all__ = ["Options", "makeService"]

EX_USAGE = 64


def _refuse(error: object) -> NoReturn:
    """Exit with one line: Twist would print its own usage, all plugins included, below the line that matters."""
    line = " ".join(str(error).split())
    sys.stderr.write(f"twist smtpd: {line} (see twist smtpd --help)\n")
    sys.exit(EX_USAGE)


# The last group is the first to check its options, so that no handler is made for a command line that is wrong.
class Options(HandlerOptions, WorkerOptions, TLSOptions, TrustOptions, LimitOptions, AuthOptions, ServerOptions):
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
            _refuse(error)

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


def makeService(options: Options) -> IService:
    """The service that ``twist`` runs.

    :param options: the parsed command line.
    """
    if options.supervising:
        return _supervisor(options)
    lmtp = bool(options["lmtp"])
    if lmtp and any(listener.name.endswith(":25") for listener in options.listeners):
        _refuse("--lmtp: not on port 25, where clients speak SMTP (RFC 2033 section 5)")
    try:
        factory = SMTPFactory(options.handler, protocol=LMTP if lmtp else SMTP, **options.server_options())
    except ValueError as error:
        _refuse(_by_option(str(error), options))
    if options["auth-required"] and not factory.settings.mechanisms:
        _refuse("--auth-required: nobody can authenticate without --auth-file, --auth or --auth-any")
    announce(factory, tls=any(listener.secure for listener in options.listeners))
    kind = WorkerService if options.is_worker else ServerService
    service = kind(
        factory,
        options.listeners,
        reactor=options.reactor,
        grace=options["grace"],
        certificates=options.certificates,
    )
    return _with_metrics(options, service, lambda: [Reading(None, snapshot(factory.connections))])


def _by_option(error: str, options: Options) -> str:
    """An error about a keyword argument, in terms of the option that gave it."""
    keyword, rest = re.match(r"(\w*)(.*)", error, re.DOTALL).groups()  # type: ignore[union-attr]
    option = {limit.keyword: limit.option for limit in LIMITS}.get(keyword, keyword.replace("_", "-"))
    return f"--{option}{rest}" if "_" in keyword and option in options else error


def _supervisor(options: Options) -> IService:
    """The service of a process that has others serve."""
    # Here, since most servers are one process.
    from twisted_smtpd.workers.service import SupervisorService, leave_with, twist_arguments
    from twisted_smtpd.workers.supervisor import Supervisor

    assert options.binder is not None
    reactor = options.reactor
    twist, relay = twist_arguments(reactor, getattr(options, "parent", None), options.words)
    supervisor = Supervisor(reactor, options["workers"], twist, leave=leave_with, relay=relay)
    service = SupervisorService(supervisor, options.binder, options.listeners, reactor=reactor, grace=options["grace"])
    return _with_metrics(options, service, supervisor.collect)


def _with_metrics(options: Options, service: Service, collect: Collect) -> IService:
    if not options.metrics:
        return service
    from twisted_smtpd.metrics.page import MetricsService, metrics_site

    both = MultiService()
    service.setServiceParent(both)
    site: Any = metrics_site(collect, options.reactor)
    MetricsService(site, options.metrics, reactor=options.reactor).setServiceParent(both)
    return both
