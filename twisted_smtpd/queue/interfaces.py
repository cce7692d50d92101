"""The interface of a queue."""

from __future__ import annotations

from typing import Any

from zope.interface import Interface

__all__ = ["IQueue"]


class IQueue(Interface):
    """Keeps messages until each of their recipients is settled.

    A message is delivered at least once: after a crash a delivery that was not settled is taken again.  Its id stays
    the same, so that consumers can tell doubles.

    Each method returns a Deferred, or its result.
    """

    def accept(message: Any) -> Any:
        """Make a message durable; only then its client hears 250.

        :param message: a :class:`~twisted_smtpd.queue.entries.NewMessage`.
        :returns: its id, a ``str`` that no other message ever gets.
        :raises OSError: if it could not be stored (``ENOSPC``: the disk is full).
        :raises QueueFull: if the queue has reached one of its bounds.
        """

    def take(limit: int, skip: Any = frozenset()) -> Any:
        """Give deliveries that are due, the longest due first, and from each destination about as many.

        None is given a second time before it has been settled or given back.

        :param limit: how many at most.
        :param skip: destinations of which none is wanted.
        :returns: a list of :class:`~twisted_smtpd.queue.entries.Delivery`.
        """

    def content(delivery: Any) -> Any:
        """The message of a delivery, as bytes; ``None`` if it has been deleted meanwhile.

        :raises DamagedMessage: if it is not what was accepted.
        """

    def settle(delivery: Any, outcomes: Any, due: float, notices: Any = (), warned: bool = False) -> Any:
        """Note what has become of a delivery's recipients, all or nothing.

        :param delivery: the delivery, which ends with this.  If this fails, it has not ended: settle it again, or give
            it back.
        :param outcomes: an :class:`~twisted_smtpd.queue.entries.Outcome` for the position of each recipient.
        :param due: when those that are to be tried again are due, by :meth:`now`.
        :param notices: bounces and other notices, each a :class:`~twisted_smtpd.queue.entries.NewMessage`, which are
            accepted at the same moment.
        :param warned: whether one of them says that the message is delayed.
        """

    def hold(delivery: Any) -> Any:
        """End a delivery, and keep it until a person looks after it."""

    def give_back(delivery: Any) -> Any:
        """End a delivery without an outcome: it is as due as before."""

    def overdue(age: float, warned: bool, limit: int, among: Any) -> Any:
        """Take deliveries of messages that have waited for long, due or not, except those that are held.

        :param age: seconds since they were accepted.
        :param warned: whether those whose sender has been warned are wanted as well.
        :param limit: how many at most.
        :param among: the destinations whose deliveries are wanted.
        :returns: as with :meth:`take`.
        """

    def usage() -> Any:
        """How full the queue is: a :class:`~twisted_smtpd.queue.entries.Usage`."""

    def now() -> float:
        """The queue's time in seconds since 1970, which does not jump while the program runs."""

    def close() -> Any:
        """Give up what the queue holds; it is not used any more."""
