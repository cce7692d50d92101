"""The PROXY protocol, versions 1 and 2: a load balancer's header that says for which client it connects.

The specification is HAProxy's ``proxy-protocol.txt``, and "section" here means one of its sections.  This module does
not decide whether a header can be trusted: read headers only from peers that are known to be proxies, and require one
there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted_smtpd.wire.proxy_vectors import ABSENT, ProxyError, ProxyTLV, compare, crc32c, read_vectors

__all__ = [
    "AF",
    "PROTO",
    "V2_CMD",
    "ProxyData",
    "ProxyReader",
]

V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2_FIXED_SIZE = 16
# Section 2.1: a header has its CRLF within the first 107 octets.
V1_MAX_SIZE = 107
# Section 2.2 expects a header to fit a segment of 536 octets; one with a client certificate (in the SSL vector) is
# longer.
DEFAULT_MAX_LENGTH = 4096

_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
# There is no percent sign: ipaddress would accept a zone, which names an interface of another host.
_ADDRESS_CHARACTERS = {b"TCP4": b"0123456789.", b"TCP6": b"0123456789abcdefABCDEF:."}


class V2_CMD(IntEnum):
    """The command of a version 2 header (section 2.2)."""

    LOCAL = 0
    PROXY = 1


class AF(IntEnum):
    """The address family; ``UNSPEC`` is version 1's ``UNKNOWN``, too."""

    UNSPEC = 0
    INET = 1
    INET6 = 2
    UNIX = 3


class PROTO(IntEnum):
    """The transport protocol; ``UNSPEC`` is version 1's ``UNKNOWN``, too."""

    UNSPEC = 0
    STREAM = 1
    DGRAM = 2


_ADDRESS_SIZE = {AF.INET: 12, AF.INET6: 36, AF.UNIX: 216}
_FAMILY_V1 = {b"TCP4": AF.INET, b"TCP6": AF.INET6, b"UNKNOWN": AF.UNSPEC}


@dataclass(frozen=True, kw_only=True)
class ProxyData:
    """What a PROXY header says.  It is true if the header is valid.

    :ivar version: 1 or 2.
    :ivar command: the command; ``None`` in version 1.
    :ivar family: the address family.
    :ivar protocol: the transport protocol.
    :ivar src_addr: the client's address, or the 108 octets of a Unix socket's path.  It is ``None`` for ``UNKNOWN``,
        ``LOCAL`` and ``UNSPEC``: the connection is the proxy's own.
    :ivar dst_addr: the address that the client connected to, in the same form.
    :ivar src_port: the client's port; ``None`` for an address without ports.
    :ivar dst_port: the port that the client connected to, in the same form.
    :ivar rest: the vectors as received; or the octets behind ``UNKNOWN``, ``LOCAL`` or ``UNSPEC``, to be ignored.
    :ivar tlv: the vectors; ``None`` for a header without vectors.
    :ivar tlv_start: the offset of the first vector in :attr:`whole_raw`; ``None`` for a header without vectors.
    :ivar whole_raw: the header as received.
    :ivar error: why the header is not valid; ``""`` if it is.
    """

    version: int | None
    command: V2_CMD | None = None
    family: AF | None = None
    protocol: PROTO | None = None
    src_addr: IPv4Address | IPv6Address | bytes | None = None
    dst_addr: IPv4Address | IPv6Address | bytes | None = None
    src_port: int | None = None
    dst_port: int | None = None
    rest: bytes = field(default=b"", repr=False)
    tlv: ProxyTLV | None = None
    tlv_start: int | None = None
    whole_raw: bytes = field(default=b"", repr=False)
    error: str = ""

    @property
    def valid(self) -> bool:
        """Whether a proxy has sent this, and it is not the record of an error."""
        return not self.error and self.version is not None and self.protocol is not None

    def __bool__(self) -> bool:
        return self.valid

    def with_error(self, error_msg: str, log_prefix: bool = True) -> ProxyData:
        """Set :attr:`error`, so that the header is not valid.

        :param log_prefix: accepted for programs that pass it.
        :returns: this object.
        """
        object.__setattr__(self, "error", error_msg)
        return self

    def same_attribs(self, _raises: bool = False, **expected: Any) -> bool:
        """Whether these attributes exist, with these values; see :meth:`ProxyTLV.same_attribs`."""
        return compare(lambda name: getattr(self, name, ABSENT), expected, _raises)

    @property
    def peer(self) -> tuple[str, int] | tuple[str, int, int, int] | str | None:
        """The client in the form of ``session.peer``; ``None`` if the header does not name it.

        An IPv4 address written as IPv6 becomes IPv4, so that it is one client to limits and lists of networks.
        """
        address, port = self.src_addr, self.src_port or 0
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is None:
                return str(address), port, 0, 0
            address = address.ipv4_mapped
        if isinstance(address, IPv4Address):
            return str(address), port
        return None if address is None else ""

    @property
    def tls(self) -> bool:
        """Whether the proxy says that the client uses TLS."""
        return self.tlv is not None and self.tlv.ssl is not None and self.tlv.ssl.used


class ProxyReader:
    """Reads the header at the start of one connection from the pieces in which it arrives.

    A header for datagrams is refused, since SMTP has none.  What follows ``LOCAL``, ``UNKNOWN`` and ``UNSPEC`` is not
    looked at, vectors included: the reader could not know where they begin.

    :param max_length: the greatest length a version 2 header may announce, in octets, its first 16 not counted; 0 to
        65535.  A version 1 header never has more than 107.
    :raises ValueError: if it is out of range.
    """

    def __init__(self, max_length: int = DEFAULT_MAX_LENGTH) -> None:
        if not 0 <= max_length <= 0xFFFF:
            raise ValueError(f"a PROXY header's length is between 0 and 65535, not {max_length}")
        self._max_length = max_length
        self._buffer = bytearray()
        self._finished = False

    def feed(self, data: bytes) -> tuple[ProxyData, bytes] | None:
        """Read on.

        :param data: the octets that arrived.
        :returns: ``None`` while the header is incomplete; then its data, and the octets behind it.
        :raises ProxyError: as soon as the octets can't become a header (addresses are checked when they are whole, and
            vectors when all of them have arrived), and in each call after a result or an error.
        """
        if self._finished:
            raise ProxyError("the PROXY header has been read, or refused, before")
        self._buffer += data
        # Set now, since an error ends the reading as well.
        self._finished = True
        if self._buffer[:1] == V2_SIGNATURE[:1]:
            result = self._read_v2()
        else:
            result = _read_v1(bytes(self._buffer[:V1_MAX_SIZE]))
        if result is None:
            self._finished = False
            return None
        rest = bytes(self._buffer[len(result.whole_raw) :])
        self._buffer.clear()
        return result, rest

    def _read_v2(self) -> ProxyData | None:
        head = bytes(self._buffer[:V2_FIXED_SIZE])
        length = _check_v2(head, self._max_length)
        size = V2_FIXED_SIZE + length
        if len(head) < V2_FIXED_SIZE or len(self._buffer) < size:
            return None
        return _parse_v2(bytes(self._buffer[:size]))


def _read_v1(head: bytes) -> ProxyData | None:
    """Read a version 1 header from the first octets of a connection, 107 at most; ``None`` if it is incomplete."""
    line, found, _ = head.partition(b"\r\n")
    if not found:
        line = head.removesuffix(b"\r")
    ended = len(line) < len(head)
    fields = line.split(b" ")
    _check_word(fields[0], (b"PROXY",), ended or len(fields) > 1)
    if b"\r" in line or b"\n" in line:
        raise ProxyError("a CR or LF that is not CRLF in a PROXY header")
    if len(line) > V1_MAX_SIZE - len("\r\n"):
        raise ProxyError(f"a PROXY header of version 1 with more than {V1_MAX_SIZE} octets")
    if len(fields) > 1:
        _check_word(fields[1], _FAMILY_V1, ended or len(fields) > 2)
    unknown = fields[1:2] == [b"UNKNOWN"]
    values = [None] * 4 if unknown else _read_fields(fields, ended)
    if not found:
        return None
    return ProxyData(
        version=1,
        family=_FAMILY_V1[fields[1]],
        protocol=PROTO.UNSPEC if unknown else PROTO.STREAM,
        src_addr=values[0],
        dst_addr=values[1],
        src_port=values[2],
        dst_port=values[3],
        rest=line[len(b"PROXY UNKNOWN") :] if unknown else b"",
        whole_raw=line + found,
    )


def _read_fields(fields: list[bytes], ended: bool) -> list[Any]:
    """The addresses and ports that have arrived, four at most; the last may be incomplete if the line has not ended."""
    values: list[Any] = []
    for index, text in enumerate(fields[2:]):
        complete = ended or index < len(fields) - 3
        values.append(_check_address(text, fields[1], complete) if index < 2 else _check_port(text, complete))
    if len(values) > 4 or (ended and len(values) < 4):
        raise ProxyError(f"a PROXY header of version 1 with {len(fields)} fields, not 6")
    return values


def _check_word(text: bytes, words: Iterable[bytes], complete: bool) -> None:
    if not any(text == word if complete else word.startswith(text) for word in words):
        raise ProxyError(f"not a PROXY header: {text[:16]!r}")


def _check_address(text: bytes, family: bytes, complete: bool) -> IPv4Address | IPv6Address | None:
    """An address in the form of version 1; only the characters of an incomplete one are checked."""
    wrong = text.translate(None, _ADDRESS_CHARACTERS[family])
    if not wrong and not complete:
        return None
    try:
        if not wrong:
            # Both classes refuse what section 2.1 forbids: leading zeros, and addresses of the other family.
            return (IPv4Address if family == b"TCP4" else IPv6Address)(text.decode("ascii"))
    except ValueError:
        pass
    raise ProxyError(f"not an address of {family.decode()} in a PROXY header: {text!r}")


def _check_port(text: bytes, complete: bool) -> int | None:
    """A port in the form of version 1; ``None`` if it is incomplete and has no digit yet."""
    if not text and not complete:
        return None
    if not _PORT.fullmatch(text) or int(text) > 0xFFFF:
        raise ProxyError(f"not a port in a PROXY header: {text!r}")
    return int(text)


def _check_v2(head: bytes, max_length: int) -> int:
    """Check the first octets (16 at most) of a version 2 header; returns how many octets follow the first 16."""
    if not V2_SIGNATURE.startswith(head[: len(V2_SIGNATURE)]):
        raise ProxyError("not the signature of a PROXY header of version 2")
    local = head[12:13] == b"\x20"
    if head[12:] and head[12] not in (0x20, 0x21):
        raise ProxyError(f"neither PROXY nor LOCAL in version 2: 0x{head[12]:02x}")
    # Section 2.2: the family of a LOCAL header is ignored, as is everything behind it.
    if head[13:] and not local:
        family, protocol = divmod(head[13], 16)
        if family > AF.UNIX or protocol > PROTO.STREAM:
            raise ProxyError(f"neither a stream nor unspecified: family and protocol 0x{head[13]:02x}")
    length = int.from_bytes(head[14:].ljust(2, b"\0"), "big")
    if length > max_length:
        raise ProxyError(f"a PROXY header announces {length} octets or more, over the limit of {max_length}")
    if head[15:] and not local and length < _address_size(head[13]):
        raise ProxyError(f"a PROXY header announces {length} octets, too few for its addresses")
    return length


def _address_size(family_protocol: int) -> int:
    """How many octets the addresses have; 0 if the family or the protocol is unspecified."""
    family, protocol = divmod(family_protocol, 16)
    return _ADDRESS_SIZE.get(AF(family), 0) if protocol else 0


def _parse_v2(raw: bytes) -> ProxyData:
    """Read a whole version 2 header, whose first 16 octets have been checked."""
    command = V2_CMD(raw[12] & 0x0F)
    block = raw[V2_FIXED_SIZE:]
    size = _address_size(raw[13]) if command else 0
    if not size:
        return ProxyData(version=2, command=command, family=AF.UNSPEC, protocol=PROTO.UNSPEC, rest=block, whole_raw=raw)
    family = AF(raw[13] >> 4)
    src_addr, dst_addr, src_port, dst_port = _addresses(family, block[:size])
    start = V2_FIXED_SIZE + size
    tlv = ProxyTLV.read(raw[start:])
    _check_crc32c(raw, start)
    return ProxyData(
        version=2,
        command=command,
        family=family,
        protocol=PROTO.STREAM,
        src_addr=src_addr,
        dst_addr=dst_addr,
        src_port=src_port,
        dst_port=dst_port,
        rest=raw[start:],
        tlv=tlv,
        tlv_start=None if tlv is None else start,
        whole_raw=raw,
    )


def _addresses(family: AF, block: bytes) -> tuple[Any, Any, int | None, int | None]:
    if family is AF.UNIX:
        return block[:108], block[108:], None, None
    kind, size = (IPv4Address, 4) if family is AF.INET else (IPv6Address, 16)
    ports = int.from_bytes(block[2 * size :], "big")
    return kind(block[:size]), kind(block[size : 2 * size]), ports >> 16, ports & 0xFFFF


def _check_crc32c(raw: bytes, tlv_start: int) -> None:
    """Verify the checksum, if there is one (section 2.2.3): it is computed with zeros in place of the checksum."""
    for offset, kind, value in read_vectors(raw[tlv_start:]):
        if kind == 0x03:
            start = tlv_start + offset
            if crc32c(raw[:start] + bytes(4) + raw[start + 4 :]) != int.from_bytes(value, "big"):
                raise ProxyError("the CRC32c of a PROXY header is wrong")
