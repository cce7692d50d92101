"""Tests for :mod:`twisted_smtpd.options.quantities`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.options.quantities import count, octets, seconds


class QuantityTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        for text, expected in (
            ("0", 0),
            ("1000", 1000),
            ("10K", 10240),
            ("10k", 10240),
            ("2M", 2**21),
            ("1GiB", 2**30),
        ):
            self.assertEqual(octets(text), expected)
        for text in ("", "-1", "1.5M", "10 M", "M", "1T", "0x10", "1e3", "1_000", "٣", "9" * 16):
            self.assertRaises(ValueError, octets, text)

    def test_seconds(self) -> None:
        self.assertEqual((seconds("30"), seconds("0.5")), (30.0, 0.5))
        for text in ("", "-1", "nan", "inf", "1e3", ".5", "1.", "5m", "٣"):
            self.assertRaises(ValueError, seconds, text)

    def test_counts(self) -> None:
        self.assertEqual(count("12"), 12)
        for text in ("", "-1", "1.0", "1K", "+1", " 1", "٣"):
            self.assertRaises(ValueError, count, text)
