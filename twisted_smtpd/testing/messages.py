"""A message that a test looks at: an ``EmailMessage`` with its envelope, its session, and its links and codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from html import unescape
from typing import Any, cast

from twisted_smtpd.session import NULL_SENDER, Envelope
from twisted_smtpd.store.messages import NewMessage, SessionFacts, StoredMessage

__all__ = ["ReceivedMessage", "find_codes", "find_links", "visible_text"]

_URL = re.compile(r"""https?://[^\s<>"'\\^`{|}]+""", re.IGNORECASE)
# A code of digits, perhaps in two groups, that stands alone; or capitals and digits mixed.
_DIGITS = re.compile(r"(?<![\w#./:@-])(\d{3}[ -]\d{3}|\d{4,8})(?![\w%]|[-./:]\w)", re.ASCII)
_MIXED = re.compile(
    r"(?<![\w#./:@-])(?=[A-Z-]*\d)(?=[\d-]*[A-Z])([A-Z\d]{3,5}-[A-Z\d]{3,5}|[A-Z\d]{5,10})(?![\w-])", re.ASCII
)
_YEAR = re.compile(r"(?:19|20)\d\d", re.ASCII)
# A comment, a declaration, a tag or text.
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<[!?][^>]*(?:>|\Z)|<(?P<end>/?)(?P<name>[a-z][a-z0-9:-]*)(?P<attributes>[^<>]*)>|(?P<text><|[^<]+)",
    re.DOTALL | re.IGNORECASE | re.ASCII,
)
_HREF = re.compile(r"""(?:^|\s)href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE | re.ASCII)
# The punctuation that may follow a link.
_MARKS = ".,;:!?*_~"
_ABOUT_CODES = re.compile(r"\b(?:code|pin|otp|passcode|password|token|verif|confirm|sign|log)", re.IGNORECASE)
# How many characters before a code the word that announces it may be.
_NEAR = 60


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


class _Reader:
    """Collects the links and the text of HTML, in a time that grows with its length only.

    (That of Python's ``HTMLParser`` grows with the square of the number of tags that don't end.)
    """

    _UNSEEN = frozenset({"head", "script", "style", "title"})
    # Up to their end there is no other tag.
    _RAW = frozenset({"script", "style"})

    def __init__(self, html: str) -> None:
        self.links: list[str] = []
        self.words: list[str] = []
        self._raw, self._hidden = "", 0
        for match in _MARKUP.finditer(html):
            if match["name"]:
                self._tag(match["name"].lower(), bool(match["end"]), match["attributes"])
            elif match["text"] and not self._hidden:
                self.words.append(unescape(match["text"]))

    def _tag(self, name: str, is_end: bool, attributes: str) -> None:
        if self._raw and not (is_end and name == self._raw):
            return
        self._raw = name if name in self._RAW and not is_end else ""
        if name in self._UNSEEN:
            self._hidden = max(0, self._hidden + (-1 if is_end else 1))
        href = None if is_end else _HREF.search(attributes)
        if href is not None:
            link = unescape(href[1] or href[2] or href[3] or "").strip()
            if re.match(r"https?://", link, re.IGNORECASE):
                self.links.append(link)


def visible_text(html: str) -> str:
    """The words of HTML that a reader sees."""
    return " ".join(_Reader(html).words) if html else ""


def find_links(html: str, text: str) -> list[str]:
    """The links in HTML and in a text, each once.

    :param html: the HTML, or ``""``.
    :param text: the text, or ``""``.
    """
    links = _Reader(html).links if html else []
    return list(dict.fromkeys((*links, *map(_without_mark, _URL.findall(text)))))


def _without_mark(url: str) -> str:
    """A link without the punctuation of the sentence in which it stands, and the brackets around it."""
    surplus = {close: url.count(close) - url.count(begin) for begin, close in ("()", "[]")}
    end = len(url)
    while end and (url[end - 1] in _MARKS or surplus.get(url[end - 1], 0) > 0):
        end -= 1
        if url[end] in surplus:
            surplus[url[end]] -= 1
    return url[:end]


def find_codes(text: str) -> list[str]:
    """What looks like a one-time code in a text, the likeliest first."""
    text = _URL.sub(" ", text)
    candidates = sorted(_candidates(text))
    return list(dict.fromkeys(code for _, _, code in candidates))


def _candidates(text: str) -> Iterator[tuple[bool, int, str]]:
    """Each candidate: whether no word announces it, its place, and the code."""
    for match in _DIGITS.finditer(text):
        announced = _is_announced(text, match.start())
        if announced or not _YEAR.fullmatch(match[1]):
            yield not announced, match.start(), re.sub("[ -]", "", match[1])
    for match in _MIXED.finditer(text):
        if _is_announced(text, match.start()):
            yield False, match.start(), match[1]


def _is_announced(text: str, place: int) -> bool:
    return _ABOUT_CODES.search(text, max(0, place - _NEAR), place) is not None
