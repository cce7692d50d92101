"""What goes wrong with a broker."""

from __future__ import annotations

__all__ = ["BrokerError"]


class BrokerError(ConnectionError):
    """The broker did not take a message, or can't be reached.

    It is an :exc:`OSError`, as for a queue on a disk that can't be written: the client hears 451.
    """
