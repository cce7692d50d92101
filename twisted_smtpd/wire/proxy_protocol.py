"""The PROXY protocol, versions 1 and 2: a load balancer's header that says for which client it connects.

The specification is HAProxy's ``proxy-protocol.txt``, and "section" here means one of its sections.  This module does
not decide whether a header can be trusted: read headers only from peers that are known to be proxies, and require one
there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar

__all__ = [
    "AF",
    "PROTO",
    "V2_CMD",
    "MalformedTLV",
    "ProxyData",
    "ProxyError",
    "ProxyReader",
    "ProxySSL",
    "ProxyTLV",
    "UnknownTypeTLV",
]

V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2_FIXED_SIZE = 16
# Section 2.1: a header has its CRLF within the first 107 octets.
V1_MAX_SIZE = 107
# Section 2.2 expects a header to fit a segment of 536 octets; one with a client certificate (in the SSL vector) is
# longer.
DEFAULT_MAX_LENGTH = 4096
# Section 2.2.5.
MAX_UNIQUE_ID = 128

_ABSENT = object()

_CLIENT_SSL = 0x01
_CLIENT_CERTIFICATE = 0x02 | 0x04
_SSL = 0x20
_SSL_FIXED_SIZE = 5

_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
# There is no percent sign: ipaddress would accept a zone, which names an interface of another host.
_ADDRESS_CHARACTERS = {b"TCP4": b"0123456789.", b"TCP6": b"0123456789abcdefABCDEF:."}


class ProxyError(ValueError):
    """The octets received are not a PROXY header: abort the connection, without a reply."""


class MalformedTLV(ProxyError, RuntimeError):
    """The octets are not whole type-length-value vectors."""


class UnknownTypeTLV(KeyError):
    """A vector's type has no name."""


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


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """The CRC32c of some octets (RFC 9260 appendix A)."""
    table, crc = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _vectors(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Each vector of a sequence: the offset of its value, its type, its value."""
    end = 0
    while end < len(raw):
        start = end + 3
        end = start + int.from_bytes(raw[start - 2 : start], "big")
        # The first condition is for one or two octets at the end, which are too few for a type and a length.
        if start > len(raw) or end > len(raw):
            raise MalformedTLV(f"the TLV at octet {start - 3} runs over the end of the header")
        yield start, raw[start - 3], raw[start:end]


def _by_name(vectors: Iterable[tuple[int, bytes]], names: dict[int, str]) -> dict[str, bytes]:
    """Values by the names of their types.

    :raises ProxyError: if a registered type comes twice: two programs could each read another value, and so see
        different clients.
    """
    named: dict[str, bytes] = {}
    for kind, value in vectors:
        name = names.get(kind)
        if name is not None and name in named:
            raise ProxyError(f"the TLV {name} is there more than once")
        named[name or f"x{kind:02X}"] = value
    return named


def _same(found: Callable[[str], Any], expected: Mapping[str, Any], raises: bool) -> bool:
    """Whether all these names have these values.

    :param found: gives a name's value, or :data:`_ABSENT`.
    :param raises: whether to raise an error instead of returning false.
    :raises KeyError: for a name that does not exist.
    :raises ValueError: for another value.
    """
    for name, value in expected.items():
        actual = found(name)
        if actual is _ABSENT:
            if raises:
                raise KeyError(f"notfound:{name}")
            return False
        if actual != value:
            if raises:
                raise ValueError(f"mismatch:{name} actual={actual!r} expect={value!r}")
            return False
    return True


@dataclass(frozen=True)
class ProxySSL:
    """What the proxy says about TLS between the client and itself (section 2.2.6).

    The values are the octets received.  They need not be UTF-8: the owner of a certificate chooses its common name.

    :ivar client: the flags; 1: TLS was used, 2: the client has shown a certificate on this connection, 4: in this TLS
        session.
    :ivar verify: 0 if the certificate was found good; see :attr:`verified`.
    :ivar version: the version of TLS, such as ``b"TLSv1.3"``; this and the next ones are ``None`` if they were not
        sent.
    :ivar cn: the common name of the client's certificate.
    :ivar cipher: the name of the cipher.
    :ivar sig_alg: the algorithm that signed the proxy's certificate.
    :ivar key_alg: the algorithm of the key in the proxy's certificate.
    :ivar group: the group of the key exchange.
    :ivar sig_scheme: the algorithm that signed the handshake.
    :ivar client_cert: the client's certificate, DER.
    :ivar vectors: every vector inside this one: type and value, in order.
    """

    client: int
    verify: int
    version: bytes | None = None
    cn: bytes | None = None
    cipher: bytes | None = None
    sig_alg: bytes | None = None
    key_alg: bytes | None = None
    group: bytes | None = None
    sig_scheme: bytes | None = None
    client_cert: bytes | None = field(default=None, repr=False)
    vectors: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)

    NAMES: ClassVar[dict[int, str]] = {
        0x21: "SSL_VERSION",
        0x22: "SSL_CN",
        0x23: "SSL_CIPHER",
        0x24: "SSL_SIG_ALG",
        0x25: "SSL_KEY_ALG",
        0x26: "SSL_GROUP",
        0x27: "SSL_SIG_SCHEME",
        0x28: "SSL_CLIENT_CERT",
    }

    @property
    def used(self) -> bool:
        """Whether the client uses TLS.  HAProxy sends this vector for clients without TLS as well."""
        return bool(self.client & _CLIENT_SSL)

    @property
    def verified(self) -> bool:
        """Whether the client has shown a certificate and it was good.  (Without one OpenSSL's result is 0 as well.)"""
        return self.used and bool(self.client & _CLIENT_CERTIFICATE) and self.verify == 0

    @classmethod
    def from_raw(cls, raw: bytes) -> ProxySSL:
        """Read the value of the SSL vector.

        :raises ProxyError: if it is too short, or the vectors in it don't fit.
        """
        if len(raw) < _SSL_FIXED_SIZE:
            raise ProxyError(f"the TLV SSL has {len(raw)} octets, fewer than {_SSL_FIXED_SIZE}")
        vectors = tuple((kind, value) for _, kind, value in _vectors(raw[_SSL_FIXED_SIZE:]))
        named = _by_name(vectors, cls.NAMES)
        known = {name[4:].lower(): named[name] for name in cls.NAMES.values() if name in named}
        return cls(raw[0], int.from_bytes(raw[1:_SSL_FIXED_SIZE], "big"), vectors=vectors, **known)


class ProxyTLV(dict[str, Any]):
    """The type-length-value vectors of a version 2 header (section 2.2), by name.

    The names are ``ALPN``, ``AUTHORITY``, ``CRC32C``, ``UNIQUE_ID``, ``NETNS`` and ``SSL``; any other type is named by
    its number in hexadecimal, as ``xEA``, and the last of several such vectors counts.  A value is the octets received,
    but ``SSL`` is ``True``, and with it come the numbers ``SSL_CLIENT`` and ``SSL_VERIFY`` and the vectors inside it.
    ``NOOP`` is left out.  Each name is an attribute as well: ``None`` for a vector that was not sent.

    :ivar ssl: what is in the SSL vector, or ``None``.
    :ivar vectors: every vector: type and value, in order.
    """

    PP2_TYPENAME: ClassVar[dict[int, str]] = {
        0x01: "ALPN",
        0x02: "AUTHORITY",
        0x03: "CRC32C",
        0x04: "NOOP",
        0x05: "UNIQUE_ID",
        0x20: "SSL",
        **ProxySSL.NAMES,
        0x30: "NETNS",
    }
    # Types that have a meaning inside SSL only: outside they must not get the same names.
    _OUTER: ClassVar[dict[int, str]] = {t: n for t, n in PP2_TYPENAME.items() if not n.startswith("SSL_")}
    _ATTRIBUTES: ClassVar[frozenset[str]] = frozenset({*PP2_TYPENAME.values(), "SSL_CLIENT", "SSL_VERIFY"})

    def __init__(self, vectors: Iterable[tuple[int, bytes]] = ()) -> None:
        """
        :param vectors: type and value of each.
        :raises ProxyError: if a registered type comes twice, or a value is not what its type says.
        """
        self.vectors = tuple(vectors)
        named = _by_name((v for v in self.vectors if self._OUTER.get(v[0]) != "NOOP"), self._OUTER)
        super().__init__(named)
        if "CRC32C" in named and len(named["CRC32C"]) != 4:
            raise ProxyError("the TLV CRC32C does not have 4 octets")
        if len(named.get("UNIQUE_ID", b"")) > MAX_UNIQUE_ID:
            raise ProxyError(f"the TLV UNIQUE_ID has more than {MAX_UNIQUE_ID} octets")
        self.ssl: ProxySSL | None = None
        if "SSL" in named:
            self.ssl = ssl = ProxySSL.from_raw(named["SSL"])
            self.update(SSL=True, SSL_CLIENT=ssl.client, SSL_VERIFY=ssl.verify)
            self.update((ssl.NAMES[kind], value) for kind, value in ssl.vectors if kind in ssl.NAMES)

    def __getattr__(self, name: str) -> Any:
        if name in self._ATTRIBUTES or re.fullmatch("x[0-9A-F]{2}", name):
            return self.get(name)
        raise AttributeError(f"no TLV has the name {name!r}")

    def of_type(self, kind: int) -> tuple[bytes, ...]:
        """The values of all vectors of a type, in order.

        :param kind: 0 to 255; 0xE0 to 0xEF are the sender's own (section 2.2.8).
        """
        return tuple(value for other, value in self.vectors if other == kind)

    @property
    def tlv_loc(self) -> dict[str, int]:
        """The offset of each vector from the first one, by name; inside SSL as well."""
        found: dict[str, int] = {}
        offset = 0
        for kind, value in self.vectors:
            found[self._OUTER.get(kind, f"x{kind:02X}")] = offset
            if kind == _SSL:
                for start, inner, _ in _vectors(value[_SSL_FIXED_SIZE:]):
                    found[ProxySSL.NAMES.get(inner, f"x{inner:02X}")] = offset + _SSL_FIXED_SIZE + start
            offset += 3 + len(value)
        return found

    def same_attribs(self, _raises: bool = False, **expected: Any) -> bool:
        """Whether these vectors are there, with these values.

        :param _raises: whether to raise an error instead of returning false.
        :param expected: the values by name.
        :raises KeyError: for a vector that was not sent.
        :raises ValueError: for another value.
        """
        return _same(lambda name: self.get(name, _ABSENT), expected, _raises)

    @classmethod
    def read(cls, raw: bytes) -> ProxyTLV | None:
        """Read a sequence of vectors.

        :returns: ``None`` if there are no octets.
        :raises ProxyError: if it is not whole vectors to the last octet, or one of them is wrong.
        """
        return cls((kind, value) for _, kind, value in _vectors(raw)) if raw else None

    @classmethod
    def from_raw(cls, raw: bytes, strict: bool = False) -> ProxyTLV | None:
        """Read a sequence of vectors, for programs written for aiosmtpd.

        :param strict: whether each vector's type must have a name.
        :returns: ``None`` if there are no octets, or they can't be read.
        :raises UnknownTypeTLV: for a type without a name, if that is asked for.
        """
        try:
            tlv = cls.read(bytes(raw))
        except ProxyError:
            return None
        unnamed = sorted(set(tlv or ()) - cls._ATTRIBUTES)
        if strict and unnamed:
            raise UnknownTypeTLV(unnamed[0])
        return tlv

    @classmethod
    def parse(cls, data: bytes, partial_ok: bool = True, strict: bool = False) -> tuple[dict[str, Any], dict[str, int]]:
        """Read a sequence of vectors, for programs written for aiosmtpd.

        :param partial_ok: whether the vectors before one that can't be read are given, instead of an error.
        :param strict: see :meth:`from_raw`.
        :returns: the values and the offsets, by name.
        :raises ProxyError: if it can't be read; :exc:`MalformedTLV` where a vector runs over the end.
        :raises UnknownTypeTLV: see :meth:`from_raw`.
        """
        found = cls()
        vectors: list[tuple[int, bytes]] = []
        try:
            for _, kind, value in _vectors(bytes(data)):
                vectors.append((kind, value))
                found = cls(vectors)
        except ProxyError:
            if not partial_ok:
                raise
        unnamed = sorted(set(found) - cls._ATTRIBUTES)
        if strict and unnamed:
            raise UnknownTypeTLV(unnamed[0])
        return dict(found), found.tlv_loc

    @classmethod
    def name_to_num(cls, name: str) -> int | None:
        """The type that has a name; ``None`` if none has."""
        return next((kind for kind, known in cls.PP2_TYPENAME.items() if known == name), None)


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
        return _same(lambda name: getattr(self, name, _ABSENT), expected, _raises)

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
    for offset, kind, value in _vectors(raw[tlv_start:]):
        if kind == 0x03:
            start = tlv_start + offset
            if crc32c(raw[:start] + bytes(4) + raw[start + 4 :]) != int.from_bytes(value, "big"):
                raise ProxyError("the CRC32c of a PROXY header is wrong")
