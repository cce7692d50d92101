"""Live updates: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from twisted_smtpd.inbox.api.sending import abort
from twisted_smtpd.inbox.api.shapes import change_json
from twisted_smtpd.store.summary import Change

if TYPE_CHECKING:
    from twisted.web.server import Request

__all__ = ["KEEP_ALIVE", "MAX_LISTENERS", "Events", "Listener"]

#: Listeners at the same time.
MAX_LISTENERS = 100
#: Seconds between two comments that keep proxies from closing the connection, and show that a listener is gone.
KEEP_ALIVE = 15.0
#: Events that are kept for listeners that come back, and octets that they may have together.
MAX_KEPT, MAX_KEPT_OCTETS = 1_000, 2**20
#: Octets that wait for a slow listener; with more, it is dropped, and finds out when it comes back.
MAX_PENDING = 2**18
# Octets of an event; a longer one goes without the summary of its message.
_MAX_EVENT = 2**14
# Milliseconds after which a browser comes back.
_RETRY = 2_000
_COMMENT = b": still here\n\n"


@dataclass(frozen=True)
class _Event:
    """One event.

    :ivar number: the number of the change.
    :ivar mailboxes: the mailboxes in which something has changed.
    :ivar octets: what is sent.
    """

    number: int
    mailboxes: frozenset[str]
    octets: bytes = field(repr=False)

    def concerns(self, mailbox: str | None) -> bool:
        return mailbox is None or mailbox in self.mailboxes


@implementer(IPushProducer)
class Listener:
    """One client that listens.

    :param events: all of them.
    :param mailbox: the mailbox that it wants to hear of; ``None`` for all.
    :param since: the id of the last event that it has had; ``""`` if it comes for the first time.
    """

    content_type: Final = "text/event-stream"
    # A proxy is not to collect events.
    headers: Final = {"X-Accel-Buffering": "no"}

    def __init__(self, events: Events, mailbox: str | None, since: str) -> None:
        self._events, self._mailbox, self._since = events, mailbox, since
        self._request: Any = None
        self._pending: deque[bytes] = deque()
        self._octets = 0
        self._paused = False

    def begin(self, request: Request) -> None:
        """Send events from now on, first those that it has missed."""
        self._request = request
        request.notifyFinish().addBoth(self._gone)
        # The site ends connections that last too long, but for this one.
        stay = getattr(getattr(request, "channel", None), "stay", None)
        if stay is not None:
            stay()
        request.registerProducer(self, True)
        if self._events.add(self):
            self.send(b"retry: %d\n\n" % _RETRY)
            for octets in self._events.since(self._since, self._mailbox):
                self.send(octets)

    def hear(self, event: _Event) -> None:
        """Send an event, if it is about its mailbox."""
        if event.concerns(self._mailbox):
            self.send(event.octets)

    def send(self, octets: bytes) -> None:
        """Send octets, now or when the client has read what came before."""
        if self._request is None:
            return
        if not self._paused:
            self._request.write(octets)
            return
        self._octets += len(octets)
        if self._octets > MAX_PENDING:
            self.drop()
        else:
            self._pending.append(octets)

    def drop(self) -> None:
        """Close the connection: the client does not read, and is to come back when it does."""
        request = self._request
        self._gone(None)
        if request is not None:
            abort(request)

    def end(self) -> None:
        """End the answer."""
        request = self._request
        self._gone(None)
        if request is not None:
            request.unregisterProducer()
            request.finish()

    def _gone(self, _: object) -> None:
        self._request = None
        self._pending.clear()
        self._events.remove(self)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._pending and not self._paused:
            octets = self._pending.popleft()
            self._octets -= len(octets)
            self._request.write(octets)

    def stopProducing(self) -> None:
        self._paused = True
        self._gone(None)


class Events:
    """Tells listeners about changes of the store.

    :param clock: the provider of time.
    """

    def __init__(self, clock: Any) -> None:
        # Numbers begin anew with each start of the server; then what listeners know is worth nothing.
        self._run = secrets.token_hex(4)
        self._kept: deque[_Event] = deque()
        self._octets = 0
        self._last = 0
        self._forgotten = False
        self._listeners: dict[Listener, None] = {}
        self._alive: Any = LoopingCall(self._keep_alive)
        self._alive.clock = clock

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def full(self) -> bool:
        """Whether there may be no more listeners."""
        return len(self._listeners) >= MAX_LISTENERS

    def add(self, listener: Listener) -> bool:
        """Tell a listener from now on.

        :returns: whether there was a place for it; if not, its answer is ended.
        """
        if self.full:
            listener.end()
            return False
        self._listeners[listener] = None
        if not self._alive.running:
            self._alive.start(KEEP_ALIVE, now=False)
        return True

    def remove(self, listener: Listener) -> None:
        """Forget a listener, if it is there."""
        self._listeners.pop(listener, None)
        if not self._listeners and self._alive.running:
            self._alive.stop()

    def close(self) -> None:
        """End the answers of all listeners."""
        for listener in tuple(self._listeners):
            listener.end()

    def publish(self, change: Change) -> None:
        """Tell all listeners about a change."""
        event = self._event(change)
        self._last = change.number
        self._kept.append(event)
        self._octets += len(event.octets)
        while len(self._kept) > MAX_KEPT or self._octets > MAX_KEPT_OCTETS:
            self._octets -= len(self._kept.popleft().octets)
            self._forgotten = True
        for listener in tuple(self._listeners):
            listener.hear(event)

    def _event(self, change: Change) -> _Event:
        value = change_json(change)
        data = _encoded(value)
        if len(data) > _MAX_EVENT:
            value.pop("Message", None)
            data = _encoded(value)
        if len(data) > _MAX_EVENT:
            # So many messages at once: the listener has to look at its list anew.
            octets = self._reset(change.number)
        else:
            octets = b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (
                self._run.encode(),
                change.number,
                change.kind.encode(),
                data,
            )
        return _Event(change.number, change.mailboxes, octets)

    def _reset(self, number: int) -> bytes:
        return b"id: %s-%d\nevent: reset\ndata: {}\n\n" % (self._run.encode(), number)

    def since(self, last: str, mailbox: str | None) -> Iterable[bytes]:
        """What a listener has missed.

        :param last: the id of the last event that it has had; ``""`` for none.
        :param mailbox: the mailbox that it hears of; ``None`` for all.
        """
        if not last:
            return []
        run, _, digits = last.partition("-")
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else -1
        known = self._kept[0].number - 1 if self._kept and self._forgotten else 0
        if run != self._run or not known <= number <= self._last:
            return [self._reset(self._last)]
        return [event.octets for event in self._kept if event.number > number and event.concerns(mailbox)]

    def _keep_alive(self) -> None:
        for listener in tuple(self._listeners):
            listener.send(_COMMENT)


def _encoded(value: Any) -> bytes:
    # ASCII: no line end of Unicode's, and no half of a character, gets into the stream.
    return json.dumps(value, separators=(",", ":")).encode("ascii")
