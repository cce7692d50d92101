"""Real TLS clients with a real server: smtplib, OpenSSL's ``s_client``, swaks; certificates replaced while it runs."""

from __future__ import annotations

import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
from typing import Any
from unittest import SkipTest, skipUnless

from tests.loopback.servers import LIMIT, TWIST, ServerCase
from tests.support.tls_helpers import issue

CONNECTIONS = 200


def place(line: str, index: int) -> int:
    """The port of the n-th place in the line that names them."""
    return int(line.split(" 127.0.0.1:")[index + 1].split()[0])


class TLSClientTests(ServerCase):
    authority = issue("The Authority", ca=True)
    one = issue("localhost", issuer=authority)
    two = issue("localhost", issuer=authority)

    def setUp(self) -> None:
        super().setUp()
        self.install(self.one)
        (self.folder / "ca.pem").write_bytes(self.authority.pem)
        self.context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

    def install(self, issued: Any) -> None:
        for name, content in (("cert", issued.pem), ("key", issued.key_pem)):
            new = self.folder / f"{name}.new"
            new.write_bytes(content)
            new.rename(self.folder / f"{name}.pem")

    def serve_both(self, *words: str) -> tuple[subprocess.Popen[str], int, int]:
        """A server; the ports of its clear and of its TLS listener."""
        words = words or ("--tlscert", "cert.pem", "--tlskey", "key.pem")
        places = ("-l", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0")
        server = self.start(TWIST, "-c", "mailbox", "mail", *places, *words)
        line = self.read_until(server, " listens on ")
        return server, place(line, 0), place(line, 1)

    def stored(self) -> int:
        return len(list((self.folder / "mail" / "new").iterdir()))

    def test_smtplib_starttls_and_implicit_tls(self) -> None:
        _, clear, secure = self.serve_both()
        with smtplib.SMTP("127.0.0.1", clear, timeout=LIMIT) as client:
            self.assertRaises(smtplib.SMTPResponseException, client.sendmail, "a@x.example", "b@y.example", "x")
        with smtplib.SMTP("127.0.0.1", clear, timeout=LIMIT) as client:
            client._host = "localhost"  # type: ignore[attr-defined]
            client.starttls(context=self.context)
            self.assertNotIn("starttls", client.esmtp_features)
            client.sendmail("a@x.example", "b@y.example", "Subject: hi\r\n\r\nhello")
        with smtplib.SMTP_SSL("localhost", secure, timeout=LIMIT, context=self.context) as client:
            client.sendmail("a@x.example", "b@y.example", "Subject: hi\r\n\r\n" + "x" * 70 + "\r\n" * 50_000)
        self.assertEqual(self.stored(), 2)

    def test_sessions_are_resumed_until_the_certificate_is_renewed(self) -> None:
        server, _, secure = self.serve_both()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.context.minimum_version = self.context.maximum_version = version

            def connect(session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
                plain = socket.create_connection(("127.0.0.1", secure), timeout=LIMIT)
                self.addCleanup(plain.close)
                client = self.context.wrap_socket(plain, server_hostname="localhost", session=session)
                self.addCleanup(client.close)
                # The tickets come with the greeting.
                self.assertEqual(client.recv(100)[:4], b"220 ")
                return client

            first = connect()
            self.assertFalse(first.session_reused)
            self.assertTrue(connect(first.session).session_reused)
            server.send_signal(signal.SIGHUP)
            self.read_until(server, "certificates reloaded")
            self.assertFalse(connect(first.session).session_reused)

    @skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_openssl_s_client(self) -> None:
        _, clear, secure = self.serve_both()
        for port, how in ((clear, ["-starttls", "smtp", "-name", "client.example"]), (secure, [])):
            for version in ("-tls1_2", "-tls1_3"):
                command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", "ca.pem", "-crlf"]
                command += ["-servername", "localhost", "-verify_return_error", "-quiet", version, *how]
                run = subprocess.run(
                    command,
                    cwd=self.folder,
                    input="EHLO client.example\nNOOP\nQUIT\n",
                    capture_output=True,
                    text=True,
                    timeout=LIMIT,
                )
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertIn("250-REQUIRETLS", run.stdout)
                self.assertIn("221 2.0.0 Bye", run.stdout)

    @skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_new_keys_within_a_connection(self) -> None:
        """RFC 8446 section 4.6.3, with either library: the client changes its key, and asks for one of the server."""
        certificate = ("--tlscert", "cert.pem", "--tlskey", "key.pem")
        for words in (certificate, (*certificate, "--tls-client-ca", "ca.pem")):
            _, _, secure = self.serve_both(*words)
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{secure}", "-crlf", "-tls1_3"]
            client = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.addCleanup(client.communicate, timeout=LIMIT)
            self.read_until(client, "220 ")
            assert client.stdin is not None
            for order, answer in (
                *(("k\n", "KEYUPDATE"), ("NOOP\n", "250 2.0.0")),
                *(("K\n", "KEYUPDATE"), ("NOOP\n", "250 2.0.0")),
                *(("K\n", "KEYUPDATE"), ("quit\n", "221 2.0.0")),
            ):
                client.stdin.write(order)
                client.stdin.flush()
                self.read_until(client, answer)

    @skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_versions_before_tls_1_2_are_refused(self) -> None:
        server, _, secure = self.serve_both()
        run = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{secure}", "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"],
            input="",
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.assertNotEqual(run.returncode, 0)
        self.read_until(server, "too old")

    @skipUnless(shutil.which("swaks"), "swaks is not installed")
    def test_swaks(self) -> None:
        _, clear, secure = self.serve_both()
        for port, how in ((clear, "--tls"), (secure, "--tls-on-connect")):
            run = subprocess.run(
                ["swaks", "--server", f"127.0.0.1:{port}", how, "--to", "b@y.example", "--from", "a@x.example"],
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
            if "requires Net::SSLeay" in run.stdout + run.stderr:
                raise SkipTest("swaks has no TLS here: Net::SSLeay is not installed")
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertEqual(self.stored(), 2)

    def test_a_handshake_that_stalls_or_fails_ends_and_is_logged_once(self) -> None:
        server, clear, secure = self.serve_both("--tls-self-signed", "--handshake-timeout=1")
        for port, sent, reason in (
            (secure, b"", "no end of the TLS handshake within 1 s"),
            (secure, b"EHLO client.example\r\n", "the client does not speak TLS"),
            (clear, b"EHLO client.example\r\nSTARTTLS\r\n", "no end of the TLS handshake within 1 s"),
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
                client.sendall(sent[:-10] if port == clear else sent)
                if port == clear:
                    replies = client.makefile("rb")
                    while not replies.readline().startswith(b"250 "):
                        pass
                    client.sendall(sent[-10:])
                    self.assertEqual(replies.readline()[:4], b"220 ")
                try:
                    while client.recv(100):
                        pass
                except ConnectionResetError:
                    pass
            self.assertIn("127.0.0.1", self.read_until(server, reason))
        server.terminate()
        output, _ = server.communicate(timeout=LIMIT)
        self.assertNotIn("TLS handshake", output)
        self.assertNotIn("Traceback", output)

    def test_a_throw_away_certificate(self) -> None:
        _, clear, secure = self.serve_both("--tls-self-signed")
        with smtplib.SMTP("127.0.0.1", clear, timeout=LIMIT) as client:
            client.sendmail("a@x.example", "b@y.example", "x")
            self.assertIn("starttls", client.esmtp_features)
        with self.assertRaises(ssl.SSLCertVerificationError):
            smtplib.SMTP_SSL("localhost", secure, timeout=LIMIT, context=self.context)

    def test_sighup_replaces_the_certificate_under_200_open_connections(self) -> None:
        server, _, secure = self.serve_both(
            "--tlscert", "cert.pem", "--tlskey", "key.pem", f"--max-connections-per-address={CONNECTIONS + 10}"
        )
        clients = [self.dial(secure) for _ in range(CONNECTIONS)]
        for client in clients:
            self.assertEqual(self.presented(client), self.one.der)
        self.install(self.two)
        server.send_signal(signal.SIGHUP)
        self.read_until(server, "certificates reloaded")
        for client in clients:
            client.sendall(b"NOOP\r\n")
        for client in clients:
            self.assertEqual(client.recv(100), b"250 2.0.0 OK\r\n")
        self.assertEqual(self.presented(self.dial(secure)), self.two.der)

    def dial(self, port: int) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        client = self.context.wrap_socket(raw, server_hostname="localhost")
        self.addCleanup(client.close)
        self.assertEqual(client.recv(100)[:4], b"220 ")
        return client

    def presented(self, client: ssl.SSLSocket) -> bytes:
        certificate = client.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate
