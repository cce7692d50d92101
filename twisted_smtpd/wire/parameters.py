"""The values of the parameters that extensions add to MAIL and RCPT.

Each function takes the value as sent, and raises :exc:`SMTPReplyError` (501 5.5.4) for one that does not fit the
grammar of its RFC.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_smtpd.wire.addresses import has_hidden_characters
from twisted_smtpd.wire.commands import xtext_decode
from twisted_smtpd.wire.replies import SMTPReplyError

if TYPE_CHECKING:
    from twisted_smtpd.wire.parameter_values import DeliveryTime, OriginalRecipient, ValidSince

__all__ = [
    "parse_deliver_by",
    "parse_envid",
    "parse_hold_for",
    "parse_hold_until",
    "parse_notify",
    "parse_orcpt",
    "parse_priority",
    "parse_ret",
    "parse_valid_since",
]

# RFC 3461 sections 4.2 and 4.4.
MAX_ORCPT = 500
MAX_ENVID = 100

_NOTICES = frozenset({"SUCCESS", "FAILURE", "DELAY"})
# The re module compiles these texts when they are first used, and keeps the result: an import should not wait for it.
# An atom (RFC 822 section 3.3), as IANA's list of address types has them.
_ADDRESS_TYPE = r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]{1,64}"
# RFC 6533 section 3: a character by its code point, in upper case and without leading zeros.
_EMBEDDED = r"\\x\{([0-9A-F]+)\}"
_PRIORITY = r"-?[0-9]"
_DELIVER_BY = r"([+-]?[0-9]{1,9});([NRnr])([Tt]?)"
_SECONDS = r"[0-9]{1,9}"
_DATE_TIME = r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"


def _bad(text: str) -> SMTPReplyError:
    return SMTPReplyError(501, "5.5.4", text)


def parse_notify(value: str | None) -> frozenset[str]:
    """Read NOTIFY (RFC 3461 section 4.1).

    :returns: some of ``SUCCESS``, ``FAILURE`` and ``DELAY``; nothing for ``NEVER``.
    """
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return frozenset()
    if not _NOTICES.issuperset(words):
        raise _bad("NOTIFY is NEVER, or some of SUCCESS,FAILURE,DELAY")
    return frozenset(words)


@lru_cache(maxsize=64)
def parse_orcpt(value: str | None) -> OriginalRecipient:
    """Read ORCPT (RFC 3461 section 4.2, RFC 6533 section 3).

    The address of a ``utf-8`` type may come in each of its three forms.  One of another type may have UTF-8 behind its
    xtext, as Postfix sends it.
    """
    kind, semicolon, encoded = (value or "").partition(";")
    if not semicolon or not encoded or re.fullmatch(_ADDRESS_TYPE, kind) is None:
        raise _bad("ORCPT is TYPE;ADDRESS: ORCPT=rfc822;anne@example.com")
    if len(value or "") > MAX_ORCPT:
        raise _bad(f"ORCPT has at most {MAX_ORCPT} characters")
    # Imported here and below: few clients send such a parameter.
    from twisted_smtpd.wire.parameter_values import OriginalRecipient

    kind = kind.lower()
    if kind != "utf-8":
        if not encoded.isascii():
            raise _bad("An ORCPT beyond ASCII has the type utf-8")
        # Postfix gives an address in UTF-8 the type rfc822, and encodes its octets: refused, such mail would bounce.
        return OriginalRecipient(kind, xtext_decode(encoded))
    # A plus sign begins an octet in xtext, and stands for itself in the forms that have no xtext.
    text = xtext_decode(encoded) if re.fullmatch(r"(?:[^+]|\+[0-9A-F]{2})*", encoded) else encoded
    text = re.sub(_EMBEDDED, _embedded_character, text)
    if has_hidden_characters(text):
        raise _bad("ORCPT has control characters")
    return OriginalRecipient(kind, text)


def _embedded_character(match: re.Match[str]) -> str:
    number = int(match[1], 16) if len(match[1]) <= 6 else 0x110000
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise _bad(f"{match[0][:16]} in ORCPT is no character")
    return chr(number)


def _printable(text: str, keyword: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise _bad(f"{keyword} is printable ASCII, encoded as xtext")
    return text


def parse_ret(value: str | None) -> str:
    """Read RET (RFC 3461 section 4.3).

    :returns: ``"FULL"`` or ``"HDRS"``.
    """
    found = (value or "").upper()
    if found not in ("FULL", "HDRS"):
        raise _bad("RET is FULL or HDRS")
    return found


def parse_envid(value: str | None) -> str:
    """Read ENVID (RFC 3461 section 4.4); returns it decoded."""
    if not value or len(value) > MAX_ENVID:
        raise _bad(f"ENVID has 1 to {MAX_ENVID} characters")
    return _printable(xtext_decode(value), "ENVID")


def parse_priority(value: str | None) -> int:
    """Read MT-PRIORITY (RFC 6710 section 4); returns it, from -9 to 9."""
    if re.fullmatch(_PRIORITY, value or "") is None:
        raise _bad("MT-PRIORITY is a number from -9 to 9")
    return int(value or "")


def parse_deliver_by(value: str | None) -> DeliveryTime:
    """Read BY (RFC 2852 section 4)."""
    match = re.fullmatch(_DELIVER_BY, value or "")
    if match is None:
        raise _bad("BY is SECONDS;N or SECONDS;R: BY=3600;R")
    from twisted_smtpd.wire.parameter_values import DeliveryTime

    found = DeliveryTime(int(match[1]), match[2].upper(), bool(match[3]))
    if found.mode == "R" and found.seconds <= 0:
        raise _bad("BY with mode R needs a time that is not over")
    return found


def parse_hold_for(value: str | None) -> int:
    """Read HOLDFOR (RFC 4865 section 4); returns the seconds."""
    if re.fullmatch(_SECONDS, value or "") is None:
        raise _bad("HOLDFOR is a number of seconds, of at most 9 digits")
    return int(value or "")


def parse_hold_until(value: str | None) -> datetime:
    """Read HOLDUNTIL (RFC 4865 section 4)."""
    return _time(value, "HOLDUNTIL")


def parse_valid_since(value: str | None) -> ValidSince:
    """Read RRVS (RFC 7293 section 5.2)."""
    time, semicolon, action = (value or "").partition(";")
    if semicolon and action.upper() not in ("C", "R"):
        raise _bad("RRVS is TIME, TIME;C or TIME;R")
    from twisted_smtpd.wire.parameter_values import ValidSince

    return ValidSince(_time(time, "RRVS"), action.upper() or "R")


def _time(value: str | None, keyword: str) -> datetime:
    """A time as RFC 3339 has it, with its zone."""
    match = re.fullmatch(_DATE_TIME, value or "")
    try:
        if match is None:
            raise ValueError
        fraction = match[3][:7].ljust(7, "0") if match[3] else ""
        zone = "+00:00" if match[4] in "Zz" else match[4]
        return datetime.fromisoformat(f"{match[1]}T{match[2]}{fraction}{zone}")
    except ValueError:
        raise _bad(f"{keyword} is a time such as 2030-01-31T12:00:00Z") from None
