"""Tests for :mod:`twisted_smtpd.options.networks`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.options.networks import Networks


class NetworksTests(SynchronousTestCase):
    def test_membership(self) -> None:
        networks = Networks(["10.0.0.0/8", "2001:db8::1"])
        for host in ("10.0.0.0", "10.255.255.255", "::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1%eth0"):
            self.assertIn(host, networks)
        for host in ("11.0.0.0", "2001:db8::2", "", "example.com", "unix", "010.0.0.1", "::10.0.0.1"):
            self.assertNotIn(host, networks)

    def test_unix_sockets_are_named(self) -> None:
        self.assertIn("", Networks(["unix"]))
        self.assertNotIn("127.0.0.1", Networks(["unix"]))

    def test_none_is_nobody(self) -> None:
        self.assertNotIn("127.0.0.1", Networks([]))
        self.assertNotIn("", Networks([]))

    def test_what_it_shows(self) -> None:
        self.assertEqual(repr(Networks(["10.0.0.0/8", "unix"])), "Networks(['10.0.0.0/8', 'unix'])")
