"""The states of a connection: what may come when (RFC 5321 section 4.1.4), as one table.

In each state, every verb is either carried out or refused with a given reply.  ``docs/reference/states.rst`` is
made from this table, and a test walks each cell of it over the wire.  Which state a connection is in follows from its
session and its envelope (:func:`state_of`); hooks may change both, so it is found anew after each of them.

A command that the table lets through may still refuse for a reason of its own: bad syntax, a size, what a hook says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted_smtpd.session import Envelope, Session

__all__ = [
    "NEXT",
    "READY",
    "RECIPIENT",
    "SENDER",
    "TABLE",
    "TRANSACTION",
    "VERBS",
    "Refusal",
    "State",
    "Verdicts",
    "for_lmtp",
    "state_of",
    "transaction_state",
    "verdict",
]


class State(Enum):
    """The state of a connection.  The value says what is true in it."""

    # Enum's own __hash__ is written in Python, and each command looks its state up in a dict.
    __hash__ = object.__hash__

    UNWELCOME = "The client has not been greeted, or was refused: it may only leave."
    CLEAR = "TLS is required and not there yet."
    WEAK = "TLS has started, and was not found good enough: the client may only leave."
    NEW = "The client has been greeted, and has not said who it is."
    STRANGER = "The client has said who it is; authentication is required and still missing."
    READY = "A transaction may begin."
    SENDER = "MAIL was accepted; there is no recipient yet."
    REFUSED = "MAIL was accepted, and every RCPT was refused so far."
    RECIPIENT = "MAIL and at least one RCPT were accepted."
    CHUNKS = "Part of the message has come with BDAT, and its last chunk has not."


@dataclass(frozen=True)
class Refusal:
    """The reply to a verb in a state in which it is not carried out.

    :ivar code: the reply code.
    :ivar enhanced: the enhanced status code.
    :ivar text: the reply's text.
    """

    code: int
    enhanced: str
    text: str


NO_SERVICE = Refusal(503, "5.5.1", "No service here, say QUIT")
# RFC 3207 section 4.
NEEDS_TLS = Refusal(530, "5.7.0", "Must issue a STARTTLS command first")
# RFC 3207 section 4.1.
TOO_WEAK = Refusal(554, "5.7.0", "Command refused due to lack of security")
NEEDS_HELO = Refusal(503, "5.5.1", "Send HELO first")
NEEDS_AUTH = Refusal(530, "5.7.0", "Authentication required")
NEEDS_MAIL = Refusal(503, "5.5.1", "Need MAIL command first")
NESTED_MAIL = Refusal(503, "5.5.1", "Nested MAIL command")
NEEDS_RCPT = Refusal(503, "5.5.1", "Need RCPT command first")
ALL_REFUSED = Refusal(554, "5.5.1", "No valid recipients")
NO_AUTH_NOW = Refusal(503, "5.5.1", "No AUTH within a mail transaction")
TRANSACTION_OPEN = Refusal(503, "5.5.1", "A mail transaction is in progress")
# RFC 3030 section 2.
DATA_AFTER_BDAT = Refusal(503, "5.5.1", "DATA and BDAT can't be used for the same message")
RCPT_AFTER_BDAT = Refusal(503, "5.5.1", "Recipients come before the message")

#: The verbs of the table.  A verb that a subclass adds is carried out in every state that has no ``"*"`` below.
VERBS = (
    *("HELO", "EHLO", "LHLO", "STARTTLS", "AUTH", "XCLIENT", "XFORWARD", "MAIL", "RCPT", "DATA", "BDAT"),
    *("RSET", "NOOP", "VRFY", "EXPN", "ETRN", "HELP", "QUIT"),
)

Verdicts = Mapping[str, Refusal | None]

# A global is found in a third of the time that a member of an Enum takes.
READY, SENDER, RECIPIENT = State.READY, State.SENDER, State.RECIPIENT

_IN_TRANSACTION: dict[str, Refusal | None] = {
    "MAIL": NESTED_MAIL,
    # The session is replaced, so what the handler holds for its transaction would be forgotten, not given back.
    "STARTTLS": TRANSACTION_OPEN,
    "AUTH": NO_AUTH_NOW,
    "XCLIENT": TRANSACTION_OPEN,
    "XFORWARD": TRANSACTION_OPEN,
}

#: State to verdicts.  ``"*"`` is for every verb that is not named; without it, such a verb is carried out.
TABLE: Mapping[State, Verdicts] = MappingProxyType(
    {
        State.UNWELCOME: {"*": NO_SERVICE, "QUIT": None},
        # RFC 3207 section 4, with the one that stands for EHLO in LMTP; HELO is not among them.
        State.CLEAR: {"*": NEEDS_TLS, **dict.fromkeys(("NOOP", "EHLO", "LHLO", "STARTTLS", "QUIT"))},
        State.WEAK: {"*": TOO_WEAK, "QUIT": None},
        State.NEW: dict.fromkeys(("MAIL", "RCPT", "DATA", "BDAT", "AUTH", "STARTTLS", "ETRN"), NEEDS_HELO),
        State.STRANGER: dict.fromkeys(("MAIL", "RCPT", "DATA", "BDAT", "VRFY", "EXPN", "ETRN", "HELP"), NEEDS_AUTH),
        State.READY: dict.fromkeys(("RCPT", "DATA", "BDAT"), NEEDS_MAIL),
        State.SENDER: {**_IN_TRANSACTION, "DATA": NEEDS_RCPT, "BDAT": NEEDS_RCPT},
        State.REFUSED: {**_IN_TRANSACTION, "DATA": ALL_REFUSED, "BDAT": ALL_REFUSED},
        State.RECIPIENT: _IN_TRANSACTION,
        State.CHUNKS: {**_IN_TRANSACTION, "RCPT": RCPT_AFTER_BDAT, "DATA": DATA_AFTER_BDAT},
    }
)

#: The arrows of the diagram: (from, what happens, to).
NEXT = (
    (State.UNWELCOME, "greeting", State.NEW),
    (State.UNWELCOME, "greeting, TLS required", State.CLEAR),
    (State.CLEAR, "STARTTLS", State.NEW),
    (State.CLEAR, "STARTTLS, handle_STARTTLS says no", State.WEAK),
    (State.NEW, "EHLO", State.READY),
    (State.NEW, "EHLO, AUTH required", State.STRANGER),
    (State.STRANGER, "AUTH", State.READY),
    (State.READY, "MAIL", State.SENDER),
    (State.SENDER, "RCPT", State.RECIPIENT),
    (State.SENDER, "RCPT refused", State.REFUSED),
    (State.REFUSED, "RCPT", State.RECIPIENT),
    (State.RECIPIENT, "DATA, or BDAT LAST, or RSET", State.READY),
    (State.RECIPIENT, "BDAT", State.CHUNKS),
    (State.CHUNKS, "BDAT LAST, or RSET", State.READY),
)

#: The states in which a transaction is open or may begin.
TRANSACTION = frozenset({State.READY, State.SENDER, State.REFUSED, State.RECIPIENT, State.CHUNKS})


def verdict(state: State, verb: str, table: Mapping[State, Verdicts] = TABLE) -> Refusal | None:
    """The refusal of a verb in a state; ``None`` if it is carried out."""
    verdicts = table[state]
    return verdicts[verb] if verb in verdicts else verdicts.get("*")


def for_lmtp(table: Mapping[State, Verdicts]) -> dict[State, Verdicts]:
    """The table of LMTP (RFC 2033).

    LHLO stands for EHLO, and DATA or BDAT without a valid recipient is 503: there would be no reply after the message
    (sections 4.2 and 4.3).
    """
    changed = {NEEDS_HELO: replace(NEEDS_HELO, text="Send LHLO first"), ALL_REFUSED: replace(ALL_REFUSED, code=503)}
    return {
        state: {verb: changed.get(cell, cell) if cell else None for verb, cell in verdicts.items()}
        for state, verdicts in table.items()
    }


class HasMessage(Protocol):
    """The message being received."""

    @property
    def chunked(self) -> object:
        """The one that comes with BDAT, from its first chunk to its last; or ``None``."""


class Stateful(Protocol):
    """What decides on the state of a connection.

    :ivar hooks_may_address: whether recipients count that a hook put into the envelope by itself.
    :ivar _barrier: ``UNWELCOME`` or ``WEAK``, which can't be derived from the session; or ``None``.
    """

    session: Session
    envelope: Envelope
    require_starttls: bool
    auth_required: bool
    hooks_may_address: bool
    _barrier: State | None
    _accepted: int
    _refused: int

    @property
    def _body(self) -> HasMessage: ...


def state_of(connection: Stateful) -> State:
    """The state of a connection."""
    if connection._barrier is not None:
        return connection._barrier
    session = connection.session
    if connection.require_starttls and not session.tls:
        return State.CLEAR
    if not session.host_name:
        return State.NEW
    if connection.auth_required and not session.authenticated:
        return State.STRANGER
    if connection.envelope.mail_from is None:
        return READY
    return transaction_state(connection)


def transaction_state(connection: Stateful) -> State:
    """The state of the transaction, whether or not TLS, EHLO and AUTH are still missing."""
    if connection.envelope.mail_from is None:
        return READY
    if connection._body.chunked is not None:
        return State.CHUNKS
    if connection._accepted or (connection.hooks_may_address and connection.envelope.rcpt_tos):
        return State.RECIPIENT
    return State.REFUSED if connection._refused else State.SENDER
