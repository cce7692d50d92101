"""The service of the parent process, whose workers serve."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import gatherResults

from twisted_smtpd.runtime.hangup import Hangup
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.runtime.reactor_names import reactor_name
from twisted_smtpd.service import ListeningService
from twisted_smtpd.workers.shared_sockets import Binder
from twisted_smtpd.workers.supervisor import Supervisor

__all__ = ["SupervisorService", "twist_arguments"]


def twist_arguments(reactor: Any, top: Mapping[str, Any] | None, words: Sequence[str]) -> tuple[list[str], bool]:
    """The command line with which a worker starts ``twist``.

    :param reactor: the parent's reactor.
    :param top: the options of the parent's ``twist``; options of another program, or ``None``, if it is not ``twist``.
    :param words: the words that follow ``smtpd`` in the parent's command line.
    :returns: the module that is ``twist``, with its arguments; and whether the parent has to log what the worker
        prints: only a log of ``twist`` is one to which several processes can write.
    """
    relay = top is None or "logFile" not in top
    if top is None or relay:
        log = ["--log-file=+", "--log-format=text"]
    else:
        name = {"<stdout>": "-", "<stderr>": "+"}.get(top["logFile"].name) or os.path.abspath(top["logFile"].name)
        log = [f"--log-file={name}", f"--log-format={top['logFormat']}", f"--log-level={top['logLevel'].name}"]
    return ["twisted", f"--reactor={reactor_name(reactor)}", *log, "smtpd", *words], relay


class SupervisorService(ListeningService):
    """Binds the ports, and has workers serve while it runs.

    :param supervisor: the supervisor of the workers.
    :param binder: the reactor for the listeners' endpoints.
    :param listeners: where to listen.
    :param reactor: see :class:`~twisted_smtpd.service.ListeningService`.
    :param grace: seconds that messages in progress have to finish in :meth:`stopService`.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        binder: Binder,
        listeners: Sequence[Listener],
        *,
        reactor: Any,
        grace: float = 10.0,
    ) -> None:
        super().__init__(supervisor, listeners, reactor=reactor)
        self.supervisor = supervisor
        self.grace = grace
        self._binder = binder
        self._hangup = Hangup(reactor, lambda: supervisor.signal("HUP"))

    def startService(self) -> None:
        """Bind the ports, unless they are bound, and start the workers.  SIGHUP is passed on to them."""
        super().startService()
        self._hangup.listen(needed=True)
        gatherResults(self._waiting).addCallback(lambda _: self.supervisor.start(self._binder.shared))

    async def _stop(self) -> None:
        """Close the ports, then have the workers drain and end."""
        await super()._stop()
        await self.supervisor.drain(self.grace)
        self._hangup.leave()
