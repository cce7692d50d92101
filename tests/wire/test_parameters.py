"""twisted_smtpd.wire.parameters: the grammars of the values, and nothing beside them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.wire.commands import xtext_encode
from twisted_smtpd.wire.parameter_values import DeliveryTime, OriginalRecipient, ValidSince
from twisted_smtpd.wire.parameters import (
    parse_deliver_by,
    parse_envid,
    parse_hold_for,
    parse_hold_until,
    parse_notify,
    parse_orcpt,
    parse_priority,
    parse_ret,
    parse_valid_since,
)
from twisted_smtpd.wire.replies import SMTPReplyError

NOON = datetime(2030, 1, 31, 12, tzinfo=timezone.utc)
ALL: tuple[Callable[[str | None], Any], ...] = (
    *(parse_deliver_by, parse_envid, parse_hold_for, parse_hold_until, parse_notify, parse_orcpt, parse_priority),
    *(parse_ret, parse_valid_since),
)


class ParameterTests(SynchronousTestCase):
    def refuse(self, parse: Callable[[str | None], Any], *values: str | None) -> None:
        for value in values:
            error = self.assertRaises(SMTPReplyError, parse, value)
            self.assertEqual((error.reply.code, error.reply.enhanced), (501, "5.5.4"), value)

    def test_notify(self) -> None:
        """RFC 3461 section 4.1."""
        self.assertEqual(parse_notify("never"), frozenset())
        self.assertEqual(parse_notify("Success,DELAY"), {"SUCCESS", "DELAY"})
        self.assertEqual(parse_notify("FAILURE"), {"FAILURE"})
        self.refuse(parse_notify, None, "", "NEVER,SUCCESS", "SUCCESS,", "OFTEN", "SUCCESS;DELAY")

    def test_ret(self) -> None:
        """RFC 3461 section 4.3."""
        self.assertEqual((parse_ret("full"), parse_ret("HDRS")), ("FULL", "HDRS"))
        self.refuse(parse_ret, None, "", "BODY")

    def test_envid(self) -> None:
        """RFC 3461 section 4.4."""
        self.assertEqual(parse_envid("QQ314159"), "QQ314159")
        self.assertEqual(parse_envid("a+20b+3Dc"), "a b=c")
        self.assertEqual(parse_envid("x" * 100), "x" * 100)
        self.refuse(parse_envid, None, "", "x" * 101, "a+0Ab", "a+C3+A9", "+", "+2", "\u00e9")

    def test_orcpt(self) -> None:
        """RFC 3461 section 4.2."""
        self.assertEqual(parse_orcpt("rfc822;Bob@Example.COM"), OriginalRecipient("rfc822", "Bob@Example.COM"))
        self.assertEqual(parse_orcpt("RFC822;a+2Bb@example.com").address, "a+b@example.com")
        self.assertEqual(parse_orcpt("x-other;any+20thing").address_type, "x-other")
        self.refuse(parse_orcpt, None, "", "bob@example.com", "rfc822;", ";x", "a b;x", "rfc822;+0D+0A", "rfc822;+E9")
        self.refuse(parse_orcpt, "rfc822;\u00fc@example.com", "rfc822;" + "x" * 494, "rfc822;a+zz")

    def test_orcpt_of_postfix(self) -> None:
        """Postfix says rfc822 for an address in UTF-8, and encodes its octets."""
        found = parse_orcpt("rfc822;+E7+94+A8+E6+88+B7@server.example")
        self.assertEqual(found, OriginalRecipient("rfc822", "\u7528\u6237@server.example"))
        self.refuse(parse_orcpt, "rfc822;+E2+80+AE@server.example")

    def test_orcpt_in_utf_8(self) -> None:
        """RFC 6533 section 3: each of the three forms."""
        for value in (
            "utf-8;\u00fc@b\u00fccher.example",
            "utf-8;\\x{FC}@b\\x{FC}cher.example",
            "utf-8;+C3+BC@b+C3+BCcher.example",
        ):
            self.assertEqual(parse_orcpt(value), OriginalRecipient("utf-8", "\u00fc@b\u00fccher.example"), value)
        self.assertEqual(parse_orcpt("UTF-8;a+b@example.com").address, "a+b@example.com")
        self.assertEqual(parse_orcpt("utf-8;\\x{1F600}@x.example").address, "\U0001f600@x.example")
        self.refuse(parse_orcpt, "utf-8;\\x{D800}", "utf-8;\\x{110000}", "utf-8;\\x{FFFFFFFFFFFF}", "utf-8;\\x{A}x")

    def test_priority(self) -> None:
        """RFC 6710 section 4."""
        self.assertEqual([parse_priority(value) for value in ("-9", "0", "9")], [-9, 0, 9])
        self.refuse(parse_priority, None, "", "10", "-10", "+1", "1.0", "high", "\u0661")

    def test_deliver_by(self) -> None:
        """RFC 2852 section 4."""
        self.assertEqual(parse_deliver_by("120;R"), DeliveryTime(120, "R", False))
        self.assertEqual(parse_deliver_by("1;R"), DeliveryTime(1, "R", False))
        self.assertEqual(parse_deliver_by("-5;nt"), DeliveryTime(-5, "N", True))
        self.assertEqual(parse_deliver_by("+999999999;RT"), DeliveryTime(999_999_999, "R", True))
        self.refuse(parse_deliver_by, None, "", "120", "120;", "120;X", "1234567890;R", "0;R", "-1;R", "1;T")

    def test_hold(self) -> None:
        """RFC 4865 section 4."""
        self.assertEqual(parse_hold_for("3600"), 3600)
        self.refuse(parse_hold_for, None, "", "-1", "1234567890", "1h")
        self.assertEqual(parse_hold_until("2030-01-31T12:00:00Z"), NOON)
        self.assertEqual(parse_hold_until("2030-01-31t14:00:00.5+02:00"), NOON + timedelta(seconds=0.5))
        self.refuse(parse_hold_until, None, "", "2030-01-31", "2030-01-31T12:00:00", "2030-02-31T12:00:00Z", "tomorrow")

    def test_valid_since(self) -> None:
        """RFC 7293 section 5.2."""
        self.assertEqual(parse_valid_since("2030-01-31T12:00:00Z"), ValidSince(NOON, "R"))
        self.assertEqual(parse_valid_since("2030-01-31T12:00:00Z;c"), ValidSince(NOON, "C"))
        self.refuse(parse_valid_since, None, "", "2030-01-31T12:00:00Z;", "2030-01-31T12:00:00Z;X", ";C")

    @given(st.text(max_size=40))
    def test_nothing_else_is_raised(self, value: str) -> None:
        for parse in ALL:
            for text in (value, f"utf-8;{value}", f"1;{value}", f"2030-01-31T12:00:00Z;{value}"):
                try:
                    parse(text)
                except SMTPReplyError as error:
                    self.assertEqual(error.reply.code, 501)

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30))
    def test_what_is_encoded_is_decoded(self, text: str) -> None:
        self.assertEqual(parse_envid(xtext_encode(text)), text)
        self.assertEqual(parse_orcpt(f"rfc822;{xtext_encode(text)}").address, text)
