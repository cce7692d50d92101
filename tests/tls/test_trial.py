"""Throw-away certificates in a folder."""

from __future__ import annotations

import datetime
import os
import ssl
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.trial.unittest import SynchronousTestCase

from tests.support.command_line import CommandLine
from twisted_smtpd.tls import CertificateFiles, TLSConfigurationError, self_signed, trial
from twisted_smtpd.tls.trial import written


def handshake(files: trial.Files, name: str, server: ssl.SSLContext | None = None) -> str | None:
    """A handshake in memory of a client that trusts the authority, and checks strictly; its version."""
    if server is None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=str(files.authority))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    pipes = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    one = client.wrap_bio(pipes[0], pipes[1], server_hostname=name)
    two = server.wrap_bio(pipes[1], pipes[0], server_side=True)
    for _ in range(4):
        for side in (one, two):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return one.version()


class WrittenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())

    def test_clients_that_are_given_the_authority_trust_the_server(self) -> None:
        files = written(self.folder, "mx.example")
        for name in ("mx.example", "localhost", "127.0.0.1"):
            self.assertEqual(handshake(files, name), "TLSv1.3")
        self.assertRaises(ssl.SSLCertVerificationError, handshake, files, "other.example")

    def test_the_key_is_private_and_that_of_the_authority_is_nowhere(self) -> None:
        former = os.umask(0)
        self.addCleanup(os.umask, former)
        files = written(self.folder, "mx.example")
        self.assertEqual(stat.S_IMODE(files.key.stat().st_mode), 0o600)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["ca.pem", "cert.pem", "key.pem"])
        for path in (files.certificate, files.authority):
            self.assertNotIn("PRIVATE", path.read_text())
        self.assertEqual(files.key.read_text().count("BEGIN PRIVATE KEY"), 1)

    def test_what_is_there_and_will_do_stays(self) -> None:
        before = written(self.folder, "mx.example").certificate.read_bytes()
        self.assertEqual(written(self.folder, "mx.example").certificate.read_bytes(), before)
        self.assertNotEqual(written(self.folder, "other.example").certificate.read_bytes(), before)

    def test_rsa_on_request(self) -> None:
        files = written(self.folder, "mx.example", rsa=True)
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        self.assertIsInstance(certificate.public_key(), rsa.RSAPublicKey)
        self.assertIsNotNone(handshake(files, "mx.example"))

    def test_one_that_is_about_to_end_is_replaced(self) -> None:
        self.patch(trial, "VALID", datetime.timedelta(days=1.5))
        before = written(self.folder, "mx.example").certificate.read_bytes()
        self.assertNotEqual(written(self.folder, "mx.example").certificate.read_bytes(), before)

    def test_a_certificate_of_somebody_else_is_not_overwritten(self) -> None:
        self.folder.mkdir()
        made = written(self.mktemp(), "mx.example")
        (self.folder / "key.pem").write_bytes(made.key.read_bytes())
        error = self.assertRaises(TLSConfigurationError, written, self.folder, "mx.example")
        self.assertIn("remove", str(error))
        self.assertEqual((self.folder / "key.pem").read_bytes(), made.key.read_bytes())

    def test_a_folder_that_can_not_be_written(self) -> None:
        self.assertRaises(TLSConfigurationError, written, "/dev/null/x", "mx.example")


class OptionTests(CommandLine):
    def test_a_certificate_is_written_and_used(self) -> None:
        folder = self.mktemp()
        options = self.parse("--tls-self-signed", "--tls-write-to", folder)
        self.assertIsInstance(options.server_options()["tls_context"], object)
        self.assertEqual(len(options.certificates), 1)
        self.assertEqual(len(os.listdir(folder)), 3)

    def test_check_writes_nothing(self) -> None:
        folder = self.mktemp()
        self.parse("--tls-self-signed", "--tls-write-to", folder, "--check")
        self.assertFalse(os.path.exists(folder))

    def test_they_need_the_throw_away_certificate(self) -> None:
        for words in (["--tls-write-to", "x"], ["--tls-rsa"], ["--requiretls"]):
            self.assertIn("needs --tls-self-signed", self.refused(*words))

    def test_implicit_tls_is_for_the_listeners(self) -> None:
        options = self.parse("--tls-self-signed", "--implicit-tls", "-l", "127.0.0.1:465")
        self.assertTrue(all(listener.secure for listener in options.listeners))
        self.assertIn("--implicit-tls needs", self.refused("--implicit-tls"))

    def test_old_versions_are_allowed_loudly(self) -> None:
        import twisted_smtpd.cli.tls as module

        said: list[str] = []
        self.patch(module.log, "warn", lambda text, **values: said.append(text.format(**values)))
        self.parse("--tls-self-signed", "--tls-minimum=1.0")
        self.assertTrue(any("TLS 1.0 IS ALLOWED" in text for text in said), said)
        self.assertIn("--tls-minimum: '1.4'", self.refused("--tls-minimum=1.4"))

    def test_an_old_client_is_served(self) -> None:
        files = written(self.mktemp(), "mx.example")
        old = ssl.TLSVersion.TLSv1
        CertificateFiles(files.certificate, files.key, minimum_version=old)
        self_signed("mx.example", rsa=True, minimum_version=old)
