"""What others have chosen can't look like another line of the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.wire.escaping import MAX_TEXT, escaped_address, quoted_text


class AddressTests(SynchronousTestCase):
    def test_an_ordinary_address_is_itself(self) -> None:
        for address in (
            "a@x.example",
            "o'brien+tag@x.example",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "jörg@x.example",
            "",
        ):
            self.assertEqual(escaped_address(address), address)

    def test_what_only_a_quoted_local_part_can_have_is_escaped(self) -> None:
        self.assertEqual(escaped_address('"a b> x"@x.example'), "\\x22a\\x20b\\x3e\\x20x\\x22@x.example")
        self.assertEqual(escaped_address("\\\u2028\U0001f600"), "\\x5c\\u2028\\U0001f600")

    def test_anything_else_is_text(self) -> None:
        self.assertEqual(escaped_address(None), "None")
        self.assertEqual(escaped_address(b"a b"), "b'a\\x20b'")

    @given(st.text())
    def test_it_is_one_word(self, text: str) -> None:
        escaped = escaped_address(text)
        self.assertEqual(len(escaped.split()), 1 if text else 0)
        self.assertNotIn('"', escaped)
        self.assertNotIn("<", escaped)
        self.assertNotIn("(", escaped)


class TextTests(SynchronousTestCase):
    @given(st.text())
    def test_it_is_one_line_of_printable_ascii(self, text: str) -> None:
        quoted = quoted_text(text)
        self.assertTrue(quoted.isascii() and quoted.isprintable())
        self.assertEqual(len(quoted.splitlines()), 1)

    def test_it_is_not_endless(self) -> None:
        self.assertEqual(quoted_text("x" * MAX_TEXT), f"'{'x' * MAX_TEXT}'")
        self.assertEqual(quoted_text("x" * (MAX_TEXT + 1)), f"'{'x' * MAX_TEXT}...'")
