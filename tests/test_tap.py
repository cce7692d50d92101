"""Tests for :mod:`twisted_smtpd.tap`."""

from __future__ import annotations

import io
import sys

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins

from tests.support.command_line import CommandLine
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.tap import Options, makeService


class MakeServiceTests(CommandLine):
    def test_make_service(self) -> None:
        options = self.parse("-c", "sink", "--max-recipients=7", "--grace=3")
        service = makeService(options)
        self.assertIs(service.factory.handler, options.handler)  # type: ignore[attr-defined]
        self.assertEqual(service.factory.settings.values["max_recipients"], 7)  # type: ignore[attr-defined]
        self.assertEqual(service.grace, 3.0)  # type: ignore[attr-defined]
        self.assertIs(service.listeners, options.listeners)  # type: ignore[attr-defined]

    def test_lmtp_is_another_protocol(self) -> None:
        self.assertIs(makeService(self.parse("-c", "sink")).factory.protocol, SMTP)  # type: ignore[attr-defined]
        service = makeService(self.parse("-c", "sink", "--lmtp"))
        self.assertIs(service.factory.protocol, LMTP)  # type: ignore[attr-defined]
        self.assertIs(service.factory.settings.cls, LMTP)  # type: ignore[attr-defined]

    def test_lmtp_is_not_for_port_25_nor_without_enhanced_status_codes(self) -> None:
        """RFC 2033 section 5."""
        for words in (["-l", "127.0.0.1:25"], ["-l", "[::1]:25"], ["--no-enhanced-status-codes"]):
            stderr = io.StringIO()
            self.patch(sys, "stderr", stderr)
            with self.assertRaises(SystemExit) as caught:
                makeService(self.parse("-c", "sink", "--lmtp", *words))
            self.assertEqual((caught.exception.code, stderr.getvalue().count("\n")), (64, 1))
            self.assertIn("LMTP" if "--no-enhanced-status-codes" in words else "--lmtp", stderr.getvalue())
        makeService(self.parse("-c", "sink", "-l", "127.0.0.1:25"))

    def test_what_the_server_refuses_is_a_usage_error(self) -> None:
        options = self.parse("-c", "sink")
        options["timeout"] = -1.0
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.assertEqual(self.assertRaises(SystemExit, makeService, options).code, 64)
        self.assertEqual(stderr.getvalue().count("\n"), 1)

    def test_what_the_server_refuses_is_named_by_its_option(self) -> None:
        options = self.parse("--auth-any", "--auth-mechanisms=NONESUCH")
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.assertEqual(self.assertRaises(SystemExit, makeService, options).code, 64)
        self.assertTrue(stderr.getvalue().startswith("twist smtpd: --auth-mechanisms: nothing"), stderr.getvalue())

    def test_plugin_is_found(self) -> None:
        (plugin,) = (plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "smtpd")
        self.assertIs(plugin.options, Options)
        self.assertIs(plugin.makeService, makeService)
