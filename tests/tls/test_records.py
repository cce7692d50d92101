"""The connection that doesn't ask OpenSSL what it knows: nothing may get lost by it, nor come too late."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.support.tls_helpers import Client, Issued, issue
from twisted_smtpd.tls.records import RecordConnection

MUCH = 2**15
VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


class Ends:
    """A client and a server, after the handshake."""

    identity: Issued | None = None

    def __init__(self, version: int, context: SSL.Context | None = None) -> None:
        if Ends.identity is None:
            Ends.identity = issue("mx.example")
        server_context = context or SSL.Context(SSL.TLS_SERVER_METHOD)
        server_context.use_certificate(Ends.identity.certificate)
        server_context.use_privatekey(Ends.identity.key)
        self.server = RecordConnection(server_context)
        self.server.set_accept_state()
        self.client = SSL.Connection(Client(version=version).context, None)
        self.client.set_connect_state()
        for _ in range(4):
            for one, other in ((self.client, self.server), (self.server, self.client)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                if said := drain(one.bio_read):
                    other.bio_write(said)
        # Tickets, with TLS 1.3.
        drain(self.client.recv)
        drain(self.server.recv)

    def sent(self, *texts: bytes) -> bytes:
        """What the client has on the wire for these, a record each."""
        for text in texts:
            self.client.send(text)
        return drain(self.client.bio_read)

    def heard(self, data: bytes) -> bytes:
        """What the server reads when this arrives."""
        if data:
            self.server.bio_write(data)
        return drain(self.server.recv)


def drain(read: Any) -> bytes:
    """Read until there is nothing more, as Twisted does."""
    pieces: list[bytes] = []
    while True:
        try:
            pieces.append(read(MUCH))
        except SSL.WantReadError:
            return b"".join(pieces)


class RecordConnectionTests(SynchronousTestCase):
    def count(self, name: str) -> list[str]:
        """Note the calls of pyOpenSSL."""
        calls: list[str] = []
        method = getattr(SSL.Connection, name)

        def counted(connection: Any, *arguments: Any) -> Any:
            if isinstance(connection, RecordConnection):
                calls.append(name)
            return method(connection, *arguments)

        self.patch(SSL.Connection, name, counted)
        return calls

    def test_a_record_that_came_alone_is_read_and_no_more_is_asked_for(self) -> None:
        for version in VERSIONS:
            ends = Ends(version)
            self.assertEqual(drain(ends.server.bio_read), b"")
            received, written = self.count("recv"), self.count("bio_read")
            for _ in range(3):
                self.assertEqual(ends.heard(ends.sent(b"NOOP\r\n")), b"NOOP\r\n")
                self.assertEqual(drain(ends.server.bio_read), b"")
            self.assertEqual((len(received), len(written)), (3, 0))

    def test_what_is_sent_is_to_be_read_at_once(self) -> None:
        for version in VERSIONS:
            ends = Ends(version)
            for text in (b"250 OK\r\n", b"x" * 2**14):
                ends.heard(ends.sent(b"NOOP\r\n"))
                ends.server.send(text)
                ends.client.bio_write(drain(ends.server.bio_read))
                self.assertEqual(drain(ends.client.recv), text)

    def test_several_records_at_once(self) -> None:
        for version in VERSIONS:
            ends = Ends(version)
            self.assertEqual(ends.heard(ends.sent(b"one", b"two", b"three")), b"onetwothree")
            self.assertEqual(ends.heard(ends.sent(b"four")), b"four")

    def test_a_record_that_is_read_in_pieces(self) -> None:
        for version in VERSIONS:
            ends = Ends(version)
            ends.server.bio_write(ends.sent(b"one, two"))
            self.assertEqual([ends.server.recv(n) for n in (3, 2, 3)], [b"one", b", ", b"two"])
            self.assertRaises(SSL.WantReadError, ends.server.recv, MUCH)
            ends.server.bio_write(ends.sent(b"three"))
            self.assertEqual([ends.server.recv(MUCH, 2), ends.server.recv(MUCH)], [b"three"] * 2)

    def test_a_second_record_before_the_first_was_read(self) -> None:
        for version in VERSIONS:
            ends = Ends(version)
            ends.server.bio_write(ends.sent(b"one"))
            self.assertEqual(ends.heard(ends.sent(b"two")), b"onetwo")

    def test_cut_at_every_octet(self) -> None:
        for version in VERSIONS:
            ends = Ends(version)
            size = len(ends.sent(b"first", b"second"))
            ends = Ends(version)
            for cut in range(size + 1):
                data = ends.sent(b"first", b"second")
                heard = ends.heard(data[:cut])
                self.assertIn(heard, (b"", b"first", b"firstsecond"))
                self.assertEqual(heard + ends.heard(data[cut:]), b"firstsecond", cut)

    @settings(deadline=None, database=None, max_examples=150)
    @given(
        st.sampled_from(VERSIONS),
        st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6),
        st.lists(st.integers(0, 400), max_size=12),
    )
    def test_each_record_is_there_when_it_is_complete(self, version: int, texts: list[bytes], cuts: list[int]) -> None:
        ends = Ends(version)
        records = [ends.sent(text) for text in texts]
        stream = b"".join(records)
        edges = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
        heard = b""
        for start, stop in itertools.pairwise(edges):
            heard += ends.heard(stream[start:stop])
            complete = [text for i, text in enumerate(texts) if len(b"".join(records[: i + 1])) <= stop]
            self.assertEqual(heard, b"".join(complete))

    def asked_for(self, *arriving: bytes) -> list[int]:
        """How often OpenSSL is asked for plain text after each of these; it has one for each record, and no more."""
        ends = Ends(SSL.TLS1_3_VERSION)
        drain(ends.server.bio_read)
        ready: list[bytes] = []

        def recv(connection: Any, *arguments: Any) -> bytes:
            counts[-1] += 1
            if not ready:
                raise SSL.WantReadError
            return ready.pop(0)

        self.patch(SSL.Connection, "bio_write", lambda connection, buf: len(buf))
        self.patch(SSL.Connection, "recv", recv)
        stream, counts = b"", [0]
        known = 0
        for data in arriving:
            stream += data
            at = records = 0
            while at + 5 <= len(stream) and at + 5 + int.from_bytes(stream[at + 3 : at + 5], "big") <= len(stream):
                at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
                records += 1
            ready += [b"text"] * (records - known)
            due, known = records - known, records
            counts.append(0)
            self.assertEqual(ends.heard(data), b"text" * due, arriving)
        return counts[1:]

    def test_what_only_looks_like_a_record(self) -> None:
        """It is the rest of one, and may have others behind it."""
        record = b"\x17\x03\x03\x00\x01a"
        self.assertEqual(self.asked_for(record, record), [1, 1])
        # The end of a payload, a record, and the start of another's header; but octets 3 and 4 say 7, and 7 are left.
        rest = b"cd" + b"\x17\x00\x07\x00\x03abc" + b"\x17\x03"
        self.assertEqual(len(rest), 5 + int.from_bytes(rest[3:5], "big"))
        self.assertEqual(self.asked_for(b"\x17\x03\x03\x00\x04ab", rest, b"\x03\x00\x01a", record)[-1], 1)
        # The end of a header, its payload, a record, and the start of another header; 23 are left.
        rest = b"\x00\x02a\x00" + b"\x17\x03\x03\x00\x12" + b"x" * 18 + b"\x17"
        self.assertEqual(len(rest), 5 + int.from_bytes(rest[3:5], "big"))
        self.assertEqual(self.asked_for(b"\x17\x03\x03", rest, b"\x03\x03\x00\x01a", record)[-1], 1)

    def test_what_openssl_answers_by_itself_is_sent(self) -> None:
        """To renegotiate is not allowed; the client has to hear that."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        ends = Ends(SSL.TLS1_2_VERSION, context)
        ends.heard(ends.sent(b"NOOP\r\n"))
        self.assertEqual(drain(ends.server.bio_read), b"")
        ends.client.renegotiate()
        self.assertRaises(SSL.WantReadError, ends.client.do_handshake)
        self.assertEqual(ends.heard(drain(ends.client.bio_read)), b"")
        ends.client.bio_write(drain(ends.server.bio_read))
        self.assertRaises(SSL.Error, ends.client.recv, MUCH)

    def test_the_other_names_of_reading_and_writing(self) -> None:
        """Twisted may come to call these."""
        for version in VERSIONS:
            for write in ("send", "write", "sendall"):
                ends = Ends(version)
                for _ in range(3):
                    self.assertEqual(ends.heard(ends.sent(b"NOOP\r\n")), b"NOOP\r\n")
                    drain(ends.server.bio_read)
                # It knows that there is nothing to send.
                getattr(ends.server, write)(b"250 OK\r\n")
                ends.client.bio_write(drain(ends.server.bio_read))
                self.assertEqual(drain(ends.client.recv), b"250 OK\r\n")
            ends = Ends(version)
            buffer = bytearray(MUCH)
            for _ in range(3):
                ends.server.bio_write(ends.sent(b"NOOP\r\n"))
                self.assertEqual(drain(ends.server.read), b"NOOP\r\n")
                self.assertRaises(SSL.WantReadError, ends.server.recv_into, buffer)
                ends.server.bio_write(ends.sent(b"QUIT\r\n"))
                self.assertEqual(buffer[: ends.server.recv_into(buffer)], b"QUIT\r\n")
                self.assertEqual(ends.heard(ends.sent(b"one", b"two")), b"onetwo")

    def test_the_end(self) -> None:
        for version in VERSIONS:
            ends = Ends(version)
            ends.heard(ends.sent(b"QUIT\r\n"))
            self.assertFalse(ends.server.shutdown())
            ends.client.bio_write(drain(ends.server.bio_read))
            self.assertRaises(SSL.ZeroReturnError, ends.client.recv, MUCH)
            ends.client.shutdown()
            ends.server.bio_write(drain(ends.client.bio_read))
            self.assertRaises(SSL.ZeroReturnError, ends.server.recv, MUCH)

    def test_the_connection_breaks(self) -> None:
        for version in VERSIONS:
            ends = Ends(version)
            ends.heard(ends.sent(b"NOOP\r\n"))
            ends.server.bio_shutdown()
            error = self.assertRaises(SSL.Error, ends.server.recv, MUCH)
            self.assertNotIsInstance(error, SSL.WantReadError)

    def test_more_after_a_handshake_that_has_failed(self) -> None:
        """Twisted 24.7 would look for a reason in an empty queue, and fail."""
        server = RecordConnection(SSL.Context(SSL.TLS_SERVER_METHOD))
        server.set_accept_state()
        for noise in b"MAIL FROM:<a@b.example>\r\n" * 2:
            server.bio_write(bytes([noise]))
            with contextlib.suppress(SSL.WantReadError):
                error = self.assertRaises(SSL.Error, server.do_handshake)
                if type(error) is SSL.Error:
                    self.assertEqual(len(error.args[0][-1]), 3)

    def test_what_is_no_tls(self) -> None:
        for noise in (b"\0" * 5, b"QUIT\r\n", b"\x17\x03\x03\x00\x05hello", b"\xff" * 70000):
            ends = Ends(SSL.TLS1_3_VERSION)
            ends.heard(ends.sent(b"NOOP\r\n"))
            self.assertRaises(SSL.Error, self.read_all, ends, noise)

    def read_all(self, ends: Ends, data: bytes) -> None:
        ends.server.bio_write(data)
        ends.server.recv(MUCH)
