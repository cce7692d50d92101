"""``twist smtpd``: a server from the shell (also ``twistd smtpd``)."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.application.service import IService, MultiService, Service

from twisted_smtpd.cli.auth import announce
from twisted_smtpd.cli.command import Options, refuse
from twisted_smtpd.cli.server import named_by_flag
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.metrics.figures import Collect, Reading, snapshot
from twisted_smtpd.runtime.computing import give_way
from twisted_smtpd.runtime.exit_status import leave_with
from twisted_smtpd.runtime.leaving import BoundedExit
from twisted_smtpd.runtime.steady import make_steady
from twisted_smtpd.service import ServerService
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.workers.worker import WorkerService

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """The service that ``twist`` runs.

    :param options: the parsed command line.
    """
    make_steady(options.reactor)
    give_way()
    if options.supervising:
        return _supervisor(options)
    lmtp = bool(options["lmtp"])
    if lmtp and any(listener.name.endswith(":25") for listener in options.listeners):
        refuse("--lmtp: not on port 25, where clients speak SMTP (RFC 2033 section 5)")
    try:
        factory = SMTPFactory(options.handler, protocol=LMTP if lmtp else SMTP, **options.server_options())
    except ValueError as error:
        refuse(named_by_flag(str(error)))
    if options["auth-required"] and not factory.settings.mechanisms:
        refuse("--auth-required: nobody can authenticate without --auth-file, --auth or --auth-any")
    announce(factory, tls=any(listener.secure for listener in options.listeners))
    kind = WorkerService if options.is_worker else ServerService
    service = kind(
        factory,
        options.listeners,
        reactor=options.reactor,
        grace=options["grace"],
        certificates=options.certificates,
    )
    service.trusts_unix = options.trusts_unix
    # The parent of workers hears the signals for them.
    BoundedExit(options.reactor, options["grace"], service.end_grace).install(take_signals=not options.is_worker)
    return _with_metrics(options, service, lambda: [Reading(None, snapshot(factory.connections))])


def _supervisor(options: Options) -> IService:
    """The service of a process that leaves the serving to workers."""
    # Imported here: one process without workers does not need it.
    from twisted_smtpd.workers.service import SupervisorService, twist_arguments
    from twisted_smtpd.workers.supervisor import MARGIN, Supervisor

    assert options.binder is not None
    reactor = options.reactor
    twist, relay = twist_arguments(reactor, getattr(options, "parent", None), options.words)
    supervisor = Supervisor(reactor, options["workers"], twist, leave=leave_with, relay=relay)
    service = SupervisorService(supervisor, options.binder, options.listeners, reactor=reactor, grace=options["grace"])
    service.trusts_unix = options.trusts_unix
    # Workers outlive their parent by the grace.
    last = partial(supervisor.signal_all, "KILL")
    BoundedExit(reactor, options["grace"] + MARGIN, supervisor.end_grace, last=last).install()
    return _with_metrics(options, service, supervisor.collect)


def _with_metrics(options: Options, service: Service, collect: Collect) -> IService:
    if not options.metrics:
        return service
    # Imported here: it brings twisted.web along, which a server without --metrics does not need.
    from twisted_smtpd.metrics.page import MetricsService, metrics_site

    both = MultiService()
    service.setServiceParent(both)
    site: Any = metrics_site(collect, options.reactor)
    MetricsService(site, options.metrics, reactor=options.reactor).setServiceParent(both)
    return both
