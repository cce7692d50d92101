"""What ``--listen`` takes: ``HOST:PORT``, ``[IPv6]:PORT``, ``PORT``, ``HOST``, or an endpoint description."""

from __future__ import annotations

import re
from dataclasses import dataclass

from twisted.python import usage

from twisted_smtpd.runtime.endpoints import is_endpoint_type

__all__ = ["DEFAULT_PORT", "Place", "places_of"]

DEFAULT_PORT = 8025
LOOPBACK = ("127.0.0.1", "::1")

# HOST:PORT, [IPv6]:PORT, :PORT, PORT and HOST, where a host has no colon unless it is in brackets.
_WHERE = re.compile(r"(?:\[(?P<literal>[^\[\]\\]*)\]|(?P<host>[^:\[\]/=\\]*?))(?:(?:^|:)(?P<port>[0-9]+))?", re.ASCII)


@dataclass(frozen=True)
class Place:
    """A place to listen, as it was asked for.

    :ivar name: the place as a person would write it.
    :ivar description: the same as an endpoint description.
    :ivar optional: whether a machine that lacks this address family may go without.
    """

    name: str
    description: str
    optional: bool = False


def places_of(option: str, where: str) -> list[Place]:
    """The places that one value names: for a port alone, and for ``localhost``, both loopback addresses.

    :param option: the option that has this value, without dashes.
    :param where: the value.
    :raises usage.UsageError: the port is out of range.
    """
    match = _WHERE.fullmatch(where)
    kind, colon, _ = where.partition(":")
    if match is None or not where or (colon and is_endpoint_type(kind)):
        return [Place(where, where)]
    port = int(match["port"] or DEFAULT_PORT)
    if port > 65535:
        raise usage.UsageError(f"--{option}: {where!r}: a port is a number up to 65535")
    host = match["literal"] if match["literal"] is not None else match["host"]
    if host in ("", "localhost"):
        return [Place(*_tcp(address, port), optional=":" in address) for address in LOOPBACK]
    return [Place(*_tcp(host, port))]


def _tcp(host: str, port: int) -> tuple[str, str]:
    if ":" in host:
        escaped = host.replace(":", "\\:")
        return f"[{host}]:{port}", f"tcp6:{port}:interface={escaped}"
    return f"{host}:{port}", f"tcp:{port}:interface={host}"
