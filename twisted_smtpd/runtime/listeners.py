"""A place where a server listens."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from zope.interface import implementer

__all__ = ["Listener", "UmaskEndpoint", "others_can_connect"]

# A colon behind a backslash belongs to the path.
_MODE = re.compile(r"(?<!\\):mode=")


@dataclass(frozen=True)
class Listener:
    """A place to listen.

    :ivar name: the place as a person would write it.
    :ivar endpoint: the same as an endpoint.
    :ivar optional: whether a machine that lacks this address family may go without.
    :ivar tls: makes the TLS connections where TLS comes first; ``None`` where connections begin in clear, and where the
        endpoint itself makes them.
    """

    name: str
    endpoint: IStreamServerEndpoint
    optional: bool = False
    tls: IOpenSSLServerConnectionCreator | None = None

    @property
    def secure(self) -> bool:
        """Whether TLS comes first."""
        return self.tls is not None or self.name.startswith(("ssl:", "tls:"))


@implementer(IStreamServerEndpoint)
class UmaskEndpoint:
    """A Unix socket whose rights follow the umask, as those of other files do; Twisted lets every user connect.

    :param reactor: what listens.
    :param description: an endpoint description ``unix:...`` without a ``mode``.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        self._reactor = reactor
        self._description = description

    @classmethod
    def for_description(cls, reactor: Any, description: str) -> UmaskEndpoint | None:
        """The endpoint for a description, unless it has a mode or is of another kind.

        :raises Exception: if the description is wrong; each kind of endpoint has errors of its own.
        """
        if not description.startswith("unix:") or _MODE.search(description):
            return None
        serverFromString(reactor, description)
        try:
            serverFromString(reactor, f"{description}:mode=600")
        except TypeError:
            # It has a mode without the word.
            return None
        return cls(reactor, description)

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        """Listen, with the umask of this moment: twistd sets one after the command line is read."""
        umask = os.umask(0o077)
        os.umask(umask)
        endpoint = serverFromString(self._reactor, f"{self._description}:mode={0o777 & ~umask:o}")
        listening: Deferred[IListeningPort] = endpoint.listen(protocolFactory)
        return listening


def others_can_connect(address: object) -> bool:
    """Whether a port is a Unix socket that every user of this machine can connect to.

    :param address: what the port says of itself.
    """
    if not isinstance(address, UNIXAddress):
        return False
    path = os.fsdecode(address.name or b"")
    if not path or path.startswith("\0"):
        # Linux's abstract namespace knows no rights.
        return True
    try:
        if not os.stat(path).st_mode & stat.S_IWOTH:
            return False
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in Path(path).absolute().parents)
    except OSError:
        # It is gone, or somewhere that we can't see.
        return True
