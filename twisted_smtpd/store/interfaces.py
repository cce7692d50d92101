"""The interface of a store."""

from __future__ import annotations

from typing import Any

from zope.interface import Interface

__all__ = ["IMessageStore"]


class IMessageStore(Interface):
    """Keeps messages, with what is known of their sessions.

    Each method may return its result or a Deferred, as hooks may: a store on a disk answers later.  The methods are
    called in the thread in which the server runs.
    """

    def add(message: Any) -> Any:
        """Keep a message; it can be found when this is done, and only then its sender hears 250.

        The store may remove others to make room: its constructor says which.

        :param message: a :class:`NewMessage`.
        :returns: a :class:`StoredMessage`.
        """

    def get(id: int) -> Any:
        """A message by its number.

        :returns: a :class:`StoredMessage`, or ``None`` if there is none.
        """

    def find(matching: Any, limit: int | None = None, newest_first: bool = False) -> Any:
        """Look for messages.

        :param matching: a :class:`Matching`.
        :param limit: how many at most; ``None`` for all.
        :param newest_first: whether the newest come first; else the oldest do.
        :returns: a list of :class:`StoredMessage`.
        """

    def count(matching: Any) -> Any:
        """How many messages there are.

        :param matching: a :class:`Matching`.
        """

    def mailboxes() -> Any:
        """The mailboxes that have messages: a dict of name to number of accepted messages."""

    def mark(ids: Any, seen: bool) -> Any:
        """Note that messages were read, or that they are to be taken for unread.

        :param ids: an iterable of numbers; those of messages that are not there are ignored, here and below.
        :returns: how many messages were found.
        """

    def tag(ids: Any, add: Any = (), remove: Any = ()) -> Any:
        """Change the tags of messages.

        :param ids: an iterable of numbers.
        :param add: an iterable of tags.
        :param remove: an iterable of tags.
        :returns: how many messages were found.
        """

    def delete(ids: Any) -> Any:
        """Remove messages.

        :param ids: an iterable of numbers.
        :returns: how many messages were found.
        """

    def keep_transcript(session: str, transcript: str) -> Any:
        """Keep the dialog of a session, as long as there are messages of that session.

        :param session: the session's id.
        :param transcript: the dialog as a text; it replaces what was kept of this session before.
        """

    def transcript(session: str) -> Any:
        """The dialog of a session as a text, or ``None``."""

    def watch(listener: Any) -> Any:
        """Be told of each new message.

        :param listener: called with the :class:`StoredMessage`, in the server's thread, before ``add`` is done.
        :returns: a function without arguments that ends it.
        """

    def close() -> Any:
        """Give up what the store holds; it is not used any more."""
