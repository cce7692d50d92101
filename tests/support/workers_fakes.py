"""What stands in for processes, ports and reactors in the tests of workers."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.workers.shared_sockets import SharedSocket
from twisted_smtpd.workers.worker import Assignment

SHARED = [SharedSocket("inet 127.0.0.1 25", 40, socket.AF_INET), SharedSocket("unix /run/s", 41, socket.AF_UNIX)]


class Port:
    """A listening port that notes what is done to it."""

    connected = True
    disconnecting = False

    def __init__(self, bound: socket.socket | None = None) -> None:
        self.socket = bound
        self.reading = True
        self.accepted: list[int] = []
        self.numberAccepts = 0

    def fileno(self) -> int:
        assert self.socket is not None
        return self.socket.fileno()

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True

    def doRead(self) -> None:
        self.accepted.append(self.numberAccepts)


class SocketReactor(MemoryReactorClock):
    """Listens on real sockets, without ever looking at them."""

    def __init__(self, test: SynchronousTestCase) -> None:
        super().__init__()
        self.test = test
        self.adopted: list[tuple[int, int, Any]] = []
        self.readers: list[Any] = []
        self.modes: list[int] = []

    def _port(self, family: int, address: Any) -> Any:
        bound = socket.socket(family)
        self.test.addCleanup(bound.close)
        bound.bind(address)
        bound.listen()
        return Port(bound)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._port(socket.AF_INET, (interface, port))

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: Any = 0) -> Any:
        self.modes.append(mode)
        return self._port(socket.AF_UNIX, address)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        self.adopted.append((fileDescriptor, addressFamily, factory))
        return Port(socket.socket(fileno=os.dup(fileDescriptor)))

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class Process:
    """The transport of a process, and what its parent did."""

    def __init__(self, reactor: ProcessReactor, protocol: Any, arguments: list[str], descriptors: Any) -> None:
        self.reactor = reactor
        self.protocol = protocol
        self.arguments = arguments
        self.descriptors = descriptors
        self.told: list[bytes] = []
        self.signals: list[str] = []
        self.closed = self.exited = False

    @property
    def assignment(self) -> Assignment:
        return Assignment.loads(self.arguments[4])

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert self.descriptors[descriptor] == "w"
        if self.closed:
            raise KeyError(descriptor)
        self.told.append(data)

    def signalProcess(self, name: str) -> None:
        if self.exited:
            raise ProcessExitedAlready
        self.signals.append(name)

    def say(self, line: bytes) -> None:
        self.protocol.childDataReceived(self.assignment.speaks, line)

    def end(self, status: int | None = 1, number: int | None = None) -> None:
        self.exited = True
        self.protocol.processExited(Failure(ProcessTerminated(status, number)))


class ProcessReactor(Clock):
    """Starts nothing, but knows what it should."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.stops = 0

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], env: Any, childFDs: Any) -> None:
        assert executable == sys.executable and env is None
        process = Process(self, protocol, args, childFDs)
        self.processes.append(process)
        protocol.makeConnection(process)

    def stop(self) -> None:
        self.stops += 1
