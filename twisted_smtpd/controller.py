"""Servers for programs that are not built on Twisted: in a thread, or on the program's own asyncio loop."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_smtpd.auth.offer import warn_of_no_tls
from twisted_smtpd.logs import bridge
from twisted_smtpd.options.table import DEFAULTS
from twisted_smtpd.runtime.host_name import own_name
from twisted_smtpd.runtime.lifecycle import STOP_TIMEOUT, has_life
from twisted_smtpd.runtime.listening import Binding, RunningServer, bind_inet, bind_unix
from twisted_smtpd.runtime.localhost import IP6_IS, LOOPBACK, get_localhost
from twisted_smtpd.runtime.lost_overrides import OF_CONTROLLERS, warn_of_lost_overrides
from twisted_smtpd.runtime.reactors import (
    HasToWait,
    LoopThread,
    acquire,
    at_once,
    call_in,
    in_thread_of,
    is_running,
    reactor_here,
    refuse_in_thread_of,
    release,
    run_on,
    running_loop,
    shared,
    wait_for,
)
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.tls import connection_creator

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "DEFAULT_READY_TIMEOUT",
    "IP6_IS",
    "BaseController",
    "BaseThreadedController",
    "BaseUnthreadedController",
    "Controller",
    "InetMixin",
    "UnixSocketController",
    "UnixSocketMixin",
    "UnixSocketUnthreadedController",
    "UnthreadedController",
    "get_localhost",
]

#: Seconds that :meth:`BaseThreadedController.start` may take.
DEFAULT_READY_TIMEOUT = 5.0


class BaseController:
    """What all controllers have; use one of the classes below.

    In a coroutine, be it run by the Twisted reactor or by an asyncio loop, every controller can be used with
    ``async with controller:``, or with :meth:`listen` and :meth:`close`; the server then runs in the same thread.

    :param handler: the object whose hooks decide what happens.
    :param loop: the asyncio loop to run on; see the subclasses.
    :param ssl_context: makes the server speak TLS from the start (port 465): an :class:`ssl.SSLContext`, or what else
        :func:`twisted_smtpd.tls.connection_creator` takes.
    :param server_hostname: the server's name in the greeting: the ``hostname`` of :class:`~twisted_smtpd.smtp.SMTP`.
    :param server_kwargs: deprecated: a dict of arguments for ``SMTP``.
    :param grace: seconds that messages in progress have to finish when the server stops, 0 or more.
    :param SMTP_parameters: arguments for :class:`~twisted_smtpd.smtp.SMTP`.
    :ivar handler: as given.
    :ivar server: while the server runs, an object whose ``sockets`` are those that are listened on; else ``None``.
    :ivar smtpd: what :meth:`factory` has made for the last client, or at the start; ``None`` while it is stopped.
    :ivar SMTP_kwargs: the arguments that :meth:`factory` gives to ``SMTP``.
    """

    smtpd: Any = None
    server: RunningServer | None = None
    _starting = False

    def __init__(
        self,
        handler: object,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        ssl_context: object = None,
        server_hostname: str | None = None,
        server_kwargs: dict[str, Any] | None = None,
        grace: float = 10.0,
        **SMTP_parameters: Any,
    ) -> None:
        warn_of_lost_overrides(type(self), OF_CONTROLLERS)
        self.handler = handler
        self.ssl_context = ssl_context
        self.grace = grace
        self._given_loop = loop
        if server_kwargs is not None:
            warnings.warn(
                "server_kwargs is deprecated: give the keyword arguments for SMTP to the controller itself",
                DeprecationWarning,
                stacklevel=4,
            )
        self.SMTP_kwargs: dict[str, Any] = {**(server_kwargs or {}), **SMTP_parameters}
        if server_hostname:
            self.SMTP_kwargs["hostname"] = server_hostname
        self.SMTP_kwargs.setdefault("enable_SMTPUTF8", True)
        if ssl_context is not None and not {"proxy_from", "proxy_protocol_timeout"}.isdisjoint(self.SMTP_kwargs):
            # A PROXY header comes before TLS, so the protocol has to start it.
            self.SMTP_kwargs.setdefault("ssl_context", ssl_context)

    def _set_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Have the server run on a loop.

        :raises RuntimeError: while it runs on another one.
        """
        if self.server is not None:
            raise RuntimeError("the server is running: its loop is set before the start")
        self._given_loop = loop

    def factory(self) -> Any:
        """Make the protocol for a client; subclasses may override this.

        It is called once when the server starts, so that its errors are found, and then for each client.

        :returns: a :class:`~twisted_smtpd.smtp.SMTP`, or any other Twisted protocol.
        """
        return SMTP(self.handler, **self.SMTP_kwargs)

    def _make_protocol(self) -> Any:
        protocol = self.factory()
        self.smtpd = protocol
        return protocol

    def _bind(self) -> list[Binding]:
        """Bind the server's place."""
        raise NotImplementedError("use Controller, UnixSocketController or one of their unthreaded forms")

    def _bound_server(self, reactor: Any) -> tuple[RunningServer, list[Binding]]:
        """A server that has not started, and the bound places that it is to listen on."""
        bridge.begin(self)
        if not self.SMTP_kwargs.get("hostname"):
            # Asked for here: where the server runs, all others would wait for the DNS.
            own_name()
        tls = None if self.ssl_context is None else connection_creator(self.ssl_context)
        return RunningServer(self._make_protocol, reactor, tls, self.handler), self._bind()

    @property
    def _options(self) -> Mapping[str, object]:
        return MappingProxyType({**DEFAULTS, **self.SMTP_kwargs})

    def _open(self, reactor: Any, run: Callable[[Callable[[], Deferred[None]]], object]) -> None:
        """Bind in this thread, then start the handler and listen.

        :param run: calls a function where the reactor runs, and waits for the Deferred that it returns.
        """
        try:
            server, bindings = self._bound_server(reactor)
            try:
                run(lambda: server.start(bindings, self._options))
            except (TimeoutError, HasToWait):
                # It may yet start: then it finds no place to listen on.
                for binding in bindings:
                    binding.close()
                reactor.callFromThread(server.give_up, bindings)
                raise
        except BaseException:
            self._forget(reactor)
            raise
        self._opened(server)

    def _opened(self, server: RunningServer) -> None:
        self.server = server
        if self.ssl_context is None and isinstance(self.smtpd, SMTP):
            warn_of_no_tls(self.smtpd._settings)

    def _forget(self, reactor: Any) -> None:
        self.server = self.smtpd = None
        bridge.end(self)
        release(reactor, self)

    async def listen(self) -> None:
        """Start the server in this thread, in which the reactor or an asyncio loop is running.

        :raises OSError: if it can't bind its place.
        :raises RuntimeError: if it is running already, or nothing runs in this thread.
        :raises Exception: whatever :meth:`factory` or the handler's ``start`` raises.
        """
        if self.server is not None or self._starting:
            raise RuntimeError("the server is running already")
        reactor = reactor_here(self)
        self._starting = True
        try:
            server, bindings = self._bound_server(reactor)
            await wait_for(server.start(bindings, self._options))
        except BaseException:
            self._forget(reactor)
            raise
        finally:
            self._starting = False
        self._opened(server)

    async def close(self) -> None:
        """Stop the server: idle clients hear 421, messages in progress have :attr:`grace` seconds to finish.

        Nothing happens if it isn't running.

        :raises RuntimeError: in another thread than that in which the server runs.
        :raises Exception: whatever the handler's ``stop`` raises; the server is closed all the same.
        """
        server = self.server
        if server is None:
            return
        if is_running(server.reactor) and not in_thread_of(server.reactor):
            raise RuntimeError("the server runs in another thread: stop() it from here, or close() it there")
        self.server = None
        try:
            await wait_for(server.shut(self.grace))
        finally:
            self._forget(server.reactor)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class BaseThreadedController(BaseController):
    """A server in a thread.

    Without a ``loop``, all servers share the thread of the global Twisted reactor.  It is started when it is needed,
    with the asyncio reactor if none is installed, and stays; a reactor that runs already is used where it runs.  With a
    ``loop``, the server has a thread of its own that runs it; :meth:`stop` closes the loop.

    :param ready_timeout: seconds that :meth:`start` may take, above 0; the environment variable
        ``AIOSMTPD_CONTROLLER_TIMEOUT`` wins.
    """

    def __init__(
        self,
        handler: object,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        ready_timeout: float = DEFAULT_READY_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(handler, loop, **kwargs)
        self.ready_timeout = float(os.getenv("AIOSMTPD_CONTROLLER_TIMEOUT", ready_timeout))
        self._loop_thread: LoopThread | None = None
        self._start_failed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The asyncio loop the server runs on, or ``None`` if the reactor is another one than asyncio's.

        It may be set before the start.
        """
        return self._given_loop or shared.loop

    @loop.setter
    def loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._set_loop(loop)

    def start(self) -> None:
        """Start the server; when this returns, it takes connections.

        :raises OSError: if it can't bind its place.
        :raises TimeoutError: if it takes longer than :attr:`ready_timeout`.
        :raises AssertionError: if it is running already.
        :raises RuntimeError: in the thread of the reactor, where :meth:`listen` is to be used; in a process that was
            forked from one where the reactor runs; or if the reactor has been stopped for good.
        :raises Exception: whatever :meth:`factory` or the handler's ``start`` raises.
        """
        if self.server is not None:
            raise AssertionError("SMTP daemon already running")
        self._start_failed = True
        reactor = self._running_reactor()
        self._open(reactor, lambda function: call_in(reactor, function, self.ready_timeout))
        self._start_failed = False

    def _running_reactor(self) -> Any:
        if self._given_loop is None or self._given_loop is shared.loop:
            reactor = shared.reactor(self.ready_timeout)
            refuse_in_thread_of(reactor, "start", "listen")
            return reactor
        if self._given_loop.is_running():
            raise RuntimeError("the loop is running already: use an UnthreadedController, or await listen()")
        if self._loop_thread is None:
            self._loop_thread = LoopThread(self._given_loop)
        return self._loop_thread.reactor

    def stop(self, no_assert: bool = False) -> None:
        """Stop the server: idle clients hear 421, messages in progress have :attr:`grace` seconds to finish.

        :param no_assert: whether it may be stopped already.
        :raises AssertionError: if it was not running, and :meth:`start` has not just failed.
        :raises TimeoutError: if the server's thread does not answer, because a hook blocks it for instance.
        :raises RuntimeError: in the thread of the reactor, where :meth:`close` is to be used.
        :raises Exception: whatever the handler's ``stop`` raises; the server is closed all the same.
        """
        server = self.server
        if server is None and not (no_assert or self._start_failed):
            raise AssertionError("SMTP daemon not running")
        if server is not None:
            refuse_in_thread_of(server.reactor, "stop", "close")
        self._start_failed = False
        try:
            if server is not None:
                self._shut(server)
        finally:
            thread, self._loop_thread = self._loop_thread, None
            if thread is not None:
                thread.end(self.ready_timeout)

    def _shut(self, server: RunningServer) -> None:
        self.server = self.smtpd = None
        try:
            if server.is_here and is_running(server.reactor):
                call_in(server.reactor, lambda: server.shut(self.grace), self.grace + STOP_TIMEOUT + self.ready_timeout)
            else:
                server.abandon()
        finally:
            self._forget(server.reactor)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(no_assert=True)


class BaseUnthreadedController(BaseController):
    """A server on an asyncio loop that the program runs.

    :param loop: by default the loop that runs where :meth:`begin` is called, or else a new one.
    :ivar ended: a :class:`threading.Event`, set when the server has ended.
    """

    def __init__(self, handler: object, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any) -> None:
        super().__init__(handler, loop, **kwargs)
        self.ended = threading.Event()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The asyncio loop the server runs on; it may be set before the start."""
        if self._given_loop is None:
            self._given_loop = running_loop() or asyncio.new_event_loop()
        return self._given_loop

    @loop.setter
    def loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._set_loop(loop)

    def begin(self) -> None:
        """Start the server on its loop, which serves clients when it runs; the loop is this thread's from now on.

        If the handler's ``start`` has to wait, a loop that does not run is run meanwhile.

        :raises OSError: if it can't bind its place.
        :raises TimeoutError: if the handler's ``start`` takes longer than :data:`DEFAULT_READY_TIMEOUT`.
        :raises RuntimeError: if it has begun already; or if it is called in the running loop and the handler's
            ``start`` has to wait: there, :meth:`listen` is to be used.
        :raises Exception: whatever :meth:`factory` or the handler's ``start`` raises.
        """
        if self.server is not None:
            raise RuntimeError("the server has begun already")
        loop = self.loop
        asyncio.set_event_loop(loop)
        reactor = acquire(loop, self)
        if loop.is_running() and running_loop() is not loop:
            self._open(reactor, lambda function: call_in(reactor, function, DEFAULT_READY_TIMEOUT))
        elif has_life(self.handler) and not loop.is_running():
            self._open(reactor, lambda function: run_on(loop, function, DEFAULT_READY_TIMEOUT))
        else:
            self._open(reactor, at_once)
        self.ended.clear()

    async def finalize(self) -> None:
        """End the server, as :meth:`close` does, and set :attr:`ended`."""
        self.ended.clear()
        try:
            await self.close()
        finally:
            self.ended.set()

    def end(self) -> None:
        """End the server: at once if the loop does not run; else from the loop, and :attr:`ended` tells when it is.

        If the loop runs in another thread, have it call this: ``loop.call_soon_threadsafe(controller.end)``.
        """
        self.ended.clear()
        loop = self.loop
        if loop.is_running():
            # asyncio itself holds tasks only weakly.
            self._finalizing = loop.create_task(self.finalize())
        elif loop.is_closed():
            if self.server is not None:
                self.server.abandon()
                self._forget(self.server.reactor)
            self.ended.set()
        else:
            loop.run_until_complete(self.finalize())

    def cancel_tasks(self, stop_loop: bool = True) -> None:
        """Cancel every task on the loop; call it with ``loop.call_soon_threadsafe`` from another thread.

        :param stop_loop: whether to stop the loop as well.
        """
        if stop_loop:
            self.loop.stop()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()


class InetMixin(BaseController):
    """Listens on a TCP port.

    :param hostname: a name or an address, all of whose addresses are listened on; ``""`` for all of this machine;
        ``None`` for the loopback, both 127.0.0.1 and ::1.
    :param port: 0 for any that is free; it may be given as a ``str``.
    :ivar hostname: as given; with ``None``, what :func:`get_localhost` says.
    :ivar port: as given; with 0, the port that was found once the server has started.
    """

    def __init__(
        self,
        handler: object,
        hostname: str | None = None,
        port: int | str = 8025,
        loop: asyncio.AbstractEventLoop | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(handler, loop, **kwargs)
        self._localhost = get_localhost()
        self._on_loopback = hostname is None
        self.hostname = self._localhost if hostname is None else hostname
        self.port: int = port  # type: ignore[assignment]
        self._found_port: int | None = None

    def _bind(self) -> list[Binding]:
        hosts: tuple[str | None, ...] = (self.hostname or None,)
        if self._on_loopback and self.hostname == self._localhost:
            hosts = LOOPBACK
        if isinstance(self.port, str):
            self.port = int(self.port)
        wanted = 0 if self.port == self._found_port else self.port
        bindings, self.port = bind_inet(hosts, wanted)
        self._found_port = None if wanted else self.port
        return bindings


class UnixSocketMixin(BaseController):
    """Listens on a Unix socket.

    :param unix_socket: its path.
    :ivar unix_socket: the path, a ``str``.
    """

    def __init__(
        self, handler: object, unix_socket: str | Path, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any
    ) -> None:
        super().__init__(handler, loop, **kwargs)
        self.unix_socket = str(unix_socket)

    def _bind(self) -> list[Binding]:
        return bind_unix(self.unix_socket)


class Controller(InetMixin, BaseThreadedController):
    """A server in a thread, on a TCP port."""


class UnixSocketController(UnixSocketMixin, BaseThreadedController):
    """A server in a thread, on a Unix socket."""


class UnthreadedController(InetMixin, BaseUnthreadedController):
    """A server on an asyncio loop that the program runs, on a TCP port."""


class UnixSocketUnthreadedController(UnixSocketMixin, BaseUnthreadedController):
    """A server on an asyncio loop that the program runs, on a Unix socket."""
