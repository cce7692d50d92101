"""The service of ``twisted-smtpd`` and of ``twist smtpd`` (also ``twistd smtpd``): servers from the shell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService, Service

from twisted_smtpd.cli.auth import announce
from twisted_smtpd.cli.command import Options
from twisted_smtpd.cli.server import named_by_flag
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.interfaces import IOffersProtocol
from twisted_smtpd.metrics.figures import Collect, Reading, snapshot
from twisted_smtpd.runtime.computing import give_way
from twisted_smtpd.runtime.exit_status import EX_USAGE, leave_with, program_name
from twisted_smtpd.runtime.leaving import BoundedExit
from twisted_smtpd.runtime.lifecycle import reloadables
from twisted_smtpd.runtime.steady import make_steady
from twisted_smtpd.service import Reloadable, ServerService, ServersService
from twisted_smtpd.workers.worker import Link, WorkerService

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """The service that ``twist`` runs.

    :param options: the parsed command line.
    """
    make_steady(options.reactor)
    give_way()
    if options.supervising:
        return _supervisor(options)
    factories = _factories(options)
    _share_limits(options.servers, factories)
    if options.dry:
        _end_dry(options, factories)
    servers = [_server(*pair) for pair in zip(options.servers, factories, strict=True)]
    if options.is_worker and len(servers) > 1:
        link = Link(servers)
        for server in servers:
            server.link = link
    service = servers[0] if len(servers) == 1 else ServersService(servers, reactor=options.reactor)
    # The parent of workers hears the signals for them.
    options.exit = BoundedExit(options.reactor, options["grace"], service.end_grace)
    options.exit.install(take_signals=not options.is_worker)

    def collect() -> list[Reading]:
        return [Reading(None, snapshot((one.connections for one in factories), (one.handler for one in factories)))]

    def not_ready() -> str:
        return next(filter(None, (server.not_ready() for server in servers)), "")

    return _with_metrics(options, service, collect, not_ready)


def _factories(options: Options) -> list[SMTPFactory]:
    """The server of each listener.  With ``--check``, an error in one does not hide those in the others."""
    factories = []
    for server in options.servers:
        try:
            factories.append(_factory(server))
        except SystemExit:
            if not options["check"]:
                raise
    if len(factories) < len(options.servers):
        sys.exit(EX_USAGE)
    return factories


def _factory(options: Options) -> SMTPFactory:
    """The server of one listener's options."""
    lmtp = bool(options["lmtp"])
    if lmtp and any(listener.name.endswith(":25") for listener in options.listeners):
        options.refuse("--lmtp: not on port 25, where clients speak SMTP (RFC 2033 section 5)")
    protocol = options.protocol()
    if IOffersProtocol.providedBy(options.handler):
        protocol = options.handler.protocol(lmtp, options.failures)
    try:
        factory = SMTPFactory(options.handler, protocol=protocol, **options.server_options())
    except (ValueError, TypeError) as error:
        options.refuse(named_by_flag(str(error)))
    if options["auth-required"] and not factory.settings.mechanisms:
        options.refuse("--auth-required: no client can authenticate without --auth-file, --auth or --auth-any")
    announce(factory, tls=any(listener.secure for listener in options.listeners))
    return factory


def _share_limits(servers: Sequence[Options], factories: Sequence[SMTPFactory]) -> None:
    """Have all servers count together what is limited, apart from those that set such a limit for themselves."""
    common = [factory for server, factory in zip(servers, factories, strict=True) if not server.own_limits]
    for factory in common[1:]:
        factory.connections = common[0].connections


def _server(options: Options, factory: SMTPFactory) -> Any:
    kind = WorkerService if options.is_worker else ServerService
    authenticator = [options.authenticator] if hasattr(options.authenticator, "reload") else []
    reloads: list[Reloadable] = [*options.certificates, *authenticator, *reloadables(factory.handler)]
    if options.servers[0] is options and options.configured:
        reloads.append(options)
    service = kind(factory, options.listeners, reactor=options.reactor, grace=options["grace"], reloads=reloads)
    service.trusts_unix = options.trusts_unix
    return service


def _end_dry(options: Options, factories: Sequence[SMTPFactory]) -> NoReturn:
    """End a program that was asked only what it would do."""
    # Imported here: servers do not need it.
    from twisted_smtpd.cli.show import shown, summary

    if options["show-config"]:
        values = [factory.settings.values for factory in factories]
        print(shown(options.servers, values), end="")
    else:
        print(f"{program_name()}: it would start: {summary(options.servers)}")
    sys.exit(0)


def _supervisor(options: Options) -> IService:
    """The service of a process that leaves the serving to workers."""
    # Imported here: one process without workers does not need it.
    from twisted_smtpd.workers.service import SupervisorService
    from twisted_smtpd.workers.supervisor import MARGIN, Supervisor

    assert options.binder is not None
    reactor = options.reactor
    arguments, relay = options.worker_arguments()
    supervisor = Supervisor(
        reactor, options["workers"], arguments, leave=leave_with, relay=relay, log_lock=options.log_lock
    )
    listeners = [listener for server in options.servers for listener in server.listeners]
    service = SupervisorService(supervisor, options.binder, listeners, reactor=reactor, grace=options["grace"])
    service.trusts_unix = any(server.trusts_unix for server in options.servers)
    # Workers outlive their parent by the grace.
    last = partial(supervisor.signal_all, "KILL")
    options.exit = BoundedExit(reactor, options["grace"] + MARGIN, supervisor.end_grace, last=last)
    options.exit.install()
    return _with_metrics(options, service, supervisor.collect, supervisor.not_ready)


def _with_metrics(options: Options, service: Service, collect: Collect, not_ready: Callable[[], str]) -> IService:
    if not options.metrics:
        return service
    # Imported here: it brings twisted.web along, which a server without --metrics does not need.
    from twisted_smtpd.metrics.page import MetricsService, metrics_site

    both = MultiService()
    service.setServiceParent(both)
    site: Any = metrics_site(collect, not_ready, options.reactor)
    MetricsService(site, options.metrics, reactor=options.reactor).setServiceParent(both)
    return both
