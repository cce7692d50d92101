"""Take a connection over from asyncio: for programs that give the protocol to ``loop.create_server()``.

The connection's socket moves to a reactor on the same loop.  From then on everything is as with a controller: STARTTLS,
time limits, flow control.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from weakref import WeakValueDictionary

from twisted.internet import tcp

from twisted_smtpd.runtime.listening import transport_for
from twisted_smtpd.runtime.reactors import LoopReactor, acquire, loop_of

try:
    from twisted.internet import unix
except ImportError:  # no such sockets here
    unix = None  # type: ignore[assignment]

__all__ = ["move_socket", "reactor_for"]

_reactors: WeakValueDictionary[int, Any] = WeakValueDictionary()


def reactor_for(transport: asyncio.BaseTransport, protocol: object) -> Any:
    """The reactor on the loop of an asyncio transport.

    :param protocol: the reactor stays on the loop while this object exists.
    :raises RuntimeError: if the transport has TLS: its socket can't be taken away from it.
    """
    if transport.get_extra_info("sslcontext") is not None:
        transport.abort()  # type: ignore[attr-defined]
        raise RuntimeError(
            "loop.create_server(…, ssl=context) does not work with this protocol: "
            "leave ssl out, and give the context to the protocol: SMTP(handler, ssl_context=context)"
        )
    loop = asyncio.get_running_loop()
    reactor = _reactors.get(id(loop))
    if reactor is None or loop_of(reactor) is not loop:
        # The connections of one loop have one reactor, also where that is not the global one.
        reactor = _reactors[id(loop)] = acquire(loop, protocol)
    if isinstance(reactor, LoopReactor):
        reactor.users.add(protocol)
    return reactor


def move_socket(transport: asyncio.BaseTransport, protocol: Any, reactor: Any) -> None:
    """Have a reactor serve a connection that asyncio has accepted.

    :param transport: asyncio's, which is given up.
    :param protocol: a Twisted protocol.
    :param reactor: see :func:`reactor_for`.
    """
    sock: socket.socket = transport.get_extra_info("socket").dup()
    sock.setblocking(False)
    # The connection is not lost when this transport is closed.
    transport.set_protocol(asyncio.Protocol())
    transport.abort()  # type: ignore[attr-defined]
    try:
        made = _transport(sock, protocol, reactor)
    except OSError:
        # The client has gone again.
        sock.close()
        return
    protocol.makeConnection(made)


def _transport(sock: socket.socket, protocol: Any, reactor: Any) -> Any:
    if unix is not None and sock.family == socket.AF_UNIX:
        return transport_for(reactor, unix.Server, sock, protocol, sock.getpeername(), None, 0, reactor)
    peer = sock.getpeername()
    return transport_for(reactor, tcp.Server, sock, protocol, peer, None, peer[1], reactor)
