"""What a test wants to go wrong: where, how, how often, and for whom."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any

from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.replies import BadStatus, Reply

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PLACES", "Failure", "Failures", "Step", "parse_failure"]

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
#: What a reply says that is given as a code only.
ON_DEMAND = "Failure on demand"
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
#: How octets in the place of a reply are written in a text; then come the octets, with Python's escapes.
RAW = "raw "
# What follows the action in the text of a failure.
_QUALIFIERS = ("times", "after", "match", "delay", "octets")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%", re.ASCII)
_QUALIFIER = re.compile(rf":(?=(?:{'|'.join(_QUALIFIERS)})=|[0-9]+(?:\.[0-9]+)?%)", re.ASCII)
# Seconds: a failure that waits longer is a mistake.
_MAX_DELAY = 86_400


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

    :ivar id: its number among the failures of a server, from 1.
    :ivar where: the command or place.
    :ivar what: what was asked for.
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
        _check_numbers(times=times, after=after, delay=delay, octets=octets)
        if not 0 < chance <= 1:
            raise ValueError(f"chance: above 0, at most 1, not {chance}")
        self.reply, self.raw, self.words = GREYLISTED, GARBAGE, frozenset[str]()
        self.what = what
        self.action = self._parse(what)
        self.delay = {"split": SPLIT}.get(self.action, SLOW) if delay is None else delay
        self.times, self.after, self.match, self.chance, self.seed = times, after, match, chance, seed
        self.id, self.octets, self.used = 0, octets, 0
        self._spared = 0
        self._random = random.Random(seed)
        self._greylist: dict[tuple[str | None, str], None] = {}
        self._remove: Callable[[Failure], None] = _nothing

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Failure:
        """Make one from what :meth:`as_dict` gives; ``id`` and ``used`` are ignored.

        :param given: ``where`` and ``what``, and what else is wanted.
        :raises ValueError: if something is missing, unknown, of the wrong type or out of bounds.
        """
        values = {key: value for key, value in given.items() if key not in ("id", "used")}
        for key, value in values.items():
            if key not in _KINDS:
                raise ValueError(f"{key!r} is none of {', '.join(_KINDS)}")
            if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
                raise ValueError(f"{key}: {value!r} is of the wrong type")
        if missing := [key for key in ("where", "what") if key not in values]:
            raise ValueError(f"{missing[0]!r} is missing")
        return cls(values.pop("where"), values.pop("what"), **values)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON.  A function for ``match`` is shown by its name, in angle brackets."""
        match = f"<{getattr(self.match, '__qualname__', 'function')}>" if callable(self.match) else self.match
        what = self.what
        if isinstance(what, bytes):
            what = f"{RAW}{what.decode('latin-1').encode('unicode_escape').decode('ascii')}"
        options = {name: getattr(self, name) for name in ("times", "after", "delay", "octets", "chance", "seed")}
        return {"id": self.id, "where": self.where, "what": what, "match": match, **options, "used": self.used}

    def _parse(self, what: str | bytes) -> str:
        if isinstance(what, str) and what.startswith(RAW):
            what = _octets(what)
        if isinstance(what, bytes):
            self.raw = what
            action = "raw"
        elif what[:3].isdigit() or what in REPLIES:
            try:
                text = REPLIES.get(what, what)
                self.reply = Reply.parse(f"{text} {ON_DEMAND}" if len(text) == 3 else text)
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
        if self.times is not None and self.used >= self.times:
            return False
        if not self._matches(step):
            return False
        if self._spared < self.after:
            self._spared += 1
            return False
        if self.chance < 1 and self._random.random() >= self.chance:
            return False
        if self.action == "greylist" and not self._is_new(step):
            return False
        self.used += 1
        return True

    def _matches(self, step: Step) -> bool:
        if callable(self.match):
            return bool(self.match(step))
        return self.match is None or self.match.casefold() in step.line.casefold()

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


#: The types of a failure's values in JSON.
_KINDS: dict[str, tuple[type, ...]] = {
    "where": (str,),
    "what": (str,),
    "times": (int, type(None)),
    "after": (int,),
    "match": (str, type(None)),
    "delay": (int, float, type(None)),
    "octets": (int,),
    "chance": (int, float),
    "seed": (int,),
}


def _check_numbers(times: int | None, after: int, delay: float | None, octets: int) -> None:
    if times is not None and times < 1:
        raise ValueError(f"times: 1 or more, not {times}")
    for name, value in (("after", after), ("octets", octets)):
        if value < 0:
            raise ValueError(f"{name}: 0 or more, not {value}")
    if delay is not None and not (math.isfinite(delay) and 0 <= delay <= _MAX_DELAY):
        raise ValueError(f"delay: between 0 and {_MAX_DELAY:,} seconds, not {delay}")


def _octets(what: str) -> bytes:
    """The octets that a text describes."""
    try:
        return what[len(RAW) :].encode("latin-1").decode("unicode_escape").encode("latin-1")
    except UnicodeError as error:
        raise ValueError(f"{what!r}: octets as in Python, such as {RAW}220 hi\\r\\n") from error


def parse_failure(text: str, seed: int = 0) -> Failure:
    """Read a failure as the command line has it: ``rcpt=451:10%`` or ``data=drop:times=2:match=bart@``.

    :param text: the place, ``=``, what happens, and after colons a chance in percent, ``times=``, ``after=``,
        ``match=``, ``delay=`` or ``octets=``.
    :param seed: for the chance.
    :raises ValueError: if it can't be read.
    """
    where, equals, rest = text.partition("=")
    what, *qualifiers = _QUALIFIER.split(rest)
    if not (where.strip() and equals and what.strip()):
        raise ValueError(f"{text!r} is not WHERE=WHAT, such as rcpt=451:10%")
    options: dict[str, Any] = {}
    for qualifier in qualifiers:
        name, value = _qualifier(qualifier)
        if name in options:
            raise ValueError(f"{text!r} has {name} twice")
        options[name] = value
    return Failure(where, what if what.startswith(RAW) else what.strip(), seed=seed, **options)


def _qualifier(text: str) -> tuple[str, Any]:
    if percent := _PERCENT.fullmatch(text):
        return "chance", float(percent[1]) / 100
    name, _, value = text.partition("=")
    if name == "match":
        return name, value
    try:
        return name, float(value) if name == "delay" else int(value)
    except ValueError:
        raise ValueError(f"{text!r}: a number is wanted") from None


class Failures:
    """The failures of one server, in the order in which they were asked for; may be used in any thread."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._all: list[Failure] = []
        self._last_id = 0

    def add(self, failure: Failure) -> Failure:
        """Have a failure happen from now on; it gets an ``id``."""
        with self._lock:
            self._last_id += 1
            failure.id = self._last_id
            failure._remove = self.remove
            self._all.append(failure)
        return failure

    def get(self, id: int) -> Failure | None:
        """The failure of this number."""
        return next((failure for failure in self if failure.id == id), None)

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

    def __iter__(self) -> Iterator[Failure]:
        with self._lock:
            return iter(list(self._all))

    def due(self, where: str, line: str, session: Session, envelope: Envelope) -> Failure | None:
        """The first failure that happens at a step; see :class:`Step`."""
        if not self._all:
            return None
        step = Step(where, line, session, envelope)
        with self._lock:
            return next((failure for failure in self._all if failure.applies(step)), None)
