"""What all requests to the API share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import maybeDeferred

from twisted_smtpd.inbox.api.chaos import Chaos
from twisted_smtpd.inbox.api.events import Events
from twisted_smtpd.inbox.api.sending import Budget
from twisted_smtpd.inbox.api.waiting import Waiting

if TYPE_CHECKING:
    from twisted_smtpd.inbox.content import Contents
    from twisted_smtpd.inbox.link_checks import LinkChecker
    from twisted_smtpd.inbox.settings import SiteSettings
    from twisted_smtpd.store.interfaces import IMessageStore
    from twisted_smtpd.store.messages import NewMessage, StoredMessage
    from twisted_smtpd.store.summary import Change

__all__ = ["Bin", "Context", "Statistics"]

# Deletions by tokens of one mailbox that are remembered.
MAX_BIN = 10_000


class Statistics:
    """What has come and gone since the start.

    :ivar accepted: how many messages were accepted.
    :ivar octets: how many octets these had.
    :ivar refused: how many were refused.
    :ivar deleted: how many were deleted.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._start = clock.seconds()
        self.accepted = self.octets = self.refused = self.deleted = 0

    def note(self, change: Change) -> None:
        """Take a change of the store into account."""
        if change.kind == "deleted":
            self.deleted += len(change.ids)
        elif change.kind == "new" and change.summary is not None:
            if change.summary.refusal is None:
                self.accepted += 1
                self.octets += change.summary.size
            else:
                self.refused += 1

    @property
    def uptime(self) -> int:
        """Seconds since the start."""
        return int(self._clock.seconds() - self._start)

    @property
    def memory(self) -> int:
        """Octets of memory that this process had at most; 0 where the system does not tell."""
        try:
            import resource
        except ImportError:
            return 0
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Bin:
    """Who has deleted what: a token of one mailbox may only take back what it has deleted."""

    def __init__(self) -> None:
        self._deleted: dict[tuple[str, int], None] = {}

    def note(self, mailbox: str | None, numbers: Iterable[int]) -> None:
        """Messages are deleted by one who may see a mailbox, or all of them."""
        if mailbox is None:
            return
        for number in numbers:
            self._deleted[mailbox, number] = None
        for oldest in list(self._deleted)[: max(0, len(self._deleted) - MAX_BIN)]:
            del self._deleted[oldest]

    def allowed(self, mailbox: str | None, numbers: Iterable[int]) -> list[int]:
        """Which messages may be taken back."""
        return [number for number in numbers if mailbox is None or (mailbox, number) in self._deleted]


class Context:
    """What all requests to the API share.

    :param settings: what the site was started with.
    :param store: the messages.
    :param clock: the provider of time.
    :param contents: what is in messages.
    :param link_checker: asks for links; ``None`` where that was not allowed.
    :param document: the OpenAPI document.
    :ivar events: those who listen for changes.
    :ivar waiting: those who wait for a message.
    :ivar chaos: Mailpit's triggers of failures.
    :ivar statistics: what has come and gone.
    :ivar budget: how much memory large answers may take.
    :ivar bin: who has deleted what.
    """

    def __init__(
        self,
        settings: SiteSettings,
        store: IMessageStore,
        clock: Any,
        contents: Contents,
        link_checker: LinkChecker | None,
        document: bytes,
    ) -> None:
        self.settings, self.store, self.clock, self.document = settings, store, clock, document
        self.contents, self.link_checker = contents, link_checker
        self.events = Events(clock)
        self.waiting = Waiting(clock)
        self.chaos = Chaos(settings.failures)
        self.statistics = Statistics(clock)
        self.bin = Bin()
        self.budget = Budget(clock)
        self._stop = store.watch_changes(self._changed)

    async def take(self, new: NewMessage, mailbox: str | None) -> StoredMessage:
        """Store a message that came over HTTP.

        :param mailbox: the only mailbox that it may get into; ``None`` for those that the rules say.
        """
        if mailbox is not None:
            new = replace(new, mailbox=mailbox, mailboxes=(mailbox,))
        elif self.settings.sort is not None:
            new = self.settings.sort(new)
        stored: StoredMessage = await maybeDeferred(self.store.add, new)
        return stored

    def _changed(self, change: Change) -> None:
        self.statistics.note(change)
        self.events.publish(change)
        self.waiting.changed(change)

    def close(self) -> None:
        """End what goes on: those who listen and those who wait."""
        self._stop()
        self.events.close()
        self.waiting.close()
