"""Call a hook: a plain function, a coroutine function, or one that returns a Deferred or an asyncio awaitable."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from twisted.internet.defer import CancelledError, Deferred

__all__ = [
    "CANCELLED",
    "DONE",
    "MISSING",
    "NO_HOOK",
    "HookExit",
    "InputWait",
    "Missing",
    "NeedsAsyncioReactor",
    "Waiting",
    "hook_names",
    "settle",
    "takes_responses",
    "unfinished",
]

T = TypeVar("T")


class _Missing(Enum):
    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"


#: What a hook that does not exist "returned"; an ``auth_*`` hook returns it when the credentials are rejected.
MISSING: Final = _Missing.MISSING
#: The type of :data:`MISSING`.
Missing: TypeAlias = Literal[_Missing.MISSING]

#: What awaiting something raises that was cancelled: Twisted's and asyncio's.
CANCELLED = (CancelledError, asyncio.CancelledError)


class _Done(Coroutine[Any, Any, None]):
    """An awaitable that is done.  One object serves all, as often as it is awaited.

    It counts as a coroutine, so that ``asyncio.create_task`` and the like take it.
    """

    __slots__ = ()

    def __await__(self) -> Iterator[Any]:  # type: ignore[override]
        return iter(())

    __iter__ = __await__

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        """There is nothing to end."""


class _NoHook(_Done):
    """What calling a hook gives that the handler does not have: :data:`MISSING`, once it is awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        return MISSING
        yield

    __iter__ = __await__

    def send(self, value: Any) -> Any:
        raise StopIteration(MISSING)


class Waiting(Coroutine[Any, Any, T]):
    """A coroutine that a generator may wait for as well: ``yield from server.push(status)``.

    Python lets only coroutines and generators decorated with :func:`types.coroutine` yield from a coroutine.

    :param coroutine: the coroutine.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    __iter__ = __await__

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()


#: What is left of a command that is done.
DONE: Final = _Done()
#: The result of a hook that the handler does not have.
NO_HOOK: Final = _NoHook()

_in_hook: ContextVar[bool] = ContextVar("twisted_smtpd_in_hook", default=False)


class NeedsAsyncioReactor(RuntimeError):
    """A hook awaited something of asyncio's on a reactor that does not run asyncio."""

    def __init__(self, awaited: object) -> None:
        super().__init__(
            f"the hook awaits {type(awaited).__qualname__}, which only the asyncio reactor can run: start with "
            "`twisted-smtpd --reactor=asyncio`, or install twisted.internet.asyncioreactor before the reactor is "
            "imported"
        )


class HookExit(RuntimeError):
    """A hook called ``sys.exit()``, which fails like any other: a client must not be able to end the server.

    Its ``__cause__`` is the ``SystemExit``.
    """

    def __init__(self) -> None:
        super().__init__("a hook called sys.exit()")


class InputWait:
    """Awaited by a command that waits for what the client sends next.

    The object that drives the coroutine calls :meth:`listen`; the connection calls ``resume`` with what it has read.

    :param ready: called by :meth:`listen`: the connection may read on.
    """

    __slots__ = ("_ready", "resume")
    resume: Callable[[Any], object]

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready = ready

    def listen(self, resume: Callable[[Any], object]) -> None:
        """Have ``resume`` called with what the client sends."""
        self.resume = resume
        self._ready()

    def __await__(self) -> Generator[InputWait, Any, Any]:
        return (yield self)


def hook_names(handler: object) -> frozenset[str]:
    """The hooks a handler has: ``handle_MAIL`` gives ``MAIL``."""
    return frozenset(name[7:] for name in dir(handler) if name.startswith("handle_"))


_takes_responses: WeakKeyDictionary[Callable[..., object], bool] = WeakKeyDictionary()


def takes_responses(hook: Callable[..., object]) -> bool:
    """Whether a ``handle_EHLO`` has the fifth argument, the list of responses."""
    # A method is asked once; the function itself is asked about, since a hook may be replaced.
    function = hook.__func__ if isinstance(hook, types.MethodType) else None
    if function is not None and (known := _takes_responses.get(function)) is not None:
        return known
    try:
        inspect.signature(hook).bind(None, None, None, None, None)
    except (TypeError, ValueError):
        takes = False
    else:
        takes = True
    if isinstance(function, types.FunctionType):
        _takes_responses[function] = takes
    return takes


async def settle(result: Any, loop: asyncio.AbstractEventLoop | None) -> Any:
    """What a hook returned, once it is there.

    :param result: what calling the hook gave: a value, or an awaitable of one.
    :param loop: the running asyncio loop, or ``None`` where the reactor is another one.
    """
    if not hasattr(result, "__await__"):
        if type(result) is not types.GeneratorType:
            return result
        result = _from_generator(result)
    if loop is None or isinstance(result, (Deferred, InputWait)):
        return await result
    if asyncio.isfuture(result):
        return await Deferred.fromFuture(result)
    task = _start_task(result if inspect.iscoroutine(result) else _await(result), loop)
    return task.result() if task.done() else await Deferred.fromFuture(task)


def unfinished(value: object) -> bool:
    """Whether a value is a coroutine, a Deferred, a generator or the like, whose result is not there yet.

    Where the truth of a value decides, such an object would always mean yes.

    :param value: what :func:`settle` gave: a hook may give an awaitable of an awaitable, or be a generator by mistake.
    """
    return hasattr(value, "__await__") or isinstance(value, (Generator, AsyncGenerator, Future))


async def _from_generator(generator: Generator[Any, Any, T]) -> T:
    """Run a hook that is a generator: it waits with ``yield from``, as coroutines did before Python 3.5.

    :raises TypeError: inside the hook, if it yields a value instead: that would be lost, and what the hook reads for it
        be None.
    """
    return await _steps(generator)


@types.coroutine
def _steps(generator: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    step: Callable[[Any], Any] = generator.send
    argument: Any = None
    while True:
        try:
            awaited = step(argument)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        step, argument = generator.send, None
        try:
            if awaited is not None and generator.gi_yieldfrom is None:  # type: ignore[attr-defined]
                raise TypeError(f"a hook that is a generator waits with `yield from`, and yielded {awaited!r}")
            argument = yield awaited
        except GeneratorExit:
            generator.close()
            raise
        except BaseException as error:
            step, argument = generator.throw, error


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _start_task(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
    token = _in_hook.set(True)
    try:
        _bridge_child_tasks(loop)
        bridged = _bridged(coroutine, loop)
        if sys.version_info >= (3, 12):
            # A hook that doesn't really wait is done when this returns, without a turn of the loop.
            return asyncio.Task(bridged, loop=loop, eager_start=True)
        return asyncio.Task(bridged, loop=loop)
    finally:
        _in_hook.reset(token)


def _bridge_child_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Let the tasks that a hook starts await Deferreds too: ``asyncio.gather(deferred)`` makes a task of it."""
    inner = loop.get_task_factory()
    if getattr(inner, "bridges_deferreds", False):
        return

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Future[Any]:
        if _in_hook.get():
            coroutine = _bridged(coroutine, loop)
        if inner is not None:
            return inner(loop, coroutine, **options)
        return asyncio.Task(coroutine, loop=loop, **options)

    factory.bridges_deferreds = True  # type: ignore[attr-defined]
    loop.set_task_factory(factory)


async def _bridged(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    return await _bridge(coroutine, loop)


@types.coroutine
def _bridge(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> Generator[Any, Any, T]:
    """Run inside an asyncio task a coroutine that may await Deferreds and :class:`InputWait` as well."""
    step: Callable[[Any], Any] = coroutine.send
    argument: Any = None
    while True:
        try:
            awaited = step(argument)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except SystemExit as error:
            # asyncio would end its loop, and so the program.
            raise HookExit from error
        step, argument = coroutine.send, None
        try:
            if isinstance(awaited, Deferred):
                # The coroutine reads the result from the Deferred itself.
                yield from _future_of(awaited.addBoth, loop)
            elif isinstance(awaited, InputWait):
                argument = yield from _future_of(awaited.listen, loop)
            else:
                yield awaited
        except BaseException as error:
            if isinstance(awaited, Deferred):
                awaited.cancel()
            step, argument = coroutine.throw, error


def _future_of(subscribe: Callable[[Callable[[Any], Any]], object], loop: asyncio.AbstractEventLoop) -> Any:
    future: asyncio.Future[Any] = loop.create_future()

    def arrived(value: Any) -> Any:
        if future.done():
            # The task was cancelled, so the result of the Deferred is not needed.
            return None
        future.set_result(value)
        return value

    subscribe(arrived)
    return future
