"""Command lines: verb and argument, ESMTP parameters, and the small grammars of their values.

The functions for paths and mailboxes are in :mod:`twisted_smtpd.wire.addresses` and can be imported from here too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container

from twisted_smtpd.wire.addresses import has_hidden_characters, needs_smtputf8, parse_mailbox, parse_path
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = [
    "needs_smtputf8",
    "parse_chunk",
    "parse_command",
    "parse_helo_name",
    "parse_mailbox",
    "parse_parameters",
    "parse_path",
    "parse_size",
    "xtext_decode",
    "xtext_encode",
]

# RFC 5321 section 4.5.3.1.2.
MAX_HELO_NAME = 255

# Some software takes these for the end of a line, and terminals obey them.
_CONTROL = frozenset({"Cc", "Zl", "Zp"})

_UNSPEAKABLE = _CONTROL | {"Cs"}
_HELLOS = frozenset({b"HELO ", b"EHLO ", b"LHLO "})
_blanks = re.compile(r"[ \t]+")
# RFC 5321 section 4.1.2 has no "=" in a value, but VERP addresses have it, and some clients send ORCPT and AUTH without
# encoding it.  It is allowed here: the keyword ends at the first "=", so nothing becomes ambiguous.
# Only AUTH may be empty: what a client says there without having signed in does not matter (RFC 4954 section 5).
_parameter = re.compile("([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00- \x7f]+|(?<=^[Aa][Uu][Tt][Hh]=)))?")
_xtext = re.compile("(?:[^\x00- +\x7f]|\\+[0-9A-Fa-f]{2})*")
_hexchar = re.compile(rb"\+([0-9A-Fa-f]{2})")
_not_xchar = re.compile(rb"[^!-*,-<>-~]")
_size = re.compile(r"[0-9]{1,20}")
_chunk = re.compile(r"([0-9]{1,20})(?:[ \t]+(LAST))?", re.IGNORECASE)


def parse_command(line: bytes, known: Container[str] = ()) -> tuple[str, str | None]:
    """Split a command line into verb and argument.

    :param line: the line without its CRLF.
    :param known: verbs in upper case; their characters need not be checked, which saves time.
    :returns: the verb in upper case; the argument without the blanks around it, or ``None`` for no argument.
    :raises SMTPReplyError: 500 5.5.2 if the verb has other characters than ASCII letters and digits, if the line has a
        control character other than a tab (the next host may take a bare CR or LF for the end of the line), or if it
        is not UTF-8.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        if line[:5].upper() in _HELLOS:
            # A host's name tells nothing that is to be relied on.
            return parse_command(line.decode("utf-8", "replace").encode(), known)
        raise SMTPReplyError(500, "5.5.2", "A command line is ASCII or UTF-8, and this is neither") from None
    if not text.isprintable():
        if any(unicodedata.category(c) in _CONTROL and c != "\t" for c in text):
            raise SMTPReplyError(500, "5.5.2", "A command line has no control characters")
        # Only the blanks behind the verb: a tab in a quoted string is an error and must not become a space.
        text = _blanks.sub(" ", text, count=1)
    verb, _, argument = text.partition(" ")
    if verb not in known:
        if not (verb.isalnum() and verb.isascii()):
            raise SMTPReplyError(500, "5.5.2", "That is not a command")
        verb = verb.upper()
    return verb, argument.strip(" \t") or None


def parse_parameters(text: str) -> tuple[list[str], dict[str, str | None]]:
    """Read the ESMTP parameters behind a path (RFC 5321 section 4.1.2, RFC 6531 section 3.3).

    :param text: words ``KEYWORD`` or ``KEYWORD=value`` between blanks.
    :returns: the words as sent, and a mapping of keyword to value (``None`` for a keyword without a value); keywords
        are in upper case in both.
    :raises SMTPReplyError: 501 5.5.4 for a malformed word, or a keyword that comes twice.
    """
    words: list[str] = []
    parameters: dict[str, str | None] = {}
    for word in _blanks.split(text):
        if not word:
            continue
        match = _parameter.fullmatch(word)
        if match is None or has_hidden_characters(word):
            raise SMTPReplyError(501, "5.5.4", "A parameter is KEYWORD or KEYWORD=value")
        keyword, value = match[1].upper(), match[2]
        if keyword in parameters:
            raise SMTPReplyError(501, "5.5.4", f"{keyword} is given twice")
        parameters[keyword] = value
        words.append(keyword if value is None else f"{keyword}={value}")
    return words, parameters


def parse_helo_name(argument: str | None) -> str:
    """Read the name a client gives with HELO, EHLO or LHLO.

    It need not be a domain: RFC 5321 section 4.1.4 forbids servers to refuse a client for its name.

    :param argument: the command's argument.
    :returns: the name as given, with a question mark for a tab and for each character that can't be seen.
    :raises SMTPReplyError: 501 5.5.4 if the name is missing, has over 255 characters, or has control characters.
    """
    if not argument:
        raise SMTPReplyError(501, "5.5.4", "Your host name is needed")
    if len(argument) <= MAX_HELO_NAME:
        if argument.isprintable():
            return argument
        if not any(unicodedata.category(c) in _UNSPEAKABLE and c != "\t" for c in argument):
            return "".join("?" if has_hidden_characters(c) else c for c in argument)
    raise SMTPReplyError(501, "5.5.4", "A host name has at most 255 characters, and no control characters")


def parse_size(value: str) -> int:
    """Read the value of a SIZE parameter (RFC 1870 section 4).

    :param value: 1 to 20 digits.
    :returns: the size in octets.
    :raises SMTPReplyError: 501 5.5.4 if it is anything else.
    """
    if _size.fullmatch(value) is None:
        raise SMTPReplyError(501, "5.5.4", "A size is a number of 1 to 20 digits")
    return int(value)


def parse_chunk(argument: str | None) -> tuple[int, bool]:
    """Read the argument of BDAT (RFC 3030 section 2).

    :param argument: ``octets`` or ``octets LAST``.
    :returns: the chunk's octets, and whether it is the last one of its message.
    :raises SMTPReplyError: 501 5.5.4 if it is anything else.
    """
    match = _chunk.fullmatch(argument or "")
    if match is None:
        raise SMTPReplyError(501, "5.5.4", "Syntax: BDAT <octets> [LAST]; closing the connection")
    return int(match[1]), match[2] is not None


def xtext_encode(data: str | bytes) -> str:
    """Encode a value as xtext (RFC 3461 section 4).

    :param data: the value; a ``str`` is encoded as UTF-8 first.
    :raises SMTPReplyError: 501 5.5.4 for a ``str`` with surrogates, which can't be encoded.
    """
    if isinstance(data, str):
        try:
            data = data.encode("utf-8")
        except UnicodeEncodeError:
            raise SMTPReplyError(501, "5.5.4", "A surrogate is not a character") from None
    return _not_xchar.sub(lambda match: b"+%02X" % ord(match[0]), data).decode("ascii")


def xtext_decode(text: str) -> str:
    """Decode xtext (RFC 3461 section 4).

    Hexadecimal digits in lower case, a bare ``=`` and characters beyond ASCII are allowed, as in
    :func:`parse_parameters`.

    :param text: the value of a parameter.
    :returns: the decoded text.
    :raises SMTPReplyError: 501 5.5.4 if it is not xtext, if the decoded octets are not UTF-8, or if the decoded text
        has control or format characters: a line end that a program writes into a header would forge another header.
    """
    if _xtext.fullmatch(text) is None:
        raise SMTPReplyError(501, "5.5.4", "The value is not xtext")
    try:
        encoded = text.encode("utf-8")
        decoded = _hexchar.sub(lambda match: bytes.fromhex(match[1].decode()), encoded).decode("utf-8")
    except UnicodeError:
        raise SMTPReplyError(501, "5.5.4", "The value is not UTF-8") from None
    if has_hidden_characters(decoded):
        raise SMTPReplyError(501, "5.5.4", "The value has control characters")
    return decoded
