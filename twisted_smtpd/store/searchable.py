"""The texts of a message in which a search looks."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Searchable"]


class Searchable(NamedTuple):
    """The texts of a message in which a search looks, all in small letters (:meth:`str.casefold`)."""

    sender: str
    to: str
    cc: str
    bcc: str
    reply_to: str
    subject: str
    message_id: str
    body: str
