"""Real mail clients sign in: smtplib, swaks, curl, GNU SASL; each with every mechanism it knows."""

from __future__ import annotations

import shutil
import smtplib
import ssl
import subprocess
import sys
from unittest import skipUnless

from tests.loopback.servers import LIMIT, TWIST, ServerCase
from tests.support.tls_helpers import TLSTestCase, issue
from twisted_smtpd.auth import set_password

CURL = shutil.which("curl") or ""
GSASL = shutil.which("gsasl") or ""
HTPASSWD = shutil.which("htpasswd") or ""
SWAKS = shutil.which("swaks") or ""

USER, PASSWORD = "anne", "correct horse"
TOKEN = "ya29.token"

SERVER = """
import sys
from twisted.internet import endpoints, reactor
from twisted_smtpd import SMTPFactory
from twisted_smtpd.auth import AuthResult, Identity, PasswordFile
from twisted_smtpd.tls import CertificateFiles

class Authenticator(PasswordFile):
    mechanisms = PasswordFile.mechanisms.fget(PasswordFile(sys.argv[1])) | {"CRAM-MD5", "XOAUTH2", "OAUTHBEARER"}

    async def __call__(self, server, session, envelope, mechanism, data):
        if mechanism == "CRAM-MD5":
            right = data.login == b"anne" and data.check(b"correct horse")
        elif mechanism in ("XOAUTH2", "OAUTHBEARER"):
            right = (data.login, data.token) == (b"anne", "ya29.token")
        else:
            return await super().__call__(server, session, envelope, mechanism, data)
        return AuthResult(success=right, handled=False, auth_data=Identity(data.login))

class Handler:
    async def handle_DATA(self, server, session, envelope):
        return f"250 From {session.login_data.decode()}"

authenticator = Authenticator(sys.argv[1])
factory = SMTPFactory(
    Handler(), hostname="localhost", authenticator=authenticator, auth_mechanisms=authenticator.mechanisms,
    auth_required=True, auth_require_tls=sys.argv[3] == "tls",
    tls_context=CertificateFiles(sys.argv[2], sys.argv[2]) if sys.argv[3] == "tls" else None,
)
def listening(port):
    print("listening on 127.0.0.1:%d" % port.getHost().port, flush=True)
endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory).addCallback(listening)
reactor.run()
"""


class ClientTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.users = self.folder / "users"
        set_password(self.users, USER, PASSWORD, kind="scrypt", scram=True)
        issued = issue("localhost", issuer=TLSTestCase.authority)
        self.certificate = self.folder / "server.pem"
        self.certificate.write_bytes(issued.pem + issued.key_pem)
        (self.folder / "server.py").write_text(SERVER)

    def listen(self, tls: bool = False) -> int:
        words = (str(self.users), str(self.certificate), "tls" if tls else "clear")
        server = self.start((str(self.folder / "server.py"),), *words)
        return int(self.read_until(server, "listening on").rpartition(":")[2])

    def run_client(self, *words: str, stdin: str = "") -> str:
        ended = subprocess.run(
            words, capture_output=True, text=True, timeout=LIMIT, input=stdin, cwd=self.folder, env=self.environment
        )
        return f"{ended.stdout}{ended.stderr}\nended with {ended.returncode}"

    # smtplib

    def test_smtplib(self) -> None:
        port = self.listen()
        for method in ("cram_md5", "plain", "login"):
            for initial in (True, False):
                with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
                    client.ehlo()
                    client.user, client.password = USER, PASSWORD
                    mechanism = method.upper().replace("_", "-")
                    code, _ = client.auth(mechanism, getattr(client, f"auth_{method}"), initial_response_ok=initial)
                    self.assertEqual(code, 235, (method, initial))
                    client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\r\n")

    def test_smtplib_with_a_wrong_password(self) -> None:
        client = smtplib.SMTP("127.0.0.1", self.listen(), timeout=LIMIT)
        self.addCleanup(client.close)
        error = self.assertRaises(smtplib.SMTPAuthenticationError, client.login, USER, "wrong")
        self.assertEqual(error.smtp_code, 535)

    def test_smtplib_over_tls(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP("127.0.0.1", self.listen(tls=True), timeout=LIMIT) as client:
            client.ehlo()
            self.assertFalse(client.has_extn("auth"))
            client.starttls(context=context)
            client.login(USER, PASSWORD)
            client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\r\n")

    # swaks

    @skipUnless(SWAKS, "swaks is not installed")
    def test_swaks(self) -> None:
        port = self.listen()
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            for password, ending in ((PASSWORD, "250 2.0.0 From anne"), ("wrong", "535 5.7.8")):
                said = self.run_client(
                    SWAKS, "--server", f"127.0.0.1:{port}", "--auth", mechanism, "--auth-user", USER,
                    "--auth-password", password, "--to", "bart@example.com", "--from", "anne@example.com",
                )  # fmt: skip
                self.assertIn(ending, said, mechanism)

    # curl

    @skipUnless(CURL, "curl is not installed")
    def test_curl(self) -> None:
        port = self.listen()
        for mechanism, secret in (
            ("PLAIN", ("--user", f"{USER}:{PASSWORD}")),
            ("LOGIN", ("--user", f"{USER}:{PASSWORD}")),
            ("CRAM-MD5", ("--user", f"{USER}:{PASSWORD}")),
            ("XOAUTH2", ("--user", USER, "--oauth2-bearer", TOKEN)),
            ("OAUTHBEARER", ("--user", USER, "--oauth2-bearer", TOKEN)),
        ):
            for more in ((), ("--sasl-ir",)):
                said = self.run_client(
                    CURL, "-v", "--silent", "--url", f"smtp://127.0.0.1:{port}/client.example", *secret,
                    "--login-options", f"AUTH={mechanism}", "--mail-from", "anne@example.com",
                    "--mail-rcpt", "bart@example.com", "--upload-file", "-", *more, stdin="Subject: Hello\r\n",
                )  # fmt: skip
                self.assertIn("250 2.0.0 From anne", said, (mechanism, more))
                self.assertIn("ended with 0", said)

    # GNU SASL

    @skipUnless(GSASL, "gsasl is not installed")
    def test_gsasl(self) -> None:
        port = self.listen()
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"):
            said = self.gsasl(port, mechanism, PASSWORD, "--no-starttls")
            self.assertIn("ended with 0", said, f"{mechanism}: {said}")
        self.assertNotIn("ended with 0", self.gsasl(port, "SCRAM-SHA-256", "wrong", "--no-starttls"))

    @skipUnless(GSASL, "gsasl is not installed")
    def test_gsasl_with_channel_binding(self) -> None:
        authority = self.folder / "ca.pem"
        authority.write_bytes(TLSTestCase.authority.pem)
        port = self.listen(tls=True)
        for mechanism in ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"):
            for priority in ("NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.2"):
                said = self.gsasl(port, mechanism, PASSWORD, f"--x509-ca-file={authority}", f"--priority={priority}")
                self.assertIn("ended with 0", said, f"{mechanism} {priority}: {said}")

    def gsasl(self, port: int, mechanism: str, password: str, *words: str) -> str:
        return self.run_client(
            GSASL, "--client", "--smtp", f"--connect=localhost:{port}", f"--mechanism={mechanism}",
            f"--authentication-id={USER}", f"--password={password}", *words,
        )  # fmt: skip

    # from the shell

    def test_twist_with_a_password_file(self) -> None:
        server, port = self.serve(TWIST, f"--auth-file={self.users}", "--auth-required", "--auth-without-tls")
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            self.assertRaises(smtplib.SMTPSenderRefused, client.sendmail, "a@x.example", ["b@y.example"], "x")
            client.login(USER, PASSWORD)
            client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\r\n")
        self.assertNotIn(PASSWORD, self.end(server))

    @skipUnless(HTPASSWD, "htpasswd is not installed")
    def test_twist_with_a_file_of_htpasswds(self) -> None:
        users = self.folder / "htpasswd"
        self.assertIn("ended with 0", self.run_client(HTPASSWD, "-cBi", str(users), USER, stdin=PASSWORD))
        _, port = self.serve(TWIST, f"--auth-file={users}", "--auth-without-tls")
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.login(USER, PASSWORD)

    def test_twist_with_auth_any(self) -> None:
        server, port = self.serve(TWIST, "--auth-any")
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.login("whoever", "whatever")
        self.assertNotIn("whatever", self.end(server))

    def test_the_password_command(self) -> None:
        said = self.run_client(sys.executable, "-m", "twisted_smtpd.auth", str(self.users), "bart", stdin="secret\n")
        self.assertIn("ended with 0", said)
        _, port = self.serve(TWIST, f"--auth-file={self.users}", "--auth-without-tls")
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.login("bart", "secret")
