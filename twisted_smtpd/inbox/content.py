"""What is in a message: its text, its HTML, its parts, its links and codes.

Messages come from anybody, so all work here is bounded, and nothing here raises for a message that is malformed.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.header import decode_header
from email.message import Message
from email.policy import compat32
from functools import cached_property
from typing import Literal, cast

from twisted_smtpd.handlers.parsing import parse
from twisted_smtpd.runtime.computing import compute, is_large
from twisted_smtpd.store.messages import StoredMessage
from twisted_smtpd.testing.messages import find_codes, find_links, visible_text
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["INLINE_IMAGES", "Content", "Contents", "Part", "decode_words", "file_name", "headers_of", "part_headers"]

#: Parts of a message that are looked at; the others are left out.
MAX_PARTS = 1000
#: Characters of a header that are looked at for a media type or a file's name.
MAX_HEADER = 8192
#: Characters of text and HTML that links and codes are looked for in.
MAX_SEARCHED = 2**20
#: Images that a browser may show on a page of ours: none of them can hold a script.
INLINE_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/avif"})

# Codecs that are no charsets of mail; the time that some of them take grows with the square of the length.
_NO_CHARSETS = frozenset({"punycode", "idna", "unicode_escape", "raw_unicode_escape", "unicode-escape", "undefined"})
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")
# What is saved with its own type, for programs that ask for attachments.
_HARMLESS = re.compile(
    r"(?:application|audio|video|font|image|model)/(?!.*(?:html|xml|xsl|script|svg|flash|hta|wasm)).+"
)
_CHARSET = re.compile(r"[A-Za-z0-9_.:-]{1,40}", re.ASCII)
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
_BLANKS = re.compile(r"[ \t\r\n]+")

Kind = Literal["text", "html", "attachment", "inline", "multipart"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message.

    :ivar id: its place: ``"0"`` for the message itself, ``"2.1"`` for the first part of the second part.
    :ivar content_type: its media type in lower case, without parameters.
    :ivar name: its file's name, safe to show; ``""`` without one.
    :ivar size: its octets once it is decoded; 0 for a multipart.
    :ivar kind: what it is for: text or HTML that is shown, an attachment, a part that HTML refers to (``inline``), or
        a container of parts.
    :ivar content_id: its Content-ID without brackets.
    :ivar depth: how many containers it is in.
    :ivar charset: the charset of a text, as the message says.
    """

    id: str
    content_type: str
    name: str
    size: int
    kind: Kind
    content_id: str = ""
    depth: int = 0
    charset: str = "utf-8"

    @property
    def is_image(self) -> bool:
        """Whether a browser may show it as an image."""
        return self.content_type in INLINE_IMAGES


@dataclass(frozen=True)
class Content:
    """What is in a message.

    :ivar parts: its parts in their order, containers before what they contain.
    :ivar text: its plain text; ``""`` if it has none.
    :ivar html: its HTML as it came, not safe to show; ``""`` if it has none.
    :ivar defect: why it could not be read completely, in a line; ``""`` if it was.
    """

    parts: tuple[Part, ...]
    text: str = field(repr=False)
    html: str = field(repr=False)
    defect: str = ""
    _messages: tuple[Message, ...] = field(repr=False, default=(), compare=False)

    @classmethod
    def of(cls, content: bytes) -> Content:
        """Read a message.  Do it in a thread if the message is large; :class:`Contents` does.

        :param content: the message as it came.
        """
        try:
            message = parse(content, None, compat32)
        except (SMTPReplyError, RecursionError):
            return cls((Part("0", "text/plain", "", len(content), "text"),), "", "", "Its parts are nested too deep")
        found: list[Part] = []
        messages: list[Message] = []
        texts: dict[str, list[str]] = {"text": [], "html": []}
        defect = ""
        for id, one, depth in _walk(message):
            if len(found) == MAX_PARTS:
                defect = f"It has more than {MAX_PARTS} parts"
                break
            part, octets = _part(id, one, depth)
            found.append(part)
            messages.append(one)
            if part.kind in texts:
                texts[part.kind].append(_decoded(octets, part.charset))
        return cls(tuple(found), "\n".join(texts["text"]), "\n".join(texts["html"]), defect, tuple(messages))

    @property
    def attachments(self) -> tuple[Part, ...]:
        """The parts that are attached."""
        return tuple(part for part in self.parts if part.kind == "attachment")

    @property
    def inline(self) -> tuple[Part, ...]:
        """The parts that the HTML can refer to."""
        return tuple(part for part in self.parts if part.kind == "inline")

    def part(self, id: str) -> Part | None:
        """The part at a place, or ``None``."""
        return next((part for part in self.parts if part.id == id), None)

    def by_content_id(self, content_id: str) -> Part | None:
        """The part that ``cid:`` names, or ``None``."""
        return self._content_ids.get(content_id)

    @cached_property
    def _content_ids(self) -> dict[str, Part]:
        # The first one counts if there are several.
        return {part.content_id: part for part in reversed(self.parts) if part.content_id}

    def payload(self, id: str) -> bytes | None:
        """The octets of a part, decoded; ``None`` if there is no such part."""
        for part, message in zip(self.parts, self._messages, strict=False):
            if part.id == id:
                return _payload(message)
        return None

    @cached_property
    def links(self) -> tuple[str, ...]:
        """The links in its HTML and its text, each once."""
        return tuple(find_links(self.html[:MAX_SEARCHED], self.text[:MAX_SEARCHED]))

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """What looks like one-time codes, the likeliest first."""
        texts = self.text[:MAX_SEARCHED], visible_text(self.html[:MAX_SEARCHED])
        return tuple(find_codes("\n".join(filter(None, texts))))


def _walk(message: Message) -> Iterator[tuple[str, Message, int]]:
    """Each part with its place and depth; without recursion, as the depth is the sender's choice."""
    waiting: list[tuple[str, Message, int]] = [("0", message, 0)]
    while waiting:
        id, part, depth = waiting.pop()
        yield id, part, depth
        if _is_container(part):
            prefix = "" if id == "0" else f"{id}."
            below = [
                (f"{prefix}{number}", one, depth + 1)
                for number, one in enumerate(cast("list[Message]", part.get_payload()), 1)
            ]
            waiting.extend(reversed(below[:MAX_PARTS]))


def _is_container(part: Message) -> bool:
    return part.is_multipart() and _raw(part, "content-type").lstrip().lower().startswith("multipart/")


def _part(id: str, message: Message, depth: int) -> tuple[Part, bytes]:
    content_type = _content_type(message)
    if _is_container(message):
        return Part(id, content_type, "", 0, "multipart", "", depth), b""
    octets = _payload(message)
    name = _name(message)
    disposition = _raw(message, "content-disposition").partition(";")[0].strip().lower()
    content_id = _raw(message, "content-id").strip().strip("<>").strip()[:998]
    kind: Kind = "attachment"
    if disposition != "attachment" and content_type in ("text/plain", "text/html") and not name:
        kind = "html" if content_type == "text/html" else "text"
    elif disposition != "attachment" and content_type.startswith("image/") and (content_id or disposition == "inline"):
        kind = "inline"
    if kind == "attachment" and not name:
        name = _default_name(id, message, content_type)
    charset = _charset(message) if content_type.startswith("text/") else "utf-8"
    return Part(id, content_type, name, len(octets), kind, content_id, depth, charset), octets


def _default_name(id: str, message: Message, content_type: str) -> str:
    if content_type == "message/rfc822" and message.is_multipart():
        inner = cast("list[Message]", message.get_payload())[0]
        return file_name(decode_words(_raw(inner, "subject"))) + ".eml" if _raw(inner, "subject") else f"part-{id}.eml"
    return f"part-{id}"


def _raw(message: Message, name: str) -> str:
    """A header as it came, its octets read as UTF-8; bounded."""
    for known, value in message.raw_items():
        if known.lower() == name:
            text = str(value)[:MAX_HEADER]
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return ""


def _content_type(message: Message) -> str:
    kind = _raw(message, "content-type").partition(";")[0].strip().lower()
    if _TYPE.fullmatch(kind):
        return kind
    # RFC 2045 section 5.2: text/plain without one, or with one that can't be read.
    return "text/plain"


def _parameters(message: Message, header: str) -> Message | None:
    """The header in a message of its own, so that a long or hostile one costs little."""
    value = _raw(message, header)
    # What Python's parser takes grows with the square of these.
    if not value or value.count(";") > 100:
        return None
    alone: Message = Message()
    alone[header] = _BLANKS.sub(" ", value)
    return alone


def _name(message: Message) -> str:
    for header, parameter in (("content-disposition", "filename"), ("content-type", "name")):
        alone = _parameters(message, header)
        if alone is None:
            continue
        try:
            value = alone.get_param(parameter, None, header)
            if isinstance(value, tuple):
                charset, _, text = value
                value = _decoded(text.encode("latin-1", "replace"), charset or "utf-8")
        except Exception:  # Python's parser raises several kinds of errors for what people and attackers write
            continue
        if value:
            return file_name(decode_words(str(value)))
    return ""


def _charset(message: Message) -> str:
    alone = _parameters(message, "content-type")
    try:
        return "utf-8" if alone is None else alone.get_content_charset("utf-8")
    except Exception:  # as above
        return "utf-8"


def _payload(message: Message) -> bytes:
    try:
        if message.is_multipart():
            return b"\n".join(one.as_bytes() for one in cast("list[Message]", message.get_payload()))
        payload = message.get_payload(decode=True)
    except Exception:  # the email package can't write some messages that it has read
        return b""
    return payload if isinstance(payload, bytes) else b""


def _decoded(octets: bytes, charset: str) -> str:
    """Octets as text, also where the charset is unknown or wrong."""
    try:
        name = codecs.lookup(charset).name
        text = octets.decode("utf-8" if name in _NO_CHARSETS or name == "ascii" else name, "replace")
    except (LookupError, ValueError):
        # Python has codecs that are no charsets, and charsets come with octets that no name of a codec may have.
        text = octets.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def decode_words(value: str) -> str:
    """The text of a header with encoded words (RFC 2047), in one line.

    :param value: the header's value as it came; of a long one, the first 8,192 characters count.
    """
    value = _BLANKS.sub(" ", value[:MAX_HEADER])
    if "=?" not in value:
        return value.strip()
    try:
        words = decode_header(value)
    except (ValueError, binascii.Error, LookupError):
        return value.strip()
    text = "".join(word if isinstance(word, str) else _decoded(word, charset or "utf-8") for word, charset in words)
    return _CONTROLS.sub(" ", text).strip()


def file_name(text: str) -> str:
    """A file's name that is safe to save and to show: without folders, controls and marks that turn text around.

    :param text: what the message says.
    """
    text = _CONTROLS.sub("", text).replace("\\", "/").rpartition("/")[2]
    text = re.sub(r'[<>:"|?*]', "_", text).strip(" .")
    stem, dot, suffix = text.rpartition(".")
    if len(text) > 200:
        text = f"{stem[:180]}{dot}{suffix[:19]}" if stem and len(suffix) < 20 else text[:200]
    return text or "file"


def headers_of(content: bytes) -> list[tuple[str, str]]:
    """The headers of a message in their order, decoded for people.

    :param content: the message; of a long header section, the first 256 KiB and 1,000 headers count.
    """
    head = re.split(rb"\r?\n\r?\n", content[: 2**18], maxsplit=1)[0]
    message = parse(head + b"\r\n\r\n", None, compat32)
    found: list[tuple[str, str]] = []
    for name, value in message.raw_items():
        if len(found) == MAX_PARTS:
            break
        text = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        found.append((name, decode_words(text)))
    return found


def part_headers(part: Part, download: bool = False) -> list[tuple[bytes, bytes]]:
    """The HTTP headers with which a part is served: it must not become a page of ours.

    Only images of a short list, and text as plain text, are shown by the browser; all else is saved, with its own type
    unless that is one which browsers run.  A policy of its own makes sure that nothing in it runs, whatever a browser
    takes it for.

    :param part: the part.
    :param download: whether it is to be saved in any case.
    """
    content_type, shown = b"application/octet-stream", False
    if part.is_image:
        content_type, shown = part.content_type.encode("ascii"), True
    elif part.content_type.startswith("text/") or part.content_type == "message/rfc822":
        charset = part.charset if _CHARSET.fullmatch(part.charset) else "utf-8"
        content_type, shown = b"text/plain; charset=" + charset.encode("ascii"), True
    elif _HARMLESS.fullmatch(part.content_type):
        content_type = part.content_type.encode("ascii")
    name = part.name or f"part-{part.id}"
    plain = re.sub(r'[^ -~]|["\\%]', "_", name).encode("ascii")
    extended = "".join(chr(c) if chr(c).isalnum() and c < 128 else f"%{c:02X}" for c in name.encode("utf-8", "replace"))
    how = b"inline" if shown and not download else b"attachment"
    return [
        (b"content-type", content_type),
        (b"content-disposition", how + b'; filename="' + plain + b"\"; filename*=UTF-8''" + extended.encode("ascii")),
        (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _read_all(octets: bytes) -> Content:
    """Read a message with its links and codes, which take as long as all the rest."""
    content = Content.of(octets)
    # They are kept with it.
    _ = content.links, content.codes
    return content


class Contents:
    """Reads messages, large ones in a thread, and keeps the last few: a page asks for many parts of one message.

    :param limit: how many are kept at most.
    :param octets: how many octets their messages may have together.
    """

    def __init__(self, limit: int = 16, octets: int = 64 * 2**20) -> None:
        self._limit, self._octets = limit, octets
        self._kept: OrderedDict[int, tuple[Content, int]] = OrderedDict()

    async def of(self, stored: StoredMessage) -> Content:
        """What is in a stored message."""
        kept = self._kept.get(stored.id)
        if kept is not None:
            self._kept.move_to_end(stored.id)
            return kept[0]
        octets = stored.message.content
        content: Content = await compute(_read_all, octets) if is_large(octets) else Content.of(octets)
        self._kept[stored.id] = content, len(octets)
        while len(self._kept) > self._limit or (len(self._kept) > 1 and self._total() > self._octets):
            self._kept.popitem(last=False)
        return content

    def _total(self) -> int:
        return sum(size for _, size in self._kept.values())
