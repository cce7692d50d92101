"""A place where a server listens."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IStreamServerEndpoint

__all__ = ["Listener"]


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
