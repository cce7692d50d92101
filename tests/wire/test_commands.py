"""Command lines, parameters and their values: each rule, and any text or bytes at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.wire import addresses, commands
from twisted_smtpd.wire.addresses import has_hidden_characters
from twisted_smtpd.wire.commands import (
    parse_command,
    parse_helo_name,
    parse_parameters,
    parse_size,
    xtext_decode,
    xtext_encode,
)
from twisted_smtpd.wire.replies import SMTPReplyError

thorough = settings(deadline=None, database=None, max_examples=300)

visible = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Zs"))
keywords = st.from_regex("[A-Za-z0-9][A-Za-z0-9-]{0,8}", fullmatch=True)


class _Case(SynchronousTestCase):
    def refused(self, code: int, enhanced: str, parse: Callable[[Any], object], value: object) -> None:
        error = self.assertRaises(SMTPReplyError, parse, value)
        self.assertEqual((error.reply.code, error.reply.enhanced), (code, enhanced), value)


class CommandTests(_Case):
    def test_verb_alone(self) -> None:
        for line in (b"NOOP", b"noop", b"NoOp ", b"NOOP \t "):
            self.assertEqual(parse_command(line), ("NOOP", None))

    def test_argument_keeps_its_case_and_inner_blanks(self) -> None:
        self.assertEqual(parse_command(b"mail  From:<A@b>  Size=1 "), ("MAIL", "From:<A@b>  Size=1"))

    def test_tab_separates_words(self) -> None:
        self.assertEqual(parse_command(b"MAIL\tFROM:<a@b>\tSIZE=1\t"), ("MAIL", "FROM:<a@b>\tSIZE=1"))

    def test_tab_in_a_quoted_string_stays_a_tab(self) -> None:
        self.assertEqual(parse_command(b'VRFY "a\tb"@c'), ("VRFY", '"a\tb"@c'))

    def test_UTF8_argument(self) -> None:
        self.assertEqual(parse_command("VRFY é😀\u200c".encode()), ("VRFY", "é😀\u200c"))

    def test_empty_line(self) -> None:
        for line in (b"", b" ", b"\t", b" NOOP", b"\tNOOP"):
            self.refused(500, "5.5.2", parse_command, line)

    def test_bare_CR_LF_NUL_and_other_controls(self) -> None:
        for control in (*range(9), *range(10, 32), 0x7F, 0x80, 0x85, 0x9B, 0x2028, 0x2029):
            for line in (f"NOOP{chr(control)}", f"NOOP a{chr(control)}b", f"{chr(control)}NOOP", f"NO{chr(control)}OP"):
                self.refused(500, "5.5.2", parse_command, line.encode())

    def test_not_UTF8_says_so(self) -> None:
        for line in (b"NOOP \xff", b"NOOP \xc3", b"\xe9HLO", b"NOOP \xed\xa0\x80", b"NOOP \xc0\x80"):
            self.refused(500, "5.5.2", parse_command, line)
            self.assertIn("UTF-8", str(self.assertRaises(SMTPReplyError, parse_command, line)))

    def test_a_name_that_is_not_UTF8_is_read_all_the_same(self) -> None:
        self.assertEqual(parse_command(b"ehlo b\xfcro"), ("EHLO", "b\ufffdro"))
        self.refused(500, "5.5.2", parse_command, b"EHLO \xff\0")

    def test_verb_is_ASCII_letters_and_digits(self) -> None:
        self.assertEqual(parse_command(b"X2 a"), ("X2", "a"))
        for verb in ("MAIL:", "X-Y", "X_Y", "É", "²", "NOOP\u200c", "{", "<a@b>", "\u017f"):
            self.refused(500, "5.5.2", parse_command, verb.encode())

    @thorough
    @given(st.one_of(st.binary(), st.text().map(lambda text: b"NOOP " + text.encode("utf-8", "replace"))))
    def test_any_line_is_parsed_or_refused(self, line: bytes) -> None:
        try:
            verb, argument = parse_command(line)
        except SMTPReplyError as error:
            self.assertEqual(error.reply.code, 500)
            return
        self.assertRegex(verb, "^[A-Z0-9]+$")
        self.assertNotEqual(argument, "")
        self.assertNotRegex(argument or "", "[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\u2028\u2029]")

    def test_address_parsers_can_be_imported_from_here(self) -> None:
        for name in ("needs_smtputf8", "parse_mailbox", "parse_path"):
            self.assertIs(getattr(commands, name), getattr(addresses, name))


class ParameterTests(_Case):
    def test_words_and_mapping(self) -> None:
        self.assertEqual(
            parse_parameters(" size=10\tBody=8BitMime  smtputf8 "),
            (["SIZE=10", "BODY=8BitMime", "SMTPUTF8"], {"SIZE": "10", "BODY": "8BitMime", "SMTPUTF8": None}),
        )

    def test_none(self) -> None:
        for text in ("", " ", "\t"):
            self.assertEqual(parse_parameters(text), ([], {}))

    def test_values_keep_their_case(self) -> None:
        self.assertEqual(parse_parameters("envid=AbC orcpt=rfc822;Joe@X")[0], ["ENVID=AbC", "ORCPT=rfc822;Joe@X"])

    def test_AUTH_with_brackets(self) -> None:
        self.assertEqual(parse_parameters("AUTH=<>")[1], {"AUTH": "<>"})

    def test_equals_sign_in_a_value(self) -> None:
        self.assertEqual(parse_parameters("ORCPT=rfc822;v+a=b@c")[1], {"ORCPT": "rfc822;v+a=b@c"})

    def test_UTF8_in_a_value(self) -> None:
        self.assertEqual(parse_parameters("ORCPT=utf-8;é@ü")[1], {"ORCPT": "utf-8;é@ü"})

    def test_keyword_twice(self) -> None:
        for text in ("SIZE=1 SIZE=2", "SIZE=1 size=1", "X X", "X X=1"):
            self.refused(501, "5.5.4", parse_parameters, text)

    def test_malformed(self) -> None:
        for text in (
            "=",
            "=1",
            "SIZE=",
            "XAUTH=",
            "AUTHS=",
            "-A",
            "A_B",
            "É=1",
            "A.B",
            "<a@b>",
            "A=b\x00",
            "A=\x7f",
            "A=b\xa0c",
            "A\nB",
        ):
            self.refused(501, "5.5.4", parse_parameters, text)
            self.refused(501, "5.5.4", parse_parameters, f"SIZE=1 {text}")

    def test_invisible_characters_in_a_value(self) -> None:
        for c in "\x85\u2028\u202e\ufeff\ud800":
            self.refused(501, "5.5.4", parse_parameters, f"A=b{c}")

    @thorough
    @given(st.dictionaries(keywords.map(str.upper), st.none() | st.text(visible, min_size=1)))
    def test_round_trip(self, expected: dict[str, str | None]) -> None:
        sent = [word if value is None else f"{word}={value}" for word, value in expected.items()]
        self.assertEqual(parse_parameters(" ".join(sent)), (sent, expected))
        self.assertEqual(parse_parameters("\t".join(sent)), (sent, expected))

    @thorough
    @given(st.one_of(st.text(), st.text(st.sampled_from("AB=<>-1 \té\u202e\x00"))))
    def test_any_text_is_parsed_or_refused(self, text: str) -> None:
        try:
            words, parameters = parse_parameters(text)
        except SMTPReplyError as error:
            self.assertEqual((error.reply.code, error.reply.enhanced), (501, "5.5.4"))
            return
        self.assertEqual(len(words), len(parameters))
        self.assertEqual(parse_parameters(" ".join(words)), (words, parameters))


class XtextTests(_Case):
    def test_encoding(self) -> None:
        self.assertEqual(xtext_encode("a+b=c d\r\né!~"), "a+2Bb+3Dc+20d+0D+0A+C3+A9!~")
        self.assertEqual(xtext_encode(b"\x00\xff~\x7f"), "+00+FF~+7F")
        self.assertEqual(xtext_encode(""), "")

    def test_encoding_a_surrogate(self) -> None:
        self.refused(501, "5.5.4", xtext_encode, "\ud800")

    def test_decoding(self) -> None:
        self.assertEqual(xtext_decode("a+2Bb+3Dc+20d+C3+A9"), "a+b=c dé")
        self.assertEqual(xtext_decode(""), "")

    def test_decoding_is_done_once(self) -> None:
        self.assertEqual(xtext_decode("+2B41"), "+41")

    def test_lower_case_digits_bare_equals_sign_and_UTF8_are_let_through(self) -> None:
        self.assertEqual(xtext_decode("+2b=é"), "+=é")

    def test_controls_hidden_in_xtext(self) -> None:
        for hidden in ("+0D", "+0A", "+00", "+09", "+1B", "+7F", "+C2+85", "+E2+80+A8", "+E2+80+AE", "\u202e", "\x85"):
            self.refused(501, "5.5.4", xtext_decode, f"a{hidden}b")

    def test_malformed(self) -> None:
        for text in (
            "+",
            "+4",
            "+4G",
            "a b",
            "a\tb",
            "+ 4",
            "a\r\n",
            "\x00",
            "\x7f",
            "+FF",
            "+C3",
            "é+A9",
            "+ED+A0+80",
        ):
            self.refused(501, "5.5.4", xtext_decode, text)
        self.refused(501, "5.5.4", xtext_decode, "\ud800")

    @thorough
    @given(st.text(st.one_of(visible, st.just(" "))))
    def test_round_trip(self, text: str) -> None:
        self.assertEqual(xtext_decode(xtext_encode(text)), text)

    @thorough
    @given(st.binary())
    def test_encoded_is_printable_ASCII_without_plus_and_equals_sign(self, data: bytes) -> None:
        encoded = xtext_encode(data)
        self.assertRegex(encoded, "\\A(?:[!-*,-<>-~]|\\+[0-9A-F]{2})*\\Z")

    @thorough
    @given(st.one_of(st.text(), st.text(st.sampled_from("+0dA8C39=é \ud800"))))
    def test_any_text_is_decoded_or_refused(self, text: str) -> None:
        try:
            decoded = xtext_decode(text)
        except SMTPReplyError as error:
            self.assertEqual((error.reply.code, error.reply.enhanced), (501, "5.5.4"))
            return
        self.assertFalse(has_hidden_characters(decoded))


class HeloNameTests(_Case):
    def test_names_that_do_not_check_out_are_accepted(self) -> None:
        for name in ("localhost", "my_pc", "[1.2.3.4]", "[999]", "(x)", "a..b", "a" * 255):
            self.assertEqual(parse_helo_name(name), name)

    def test_name_is_needed(self) -> None:
        self.refused(501, "5.5.4", parse_helo_name, None)
        self.refused(501, "5.5.4", parse_helo_name, "")

    def test_controls_and_long_names_are_refused(self) -> None:
        for name in ("a\x00", "a\r", "a\n", "a\x7f", "a\u2028", "\ud800", "a" * 256):
            self.refused(501, "5.5.4", parse_helo_name, name)

    def test_what_can_not_be_seen_becomes_a_question_mark(self) -> None:
        for name, read in (("my pc", "my pc"), ("é", "é"), ("a\tb", "a?b"), ("a\u202eb\xa0", "a?b?")):
            self.assertEqual(parse_helo_name(name), read)

    @thorough
    @given(st.text())
    def test_any_name_is_accepted_or_refused(self, name: str) -> None:
        with contextlib.suppress(SMTPReplyError):
            read = parse_helo_name(name)
            self.assertFalse(has_hidden_characters(read))
            self.assertEqual(len(read), len(name))


class SizeTests(_Case):
    def test_sizes(self) -> None:
        for value in ("0", "007", str(2**32 + 1), "9" * 20):
            self.assertEqual(parse_size(value), int(value))

    def test_not_a_size(self) -> None:
        for value in ("", "-1", "+1", "1.0", " 1", "1\n", "1_0", "0x1", "²", "٣", "9" * 21, "9" * 10_000, "\ud800"):
            self.refused(501, "5.5.4", parse_size, value)


class LinearTimeTests(SynchronousTestCase):
    def test_long_evil_texts_are_given_up_in_linear_time(self) -> None:
        for unit in ("a", "A-", "A=", "=", "+", "+4", "+41", " ", "\t", " \t", "A ", "é", "\u200c", "\x00", "9", "-"):
            evil = unit * (100_000 // len(unit))
            for text in (f"{evil}\x00", f"A={evil}\x00", f"NOOP {evil}\x00"):
                self.assertRaises(SMTPReplyError, parse_command, text.encode())
                self.assertRaises(SMTPReplyError, parse_parameters, text)
                self.assertRaises(SMTPReplyError, xtext_decode, text)
                self.assertRaises(SMTPReplyError, parse_helo_name, text)
                self.assertRaises(SMTPReplyError, parse_size, text)
