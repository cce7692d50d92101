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

    def summaries(matching: Any, limit: int = 50, newest_first: bool = True, offset: int = 0) -> Any:
        """Look for messages, to show a list of them; cheaper than :meth:`find`, as it reads no content.

        :param matching: a :class:`Matching`.
        :param limit: how many at most.
        :param newest_first: whether the newest come first; else the oldest do.
        :param offset: how many of those that match are left out first; ``Matching.before`` and ``after`` cost less.
        :returns: a list of :class:`Summary`.
        """

    def ids(matching: Any, limit: int | None = None) -> Any:
        """The numbers of the messages that match, the oldest first.

        :param matching: a :class:`Matching`.
        :param limit: how many at most; ``None`` for all.
        """

    def count(matching: Any) -> Any:
        """How many messages match.

        :param matching: a :class:`Matching`.
        """

    def tally(matching: Any) -> Any:
        """How many messages match, and how many of these are unread: at the price of one :meth:`count`.

        :param matching: a :class:`Matching`.
        :returns: a pair of numbers.
        """

    def counts(mailbox: str | None = None) -> Any:
        """How many messages there are, unread ones, refused ones.

        :param mailbox: the mailbox; ``None`` for all.
        :returns: :class:`Counts`.
        """

    def mailboxes() -> Any:
        """The mailboxes that have messages, in order: a dict of name to :class:`Counts`."""

    def tags(mailbox: str | None = None) -> Any:
        """The tags that messages have, in order: a dict of tag to number of messages.

        :param mailbox: the mailbox; ``None`` for all.
        """

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
        """Remove messages: nothing finds them any more, but :meth:`restore` brings them back for ten minutes.

        :param ids: an iterable of numbers.
        :returns: how many messages were found.
        """

    def restore(ids: Any) -> Any:
        """Bring back messages that were deleted, if it is not ten minutes ago and their room was not needed.

        :param ids: an iterable of numbers.
        :returns: how many messages came back.
        """

    def purge() -> Any:
        """Remove what is past its time: what was deleted ten minutes ago, and old messages where there is such a limit.

        The owner of a store calls it each second or so: a store may also put off work until then.
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

    def watch_changes(listener: Any) -> Any:
        """Be told of all that changes: new messages, their read state, their tags, deletions.

        :param listener: called with a :class:`Change`, in the server's thread.
        :returns: a function without arguments that ends it.
        """

    def close() -> Any:
        """Give up what the store holds; it is not used any more."""
