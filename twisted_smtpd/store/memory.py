"""A store in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import RLock

from zope.interface import implementer

from twisted_smtpd.store.interfaces import IMessageStore
from twisted_smtpd.store.messages import Matching, NewMessage, StoredMessage

__all__ = ["MAX_MESSAGES", "MAX_OCTETS", "MemoryStore"]

#: How many messages are kept, and how many octets they may have together, unless a store is told otherwise.
MAX_MESSAGES = 10_000
MAX_OCTETS = 512 * 2**20


@implementer(IMessageStore)
class MemoryStore:
    """Keeps messages in memory, while the program runs.

    Its methods return their results, not Deferreds, and may be called in any thread.  If there is no room for a
    message, the oldest ones go; the newest always stays.

    :param max_messages: how many messages are kept, 1 or more.
    :param max_octets: how many octets they may have together.
    :ivar dropped: how many messages went because there was no room.
    """

    def __init__(self, max_messages: int = MAX_MESSAGES, max_octets: int = MAX_OCTETS) -> None:
        if max_messages < 1:
            raise ValueError(f"max_messages: 1 or more, not {max_messages}")
        self._max_messages, self._max_octets = max_messages, max_octets
        self._lock = RLock()
        self._messages: dict[int, StoredMessage] = {}
        self._octets = 0
        self._last_id = 0
        self._transcripts: dict[str, str] = {}
        # For each session, how many messages it has here: its transcript goes with the last of them.
        self._of_session: Counter[str] = Counter()
        self._listeners: list[Callable[[StoredMessage], object]] = []
        self.dropped = 0

    def add(self, message: NewMessage) -> StoredMessage:
        with self._lock:
            self._last_id += 1
            stored = self._messages[self._last_id] = StoredMessage(self._last_id, message)
            self._octets += len(message.content)
            self._of_session[message.session.id] += 1
            while len(self._messages) > self._max_messages or (
                self._octets > self._max_octets and len(self._messages) > 1
            ):
                self._remove(next(iter(self._messages)))
                self.dropped += 1
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(stored)
        return stored

    def get(self, id: int) -> StoredMessage | None:
        return self._messages.get(id)

    def find(self, matching: Matching, limit: int | None = None, newest_first: bool = False) -> list[StoredMessage]:
        with self._lock:
            messages = list(self._messages.values())
        found: list[StoredMessage] = []
        for stored in reversed(messages) if newest_first else messages:
            if limit is not None and len(found) >= limit:
                break
            if matches(stored, matching):
                found.append(stored)
        return found

    def count(self, matching: Matching) -> int:
        return len(self.find(matching))

    def mailboxes(self) -> dict[str, int]:
        with self._lock:
            return dict(Counter(s.message.mailbox for s in self._messages.values() if s.message.refusal is None))

    def mark(self, ids: Iterable[int], seen: bool) -> int:
        return self._change(ids, lambda stored: replace(stored, seen=seen))

    def tag(self, ids: Iterable[int], add: Iterable[str] = (), remove: Iterable[str] = ()) -> int:
        added, removed = frozenset(add), frozenset(remove)
        return self._change(ids, lambda stored: replace(stored, tags=(stored.tags | added) - removed))

    def _change(self, ids: Iterable[int], change: Callable[[StoredMessage], StoredMessage]) -> int:
        with self._lock:
            found = [id for id in dict.fromkeys(ids) if id in self._messages]
            for id in found:
                self._messages[id] = change(self._messages[id])
            return len(found)

    def delete(self, ids: Iterable[int]) -> int:
        with self._lock:
            found = [id for id in dict.fromkeys(ids) if id in self._messages]
            for id in found:
                self._remove(id)
            return len(found)

    def clear(self) -> None:
        """Remove all messages, the refused ones too."""
        with self._lock:
            self.delete(list(self._messages))
            self.dropped = 0

    def _remove(self, id: int) -> None:
        message = self._messages.pop(id).message
        self._octets -= len(message.content)
        session = message.session.id
        self._of_session[session] -= 1
        if not self._of_session[session]:
            del self._of_session[session]
            self._transcripts.pop(session, None)

    def keep_transcript(self, session: str, transcript: str) -> None:
        with self._lock:
            if session in self._of_session:
                self._transcripts[session] = transcript

    def transcript(self, session: str) -> str | None:
        return self._transcripts.get(session)

    def watch(self, listener: Callable[[StoredMessage], object]) -> Callable[[], None]:
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return stop

    def close(self) -> None:
        self.clear()
        self._listeners.clear()


def matches(stored: StoredMessage, matching: Matching) -> bool:
    """Whether a message is one of those that are looked for."""
    message = stored.message
    return (
        stored.id > matching.after
        and (matching.before is None or stored.id < matching.before)
        and matching.mailbox in (None, message.mailbox)
        and matching.refused in (None, message.refusal is not None)
        and matching.seen in (None, stored.seen)
        and (matching.tag is None or matching.tag in stored.tags)
        and matching.session in (None, message.session.id)
        and (not matching.sender or _in_any(matching.sender, message.senders))
        and (not matching.to or _in_any(matching.to, message.addressees))
        and (not matching.subject or _in_any(matching.subject, [message.subject]))
        and (not matching.text or _has_words(matching.text, message))
    )


def _in_any(part: str, texts: Iterable[str]) -> bool:
    part = part.casefold()
    return any(part in text.casefold() for text in texts)


def _has_words(words: str, message: NewMessage) -> bool:
    content = message.content.decode("utf-8", "replace").casefold()
    decoded = "\n".join((message.subject, *message.senders, *message.addressees)).casefold()
    return all(word in content or word in decoded for word in words.casefold().split())
