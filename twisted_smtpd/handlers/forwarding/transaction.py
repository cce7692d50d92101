"""What the next host knows of a message, and what our client hears of its replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_smtpd.handlers.forwarding.client import ClientError, SMTPClient
from twisted_smtpd.session import Envelope
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["Transaction", "by_recipient", "none_served", "our_answer", "says_eight_bit", "verdict"]

# The next host wants us to log in or to encrypt; our client can do nothing about that.
_FOR_US = frozenset({530, 534, 535, 538})


def says_eight_bit(envelope: Envelope) -> bool:
    """Whether the client has announced octets beyond ASCII."""
    return (envelope.mail_parameters.get("BODY") or "").upper() in ("8BITMIME", "BINARYMIME")


def our_answer(reply: Reply) -> Reply:
    """What our client hears for the next host's reply.

    Code, enhanced code and text are the next host's, except for codes that are about the connection to it: 421 and 521
    would end our client's connection, and for a demand to authenticate it would bounce a message, though only we can
    log in.

    :param reply: the next host's reply.
    """
    if reply.code == 421:
        return Reply(451, reply.enhanced, reply.lines)
    if reply.code == 521:
        # RFC 7504 section 4.2: what a relay says about a host that takes no mail.
        return Reply(556, reply.enhanced, reply.lines)
    if reply.code in _FOR_US or reply.code // 100 == 3:
        return Reply(451, "4.3.5", ("The next host does not serve us, try again later",))
    if reply.code < 300 and reply.code not in (250, 251, 252):
        return Reply(250, reply.enhanced, reply.lines)
    return reply


@dataclass
class Transaction:
    """What the next host knows of a message.

    :ivar eight_bit: whether it has been told that the message has octets beyond ASCII.
    :ivar hold: takes the connection away from a client that is slow to name its recipients.
    :ivar overdue: whether it has been taken away.
    :ivar refusal: why the next host does not have the sender.
    :ivar in_data: whether ``handle_DATA`` runs; then it ends the transaction.
    :ivar abandoned: whether our client has gone.
    """

    mail_from: str
    client: SMTPClient | None = None
    hold: IDelayedCall | None = None
    overdue: bool = False
    refusal: Reply | None = None
    recipients: list[str] = field(default_factory=list)
    eight_bit: bool = False
    in_data: bool = False
    abandoned: bool = False

    def still_holds(self, envelope: Envelope, eight_bit: bool) -> bool:
        """Whether the next host has been told this envelope; hooks may have changed it, and connections end.

        :param envelope: as it is now.
        :param eight_bit: whether the message has octets beyond ASCII, which it has to know if it has 8BITMIME.
        """
        return (
            self.client is not None
            and self.client.usable
            and (self.eight_bit >= eight_bit or "8BITMIME" not in self.client.extensions)
            and self.mail_from == envelope.mail_from
            and self.recipients == envelope.rcpt_tos
        )


def none_served(envelope: Envelope, refused: Mapping[int, Reply]) -> Sequence[Reply]:
    """The answer if the message is not sent on: SMTP has no reply for some of the recipients only."""
    if len(refused) == len(envelope.rcpt_tos):
        return [refused[number] for number in sorted(refused)]
    reply = refused[min(refused)]
    return [Reply(451, "4.3.0", (f"The next host refuses a recipient: {reply.code}", *reply.lines))]


def by_recipient(
    envelope: Envelope, refused: Mapping[int, Reply], given: Sequence[Reply], lmtp: bool
) -> Sequence[Reply]:
    """The answer for each recipient, or one for all.

    :param refused: what the next host has answered to those it refuses, by number.
    :param given: its replies to the message.
    :param lmtp: whether it gives one for each recipient.
    """
    if not refused and not lmtp:
        return given
    lost = ClientError("no answer for a recipient").reply
    left = iter(given if lmtp else [*given] * len(envelope.rcpt_tos))
    return [refused.get(n) or next(left, lost) for n in range(len(envelope.rcpt_tos))]


def verdict(envelope: Envelope, answers: Sequence[Reply]) -> Reply | list[Reply]:
    """Answers in a form that fits the accepted recipients."""
    if len(answers) == len(envelope.recipients) or len(answers) == 1:
        return list(answers) if len(answers) > 1 else answers[0]
    # A hook has changed the recipients, so the answers can't be assigned to them.
    if len({answer.code // 100 for answer in answers}) == 1:
        return answers[0]
    return Reply(451, "4.3.0", ("The next host accepts it for some recipients only, try again later",))
