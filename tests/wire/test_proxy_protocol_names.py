"""The names that aiosmtpd documents for the PROXY protocol."""

from __future__ import annotations

import asyncio

from twisted.trial.unittest import SynchronousTestCase

from tests.support.proxy_headers import V1, read, tlv, v2
from twisted_smtpd import proxy_protocol
from twisted_smtpd.proxy_protocol import (
    AF,
    PROTO,
    V2_CMD,
    MalformedTLV,
    ProxyData,
    ProxyTLV,
    UnknownTypeTLV,
    get_proxy,
)

ALPN = tlv(1, b"smtp")
SSL = tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x77, b"?"))


class DataTests(SynchronousTestCase):
    def test_same_attribs(self) -> None:
        data = read(v2())
        self.assertTrue(data.same_attribs(version=2, command=V2_CMD.PROXY, family=AF.INET, protocol=PROTO.STREAM))
        for raises in (False, True):
            self.assertTrue(data.same_attribs(raises, version=2))
        self.assertFalse(data.same_attribs(version=1))
        self.assertFalse(data.same_attribs(colour=None))
        self.assertRaises(ValueError, data.same_attribs, True, version=1)
        self.assertRaises(KeyError, data.same_attribs, True, colour=None)

    def test_with_error(self) -> None:
        data = read(V1)
        self.assertTrue(data.valid)
        self.assertIs(data.with_error("no"), data)
        self.assertEqual((data.error, bool(data)), ("no", False))


class TLVTests(SynchronousTestCase):
    def test_from_raw_is_none_where_there_is_nothing_to_read(self) -> None:
        self.assertEqual(ProxyTLV.from_raw(ALPN), {"ALPN": b"smtp"})
        self.assertEqual(ProxyTLV.from_raw(bytearray(ALPN)), {"ALPN": b"smtp"})
        for raw in (b"", ALPN[:-1], b"x", tlv(3, b"x")):
            self.assertIsNone(ProxyTLV.from_raw(raw))

    def test_strict_wants_known_types(self) -> None:
        self.assertIsNone(ProxyTLV.from_raw(b"", strict=True))
        self.assertEqual(ProxyTLV.from_raw(ALPN, strict=True), {"ALPN": b"smtp"})
        self.assertRaises(UnknownTypeTLV, ProxyTLV.from_raw, tlv(0xE3, b"x"), strict=True)
        self.assertRaises(UnknownTypeTLV, ProxyTLV.parse, tlv(0xE3, b"x"), strict=True)

    def test_parse_may_give_a_part(self) -> None:
        values, where = ProxyTLV.parse(ALPN + SSL + b"\x02\0")
        self.assertEqual(values["SSL_VERSION"], b"TLSv1.3")
        self.assertEqual(where["SSL"], len(ALPN))
        self.assertRaises(MalformedTLV, ProxyTLV.parse, ALPN + b"\x02\0", partial_ok=False)
        self.assertEqual(ProxyTLV.parse(b""), ({}, {}))

    def test_tlv_loc_is_where_each_vector_begins(self) -> None:
        raw = ALPN + SSL + tlv(0xE1, b"x")
        found = ProxyTLV.from_raw(raw)
        assert found is not None
        for name, kind in (("ALPN", 1), ("SSL", 0x20), ("SSL_VERSION", 0x21), ("x77", 0x77), ("xE1", 0xE1)):
            self.assertEqual(raw[found.tlv_loc[name]], kind, name)

    def test_name_to_num(self) -> None:
        self.assertEqual(ProxyTLV.name_to_num("SSL_CN"), 0x22)
        self.assertIsNone(ProxyTLV.name_to_num("COLOUR"))

    def test_same_attribs(self) -> None:
        found = ProxyTLV.from_raw(ALPN)
        assert found is not None
        self.assertTrue(found.same_attribs(ALPN=b"smtp"))
        self.assertFalse(found.same_attribs(ALPN=b"http"))
        self.assertFalse(found.same_attribs(SSL=None))
        self.assertRaises(KeyError, found.same_attribs, True, SSL=None)


class ReaderTests(SynchronousTestCase):
    def read(self, sent: bytes) -> tuple[ProxyData, bytes]:
        async def run() -> tuple[ProxyData, bytes]:
            reader = asyncio.StreamReader()
            reader.feed_data(sent)
            reader.feed_eof()
            return await get_proxy(reader), await reader.read()

        return asyncio.run(run())

    def test_it_reads_the_header_alone(self) -> None:
        for header in (V1, v2()):
            data, rest = self.read(header + b"EHLO")
            self.assertEqual((data.whole_raw, rest), (header, b"EHLO"))
            self.assertTrue(data)

    def test_what_is_no_header_has_an_error(self) -> None:
        for sent in (b"", b"EHLO client\r\n", V1[:-1]):
            data, _ = self.read(sent)
            self.assertFalse(data)
            self.assertTrue(data.error)

    def test_each_name_is_there(self) -> None:
        for name in proxy_protocol.__all__:
            self.assertTrue(hasattr(proxy_protocol, name), name)
