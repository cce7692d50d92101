"""The PROXY protocol, with the names that aiosmtpd documents in ``aiosmtpd.proxy_protocol``.

The server reads the headers by itself; a program needs these names to judge one in ``handle_PROXY``.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias

from twisted_smtpd.wire.proxy_protocol import AF, PROTO, V2_CMD, V2_SIGNATURE, ProxyData, ProxyReader
from twisted_smtpd.wire.proxy_vectors import MalformedTLV, ProxyError, ProxyTLV, UnknownTypeTLV

__all__ = [
    "AF",
    "PROTO",
    "V2_CMD",
    "V2_SIGNATURE",
    "AsyncReader",
    "EndpointAddress",
    "MalformedTLV",
    "ProxyData",
    "ProxyError",
    "ProxyTLV",
    "UnknownTypeTLV",
    "get_proxy",
]

#: A header's address: of a client, or of the proxy.
EndpointAddress: TypeAlias = "IPv4Address | IPv6Address | str | bytes"


class AsyncReader(Protocol):
    """What :func:`get_proxy` reads from: an :class:`asyncio.StreamReader`, for example."""

    async def read(self, n: int = ..., /) -> bytes:
        """Read some octets, ``b""`` at the end."""


async def get_proxy(reader: AsyncReader) -> ProxyData:
    """Read a header, and nothing behind it.

    :param reader: where it arrives.
    :returns: its data; if it is none, or ends too early, an object that is false and whose ``error`` says why.
    """
    parser = ProxyReader()
    while octet := await reader.read(1):
        try:
            result = parser.feed(octet)
        except ProxyError as error:
            return ProxyData(version=None).with_error(str(error))
        if result is not None:
            return result[0]
    return ProxyData(version=None).with_error("the PROXY header is not complete")
