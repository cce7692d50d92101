"""This machine's full name."""

from __future__ import annotations

import socket
from functools import cache

__all__ = ["own_name"]


@cache
def own_name() -> str:
    """This machine's full name; it is asked for once, since without an answer from the DNS it takes many seconds."""
    return socket.getfqdn()
