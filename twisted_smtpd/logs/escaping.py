"""Texts that clients have chosen, in a line that people and programs read."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from twisted_smtpd.wire.escaping import escaped_address

__all__ = ["clean", "cut", "peer_text", "quoted", "word"]

# Characters of a command's argument, of a reply and of the like that a line has at most.
MAX_TEXT = 500


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """A text of at most so many characters; one that is cut ends with three dots."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def clean(text: object) -> str:
    """A text without line ends, other control characters, and all that can't be seen: they are escaped (``\\x1b``).

    A backslash is doubled, so that what looks like an escape is one.
    """
    plain = str(text)
    if plain.isprintable() and "\\" not in plain:
        return plain
    return "".join(_escaped(c) for c in plain)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    return character if character.isprintable() else ascii(character)[1:-1]


def quoted(text: object) -> str:
    """The same in double quotes."""
    return '"' + clean(text).replace('"', '\\"') + '"'


def word(text: object) -> str:
    """A text as one word that can't be taken for something else: as it is if it is plain, else in quotes."""
    plain = str(text)
    if plain and plain.isprintable() and not any(c in ' "\\=<>,' for c in plain):
        return plain
    return quoted(plain)


def address(text: object) -> str:
    """A mailbox, escaped where it is more than a plain one."""
    plain = str(text)
    if '"' in plain or not plain.isascii() or "\\" in plain or not plain.isprintable() or " " in plain:
        return escaped_address(plain)
    return plain


def peer_text(peer: Any) -> str:
    """A client's address: ``192.0.2.1:4321``, ``[2001:db8::1]:4321``, or ``unix`` for a Unix socket.

    :param peer: a ``session.peer``.
    """
    if type(peer) is tuple and len(peer) >= 2 and type(peer[0]) is str and type(peer[1]) is int:
        return _inet(peer[0], peer[1])
    if not peer:
        return "unix"
    return f"unix:{word(peer)}" if isinstance(peer, str) else word(peer)


@lru_cache(maxsize=1024)
def _inet(host: str, port: int) -> str:
    host = clean(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
