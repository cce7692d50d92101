"""SASLprep (RFC 4013), so that a password typed on different systems becomes the same octets."""

from __future__ import annotations

import unicodedata

__all__ = ["prepare"]


def prepare(text: str | bytes) -> str:
    """Prepare a user's name or a password.

    :param text: what the user typed; octets are UTF-8.
    :returns: the text in its normal form.
    :raises ValueError: if it is empty, or has characters that names and passwords may not have; the error does not
        show it.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise ValueError("not UTF-8") from None
    if not (text.isascii() and text.isprintable()):
        text = _normalize(text)
    if not text:
        raise ValueError("nothing")
    return text


def _normalize(text: str) -> str:
    """RFC 4013 section 2, for a text that is not printable ASCII."""
    # Here, since few names and passwords need its tables.
    import stringprep

    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    text = unicodedata.normalize("NFKC", mapped)
    prohibited = (
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
    if any(is_in_table(c) for c in text for is_in_table in prohibited):
        raise ValueError("characters that are not allowed")
    # RFC 3454 section 6.
    if any(stringprep.in_table_d1(c) for c in text) and (
        any(stringprep.in_table_d2(c) for c in text)
        or not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1]))
    ):
        raise ValueError("right-to-left and left-to-right mixed")
    return text
