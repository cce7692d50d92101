"""The grammar's expressions name the ASCII characters they leave out; here they are with those they take in.

Spelled like this, a class follows the RFCs' own tables, but takes Python milliseconds to compile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.wire import addresses, commands

UTF8 = "\x80-\U0010ffff"
ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{UTF8}-]+"
DOT_STRING = rf"{ATOM}(?:\.{ATOM})*"
QUOTED = rf'"[ !#-\[\]-~{UTF8}]*(?:\\[ -~][ !#-\[\]-~{UTF8}]*)*"'
LETTERS = rf"[A-Za-z0-9_{UTF8}]+"
LABEL = rf"{LETTERS}(?:-+{LETTERS})*"
DOMAIN = rf"{LABEL}(?:\.{LABEL})*"
LITERAL = r"\[[!-Z^-~]+\]"
ROUTE = rf"@{DOMAIN}(?:,@{DOMAIN})*:"
DOTTED = rf"[A-Za-z0-9!#$%&'*+./=?^_`{{|}}~{UTF8}-]+"
MAILBOX = rf"(?P<local>{DOTTED}|{QUOTED})(?:@(?P<domain>{DOMAIN}|{LITERAL}))?"

EXPRESSIONS = {
    rf"<(?P<route>{ROUTE})?{MAILBOX}>(?:[ \t]+(?P<rest>.*))?": re.compile(addresses._PATH),
    rf"{MAILBOX}(?:[ \t]+(?P<rest>.*))?": re.compile(addresses._BARE_PATH),
    DOT_STRING: re.compile(addresses._DOT_STRING),
    f"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-~{UTF8}]+))?": commands._parameter,
    rf"(?:[!-*,-~{UTF8}]|\+[0-9A-Fa-f]{{2}})*": commands._xtext,
}

PATHS = ("<@ab.c,@d-e:f.g@h-i.j> R", "<a.b@c-d.e>\tR", '<"a \\b"@[1.2]>', '"a\\""@b R', "a@b", "<a>", '""', "@")
OTHERS = ("KEY-1=a=b", "K", "a+2Bb+3D", "+4", "")
# Both ends of what is beyond ASCII and of the surrogates, and the borders between the lengths of UTF-8.
BEYOND = "\x80\x85\xa0é\xff\u0100\u07ff\u0800\u2028\u3002\ud7ff\ud800\udfff\ue000\uffff\U00010000\U0010ffff"
CHARACTERS = ["", *map(chr, range(0x80)), *BEYOND]


def variants(text: str) -> Iterator[str]:
    """The text with each character put into each place, and in the place of each that is there."""
    for at in range(len(text) + 1):
        for character in CHARACTERS:
            yield text[:at] + character + text[at:]
            yield text[:at] + character + text[at + 1 :]


class PatternTests(SynchronousTestCase):
    def test_a_class_of_the_grammar_leaves_out_the_right_characters(self) -> None:
        texts = {variant for text in (*PATHS, *OTHERS) for variant in variants(text)}
        for positive, pattern in EXPRESSIONS.items():
            expected = re.compile(positive)
            accepted = 0
            for text in texts:
                wanted, found = expected.fullmatch(text), pattern.fullmatch(text)
                accepted += wanted is not None
                self.assertEqual(found and found.groups(), wanted and wanted.groups(), (positive, text))
            self.assertTrue(0 < accepted < len(texts), positive)

    def test_the_ascii_form_of_a_path_accepts_what_the_whole_grammar_accepts(self) -> None:
        plain = addresses._plain_paths["TO:"]
        for text in {variant for path in PATHS for variant in variants(path)}:
            match = re.fullmatch(addresses._PATH, text.lstrip(" \t"))
            expected = None
            # Quoted strings, literals, routes and names beyond ASCII are not plain.
            if (
                match
                and match["domain"]
                and not match["route"]
                and match["local"][0] != '"'
                and match["domain"][0] != "["
            ):
                address = f"{match['local']}@{match['domain']}"
                expected = address if address.isascii() else None
            found = plain.fullmatch(f"TO:{text}")
            self.assertEqual(found and found[1], expected, text)
