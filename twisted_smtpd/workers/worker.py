"""One of several server processes: it accepts on sockets that its parent has bound, and obeys its parent."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from twisted_smtpd.metrics.figures import snapshot
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.service import ServerService
from twisted_smtpd.workers.shared_sockets import SharedSocket, take_turns

__all__ = ["Assignment", "WorkerService", "boot_arguments", "main"]

# Before the first import that depends on it, set the search path to the parent's.  Then set systemd's variables, which
# are meant for the parent alone, so that a `systemd:` endpoint is parsed here as it was there.
_BOOT = """\
import os, sys
sys.path[:] = sys.argv.pop(1).split("\\n")
names = os.environ.get("LISTEN_FDNAMES")
if names:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(names.count(":") + 1))
from twisted_smtpd.workers.worker import main
main()
"""


@dataclass(frozen=True)
class Assignment:
    """What a worker is told when it starts.

    :ivar number: the number of the worker, from 1.
    :ivar sockets: the listening sockets, with the descriptors that they have in the worker.
    :ivar hears: the descriptor from which it reads what its parent says.
    :ivar speaks: the descriptor to which it writes for its parent.
    :ivar announces: whether it announces in the log where the server listens.
    :ivar log_lock: the descriptor of the file that all workers lock while they write to the log, if there is one.
    """

    number: int
    sockets: Sequence[SharedSocket]
    hears: int
    speaks: int
    announces: bool = False
    log_lock: int | None = None

    def dumps(self) -> str:
        """The assignment as text."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Assignment:
        """The inverse of :meth:`dumps`."""
        values = json.loads(text)
        values["sockets"] = [SharedSocket(**one) for one in values["sockets"]]
        return cls(**values)


#: The assignment of this process, if it is a worker.
assigned: Assignment | None = None


def boot_arguments(assignment: Assignment, twist: Sequence[str]) -> list[str]:
    """The command line of a worker.

    :param assignment: its assignment.
    :param twist: the module that it runs, and the module's arguments.
    """
    return [sys.executable, "-c", _BOOT, "\n".join(sys.path), assignment.dumps(), *twist]


def main() -> None:
    """Run a worker: the parent's command, with the sockets and the descriptors that the parent has left here."""
    from twisted_smtpd.workers import worker

    worker.assigned = assignment = Assignment.loads(sys.argv.pop(1))
    module = sys.argv.pop(1)
    sys.argv[0] = {"twisted": "twist"}.get(module, module)
    lock = () if assignment.log_lock is None else (assignment.log_lock,)
    for descriptor in (assignment.hears, assignment.speaks, *lock, *(one.descriptor for one in assignment.sockets)):
        # A child process of a handler must not keep the port open, nor the pipes, or the worker would seem alive.
        os.set_inheritable(descriptor, False)
    for number in (signal.SIGINT, signal.SIGHUP):
        # A terminal sends both signals to all processes, but the parent acts for all.  Child processes would inherit
        # SIG_IGN, so ignore the signals in a handler.
        signal.signal(number, lambda number, frame: None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class WorkerService(ServerService):
    """The service of a worker, or of one of its servers; its parameters are those of :class:`ServerService`.

    :ivar link: what connects the worker with its parent; a worker with several servers has one for all.
    """

    link: Link | None = None
    hangup_may_end = False

    def startService(self) -> None:
        """Obey the parent from now on, and serve on the inherited sockets."""
        if self.link is None:
            self.link = Link([self])
        self.link.start()
        super().startService()

    def _serve(self) -> None:
        super()._serve()
        link = self.link
        assert link is not None
        gatherResults(self._waiting).addCallback(lambda _: link.serves())

    def _bound(self, listener: Listener, port: IListeningPort) -> None:
        super()._bound(listener, port)
        take_turns(port, self.reactor, lambda: len(self.factory.connections.open))

    def _announce(self) -> None:
        if assigned is not None and assigned.announces:
            super()._announce()


class Link(LineOnlyReceiver):
    """The worker's end of the pipes between it and its parent.

    :param servers: the worker's servers.
    """

    delimiter = b"\n"

    def __init__(self, servers: Sequence[ServerService]) -> None:
        self._servers = servers
        self._reactor = servers[0].reactor
        self._started = False
        self._serving = 0

    def start(self) -> None:
        """Obey the parent from now on, unless that is so."""
        if self._started:
            return
        self._started = True
        pipes: Any = StandardIO
        assert assigned is not None
        pipes(self, assigned.hears, assigned.speaks, self._reactor)
        self._reactor.callWhenRunning(self._take_signals)

    def _take_signals(self) -> None:
        # A service manager sends SIGTERM to every process of a service, and the parent tells its workers to stop, too.
        signal.signal(signal.SIGTERM, lambda number, frame: self._reactor.callFromThread(self.stop))

    def serves(self) -> None:
        """One of the servers takes connections; when all do, the worker is ready."""
        self._serving += 1
        if self._serving == len(self._servers):
            self.say(b"ready")

    def lineReceived(self, line: bytes) -> None:
        """Obey the parent: ``stop``, ``hurry``, or ``metrics N`` where N is the number at the start of the answer."""
        word, _, number = line.partition(b" ")
        if word == b"stop":
            self.stop()
        elif word == b"hurry":
            for server in self._servers:
                server.end_grace()
        elif word == b"metrics":
            factories = [server.factory for server in self._servers]
            metrics = snapshot((one.connections for one in factories), (one.handler for one in factories))
            values = json.dumps([metric.plain() for metric in metrics])
            self.say(b"metrics %b %b" % (number, values.encode()))

    def say(self, line: bytes) -> None:
        """Tell the parent something."""
        self.sendLine(line)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The parent has ended, so nothing would stop this process any more: it stops by itself."""
        self.stop()

    def stop(self) -> None:
        """End this process in an orderly way, unless it is ending already."""
        with suppress(ReactorNotRunning):
            self._reactor.stop()
