"""A message for people: its headers decoded, its text, and lists of its attachments and links."""

from __future__ import annotations

import email.policy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from html.parser import HTMLParser
from typing import cast

from twisted_smtpd.handlers.parsing import parse

__all__ = ["Attachment", "Readable", "readable"]

#: Headers that are shown, in this order.
HEADERS = ("From", "Reply-To", "To", "Cc", "Date", "Subject")
# Characters of a text, links of a message, parts of a message and depth of its parts that are looked at.
MAX_TEXT = 65536
MAX_LINKS = 50
MAX_PARTS = 200
MAX_DEPTH = 20

_LINK = re.compile(r"https?://[^\s<>\"'\\^`{|}\x00-\x20\x7f]{1,2000}", re.IGNORECASE)
# What follows a link in a sentence.
_TRAILING = ".,;:!?)]>*_"
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")
_BLANKS = re.compile(r"[ \t\r\n\f]+")
_BLOCKS = frozenset(
    {"address", "article", "blockquote", "div", "dl", "dt", "fieldset", "footer", "form", "header", "hr"}
)
_BLOCKS |= {"h1", "h2", "h3", "h4", "h5", "h6", "main", "nav", "ol", "p", "pre", "section", "table", "tr", "ul"}
_SKIPPED = frozenset({"head", "script", "style", "template", "title"})


@dataclass(frozen=True)
class Attachment:
    """A part of a message that is not its text.

    :ivar name: the file's name; empty if it has none.
    :ivar kind: its media type.
    :ivar octets: its size once it is decoded.
    """

    name: str
    kind: str
    octets: int


@dataclass
class Readable:
    """What a person wants to know of a message.

    :ivar headers: names and decoded values.
    :ivar text: the text, made from HTML if there is no other.
    :ivar more: the characters of the text that are left out.
    :ivar attachments: the other parts.
    :ivar links: the links in the text and in the HTML, each once.
    """

    headers: list[tuple[str, str]] = field(default_factory=list)
    text: str = ""
    more: int = 0
    attachments: list[Attachment] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def readable(content: bytes) -> Readable:
    """Read a message.

    :param content: the message.
    :raises Exception: the :mod:`email` package can't read it, or its parts are nested too deep.
    """
    message = parse(content, None, email.policy.default)
    found = Readable([(name, value) for name in HEADERS if (value := _header(message, name))])
    plain: list[str] = []
    html: list[str] = []
    for number, part in enumerate(_leaves(message, 0)):
        if number == MAX_PARTS:
            break
        kind, name = part.get_content_type(), _filename(part)
        if kind in ("text/plain", "text/html") and not name and part.get_content_disposition() != "attachment":
            (plain if kind == "text/plain" else html).append(_text(part))
        else:
            found.attachments.append(Attachment(name, kind, len(_payload(part))))
    pages = [_Page.read(text) for text in html]
    text = "\n".join(plain) if any(map(str.strip, plain)) else "\n".join(page.text for page in pages)
    text = text.strip("\n").rstrip()
    found.text, found.more = text[:MAX_TEXT], max(len(text) - MAX_TEXT, 0)
    links = [match.rstrip(_TRAILING) for one in plain for match in _LINK.findall(one[: 16 * MAX_TEXT])]
    links += [link for page in pages for link in page.links]
    found.links = list(dict.fromkeys(links))[:MAX_LINKS]
    return found


def _leaves(part: Message, depth: int) -> Iterator[Message]:
    """The parts that have no parts; a message in a message is one."""
    if part.get_content_maintype() == "multipart" and part.is_multipart() and depth < MAX_DEPTH:
        for one in part.get_payload():
            yield from _leaves(cast(Message, one), depth + 1)
    else:
        yield part


def _header(message: Message, name: str) -> str:
    try:
        value = message[name]
        return "" if value is None else _BLANKS.sub(" ", str(value)).strip()
    except Exception:  # the package fails for some headers that it can't read
        raw = next((value for known, value in message.raw_items() if known.lower() == name.lower()), "")
        return _BLANKS.sub(" ", str(raw)).strip()


def _filename(part: Message) -> str:
    try:
        return part.get_filename() or ""
    except Exception:  # as above
        return "?"


def _payload(part: Message) -> bytes:
    if part.is_multipart():
        try:
            return b"".join(bytes(cast(Message, one)) for one in part.get_payload())
        except Exception:  # as above
            return b""
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message) -> str:
    data = _payload(part)
    try:
        text = data.decode(part.get_content_charset("utf-8"))
    except (LookupError, ValueError):
        # The charset is unknown, or the text is not in it.
        text = data.decode("utf-8", "backslashreplace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Page(HTMLParser):
    """An HTML page as text, and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self._pieces: list[str] = []
        self._skipped = 0

    @classmethod
    def read(cls, html: str) -> _Page:
        """Read a page; what is malformed is text."""
        page = cls()
        page.feed(html[: 16 * MAX_TEXT])
        page.close()
        return page

    @property
    def text(self) -> str:
        """The text of the page."""
        lines = (line.strip() for line in "".join(self._pieces).split("\n"))
        return _BLANK_LINES.sub("\n\n", "\n".join(lines))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self._skipped += 1
        elif tag == "br":
            self._pieces.append("\n")
        elif tag == "li":
            self._pieces.append("\n- ")
        elif tag in ("td", "th"):
            self._pieces.append(" ")
        elif tag in _BLOCKS:
            self._pieces.append("\n\n" if tag in ("p", "table") or tag[0] == "h" else "\n")
        if tag == "a":
            link = dict(attrs).get("href") or ""
            if _LINK.fullmatch(link.strip()):
                self.links.append(link.strip())

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipped = max(self._skipped - 1, 0)
        elif tag in _BLOCKS:
            self._pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._pieces.append(_BLANKS.sub(" ", data))
