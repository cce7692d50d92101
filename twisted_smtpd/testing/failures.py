"""What a test wants to go wrong: where, how, how often, and for whom."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING

from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.replies import BadStatus, Reply

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PLACES", "Failure", "Failures", "Step"]

#: Places that are no commands.
PLACES = {
    "CONNECT": "before the greeting, or in its place",
    "TLS": "the TLS handshake",
    "AUTH": "the client has given its user and its password",
    "CONTENT": "in the middle of a message",
    "MESSAGE": "the whole message is there; it is not kept",
    "ANSWER": "the whole message is there and is kept; then the answer goes wrong",
}

#: Short names of replies that are often wanted.
REPLIES = {
    "mailbox full": "452 4.2.2 Mailbox full",
    "over quota": "552 5.2.2 Mailbox full",
    "no such user": "550 5.1.1 No such user here",
    "wrong password": "535 5.7.8 Authentication credentials invalid",
    "try again": "451 4.3.0 Try again later",
    "shutting down": "421 4.3.2 Shutting down, try again later",
}
GREYLISTED = Reply(451, "4.7.1", ("Greylisted, try again later",))
#: What is no reply.
GARBAGE = b"\x00\xff!? \x1b[0m no reply at all\r\n"

#: What can be wrong with TLS.
TLS_FAULTS = ("expired", "wrong name", "unknown authority", "old version")
# What can be done at each kind of place, beside sending a reply or octets.
_OF_COMMANDS = ("drop", "reset", "stall", "slow", "split", "garble", "greylist")
_ACTIONS = {
    "TLS": TLS_FAULTS,
    "EHLO": (*_OF_COMMANDS, "without"),
    "AUTH": ("drop", "reset", "stall", "slow", "split", "garble"),
    "CONTENT": ("drop", "reset", "stall", "garble"),
    "CONNECT": ("drop", "reset", "stall", "slow", "split", "garble"),
}

# Seconds: what "slow" waits, and what lies between the octets of "split".
SLOW, SPLIT = 1.0, 0.001
# Messages, or recipients, that a greylist remembers.
_MAX_GREYLISTED = 10_000

_VERB = re.compile(r"[A-Z0-9]{1,32}", re.ASCII)


@dataclass(frozen=True)
class Step:
    """What is about to happen, for a failure's ``match``.

    :ivar where: the command's verb, or one of :data:`PLACES`.
    :ivar line: the command line; for CONTENT, MESSAGE and ANSWER the sender and the recipients, for AUTH the user,
        for CONNECT and TLS the client's address.
    :ivar session: the session.
    :ivar envelope: the transaction in progress.
    """

    where: str
    line: str
    session: Session
    envelope: Envelope


class Failure:
    """One thing that goes wrong.  :meth:`MailServer.fail` makes it; used with ``with``, it ends with the block.

    :ivar where: the command or place.
    :ivar action: ``"reply"``, ``"raw"`` for octets, or what was asked for: ``"drop"`` and so on.
    :ivar reply: the reply, for ``"reply"``.
    :ivar raw: the octets, for ``"raw"``.
    :ivar words: the extensions, for ``"without"``.
    :ivar delay: seconds, for ``"slow"`` and ``"split"``.
    :ivar octets: how much of a message is read, for CONTENT.
    :ivar used: how often it has happened.
    """

    def __init__(
        self,
        where: str,
        what: str | bytes,
        *,
        times: int | None = None,
        after: int = 0,
        match: str | Callable[[Step], object] | None = None,
        delay: float | None = None,
        octets: int = 0,
        chance: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.where = where.strip().upper()
        if self.where == "LHLO":
            self.where = "EHLO"
        if self.where != "*" and not _VERB.fullmatch(self.where):
            raise ValueError(f"{where!r} is neither a command nor one of {', '.join(PLACES)}")
        if not 0 < chance <= 1:
            raise ValueError(f"chance: above 0, at most 1, not {chance}")
        self.reply, self.raw, self.words = GREYLISTED, GARBAGE, frozenset[str]()
        self.action = self._parse(what)
        self.delay = {"split": SPLIT}.get(self.action, SLOW) if delay is None else delay
        self.octets, self.used = octets, 0
        self._times, self._after, self._match = times, after, match
        self._chance, self._random = chance, random.Random(seed)
        self._greylist: dict[tuple[str | None, str], None] = {}
        self._remove: Callable[[Failure], None] = _nothing

    def _parse(self, what: str | bytes) -> str:
        if isinstance(what, bytes):
            self.raw = what
            action = "raw"
        elif what[:3].isdigit() or what in REPLIES:
            try:
                self.reply = Reply.parse(REPLIES.get(what, what))
            except BadStatus as error:
                raise ValueError(f"{what!r} is no reply: {error}") from error
            action = "reply"
        else:
            action, *words = what.split() if what.startswith("without ") else [what]
            self.words = frozenset(word.upper() for word in words)
        self._check(action, what)
        return "raw" if action == "garble" else action

    def _check(self, action: str, what: str | bytes) -> None:
        allowed = _ACTIONS.get(self.where, _OF_COMMANDS)
        if action in ("reply", "raw") and self.where != "TLS":
            return
        if action not in allowed:
            replies = "" if self.where == "TLS" else "a reply such as '451 4.7.1 later', octets, or "
            names = ", ".join(map(repr, allowed))
            raise ValueError(f"{what!r} can't happen at {self.where}: there it is {replies}one of {names}")

    def applies(self, step: Step) -> bool:
        """Whether it happens at this step; if so, that is counted."""
        if self.where not in (step.where, "*") or (self.where == "*" and step.where in PLACES):
            return False
        if self._times is not None and self.used >= self._times:
            return False
        if not self._matches(step):
            return False
        if self._after > 0:
            self._after -= 1
            return False
        if self._chance < 1 and self._random.random() >= self._chance:
            return False
        if self.action == "greylist" and not self._is_new(step):
            return False
        self.used += 1
        return True

    def _matches(self, step: Step) -> bool:
        if callable(self._match):
            return bool(self._match(step))
        return self._match is None or self._match.casefold() in step.line.casefold()

    def _is_new(self, step: Step) -> bool:
        """Whether the greylist has not seen this sender with this recipient, or message."""
        key = step.envelope.mail_from, step.line
        if key in self._greylist:
            return False
        if len(self._greylist) >= _MAX_GREYLISTED:
            del self._greylist[next(iter(self._greylist))]
        self._greylist[key] = None
        return True

    def remove(self) -> None:
        """From now on it does not happen any more."""
        self._remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        what = str(self.reply) if self.action == "reply" else self.action
        return f"<Failure {self.where}: {what}; happened {self.used} times>"


def _nothing(failure: Failure) -> None:
    """Stands for the removal of a failure that no server has."""


class Failures:
    """The failures of one server, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._all: list[Failure] = []

    def add(self, failure: Failure) -> Failure:
        """Have a failure happen from now on."""
        with self._lock:
            failure._remove = self.remove
            self._all.append(failure)
        return failure

    def remove(self, failure: Failure) -> None:
        """Forget a failure, if it is there."""
        with self._lock:
            if failure in self._all:
                self._all.remove(failure)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._all.clear()

    def __len__(self) -> int:
        return len(self._all)

    def due(self, where: str, line: str, session: Session, envelope: Envelope) -> Failure | None:
        """The first failure that happens at a step; see :class:`Step`."""
        if not self._all:
            return None
        step = Step(where, line, session, envelope)
        with self._lock:
            return next((failure for failure in self._all if failure.applies(step)), None)
