"""What holds for all PROXY headers, and for whatever octets come in their place."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.proxy_headers import INET, INET6, SIGNATURE, V1, Base, in_pieces, read, tlv, v2, with_checksum
from twisted_smtpd.wire.proxy_protocol import ProxyReader
from twisted_smtpd.wire.proxy_vectors import ProxyError

PORTS = st.integers(0, 0xFFFF)
ADDRESSES = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(
    st.ip_addresses(v=6), st.ip_addresses(v=6)
)
OWN_VECTORS = st.lists(st.tuples(st.integers(0xE0, 0xEF), st.binary(max_size=40)), max_size=5)
CUTS = st.lists(st.integers(0, 400), max_size=6)
ALMOST = st.one_of(
    st.binary(max_size=150),
    st.builds(bytes.__add__, st.sampled_from([b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"]), st.binary()),
    st.from_regex(re.compile(rb"PROXY (TCP[46]|UNKNOWN) [0-9.:a-f]{0,20} [0-9.:]{0,9} [0-9]{0,6} [0-9]{0,6}\r\n")),
    st.builds(bytes.__add__, st.just(SIGNATURE), st.binary(max_size=300)),
    st.builds(v2, st.binary(max_size=300), st.integers(0, 255), st.sampled_from([0x20, 0x21, 0x22])),
    st.builds(lambda b, f: v2(b + f), st.just(INET), st.binary(max_size=40)),
    st.builds(lambda b: v2(INET + tlv(0x20, b)), st.binary(max_size=40)),
    st.builds(lambda b: with_checksum(tlv(0xE0, b), b""), st.binary(max_size=40)),
)


class PropertyTests(Base):
    @settings(deadline=None)
    @given(ADDRESSES, PORTS, PORTS, st.binary(max_size=30))
    def test_version_1_round_trip(
        self, pair: tuple[IPv4Address | IPv6Address, ...], source: int, destination: int, behind: bytes
    ) -> None:
        line = f"PROXY TCP{pair[0].version} {pair[0]} {pair[1]} {source} {destination}"
        result = ProxyReader().feed(line.encode() + b"\r\n" + behind)
        assert result is not None
        data, rest = result
        self.assertEqual((data.src_addr, data.dst_addr), pair)
        self.assertEqual((data.src_port, data.dst_port, rest), (source, destination, behind))

    @settings(deadline=None)
    @given(ADDRESSES, PORTS, PORTS, OWN_VECTORS, st.booleans())
    def test_version_2_round_trip(
        self,
        pair: tuple[IPv4Address | IPv6Address, ...],
        source: int,
        destination: int,
        vectors: list[tuple[int, bytes]],
        checksum: bool,
    ) -> None:
        block = pair[0].packed + pair[1].packed + source.to_bytes(2, "big") + destination.to_bytes(2, "big")
        family = 0x11 if pair[0].version == 4 else 0x21
        extra = b"".join(tlv(*vector) for vector in vectors)
        data = read(with_checksum(extra, b"", block, family) if checksum else v2(block + extra, family))
        self.assertEqual((data.src_addr, data.dst_addr), pair)
        self.assertEqual((data.src_port, data.dst_port), (source, destination))
        found = data.tlv.vectors if data.tlv is not None else ()
        self.assertEqual([vector for vector in found if vector[0] != 3], vectors)
        self.assertEqual(ip_address(str(data.peer[0] if data.peer else "")), _unmapped(pair[0]))

    @settings(deadline=None)
    @given(ALMOST, CUTS)
    def test_split_header_reads_the_same(self, raw: bytes, cuts: list[int]) -> None:
        self.assertEqual(in_pieces(raw, cuts), in_pieces(raw, []))
        self.assertEqual(in_pieces(raw, list(range(len(raw)))), in_pieces(raw, []))

    @settings(deadline=None)
    @given(ALMOST)
    def test_any_octets_raise_proxy_error_or_nothing(self, raw: bytes) -> None:
        for data in (raw, *([raw[i:] for i in range(min(len(raw), 20))])):
            try:
                result = ProxyReader().feed(data)
            except ProxyError:
                continue
            if result is not None:
                self.assertEqual(result[0].whole_raw + result[1], data)
                self.assertTrue(result[0].valid)
            else:
                self.assertLess(len(data), 16 + 4096)

    @settings(deadline=None)
    @given(st.sampled_from([V1, v2(), v2(INET6, 0x21), with_checksum(tlv(2, b"a"), b"")]), st.integers(), st.binary())
    def test_a_refused_beginning_is_never_taken_later(self, raw: bytes, at: int, noise: bytes) -> None:
        at %= len(raw)
        self.assertTrue(_agrees_with_its_beginnings(raw[:at] + noise + raw[at:]))


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _agrees_with_its_beginnings(raw: bytes) -> bool:
    """Whether no beginning of some octets is refused that the whole makes a header of."""
    whole = in_pieces(raw, [])
    return all(in_pieces(raw[:i], []) != "refused" or whole == "refused" for i in range(len(raw)))
