"""What a test sees of a server's mail: messages, searches, dialogs, and the text of an assertion that fails."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, TypeAlias

from twisted_smtpd.session import Session
from twisted_smtpd.store.memory import MAX_MESSAGES, MemoryStore
from twisted_smtpd.store.messages import Matching, StoredMessage, header
from twisted_smtpd.testing.transcript import Transcript

if TYPE_CHECKING:
    from twisted_smtpd.testing.messages import ReceivedMessage

__all__ = ["Criteria", "Mailbox", "Pattern", "Predicate"]

#: What is looked for in a text: a part of it, whatever the case; or a compiled regular expression.
Pattern: TypeAlias = "str | re.Pattern[str]"
Predicate: TypeAlias = "Callable[[ReceivedMessage], object]"

# Sessions whose dialogs are kept, and how many of them a failed assertion shows.
MAX_DIALOGS = 1000
SHOWN_DIALOGS = 3
SHOWN_MESSAGES = 20
# Recipients of a message, characters of a text, and lines of a dialog's beginning and end that are shown.
SHOWN_RECIPIENTS = 5
SHOWN_WIDTH = 160
SHOWN_FIRST, SHOWN_LAST = 10, 30


@dataclass(frozen=True)
class Criteria:
    """What a message must be like; ``None`` stands for anything."""

    predicate: Predicate | None = None
    to: Pattern | None = None
    sender: Pattern | None = None
    subject: Pattern | None = None
    body: Pattern | None = None

    def fit(self, message: ReceivedMessage) -> bool:
        """Whether a message is like that."""
        return (
            _in_any(self.to, tuple(message.rcpt_tos))
            and _in_any(self.sender, (message.mail_from, header(message, "From")))
            and _in_any(self.subject, (header(message, "Subject"),))
            and (self.body is None or _in_any(self.body, (message.text, message.html)))
            and (self.predicate is None or bool(self.predicate(message)))
        )

    def __str__(self) -> str:
        given = (("to", self.to), ("sender", self.sender), ("subject", self.subject), ("body", self.body))
        words = [f"{name}={_shown(pattern)}" for name, pattern in given if pattern is not None]
        if self.predicate is not None:
            words.append(f"for which {getattr(self.predicate, '__qualname__', 'the predicate')} is true")
        return f" with {', '.join(words)}" if words else ""


def _shown(pattern: Pattern) -> str:
    return repr(pattern if isinstance(pattern, str) else pattern.pattern)


def _in_any(pattern: Pattern | None, texts: tuple[str, ...]) -> bool:
    if pattern is None:
        return True
    if isinstance(pattern, re.Pattern):
        return any(pattern.search(text) for text in texts)
    return any(pattern.casefold() in text.casefold() for text in texts)


class Mailbox:
    """What a test sees of the mail; may be used in any thread.

    :param max_messages: how many messages are kept.
    :ivar store: where they are.
    """

    def __init__(self, max_messages: int = MAX_MESSAGES) -> None:
        self.store = MemoryStore(max_messages)
        self._lock = RLock()
        self._known: dict[int, ReceivedMessage] = {}
        self._dialogs: OrderedDict[str, Transcript] = OrderedDict()

    def begin(self, session: Session, transcript: Transcript) -> None:
        """A client has connected."""
        with self._lock:
            self._dialogs[session.id] = transcript
            if len(self._dialogs) > MAX_DIALOGS:
                self._dialogs.popitem(last=False)

    @property
    def messages(self) -> list[ReceivedMessage]:
        """The accepted messages, the oldest first."""
        return self._of(Matching())

    @property
    def refused(self) -> list[ReceivedMessage]:
        """The messages that were refused when they were complete."""
        return self._of(Matching(refused=True))

    @property
    def dialogs(self) -> list[str]:
        """What was said in each session, the oldest first."""
        with self._lock:
            return [str(transcript) for transcript in self._dialogs.values()]

    def _of(self, matching: Matching) -> list[ReceivedMessage]:
        with self._lock:
            found = self.store.find(matching)
            return [self._known.get(stored.id) or self._read(stored) for stored in found]

    def _read(self, stored: StoredMessage) -> ReceivedMessage:
        # Imported here: the email package takes time to load, and a server starts without it.
        from twisted_smtpd.testing.messages import ReceivedMessage

        session = stored.message.session.id
        transcript = self._dialogs.get(session)
        message = ReceivedMessage.of(stored, lambda: str(transcript or self.store.transcript(session) or ""))
        self._known[stored.id] = message
        return message

    def find(self, criteria: Criteria, limit: int | None = None) -> list[ReceivedMessage]:
        """The accepted messages that fit, the oldest first."""
        return [message for message in self.messages if criteria.fit(message)][:limit]

    def clear(self) -> None:
        """Forget all messages and dialogs."""
        with self._lock:
            self.store.clear()
            self._known.clear()
            self._dialogs.clear()

    # -- the texts -----------------------------------------------------------------------------------------------------

    def too_few(self, wanted: int, criteria: Criteria, timeout: float) -> str:
        """Why an assertion failed that waited for messages."""
        found = len(self.find(criteria))
        what = "1 message" if wanted == 1 else f"{wanted} messages"
        return f"waited {timeout:g} s for {what}{criteria}, {found or 'none'} came\n{self.report()}"

    def too_many(self, criteria: Criteria) -> str:
        """Why an assertion failed that expected no message."""
        return f"a message{criteria} came, and none was expected\n{self.report()}"

    def report(self) -> str:
        """All that has come, and the last dialogs."""
        parts = [*_list("Accepted", self.messages), *_list("Refused", self.refused)]
        if self.store.dropped:
            parts.append(f"{self.store.dropped} older messages were dropped: max_messages sets how many are kept")
        dialogs = self.dialogs
        if not parts:
            parts.append("No message came." if dialogs else "No message came, and no client has connected.")
        shown = dialogs[-SHOWN_DIALOGS:]
        if len(dialogs) > len(shown):
            parts.append(f"The last {len(shown)} of {len(dialogs)} sessions:")
        return "\n".join([*parts, *(f"Session:\n{_indented(dialog)}" for dialog in shown)])


def _list(title: str, messages: list[ReceivedMessage]) -> list[str]:
    lines = [f"{title}:"] if messages else []
    for message in messages[:SHOWN_MESSAGES]:
        refusal = f"  ({message.refusal})" if message.refusal else ""
        to = ", ".join(message.rcpt_tos[:SHOWN_RECIPIENTS])
        if (more := len(message.rcpt_tos) - SHOWN_RECIPIENTS) > 0:
            to = f"{to} and {more} more"
        subject = _cut(header(message, "Subject"))
        lines.append(f"  {message.id}. <{message.mail_from}> to {to}: {subject!r}{refusal}")
    if len(messages) > SHOWN_MESSAGES:
        lines.append(f"  and {len(messages) - SHOWN_MESSAGES} more")
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_WIDTH else f"{text[:SHOWN_WIDTH]}…"


def _indented(text: str) -> str:
    """A dialog, or its beginning and its end."""
    lines = text.splitlines()
    left = len(lines) - SHOWN_FIRST - SHOWN_LAST
    if left > 0:
        lines[SHOWN_FIRST:-SHOWN_LAST] = [f"-- {left} lines are left out: see dialogs"]
    return "\n".join(f"  {_cut(line)}" for line in lines)
