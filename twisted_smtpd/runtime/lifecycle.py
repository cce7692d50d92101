"""A handler's life: it is started before its server takes connections, and stopped after the last one is closed.

The rules are those of :class:`~twisted_smtpd.interfaces.IStartable`, :class:`~twisted_smtpd.interfaces.IStoppable` and
:class:`~twisted_smtpd.interfaces.IOffersServices`.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from twisted_smtpd.interfaces import IOffersServices, IReloadable, IStartable, IStoppable
from twisted_smtpd.runtime.awaiting import settle, unfinished
from twisted_smtpd.runtime.reactors import running_loop
from twisted_smtpd.session import Peer

if TYPE_CHECKING:
    from twisted.application.service import IService

__all__ = [
    "STOP_TIMEOUT",
    "HandlerStartError",
    "HandlerUse",
    "ServerInfo",
    "has_life",
    "ignored_methods",
    "offered_services",
    "reloadables",
]

#: Seconds that a handler's ``stop()`` may take; then it is cancelled.
STOP_TIMEOUT = 10.0

Method = Callable[..., Any]


class HandlerStartError(Exception):
    """A handler can't work, for a reason that is understood without a traceback.

    The text of the error is shown as one line.
    """


@dataclass(frozen=True)
class ServerInfo:
    """What a handler's ``start(server)`` is told about the server.

    :ivar hostname: the server's name.
    :ivar addresses: where it listens, as far as that is known; the port is the one that clients connect to.
    :ivar reactor: what the server runs on: a provider of :class:`~twisted.internet.interfaces.IReactorTime` and of what
        else Twisted's reactors have.
    :ivar options: the options of :class:`~twisted_smtpd.smtp.SMTP`, the defaults included.
    """

    hostname: str
    addresses: Sequence[Peer]
    reactor: Any
    options: Mapping[str, object] = field(repr=False)


def _takes(method: Method | None, *arguments: object) -> bool:
    """Whether a method can be called with these arguments."""
    try:
        inspect.signature(method).bind(*arguments)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _start_of(handler: object) -> Method | None:
    start: Method | None = getattr(handler, "start", None)
    if IStartable.providedBy(handler):
        return start
    # Thread.start() takes nothing, and a scheduler's start(paused=False) does not need its argument.
    return start if _takes(start, None) and not _takes(start) else None


def _stop_of(handler: object) -> Method | None:
    if _start_of(handler) is None and not IStoppable.providedBy(handler):
        return None
    return getattr(handler, "stop", None)


def _services_of(handler: object) -> Method | None:
    services: Method | None = getattr(handler, "services", None)
    return services if IOffersServices.providedBy(handler) or _takes(services) else None


def ignored_methods(handler: object) -> list[str]:
    """A handler's methods ``start`` and ``stop`` that are not called, since they may be meant for something else."""
    called = {"start": _start_of(handler), "stop": _stop_of(handler)}
    return [name for name, method in called.items() if method is None and callable(getattr(handler, name, None))]


def has_life(handler: object) -> bool:
    """Whether a handler has anything to start, to stop or to run beside the server."""
    return any(of(handler) is not None for of in (_start_of, _stop_of, _services_of))


async def _finished(result: object, what: str) -> Any:
    """What a method returned, when it is there.

    :raises TypeError: if it is a generator (``yield`` was written by mistake), or an awaitable of an awaitable.
    """
    value = await settle(result, running_loop())
    if unfinished(value):
        raise TypeError(f"{what}() returned {type(value).__name__}, which has not run")
    return value


async def offered_services(handler: object) -> list[IService]:
    """The services that a handler wants to have run beside its server.

    :returns: providers of :class:`~twisted.application.service.IService`.
    :raises TypeError: if ``services()`` returned something else.
    """
    method = _services_of(handler)
    if method is None:
        return []
    # Imported here: a controller runs no services.
    from twisted.application.service import IService

    services = list(await _finished(method(), "services"))
    for service in services:
        if not IService.providedBy(service):
            raise TypeError(f"services() returned {service!r}, which is no IService")
    return services


def reloadables(handler: object) -> list[Any]:
    """The handler, if it reads its files again at a SIGHUP."""
    return [handler] if IReloadable.providedBy(handler) else []


class _Life:
    """A handler that is used.

    :ivar users: the servers that have started it.
    :ivar busy: whether its start or stop runs.
    :ivar waiting: called when that has ended.
    """

    def __init__(self, handler: object) -> None:
        # Held, because an id is unique only as long as the object lives.
        self.handler = handler
        self.users = 0
        self.busy = False
        self.waiting: list[Callable[[], None]] = []


# By id, since a handler need not be hashable.
_lives: dict[int, _Life] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    # The parent stops what it has started; and another thread may have held the lock.
    global _lock
    _lock = threading.Lock()
    _lives.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class HandlerUse:
    """One server's use of a handler.

    Several servers may share a handler: the first to start starts it, the last to stop stops it.

    :param handler: any object; nothing happens if it has neither ``start`` nor ``stop``.
    """

    def __init__(self, handler: object) -> None:
        self.handler = handler
        self._life: _Life | None = None
        self._reactor: Any = None

    async def start(self, server: ServerInfo) -> None:
        """Start the handler, unless another server has.

        :param server: what the handler is told.
        :raises RuntimeError: if this server has started it already.
        :raises Exception: whatever the handler's ``start`` raises.
        """
        start = _start_of(self.handler)
        if start is None and _stop_of(self.handler) is None:
            return
        self._reactor = server.reactor
        life = await self._turn()
        try:
            if self._life is not None:
                raise RuntimeError("the handler has been started already")
            if start is not None and not life.users:
                await _finished(start(server), "start")
            life.users += 1
            self._life = life
        finally:
            _end_turn(life)

    async def stop(self) -> None:
        """Stop the handler, if no other server uses it.

        Nothing happens if this server has not started it, or has stopped it.

        :raises TimeoutError: if it took longer than :data:`STOP_TIMEOUT`.
        :raises Exception: whatever the handler's ``stop`` raises.
        """
        if self._life is None:
            return
        life = await self._turn()
        try:
            if self._life is not life:
                return
            self._life = None
            life.users -= 1
            stop = _stop_of(self.handler)
            if stop is not None and not life.users:
                await self._run_stop(stop)
        finally:
            _end_turn(life)

    async def _run_stop(self, stop: Method) -> None:
        stopping: Deferred[Any] = Deferred.fromCoroutine(_finished(stop(), "stop"))
        if not stopping.called:
            stopping.addTimeout(STOP_TIMEOUT, self._reactor)
        try:
            await stopping
        except DeferredTimeout:
            text = f"stop() of {type(self.handler).__name__} took longer than {STOP_TIMEOUT:g} s"
            raise TimeoutError(text) from None

    async def _turn(self) -> _Life:
        """Wait until no other server starts or stops the handler."""
        while True:
            with _lock:
                life = _lives.setdefault(id(self.handler), _Life(self.handler))
                if not life.busy:
                    life.busy = True
                    return life
                turn: Deferred[None] = Deferred()
                life.waiting.append(self._waker(turn))
            await turn

    def _waker(self, turn: Deferred[None]) -> Callable[[], None]:
        thread, reactor = threading.get_ident(), self._reactor

        def fire() -> None:
            if not turn.called:
                turn.callback(None)

        def wake() -> None:
            if threading.get_ident() == thread:
                fire()
            else:
                reactor.callFromThread(fire)

        return wake


def _end_turn(life: _Life) -> None:
    with _lock:
        life.busy = False
        waiting, life.waiting = life.waiting, []
        if not life.users and _lives.get(id(life.handler)) is life:
            del _lives[id(life.handler)]
    for wake in waiting:
        wake()
