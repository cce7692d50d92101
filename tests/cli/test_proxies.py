"""Tests for :mod:`twisted_smtpd.cli.proxies`."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock

from tests.support.command_line import CommandLine
from twisted_smtpd.tap import makeService


class TrustOptionTests(CommandLine):
    def test_each_reaches_the_server(self) -> None:
        options = self.parse(
            "--proxy-from=10.0.0.0/8", "--proxy-from=unix", "--proxy-timeout=3", "--xclient-from=2001:db8::1"
        ).server_options()
        self.assertEqual(options["proxy_from"], ("10.0.0.0/8", "unix"))
        self.assertEqual(options["proxy_protocol_timeout"], 3)
        self.assertEqual(options["xclient_from"], ("2001:db8::1",))

    def test_nobody_is_trusted_unless_named(self) -> None:
        options = self.parse().server_options()
        self.assertEqual({"proxy_from", "proxy_protocol_timeout", "xclient_from"} & set(options), set())

    def test_wrong_ones(self) -> None:
        for words, text in (
            (["--proxy-from=10.0.0.1/8"], "--proxy-from: "),
            (["--proxy-from=example.com"], "--proxy-from: "),
            (["--proxy-from="], "--proxy-from: "),
            (["--xclient-from=300.0.0.1"], "--xclient-from: "),
            (["--proxy-timeout=3"], "--proxy-timeout needs"),
            (["--proxy-from=unix", "--proxy-timeout=0"], "--proxy-timeout: "),
        ):
            self.assertIn(text, self.refused(*words))

    def test_the_server_takes_them(self) -> None:
        options = self.parse("--proxy-from=10.0.0.0/8", "--xclient-from=unix", "-c", "sink")
        service: Any = makeService(options)
        self.assertIsInstance(options.reactor, MemoryReactorClock)
        self.assertIn("10.1.1.1", service.factory.settings.security.proxies)
        self.assertIn("", service.factory.settings.security.xclients)
