"""The command-line options about several processes, and about their metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

from twisted.python import usage

from twisted_smtpd.cli.groups import own_parameter_row
from twisted_smtpd.cli.listening import ListenOptions
from twisted_smtpd.options.command import COMMAND
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.workers import worker
from twisted_smtpd.workers.shared_sockets import Binder, Inheritor

__all__ = ["WorkerOptions"]


class WorkerOptions(ListenOptions):
    """How many processes serve, and where their metrics are served.

    :ivar metrics: the places that serve the metrics, once the options are parsed; none in a worker.
    :ivar log_lock: the descriptor of a file that all processes lock while they write to the log, once the options are
        parsed; ``None`` for a process alone, and for ``twist``.
    :ivar binder: binds the ports, in the parent of workers.
    """

    metrics: Sequence[Listener] = ()
    binder: Binder | None = None
    log_lock: int | None = None
    _inheritor: Inheritor | None = None

    optParameters: ClassVar[list[list[Any]]] = [
        own_parameter_row(COMMAND["workers"]),
        own_parameter_row(COMMAND["metrics"]),
    ]

    @property
    def is_worker(self) -> bool:
        """Whether this process is one of several."""
        return worker.assigned is not None

    @property
    def supervising(self) -> bool:
        return self["workers"] > 1 and not self.is_worker and not self.dry

    def postOptions(self) -> None:
        super().postOptions()
        if self.supervising and os.name != "posix":
            raise usage.UsageError("--workers: not on this system, where processes can't share a port")
        if self.supervising and any(listener.name.startswith("stdio:") for listener in self.listeners):
            raise usage.UsageError("--workers: there is no port to share on stdio:")
        if self["metrics"] is not None:
            if find_spec("prometheus_client") is None:
                raise usage.UsageError("--metrics: install prometheus-client: pip install 'twisted-smtpd[metrics]'")
            metrics = self.places("metrics", [self["metrics"]])
            self.metrics = () if self.is_worker else metrics

    def listening_reactor(self, option: str) -> Any:
        reactor = super().listening_reactor(option)
        if option == "metrics":
            return reactor
        if worker.assigned is not None:
            self._inheritor = self._inheritor or Inheritor(reactor, worker.assigned.sockets)
            return self._inheritor
        if self.supervising:
            self.binder = self.binder or Binder(reactor)
            return self.binder
        return reactor
