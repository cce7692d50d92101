"""A message as a list shows it, and as a search sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from twisted_smtpd.store.outline import Address, Outline, outline
from twisted_smtpd.store.searchable import Searchable

if TYPE_CHECKING:
    from twisted_smtpd.store.messages import NewMessage, StoredMessage

__all__ = ["Address", "Change", "Counts", "Summary", "summarise"]

MAX_SNIPPET = 250
MAX_SUBJECT = 1000


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list shows of a message.

    :ivar id: its number.
    :ivar mailboxes: the mailboxes it is in.
    :ivar sender: the first address of ``From:``; ``None`` without one.
    :ivar to: the addresses of ``To:``, 100 at most, as for the others.
    :ivar cc: those of ``Cc:``.
    :ivar bcc: those of ``Bcc:``, and the recipients of the envelope that no header names.
    :ivar reply_to: those of ``Reply-To:``.
    :ivar mail_from: the reverse-path's mailbox; ``""`` is the null one.
    :ivar recipients: the addresses of the envelope's recipients.
    :ivar subject: the subject, decoded; its first 1,000 characters.
    :ivar snippet: the beginning of its text, 250 characters at most.
    :ivar size: its octets.
    :ivar received: when it came; aware, in UTC.
    :ivar message_id: what ``Message-ID:`` says, without angle brackets.
    :ivar attachments: how many attachments it has.
    :ivar inline: how many images and other parts its HTML shows.
    :ivar seen: whether it was read.
    :ivar tags: its tags, sorted.
    :ivar refusal: the reply that refused it, or ``None`` if it was accepted.
    :ivar session: the id of the session in which it came.
    :ivar user: the user who had signed in, or ``None``.
    """

    id: int
    mailboxes: tuple[str, ...]
    sender: Address | None
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    mail_from: str
    recipients: tuple[str, ...]
    subject: str
    snippet: str
    size: int
    received: datetime
    message_id: str
    attachments: int
    inline: int
    seen: bool
    tags: tuple[str, ...]
    refusal: str | None
    session: str
    user: str | None

    @classmethod
    def of(cls, stored: StoredMessage) -> Summary:
        """Make it of a stored message; hostile ones are no error, and take no longer than others of their size."""
        return summarise(stored)[0]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages there are.

    :ivar total: the accepted ones.
    :ivar unread: those of them that were not read.
    :ivar refused: the refused ones, which are not among the total.
    """

    total: int = 0
    unread: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """Something has changed in a store.

    :ivar kind: what: a message is new, messages were marked as read or unread, got other tags, were deleted (by a
        person, or because there was no room), or were brought back.
    :ivar ids: the numbers of the messages.
    :ivar summary: the new message; ``None`` for other changes.
    :ivar number: the change's own number, one above that of the change before.
    :ivar mailboxes: the mailboxes that the messages are in.
    """

    kind: Literal["new", "seen", "unseen", "tags", "deleted", "restored"]
    ids: tuple[int, ...]
    summary: Summary | None
    number: int
    mailboxes: frozenset[str]


def summarise(stored: StoredMessage) -> tuple[Summary, Searchable]:
    """What a list shows of a message, and what a search looks at.

    :param stored: the message.
    """
    message = stored.message
    read = outline(message.content)
    sender, to, cc, bcc = (read.addresses(name) for name in ("from", "to", "cc", "bcc"))
    recipients = tuple(recipient.address for recipient in message.recipients)
    named = {address.address.casefold() for address in (*to, *cc, *bcc)}
    unnamed = tuple(Address("", address) for address in recipients if address.casefold() not in named)
    summary = Summary(
        stored.id,
        message.mailboxes,
        sender[0] if sender else None,
        to,
        cc,
        (*bcc, *unnamed[:100]),
        read.addresses("reply-to"),
        message.mail_from,
        recipients,
        read.first("subject")[:MAX_SUBJECT],
        " ".join(read.text[: MAX_SNIPPET * 8].split())[:MAX_SNIPPET],
        len(message.content),
        message.received,
        read.first("message-id").strip("<> ")[:MAX_SUBJECT],
        read.attachments,
        read.inline,
        stored.seen,
        tuple(sorted(stored.tags)),
        message.refusal,
        message.session.id,
        message.session.user,
    )
    return summary, _searchable(message, read, summary, sender)


def _searchable(message: NewMessage, read: Outline, summary: Summary, sender: tuple[Address, ...]) -> Searchable:
    texts = (
        "\n".join((*map(str, sender), message.mail_from)),
        *("\n".join(map(str, part)) for part in (summary.to, summary.cc, summary.bcc, summary.reply_to)),
        read.first("subject"),
        read.first("message-id"),
        "\n".join((read.text, *read.names)),
    )
    return Searchable(*(_clean(text).casefold() for text in texts))


def _clean(text: str) -> str:
    """A text without NULs and halves of characters, which addresses may have."""
    text = text.replace("\0", " ") if "\0" in text else text
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
