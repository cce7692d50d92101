"""Certificate files: names, reload, client certificates; and the throw-away certificate."""

from __future__ import annotations

import contextlib
import gc
import os
import ssl
import weakref
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from tests.support.tls_helpers import (
    END_POINT,
    Client,
    Issued,
    Link,
    Raw,
    TLSTestCase,
    client_hello,
    issue,
    resumed,
)
from twisted_smtpd.tls import (
    CertificateFiles,
    ServerCertificates,
    TLSConfigurationError,
    channel_binding,
    describe,
    explain,
    self_signed,
)
from twisted_smtpd.tls.contexts import SSLObjectConnection


class CertificateFilesTests(TLSTestCase):
    def test_key_and_chain_in_one_file(self) -> None:
        path = self.write("all.pem", self.one.key_pem, self.one.pem, self.authority.pem)
        link = Link(CertificateFiles(path))
        self.assertEqual(link.presented(), self.one.der)
        self.assertEqual(len(link.client_tls.getHandle().get_peer_cert_chain()), 2)

    def test_chain_in_a_file_of_its_own(self) -> None:
        # "fullchain" and "chain" are easily confused: the server's own certificate is sent only once.
        chain = self.write("chain.pem", self.one.pem, self.authority.pem)
        creator = CertificateFiles(
            self.write("a.crt", self.one.pem), self.write("a.key", self.one.key_pem), chain=chain
        )
        self.assertEqual(len(Link(creator).client_tls.getHandle().get_peer_cert_chain()), 2)

    def test_an_ed25519_key(self) -> None:
        issued = issue("ed.example", key=ed25519.Ed25519PrivateKey.generate())
        link = Link(self.files(issued))
        self.assertPasses(link)
        # It is signed by itself, with no hash function to take from its signature.
        self.assertIsNone(channel_binding(link.server_tls, END_POINT))

    def test_old_versions_of_tls_are_refused(self) -> None:
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            link = Link(self.files(), Client(version=version))
            self.assertFails(link)
            self.assertIn("too old", explain(link.server.ended.value))

    def test_tls13_only(self) -> None:
        creator = self.files(minimum_version=ssl.TLSVersion.TLSv1_3)
        self.assertPasses(Link(creator))
        self.assertFails(Link(creator, Client(version=SSL.TLS1_2_VERSION)))

    def test_ciphers(self) -> None:
        creator = self.files(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
        link = Link(creator, Client(version=SSL.TLS1_2_VERSION))
        self.assertEqual(link.info().cipher, "ECDHE-ECDSA-AES128-GCM-SHA256")

    def test_the_server_prefers_its_own_order_of_ciphers(self) -> None:
        strong, fast = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"
        for first, second in ((strong, fast), (fast, strong)):
            client = Client(version=SSL.TLS1_2_VERSION)
            client.context.set_cipher_list(f"{second}:{first}".encode())
            self.assertEqual(Link(self.files(ciphers=f"{first}:{second}"), client).info().cipher, first)

    def test_renegotiation_is_refused(self) -> None:
        link = Link(self.files(), Client(version=SSL.TLS1_2_VERSION))
        client = link.client_tls.getHandle()
        finished = client.get_finished()
        client.renegotiate()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        link.client_tls._flushSendBIO()
        link.pump.flush()
        self.assertEqual(client.get_finished(), finished)

    def test_end_point_binding_where_the_hash_is_weak_or_unknown(self) -> None:
        link = Link(self.files())
        connection = link.server_tls.getHandle()
        fingerprint = self.one.certificate.fingerprint

        class Own:
            signature_hash_algorithm: Any = None

            def to_cryptography(self) -> Own:
                return self

            def fingerprint(self, algorithm: Any) -> bytes:
                return fingerprint(algorithm)

        class Unknown(Own):
            @property
            def signature_hash_algorithm(self) -> Any:  # type: ignore[override]
                raise UnsupportedAlgorithm("new")

        own = Own()
        for weak in (hashes.MD5(), hashes.SHA1()):
            own.signature_hash_algorithm = weak
            self.patch(connection, "get_certificate", lambda: own)
            self.assertEqual(channel_binding(connection, END_POINT), fingerprint(hashes.SHA256()))
        for none in (Unknown(), None):
            self.patch(connection, "get_certificate", lambda none=none: none)
            self.assertIsNone(channel_binding(connection, END_POINT))

    def test_end_point_binding_of_a_certificate_signed_with_sha384(self) -> None:
        issued = issue("one.example", issuer=self.authority, digest=hashes.SHA384())
        link = Link(self.files(issued))
        self.assertEqual(channel_binding(link.server_tls, END_POINT), issued.certificate.fingerprint(hashes.SHA384()))


class ServerNameTests(TLSTestCase):
    def setUp(self) -> None:
        super().setUp()
        pairs = []
        for name, issued in (("one", self.one), ("two", self.two)):
            pairs.append((self.write(f"{name}.crt", issued.pem), self.write(f"{name}.key", issued.key_pem)))
        self.certificates = ServerCertificates(pairs)

    def presented(self, name: bytes | None) -> bytes:
        link = Link(self.certificates, Client(name))
        self.assertPasses(link)
        return link.presented()

    def test_the_certificate_is_chosen_by_name(self) -> None:
        self.assertEqual(self.presented(b"one.example"), self.one.der)
        self.assertEqual(self.presented(b"two.example"), self.two.der)

    def test_names_have_no_case_and_may_end_in_a_dot(self) -> None:
        self.assertEqual(self.presented(b"TWO.Example"), self.two.der)
        self.assertEqual(self.presented(b"two.example."), self.two.der)

    def test_a_wildcard_stands_for_one_label(self) -> None:
        self.assertEqual(self.presented(b"mx.two.example"), self.two.der)
        self.assertEqual(self.presented(b"a.mx.two.example"), self.one.der)

    def test_the_first_is_for_everybody_else(self) -> None:
        self.assertEqual(self.presented(None), self.one.der)
        self.assertEqual(self.presented(b"elsewhere.example"), self.one.der)
        self.assertEqual(self.presented(b"\xff\xfe.\x01"), self.one.der)
        self.assertEqual(self.presented(b"*"), self.one.der)

    def test_the_end_point_binding_is_of_the_certificate_chosen(self) -> None:
        link = Link(self.certificates, Client(b"two.example"))
        self.assertEqual(channel_binding(link.server_tls, END_POINT), self.two.certificate.fingerprint(hashes.SHA256()))

    def test_sessions_are_resumed_with_the_certificate_chosen(self) -> None:
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = Client(b"two.example", version=version)
            first = Link(self.certificates, client)
            self.assertPasses(first)
            client.session = first.client_tls.getHandle().get_session()
            second = Link(self.certificates, client)
            self.assertTrue(resumed(second))
            self.assertPasses(second)

    def test_a_common_name_counts_only_without_other_names(self) -> None:
        bare = issue("bare.example", ca=True)
        path = self.write("bare.pem", bare.pem, bare.key_pem)
        first = self.write("one.pem", self.one.pem, self.one.key_pem)
        creator = ServerCertificates([(first, None), (path, None)])
        self.assertEqual(Link(creator, Client(b"bare.example")).presented(), bare.der)


class OldVersionTests(TLSTestCase):
    """TLS 1.0 for old devices, with either library."""

    def files_of_each(self, **options: Any) -> Iterator[CertificateFiles]:
        for by_ssl in (False, True):
            files = self.files(name=f"server{by_ssl}", **options)
            if by_ssl:
                files.choose_engine(exporter=False)
                self.assertIsInstance(files.engine(), SSLObjectConnection)
            yield files

    def test_it_works_where_it_is_the_minimum(self) -> None:
        for files in self.files_of_each(minimum_version=ssl.TLSVersion.TLSv1):
            self.assertPasses(Link(files, Client(version=SSL.TLS1_VERSION)))

    def test_it_does_not_by_default(self) -> None:
        for files in self.files_of_each():
            self.assertFails(Link(files, Client(version=SSL.TLS1_VERSION)))


class SSLServerNameTests(ServerNameTests):
    """The same with the contexts of the standard library."""

    def setUp(self) -> None:
        super().setUp()
        self.certificates.choose_engine(exporter=False)
        self.assertIsInstance(self.certificates.engine(), SSLObjectConnection)

    def test_the_first_is_for_everybody_else(self) -> None:
        for name in (None, b"elsewhere.example", b"*"):
            self.assertEqual(self.presented(name), self.one.der)

    def test_the_end_point_binding_is_of_the_certificate_chosen(self) -> None:
        """This library has no such binding."""
        self.assertIsNone(channel_binding(Link(self.certificates, Client(b"two.example")).server_tls, END_POINT))


class ReloadTests(TLSTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.creator = self.files(check_interval=10, clock=self.clock)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def replace(self, issued: Issued) -> None:
        self.write("server.key.new", issued.key_pem)
        self.write("server.crt.new", issued.pem)
        for name in ("server.key", "server.crt"):
            os.replace(os.path.join(self.folder, f"{name}.new"), os.path.join(self.folder, name))

    def presented(self) -> bytes:
        return Link(self.creator).presented()

    def test_a_changed_file_is_used_for_new_connections(self) -> None:
        self.replace(self.two)
        self.clock.advance(10)
        self.assertEqual(self.presented(), self.two.der)

    def test_files_are_looked_at_only_now_and_then(self) -> None:
        self.replace(self.two)
        self.clock.advance(9.9)
        self.assertEqual(self.presented(), self.one.der)
        looked = []
        self.patch(os, "stat", lambda *args, _stat=os.stat: looked.append(args) or _stat(*args))
        self.clock.advance(0.1)
        for _ in range(100):
            self.creator.serverConnectionForTLS(None)
        self.assertEqual(len(looked), 2)

    def test_reload_does_not_wait(self) -> None:
        self.replace(self.two)
        self.assertTrue(self.creator.reload())
        self.assertEqual(self.presented(), self.two.der)

    def test_established_connections_go_on(self) -> None:
        links = [Link(self.creator) for _ in range(200)]
        begun = Raw(self.creator)
        hello = client_hello()
        begun.tls.dataReceived(hello[:100])
        self.replace(self.two)
        self.creator.reload()
        for link in links:
            self.assertPasses(link)
            self.assertEqual(link.presented(), self.one.der)
        # A handshake begun before is finished with what it began with.
        begun.tls.dataReceived(hello[100:])
        self.assertEqual(begun.transport.value()[:1], b"\x16")
        self.assertEqual(self.presented(), self.two.der)

    def test_a_bad_file_keeps_the_old_certificate_and_is_logged_once(self) -> None:
        self.write("server.key", self.two.key_pem)
        for _ in range(5):
            self.clock.advance(10)
            self.assertEqual(self.presented(), self.one.der)
        events = self.errors()
        self.assertEqual(len(events), 1)
        self.assertIn("does not match", events[0])
        # Written in two steps: with the second, all is well.
        self.write("server.crt", self.two.pem)
        self.clock.advance(10)
        self.assertEqual(self.presented(), self.two.der)

    def test_a_missing_file_keeps_the_old_certificate(self) -> None:
        os.remove(os.path.join(self.folder, "server.crt"))
        self.clock.advance(10)
        self.assertEqual(self.presented(), self.one.der)
        self.assertIn("no such file", self.errors()[0])

    def test_an_explicit_reload_says_each_time_why_not(self) -> None:
        self.write("server.key", b"")
        self.assertFalse(self.creator.reload())
        self.assertFalse(self.creator.reload())
        self.assertEqual(len(self.errors()), 2)
        self.assertEqual(self.presented(), self.one.der)

    def test_tickets_of_the_old_certificate_lead_to_a_full_handshake(self) -> None:
        client = Client(version=SSL.TLS1_3_VERSION)
        first = Link(self.creator, client)
        self.assertPasses(first)
        client.session = first.client_tls.getHandle().get_session()
        self.replace(self.two)
        self.creator.reload()
        second = Link(self.creator, client)
        self.assertFalse(resumed(second))
        self.assertPasses(second)

    def test_what_a_handshake_began_with_lives_as_long_as_it_does(self) -> None:
        pairs = []
        for issued in (self.one, self.two):
            name = issued.certificate.subject.rfc4514_string()
            pairs.append((self.write(name, issued.pem, issued.key_pem), None))
        creator = ServerCertificates(pairs)
        link = Link(creator, Client(b"two.example"))
        before = weakref.ref(creator._contexts)
        creator.reload()
        gc.collect()
        self.assertIsNotNone(before())
        link.server_tls.connectionLost(Failure(RuntimeError("gone")))
        gc.collect()
        self.assertIsNone(before())

    def test_a_changed_client_ca_is_used(self) -> None:
        other = issue("Other Authority", ca=True)
        ca = self.write("ca.pem", other.pem)
        creator = self.files(client_ca=ca, check_interval=0, clock=self.clock)
        self.assertFalse(Link(creator, Client(identity=self.known)).info().peer_verified)
        self.write("ca.pem", other.pem, self.authority.pem)
        self.assertTrue(Link(creator, Client(identity=self.known)).info().peer_verified)

    def errors(self) -> list[str]:
        """What was logged as errors of this module."""
        return [
            formatEvent(event)
            for event in self.events
            if event["log_level"] is LogLevel.error and event["log_namespace"] == "twisted_smtpd.tls.certificates"
        ]


class ClientCertificateTests(TLSTestCase):
    def creator(self, **options: Any) -> CertificateFiles:
        return self.files(client_ca=self.write("ca.pem", self.authority.pem), **options)

    def test_a_known_one_is_verified(self) -> None:
        for required in (False, True):
            info = Link(self.creator(require_client_certificate=required), Client(identity=self.known)).info()
            self.assertEqual(info.peer_certificate, self.known.der)
            self.assertTrue(info.peer_verified)

    def test_an_unknown_one_passes_unverified_where_optional(self) -> None:
        link = Link(self.creator(), Client(identity=self.stranger))
        self.assertPasses(link)
        self.assertEqual(link.info().peer_certificate, self.stranger.der)
        self.assertFalse(link.info().peer_verified)

    def test_none_is_needed_where_optional(self) -> None:
        link = Link(self.creator())
        self.assertPasses(link)
        self.assertIsNone(link.info().peer_certificate)
        self.assertFalse(link.info().peer_verified)

    def test_an_unknown_one_is_refused_where_required(self) -> None:
        link = Link(self.creator(require_client_certificate=True), Client(identity=self.stranger))
        self.assertFails(link)
        self.assertIn("can't be verified", explain(link.server.ended.value))

    def test_none_is_refused_where_required(self) -> None:
        link = Link(self.creator(require_client_certificate=True))
        self.assertFails(link)
        self.assertIn("has no certificate", explain(link.server.ended.value))

    def test_a_resumed_session_never_makes_an_unverified_certificate_verified(self) -> None:
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            creator = self.creator()
            client = Client(identity=self.stranger, version=version)
            first = Link(creator, client)
            self.assertPasses(first)
            client.session = first.client_tls.getHandle().get_session()
            second = Link(creator, client)
            self.assertPasses(second)
            self.assertFalse(second.info().peer_verified)

    def test_the_authorities_are_named(self) -> None:
        named = Link(self.creator()).client_tls.getHandle().get_client_ca_list()
        self.assertEqual([name.CN for name in named], ["The Authority"])

    def test_so_many_authorities_that_twisted_reads_only_a_part(self) -> None:
        authorities = [issue(f"{number:060}", ca=True, key=self.authority.key) for number in range(500)]
        creator = self.files(client_ca=self.write("ca.pem", *(authority.pem for authority in authorities)))
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            link = Link(creator, Client(version=version))
            self.assertPasses(link)
            self.assertEqual(len(link.client_tls.getHandle().get_client_ca_list()), 500)

    def test_nobody_is_asked_without_client_ca(self) -> None:
        link = Link(self.files(), Client(identity=self.known))
        self.assertIsNone(link.info().peer_certificate)


class SelfSignedTests(TLSTestCase):
    def names(self, hostname: str) -> tuple[list[str], list[str]]:
        certificate = x509.load_pem_x509_certificate(self_signed(hostname).certificate_pem)
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = [str(address) for address in value.get_values_for_type(x509.IPAddress)]
        return value.get_values_for_type(x509.DNSName), addresses

    def test_it_serves(self) -> None:
        self.assertPasses(Link(self_signed("mail.example")))

    def test_its_names(self) -> None:
        local = ["127.0.0.1", "::1"]
        self.assertEqual(self.names("Mail.Example"), (["localhost", "mail.example"], local))
        self.assertEqual(self.names("localhost"), (["localhost"], local))
        self.assertEqual(self.names("192.0.2.1"), (["localhost"], [*local, "192.0.2.1"]))
        self.assertEqual(self.names("[2001:db8::1]"), (["localhost"], [*local, "2001:db8::1"]))
        self.assertEqual(self.names("b\u00fccher.example")[0], ["localhost", "xn--bcher-kva.example"])

    def test_a_client_that_trusts_it_accepts_it(self) -> None:
        creator = self_signed("mail.example")
        context = ssl.create_default_context(cadata=creator.certificate_pem.decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        raw = Raw(creator)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        raw.tls.dataReceived(outgoing.read())
        incoming.write(raw.transport.value())
        client.do_handshake()
        raw.tls.dataReceived(outgoing.read())
        self.assertEqual(client.version(), describe(raw.tls).version)

    def test_it_has_what_rfc_5280_wants_of_a_certificate(self) -> None:
        extensions = x509.load_pem_x509_certificate(self_signed("mail.example").certificate_pem).extensions
        subject = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        self.assertEqual(issuer.key_identifier, subject.digest)
        self.assertTrue(extensions.get_extension_for_class(x509.KeyUsage).critical)

    def test_each_is_new(self) -> None:
        self.assertNotEqual(self_signed("a.example").certificate_pem, self_signed("a.example").certificate_pem)

    def test_what_is_no_host_name_is_refused(self) -> None:
        for name in ("", "a b", "a..b", "x" * 64 + ".example", "a\r\nb", "-", "*"):
            self.assertRaises(TLSConfigurationError, self_signed, name)
