"""What is said of certificate files that are of no use."""

from __future__ import annotations

import builtins
import os
import ssl
from base64 import b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tests.support.tls_helpers import (
    TLSTestCase,
    issue,
)
from twisted_smtpd.tls import (
    CertificateFiles,
    ServerCertificates,
    TLSConfigurationError,
)


class CertificateFileErrorTests(TLSTestCase):
    """Each error is one line that names the file and what is wrong with it."""

    def check(self, path: str, said: str, *args: Any, **options: Any) -> None:
        error = self.assertRaises(TLSConfigurationError, CertificateFiles, *args, **options)
        self.assertIn(path, str(error))
        self.assertIn(said, str(error))
        self.assertNotIn("\n", str(error))

    def test_missing(self) -> None:
        missing = os.path.join(self.folder, "missing.pem")
        cert = self.write("a.crt", self.one.pem)
        self.check(missing, "no such file", missing)
        self.check(missing, "no such file", cert, missing)
        self.check(missing, "no such file", self.write("a.pem", self.one.pem, self.one.key_pem), chain=missing)

    def test_a_folder(self) -> None:
        self.check(self.folder, "is a directory", self.folder)

    def test_unreadable(self) -> None:
        # Said by a double, since the superuser reads everything.
        def refuse(path: str, mode: str) -> Any:
            raise PermissionError(13, "Permission denied", path)

        self.patch(builtins, "open", refuse)
        self.check("a.pem", "permission denied", "a.pem")

    def test_a_name_no_file_can_have(self) -> None:
        self.check("a\0b", "null", "a\0b")

    def test_no_certificate(self) -> None:
        self.check("a.pem", "no certificate", self.write("a.pem", b"hello"))
        self.check("empty.pem", "no certificate", self.write("empty.pem"))
        self.check("der.crt", "no certificate", self.write("der.crt", self.one.der))

    def test_files_swapped(self) -> None:
        cert, key = self.write("a.crt", self.one.pem), self.write("a.key", self.one.key_pem)
        self.check(key, "private key where a certificate is expected", key, cert)

    def test_damaged_certificate(self) -> None:
        damaged = self.one.pem.replace(self.one.pem.splitlines()[3], b"A" * 64)
        self.check("a.pem", "damaged certificate", self.write("a.pem", damaged, self.one.key_pem))

    def test_no_key(self) -> None:
        cert = self.write("a.crt", self.one.pem)
        self.check(cert, "no private key", cert)
        self.check(cert, "no private key", self.write("b.crt", self.one.pem), cert)

    def test_key_of_another_certificate(self) -> None:
        cert, key = self.write("a.crt", self.one.pem), self.write("b.key", self.two.key_pem)
        self.check(key, f"does not match the certificate in {cert}", cert, key)

    def test_chain_in_the_wrong_order(self) -> None:
        cert = self.write("a.crt", self.authority.pem, self.one.pem, self.one.key_pem)
        self.check(cert, "must come first; it is number 2", cert)

    def test_encrypted_key(self) -> None:
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            encrypted = self.one.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))
            key = self.write("a.key", encrypted)
            self.check(key, "encrypted", self.write("a.crt", self.one.pem), key)

    def test_damaged_key(self) -> None:
        key = self.write("a.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        self.check(key, "damaged or unknown", self.write("a.crt", self.one.pem), key)

    def test_a_kind_of_key_that_is_not_for_tls(self) -> None:
        key = x25519.X25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.write("a.key", pem)
        self.check(path, "not for TLS", self.write("a.crt", self.one.pem), path)

    def test_an_unknown_kind_of_key_in_the_certificate(self) -> None:
        # The same certificate, with an object identifier for its key that nobody has heard of.
        unknown = self.one.der.replace(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0277"))
        path = self.write(
            "a.crt", b"-----BEGIN CERTIFICATE-----\n", b64encode(unknown), b"\n-----END CERTIFICATE-----\n"
        )
        self.check("a.key", "does not match", path, self.write("a.key", self.one.key_pem))

    def test_endless_file(self) -> None:
        self.check("a.pem", "too large", self.write("a.pem", b"x" * (4 * 1024 * 1024 + 1)))

    def test_client_ca_without_certificates(self) -> None:
        both = self.write("a.pem", self.one.pem, self.one.key_pem)
        self.check("ca.pem", "no certificate", both, client_ca=self.write("ca.pem", b"nothing"))

    def test_arguments(self) -> None:
        both = self.write("a.pem", self.one.pem, self.one.key_pem)
        self.check("", "client_ca", both, require_client_certificate=True)
        self.check("", "minimum_version", both, minimum_version=ssl.TLSVersion.SSLv3)
        self.check("", "knows none", both, ciphers="NONSENSE")
        self.check("", "knows none", both, ciphers="\u00e9")
        self.assertRaises(TLSConfigurationError, ServerCertificates, [])

    def test_an_openssl_refusal_names_the_file(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        weak = issue("weak.example", key=rsa.generate_private_key(65537, 1024))
        path = self.write("weak.pem", weak.pem, weak.key_pem)
        self.check(path, "OpenSSL refuses it: ee key too small", path)
