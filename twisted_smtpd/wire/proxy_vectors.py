"""The type-length-value vectors behind the addresses of a PROXY header (version 2), TLS's among them.

The specification is HAProxy's ``proxy-protocol.txt``, and "section" here means one of its sections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

__all__ = [
    "ABSENT",
    "MalformedTLV",
    "ProxyError",
    "ProxySSL",
    "ProxyTLV",
    "UnknownTypeTLV",
    "compare",
    "crc32c",
    "read_vectors",
]

# Section 2.2.5.
MAX_UNIQUE_ID = 128

ABSENT = object()

_CLIENT_SSL = 0x01
_CLIENT_CERTIFICATE = 0x02 | 0x04
_SSL = 0x20
_SSL_FIXED_SIZE = 5


class ProxyError(ValueError):
    """The octets received are not a PROXY header: abort the connection, without a reply."""


class MalformedTLV(ProxyError, RuntimeError):
    """The octets are not whole type-length-value vectors."""


class UnknownTypeTLV(KeyError):
    """A vector's type has no name."""


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


def read_vectors(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
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


def compare(found: Callable[[str], Any], expected: Mapping[str, Any], raises: bool) -> bool:
    """Whether all these names have these values.

    :param found: gives a name's value, or :data:`ABSENT`.
    :param raises: whether to raise an error instead of returning false.
    :raises KeyError: for a name that does not exist.
    :raises ValueError: for another value.
    """
    for name, value in expected.items():
        actual = found(name)
        if actual is ABSENT:
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
        vectors = tuple((kind, value) for _, kind, value in read_vectors(raw[_SSL_FIXED_SIZE:]))
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
                for start, inner, _ in read_vectors(value[_SSL_FIXED_SIZE:]):
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
        return compare(lambda name: self.get(name, ABSENT), expected, _raises)

    @classmethod
    def read(cls, raw: bytes) -> ProxyTLV | None:
        """Read a sequence of vectors.

        :returns: ``None`` if there are no octets.
        :raises ProxyError: if it is not whole vectors to the last octet, or one of them is wrong.
        """
        return cls((kind, value) for _, kind, value in read_vectors(raw)) if raw else None

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
            for _, kind, value in read_vectors(bytes(data)):
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
