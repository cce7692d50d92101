"""A message that a test looks at: an ``EmailMessage`` with its envelope, its session, and its links and codes."""

from __future__ import annotations

from collections.abc import Callable
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any, cast

from twisted_smtpd.session import NULL_SENDER, Envelope
from twisted_smtpd.store.finding import find_codes, find_links, visible_text
from twisted_smtpd.store.messages import NewMessage, SessionFacts, StoredMessage

__all__ = ["ReceivedMessage", "find_codes", "find_links", "visible_text"]


class ReceivedMessage(EmailMessage):
    """A message that a server has taken, or refused.

    It is an :class:`email.message.EmailMessage`, so ``message["Subject"]`` and all the rest work.

    :ivar id: its number, above that of all messages before it.
    :ivar raw: the message, octet by octet as it came (without the dots of transparency).
    :ivar envelope: the :class:`~twisted_smtpd.session.Envelope`: sender, recipients, and their parameters.
    :ivar session: what is known about the session: ``peer``, ``helo``, ``tls``, ``user`` and so on.
    :ivar refusal: the reply that refused it, or ``None``.
    :ivar received: when it came (a ``datetime``).
    """

    id: int
    raw: bytes
    envelope: Envelope
    session: SessionFacts
    refusal: str | None
    received: Any
    _dialog: Callable[[], str]

    @classmethod
    def of(cls, stored: StoredMessage, dialog: Callable[[], str]) -> ReceivedMessage:
        """Make it from a message in a store.

        :param dialog: gives the transcript of its session.
        """
        new = stored.message
        parsed = BytesParser(policy=default).parsebytes(new.content)
        message = cls(policy=default)
        # The parts of a message are plain EmailMessages: they have no envelope.
        message.__dict__.update(parsed.__dict__)
        message.id, message.raw, message.session = stored.id, new.content, new.session
        message.refusal, message.received = new.refusal, new.received
        message.envelope = _envelope(new)
        message._dialog = dialog
        return message

    @property
    def mail_from(self) -> str:
        """The reverse-path: who gets the bounces; ``""`` if it was ``<>``."""
        sender = self.envelope.mail_from
        return "" if sender is None or sender == NULL_SENDER else sender

    @property
    def rcpt_tos(self) -> list[str]:
        """The recipients of the envelope: to whom it goes, whatever its headers say."""
        return self.envelope.rcpt_tos

    @property
    def dialog(self) -> str:
        """What was said in its session, up to now."""
        return self._dialog()

    @property
    def text(self) -> str:
        """Its plain text; ``""`` if it has none."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """Its HTML; ``""`` if it has none."""
        return self._body("html")

    @property
    def attachments(self) -> list[EmailMessage]:
        """Its attachments: ``get_filename()``, ``get_content_type()`` and ``get_content()`` tell about each."""
        return cast("list[EmailMessage]", list(self.iter_attachments()))

    def _body(self, kind: str) -> str:
        part = cast("EmailMessage | None", self.get_body((kind,)))
        return "" if part is None else decoded(part)

    def links(self, part: str = "") -> list[str]:
        """The links (``http:`` and ``https:``) in its HTML and its text, each once, in their order.

        :param part: what they have to contain.
        """
        return [link for link in find_links(self.html, self.text) if part in link]

    def codes(self, length: int | None = None) -> list[str]:
        """One-time codes in its text: the likeliest first, blanks and hyphens between digits left out.

        :param length: how many characters they have to have.
        """
        found = find_codes("\n".join(filter(None, (self.text, visible_text(self.html)))))
        return [code for code in found if length is None or len(code) == length]

    def __repr__(self) -> str:
        return f"<ReceivedMessage {self.id} from=<{self.mail_from}> to={self.rcpt_tos!r}>"


def _envelope(new: NewMessage) -> Envelope:
    envelope = Envelope()
    envelope.mail_from = new.mail_from or NULL_SENDER
    envelope.mail_options = list(new.mail_options)
    envelope.recipients = list(new.recipients)
    envelope.rcpt_tos = [recipient.address for recipient in new.recipients]
    envelope.rcpt_options = [option for recipient in new.recipients for option in recipient.options]
    envelope.smtp_utf8 = "SMTPUTF8" in new.mail_options
    envelope.content = envelope.original_content = new.content
    return envelope


def decoded(part: EmailMessage) -> str:
    """The text of a part, also where its charset is unknown or wrong."""
    payload = part.get_payload(decode=True)
    octets = payload if isinstance(payload, bytes) else b""
    try:
        text = octets.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):
        # Python has codecs that are no charsets, and charsets come with octets that no name of a codec may have.
        text = octets.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")
