"""PROXY headers of both versions: what is read from them, and what is refused."""

from __future__ import annotations

import copy
import pickle
from ipaddress import IPv4Address, IPv6Address

from tests.support.proxy_headers import INET, INET6, SIGNATURE, UNIX, V1, Base, read, tlv, v2, with_checksum
from twisted_smtpd.wire.proxy_protocol import AF, PROTO, V2_CMD, ProxyData, ProxyReader
from twisted_smtpd.wire.proxy_vectors import ProxyError, ProxySSL, ProxyTLV, crc32c


class Version1Tests(Base):
    def test_tcp4_names_client_and_server(self) -> None:
        data = read(V1)
        self.assertEqual((data.version, data.command), (1, None))
        self.assertEqual((data.family, data.protocol), (AF.INET, PROTO.STREAM))
        self.assertEqual((data.src_addr, data.src_port), (IPv4Address("192.0.2.1"), 40000))
        self.assertEqual((data.dst_addr, data.dst_port), (IPv4Address("198.51.100.7"), 25))
        self.assertEqual((data.whole_raw, data.rest, data.tlv, data.tlv_start), (V1, b"", None, None))
        self.assertEqual(data.peer, ("192.0.2.1", 40000))
        self.assertTrue(data)
        self.assertFalse(data.tls)

    def test_tcp6_names_client_and_server(self) -> None:
        data = read(b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n")
        self.assertEqual((data.family, data.protocol), (AF.INET6, PROTO.STREAM))
        self.assertEqual((data.src_addr, data.dst_addr), (IPv6Address("2001:db8::1"), IPv6Address("::1")))
        self.assertEqual((data.src_port, data.dst_port), (0, 65535))
        self.assertEqual(data.peer, ("2001:db8::1", 0, 0, 0))

    def test_mapped_ipv4_address_is_the_ipv4_client(self) -> None:
        data = read(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.7 40000 25\r\n")
        self.assertEqual(data.src_addr, IPv6Address("::ffff:192.0.2.1"))
        self.assertEqual(data.peer, ("192.0.2.1", 40000))

    def test_unknown_has_no_address_and_ignores_what_follows(self) -> None:
        for rest in (b"", b" ", b" 1.2.3.4 5.6.7.8 1 2", b" TCP4 \x00\xff  x"):
            data = read(b"PROXY UNKNOWN" + rest + b"\r\n")
            self.assertEqual((data.family, data.protocol, data.rest), (AF.UNSPEC, PROTO.UNSPEC, rest))
            self.assertEqual((data.src_addr, data.dst_addr, data.src_port, data.dst_port), (None,) * 4)
            self.assertIsNone(data.peer)
            self.assertTrue(data.valid)

    def test_header_has_107_octets_at_most(self) -> None:
        longest = b"PROXY UNKNOWN ".ljust(105, b"f") + b"\r\n"
        self.assertEqual(len(longest), 107)
        self.assertEqual(read(longest).whole_raw, longest)
        self.refused_at(b"PROXY UNKNOWN ".ljust(106, b"f") + b"\r\n", 106)
        self.refused_at(b"PROXY UNKNOWN ".ljust(105, b"f") + b"\rx", 107)

    def test_header_without_crlf_does_not_grow(self) -> None:
        self.refused_at(b"PROXY UNKNOWN " + b"x" * 10_000, 106)
        self.refused_at(b"PROXY TCP6 " + b"0" * 10_000, 106)

    def test_first_wrong_octet_is_refused(self) -> None:
        for raw, octets in (
            (b"EHLO client.example\r\n", 1),
            (b"proxy TCP4 ", 1),
            (b"PORXY TCP4 ", 2),
            (b"PROXY\tTCP4 ", 6),
            (b"PROXY\r\n", 6),
            (b"PROX TCP4 ", 5),
            (b"PROXY  TCP4 ", 7),
            (b"PROXY TCP5 ", 10),
            (b"PROXY TCP 1", 10),
            (b"PROXY UDP4 ", 8),
            (b"PROXY TCP44", 11),
            (b"PROXY TCP4\r\n", 11),
            (b"PROXY UNKNOWNS\r\n", 14),
            (b"PROXY UNKNOW\r\n", 13),
            (b"PROXY TCP4 192.0.2.1\t", 21),
            (b"PROXY TCP4 ::1 ", 12),
            (b"PROXY TCP4 1.2.3 5", 17),
            (b"PROXY TCP4 1.2.3.4 1.2.3 5", 25),
            (b"PROXY TCP6 g", 12),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 x", 28),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 -1", 28),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ", 31),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2x", 31),
        ):
            self.refused_at(raw, octets)

    def test_http_is_refused(self) -> None:
        self.refused_at(b"GET / HTTP/1.1\r\n\r\n", 1)
        self.refused_at(b"POST / HTTP/1.1\r\n\r\n", 2)
        self.refused_at(b"CONNECT mail:25 HTTP/1.1\r\n\r\n", 1)

    def test_tls_hello_is_called_no_header(self) -> None:
        self.assertIn("not a PROXY header", self.refused(b"\x16\x03\x01\x02\x00\x01" + bytes(300)))

    def test_one_space_between_fields(self) -> None:
        for raw in (
            b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1  2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
            b" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        ):
            self.refused(raw)

    def test_four_values(self) -> None:
        for fields in (b"", b" 1.2.3.4", b" 1.2.3.4 5.6.7.8", b" 1.2.3.4 5.6.7.8 1", b" 1.2.3.4 5.6.7.8 1 2 3"):
            self.refused(b"PROXY TCP4" + fields + b"\r\n")

    def test_only_crlf_ends_the_line(self) -> None:
        line = V1[:-2]
        for end in (b"\n", b"\r\r\n", b"\n\r\n", b"\rx\r\n", b"\n\r"):
            self.refused(line + end)
        for end in (b"\n", b"\r\r\n", b"\rx\r\n"):
            self.refused(b"PROXY UNKNOWN" + end)
            self.refused(b"PROXY UNKNOWN " + end)
        self.refused(b"PROXY UNKNOWN \nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n")
        self.refused_at(line + b"\n", len(line) + 1)
        self.refused_at(line + b"\rE", len(line) + 2)

    def test_out_of_range_port_is_refused(self) -> None:
        start = b"PROXY TCP4 1.2.3.4 5.6.7.8 "
        self.refused_at(start + b"65536 25\r\n", len(start) + 5)
        self.refused_at(start + b"100000 25\r\n", len(start) + 6)
        self.refused_at(start + b"25 65536\r\n", len(start) + 8)
        self.assertEqual(read(start + b"65535 65535\r\n").src_port, 65535)

    def test_port_is_canonical_decimal(self) -> None:
        for port in (b"00", b"025", b"+25", b"2_5", b"0x19", b"", b"2 5", "\u0661".encode(), b"\xb2"):
            self.refused(b"PROXY TCP4 1.2.3.4 5.6.7.8 " + port + b" 1\r\n")
            self.refused(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 " + port + b"\r\n")

    def test_address_is_of_the_family_and_canonical(self) -> None:
        four = (b"", b"1.2.3", b"1.2.3.4.5", b"256.1.1.1", b"01.2.3.4", b"1..2.3", b"1.2.3.4/32", b"::1", b"localhost")
        six = (b"", b"1.2.3.4", b":::", b"1::2::3", b"12345::", b"fe80::1%eth0", b"::1/128", b"[::1]", b"::01.2.3.4")
        for family, good, addresses in ((b"TCP4", b"1.2.3.4", four), (b"TCP6", b"::1", six)):
            for address in addresses:
                self.refused(b"PROXY %s %s %s 1 2\r\n" % (family, address, good))
                self.refused(b"PROXY %s %s %s 1 2\r\n" % (family, good, address))

    def test_short_header_is_no_result(self) -> None:
        for size in range(len(V1)):
            self.assertIsNone(ProxyReader().feed(V1[:size]))

    def test_octets_behind_the_header_come_back(self) -> None:
        for behind in (b"EHLO x\r\n", b"\r\n", V1, b"x" * 100_000):
            self.assertEqual(ProxyReader().feed(V1 + behind), (read(V1), behind))


class Version2Tests(Base):
    def test_inet_names_client_and_server(self) -> None:
        data = read(v2())
        self.assertEqual((data.version, data.command), (2, V2_CMD.PROXY))
        self.assertEqual((data.family, data.protocol), (AF.INET, PROTO.STREAM))
        self.assertEqual((data.src_addr, data.src_port), (IPv4Address("192.0.2.1"), 40000))
        self.assertEqual((data.dst_addr, data.dst_port), (IPv4Address("198.51.100.7"), 25))
        self.assertEqual((data.rest, data.tlv, data.tlv_start, data.whole_raw), (b"", None, None, v2()))
        self.assertEqual(data.peer, ("192.0.2.1", 40000))

    def test_inet6_names_client_and_server(self) -> None:
        data = read(v2(INET6, 0x21))
        self.assertEqual((data.family, data.src_addr), (AF.INET6, IPv6Address("2001:db8::1")))
        self.assertEqual((data.dst_addr, data.src_port, data.dst_port), (IPv6Address("2001:db8::2"), 40000, 25))
        self.assertEqual(data.peer, ("2001:db8::1", 40000, 0, 0))

    def test_unix_paths_are_108_octets_without_port(self) -> None:
        data = read(v2(UNIX, 0x31))
        self.assertEqual((data.family, data.src_addr, data.dst_addr), (AF.UNIX, UNIX[:108], UNIX[108:]))
        self.assertEqual((data.src_port, data.dst_port, data.peer), (None, None, ""))

    def test_local_ignores_all_that_follows(self) -> None:
        for family in (0x00, 0x11, 0x12, 0x31, 0x44, 0xFF):
            for block in (b"", INET, INET + tlv(3, b"fake"), b"\x01"):
                data = read(v2(block, family, 0x20))
                self.assertEqual((data.version, data.command), (2, V2_CMD.LOCAL))
                self.assertEqual((data.family, data.protocol), (AF.UNSPEC, PROTO.UNSPEC))
                self.assertEqual((data.src_addr, data.src_port, data.peer, data.tlv), (None,) * 4)
                self.assertEqual((data.rest, data.valid, data.tls), (block, True, False))

    def test_unspecified_family_or_protocol_has_no_address(self) -> None:
        for family in (0x00, 0x01, 0x10, 0x20, 0x30):
            for block in (b"", INET, b"\x01"):
                data = read(v2(block, family))
                self.assertEqual((data.command, data.family, data.protocol), (V2_CMD.PROXY, AF.UNSPEC, PROTO.UNSPEC))
                self.assertEqual((data.src_addr, data.dst_addr, data.peer, data.tlv), (None,) * 4)
                self.assertEqual(data.rest, block)

    def test_first_wrong_octet_is_refused(self) -> None:
        for i in range(1, len(SIGNATURE)):
            self.refused_at(SIGNATURE[:i] + b"?" + v2()[i + 1 :], i + 1)
        for command in (0x00, 0x01, 0x10, 0x11, 0x22, 0x2F, 0x31, 0xFF):
            self.refused_at(v2(command=command), 13)

    def test_bad_family_is_refused(self) -> None:
        for family in (0x03, 0x13, 0x1F, 0x33, 0x40, 0x41, 0xF1, 0xFF):
            self.refused_at(v2(family=family), 14)

    def test_datagram_is_refused(self) -> None:
        for family, block in ((0x02, b""), (0x12, INET), (0x22, INET6), (0x32, UNIX)):
            self.refused_at(v2(block, family), 14)

    def test_length_too_short_for_the_addresses_is_refused(self) -> None:
        for family, block in ((0x11, INET), (0x21, INET6), (0x31, UNIX)):
            for length in (0, 1, len(block) - 1):
                self.refused_at(v2(block, family, length=length), 16)

    def test_header_does_not_grow_over_the_limit(self) -> None:
        self.refused_at(v2(length=4097), 16)
        self.refused_at(v2(length=0xFFFF), 15)
        self.refused_at(v2(command=0x20, length=0xFFFF), 15)
        self.refused_at(v2(length=13), 16, max_length=12)
        self.assertEqual(read(v2(), max_length=12).src_port, 40000)
        filled = v2(INET + tlv(4, bytes(4096 - 12 - 3)))
        self.assertEqual(len(read(filled).whole_raw), 16 + 4096)
        self.assertEqual(len(read(v2(command=0x20, block=bytes(0xFFFF)), 0xFFFF).rest), 0xFFFF)

    def test_limit_is_between_0_and_65535(self) -> None:
        self.assertRaises(ValueError, ProxyReader, -1)
        self.assertRaises(ValueError, ProxyReader, 65536)
        self.assertEqual(read(v2(b"", 0, 0x20), 0).command, V2_CMD.LOCAL)

    def test_short_header_is_no_result(self) -> None:
        raw = v2(INET + tlv(2, b"mx.example"))
        for size in range(len(raw)):
            self.assertIsNone(ProxyReader().feed(raw[:size]))

    def test_octets_behind_the_header_come_back(self) -> None:
        for behind in (b"EHLO x\r\n", V1, b"\x16\x03\x01", b"x" * 100_000):
            self.assertEqual(ProxyReader().feed(v2() + behind), (read(v2()), behind))


class VectorTests(Base):
    def test_vectors_by_name_and_by_type(self) -> None:
        raw = tlv(1, b"smtp") + tlv(2, b"mx.example") + tlv(5, b"id-1") + tlv(0x30, b"blue") + tlv(0xEA, b"\x01vpce")
        data = read(v2(INET + raw))
        vectors = data.tlv
        assert vectors is not None
        self.assertEqual((data.rest, data.tlv_start), (raw, 28))
        self.assertEqual(data.whole_raw[28:], raw)
        self.assertEqual((vectors.ALPN, vectors.AUTHORITY, vectors.UNIQUE_ID), (b"smtp", b"mx.example", b"id-1"))
        self.assertEqual((vectors["NETNS"], vectors["xEA"], vectors.xEA), (b"blue", b"\x01vpce", b"\x01vpce"))
        self.assertEqual(vectors.of_type(0x02), (b"mx.example",))
        self.assertEqual(vectors.of_type(0x20), ())
        self.assertEqual(list(vectors), ["ALPN", "AUTHORITY", "UNIQUE_ID", "NETNS", "xEA"])

    def test_absent_vector_is_none_and_a_misspelt_one_an_error(self) -> None:
        vectors = ProxyTLV()
        self.assertEqual((vectors.SSL, vectors.SSL_CN, vectors.SSL_VERIFY, vectors.xE0, vectors.ssl), (None,) * 5)
        for name in ("AUTHORTY", "alpn", "xGG", "__len_hint__"):
            self.assertRaises(AttributeError, getattr, vectors, name)
        self.assertRaises(KeyError, vectors.__getitem__, "ALPN")

    def test_no_octets_are_no_vectors(self) -> None:
        self.assertIsNone(ProxyTLV.from_raw(b""))

    def test_padding_is_ignored_and_may_come_twice(self) -> None:
        data = read(v2(INET + tlv(4, b"") + tlv(2, b"a") + tlv(4, bytes(5))))
        self.assertEqual(data.tlv, {"AUTHORITY": b"a"})
        assert data.tlv is not None
        self.assertEqual(data.tlv.of_type(4), (b"", bytes(5)))

    def test_odd_vector_length_is_refused(self) -> None:
        good = tlv(2, b"mx.example")
        for bad in (b"\x02", b"\x02\x00", b"\x02\x00\x01", b"\x02\x00\x03ab", b"\x00", b"\x02\xff\xff", b"\x00\x00"):
            self.refused(v2(INET + bad))
            self.refused(v2(INET + good + bad))
            self.refused(v2(INET + tlv(0x20, b"\x01" + bytes(4) + bad)))
            self.assertRaises(ProxyError, ProxyTLV.read, good + bad)

    def test_vector_does_not_reach_into_what_is_behind_the_header(self) -> None:
        self.refused(v2(INET + b"\x02\x00\x08mx") + b"EHLO x\r\n")

    def test_registered_type_comes_once(self) -> None:
        for kind in (1, 2, 5, 0x30):
            self.assertIn("more than once", self.refused(v2(INET + tlv(kind, b"a") + tlv(kind, b"b"))))
        tls = tlv(0x20, b"\x01" + bytes(4))
        self.refused(v2(INET + tls + tls))
        self.refused(v2(INET + tlv(0x20, b"\x01" + bytes(4) + tlv(0x22, b"alice") + tlv(0x22, b"bob"))))

    def test_senders_own_type_may_come_twice(self) -> None:
        data = read(v2(INET + tlv(0xE0, b"a") + tlv(0xE0, b"b")))
        assert data.tlv is not None
        self.assertEqual((data.tlv.xE0, data.tlv.of_type(0xE0)), (b"b", (b"a", b"b")))

    def test_unique_id_has_128_octets_at_most(self) -> None:
        self.assertEqual(read(v2(INET + tlv(5, bytes(128)))).tlv, {"UNIQUE_ID": bytes(128)})
        self.refused(v2(INET + tlv(5, bytes(129))))

    def test_vectors_can_be_copied_and_pickled(self) -> None:
        data = read(v2(INET + tlv(2, b"a") + tlv(0x20, b"\x01" + bytes(4))))
        assert data.tlv is not None
        for twin in (copy.deepcopy(data.tlv), copy.copy(data.tlv), pickle.loads(pickle.dumps(data.tlv))):
            self.assertEqual((twin, twin.vectors, twin.ssl), (data.tlv, data.tlv.vectors, data.tlv.ssl))


class ChecksumTests(Base):
    def test_crc32c_is_castagnolis(self) -> None:
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(b""), 0)

    def test_right_checksum_is_taken_wherever_it_is(self) -> None:
        for before, after in ((b"", b""), (tlv(2, b"a"), b""), (b"", tlv(2, b"a")), (tlv(4, b"x"), tlv(5, b"id"))):
            for address, family in ((INET, 0x11), (INET6, 0x21), (UNIX, 0x31)):
                data = read(with_checksum(before, after, address, family))
                assert data.tlv is not None
                self.assertEqual(len(data.tlv.CRC32C), 4)

    def test_header_changed_under_its_checksum_is_refused(self) -> None:
        raw = with_checksum(tlv(2, b"a"), tlv(5, b"id"))
        # Under another type it is no checksum any more.
        kind = raw.index(b"\3\0\4")
        for i in set(range(16, len(raw))) - {kind}:
            for bit in (0x01, 0x80):
                self.refused(raw[:i] + bytes([raw[i] ^ bit]) + raw[i + 1 :])

    def test_checksum_has_four_octets_and_comes_once(self) -> None:
        for size in (0, 3, 5):
            self.refused(v2(INET + tlv(3, bytes(size))))
            self.assertRaises(ProxyError, ProxyTLV.read, tlv(3, bytes(size)))
        self.refused(with_checksum(tlv(3, bytes(4)), b""))


class SSLTests(Base):
    SUB = tlv(0x21, b"TLSv1.3") + tlv(0x22, b"alice\xff") + tlv(0x23, b"TLS_AES_128_GCM_SHA256")

    def ssl(self, value: bytes) -> ProxySSL:
        data = read(v2(INET + tlv(0x20, value)))
        assert data.tlv is not None and data.tlv.ssl is not None
        return data.tlv.ssl

    def test_vectors_inside_are_read(self) -> None:
        more = tlv(0x24, b"RSA-SHA256") + tlv(0x25, b"RSA2048") + tlv(0x26, b"x25519") + tlv(0x27, b"rsa_pss")
        ssl = self.ssl(b"\x07" + bytes(4) + self.SUB + more + tlv(0x28, b"DER") + tlv(0x7F, b"?"))
        self.assertEqual((ssl.client, ssl.verify, ssl.used, ssl.verified), (7, 0, True, True))
        self.assertEqual((ssl.version, ssl.cn, ssl.cipher), (b"TLSv1.3", b"alice\xff", b"TLS_AES_128_GCM_SHA256"))
        self.assertEqual((ssl.sig_alg, ssl.key_alg, ssl.group), (b"RSA-SHA256", b"RSA2048", b"x25519"))
        self.assertEqual((ssl.sig_scheme, ssl.client_cert), (b"rsa_pss", b"DER"))
        self.assertEqual(ssl.vectors[-1], (0x7F, b"?"))

    def test_aiosmtpds_names(self) -> None:
        data = read(v2(INET + tlv(0x20, b"\x01\x00\x00\x00\x02" + self.SUB)))
        self.assertEqual(
            data.tlv,
            {
                "SSL": True,
                "SSL_CLIENT": 1,
                "SSL_VERIFY": 2,
                "SSL_VERSION": b"TLSv1.3",
                "SSL_CN": b"alice\xff",
                "SSL_CIPHER": b"TLS_AES_128_GCM_SHA256",
            },
        )
        self.assertTrue(data.tls)

    def test_vector_without_the_tls_flag_vouches_for_nothing(self) -> None:
        for flags in (0, 2, 4, 6):
            data = read(v2(INET + tlv(0x20, bytes([flags]) + bytes(4) + self.SUB)))
            self.assertFalse(data.tls)
            assert data.tlv is not None and data.tlv.ssl is not None
            self.assertFalse(data.tlv.ssl.verified)

    def test_no_certificate_is_not_a_verified_one(self) -> None:
        self.assertFalse(self.ssl(b"\x01" + bytes(4)).verified)
        self.assertFalse(self.ssl(b"\x03\x00\x00\x00\x01").verified)
        self.assertFalse(self.ssl(b"\x03\x80\x00\x00\x00").verified)
        self.assertTrue(self.ssl(b"\x03" + bytes(4)).verified)
        self.assertTrue(self.ssl(b"\x05" + bytes(4)).verified)

    def test_short_ssl_vector_is_refused(self) -> None:
        for size in range(5):
            self.refused(v2(INET + tlv(0x20, bytes(size))))

    def test_vectors_of_ssl_count_only_inside_it(self) -> None:
        data = read(v2(INET + tlv(0x22, b"forged")))
        self.assertEqual(data.tlv, {"x22": b"forged"})
        self.assertFalse(data.tls)
        inside = self.ssl(b"\x01" + bytes(4) + tlv(2, b"forged") + tlv(3, b""))
        self.assertEqual((inside.cn, len(inside.vectors)), (None, 2))
        data = read(v2(INET + tlv(0x20, b"\x01" + bytes(4) + tlv(2, b"forged"))))
        assert data.tlv is not None
        self.assertIsNone(data.tlv.AUTHORITY)


class DataTests(Base):
    def test_numbers_are_those_on_the_wire(self) -> None:
        self.assertEqual((AF.UNSPEC, AF.INET, AF.INET6, AF.UNIX), (0, 1, 2, 3))
        self.assertEqual((PROTO.UNSPEC, PROTO.STREAM, PROTO.DGRAM), (0, 1, 2))
        self.assertEqual((V2_CMD.LOCAL, V2_CMD.PROXY), (0, 1))

    def test_a_remembered_failure_is_not_valid(self) -> None:
        self.assertFalse(ProxyData(version=None, error="no header"))
        self.assertFalse(ProxyData(version=None, protocol=PROTO.STREAM))
        self.assertFalse(ProxyData(version=1))
        self.assertFalse(ProxyData(version=1, protocol=PROTO.STREAM, error="x").valid)
        self.assertTrue(ProxyData(version=1, protocol=PROTO.STREAM))

    def test_reader_gives_one_result(self) -> None:
        used = ProxyReader()
        used.feed(V1)
        self.assertRaises(ProxyError, used.feed, V1)
        self.assertRaises(ProxyError, used.feed, b"")

    def test_reader_stays_refused(self) -> None:
        used = ProxyReader()
        self.assertRaises(ProxyError, used.feed, b"EHLO")
        self.assertRaises(ProxyError, used.feed, V1)

    def test_error_does_not_repeat_the_whole_input(self) -> None:
        self.assertLess(len(self.refused(b"x" * 1_000_000)), 200)
        self.assertLess(len(self.refused(b"PROXY TCP4 " + b"\xff" * 1_000_000)), 500)
        message = self.refused(b"\x1b[31m\r\n")
        self.assertTrue(message.isprintable(), message)
