"""PROXY headers for the tests: made, and read in pieces of any size."""

from __future__ import annotations

from ipaddress import IPv6Address
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.wire.proxy_protocol import ProxyData, ProxyReader
from twisted_smtpd.wire.proxy_vectors import ProxyError, crc32c

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
INET = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + (40000).to_bytes(2, "big") + (25).to_bytes(2, "big")
INET6 = IPv6Address("2001:db8::1").packed + IPv6Address("2001:db8::2").packed + bytes.fromhex("9c400019")
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 25\r\n"


def v2(block: bytes = INET, family: int = 0x11, command: int = 0x21, length: int | None = None) -> bytes:
    """A version 2 header; the length can be a lie."""
    size = len(block) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def with_checksum(before: bytes, after: bytes, address: bytes = INET, family: int = 0x11) -> bytes:
    """A version 2 header with a right CRC32c between two runs of vectors."""
    empty = v2(address + before + tlv(3, bytes(4)) + after, family)
    checksum = crc32c(empty).to_bytes(4, "big")
    return v2(address + before + tlv(3, checksum) + after, family)


def reader(max_length: int | None) -> ProxyReader:
    return ProxyReader() if max_length is None else ProxyReader(max_length)


def read(raw: bytes, max_length: int | None = None) -> ProxyData:
    result = reader(max_length).feed(raw)
    assert result is not None, "the header is incomplete"
    data, rest = result
    assert rest == b"", rest
    return data


def in_pieces(raw: bytes, cuts: list[int]) -> object:
    """What a reader makes of octets that come in pieces: the result and all that is behind it, or the failure."""
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    whole = ProxyReader()
    for start, end in pairwise(edges):
        try:
            result = whole.feed(raw[start:end])
        except ProxyError:
            return "refused"
        if result is not None:
            return result[0], result[1] + raw[end:]
    return None


class Base(SynchronousTestCase):
    def refused_at(self, raw: bytes, octets: int, max_length: int | None = None) -> None:
        """The first octets are still taken; with the last of them the header is refused, in one piece too."""
        by_octet = reader(max_length)
        for i in range(octets - 1):
            self.assertIsNone(by_octet.feed(raw[i : i + 1]), raw[: i + 1])
        self.assertRaises(ProxyError, by_octet.feed, raw[octets - 1 : octets])
        self.assertRaises(ProxyError, reader(max_length).feed, raw)

    def refused(self, raw: bytes) -> str:
        return str(self.assertRaises(ProxyError, ProxyReader().feed, raw))
