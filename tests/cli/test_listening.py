"""Tests for :mod:`twisted_smtpd.runtime.places` and :mod:`twisted_smtpd.cli.listening`."""

from __future__ import annotations

import io
import sys

from hypothesis import given
from hypothesis import strategies as st

from tests.support.command_line import CommandLine
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Sink


class ListenTests(CommandLine):
    def names(self, *words: str) -> list[str]:
        return [listener.name for listener in self.parse(*words).listeners]

    def listening(self, *words: str) -> list[tuple[str, int]]:
        """Where the listeners really bind."""
        options = self.parse(*words)
        for listener in options.listeners:
            self.successResultOf(listener.endpoint.listen(SMTPFactory(Sink())))
        return [(server[3], server[0]) for server in options.reactor.tcpServers]

    def test_default_is_both_loopbacks(self) -> None:
        self.assertEqual(self.names(), ["127.0.0.1:8025", "[::1]:8025"])
        self.assertEqual(self.listening(), [("127.0.0.1", 8025), ("::1", 8025)])

    def test_no_host_is_never_all_interfaces(self) -> None:
        for where in ("2525", ":2525", "localhost:2525"):
            self.assertEqual(self.listening("-l", where), [("127.0.0.1", 2525), ("::1", 2525)])

    def test_host_and_port(self) -> None:
        self.assertEqual(self.listening("--listen=0.0.0.0:25"), [("0.0.0.0", 25)])
        self.assertEqual(self.names("-l", "mx.example.com:25"), ["mx.example.com:25"])

    def test_host_alone_gets_the_default_port(self) -> None:
        self.assertEqual(self.listening("-l", "192.0.2.1"), [("192.0.2.1", 8025)])
        self.assertEqual(self.listening("-l", "[::]"), [("::", 8025)])

    def test_bracketed_ipv6(self) -> None:
        self.assertEqual(self.listening("-l", "[2001:db8::1]:25"), [("2001:db8::1", 25)])
        self.assertEqual(self.names("-l", "[2001:db8::1]:25"), ["[2001:db8::1]:25"])

    def test_endpoint_description(self) -> None:
        self.assertEqual(self.listening("-l", "tcp:2525:interface=127.0.0.2"), [("127.0.0.2", 2525)])
        self.assertEqual(self.listening("-l", "tcp:2525"), [("", 2525)])
        self.assertEqual(self.names("-l", "unix:/run/smtp"), ["unix:/run/smtp"])

    def test_repeatable(self) -> None:
        self.assertEqual(self.names("-l", "127.0.0.1:1", "-l", "127.0.0.2:2"), ["127.0.0.1:1", "127.0.0.2:2"])

    def test_only_the_ipv6_loopback_is_optional(self) -> None:
        self.assertEqual([listener.optional for listener in self.parse().listeners], [False, True])
        self.assertEqual([listener.optional for listener in self.parse("-l", "[::1]:25").listeners], [False])

    def test_port_out_of_range(self) -> None:
        self.assertIn("'127.0.0.1:65536': a port is a number up to 65535", self.refused("-l", "127.0.0.1:65536"))

    def test_bad_descriptions_are_usage_errors(self) -> None:
        for where in (
            "",
            "foo:bar",
            "::1:25",
            "tcp:x",
            "tcp:",
            "systemd:domain=INET:index=99",
            "[::1",
        ):
            self.assertIn(f"--listen: {where!r}", self.refused("-l", where))

    @given(st.text(st.sampled_from("[]:=.1a\\/%é \n\0")))
    def test_any_text_is_a_place_or_one_line(self, where: str) -> None:
        stderr, sys.stderr = sys.stderr, io.StringIO()
        try:
            self.parse(f"--listen={where}")
        except SystemExit:
            self.assertEqual(sys.stderr.getvalue().count("\n"), 1)
        finally:
            sys.stderr = stderr
