"""What this package uses of Twisted and asyncio that is not documented, all of it in one place.

The fast path goes past Twisted's public API.  Each :class:`Shortcut` below is one such way: a table of the names that
it needs, what we use them for, and what happens without them.  A shortcut is checked once, when it is first needed.
Where Twisted has changed, the server takes Twisted's ordinary way instead, and the log says so in one line.

These have no ordinary way beside them, and are not checked.  A Twisted without them fails with an ``AttributeError``:

* ``tcp.Port.socket`` and ``connected``: what a controller's ``sockets`` lists, and what a child process closes after a
  fork;
* ``unix.Port.connectionLost``, which removes the socket's file, and ``tcp.Port.connectionLost``, which does not;
* ``ReactorBase.startRunning`` and ``disconnectAll``: a reactor on a loop that the program runs.

pyOpenSSL's part is in :mod:`twisted_smtpd.tls.private`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from inspect import signature
from operator import attrgetter
from socket import socket
from types import SimpleNamespace
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger, globalLogBeginner, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from twisted import __version__ as twisted_version

__all__ = [
    "DAEMON_THREADS",
    "DIRECT_TLS",
    "KEPT_PORTS",
    "LISTENERS",
    "LOOP_OF_REACTOR",
    "MOVING",
    "RUNNING_LOOP",
    "SOCKETS",
    "TLS_CLOCK",
    "TRIAL",
    "TURNS",
    "Names",
    "Shortcut",
    "SocketTransport",
    "asyncio_loop",
    "called_by_trial",
    "keep_tls_on",
    "move_timers",
    "running_loop",
]

log = Logger()


@dataclass(eq=False, repr=False)
class Names:
    """Undocumented names in one place.

    :ivar owner: where they are: a class or module, as the log names it.
    :ivar example: gives the object to look for them in; it gets what :meth:`Shortcut.is_there` was called with.
    :ivar uses: what we use each of them for; a dot leads to an attribute's attribute.
    :ivar works: whether an object with all these names also behaves as we expect.
    """

    owner: str
    example: Callable[[Any], object]
    uses: Mapping[str, str]
    works: Callable[[Any], bool] = lambda example: True

    def missing(self, given: object) -> list[str]:
        """Look for the names.

        :returns: those that are not there.
        """
        try:
            example = self.example(given)
            missing = [f"{self.owner}.{name}" for name in self.uses if not _has(example, name)]
            return missing or ([] if self.works(example) else [f"{self.owner} as it was known"])
        except Exception as error:
            return [f"{self.owner} as it was known ({error})"]


def _has(example: object, name: str) -> bool:
    try:
        attrgetter(name)(example)
    except AttributeError:
        return False
    return True


@dataclass(eq=False, repr=False)
class Shortcut:
    """A way past the public API, which is taken only while all that it needs is there.

    :ivar without: what happens otherwise, for the log.
    :ivar names: what it needs.
    :ivar library: whose names these are.
    """

    without: str
    names: tuple[Names, ...]
    library: str = f"Twisted {twisted_version}"
    _there: bool | None = field(default=None, init=False)

    def is_there(self, given: object = None) -> bool:
        """Whether it can be taken.

        The first call checks, and writes a line into the log if something is missing.  Later calls repeat the answer.

        :param given: an object to look at, where the table needs one.
        """
        if self._there is None:
            missing = [name for names in self.names for name in names.missing(given)]
            self._there = not missing
            if missing:
                log.warn(
                    "{library} has no {missing}: {without}",
                    library=self.library,
                    missing=", ".join(missing),
                    without=self.without,
                )
        return self._there


# -- plain sockets -----------------------------------------------------------------------------------------------------


class SocketTransport(Protocol):
    """What we use of ``tcp.Server`` and ``unix.Server`` where :data:`SOCKETS` is there.

    :data:`SOCKETS` says what for; the methods are those of Twisted's interfaces for transports.
    """

    SEND_LIMIT: int
    bufferSize: int
    connected: int
    dataBuffer: bytes
    disconnecting: int
    offset: int
    producer: Any
    producerPaused: bool
    protocol: Any
    reactor: Any
    server: Any
    socket: socket
    streamingProducer: bool
    _tempDataBuffer: list[bytes]
    _tempDataLen: int
    _writeDisconnecting: bool

    def fileno(self) -> int: ...

    def startReading(self) -> None: ...

    def stopReading(self) -> None: ...

    def startWriting(self) -> None: ...

    def stopWriting(self) -> None: ...

    def doRead(self) -> Any: ...

    def doWrite(self) -> Any: ...

    def readConnectionLost(self, reason: Any) -> None: ...

    def connectionLost(self, reason: Any) -> None: ...

    def write(self, data: bytes) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def loseConnection(self) -> None: ...

    def abortConnection(self) -> None: ...

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def startTLS(self, contextFactory: Any) -> None: ...


class _Pretended:
    """Stands for a transport's socket, reactor and protocol, and notes what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def fileno(self) -> int:
        return -1

    def recv(self, size: int) -> bytes:
        self.asked.append(("recv", size))
        return b"in"

    def send(self, data: bytes) -> int:
        self.asked.append(("send", bytes(data)))
        return len(data)

    def dataReceived(self, data: bytes) -> None:
        self.asked.append(("dataReceived", data))

    def addReader(self, reader: object) -> None:
        self.asked.append(("addReader", reader))

    def addWriter(self, writer: object) -> None:
        self.asked.append(("addWriter", writer))

    def removeWriter(self, writer: object) -> None:
        self.asked.append(("removeWriter", writer))


def _server(_: object) -> tcp.Server:
    """A transport that no client is connected to."""
    pretended: Any = _Pretended()
    return tcp.Server(pretended, pretended, ("", 0), None, 0, pretended)  # type: ignore[arg-type]


def _server_works(server: Any) -> bool:
    """Whether a transport writes what is in its buffers, reads into its protocol, and asks the reactor that it has."""
    pretended = server.reactor = server.socket = server.protocol = _Pretended()
    server.startReading()
    server.write(b"out")
    waiting = (server.dataBuffer, server._tempDataBuffer, server._tempDataLen)
    server.doWrite()
    left = (server.dataBuffer, server._tempDataBuffer, server._tempDataLen, server.offset)
    server.doRead()
    return (waiting, left, pretended.asked) == (
        (b"", [b"out"], 3),
        (b"", [], 0, 0),
        [
            ("addReader", server),
            ("addWriter", server),
            ("send", b"out"),
            ("removeWriter", server),
            ("recv", server.bufferSize),
            ("dataReceived", b"in"),
        ],
    )


#: Replies go straight to the socket, and a server's sockets are served in batches.
SOCKETS = Shortcut(
    "replies wait for the reactor's next turn, and each socket is served alone; the server is slower, not wrong",
    (
        Names(
            "tcp.Server",
            _server,
            {
                "socket": "batches read from it; replies are sent to it",
                "protocol": "gets what a batch has read; after startTLS it is the TLS layer",
                "bufferSize": "octets that are read at a time",
                "reactor": "is replaced by a BatchReactor, which keeps the socket from the reactor",
                "server": "the port, whose reactor is replaced too: its next connections are in batches at once",
                "dataBuffer": "what waits to be sent: nothing may overtake it",
                "offset": "how much of dataBuffer has been sent",
                "_tempDataBuffer": "what waits behind dataBuffer",
                "_tempDataLen": "octets in _tempDataBuffer",
                "SEND_LIMIT": "octets that are sent at a time; if there are more, Twisted sends them",
                "producer": "if it has to be asked for more, Twisted sends",
                "producerPaused": "the same",
                "streamingProducer": "the same",
                "connected": "whether a socket may still be written to after it was read",
                "disconnecting": "if the connection ends when all is sent, Twisted sends",
                "_writeDisconnecting": "the same for its half",
            },
            _server_works,
        ),
    ),
)

# -- the log -----------------------------------------------------------------------------------------------------------

#: An event of a connection is made only if anybody sees it.
LISTENERS = Shortcut(
    "events are made for the log, and kept for a while, where no program has begun one",
    (
        Names("globalLogPublisher", lambda _: globalLogPublisher, {"_observers": "who sees events"}),
        Names(
            "globalLogBeginner",
            lambda _: globalLogBeginner,
            {"_temporaryObserver": "keeps the last 200 events until a log is begun, and shows critical ones"},
        ),
    ),
)


# -- TLS ---------------------------------------------------------------------------------------------------------------


def _takes_data(tls: Any) -> bool:
    signature(tls.write).bind(None, b"")
    return True


#: Replies are encrypted at once.  Twisted's own subclass waits for the reactor's next turn to join small writes.
DIRECT_TLS = Shortcut(
    "replies over TLS wait for the reactor's next turn; the server is slower, not wrong",
    (
        Names(
            "TLSMemoryBIOProtocol",
            lambda _: TLSMemoryBIOProtocol,
            {"write": "is called past BufferingTLSTransport, the subclass that joins small writes"},
            _takes_data,
        ),
    ),
)


@implementer(IOpenSSLServerConnectionCreator)
class _NoConnections:
    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Any:
        raise AssertionError("a TLS layer that is only looked at has no connection")


def _tls_layer(_: object) -> TLSMemoryBIOProtocol:
    """A TLS layer that is not connected; its clock is its factory's."""
    clock: Any = object()
    factory = TLSMemoryBIOFactory(_NoConnections(), False, Factory(), clock)
    return factory.protocol(factory, StreamProtocol(), False)


#: STARTTLS on a loop that is not the global reactor's.  ``startTLS`` has no parameter for the reactor.
TLS_CLOCK = Shortcut(
    "with STARTTLS on a second asyncio loop, small writes are not joined; that is slower, not wrong",
    (
        Names(
            "BufferingTLSTransport",
            _tls_layer,
            {"_aggregator._clock": "is replaced by the reactor of the connection; Twisted takes the global one"},
            lambda tls: tls._aggregator._clock is tls.factory._clock,
        ),
    ),
)


def keep_tls_on(reactor: Any, tls: Any) -> None:
    """Have a TLS layer that ``startTLS`` made do without the global reactor.

    :param reactor: the reactor of its connection.
    :param tls: the layer.
    """
    if TLS_CLOCK.is_there():
        tls._aggregator._clock = reactor
    else:
        tls.write = partial(TLSMemoryBIOProtocol.write, tls)


# -- reactors ----------------------------------------------------------------------------------------------------------

#: Which loop Twisted's asyncio reactor is on.
LOOP_OF_REACTOR = Shortcut(
    "a controller on the asyncio reactor's own loop has a second reactor there, and its loop attribute is None",
    (
        Names(
            "AsyncioSelectorReactor",
            lambda reactor: reactor,
            {"_asyncioEventloop": "the loop, for a controller that is started on it or beside it"},
        ),
    ),
)


def asyncio_loop(reactor: Any) -> asyncio.AbstractEventLoop | None:
    """The loop that Twisted's asyncio reactor is on, if it can be asked.

    :param reactor: an ``AsyncioSelectorReactor``.
    """
    if not LOOP_OF_REACTOR.is_there(reactor):
        return None
    loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
    return loop


#: The global reactor moves to the asyncio loop that needs it.
MOVING = Shortcut(
    "the global reactor stays on its first loop: a server on another one has a reactor of its own, and hooks there "
    "can't use what needs the global one",
    (
        Names(
            "AsyncioSelectorReactor",
            lambda reactor: reactor,
            {
                "_asyncioEventloop": "is replaced by the new loop",
                "_timerHandle": "the timer on the former loop, which is cancelled",
                "_scheduledAt": "when that timer was due; is reset",
                "_reschedule": "sets the timer on the new loop",
            },
        ),
    ),
)


def move_timers(reactor: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Put a reactor, and its timers, on another loop; only where :data:`MOVING` is there.

    :param reactor: an ``AsyncioSelectorReactor`` without readers and writers.
    :param loop: the new loop.
    """
    if reactor._timerHandle is not None:
        reactor._timerHandle.cancel()
    reactor._timerHandle = reactor._scheduledAt = None
    reactor._asyncioEventloop = loop
    reactor._reschedule()


#: The threads of a reactor that is never stopped must not keep the process from ending.
DAEMON_THREADS = Shortcut(
    "the process ends only when the threads that hooks use have ended",
    (Names("ThreadPool", lambda _: ThreadPool, {"threadFactory": "makes the threads daemons"}),),
)


# -- listening ports ---------------------------------------------------------------------------------------------------

#: The parent of workers closes its ports without shutting down the sockets that the workers still accept on.
KEPT_PORTS = Shortcut(
    "the sockets that workers share are replaced by some that can't be shut down; nothing is slower or wrong",
    (Names("tcp.Port", lambda _: tcp.Port, {"_shouldShutdown": "is set to False for the parent's ports"}),),
)

#: Workers take turns at accepting, so that all of them have the same number of clients.
TURNS = Shortcut(
    "workers share the clients less evenly; nothing else changes",
    (Names("tcp.Port", lambda port: port, {"numberAccepts": "clients that are accepted at a time"}),),
)


# -- trial and asyncio -------------------------------------------------------------------------------------------------

_TEST_CASE = "twisted.trial._asynctest"


def _trial(_: object) -> object:
    """An object with the names of trial's modules that are there, without importing them."""
    return SimpleNamespace(**{"_asynctest": True} if find_spec(_TEST_CASE) else {})


#: A controller that is started in a trial ``TestCase`` says how to do that, rather than taking the reactor away.
TRIAL = Shortcut(
    "a controller that is started in a trial TestCase is not refused, though trial can't run its reactor then",
    (
        Names("sys", lambda _: sys, {"_getframe": "gives the callers"}),
        Names("twisted.trial", _trial, {"_asynctest": "is among the callers while a TestCase runs"}),
    ),
)


def called_by_trial() -> bool:
    """Whether the body of a trial ``TestCase`` is calling: trial runs the reactor when that returns."""
    if "twisted.trial" not in sys.modules or not TRIAL.is_there():
        return False
    frame: Any = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != _TEST_CASE:
        frame = frame.f_back
    return frame is not None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


#: Without a running loop, the public function raises: that takes ten times as long, and each connection asks.
RUNNING_LOOP = Shortcut(
    "connections begin a little more slowly; nothing is wrong",
    (Names("asyncio", lambda _: asyncio, {"_get_running_loop": "the loop that a connection is made on"}),),
    library=f"Python {sys.version_info.major}.{sys.version_info.minor}",
)

#: Gives the asyncio loop that is running in this thread, or ``None``.
running_loop: Callable[[], asyncio.AbstractEventLoop | None] = (
    asyncio._get_running_loop if RUNNING_LOOP.is_there() else _running_loop
)
