"""Those who are told of new messages and of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import RLock
from typing import TYPE_CHECKING, Literal

from twisted.logger import Logger

from twisted_smtpd.store.messages import StoredMessage

if TYPE_CHECKING:
    from twisted_smtpd.store.summary import Change, Summary

__all__ = ["Kind", "Listeners"]

log = Logger()

Kind = Literal["new", "seen", "unseen", "tags", "deleted", "restored"]


class Listeners:
    """Tells of what changes; may be used in any thread.

    One that fails is logged: the message is stored all the same.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._of_messages: list[Callable[[StoredMessage], object]] = []
        self._of_changes: list[Callable[[Change], object]] = []
        self._last_change = 0

    def watch(self, listener: Callable[[StoredMessage], object]) -> Callable[[], None]:
        """See :meth:`IMessageStore.watch`."""
        return self._add(self._of_messages, listener)

    def watch_changes(self, listener: Callable[[Change], object]) -> Callable[[], None]:
        """See :meth:`IMessageStore.watch_changes`."""
        return self._add(self._of_changes, listener)

    def _add(self, listeners: list[Callable[..., object]], listener: Callable[..., object]) -> Callable[[], None]:
        with self._lock:
            listeners.append(listener)

        def stop() -> None:
            with self._lock:
                if listener in listeners:
                    listeners.remove(listener)

        return stop

    def tell_new(self, stored: StoredMessage, summary: Callable[[], Summary]) -> None:
        """Tell of a new message.

        :param summary: makes its summary; called only if somebody listens.
        """
        for listener in tuple(self._of_messages):
            _call(listener, stored)
        self.tell("new", (stored.id,), stored.message.mailboxes, summary)

    def tell(
        self, kind: Kind, ids: tuple[int, ...], mailboxes: Iterable[str], summary: Callable[[], Summary] | None = None
    ) -> None:
        """Tell of a change; of none, where it is about no message.

        :param ids: the numbers of the messages.
        :param mailboxes: the mailboxes that they are in.
        """
        if not ids:
            return
        with self._lock:
            self._last_change += 1
            number, listeners = self._last_change, tuple(self._of_changes)
        if listeners:
            # Imported here: a store without listeners does not need it.
            from twisted_smtpd.store.summary import Change

            change = Change(kind, ids, None if summary is None else summary(), number, frozenset(mailboxes))
            for listener in listeners:
                _call(listener, change)

    def clear(self) -> None:
        """Stop telling listeners."""
        with self._lock:
            self._of_messages.clear()
            self._of_changes.clear()


def _call(listener: Callable[..., object], news: object) -> None:
    try:
        listener(news)
    except Exception:
        log.failure("a listener of a store has failed")
