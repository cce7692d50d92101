"""Sets of trusted addresses: ``["10.0.0.0/8", "2001:db8::/32", "unix"]``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

__all__ = ["Network", "Networks"]

#: The types of a network.
Network = str | ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix"


class Networks:
    """A set of addresses.

    :param networks: networks or single addresses; ``"unix"`` stands for the peers of Unix sockets.
    :raises TypeError: ``networks`` is a single string, or one of them is neither a string nor a network.
    :raises ValueError: one of them is not a network; a network has no bits set behind its prefix.
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

        A socket for both families gives an IPv4 address as ``::ffff:192.0.2.1``; it counts as ``192.0.2.1``.
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
