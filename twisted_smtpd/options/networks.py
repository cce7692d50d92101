"""Sets of addresses whose word is taken: ``["10.0.0.0/8", "2001:db8::/32", "unix"]``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

__all__ = ["Network", "Networks"]

#: What a network may be given as.
Network = str | ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix"


class Networks:
    """A set of addresses.

    :param networks: networks or single addresses; ``"unix"`` is the peers of Unix sockets.
    :raises TypeError: if it is a single string, or something in it is neither a string nor a network.
    :raises ValueError: if something in it is no network (an address with bits set behind the prefix is none).
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        if isinstance(networks, (str, bytes)):
            raise TypeError(f"a list of networks, not {networks!r}")
        self._unix = False
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for network in networks:
            if network == UNIX:
                self._unix = True
            elif isinstance(network, (str, ipaddress.IPv4Network, ipaddress.IPv6Network)):
                self._networks.append(ipaddress.ip_network(network))
            else:
                raise TypeError(f"a network is a string such as '10.0.0.0/8', not {network!r}")

    def __contains__(self, host: str) -> bool:
        """Whether an address is in the set; ``""`` is a Unix socket's peer.

        An IPv4 address written as IPv6 (``::ffff:192.0.2.1``, from a socket for both) is IPv4 here.
        """
        if not host:
            return self._unix
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)

    def __repr__(self) -> str:
        names = [*map(str, self._networks), *([UNIX] if self._unix else [])]
        return f"Networks({names!r})"


class Everyone(Networks):
    """All addresses."""

    def __init__(self) -> None:
        super().__init__(())

    def __contains__(self, host: str) -> bool:
        return True
