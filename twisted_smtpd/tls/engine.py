"""What does the work of a TLS connection: pyOpenSSL or the standard library, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

from OpenSSL import SSL

__all__ = ["Engine", "OwnCreator", "shake_hands"]


class Engine(Protocol):
    """A server's TLS connection between buffers in memory.

    :ivar over: why nothing more comes from the client: ``SSL.ZeroReturnError`` after its close_notify, another
        ``SSL.Error`` for what breaks TLS; ``None`` while something may come.
    :ivar has_output: after :meth:`decrypt`, whether :meth:`due` may have something.
    """

    over: SSL.Error | None
    has_output: bool

    def handshake(self, data: bytes) -> bool:
        """Take in octets from the network, and go on with the handshake.

        :returns: whether it is done.  What stands behind it is left for :meth:`decrypt`.
        :raises OpenSSL.SSL.Error: if it has failed.
        """

    def decrypt(self, data: bytes) -> bytes:
        """Take in octets from the network.

        :returns: everything that can be decrypted, perhaps nothing.
        """

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt octets.

        :returns: everything that is to be sent.
        :raises OpenSSL.SSL.Error: if that is not possible.
        """

    def due(self, least: int = 1) -> bytes:
        """What is to be sent without a call of :meth:`encrypt`: a step of the handshake, an alert, a new key.

        :param least: octets from which on it is returned; fewer are left for the next :meth:`encrypt`, if the engine
            can tell.
        """

    def get_protocol_version_name(self) -> str:
        """``TLSv1.3`` or older."""

    def shutdown(self) -> bool:
        """Have close_notify sent.

        :returns: whether the client's close_notify has arrived as well.
        :raises OpenSSL.SSL.Error: during the handshake.
        """


class PyOpenSSLHandshake(Protocol):
    """The handshake as pyOpenSSL has it."""

    def bio_write(self, buf: bytes) -> int:
        """Take in octets from the network."""

    def do_handshake(self) -> None:
        """Go on with the handshake."""


def shake_hands(connection: PyOpenSSLHandshake, data: bytes) -> bool:
    """What :meth:`Engine.handshake` does, for a connection with pyOpenSSL's methods."""
    connection.bio_write(data)
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    return True


class OwnCreator(ABC):
    """A connection creator of this package: it is known what its connections need of the layer around them."""

    @abstractmethod
    def engine(self) -> Engine:
        """A new connection.

        :raises Exception: whatever the user's context raises.
        """

    def choose_engine(self, exporter: bool) -> None:  # noqa: B027 - most creators have only one
        """Take the cheapest engine that can do what a server needs.

        :param exporter: whether that includes keys for channel binding, ``tls-exporter`` (RFC 9266).
        """

    def is_unchanged(self) -> bool:
        """Whether :meth:`engine` gives what :meth:`serverConnectionForTLS` would: no subclass has its own."""
        function = getattr(self.serverConnectionForTLS, "__func__", None)
        return function is OwnCreator.serverConnectionForTLS

    def serverConnectionForTLS(self, tlsProtocol: object) -> Any:
        """The same for Twisted's TLS layer, which calls this for each new connection."""
        return self.engine()
