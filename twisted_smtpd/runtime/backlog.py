"""How many clients may wait until their connections are accepted."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor

__all__ = ["BACKLOG", "widen"]

#: How many clients may wait until their connections are accepted; the system has a maximum of its own
#: (``net.core.somaxconn`` on Linux).  Twisted's 50 is too few: the kernel drops the others' SYNs, and they try again
#: after 1, 3, 7 ... seconds.
BACKLOG = 1024


def widen(port: Any) -> None:
    """Let :data:`BACKLOG` clients wait on a listening port, whatever has bound it.

    Endpoints ask the reactor for 50, and a socket that was handed over has what its maker asked for.  A system lets
    ``listen`` be called again to change this.

    :param port: the port; one without a socket of its own is left alone.
    """
    listening = getattr(port, "socket", None)
    if isinstance(port, FileDescriptor) and listening is not None:
        listening.listen(BACKLOG)
