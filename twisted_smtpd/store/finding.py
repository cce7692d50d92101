"""Links, one-time codes and the visible text of what a message shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

__all__ = ["HTMLReader", "find_codes", "find_links", "visible_text"]

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


class HTMLReader:
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
    """The text that HTML shows."""
    return " ".join(HTMLReader(html).words) if html else ""


def find_links(html: str, text: str) -> list[str]:
    """The links in HTML and in a text, each once.

    :param html: the HTML, or ``""``.
    :param text: the text, or ``""``.
    """
    links = HTMLReader(html).links if html else []
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
