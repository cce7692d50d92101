"""Both ends of a TLS connection in memory, with certificates made for the occasion."""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_smtpd.tls import (
    CertificateFiles,
    TLSInfo,
    connection_creator,
    describe,
)

NOW = datetime.datetime.now(datetime.timezone.utc)
UNIQUE = "tls-unique"
END_POINT = "tls-server-end-point"
EXPORTER = "tls-exporter"


@dataclass
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def issue(*names: str, issuer: Issued | None = None, ca: bool = False, key: Any = None, digest: Any = None) -> Issued:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    signer = key if issuer is None else issuer.key
    # Clients that verify strictly (Python 3.13 on) insist on what RFC 5280 section 4.2.1 says of these.
    for extension, critical in (
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
        (key_usage(ca), True),
    ):
        builder = builder.add_extension(extension, critical=critical)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else (digest or hashes.SHA256())
    return Issued(builder.sign(signer, algorithm), key)


class Recorder(Protocol):
    """Keeps what it received, and why it ended."""

    ended: Failure | None = None

    def connectionMade(self) -> None:
        self.received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.ended = reason


class QuitsAtOnce(Recorder):
    """Closes with the first data it gets."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.loseConnection()


@implementer(IOpenSSLClientConnectionCreator)
class Client:
    """A client's side, with everything adjustable."""

    def __init__(
        self,
        name: bytes | None = None,
        *,
        version: int | None = None,
        identity: Issued | None = None,
        alpn: list[bytes] | None = None,
    ) -> None:
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if version is not None:
            self.context.set_max_proto_version(version)
            self.context.set_min_proto_version(version)
            self.context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        if identity is not None:
            self.context.use_certificate(identity.certificate)
            self.context.use_privatekey(identity.key)
        if alpn:
            self.context.set_alpn_protos(alpn)
        self.name = name
        self.session: Any = None

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self.context, None)
        if self.name is not None:
            connection.set_tlsext_host_name(self.name)
        if self.session is not None:
            connection.set_session(self.session)
        return connection


class Splitting(FakeTransport):
    """Delivers what it gets in pieces of one octet."""

    def bufferReceived(self, buf: bytes) -> None:
        for octet in buf:
            self.protocol.dataReceived(bytes([octet]))


class Link:
    """A server and a client, joined by TLS in memory."""

    def __init__(
        self,
        creator: Any,
        client: Client | None = None,
        *,
        server: type[Recorder] = Recorder,
        transport: type[FakeTransport] = FakeTransport,
    ) -> None:
        self.clock = Clock()
        self.server_tls = self._wrap(connection_creator(creator), False, server)
        self.client_tls = self._wrap(client or Client(), True, Recorder)
        self.server: Any = self.server_tls.wrappedProtocol
        self.client: Any = self.client_tls.wrappedProtocol
        self.server_io = transport(self.server_tls, isServer=True)
        self.client_io = transport(self.client_tls, isServer=False)
        self.pump: IOPump = connect(self.server_tls, self.server_io, self.client_tls, self.client_io, clock=self.clock)

    def _wrap(self, creator: Any, is_client: bool, protocol: type[Protocol]) -> Any:
        factory = TLSMemoryBIOFactory(creator, is_client, Factory.forProtocol(protocol), self.clock)
        return factory.buildProtocol(None)

    def exchange(self, up: bytes = b"up", down: bytes = b"down") -> tuple[bytes, bytes]:
        self.client_tls.write(up)
        self.server_tls.write(down)
        self.pump.flush()
        return bytes(self.server.received), bytes(self.client.received)

    def presented(self) -> bytes:
        """The certificate the client got, in DER."""
        certificate = self.client_tls.getHandle().get_peer_certificate()
        return certificate.to_cryptography().public_bytes(Encoding.DER)

    def info(self) -> TLSInfo:
        return describe(self.server_tls)


class Raw:
    """A server whose client sends what the test wants."""

    def __init__(self, creator: Any) -> None:
        self.clock = Clock()
        factory = TLSMemoryBIOFactory(connection_creator(creator), False, Factory.forProtocol(Recorder), self.clock)
        self.tls: Any = factory.buildProtocol(None)
        self.protocol: Any = self.tls.wrappedProtocol
        self.transport = StringTransport()
        self.transport.abortConnection = self.transport.loseConnection
        self.tls.makeConnection(self.transport)

    @property
    def reason(self) -> BaseException:
        assert self.protocol.ended is not None
        return self.protocol.ended.value


class TLSTestCase(SynchronousTestCase):
    """Some certificates, and files and contexts made of them."""

    authority = issue("The Authority", ca=True)
    one = issue("one.example", issuer=authority)
    two = issue("two.example", "*.two.example", issuer=authority)
    known = issue("client.example", issuer=authority)
    stranger = issue("stranger.example")

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)

    def write(self, name: str, *parts: bytes) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(b"".join(parts))
        return path

    def files(self, issued: Issued | None = None, name: str = "server", **options: Any) -> CertificateFiles:
        issued = issued or self.one
        cert = self.write(f"{name}.crt", issued.pem, self.authority.pem)
        return CertificateFiles(cert, self.write(f"{name}.key", issued.key_pem), **options)

    def stdlib(self, issued: Issued | None = None) -> ssl.SSLContext:
        issued = issued or self.one
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.write("std.pem", issued.pem, self.authority.pem, issued.key_pem))
        return context

    def options(self) -> CertificateOptions:
        key = crypto.PKey.from_cryptography_key(self.one.key)
        return CertificateOptions(privateKey=key, certificate=crypto.X509.from_cryptography(self.one.certificate))

    def assertPasses(self, link: Link) -> None:
        self.assertEqual(link.exchange(), (b"up", b"down"))

    def assertFails(self, link: Link) -> None:
        self.assertEqual(bytes(link.server.received), b"")
        self.assertIsNotNone(link.server.ended)


def client_hello() -> bytes:
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(2**15)


def resumed(link: Link) -> bool:
    return bool(SSL._lib.SSL_session_reused(link.client_tls.getHandle()._ssl))
