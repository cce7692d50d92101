"""The supervisor in the parent process: it starts the workers, replaces those that die, and ends them together."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_smtpd.metrics.figures import Metric, Reading
from twisted_smtpd.runtime.lifecycle import STOP_TIMEOUT
from twisted_smtpd.workers.shared_sockets import SharedSocket
from twisted_smtpd.workers.worker import Assignment, boot_arguments

__all__ = ["Supervisor"]

log = Logger()

# Seconds before a worker that died is replaced.  The delay doubles each time, up to the longest.
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# After a worker has served for so many seconds, the delay is the first again.
SETTLED = 60.0

# Seconds that a worker has beyond the grace of its connections, until it is killed: its handler has to stop, too.
MARGIN = STOP_TIMEOUT + 5.0

# Seconds that a worker has to answer with its metrics.
PATIENCE = 2.0

# Octets in a line from a worker.
MAX_LINE = 2**20


class _Lines:
    """Cuts what comes from a pipe into lines.

    :param deliver: gets each line, without its end.
    """

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self._deliver = deliver
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._deliver(line)


class _Process(ProcessProtocol):
    """One worker process.

    :param slot: the slot that it fills.
    :ivar hears: the worker's descriptor for what it is told.
    :ivar speaks: the worker's descriptor for what it says.
    :ivar ready: whether it accepts connections.
    """

    def __init__(self, slot: _Slot) -> None:
        self._slot = slot
        self._asked: dict[int, Deferred[list[Metric] | None]] = {}
        self._questions = 0
        self._control = _Lines(self._heard)
        self._output = {1: _Lines(self._printed), 2: _Lines(self._printed)}
        self.hears = self.speaks = -1
        self.ready = False

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        (self._control if childFD == self.speaks else self._output[childFD]).feed(data)

    def _heard(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        if word == b"ready":
            self.ready = True
            self._slot.is_ready()
        elif word == b"metrics":
            number, _, values = rest.partition(b" ")
            answer = self._asked.pop(int(number), None)
            if answer is not None:
                answer.callback([Metric.of_plain(plain) for plain in json.loads(values)])

    def _printed(self, line: bytes) -> None:
        log.info("worker {number}: {line}", number=self._slot.number, line=line.decode(errors="replace"))

    def stop(self) -> None:
        """Have it drain and end."""
        self._say(b"stop")

    def _say(self, line: bytes) -> None:
        # A worker that is about to end has closed its pipe.
        with suppress(KeyError):
            self.transport.writeToChild(self.hears, line + b"\n")  # type: ignore[union-attr]

    def end_grace(self) -> None:
        """Have it end without waiting for messages in progress."""
        self._say(b"hurry")

    def signal(self, name: str) -> None:
        """Send it a signal."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)  # type: ignore[union-attr]

    def ask(self, clock: IReactorTime) -> Deferred[list[Metric] | None]:
        """Ask for its metrics.

        :returns: fires with the metrics, or with ``None`` if no answer comes in time.
        """
        self._questions += 1
        number = self._questions
        answer: Deferred[list[Metric] | None] = Deferred(partial(self._no_answer, number))
        self._asked[number] = answer
        self._say(b"metrics %d" % number)
        return answer.addTimeout(PATIENCE, clock).addErrback(_nothing)

    def _no_answer(self, number: int, _: Deferred[Any]) -> None:
        self._asked.pop(number, None)

    def processExited(self, reason: Failure) -> None:
        # processEnded would wait for the pipes, and a child process of a handler may hold them.
        self.ready = False
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.callback(None)
        self._slot.has_ended(reason.value.exitCode, reason.value.signal)  # type: ignore[union-attr]


def _nothing(failure: Failure) -> None:
    failure.trap(TimeoutError, CancelledError)


class _Slot:
    """The place of one worker: if its process dies, another process fills it.

    :ivar number: the number of the worker, from 1.
    :ivar process: the process that runs, if any.
    :ivar restarts: how often the process had to be replaced.
    """

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self._supervisor = supervisor
        self.number = number
        self.process: _Process | None = None
        self.restarts = 0
        self._delay = FIRST_DELAY
        self._proven = False
        self._ready_since: float | None = None
        self._waiting: IDelayedCall | None = None

    def start(self) -> None:
        self._waiting = self._ready_since = None
        self.process = _Process(self)
        self._supervisor.spawn(self.process, self.number)

    def is_ready(self) -> None:
        self._proven = True
        self._ready_since = self._supervisor.clock.seconds()
        self._supervisor.is_ready()

    def has_ended(self, status: int | None, signal: int | None) -> None:
        self.process = None
        supervisor = self._supervisor
        if supervisor.stopping:
            supervisor.check_ended()
            return
        how = f"was killed by signal {signal}" if status is None else f"ended with status {status}"
        # A wrong command line, or a handler that can't be made, would fail in every process, so don't try again.
        if not self._proven and (status is not None or not supervisor.proven):
            supervisor.fail(status or 1, f"worker {self.number} {how} before it could serve")
            return
        if self._ready_since is not None and supervisor.clock.seconds() - self._ready_since >= SETTLED:
            self._delay = FIRST_DELAY
        log.error(
            "worker {number} {how}; another one starts in {delay} s", number=self.number, how=how, delay=self._delay
        )
        self.restarts += 1
        self._waiting = supervisor.clock.callLater(self._delay, self.start)
        self._delay = min(2 * self._delay, LONGEST_DELAY)

    def stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self.process is not None:
            self.process.stop()


class Supervisor(ServerFactory):
    """Looks after the workers.

    It is also the factory of the parent's ports, which never accept a connection.

    :param reactor: starts processes; it is stopped if no worker can start.
    :param size: the number of workers.
    :param twist: the module that each worker runs, and its arguments.
    :param leave: is called with the exit status for this process if no worker can start.
    :param relay: whether to log what the workers print, since they have no standard output of their own.
    :param log_lock: a file that all processes lock while they write to the log; ``None`` if they need not.
    :ivar clock: the reactor.
    :ivar stopping: whether the workers are being ended.
    :ivar proven: whether any worker has served.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        size: int,
        twist: Sequence[str],
        *,
        leave: Callable[[int], object],
        relay: bool = False,
        log_lock: int | None = None,
    ) -> None:
        self.clock = reactor
        self.stopping = self.proven = self._hurried = False
        self._twist = twist
        self._leave = leave
        self._log_lock = log_lock
        self._output: Any = {1: "r", 2: "r"} if relay else {1: 1, 2: 2}
        self._slots = [_Slot(self, number) for number in range(1, size + 1)]
        self._shared: list[SharedSocket] = []
        self._no_input: int | None = None
        self._ended: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> None:
        """Return ``None``: only the workers accept connections."""

    def start(self, shared: Sequence[SharedSocket]) -> None:
        """Start the first worker, and the others once it serves.

        :param shared: the listening sockets.
        """
        if self.stopping:
            return
        self._shared = list(shared)
        self._no_input = os.open(os.devnull, os.O_RDONLY)
        self._slots[0].start()

    def spawn(self, process: _Process, number: int) -> None:
        """Start a worker process.

        :param process: its protocol.
        :param number: the number of the worker.
        """
        # Descriptors above the standard ones, and above those that endpoints name.
        free = count(max([2, *(one.place or 0 for one in self._shared)]) + 1)
        process.hears, process.speaks = next(free), next(free)
        sockets = [replace(one, descriptor=one.place or next(free)) for one in self._shared]
        lock = None if self._log_lock is None else next(free)
        assignment = Assignment(number, sockets, process.hears, process.speaks, not self.proven, lock)
        arguments = boot_arguments(assignment, self._twist)
        child_fds = {0: self._no_input, **self._output, process.hears: "w", process.speaks: "r"}
        if lock is not None:
            child_fds[lock] = self._log_lock
        child_fds.update((new.descriptor, one.descriptor) for new, one in zip(sockets, self._shared, strict=True))
        self.clock.spawnProcess(process, arguments[0], arguments, env=None, childFDs=child_fds)

    def is_ready(self) -> None:
        """A worker serves: after the first, start the others."""
        if self.proven or self.stopping:
            return
        self.proven = True
        for slot in self._slots[1:]:
            slot.start()
        log.info("{count} workers share the ports", count=len(self._slots))

    def fail(self, status: int, reason: str) -> None:
        """Give up.

        :param status: the exit status for this process.
        :param reason: why, for the log.
        """
        log.critical("{reason}", reason=reason)
        self.stopping = True
        self._leave(status)
        self.clock.stop()

    def signal(self, name: str) -> None:
        """Send a signal to all workers that serve.  It could kill a worker that is not ready.

        :param name: its name without ``SIG``.
        """
        for process in self._processes():
            if process.ready:
                process.signal(name)

    def _processes(self) -> list[_Process]:
        return [slot.process for slot in self._slots if slot.process is not None]

    def collect(self) -> Deferred[list[Reading]]:
        """Ask all workers for their metrics."""
        return gatherResults([self._reading(slot) for slot in self._slots])

    def _reading(self, slot: _Slot) -> Deferred[Reading]:
        process = slot.process
        answer: Deferred[Any] = process.ask(self.clock) if process is not None and process.ready else succeed(None)
        return answer.addCallback(lambda metrics: Reading(slot.number, metrics, slot.restarts))

    def not_ready(self) -> str:
        """Why no client is served now; empty if one is."""
        if self.stopping:
            return "stopping"
        return "" if any(process.ready for process in self._processes()) else "no worker is ready"

    def drain(self, grace: float) -> Deferred[None]:
        """Have all workers drain and end.

        :param grace: seconds that messages in progress have to finish.  Workers that have not ended :data:`MARGIN`
            seconds later are killed.
        :returns: fires when all workers have ended.
        """
        self.stopping = True
        self._ended = Deferred()
        for slot in self._slots:
            slot.stop()
        if self._hurried:
            self.end_grace()
        killing = self.clock.callLater(grace + MARGIN, self.signal_all, "KILL")
        ended = self._ended
        ended.addCallback(lambda _: killing.cancel() if killing.active() else None)
        self.check_ended()
        return ended

    def end_grace(self) -> None:
        """Give messages in progress no more time, now or when :meth:`drain` is called."""
        self._hurried = True
        if self.stopping:
            for process in self._processes():
                process.end_grace()

    def signal_all(self, name: str) -> None:
        """Send a signal to all workers, ready or not.

        :param name: its name without ``SIG``.
        """
        for process in self._processes():
            process.signal(name)

    def check_ended(self) -> None:
        """If the last worker has ended, finish :meth:`drain`."""
        if self._ended is not None and not self._ended.called and not self._processes():
            if self._no_input is not None:
                os.close(self._no_input)
                self._no_input = None
            self._ended.callback(None)
