"""Tests for :mod:`twisted_smtpd.cli.auth`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher

from tests.support.command_line import CommandLine
from tests.support.fakes import Client
from twisted_smtpd.auth import AcceptAnyone, CredAuthenticator, PasswordFile, hashes, set_password
from twisted_smtpd.tap import makeService

CRED = "--auth=memory:anne:secret"


class AuthOptionsTests(CommandLine):
    def setUp(self) -> None:
        self.patch(hashes, "SCRYPT", (4, 8, 1))
        self.path = Path(self.mktemp())
        set_password(self.path, "anne", "secret", kind="scrypt")
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def service(self, *words: str) -> Any:
        return makeService(self.parse(*words))

    def values(self, *words: str) -> dict[str, Any]:
        values: dict[str, Any] = self.service(*words).factory.settings.values
        return values

    def said(self) -> str:
        return "\n".join(formatEvent(event) for event in self.events)

    def test_none_by_default(self) -> None:
        self.assertEqual(self.service().factory.settings.mechanisms, {})

    def test_a_password_file(self) -> None:
        values = self.values(f"--auth-file={self.path}", "--auth-required", "--max-auth-failures=5")
        self.assertIsInstance(values["authenticator"], PasswordFile)
        self.assertEqual((values["auth_required"], values["auth_require_tls"]), (True, True))
        self.assertEqual(values["max_auth_failures"], 5)

    def test_cred_checkers(self) -> None:
        values = self.values(CRED, "--auth=memory:bart:x", "--auth-without-tls")
        self.assertIsInstance(values["authenticator"], CredAuthenticator)
        self.assertEqual(len(values["authenticator"].checkers), 2)
        self.assertFalse(values["auth_require_tls"])
        self.assertIn("offered in clear as well", self.said())

    def test_auth_any_is_loud_and_needs_no_tls(self) -> None:
        values = self.values("--auth-any")
        self.assertIsInstance(values["authenticator"], AcceptAnyone)
        self.assertFalse(values["auth_require_tls"])
        self.assertIn("ANY NAME WITH ANY PASSWORD IS LET IN", self.said())

    def test_auth_without_tls_anywhere_is_said(self) -> None:
        self.service(CRED)
        self.assertIn("there is no TLS: no client can authenticate", self.said())

    def test_mechanisms(self) -> None:
        settings = self.service(CRED, "--auth-mechanisms=plain,CRAM-MD5").factory.settings
        self.assertEqual(list(settings.mechanisms), ["CRAM-MD5", "PLAIN"])

    def test_the_options_work_together(self) -> None:
        client = Client(
            self.service(CRED, "--auth-without-tls", "--auth-required").factory.buildProtocol(None), "127.0.0.1"
        )
        self.addCleanup(client.lose)
        client.read()
        client.send(b"EHLO x\r\n")
        self.assertEqual(client.send(b"MAIL FROM:<a@x.example>\r\n"), b"530 5.7.0 Authentication required\r\n")
        self.assertEqual(client.send(b"AUTH PLAIN AGFubmUAc2VjcmV0\r\n"), b"235 2.7.0 Authentication successful\r\n")
        self.assertEqual(client.send(b"MAIL FROM:<a@x.example>\r\n"), b"250 2.1.0 OK\r\n")

    def test_contradictions(self) -> None:
        for words, text in (
            (("--auth-any", CRED), "--auth-any and --auth contradict each other"),
            ((f"--auth-file={self.path}", CRED), "--auth-file and --auth contradict"),
            (("--auth-any", f"--auth-file={self.path}"), "--auth-any and --auth-file contradict"),
            (("--auth-without-tls",), "--auth-without-tls needs --auth-file, --auth or --auth-any"),
            (("--auth-mechanisms=PLAIN",), "--auth-mechanisms needs --auth-file, --auth or --auth-any"),
            (("--auth=nonsense:x",), "nonsense"),
            (("--auth-file=/does/not/exist",), "--auth-file: /does/not/exist: No such file"),
            (("--max-auth-failures=0",), "--max-auth-failures"),
        ):
            self.assertIn(text, self.refused(*words))

    def test_what_the_server_refuses(self) -> None:
        for words, text in (
            (("--auth-required",), "--auth-required: no client can authenticate"),
            ((CRED, "--auth-mechanisms=GSSAPI"), "nothing here can do GSSAPI"),
        ):
            self.patch(sys, "stderr", io.StringIO())
            error = self.assertRaises(SystemExit, self.service, *words)
            self.assertEqual(error.code, 64)
            self.assertIn(text, sys.stderr.getvalue())  # type: ignore[attr-defined]

    def test_a_broken_file_is_one_line_without_the_hash(self) -> None:
        self.path.write_text("anne:topsecret\n")
        line = self.refused(f"--auth-file={self.path}")
        self.assertIn("line 1: a hash of an unknown kind", line)
        self.assertNotIn("topsecret", line)

    def test_help_auth(self) -> None:
        self.assertIn("memory", self.shown("--help-auth"))
        self.assertIn("memory", self.shown("--help-auth-type=memory"))
        for option in ("--auth-file", "--auth-any", "--auth-required", "--auth-without-tls", "--max-auth-failures"):
            self.assertIn(option, self.shown("--help"))
