"""TLS below the dialog: real handshakes in memory, with each kind of context, and what is known after them."""

from __future__ import annotations

import ssl
from typing import Any

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IOpenSSLContextFactory,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support.tls_helpers import (
    END_POINT,
    EXPORTER,
    UNIQUE,
    Client,
    Link,
    QuitsAtOnce,
    Raw,
    Splitting,
    TLSTestCase,
    client_hello,
    resumed,
)
from twisted_smtpd.tls import (
    TLSConfigurationError,
    channel_binding,
    connection_creator,
    describe,
    explain,
    self_signed,
)
from twisted_smtpd.tls.private import SESSION_REUSED


class EitherKindOfContext:
    """What holds for any context; the subclasses give one."""

    def creator(self) -> Any:
        raise NotImplementedError

    def test_data_passes_both_ways(self) -> None:
        self.assertPasses(Link(self.creator()))

    def test_tls12_passes_both_ways(self) -> None:
        link = Link(self.creator(), Client(version=SSL.TLS1_2_VERSION))
        self.assertPasses(link)
        self.assertEqual(link.info().version, "TLSv1.2")

    def test_split_into_single_octets(self) -> None:
        self.assertPasses(Link(self.creator(), transport=Splitting))

    def test_large_writes_both_ways(self) -> None:
        up = bytes(range(256)) * 8192
        down = up[::-1]
        self.assertEqual(Link(self.creator()).exchange(up, down), (up, down))

    def test_close_notify_from_the_server(self) -> None:
        link = Link(self.creator())
        link.server_tls.write(b"221 Bye\r\n")
        link.server_tls.loseConnection()
        link.pump.flush()
        self.assertEqual(bytes(link.client.received), b"221 Bye\r\n")
        self.assertTrue(link.client_tls.getHandle() is None or link.client_tls._lostTLSConnection)
        self.assertNotIsInstance(link.client.ended.value, SSL.Error)
        self.assertNotIsInstance(link.server.ended.value, SSL.Error)

    def test_close_notify_from_the_client(self) -> None:
        link = Link(self.creator())
        link.client_tls.write(b"QUIT\r\n")
        link.client_tls.loseConnection()
        link.pump.flush()
        self.assertEqual(bytes(link.server.received), b"QUIT\r\n")
        self.assertNotIsInstance(link.server.ended.value, SSL.Error)
        self.assertNotIsInstance(link.client.ended.value, SSL.Error)

    def test_data_behind_the_close_is_still_delivered(self) -> None:
        link = Link(self.creator(), server=QuitsAtOnce)
        # Several records in one read: the first makes the server close, the rest are already here.
        data = b"x" * 100_000
        link.client_tls.write(data)
        link.pump.flush()
        self.assertEqual(bytes(link.server.received), data)
        self.assertNotIsInstance(link.server.ended.value, SSL.Error)

    def test_data_then_a_bare_end_of_connection_is_delivered(self) -> None:
        link = Link(self.creator(), server=QuitsAtOnce)
        link.client_tls._write(b"y" * 50_000)
        records = link.client_io.getOutBuffer()
        link.server_tls._tlsConnection.bio_write(records)
        link.server_tls.connectionLost(Failure(RuntimeError("gone")))
        self.assertEqual(bytes(link.server.received), b"y" * 50_000)

    def test_the_client_hangs_up_in_the_middle_of_the_handshake(self) -> None:
        hello = client_hello()
        for length in (1, 5, len(hello) - 1, len(hello)):
            raw = Raw(self.creator())
            raw.tls.dataReceived(hello[:length])
            raw.tls.connectionLost(Failure(ConnectionError("reset")))
            self.assertEqual(bytes(raw.protocol.received), b"")
            self.assertIn("hung up", explain(raw.reason))

    def test_plain_text_instead_of_a_client_hello(self) -> None:
        for text, said in (
            (b"EHLO client.example\r\n", "does not speak TLS"),
            (b"GET / HTTP/1.0\r\n\r\n", "HTTP"),
            (b"\x00" * 64, "TLS handshake failed"),
            (b"\xff" * 64, "TLS handshake failed"),
        ):
            raw = Raw(self.creator())
            raw.tls.dataReceived(text)
            self.assertTrue(raw.transport.disconnecting, text)
            raw.tls.connectionLost(Failure(ConnectionError("done")))
            self.assertIsInstance(raw.reason, SSL.Error)
            self.assertIn(said, explain(raw.reason))
            self.assertEqual(bytes(raw.protocol.received), b"")

    def test_the_server_gives_up_in_the_middle_of_the_handshake(self) -> None:
        raw = Raw(self.creator())
        raw.tls.dataReceived(client_hello()[:20])
        raw.tls.loseConnection()
        self.assertTrue(raw.transport.disconnecting)

    def test_a_garbled_record_ends_the_connection_with_an_error(self) -> None:
        link = Link(self.creator())
        link.server_tls.dataReceived(b"\x17\x03\x03\x00\x20" + b"\0" * 32)
        link.pump.flush()
        self.assertIsInstance(link.server.ended.value, SSL.Error)

    def test_described_after_the_handshake_only(self) -> None:
        raw = Raw(self.creator())
        self.assertRaises(ValueError, describe, raw.tls)
        self.assertIsNone(channel_binding(raw.tls, UNIQUE))

    def test_the_description(self) -> None:
        link = Link(self.creator(), Client(b"Mail.Example"))
        info = link.info()
        client = link.client_tls.getHandle()
        self.assertEqual(info.version, client.get_protocol_version_name())
        self.assertEqual(info.cipher, client.get_cipher_name())
        self.assertEqual(info.bits, client.get_cipher_bits())
        self.assertEqual(info.server_name, "mail.example")
        self.assertIsNone(info.alpn)
        self.assertIsNone(info.peer_certificate)
        self.assertFalse(info.peer_verified)
        self.assertEqual(info["cipher"], (info.cipher, info.version, info.bits))
        self.assertIn(info.cipher, str(info))

    def test_no_server_name(self) -> None:
        self.assertIsNone(Link(self.creator()).info().server_name)

    def test_a_server_name_cannot_forge_log_lines(self) -> None:
        info = Link(self.creator(), Client(b"a\r\nb\x7f")).info()
        self.assertIn(info.server_name, ("a??b?", None))

    def test_tls_unique_is_the_same_on_both_sides(self) -> None:
        link = Link(self.creator(), Client(version=SSL.TLS1_2_VERSION))
        data = channel_binding(link.server_tls, UNIQUE)
        self.assertIsNotNone(data)
        # A full handshake: the client's Finished message came first (RFC 5929 section 3.1).
        self.assertEqual(data, link.client_tls.getHandle().get_finished())

    def test_tls_unique_is_undefined_with_tls13(self) -> None:
        self.assertIsNone(channel_binding(Link(self.creator()).server_tls, UNIQUE))

    def test_an_unknown_channel_binding_is_none(self) -> None:
        self.assertIsNone(channel_binding(Link(self.creator()).server_tls, "tls-unheard-of"))


class ContextWithTickets(EitherKindOfContext):
    """What holds for contexts that let clients resume sessions."""

    def test_tls_unique_of_a_resumed_session(self) -> None:
        client = Client(version=SSL.TLS1_2_VERSION)
        creator = self.creator()
        first = Link(creator, client)
        client.session = first.client_tls.getHandle().get_session()
        second = Link(creator, client)
        self.assertTrue(resumed(second))
        # The server's Finished message came first.
        self.assertEqual(channel_binding(second.server_tls, UNIQUE), second.client_tls.getHandle().get_peer_finished())

    def test_a_session_is_resumed(self) -> None:
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = Client(version=version)
            creator = self.creator()
            first = Link(creator, client)
            self.assertPasses(first)
            self.assertFalse(resumed(first))
            client.session = first.client_tls.getHandle().get_session()
            second = Link(creator, client)
            self.assertTrue(resumed(second), version)
            self.assertPasses(second)


class FilesContextTests(ContextWithTickets, TLSTestCase):
    def creator(self) -> Any:
        if not hasattr(self, "_creator"):
            self._creator = self.files()
        return self._creator


class StandardLibraryContextTests(ContextWithTickets, TLSTestCase):
    def creator(self) -> Any:
        if not hasattr(self, "_context"):
            self._context = self.stdlib()
        return self._context

    def test_the_asyncio_names(self) -> None:
        link = Link(self.creator())
        info = link.info()
        self.assertIs(info["sslcontext"], self._context)
        self.assertEqual(info["ssl_object"].cipher(), info["cipher"])
        self.assertIsNone(info["peercert"])
        self.assertIsNone(info["compression"])
        self.assertEqual(set(info), {"cipher", "compression", "peercert", "ssl_object", "sslcontext"})
        self.assertEqual(len(info), 5)

    def test_a_context_used_again_is_left_as_it_is(self) -> None:
        connection_creator(self.creator())
        callback = self.creator().sni_callback
        connection_creator(self.creator())
        self.assertIs(self.creator().sni_callback, callback)
        self.assertEqual(Link(self.creator(), Client(b"x.example")).info().server_name, "x.example")

    def test_the_users_own_sni_callback_is_kept(self) -> None:
        context = self.creator()
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other.load_cert_chain(self.write("other.pem", self.two.pem, self.two.key_pem))
        asked = []

        def choose(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
            asked.append(name)
            connection.context = other

        context.sni_callback = choose
        link = Link(context, Client(b"two.example"))
        self.assertEqual(asked, ["two.example"])
        self.assertEqual(link.presented(), self.two.der)
        self.assertEqual(link.info().server_name, "two.example")
        self.assertIs(link.info()["sslcontext"], other)

    def test_the_users_callback_may_refuse(self) -> None:
        context = self.creator()
        context.sni_callback = lambda *_args: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        self.assertFails(Link(context, Client(b"x.example")))

    def test_alpn(self) -> None:
        self.creator().set_alpn_protocols(["smtp"])
        link = Link(self.creator(), Client(alpn=[b"smtp"]))
        self.assertEqual(link.info().alpn, "smtp")
        self.assertEqual(link.server_tls.negotiatedProtocol, b"smtp")
        self.assertIsNone(Link(self.creator()).server_tls.negotiatedProtocol)

    def test_a_client_certificate(self) -> None:
        context = self.creator()
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.authority.pem.decode())
        link = Link(context, Client(identity=self.known))
        self.assertEqual(link.info().peer_certificate, self.known.der)
        self.assertTrue(link.info().peer_verified)
        self.assertEqual(link.info()["peercert"]["subjectAltName"], (("DNS", "client.example"),))
        self.assertEqual(link.server_tls.getPeerCertificate().get_subject().CN, "client.example")
        self.assertFalse(Link(context).info().peer_verified)
        refused = Link(context, Client(identity=self.stranger))
        self.assertFails(refused)
        self.assertIn("can't be verified", explain(refused.server.ended.value))

    def test_a_context_without_certificate_says_so(self) -> None:
        link = Link(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.assertFails(link)
        self.assertIn("no certificate", explain(link.server.ended.value))

    def test_a_flight_longer_than_one_read_of_twisted(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        extra = self.authority.pem * 150
        context.load_cert_chain(self.write("long.pem", self.one.pem, extra, self.one.key_pem))
        link = Link(context)
        self.assertPasses(link)
        self.assertEqual(len(link.client_tls.getHandle().get_peer_cert_chain()), 151)

    def test_no_channel_binding_the_library_cannot_give(self) -> None:
        link = Link(self.creator())
        self.assertIsNone(channel_binding(link.server_tls, EXPORTER))
        self.assertIsNone(channel_binding(link.server_tls, END_POINT))

    def test_shutdown_tells_whether_both_sides_have_closed(self) -> None:
        link = Link(self.creator())
        connection = link.server_tls.getHandle()
        self.assertFalse(connection.shutdown())
        link.server_tls._flushSendBIO()
        link.pump.flush()
        self.assertTrue(connection.shutdown())
        self.assertRaises(SSL.ZeroReturnError, connection.recv, 10)
        self.assertRaises(SSL.Error, connection.send, b"too late")

    def test_shutdown_in_the_handshake_is_an_error(self) -> None:
        self.assertRaises(SSL.Error, Raw(self.creator()).tls.getHandle().shutdown)

    def test_an_end_of_file_without_a_reason(self) -> None:
        # OpenSSL 1.1.1 gives none; Twisted knows the end of a connection by pyOpenSSL's text.
        connection = Link(self.creator()).server_tls.getHandle()

        class Ended:
            def pending(self) -> int:
                return 1

            def read(self, size: int) -> bytes:
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")

        self.patch(connection, "_ssl", Ended())
        error = self.assertRaises(SSL.SysCallError, connection.recv, 10)
        self.assertEqual(error.args, (-1, "Unexpected EOF"))

    def test_a_truncated_connection_is_a_lost_one(self) -> None:
        context = self.creator()
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        link = Link(context)
        link.server_tls.connectionLost(Failure(RuntimeError("gone")))
        self.assertIsInstance(link.server.ended.value, ConnectionLost)

    def test_twisted_finds_its_protocol(self) -> None:
        link = Link(self.creator())
        connection = link.server_tls.getHandle()
        connection.set_app_data(link.server_tls)
        self.assertIs(connection.get_app_data(), link.server_tls)


class CertificateOptionsContextTests(EitherKindOfContext, TLSTestCase):
    def creator(self) -> Any:
        if not hasattr(self, "_options"):
            self._options = self.options()
        return self._options

    def test_channel_binding_of_tls13(self) -> None:
        link = Link(self.creator())
        client = link.client_tls.getHandle()
        exported = channel_binding(link.server_tls, EXPORTER)
        self.assertEqual(exported, client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""))
        self.assertEqual(len(exported or b""), 32)
        self.assertEqual(channel_binding(link.server_tls, END_POINT), self.one.certificate.fingerprint(hashes.SHA256()))

    def test_the_exporter_is_not_used_with_tls12(self) -> None:
        link = Link(self.creator(), Client(version=SSL.TLS1_2_VERSION))
        self.assertIsNone(channel_binding(link.server_tls, EXPORTER))


class ConnectionCreatorTests(TLSTestCase):
    def test_twisteds_own_are_taken_as_they_are(self) -> None:
        for given in (self.files(), self_signed("h.example")):
            self.assertIs(connection_creator(given), given)
            verifyObject(IOpenSSLServerConnectionCreator, given)

    def test_an_ssl_context_becomes_one(self) -> None:
        verifyObject(IOpenSSLServerConnectionCreator, connection_creator(self.stdlib()))

    def test_an_older_context_factory(self) -> None:
        @implementer(IOpenSSLContextFactory)
        class Older:
            def __init__(self, context: SSL.Context) -> None:
                self.getContext = lambda: context

        self.assertPasses(Link(Older(self.options().getContext())))

    def test_a_pyopenssl_context(self) -> None:
        self.assertPasses(Link(self.options().getContext()))

    def test_a_context_for_clients_is_refused(self) -> None:
        error = self.assertRaises(TLSConfigurationError, connection_creator, ssl.create_default_context())
        self.assertIn("not for servers", str(error))

    def test_anything_else_is_refused(self) -> None:
        for given in (None, "cert.pem", object()):
            self.assertRaises(TypeError, connection_creator, given)


class DescribeTests(TLSTestCase):
    def test_a_transport_without_tls(self) -> None:
        for transport in (StringTransport(), object()):
            self.assertRaises(TypeError, describe, transport)
            self.assertIsNone(channel_binding(transport, UNIQUE))

    def test_the_connection_itself(self) -> None:
        link = Link(self.files())
        self.assertEqual(str(describe(link.server_tls.getHandle())), str(link.info()))

    def test_alpn(self) -> None:
        key = crypto.PKey.from_cryptography_key(self.one.key)
        certificate = crypto.X509.from_cryptography(self.one.certificate)
        options = CertificateOptions(privateKey=key, certificate=certificate, acceptableProtocols=[b"smtp"])
        self.assertEqual(Link(options, Client(alpn=[b"smtp"])).info().alpn, "smtp")

    def test_equal_if_and_only_if_all_of_it_is(self) -> None:
        link = Link(self.files())
        self.assertEqual(len({link.info(), link.info()}), 1)
        self.assertNotEqual(link.info(), Link(self.files(), Client(b"x.example")).info())

    def test_no_private_library_no_tls_unique(self) -> None:
        link = Link(self.files(), Client(version=SSL.TLS1_2_VERSION))
        self.assertIsNotNone(channel_binding(link.server_tls, UNIQUE))
        self.patch(SSL, "_lib", object())
        self.patch(SESSION_REUSED, "_there", None)
        connection = link.server_tls.getHandle()
        self.patch(connection, "get_cipher_name", lambda: "some cipher")
        self.patch(connection, "get_protocol_version_name", lambda: "TLSv1.2")
        self.assertIsNone(channel_binding(connection, UNIQUE))


class ExplainTests(SynchronousTestCase):
    def test_each_kind_of_error_is_one_line(self) -> None:
        for error, said in (
            (SSL.Error([("SSL routines", "", "http request")]), "HTTP"),
            (SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]), "the client refused (unknown ca)"),
            (SSL.Error([("SSL routines", "", "strange\r\nthing")]), "strange??thing"),
            (SSL.Error([]), "no reason given"),
            (SSL.Error(), "no reason given"),
            (SSL.Error("odd"), "odd"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "hung up"),
            (ValueError("a\nb"), "a?b"),
        ):
            text = explain(error)
            self.assertIn(said, text)
            self.assertNotIn("\n", text)
