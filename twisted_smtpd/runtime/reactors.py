"""A reactor for programs without one: on an asyncio loop that the program runs, or in a thread.

Twisted's global reactor can be started only once, and much of Twisted uses no other.  If the program has not installed
one, this module installs a :class:`LoopReactor`, which can be moved from one asyncio loop to the next.  It goes where
it is needed first.  A server on another loop at the same time gets a second reactor, which is not the global one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRestartable, ReactorNotRunning
from twisted.internet.main import installReactor
from twisted.python import threadable
from twisted.python.failure import Failure

from twisted_smtpd.on_demand import withheld
from twisted_smtpd.runtime.steady import Unfrozen, steady_seconds
from twisted_smtpd.runtime.twisted_private import (
    DAEMON_THREADS,
    MOVING,
    asyncio_loop,
    called_by_trial,
    move_timers,
    running_loop,
)

# Twisted's reactors import it, and have not used it since there is twisted.protocols.tls.  Without it, a server starts
# 20 ms sooner.
with withheld("twisted.internet.ssl"):
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

__all__ = [
    "HasToWait",
    "LoopReactor",
    "LoopThread",
    "acquire",
    "at_once",
    "call_in",
    "global_reactor",
    "in_thread",
    "in_thread_of",
    "is_running",
    "loop_of",
    "reactor_here",
    "refuse_in_thread_of",
    "release",
    "run_on",
    "running_loop",
    "shared",
    "wait_for",
]

# Seconds that the end of the process waits for a thread, and the end of a loop for its tasks.
END_TIMEOUT = 5.0

_STOPPED = "the Twisted reactor of this process has been stopped, and a reactor can't be started a second time"
_FORKED = (
    "this process is a fork of one in which the Twisted reactor was running, and the reactor's thread is not in it: "
    "start controllers after the fork only, start the process with the 'spawn' method, or give the controller a loop "
    "of its own: Controller(handler, loop=asyncio.new_event_loop())"
)
_PATCHED = (
    "{library} has patched {module}: a server can't run in a thread of this process; run it in a process of its own, "
    "with the command twisted-smtpd"
)
_WHY_SILENT = (
    "the server's thread is busy or blocked: by factory(), by a hook or the handler's start(), or because it can't run "
    "(gevent) or its clock stands still (freezegun)"
)
_TRIAL = (
    "this would take the reactor away from trial, which is about to run it for this TestCase: "
    "use `await controller.listen()`, or a SynchronousTestCase"
)


class SteadyLoop(asyncio.SelectorEventLoop):
    """The loop of the thread that servers share.

    Its time goes on where a test freezes ``time.monotonic()``, with freezegun for instance: that holds for some of the
    calls of a loop and not for others, and timers that were set by one time would wait for the other.
    """

    def time(self) -> float:
        return Unfrozen.monotonic()


class LoopReactor(AsyncioSelectorReactor):
    """A reactor on an asyncio loop.  It works while the loop runs, and does not run the loop itself.

    :param loop: its first loop.
    :ivar home: its first loop, on which :data:`shared` runs it.
    :ivar loop: the loop that it is on now.
    :ivar users: the objects that need it on this loop.
    :ivar kept: whether it stays on this loop for good, since the program runs it itself.
    :ivar stopped: whether it has been stopped; a reactor starts only once.
    """

    seconds = staticmethod(steady_seconds)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.home = self.loop = loop
        self.users: WeakSet[Any] = WeakSet()
        self.kept = self.stopped = False

    def installWaker(self) -> None:
        """Do without a waker and its file descriptors: another thread wakes the loop in asyncio's way."""

    def getThreadPool(self) -> Any:
        """The thread pool.  Its threads don't keep the process from ending, since this reactor may never be stopped."""
        pool: Any = super().getThreadPool()
        if DAEMON_THREADS.is_there():
            pool.threadFactory = partial(threading.Thread, daemon=True)
        return pool

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Call a function in the loop's thread; without a timer, which a frozen clock would hold up."""
        self.loop.call_soon_threadsafe(partial(callable, *args, **kwargs))

    def run(self, installSignalHandlers: bool = True) -> None:
        """Run as an ordinary reactor, for a program that runs the global reactor itself."""
        self.kept = True
        base: Any = super()
        base.run(installSignalHandlers)

    def startRunning(self, installSignalHandlers: bool = True) -> None:
        """Start; where another reactor is the global one, Twisted's I/O thread stays the thread of that one."""
        thread = threadable.ioThread
        base: Any = super()
        base.startRunning(installSignalHandlers)
        if thread is not None and sys.modules.get("twisted.internet.reactor") is not self:
            threadable.ioThread = thread

    def stop(self) -> None:
        """Stop for good."""
        self.stopped = True
        base: Any = super()
        base.stop()

    def is_free(self) -> bool:
        """Whether it may be moved to another loop."""
        return not (self.kept or self.stopped) and (not self.users or self.loop.is_closed()) and MOVING.is_there(self)

    def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go to another loop, with all readers, writers and timers; only if :meth:`is_free`."""
        base: Any = super()
        readers, writers = base.getReaders(), base.getWriters()
        base.removeAll()
        self.loop = loop
        move_timers(self, loop)
        self.users.clear()
        for reader in readers:
            base.addReader(reader)
        for writer in writers:
            base.addWriter(writer)


_lock = threading.RLock()


def global_reactor() -> Any:
    """Twisted's global reactor; a :class:`LoopReactor` becomes it if there is none yet."""
    with _lock:
        if "twisted.internet.reactor" not in sys.modules:
            # The event loop policy may give a loop that does not suit a reactor: uvloop, or Windows' proactor loop.
            loop = SteadyLoop()
            installReactor(LoopReactor(loop))
            atexit.register(_close_idle, loop)
    from twisted.internet import reactor

    return reactor


def _close_idle(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_running():
        loop.close()


def loop_of(reactor: Any) -> asyncio.AbstractEventLoop | None:
    """The asyncio loop below a reactor, or ``None`` if it is another kind of reactor."""
    if isinstance(reactor, LoopReactor):
        return reactor.loop
    return asyncio_loop(reactor) if isinstance(reactor, AsyncioSelectorReactor) else None


def is_running(reactor: Any) -> bool:
    """Whether a reactor is at work: if it is on an asyncio loop, whether that loop runs."""
    loop = loop_of(reactor)
    return bool(reactor.running) if loop is None else loop.is_running()


def in_thread_of(reactor: Any) -> bool:
    """Whether this is the thread in which a reactor runs, and it runs now."""
    loop = loop_of(reactor)
    if loop is not None:
        return running_loop() is loop
    return bool(reactor.running) and threadable.isInIOThread()


def acquire(loop: asyncio.AbstractEventLoop, user: object) -> Any:
    """A reactor on an asyncio loop: the global one, if it is on this loop or can be moved to it, or else another.

    :param loop: the loop.
    :param user: the reactor stays on the loop while this object exists, or until :func:`release`.
    """
    with _lock:
        reactor = global_reactor()
        if loop_of(reactor) is not loop or getattr(reactor, "stopped", False):
            if isinstance(reactor, LoopReactor) and reactor.is_free():
                reactor.move(loop)
            else:
                reactor = LoopReactor(loop)
        if isinstance(reactor, LoopReactor):
            reactor.users.add(user)
            if not reactor.running:
                reactor.startRunning(installSignalHandlers=False)
        return reactor


def release(reactor: Any, user: object) -> None:
    """This user doesn't need the reactor any more."""
    with _lock:
        if isinstance(reactor, LoopReactor):
            reactor.users.discard(user)


def reactor_here(user: object) -> Any:
    """The reactor for this thread: one on the asyncio loop that runs here, or the global reactor, also before it runs.

    :param user: see :func:`acquire`.
    :raises RuntimeError: if neither a loop nor the reactor runs in this thread.
    """
    loop = running_loop()
    if loop is not None:
        return acquire(loop, user)
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is not None and (in_thread_of(reactor) or not (reactor.running or isinstance(reactor, LoopReactor))):
        return reactor
    raise RuntimeError("neither an asyncio loop nor the Twisted reactor is running in this thread")


def in_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Call a function that blocks, in a thread: ``deferToThread`` for loops without the global reactor as well."""
    loop = running_loop()
    if loop is None or loop_of(global_reactor()) is loop:
        from twisted.internet.threads import deferToThread

        return deferToThread(function, *arguments)
    return Deferred.fromFuture(loop.run_in_executor(None, partial(function, *arguments)))


async def wait_for(result: Deferred[Any]) -> Any:
    """Await a Deferred, in a coroutine that Twisted runs or in an asyncio task."""
    loop = running_loop()
    if loop is None or asyncio.current_task(loop) is None:
        return await result
    return await result.asFuture(loop)


def call_in(reactor: Any, function: Callable[[], Any], timeout: float) -> Any:
    """Call a function in the thread of a reactor, and wait for its result.

    :param function: the function; it may return a Deferred.
    :param timeout: seconds to wait.
    :raises TimeoutError: if it takes longer.  A function that has not begun by then is not called any more.
    """
    result: Future[Any] = Future()

    def call() -> None:
        if result.set_running_or_notify_cancel():
            maybeDeferred(function).addCallbacks(result.set_result, fail)

    def fail(failure: Failure) -> None:
        result.set_exception(failure.value)

    reactor.callFromThread(call)
    try:
        return result.result(timeout)
    except FutureTimeout:
        if result.done():
            raise  # the function itself has raised it
        result.cancel()
        raise TimeoutError(f"no answer within {timeout:g} s: {_WHY_SILENT}") from None


def run_on(loop: asyncio.AbstractEventLoop, function: Callable[[], Any], timeout: float) -> Any:
    """Call a function on a loop that does not run, and run the loop until there is a result.

    :param function: may return a Deferred.
    :param timeout: seconds to wait.
    :raises TimeoutError: if it takes longer; the Deferred is cancelled.
    """

    async def call() -> Any:
        return await asyncio.wait_for(wait_for(maybeDeferred(function)), timeout)

    try:
        return loop.run_until_complete(call())
    except asyncio.TimeoutError as error:
        raise TimeoutError(str(error) or f"not done within {timeout:g} s") from None


def refuse_in_thread_of(reactor: Any, name: str, instead: str) -> None:
    """Refuse to wait in the thread of a reactor for that reactor.

    :param name: the controller's method that would wait.
    :param instead: the one to use there.
    :raises RuntimeError: in that thread.
    """
    if in_thread_of(reactor):
        raise RuntimeError(f"{name}() would wait for the thread it is called in: use `await controller.{instead}()`")


class HasToWait(RuntimeError):
    """A start that is waited for in the thread in which it would go on."""


def at_once(function: Callable[[], Deferred[None]]) -> None:
    """Call a function that does not wait.

    :raises HasToWait: if it does.
    :raises Exception: whatever it fails with.
    """
    failures: list[Failure] = []
    starting = function()
    if not starting.called:
        raise HasToWait("the handler's start() has to wait: use `await controller.listen()` in a running loop")
    starting.addErrback(failures.append)
    if failures:
        failures[0].raiseException()


def refuse_patched_threads() -> None:
    """Refuse to start a thread where greenlets stand for threads, or have their own sockets.

    :raises RuntimeError: if gevent or eventlet has patched what a thread needs.
    """
    for library, name, function in (
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ):
        patched = getattr(sys.modules.get(name), function, None)
        for module in ("thread", "socket", "select"):
            if patched is not None and (patched(module) or (module == "thread" and patched("threading"))):
                raise RuntimeError(_PATCHED.format(library=library, module=module))


class LoopThread:
    """A thread that runs an asyncio loop, with a reactor on it.

    :param loop: a loop that does not run.
    :ivar reactor: the reactor.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.reactor = acquire(loop, self)
        self._thread = threading.Thread(target=self._run, name="twisted-smtpd", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=END_TIMEOUT))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _finish(self) -> None:
        # Close the connections first: a hook that is cancelled now must not answer its client.
        self.reactor.disconnectAll()
        self._loop.stop()

    def is_alive(self) -> bool:
        """Whether the thread is there: it is not in a fork, nor after the program has stopped the loop."""
        return self._thread.is_alive()

    def end(self, timeout: float | None = None) -> None:
        """Stop the loop, close it, and wait for the thread.

        :param timeout: seconds to wait at most.
        """
        if self._thread.is_alive():
            self.reactor.callFromThread(self._finish)
            self._thread.join(timeout)
        release(self.reactor, self)


class SharedThread:
    """The thread for all servers without a loop of their own."""

    def __init__(self) -> None:
        self.forked = False
        self._own: LoopThread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The asyncio loop that the thread runs or will run, or ``None`` if the reactor is of another kind."""
        reactor = global_reactor()
        return reactor.home if isinstance(reactor, LoopReactor) else loop_of(reactor)

    def reactor(self, timeout: float) -> Any:
        """A reactor that runs: in a thread that is started now, or where the global reactor runs already.

        :param timeout: seconds that the start may take.
        :raises RuntimeError: if it can't run: it has been stopped, or this is a fork of a process where it ran.
        :raises TimeoutError: if the start takes too long.
        """
        if self.forked:
            raise RuntimeError(_FORKED)
        if self._own is None:
            refuse_patched_threads()
        with _lock:
            reactor = global_reactor()
            if isinstance(reactor, LoopReactor) and not reactor.kept:
                return self._own_reactor(reactor)
            if not reactor.running:
                _run_in_thread(reactor, timeout)
            return reactor

    def _own_reactor(self, reactor: LoopReactor) -> Any:
        if self._own is None and not reactor.stopped:
            self._own = LoopThread(reactor.home)
            atexit.register(self._end, os.getpid())
        elif self._own is None or not self._own.is_alive():
            raise RuntimeError(_STOPPED)
        return self._own.reactor

    def _end(self, pid: int) -> None:
        """The process ends: cancel the hooks, so that none is cut off in the middle of a statement."""
        if self._own is not None and os.getpid() == pid:
            self._own.end(END_TIMEOUT)


shared = SharedThread()


def _run_in_thread(reactor: Any, timeout: float) -> None:
    """Run the reactor that the program has installed and does not run."""
    if called_by_trial():
        raise RuntimeError(_TRIAL)
    running: Future[None] = Future()

    def run() -> None:
        reactor.callWhenRunning(running.set_result, None)
        try:
            # Only the main thread can handle signals.
            reactor.run(installSignalHandlers=False)
        except Exception as error:
            if running.done():
                raise
            running.set_exception(error)

    thread = threading.Thread(target=run, name="twisted-smtpd reactor", daemon=True)
    thread.start()
    try:
        running.result(timeout)
    except ReactorNotRestartable:
        raise RuntimeError(_STOPPED) from None
    except FutureTimeout:
        raise TimeoutError(f"the reactor did not start within {timeout:g} s") from None
    atexit.register(_stop, reactor, thread, os.getpid())


def _stop(reactor: Any, thread: threading.Thread, pid: int) -> None:
    def stop() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    if thread.is_alive() and os.getpid() == pid:
        reactor.callFromThread(stop)
        thread.join(END_TIMEOUT)


def _after_fork() -> None:
    # If another thread held the lock, it would never be released here.
    global _lock
    _lock = threading.RLock()
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is not None and reactor.running:
        shared.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
