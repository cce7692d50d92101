"""What a store takes, what it gives, and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING

from twisted_smtpd.session import Envelope, Peer, Recipient, Session, within_brackets

if TYPE_CHECKING:
    from email.message import EmailMessage

    from twisted_smtpd.store.query import Term

__all__ = ["Matching", "NewMessage", "SessionFacts", "StoredMessage"]

# The headers that name recipients (RFC 5322 section 3.6.3).
_RECIPIENT_HEADERS = ("To", "Cc", "Bcc")


@dataclass(frozen=True)
class SessionFacts:
    """What is known about the session in which a message came.

    :ivar id: the session's name, see :attr:`twisted_smtpd.session.Session.id`.
    :ivar peer: the client's address.
    :ivar helo: the name given with HELO, EHLO or LHLO.
    :ivar extended: whether it was EHLO or LHLO.
    :ivar tls: the version of TLS, ``"TLSv1.3"`` for example; ``None`` in clear.
    :ivar user: the user who signed in, or ``None``.
    """

    id: str
    peer: Peer | None = None
    helo: str | None = None
    extended: bool = False
    tls: str | None = None
    user: str | None = None

    @classmethod
    def of(cls, session: Session) -> SessionFacts:
        """Take the facts from a session."""
        login = session.login_data if session.authenticated else None
        user = login.decode("utf-8", "replace") if isinstance(login, bytes) else login
        tls = None if session.ssl is None else session.ssl.version
        return cls(session.id, session.peer, session.host_name, session.extended_smtp, tls, user)


@dataclass(frozen=True)
class NewMessage:
    """A message as it came, for :meth:`~twisted_smtpd.store.IMessageStore.add`.

    :ivar content: the message, untouched.
    :ivar mail_from: the reverse-path's mailbox; ``""`` is the null one.
    :ivar mail_options: the parameters of MAIL, as sent.
    :ivar recipients: the accepted recipients, with their parameters.
    :ivar session: what is known about the session.
    :ivar mailbox: the name of the mailbox that it is for; of several, the first.
    :ivar mailboxes: the names of all mailboxes that it is for; ``(mailbox,)`` unless given.
    :ivar refusal: the reply that refused the message, or ``None`` if it was accepted.
    :ivar received: when it came.
    """

    content: bytes = field(repr=False)
    mail_from: str
    mail_options: tuple[str, ...]
    recipients: tuple[Recipient, ...]
    session: SessionFacts
    mailbox: str = ""
    refusal: str | None = None
    received: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    mailboxes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The two say the same, whichever was given.
        object.__setattr__(self, "mailboxes", self.mailboxes or (self.mailbox,))
        object.__setattr__(self, "mailbox", self.mailboxes[0])

    @classmethod
    def of(
        cls,
        session: Session,
        envelope: Envelope,
        mailbox: str = "",
        refusal: str | None = None,
        *,
        mailboxes: tuple[str, ...] = (),
    ) -> NewMessage:
        """Take a message from what ``handle_DATA`` is given."""
        return cls(
            envelope.original_content or envelope.content_bytes,
            within_brackets(envelope.mail_from),
            tuple(envelope.mail_options),
            tuple(envelope.recipients),
            SessionFacts.of(session),
            mailbox,
            refusal,
            mailboxes=mailboxes,
        )

    @cached_property
    def headers(self) -> EmailMessage:
        """The message's headers, parsed when they are first asked for."""
        # Imported here: they take time to load, and a server for tests that gets no message does not need them.
        from email.parser import BytesHeaderParser
        from email.policy import default

        message: EmailMessage = BytesHeaderParser(policy=default).parsebytes(self.content)
        return message

    @property
    def subject(self) -> str:
        """The subject, decoded; ``""`` without one."""
        return header(self.headers, "Subject")

    @property
    def senders(self) -> list[str]:
        """The reverse-path, and what ``From:`` says."""
        return [self.mail_from, header(self.headers, "From")]

    @property
    def addressees(self) -> list[str]:
        """The recipients of the envelope, and what ``To:``, ``Cc:`` and ``Bcc:`` say."""
        named = (header(self.headers, name) for name in _RECIPIENT_HEADERS)
        return [*(recipient.address for recipient in self.recipients), *named]


def header(message: EmailMessage, name: str) -> str:
    """A header's value, decoded; ``""`` where there is none, or where Python's parser fails on it."""
    try:
        return str(message.get(name, ""))
    except Exception:
        # The parser of structured headers raises many kinds of errors for what people and attackers write.
        return str(dict(message.raw_items()).get(name, ""))


@dataclass(frozen=True)
class StoredMessage:
    """A message in a store.

    :ivar id: its number in this store, above that of all messages that came before.
    :ivar message: the message.
    :ivar seen: whether it was read.
    :ivar tags: its tags.
    """

    id: int
    message: NewMessage
    seen: bool = False
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What messages are looked for: those of which all of this is true.  Case does not matter in texts.

    :ivar mailbox: the mailbox; ``None`` for all.
    :ivar sender: a part of the reverse-path or of ``From:``.
    :ivar to: a part of a recipient's address, or of ``To:``, ``Cc:`` or ``Bcc:``.
    :ivar subject: a part of the subject.
    :ivar text: words, all of which are somewhere in the addresses, the subject, the text or the names of attachments.
    :ivar seen: whether it was read; ``None`` for both.
    :ivar tag: a tag that it has.
    :ivar refused: whether it was refused; ``None`` for both.  It does not count where a term says ``is:refused``.
    :ivar session: the id of the session in which it came.
    :ivar after: the id of a message that came before it; to read on.
    :ivar before: the id of a message that came after it; to page backwards.
    :ivar terms: what :func:`~twisted_smtpd.store.parse_query` made of a query.
    """

    mailbox: str | None = None
    sender: str = ""
    to: str = ""
    subject: str = ""
    text: str = ""
    seen: bool | None = None
    tag: str | None = None
    refused: bool | None = False
    session: str | None = None
    after: int = 0
    before: int | None = None
    terms: tuple[Term, ...] = ()

    @property
    def wanted_refused(self) -> bool | None:
        """:attr:`refused`, or ``None`` where a term decides."""
        decided = any(term.field == "is" and term.value == "refused" for term in self.terms)
        return None if decided else self.refused
