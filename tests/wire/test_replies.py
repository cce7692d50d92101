"""Replies: what hooks may return, and that nothing they say can forge a line on the wire."""

from __future__ import annotations

import pickle
import re
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.wire.replies import BadStatus, Reply, SMTPReplyError, encode_status, fitting_enhanced

thorough = settings(deadline=None, database=None, max_examples=300)


class ReplyTests(SynchronousTestCase):
    def test_codes_out_of_range(self) -> None:
        for code in (0, 1, 25, 199, 360, 399, 600, 999, 2500, -250, True, "250", 250.0, None):
            self.assertRaises(BadStatus, Reply, cast(int, code))

    def test_enhanced_code_of_another_class_or_malformed(self) -> None:
        for enhanced in ("", "5", "5.1", "5.1.1 ", "5.1.1\n", "5.1.1.1", "5.1000.1", "5.x.1", "2.1.1", "4.1.1", 5.1):
            self.assertRaises(BadStatus, Reply, 550, cast(str, enhanced))
        self.assertRaises(BadStatus, Reply, 354, "3.0.0")

    def test_lines_that_are_no_strings(self) -> None:
        self.assertRaises(BadStatus, Reply, 250, None, cast(Any, (b"OK",)))

    def test_lines_never_have_line_ends(self) -> None:
        self.assertEqual(Reply(250, None, ("a\r\nb", "c\rd\ne")).lines, ("a", "b", "c", "d", "e"))
        self.assertEqual(Reply(250, None, cast(Any, "a\nb")).lines, ("a", "b"))
        self.assertEqual(Reply(250, None, cast(Any, ["a", "b"])).lines, ("a", "b"))

    def test_str_is_a_status(self) -> None:
        reply = Reply(550, "5.1.1", ("no", "such", "5.1.1"))
        self.assertEqual(str(reply), "550-5.1.1 no\n550-5.1.1 such\n550 5.1.1 5.1.1")
        self.assertEqual(Reply.parse(str(reply)), reply)
        self.assertEqual(str(Reply(250, None, ("OK",))), "250 OK")


class ParseTests(SynchronousTestCase):
    def test_one_line(self) -> None:
        self.assertEqual(Reply.parse("250 OK"), Reply(250, None, ("OK",)))
        self.assertEqual(Reply.parse("250 OK\r\n"), Reply(250, None, ("OK",)))
        self.assertEqual(Reply.parse("250"), Reply(250))
        self.assertEqual(Reply.parse("250 2.1.0"), Reply(250, "2.1.0"))

    def test_a_reply_is_itself(self) -> None:
        reply = Reply(250, None, ("OK",))
        self.assertIs(Reply.parse(reply), reply)

    def test_lines_with_and_without_the_code(self) -> None:
        for status in ("250-a\r\n250-b\r\n250 c", "250-a\nb\nc", "250 a\n250 b\n250 c", "250 a\rb\n250-c"):
            self.assertEqual(Reply.parse(status), Reply(250, None, ("a", "b", "c")))

    def test_a_line_with_another_code_is_text(self) -> None:
        self.assertEqual(Reply.parse("250-a\r\n550 b").lines, ("a", "550 b"))
        self.assertEqual(Reply.parse("250-a\r\n2500 b").lines, ("a", "2500 b"))

    def test_enhanced_code_is_taken_off_each_line(self) -> None:
        self.assertEqual(Reply.parse("550-5.1.1 a\n550-5.1.1\n550 5.1.2 b"), Reply(550, "5.1.1", ("a", "", "5.1.2 b")))
        self.assertEqual(Reply.parse("550-5.1.1 a\nb"), Reply(550, "5.1.1", ("a", "b")))

    def test_enhanced_code_of_another_class_is_text(self) -> None:
        self.assertEqual(Reply.parse("250 5.1.1 a"), Reply(250, None, ("5.1.1 a",)))

    def test_what_only_starts_like_an_enhanced_code_is_text(self) -> None:
        for text in ("5.1.1: a", "5.1.1000 a", "5.1.1.1 a", "5.1 a"):
            self.assertEqual(Reply.parse(f"550 {text}"), Reply(550, None, (text,)))

    def test_bad_statuses(self) -> None:
        strings = ("", " ", "OK", "25", "2500", "250OK", "\n250 OK", "360 a", "600 a", "²50 a")
        others: tuple[object, ...] = (None, True, 250, b"250 OK", [], {})
        for status in (*strings, *others):
            self.assertRaises(BadStatus, Reply.parse, status)
            self.assertRaises(BadStatus, encode_status, cast(str, status))

    def test_forgotten_return_is_named(self) -> None:
        self.assertIn("return", str(self.assertRaises(BadStatus, Reply.parse, None)))


class SMTPReplyErrorTests(SynchronousTestCase):
    def test_carries_its_reply(self) -> None:
        error = SMTPReplyError(550, "5.1.1", "no\nsuch")
        self.assertEqual(error.reply, Reply(550, "5.1.1", ("no", "such")))
        self.assertEqual(str(error), "550-5.1.1 no\n550 5.1.1 such")

    def test_checks_its_code(self) -> None:
        self.assertRaises(BadStatus, SMTPReplyError, 999)
        self.assertRaises(ValueError, SMTPReplyError, 550, "2.0.0")
        self.assertRaises(BadStatus, SMTPReplyError, 550, None, cast(str, None))

    def test_survives_pickling(self) -> None:
        error = SMTPReplyError(550, "5.1.1", "no")
        self.assertEqual(pickle.loads(pickle.dumps(error)).reply, error.reply)


class FittingEnhancedTests(SynchronousTestCase):
    def test_by_verb_and_code(self) -> None:
        for code, verb, enhanced in (
            (250, "MAIL", "2.1.0"),
            (250, "RCPT", "2.1.5"),
            (250, "NOOP", "2.0.0"),
            (552, "RCPT", "5.2.2"),
            (552, "DATA", "5.3.4"),
            (451, "DATA", "4.3.0"),
            (442, "RCPT", "4.1.0"),
            (554, "RCPT", "5.0.0"),
            (553, "MAIL", "5.1.7"),
            (553, "RCPT", "5.1.3"),
            (500, "FOO", "5.5.2"),
        ):
            self.assertEqual(fitting_enhanced(code, verb), enhanced)

    def test_none_on_greeting_HELO_EHLO_LHLO_and_3xx(self) -> None:
        for code, verb in ((220, ""), (250, "HELO"), (250, "EHLO"), (501, "LHLO"), (354, "DATA"), (334, "AUTH")):
            self.assertIsNone(fitting_enhanced(code, verb))

    def test_every_one_is_of_its_reply_s_class(self) -> None:
        for code in (c for c in range(200, 560) if c % 100 < 60):
            for verb in ("MAIL", "RCPT", "DATA", "BDAT", "AUTH", "QUIT"):
                Reply(code, fitting_enhanced(code, verb))


class EncodeTests(SynchronousTestCase):
    def test_bare_status_gets_the_fitting_enhanced_code(self) -> None:
        self.assertEqual(encode_status("250 OK", "RCPT"), (250, b"250 2.1.5 OK\r\n"))
        self.assertEqual(encode_status("250 OK", "RCPT", enhanced=False), (250, b"250 OK\r\n"))

    def test_given_enhanced_code_wins(self) -> None:
        self.assertEqual(encode_status("250 2.6.0 OK", "RCPT")[1], b"250 2.6.0 OK\r\n")
        self.assertEqual(encode_status(Reply(250, "2.6.0", ("OK",)), "RCPT")[1], b"250 2.6.0 OK\r\n")

    def test_not_enhanced_leaves_a_string_as_written_and_takes_it_off_a_reply(self) -> None:
        for verb, enhanced in (("RCPT", False), ("EHLO", True), ("HELO", True), ("LHLO", True), ("", True)):
            self.assertEqual(encode_status("550-5.1.1 a\nb", verb, enhanced)[1], b"550-5.1.1 a\r\n550 b\r\n")
            self.assertEqual(encode_status(Reply(550, "5.1.1", ("a",)), verb, enhanced)[1], b"550 a\r\n")

    def test_3xx_has_none(self) -> None:
        self.assertEqual(encode_status("354 go on", "DATA")[1], b"354 go on\r\n")

    def test_enhanced_code_on_every_line(self) -> None:
        self.assertEqual(encode_status("550-a\n550 b", "RCPT")[1], b"550-5.1.0 a\r\n550 5.1.0 b\r\n")

    def test_a_reply_without_lines_is_one_line_on_the_wire(self) -> None:
        self.assertEqual(encode_status(Reply(250, None, ()), enhanced=False)[1], b"250 \r\n")

    def test_CR_LF_NUL_and_other_controls_stay_off_the_wire(self) -> None:
        self.assertEqual(encode_status("550 a\r\n250 b\x00\x1b[2J\x7f\tc")[1], b"550-a\r\n550 250 b??[2J?\tc\r\n")
        reply = Reply(550, None, ("a\n250 b", "\r", "\x85\u2028"))
        self.assertEqual(encode_status(reply, utf8=True)[1], b"550-a\r\n550-250 b\r\n550-\r\n550-\r\n550 ??\r\n")

    def test_other_than_ASCII_only_where_the_client_may_be_sent_it(self) -> None:
        self.assertEqual(encode_status("550 é\ud800")[1], b"550 ??\r\n")
        self.assertEqual(encode_status("550 é\ud800", utf8=True)[1], b"550 \xc3\xa9?\r\n")

    def test_status_that_stays_open(self) -> None:
        for status in ("250-FOO", "250-FOO\r\n", "250-BAR\r\n250-FOO"):
            self.assertTrue(encode_status(status, "EHLO", more=True)[1].endswith(b"250-FOO\r\n"))
            self.assertTrue(encode_status(status, "EHLO")[1].endswith(b"250 FOO\r\n"))
        self.assertEqual(encode_status("250 FOO", "EHLO", more=True)[1], b"250 FOO\r\n")
        self.assertEqual(encode_status("250-FOO\n250 BAR", "EHLO", more=True)[1], b"250-FOO\r\n250 BAR\r\n")
        self.assertEqual(encode_status(Reply(250, None, ("FOO",)), "EHLO", more=True)[1], b"250 FOO\r\n")

    def test_line_of_512_octets_is_not_folded_but_one_of_513_is(self) -> None:
        self.assertEqual(encode_status(f"250 {'a' * 506}")[1], b"250 %b\r\n" % (b"a" * 506))
        self.assertEqual(encode_status(f"250 {'a' * 507}")[1], b"250-%b\r\n250 a\r\n" % (b"a" * 506))

    def test_folded_at_spaces(self) -> None:
        for width in (505, 506):
            self.assertEqual(encode_status(f"250 {'a' * width}  b")[1], b"250-%b\r\n250 b\r\n" % (b"a" * width))
        self.assertEqual(encode_status(f"250 x {'a' * 504} b")[1], b"250-x %b\r\n250 b\r\n" % (b"a" * 504))
        self.assertEqual(encode_status(f"250 x {'a' * 505}")[1], b"250-x\r\n250 %b\r\n" % (b"a" * 505))
        self.assertEqual(encode_status(f"250  {'a' * 506}")[1], b"250- %b\r\n250 a\r\n" % (b"a" * 505))

    def test_never_folded_inside_a_character(self) -> None:
        for lead in range(4):
            wire = encode_status(f"250 {'a' * lead}{'😀' * 500}", utf8=True)[1]
            self.assertNotIn("\ufffd", wire.decode("utf-8", "replace"))
            self.assertEqual(wire.count("😀".encode()), 500)

    def test_folding_a_long_text_is_linear(self) -> None:
        # Quadratic time over these would be minutes.
        for text in ("a" * 1_000_000, " " * 1_000_000, "a " * 500_000, "é" * 500_000):
            _, wire = encode_status(f"250 {text}", utf8=True)
            self.assertLessEqual(max(map(len, wire.split(b"\r\n"))), 510)

    @thorough
    @given(
        st.text(),
        st.sampled_from(["", "EHLO", "MAIL", "RCPT", "DATA"]),
        *[st.booleans()] * 4,
    )
    def test_any_text_is_one_reply(
        self, text: str, verb: str, enhanced: bool, utf8: bool, more: bool, raw: bool
    ) -> None:
        status = f"550 {text * 20}" if raw else Reply(550, "5.7.1", (text, text * 200))
        code, wire = encode_status(status, verb, enhanced, utf8, more)
        self.assertEqual(code, 550)
        self.assertTrue(wire.endswith(b"\r\n"))
        *begun, last = wire[:-2].split(b"\r\n")
        self.assertTrue(all(line.startswith(b"550-") for line in begun))
        self.assertTrue(
            last.startswith(b"550-" if more and raw and re.search(r"[\r\n]550-[^\r\n]*[\r\n]*\Z", text) else b"550 ")
        )
        for line in (*begun, last):
            self.assertLessEqual(len(line) + 2, 512)
            self.assertNotRegex(line.decode("utf-8" if utf8 else "ascii"), "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")

    @thorough
    @given(st.one_of(st.text(), st.from_regex("[2-5][0-5][0-9]"), st.integers(), st.binary(), st.lists(st.text())))
    def test_anything_a_hook_returns_is_a_reply_or_a_bad_status(self, status: object) -> None:
        try:
            code, wire = encode_status(cast(str, status), "MAIL")
        except BadStatus:
            return
        self.assertTrue(wire.startswith(b"%d" % code))
