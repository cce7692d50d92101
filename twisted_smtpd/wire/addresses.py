"""Paths and mailboxes: the grammar of RFC 5321 sections 4.1.2 and 4.1.3, with UTF-8 as RFC 6531 section 3.3 adds it.

A mailbox may have any character beyond ASCII except controls, surrogates, spaces, separators, and format characters
(category Cf: they are invisible, and the bidirectional ones make one address look like another).  The two joiners
U+200C and U+200D are allowed, since Persian and Indic labels need them.  Addresses need not be normalized.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import cache

from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["has_hidden_characters", "needs_smtputf8", "parse_mailbox", "parse_path", "plain_path"]

# RFC 5321 section 4.5.3.1.3: a path has 256 octets, the two angle brackets included.
MAX_MAILBOX = 254
# RFC 5321 section 4.5.3.1.2.
MAX_DOMAIN = 255
# RFC 1035 section 2.3.4.  For a label that is not ASCII it limits the A-label (RFC 5890 section 2.3.2.1).
MAX_LABEL = 63

# Each expression can match a text in one way only, so the time for a text that does not match is linear.
# The classes list the ASCII characters that they exclude, so that they include all of Unicode beyond ASCII.  The other
# way round, with "\x80-\U0010ffff" in a class, Python would need milliseconds to compile each of them.
_ATOM = r"""[^\x00- "(),.:;<>@\[\\\]\x7f]+"""
_QUOTED_TEXT = r'[^\x00-\x1f"\\\x7f]*'
# RFC 5321 has no underscore here, but there are hosts with one in their names, and they send legitimate mail.
_LETTERS = r"[^\x00-/:-@\[-^`{-\x7f]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = rf'"{_QUOTED_TEXT}(?:\\[ -~]{_QUOTED_TEXT})*"'
_LABEL = rf"{_LETTERS}(?:-+{_LETTERS})*"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[!-Z^-~]+\]"
_ROUTE = rf"@{_DOMAIN}(?:,@{_DOMAIN})*:"
# Dots at the ends and beside each other need a quoted string, but there are real mailboxes that come without.
_DOTTED = r"""[^\x00- "(),:;<>@\[\\\]\x7f]+"""
_MAILBOX = rf"(?P<local>{_DOTTED}|{_QUOTED})(?:@(?P<domain>{_DOMAIN}|{_LITERAL}))?"

# The same for ASCII only.
_PLAIN_LOCAL = r"[A-Za-z0-9!#$%&'*+./=?^_`{|}~-]+"
_PLAIN_LABEL = r"[A-Za-z0-9_]+(?:-+[A-Za-z0-9_]+)*"
_PLAIN_PATH = rf"<({_PLAIN_LOCAL}@{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*)>"

_plain_paths = {keyword: re.compile(rf"{keyword}[ \t]*{_PLAIN_PATH}(?:[ \t]+(.*))?") for keyword in ("FROM:", "TO:")}
# The rest is rare, and an import should not wait for it: the re module compiles a text when it is first used, and keeps
# the result.
_PATH = rf"<(?P<route>{_ROUTE})?{_MAILBOX}>(?:[ \t]+(?P<rest>.*))?"
_BARE_PATH = rf"{_MAILBOX}(?:[ \t]+(?P<rest>.*))?"
_TAGGED_LITERAL = r"([A-Za-z0-9-]*[A-Za-z0-9]):(.+)"

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_JOINERS = frozenset("\u200c\u200d")
# All of ASCII except letters, digits, hyphen and underscore; and the ideographic full stop, which IDNA reads as a dot.
_DELIMITER = r"[\x00-,./:-@\[-^`{-\x7f\u3002]"


def has_hidden_characters(text: str) -> bool:
    """Whether a text has controls, surrogates, spaces except U+0020, or format characters except the joiners."""
    if text.isprintable():
        return False
    return any(unicodedata.category(c) in _HIDDEN and c not in _JOINERS and c != " " for c in text)


def needs_smtputf8(address: str) -> bool:
    """Whether an address needs SMTPUTF8 (RFC 6531).

    :param address: a mailbox, as the parsers here return it.
    """
    return not address.isascii()


def plain_path(argument: str | None, keyword: str, local_part_limit: int = 0) -> tuple[str, str] | None:
    """Read the argument of MAIL or RCPT if it has the form that nearly all clients send.

    :param argument: the keyword, a path, and what follows it.
    :param keyword: ``"FROM:"`` or ``"TO:"``.
    :param local_part_limit: see :func:`parse_path`; with a limit the result is always ``None``.
    :returns: the same as :func:`parse_path`, or ``None`` for an argument that only :func:`parse_path` can read.
    """
    if argument is None or local_part_limit:
        return None
    match = _plain_paths[keyword].fullmatch(argument)
    if match is None:
        return None
    address, rest = match.groups("")
    # In an address this short no label can be too long.
    if len(address) > MAX_LABEL and not (len(address) <= MAX_MAILBOX and _is_domain(address.rpartition("@")[2])):
        return None
    return address, rest.rstrip(" \t") if rest else ""


def parse_path(
    text: str,
    *,
    null: bool = False,
    bare_local_part: bool = False,
    sender: bool = False,
    local_part_limit: int = 0,
    default_domain: str = "",
) -> tuple[str, str]:
    """Read the path that follows ``FROM:`` or ``TO:`` (RFC 5321 section 4.1.2).

    Blanks before the path are skipped, and a mailbox without blanks may come without its angle brackets, since devices
    send both.  A source route is checked and dropped (RFC 5321 appendix C).  Blanks inside the brackets and a semicolon
    behind them are skipped, and dots may be anywhere in a local part: such paths are sent, and mean what they seem to.

    :param text: the path and what follows it.
    :param null: whether ``<>`` is allowed.
    :param bare_local_part: whether other local parts than ``postmaster`` may come without a domain.
    :param default_domain: the domain that other local parts than ``postmaster`` get if they have none; ``""`` for none.
    :param sender: whether it is the reverse-path; the enhanced code of an error is 5.1.7 then, else 5.1.3.
    :param local_part_limit: the most octets that a local part may have; 0 for no limit other than the path's.
    :returns: the mailbox in its shortest spelling (``""`` for ``<>``), and what follows the path.
    :raises SMTPReplyError: 501 for a malformed path, 553 for a missing domain.
    """
    text = text.strip(" \t")
    if null and text.startswith("<>") and text[2:3] in ("", " ", "\t", ";"):
        rest = text[2:].removeprefix(";")
        if rest[:1] in ("", " ", "\t"):
            return "", rest.lstrip(" \t")
    return _read(text, bare_local_part, sender, local_part_limit, default_domain)


def parse_mailbox(text: str, *, bare_local_part: bool = False, sender: bool = False, local_part_limit: int = 0) -> str:
    """Read a text that is a single mailbox, with or without angle brackets.

    :param text: the mailbox; blanks around it are skipped.
    :param bare_local_part: see :func:`parse_path`.
    :param sender: see :func:`parse_path`.
    :param local_part_limit: see :func:`parse_path`.
    :returns: the mailbox in its shortest spelling.
    :raises SMTPReplyError: 501 for a malformed mailbox, 553 for a missing domain.
    """
    address, rest = _read(text.strip(" \t"), bare_local_part, sender, local_part_limit)
    if rest:
        raise _malformed(sender)
    return address


def _read(
    text: str, bare_local_part: bool, sender: bool, local_part_limit: int, default_domain: str = ""
) -> tuple[str, str]:
    angle = text.startswith("<")
    match = re.fullmatch(_PATH if angle else _BARE_PATH, text)
    if match is None and angle:
        match = _untidy_path().fullmatch(text)
    if match is None:
        raise _malformed(sender)
    local, domain = match["local"], match["domain"]
    # Without brackets a blank ends the mailbox, even in a quoted string.
    if not angle and " " in local:
        raise _malformed(sender)
    if local.startswith('"'):
        local = _requote(local)
    if domain is None and default_domain and local.lower() != "postmaster":
        domain = default_domain
    address = local if domain is None else f"{local}@{domain}"
    if has_hidden_characters(address):
        raise _malformed(sender, "has invisible characters")
    if _octets(address) > MAX_MAILBOX or 0 < local_part_limit < _octets(local):
        raise _malformed(sender, "is too long")
    domains = match["route"][1:-1].split(",@") if angle and match["route"] else []
    if domain is not None:
        domains.append(domain)
    elif not bare_local_part and local.lower() != "postmaster":
        raise SMTPReplyError(553, _enhanced(sender), f"The {_role(sender)}'s address needs a domain")
    if not all(_is_literal(name) if name.startswith("[") else _is_domain(name) for name in domains):
        raise _malformed(sender, "has a bad domain")
    return address, match["rest"] or ""


@cache
def _untidy_path() -> re.Pattern[str]:
    """A path with blanks inside of its brackets, or a semicolon behind them, as clients send that can't be changed.

    It is rare, and takes a millisecond to compile.
    """
    return re.compile(rf"<[ \t]*(?P<route>{_ROUTE})?{_MAILBOX}[ \t]*>;?(?:[ \t]+(?P<rest>.*))?")


def _role(sender: bool) -> str:
    return "sender" if sender else "recipient"


def _enhanced(sender: bool) -> str:
    return "5.1.7" if sender else "5.1.3"


def _malformed(sender: bool, why: str = "is malformed") -> SMTPReplyError:
    return SMTPReplyError(501, _enhanced(sender), f"The {_role(sender)}'s address {why}")


def _octets(text: str) -> int:
    return len(text.encode("utf-8"))


def _requote(quoted: str) -> str:
    """The shortest valid spelling of a quoted string, so that a mailbox has only one (RFC 5321 section 4.1.2)."""
    content = re.sub(r"\\(.)", r"\1", quoted[1:-1])
    if re.fullmatch(_DOT_STRING, content):
        return content
    return '"' + re.sub(r"[\"\\]", r"\\\g<0>", content) + '"'


def _is_domain(domain: str) -> bool:
    """Whether a domain is short enough, and has no label that is too long or that IDNA would split.

    :param domain: matches the grammar.
    """
    if domain.isascii():
        return len(domain) <= MAX_DOMAIN and all(len(label) <= MAX_LABEL for label in domain.split("."))
    if has_hidden_characters(domain) or _octets(domain) > MAX_DOMAIN:
        return False
    return all(_is_label(label) for label in domain.split("."))


def _is_label(label: str) -> bool:
    if label.isascii():
        return len(label) <= MAX_LABEL
    # A full-width dot or solidus becomes an ASCII one when the name is looked up: the mail would go to another domain
    # than the one that a handler has checked.
    if re.search(_DELIMITER, unicodedata.normalize("NFKC", label)):
        return False
    return len("xn--") + len(label.encode("punycode")) <= MAX_LABEL


def _is_literal(literal: str) -> bool:
    """Whether a text in brackets is an address literal (RFC 5321 section 4.1.3)."""
    content = literal[1:-1]
    tagged = re.fullmatch(_TAGGED_LITERAL, content)
    try:
        if tagged is None:
            ipaddress.IPv4Address(content)
        elif tagged[1].lower() == "ipv6":
            # The grammar has no scope: it would name an interface of one host.
            return ipaddress.IPv6Address(tagged[2]).scope_id is None
    except ValueError:
        return False
    return True
