"""SASLprep (RFC 4013): the same password typed on two systems is the same octets."""

from __future__ import annotations

import stringprep
import unicodedata

__all__ = ["prepare"]

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepare(text: str | bytes) -> str:
    """Prepare a user's name or a password.

    :param text: what the user typed; octets are UTF-8.
    :raises ValueError: if it is empty, or has what names and passwords may not have; the error does not show it.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise ValueError("not UTF-8") from None
    if not (text.isascii() and text.isprintable()):
        mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
        text = unicodedata.normalize("NFKC", mapped)
        if any(prohibited(c) for c in text for prohibited in _PROHIBITED):
            raise ValueError("characters that are not allowed")
        _check_direction(text)
    if not text:
        raise ValueError("nothing")
    return text


def _check_direction(text: str) -> None:
    """RFC 3454 section 6."""
    if any(stringprep.in_table_d1(c) for c in text) and (
        any(stringprep.in_table_d2(c) for c in text)
        or not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1]))
    ):
        raise ValueError("right-to-left and left-to-right mixed")
