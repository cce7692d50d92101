"""The grammar of paths and mailboxes: each rule, the inputs that broke other servers, and any text at all."""

from __future__ import annotations

import unicodedata
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.wire.addresses import has_hidden_characters, needs_smtputf8, parse_mailbox, parse_path, plain_path
from twisted_smtpd.wire.replies import SMTPReplyError

thorough = settings(deadline=None, database=None, max_examples=300)

ATEXT = "abcXYZ019!#$%&'*+-/=?^_`{|}~"
LETTERS = "abcXYZ019_äöüßéñçøжщя中文日本한국"
VISIBLE = st.characters(min_codepoint=0xA1, exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Zs"))

atoms = st.text(st.one_of(st.sampled_from(ATEXT), VISIBLE), min_size=1, max_size=8)
dot_strings = st.lists(atoms, min_size=1, max_size=4).map(".".join)
contents = st.text(st.one_of(st.sampled_from([chr(c) for c in range(0x20, 0x7F)]), VISIBLE), max_size=12)
labels = st.lists(st.text(st.sampled_from(LETTERS), min_size=1, max_size=6), min_size=1, max_size=3).map("--".join)
domains = st.lists(labels, min_size=1, max_size=3).map(".".join)
literals = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"[{ip}]"),
    st.ip_addresses(v=6).map(lambda ip: f"[IPv6:{ip}]"),
    st.text(st.sampled_from([chr(c) for c in (*range(0x21, 0x5B), *range(0x5E, 0x7F))]), min_size=1, max_size=8).map(
        lambda content: f"[x-tag:{content}]"
    ),
)


def quote(content: str, escape_all: bool) -> str:
    """A quoted string; with every ASCII character as a quoted pair, or only those that need it."""
    pairs = (f"\\{c}" if c in '"\\' or (escape_all and c.isascii()) else c for c in content)
    return f'"{"".join(pairs)}"'


class _Case(SynchronousTestCase):
    def refused(self, text: str, code: int = 501, enhanced: str = "5.1.3", **options: Any) -> None:
        for parse in (parse_path, parse_mailbox):
            error = self.assertRaises(SMTPReplyError, parse, text, **options)
            self.assertEqual((error.reply.code, error.reply.enhanced), (code, enhanced), (parse, text))
        if not options:
            self.assertIsNone(plain_path(f"TO:{text}", "TO:"))

    def accepted(self, text: str, address: str | None = None, **options: Any) -> None:
        address = text[1:-1] if address is None else address
        self.assertEqual(parse_path(text, **options), (address, ""))
        self.assertEqual(parse_mailbox(text, **options), address)
        self.assertIn(plain_path(f"TO:{text}", "TO:"), (None, (address, "")))


class PathTests(_Case):
    def test_plain_path(self) -> None:
        self.accepted("<a@example.com>")

    def test_a_plain_path_is_not_looked_at_twice(self) -> None:
        for keyword in ("FROM:", "TO:"):
            self.assertEqual(plain_path(f"{keyword}<a.b+c@x-y.example>", keyword), ("a.b+c@x-y.example", ""))
            self.assertEqual(plain_path(f"{keyword} <a@b>\t SIZE=1 X \t", keyword), ("a@b", "SIZE=1 X"))
            long = f"{'a' * 200}@example.com"
            self.assertEqual(plain_path(f"{keyword}<{long}>", keyword), (long, ""))

    def test_what_is_not_plain_is_left_to_the_grammar(self) -> None:
        for text in (
            "to:<a@b>",
            "FROM:<a@b>",
            "TO:<>",
            "TO:a@b",
            "TO:<é@b>",
            f"TO:<a@{'b' * 64}>",
            f"TO:<{'a' * 253}@b>",
        ):
            self.assertIsNone(plain_path(text, "TO:"))

    def test_what_follows_is_returned_stripped(self) -> None:
        for path, address in (("<a@b>", "a@b"), ("a@b", "a@b"), ('<"a b"@c>', '"a b"@c'), ("<é@b>", "é@b")):
            self.assertEqual(parse_path(f"{path}\t SIZE=1 X \t"), (address, "SIZE=1 X"))

    def test_blanks_before_the_path(self) -> None:
        self.accepted(" \t<a@b>", "a@b")
        self.accepted(" a@b", "a@b")
        self.accepted(' <"a b"@c>', '"a b"@c')

    def test_something_stuck_to_the_path(self) -> None:
        self.refused("<a@b>SIZE=1")
        self.refused("<>SIZE=1")
        self.assertRaises(SMTPReplyError, parse_path, "<>SIZE=1", null=True)
        self.refused("<a@b>>")

    def test_null_path_where_allowed(self) -> None:
        self.assertEqual(parse_path("<>", null=True), ("", ""))
        self.assertEqual(parse_path("  <>\t BODY=8BITMIME ", null=True), ("", "BODY=8BITMIME"))

    def test_RCPT_TO_null_path_is_refused(self) -> None:
        self.refused("<>")

    def test_null_path_needs_its_brackets(self) -> None:
        for text in ("", " ", "\t", "SIZE=1 X", "< >", "<", ">"):
            self.assertRaises(SMTPReplyError, parse_path, text, null=True)

    def test_unfinished_paths(self) -> None:
        for text in (
            "<",
            '<"',
            "<a@[",
            "<a",
            "<a@",
            "<a@b",
            '<"a',
            '<"a\\',
            '<"a"',
            "<@",
            "<@a",
            "<@a:",
            "<@a:b",
            "a@",
        ):
            self.refused(text)

    def test_enhanced_code_tells_sender_from_recipient(self) -> None:
        self.refused("<", enhanced="5.1.7", sender=True)
        self.refused("<", enhanced="5.1.3", sender=False)
        self.refused("<a>", 553, "5.1.7", sender=True)

    def test_missing_brackets_only_around_one_word(self) -> None:
        self.accepted("a@b", "a@b")
        self.accepted('"ab"@c', "ab@c")
        for text in ("a@b>", "a@b,c@d", '"a b"@c', "@a:b@c", "a@b;"):
            self.refused(text)
        self.refused("Joe <a@b>", 553)
        self.assertRaises(SMTPReplyError, parse_mailbox, "a@b c@d")
        self.assertRaises(SMTPReplyError, parse_mailbox, "<a@b> c@d")

    def test_postmaster_without_a_domain(self) -> None:
        for text in ("<postmaster>", "<Postmaster>", "<POSTMASTER>"):
            self.accepted(text)
        self.accepted('<"postmaster">', "postmaster")

    def test_any_other_local_part_without_a_domain(self) -> None:
        self.refused("<joe>", 553)
        self.refused("joe", 553)
        self.accepted("<joe>", bare_local_part=True)
        self.accepted('<"j j">', bare_local_part=True)

    def test_source_routes_are_checked_and_dropped(self) -> None:
        self.accepted("<@a:x@y>", "x@y")
        self.accepted("<@a.example,@b-c,@d:x@y>", "x@y")
        label = "a" * 64
        for route in ("@a", "@:", "@a,:", "@a,b:", "@a@b:", ":", f"@{label}:", "@-a:", "@a b:", "@[1.2.3.4]:"):
            self.refused(f"<{route}x@y>")

    def test_domain_of_255_octets_at_most_in_a_source_route(self) -> None:
        for label in ("a" * 49, "é" + "a" * 47):
            domain = ".".join([label] * 5)
            self.accepted(f"<@{domain}.bbbbb:x@y>", "x@y")
            self.refused(f"<@{domain}.bbbbbb:x@y>")


class LocalPartTests(_Case):
    def test_every_character_of_an_atom(self) -> None:
        self.accepted(f"<{ATEXT}@x>")

    def test_dots_anywhere(self) -> None:
        for local in ("a.b.c", ".a", "a.", "a..b", "."):
            self.accepted(f"<{local}@x>")

    def test_specials_outside_quotes(self) -> None:
        for c in ' ()<>[]:;@\\,"\t':
            self.refused(f"<a{c}b@x>")

    def test_quoted_local_part_that_needs_its_quotes(self) -> None:
        for local in ('"a b"', '"a@b"', '"a\\"b"', '"a\\\\b"', '"<>"', '"a..b"', '"."', '""', '" "', '"é é"'):
            self.accepted(f"<{local}@x>")

    def test_one_mailbox_has_one_spelling(self) -> None:
        for text in ("<abc@x>", '<"abc"@x>', '<"\\a\\bc"@x>'):
            self.accepted(text, "abc@x")
        self.accepted('<"\\a\\ \\b"@x>', '"a b"@x')
        self.accepted('<"é"@x>', "é@x")

    def test_malformed_quoted_strings(self) -> None:
        for local in ('"a"b', 'a"b"', '"a"."b"', '"a""b"', '"a\tb"', '"a\\\tb"', '"a\\éb"', '"a\\"'):
            self.refused(f"<{local}@x>")

    def test_local_part_limit_counts_octets(self) -> None:
        self.accepted(f"<{'a' * 64}@x>", local_part_limit=64)
        self.refused(f"<{'a' * 65}@x>", local_part_limit=64)
        self.accepted(f"<{'é' * 32}@x>", local_part_limit=64)
        self.refused(f"<{'é' * 33}@x>", local_part_limit=64)
        self.refused(f"<{'a' * 65}>", local_part_limit=64, bare_local_part=True)

    def test_local_parts_over_64_octets_without_a_limit(self) -> None:
        self.accepted(f"<bounces+{'a' * 100}=example.org@lists.example.com>")

    def test_path_of_256_octets_at_most(self) -> None:
        self.accepted(f"<{'a' * 252}@x>")
        self.refused(f"<{'a' * 253}@x>")
        self.accepted(f"<{'é' * 126}@x>")
        self.refused(f"<{'é' * 126}a@x>")


class DomainTests(_Case):
    def test_domains(self) -> None:
        for domain in ("x", "example.com", "a-b.c--d.e", "1.2", "xn--bcher-kva.example", "3com.com", "a" * 63):
            self.accepted(f"<a@{domain}>")

    def test_underscore_is_tolerated(self) -> None:
        self.accepted("<a@_my_host.example>")

    def test_malformed_domains(self) -> None:
        for domain in (
            "",
            ".",
            ".a",
            "a.",
            "a..b",
            "-a",
            "a-",
            "a.-b",
            "a-.b",
            "a!b",
            "a@b",
            "a b",
            "a/b",
            "a,b",
            '"a"',
        ):
            self.refused(f"<a@{domain}>")

    def test_label_of_63_octets_at_most(self) -> None:
        self.accepted(f"<a@{'b' * 63}.{'c' * 63}>")
        self.refused(f"<a@{'b' * 64}>")
        self.refused(f"<a@x.{'b' * 64}.y>")
        self.accepted(f"<a@{'b' * 63}.é>")
        self.refused(f"<a@{'b' * 64}.é>")

    def test_U_label_whose_A_label_is_too_long(self) -> None:
        self.accepted("<a@bücher.example>")
        # xn--aaa...-, and three or four characters for where the é is.
        self.accepted(f"<a@{'a' * 55}é>")
        self.refused(f"<a@{'a' * 56}é>")

    def test_address_literals(self) -> None:
        for literal in (
            "1.2.3.4",
            "255.255.255.255",
            "IPv6:::1",
            "ipv6:2001:db8::1",
            "IPv6:::ffff:1.2.3.4",
            "X-tag:<@>",
        ):
            self.accepted(f"<a@[{literal}]>")

    def test_malformed_address_literals(self) -> None:
        for literal in (
            *(
                "",
                "1",
                "1.2.3",
                "1.2.3.256",
                "1.2.3.4.5",
                "01.2.3.4",
                "1.2.3.4/8",
                "::1",
                "foo",
                "IPv6:",
                "IPv6:1.2.3.4",
            ),
            *("IPv6:::1%eth0", "IPv6:g::", "IPv6::::", "-:a", "tag-:a", "tag:", ":a", "tag:a b", "tag:[a", "tag:é"),
        ):
            self.refused(f"<a@[{literal}]>")
        for tail in ("[1.2.3.4", "1.2.3.4]", "[1.2.3.4]x", "[1.2.3.4].x", "x.[1.2.3.4]"):
            self.refused(f"<a@{tail}>")


class UTF8Tests(_Case):
    def test_mailbox_in_UTF8(self) -> None:
        for address in (
            "用户@例子.广告",
            "Dörte@Sörensen.example",
            "अजय@डाटा.भारत",
            "😀@x",
            "\u0645\u06cc\u200c\u062e@x",
        ):
            self.accepted(f"<{address}>")
            self.assertTrue(needs_smtputf8(address))

    def test_ASCII_mailbox_needs_no_SMTPUTF8(self) -> None:
        self.assertFalse(needs_smtputf8('"a b"@x'))

    def test_no_normalization(self) -> None:
        for form in ("NFC", "NFD"):
            self.accepted(f"<{unicodedata.normalize(form, 'é')}@x>")

    def test_invisible_and_control_characters(self) -> None:
        for c in (
            *("\x00", "\x01", "\r", "\n", "\x1b", "\x7f", "\x80", "\x85", "\x9b", "\xa0", "\xad", "\u200b", "\u2028"),
            *("\u2029", "\u202e", "\u2066", "\u3000", "\ufeff", "\ud800", "\udfff", "\U000e0041"),
        ):
            for text in (f"<a{c}b@x>", f'<"a {c}b"@x>', f"<a@b{c}c>", f"<@b{c}c:a@x>", f"a{c}b@x", f"<a@[t:{c}]>"):
                self.refused(text)

    def test_character_that_IDNA_turns_into_a_delimiter(self) -> None:
        for c in "\uff0e\u3002\uff61\uff0f\uff20\u2100\u2488\uff05":
            self.refused(f"<a@good{c}example>")
        self.accepted("<a@\uff41_é>")

    def test_hidden_characters(self) -> None:
        self.assertFalse(has_hidden_characters("a b\u200cé\U0010fffd"))
        self.assertTrue(has_hidden_characters("a\tb"))


class PropertyTests(SynchronousTestCase):
    @thorough
    @given(dot_strings, st.one_of(domains, literals))
    def test_mailbox_of_atoms_stays_as_it_is(self, local: str, domain: str) -> None:
        address = f"{local}@{domain}"
        self.assertEqual(parse_path(f"<{address}> A=b"), (address, "A=b"))
        self.assertEqual(parse_path(f"{address} A=b"), (address, "A=b"))
        self.assertEqual(parse_mailbox(address), address)

    @thorough
    @given(contents, domains)
    def test_every_spelling_of_a_quoted_local_part_is_the_same_mailbox(self, content: str, domain: str) -> None:
        address = parse_mailbox(f"<{quote(content, False)}@{domain}>")
        self.assertEqual(parse_mailbox(f"<{quote(content, True)}@{domain}>"), address)
        self.assertIn(address, (f"{content}@{domain}", f"{quote(content, False)}@{domain}"))
        self.assertEqual(parse_mailbox(f"<{address}>"), address)

    @thorough
    @given(
        st.one_of(st.text(), st.text(st.sampled_from('<>@:,."\\[]ab- \tIPv6é\u202e\ud800')), st.from_regex("<.*@.*>"))
    )
    def test_any_text_is_parsed_or_refused(self, text: str) -> None:
        for options in ({}, {"null": True, "sender": True}, {"bare_local_part": True, "local_part_limit": 3}):
            try:
                address, rest = parse_path(text, **options)
            except SMTPReplyError as error:
                self.assertIn(error.reply.code, (501, 553))
                self.assertIsNone(plain_path(f"TO:{text}", "TO:"))
                continue
            if "local_part_limit" not in options:
                self.assertIn(plain_path(f"TO:{text}", "TO:"), (None, (address, rest)))
            self.assertTrue(text.rstrip(" \t").endswith(rest))
            self.assertFalse(has_hidden_characters(address))
            self.assertEqual(parse_path(f"<{address}>", **options), (address, ""))

    @thorough
    @given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))))
    def test_any_text_is_a_mailbox_or_refused(self, text: str) -> None:
        try:
            address = parse_mailbox(text, bare_local_part=True)
        except SMTPReplyError:
            return
        self.assertEqual(parse_mailbox(address, bare_local_part=True) if " " not in address else address, address)

    def test_long_evil_paths_are_given_up_in_linear_time(self) -> None:
        # Quadratic time over these would be hours; linear time is a second or two.
        for unit in (
            "a",
            "a.",
            "a-",
            "-",
            "a-b.",
            '"',
            '\\"',
            '"a"',
            "\\a",
            "[",
            "]",
            "<",
            ">",
            "@a,",
            "é",
            "é-",
            " ",
            "\t",
        ):
            evil = unit * (100_000 // len(unit))
            for start in ("", "<", '<"', "<a@", "<a@[", "<a@[t:", "<@", "<@a:", '<"a"@'):
                for end in ("", ">", '">@', "]>", "\x00"):
                    self.assertRaises(SMTPReplyError, parse_path, start + evil + end)
                    self.assertIsNone(plain_path(f"TO:{start}{evil}{end}", "TO:"))
