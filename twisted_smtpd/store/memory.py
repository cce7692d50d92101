"""A store in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING

from zope.interface import implementer

from twisted_smtpd.runtime.steady import Unfrozen
from twisted_smtpd.store.interfaces import IMessageStore
from twisted_smtpd.store.listening import Kind, Listeners
from twisted_smtpd.store.matching import matches
from twisted_smtpd.store.messages import Matching, NewMessage, StoredMessage
from twisted_smtpd.store.searchable import Searchable

if TYPE_CHECKING:
    from twisted_smtpd.store.summary import Change, Counts, Summary

__all__ = ["BIN_SECONDS", "MAX_MESSAGES", "MAX_OCTETS", "MemoryStore", "count"]

#: How many messages are kept, and how many octets they may have together, unless a store is told otherwise.
MAX_MESSAGES = 10_000
MAX_OCTETS = 512 * 2**20
#: Seconds for which a deleted message can be brought back.
BIN_SECONDS = 600


@implementer(IMessageStore)
class MemoryStore:
    """Keeps messages in memory, while the program runs.

    Its methods return their results, not Deferreds, and may be called in any thread.  If there is no room for a
    message, deleted ones go first, then the oldest; the newest always stays.

    :param max_messages: how many messages are kept, 1 or more; deleted ones that can be brought back are counted.
    :param max_octets: how many octets they may have together.
    :param seconds: the time in seconds, of which only differences mean anything.
    :ivar dropped: how many messages went because there was no room.
    """

    def __init__(
        self,
        max_messages: int = MAX_MESSAGES,
        max_octets: int = MAX_OCTETS,
        *,
        seconds: Callable[[], float] = Unfrozen.monotonic,
    ) -> None:
        if max_messages < 1:
            raise ValueError(f"max_messages: 1 or more, not {max_messages}")
        self._max_messages, self._max_octets, self._seconds = max_messages, max_octets, seconds
        self._lock = RLock()
        self._messages: dict[int, StoredMessage] = {}
        # Deleted messages, each with the time at which it goes for good; the first to go is the first.
        self._bin: dict[int, tuple[float, StoredMessage]] = {}
        self._looks: dict[int, tuple[Summary, Searchable]] = {}
        self._octets = 0
        self._last_id = 0
        self._transcripts: dict[str, str] = {}
        # For each session, how many messages it has here: its transcript goes with the last of them.
        self._of_session: Counter[str] = Counter()
        self._listeners = Listeners()
        self.dropped = 0

    # -- what comes ----------------------------------------------------------------------------------------------------

    def add(self, message: NewMessage) -> StoredMessage:
        with self._lock:
            self._last_id += 1
            stored = self._messages[self._last_id] = StoredMessage(self._last_id, message)
            self._octets += len(message.content)
            self._of_session[message.session.id] += 1
            dropped = self._make_room()
        self._listeners.tell_new(stored, lambda: self._look(stored)[0])
        self._tell("deleted", dropped)
        return stored

    def _make_room(self) -> tuple[StoredMessage, ...]:
        dropped: list[StoredMessage] = []
        self._empty_bin()
        while len(self._messages) + len(self._bin) > self._max_messages or (
            self._octets > self._max_octets and len(self._messages) + len(self._bin) > 1
        ):
            if self._bin:
                self._forget(self._bin.pop(next(iter(self._bin)))[1])
                continue
            stored = self._messages.pop(next(iter(self._messages)))
            self._forget(stored)
            dropped.append(stored)
        self.dropped += len(dropped)
        return tuple(dropped)

    def _empty_bin(self) -> None:
        now = self._seconds()
        while self._bin and next(iter(self._bin.values()))[0] <= now:
            self._forget(self._bin.pop(next(iter(self._bin)))[1])

    def _forget(self, stored: StoredMessage) -> None:
        self._octets -= len(stored.message.content)
        self._looks.pop(stored.id, None)
        session = stored.message.session.id
        self._of_session[session] -= 1
        if not self._of_session[session]:
            del self._of_session[session]
            self._transcripts.pop(session, None)

    # -- what is there -------------------------------------------------------------------------------------------------

    def get(self, id: int) -> StoredMessage | None:
        return self._messages.get(id)

    def find(self, matching: Matching, limit: int | None = None, newest_first: bool = False) -> list[StoredMessage]:
        return self._find(matching, limit, newest_first, 0)

    def _find(self, matching: Matching, limit: int | None, newest_first: bool, offset: int) -> list[StoredMessage]:
        with self._lock:
            messages = list(self._messages.values())
        found: list[StoredMessage] = []
        for stored in reversed(messages) if newest_first else messages:
            if limit is not None and len(found) >= limit + offset:
                break
            if matches(stored, matching, lambda stored=stored: self._look(stored)):  # type: ignore[misc]
                found.append(stored)
        return found[offset:]

    def _look(self, stored: StoredMessage) -> tuple[Summary, Searchable]:
        """Its summary and its texts, which are made once."""
        known = self._looks.get(stored.id)
        if known is None:
            # Imported here: most servers for tests are asked for no summaries, and each begins with these imports.
            from twisted_smtpd.store.summary import summarise

            known = summarise(stored)
            with self._lock:
                if stored.id in self._messages:
                    self._looks[stored.id] = known
        summary, searchable = known
        return replace(summary, seen=stored.seen, tags=tuple(sorted(stored.tags))), searchable

    def summaries(
        self, matching: Matching, limit: int = 50, newest_first: bool = True, offset: int = 0
    ) -> list[Summary]:
        return [self._look(stored)[0] for stored in self._find(matching, limit, newest_first, offset)]

    def ids(self, matching: Matching, limit: int | None = None) -> list[int]:
        return [stored.id for stored in self.find(matching, limit)]

    def count(self, matching: Matching) -> int:
        return len(self.find(matching))

    def tally(self, matching: Matching) -> tuple[int, int]:
        found = self.find(matching)
        return len(found), sum(not stored.seen for stored in found)

    def counts(self, mailbox: str | None = None) -> Counts:
        return count(self.find(Matching(mailbox=mailbox, refused=None)))

    def mailboxes(self) -> dict[str, Counts]:
        of: dict[str, list[StoredMessage]] = {}
        for stored in self.find(Matching(refused=None)):
            for mailbox in stored.message.mailboxes:
                of.setdefault(mailbox, []).append(stored)
        return {mailbox: count(messages) for mailbox, messages in sorted(of.items())}

    def tags(self, mailbox: str | None = None) -> dict[str, int]:
        found = Counter(tag for stored in self.find(Matching(mailbox=mailbox, refused=None)) for tag in stored.tags)
        return dict(sorted(found.items()))

    # -- what is done with it ------------------------------------------------------------------------------------------

    def mark(self, ids: Iterable[int], seen: bool) -> int:
        return self._change(ids, lambda stored: replace(stored, seen=seen), "seen" if seen else "unseen")

    def tag(self, ids: Iterable[int], add: Iterable[str] = (), remove: Iterable[str] = ()) -> int:
        added, removed = frozenset(add), frozenset(remove)
        return self._change(ids, lambda stored: replace(stored, tags=(stored.tags | added) - removed), "tags")

    def _change(self, ids: Iterable[int], change: Callable[[StoredMessage], StoredMessage], kind: Kind) -> int:
        with self._lock:
            found = self._known(ids)
            for stored in found:
                self._messages[stored.id] = change(stored)
        self._tell(kind, found)
        return len(found)

    def _known(self, ids: Iterable[int]) -> tuple[StoredMessage, ...]:
        return tuple(self._messages[id] for id in dict.fromkeys(ids) if id in self._messages)

    def delete(self, ids: Iterable[int]) -> int:
        with self._lock:
            self._empty_bin()
            end = self._seconds() + BIN_SECONDS
            found = self._known(ids)
            for stored in found:
                self._bin[stored.id] = end, self._messages.pop(stored.id)
        self._tell("deleted", found)
        return len(found)

    def restore(self, ids: Iterable[int]) -> int:
        with self._lock:
            self._empty_bin()
            found = tuple(self._bin.pop(id)[1] for id in dict.fromkeys(ids) if id in self._bin)
            self._messages.update((stored.id, stored) for stored in found)
            if found:
                self._messages = dict(sorted(self._messages.items()))
        self._tell("restored", found)
        return len(found)

    def purge(self) -> None:
        with self._lock:
            self._empty_bin()

    def clear(self) -> None:
        """Remove all messages for good, the refused ones too."""
        with self._lock:
            gone = tuple(self._messages.values())
            for stored in (*gone, *(stored for _, stored in self._bin.values())):
                self._forget(stored)
            self._messages.clear()
            self._bin.clear()
            self.dropped = 0
        self._tell("deleted", gone)

    # -- sessions ------------------------------------------------------------------------------------------------------

    def keep_transcript(self, session: str, transcript: str) -> None:
        with self._lock:
            if session in self._of_session:
                self._transcripts[session] = transcript

    def transcript(self, session: str) -> str | None:
        return self._transcripts.get(session)

    # -- who is told ---------------------------------------------------------------------------------------------------

    def watch(self, listener: Callable[[StoredMessage], object]) -> Callable[[], None]:
        return self._listeners.watch(listener)

    def watch_changes(self, listener: Callable[[Change], object]) -> Callable[[], None]:
        return self._listeners.watch_changes(listener)

    def _tell(self, kind: Kind, changed: tuple[StoredMessage, ...]) -> None:
        mailboxes = {name for stored in changed for name in stored.message.mailboxes}
        self._listeners.tell(kind, tuple(stored.id for stored in changed), mailboxes)

    def close(self) -> None:
        self._listeners.clear()
        self.clear()


def count(messages: Iterable[StoredMessage]) -> Counts:
    """How many of these were accepted, are unread, were refused."""
    # Imported here: as above.
    from twisted_smtpd.store.summary import Counts

    total = unread = refused = 0
    for stored in messages:
        if stored.message.refusal is not None:
            refused += 1
        else:
            total += 1
            unread += not stored.seen
    return Counts(total, unread, refused)
