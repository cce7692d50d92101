"""What a list of messages and a search need to know of a message, in a time that is bounded for any octets.

The email package reads a message line by line: 30 MB take it seconds, and parts in parts far more.  A store does this
for each message that comes, so it looks for boundaries with ``find`` and reads of each part only as much as it needs.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.header import decode_header
from email.utils import collapse_rfc2231_value, decode_params, getaddresses

from twisted_smtpd.store.finding import visible_text

__all__ = ["MAX_ADDRESSES", "Address", "Outline", "outline"]

#: Addresses of a header that are kept.
MAX_ADDRESSES = 100
# Octets that are read: of the message's headers, of a part's headers, of its texts, and of these of HTML.
MAX_HEADER = 2**16
MAX_PART_HEADER = 2**13
MAX_TEXT = 2**16
MAX_HTML = 2**15
# Characters of a header's value that are decoded.
MAX_VALUE = 2**13
# Characters of a header that are parsed as addresses; Python's parser takes 30 ms for so many brackets.
MAX_ADDRESS_TEXT = 2**13
# Parts that are counted, parts in parts, and boundaries that are looked at.
MAX_PARTS = 1000
MAX_DEPTH = 10
MAX_BOUNDARIES = 5000

_FOLD = re.compile(r"\r?\n(?=[ \t])")
_BLANKS = re.compile(r"\s+")
# Encoded words (RFC 2047), with those that follow: they may share a character.
_WORD = r"=\?[^?\s]{1,60}\?[QqBb]\?[^?\s]{0,1000}\?="
_ENCODED = re.compile(rf"{_WORD}(?:[ \t\r\n]+{_WORD})*")
_PLAIN_ADDRESS = re.compile(r'\s*(?:"?([^"<>@,;:\\()]*)"?\s*<([^<>\s,;:"()]+)>|([^<>\s,;:"()]+))\s*')
_PARAMETER = re.compile(r';\s*([^\s=;"]{1,40})\s*=\s*(?:"((?:[^"\\]|\\.){0,500})"|([^\s;"]{0,500}))')
# Python's codecs whose time grows with the square of the text, or that are no charsets.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})


@dataclass(frozen=True, slots=True)
class Address:
    """An address in a header, decoded.

    :ivar name: the name; ``""`` without one.
    :ivar address: ``local-part@domain``, or what stands in its place.
    """

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>" if self.name else self.address


@dataclass(slots=True)
class Outline:
    """What is known of a message without reading all of it.

    :ivar headers: name in small letters to values, unfolded and not decoded.
    :ivar text: the text of its plain parts, or of its HTML where there are none: of their first 64 and 32 KiB.
    :ivar attachments: how many attachments it has.
    :ivar inline: how many parts, such as images, that its HTML shows.
    :ivar names: the names of files.
    """

    headers: dict[str, list[str]] = field(default_factory=dict)
    text: str = ""
    attachments: int = 0
    inline: int = 0
    names: list[str] = field(default_factory=list)

    def first(self, name: str) -> str:
        """The value of a header, decoded and in one line; ``""`` without it."""
        values = self.headers.get(name)
        return "" if values is None else decode_words(_BLANKS.sub(" ", values[0][:MAX_VALUE]).strip())

    def addresses(self, name: str) -> tuple[Address, ...]:
        """The addresses in headers of a name, 100 at most."""
        found: list[Address] = []
        for value in self.headers.get(name, ()):
            found += parse_addresses(value)
        return tuple(found[:MAX_ADDRESSES])


def outline(content: bytes) -> Outline:
    """Read a message as far as needed.

    :param content: the message; any octets are no error.
    """
    found = Outline()
    found.headers, body = _headers(content, 0, len(content), MAX_HEADER)
    reader = _Parts(content, found)
    reader.read(found.headers, body, len(content), 0)
    found.text = reader.text()
    return found


def _headers(content: bytes, start: int, end: int, limit: int) -> tuple[dict[str, list[str]], int]:
    """The headers that begin at a place, and where the body begins."""
    if content.startswith((b"\r\n", b"\n"), start):
        return {}, start + (2 if content[start] == 13 else 1)
    stop, body = end, end
    for blank in (b"\r\n\r\n", b"\n\n"):
        place = content.find(blank, start, stop)
        if place >= 0:
            stop, body = place, place + len(blank)
    text = _FOLD.sub("", content[start : min(stop, start + limit)].decode("utf-8", "replace"))
    headers: dict[str, list[str]] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), []).append(value.strip())
    return headers, body


class _Parts:
    """Goes through the parts of a message."""

    def __init__(self, content: bytes, found: Outline) -> None:
        self._content, self._found = content, found
        self._parts = self._boundaries = 0
        self._plain: list[str] = []
        self._html: list[str] = []
        self._left = MAX_TEXT

    def text(self) -> str:
        return "\n".join(self._plain) if any(map(str.strip, self._plain)) else "\n".join(map(visible_text, self._html))

    def read(self, headers: dict[str, list[str]], start: int, end: int, depth: int) -> None:
        kind, parameters = parse_value(headers.get("content-type", [""])[0])
        boundary = parameters.get("boundary", "")
        if kind.startswith("multipart/") and not boundary:
            # As the email package has it.
            kind = ""
        if kind.startswith("multipart/") and boundary and depth < MAX_DEPTH:
            for begin, stop in self._between(boundary.encode("utf-8", "replace"), start, end):
                self._parts += 1
                if self._parts > MAX_PARTS:
                    return
                inner, body = _headers(self._content, begin, stop, MAX_PART_HEADER)
                self.read(inner, body, stop, depth + 1)
            return
        self._leaf(kind, parameters, headers, start, end)

    def _leaf(self, kind: str, parameters: dict[str, str], headers: dict[str, list[str]], start: int, end: int) -> None:
        disposition, more = parse_value(headers.get("content-disposition", [""])[0])
        name = more.get("filename") or parameters.get("name") or ""
        if name:
            self._found.names.append(name[:255])
        is_text = kind in ("", "text/plain", "text/html") or "/" not in kind
        if disposition == "attachment" or (not is_text and disposition != "inline" and "content-id" not in headers):
            self._found.attachments += 1
        elif not is_text or (disposition == "inline" and name):
            self._found.inline += 1
        elif name and depth_of(headers):
            self._found.attachments += 1
        elif self._left > 0:
            texts, limit = (self._html, MAX_HTML) if kind == "text/html" else (self._plain, MAX_TEXT)
            texts.append(self._text(headers, parameters.get("charset", ""), start, min(end, start + limit)))

    def _text(self, headers: dict[str, list[str]], charset: str, start: int, end: int) -> str:
        octets = self._content[start : min(end, start + self._left)]
        self._left -= len(octets)
        return decode_octets(decode_transfer(octets, headers.get("content-transfer-encoding", [""])[0]), charset)

    def _between(self, boundary: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Where the parts between boundaries begin and end."""
        content, delimiter = self._content, b"--" + boundary
        begin, place = -1, start
        while self._boundaries < MAX_BOUNDARIES:
            self._boundaries += 1
            place = content.find(delimiter, place, end)
            if place < 0:
                break
            after = place + len(delimiter)
            # It stands at the beginning of a line, and no more than "--" and blanks follow.
            rest = content[after : content.find(b"\n", after, min(end, after + 100)) + 1 or min(end, after + 100)]
            if (place != start and content[place - 1] != 10) or rest.strip() not in (b"", b"--"):
                place = after
                continue
            if begin >= 0:
                yield begin, max(begin, place - (2 if content[place - 2 : place] == b"\r\n" else 1))
            if rest.strip():
                return
            begin = place = after + len(rest)
        if begin >= 0:
            yield begin, end


def depth_of(headers: dict[str, list[str]]) -> bool:
    """Whether these are the headers of a part, not of a message."""
    return "from" not in headers and "received" not in headers


def parse_value(value: str) -> tuple[str, dict[str, str]]:
    """The value of a header and its parameters, decoded (RFC 2045, RFC 2231)."""
    main = value.partition(";")[0].strip().lower()
    pairs = [(name.lower(), quoted.replace('\\"', '"') or plain) for name, quoted, plain in _PARAMETER.findall(value)]
    if not pairs:
        return main, {}
    if not any("*" in name for name, _ in pairs):
        return main, {name: decode_words(text) for name, text in reversed(pairs)}
    try:
        decoded = [(name, collapse_rfc2231_value(text)) for name, text in decode_params([(main, ""), *pairs[:50]])[1:]]
    except Exception:
        # decode_params raises several kinds of errors for what attackers write.
        decoded = pairs
    return main, {name.rstrip("*"): decode_words(text.strip('"')) for name, text in reversed(decoded)}


def decode_transfer(octets: bytes, encoding: str) -> bytes:
    """The octets of a body without its transfer encoding; as far as they can be decoded."""
    encoding = encoding.strip().lower()
    try:
        if encoding == "quoted-printable":
            return binascii.a2b_qp(octets)
        if encoding == "base64":
            letters = octets.translate(None, b"\r\n \t")
            return binascii.a2b_base64(letters[: len(letters) // 4 * 4])
    except binascii.Error:
        pass
    return octets


def decode_octets(octets: bytes, charset: str) -> str:
    """A text of octets, also where its charset is unknown or wrong."""
    name = charset.strip().lower()
    if name not in ("", "utf-8", "us-ascii", "ascii"):
        try:
            if codecs.lookup(name).name not in _NO_CHARSETS:
                return octets.decode(name, "replace")
        except (LookupError, ValueError):
            # Python has codecs that are no charsets, and charsets come with octets that no name of a codec may have.
            pass
    return octets.decode("utf-8", "replace")


def decode_words(value: str) -> str:
    """A header's text with its encoded words decoded (RFC 2047)."""
    return _ENCODED.sub(lambda match: _decode_run(match[0]), value) if "=?" in value else value


def _decode_run(words: str) -> str:
    try:
        pieces = decode_header(words)
        text = "".join(piece if isinstance(piece, str) else decode_octets(piece, name or "") for piece, name in pieces)
    except Exception:
        # decode_header raises several kinds of errors for what is not base64.
        return words
    return _BLANKS.sub(" ", text)


def parse_addresses(value: str) -> list[Address]:
    """The addresses of a header's value, decoded."""
    value = value[:MAX_ADDRESS_TEXT]
    # Most lists have neither quotes nor comments; Python's parser takes 20 times as long for them.
    matches = [_PLAIN_ADDRESS.fullmatch(piece) for piece in value.split(",")]
    if all(matches):
        pairs = [(match[1] or "", match[2] or match[3] or "") for match in matches if match is not None]
    else:
        try:
            pairs = [pair for pair in getaddresses([value]) if any(pair)]
        except (ValueError, IndexError, RecursionError):
            pairs = []
        pairs = pairs or [("", value.strip()[:1000])]
    return [Address(_clean(name), _clean(address)) for name, address in pairs]


def _clean(text: str) -> str:
    return _BLANKS.sub(" ", decode_words(text)).strip()
