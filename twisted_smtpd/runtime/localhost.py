"""The addresses of the loopback interface."""

from __future__ import annotations

import errno
import socket
from typing import ClassVar

from twisted_smtpd.runtime.listening import NO_SUCH_FAMILY

__all__ = ["IP6_IS", "LOOPBACK", "get_localhost"]

LOOPBACK = ("127.0.0.1", "::1")


class IP6_IS:
    """What binding to ``::1`` may fail with, and what that says about IPv6 on this machine."""

    NO: ClassVar[set[int]] = set(NO_SUCH_FAMILY)
    YES: ClassVar[set[int]] = {errno.EADDRINUSE}


def get_localhost() -> str:
    """The address of the loopback interface: ``::1`` where there is IPv6, else ``127.0.0.1``.

    :raises OSError: if it can't be found out.
    """
    if not socket.has_ipv6:
        return "127.0.0.1"
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        if error.errno in IP6_IS.NO:
            return "127.0.0.1"
        if error.errno not in IP6_IS.YES:
            raise
    return "::1"
