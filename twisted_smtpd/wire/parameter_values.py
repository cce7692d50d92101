"""The values of parameters that consist of several things; few clients send them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["DeliveryTime", "OriginalRecipient", "ValidSince"]


@dataclass(frozen=True)
class OriginalRecipient:
    """The address that the sender of a message used for a recipient (RFC 3461 section 4.2).

    :ivar address_type: its type in lower case: ``"rfc822"``, ``"utf-8"``, or another one.
    :ivar address: the address, decoded.
    """

    address_type: str
    address: str


@dataclass(frozen=True)
class DeliveryTime:
    """How fast a message has to be delivered (RFC 2852 section 4).

    :ivar seconds: within how many seconds; 0 or less if the time is over.
    :ivar mode: ``"R"``: then return it; ``"N"``: then send a notice, and go on.
    :ivar trace: whether relays are to be traced.
    """

    seconds: int
    mode: str
    trace: bool


@dataclass(frozen=True)
class ValidSince:
    """Since when a mailbox must have had the same owner (RFC 7293 section 5).

    :ivar since: the time, with its zone.
    :ivar action: what a relay does whose next host has no RRVS: ``"C"``: continue, ``"R"``: reject.
    """

    since: datetime
    action: str
