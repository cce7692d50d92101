"""What others have chosen, in a line of the log.

A line must not look like another one: programs read the log, and ban whom it tells of.
"""

from __future__ import annotations

import re

__all__ = ["escaped_address", "quoted_text"]

# What an address has outside a quoted local part, and brackets of an address literal.
_NOT_PLAIN = re.compile(r"[^\w!#$%&'*+/=?^`{|}~.@:\[\]-]")
# A text can be as long as the one who sends it likes.
MAX_TEXT = 1000


def _code(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def escaped_address(address: object) -> str:
    """An address with all escaped (``\\x20``) that only a quoted local part can have; it is one word.

    :param address: the address; or anything else, which becomes text.
    """
    return _NOT_PLAIN.sub(_code, str(address))


def quoted_text(text: object) -> str:
    """A text in quotes, in ASCII, without line ends and other control characters."""
    plain = str(text)
    return ascii(plain if len(plain) <= MAX_TEXT else f"{plain[:MAX_TEXT]}...")
