"""Which mail programs show the HTML and CSS of a message: looked up in the data of https://www.caniemail.com."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import unescape
from importlib.resources import files
from typing import Any

from twisted_smtpd.inbox.content import Content

__all__ = ["Feature", "HTMLSupport", "html_support"]

#: Characters of HTML that are looked at.
MAX_HTML = 2**20

_TAG = re.compile(r"""<([a-z][a-z0-9]*)((?:\s[^<>"']*(?:"[^"]*"|'[^']*')?[^<>"']*)?)""", re.IGNORECASE | re.ASCII)
_ATTRIBUTE = re.compile(
    r"""([a-z][a-z0-9-]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""", re.IGNORECASE | re.ASCII
)
_STYLE = re.compile(r"<style\b[^<>]*>", re.IGNORECASE)
_STYLE_END = re.compile("</style", re.IGNORECASE)
_CSS_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_DECLARATION = re.compile(r"(?:^|[{;\s])(-?-?[a-z][a-z-]*)\s*:\s*([^;{}]*)", re.IGNORECASE | re.ASCII)
_AT_RULE = re.compile(r"@([a-z-]+)([^{;]{0,500})", re.IGNORECASE | re.ASCII)
_PSEUDO = re.compile(r"(::?)([a-z-]+)", re.IGNORECASE | re.ASCII)
# What comes before a brace is a selector.
_PIECE = re.compile(r"([^{};]*)([{};]|\Z)")
_UNIT = re.compile(
    r"(?<![\w#.-])[+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})(ch|cm|em|ex|in|mm|pc|pt|px|rem|vh|vmax|vmin|vw|%)",
    re.IGNORECASE,
)
_FUNCTION = re.compile(
    r"\b(calc|clamp|max|min|var|light-dark|rgba?|linear-gradient|radial-gradient|conic-gradient)\(", re.I
)

# Features whose names are not those of a property.
_PROPERTIES = {
    **dict.fromkeys(("left", "right", "top", "bottom"), "css-left-right-top-bottom"),
    **dict.fromkeys(("justify-content",), "css-justify-content"),
    **dict.fromkeys(("columns", "column-count"), "css-column-count"),
    **dict.fromkeys(("grid-template-columns", "grid-template-rows"), "css-grid-template"),
    **dict.fromkeys(("column-gap", "row-gap", "grid-gap"), "css-gap"),
}
_SIDES = re.compile(r"(margin|padding|border)-(?:top|right|bottom|left)(?:-(?:width|style|color))?")
_FUNCTIONS = {
    "calc": "css-unit-calc",
    "clamp": "css-function-clamp",
    "max": "css-function-max",
    "min": "css-function-min",
    "var": "css-variables",
    "light-dark": "css-function-light-dark",
}
_MEDIA = ("device-pixel-ratio", "hover", "orientation", "prefers-color-scheme", "prefers-reduced-motion")
_HTML_GROUPS = {
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "html-h1-h6"),
    **dict.fromkeys(("ul", "ol", "dl"), "html-lists"),
    **dict.fromkeys(("article", "aside", "footer", "header", "main", "nav", "section"), "html-semantics"),
    **dict.fromkeys(("map", "area"), "html-image-maps"),
}
_IMAGES = {"jpeg": "jpg", "svg+xml": "svg", "x-icon": "ico", "vnd.microsoft.icon": "ico", "tif": "tiff"}


@dataclass(frozen=True)
class Feature:
    """Something that a message uses.

    :ivar slug: its name at caniemail.com.
    :ivar title: its name for people.
    :ivar full: how many mail programs have it.
    :ivar partly: how many have it in part.
    :ivar lacking: the mail programs that don't have it.
    """

    slug: str
    title: str
    full: int
    partly: int
    lacking: tuple[str, ...]

    @property
    def known(self) -> int:
        """How many mail programs were tried."""
        return self.full + self.partly + len(self.lacking)

    @property
    def url(self) -> str:
        """Where to read about it."""
        return f"https://www.caniemail.com/features/{self.slug}/"


@dataclass(frozen=True)
class HTMLSupport:
    """How much of a message mail programs show.

    :ivar features: what it uses, what is supported least first.
    :ivar updated: the day of the data.
    """

    features: tuple[Feature, ...]
    updated: str

    @property
    def problems(self) -> tuple[Feature, ...]:
        """The features that some mail program lacks, or has in part only."""
        return tuple(one for one in self.features if one.lacking or one.partly)

    @property
    def score(self) -> float:
        """Percent of the features of which mail programs show all, a half counts for what they show in part."""
        known = sum(one.known for one in self.features)
        return 100.0 if not known else 100 * sum(one.full + one.partly / 2 for one in self.features) / known


@cache
def _table() -> dict[str, Any]:
    file = files("twisted_smtpd.inbox") / "data" / "caniemail.json"
    table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return table


def html_support(content: Content) -> HTMLSupport:
    """Look up what the HTML of a message uses.  For a long one, do it in a thread.

    :param content: the message; the first megabyte of its HTML counts.
    """
    table = _table()
    used = {slug for slug in _used(content) if slug in table["features"]}
    found = [_feature(slug, table) for slug in used]
    found.sort(key=lambda one: ((one.full + one.partly / 2) / max(1, one.known), one.title))
    return HTMLSupport(tuple(found), table["updated"])


def _feature(slug: str, table: dict[str, Any]) -> Feature:
    feature = table["features"][slug]
    support = feature["support"]
    lacking = tuple(name for name, letter in zip(table["programs"], support, strict=True) if letter == "n")
    return Feature(slug, feature["title"], support.count("y"), support.count("a"), lacking)


def _used(content: Content) -> Iterator[str]:
    html = content.html[:MAX_HTML]
    if "<!--" in html:
        yield "html-comments"
    if re.match(r"\s*<!doctype", html, re.IGNORECASE):
        yield "html-doctype"
    sheets = list(_sheets(html))
    declarations: list[str] = []
    for tag, attributes in _TAG.findall(html):
        tag = tag.lower()
        yield f"html-{tag}"
        yield _HTML_GROUPS.get(tag, "")
        for name, *values in _ATTRIBUTE.findall(attributes):
            value = unescape("".join(values)) if any("&" in one for one in values) else "".join(values)
            if name.lower() == "style":
                declarations.append(value)
            else:
                yield from _attribute(tag, name.lower(), value)
    for sheet in sheets:
        yield from _sheet(_CSS_COMMENT.sub(" ", sheet))
        if "/*" in sheet:
            yield "css-comments"
    for style in declarations:
        yield from _declarations(style)
    for part in content.inline:
        yield from _image(part.content_type)


def _sheets(html: str) -> Iterator[str]:
    """The content of the style elements."""
    place = 0
    while (start := _STYLE.search(html, place)) is not None:
        end = _STYLE_END.search(html, start.end())
        place = len(html) if end is None else end.start()
        yield html[start.end() : place]


def _attribute(tag: str, name: str, value: str) -> Iterator[str]:
    yield f"html-{name}"
    if name == "href":
        if value.startswith("#"):
            yield "html-anchor-links"
        elif value.lower().startswith("mailto:"):
            yield "html-mailto-links"
    elif name == "type" and tag in ("input", "button"):
        yield f"html-{tag}-{value.lower()}"
    elif name == "src" and tag == "img":
        if value.lower().startswith("data:image/"):
            yield "image-base64"
            yield from _image(value[5:40].partition(";")[0].lower())
        else:
            yield from _image("image/" + value.partition("?")[0].rpartition(".")[2].lower()[:10])
    elif name == "name" and value.lower() == "color-scheme":
        yield "html-meta-color-scheme"


def _image(content_type: str) -> Iterator[str]:
    kind = content_type.partition("/")[2]
    yield f"image-{_IMAGES.get(kind, kind)}"


def _sheet(sheet: str) -> Iterator[str]:
    for name, rest in _AT_RULE.findall(sheet):
        yield f"css-at-{name.lower()}"
        if name.lower() == "media":
            yield from (f"css-at-media-{one}" for one in _MEDIA if one in rest.lower())
    for piece, end in _PIECE.findall(sheet):
        if end == "{" and not piece.lstrip().startswith("@"):
            yield from _selector(piece[:500])
    yield from _declarations(sheet)


def _selector(selector: str) -> Iterator[str]:
    for colons, name in _PSEUDO.findall(selector):
        yield f"css-pseudo-class-{name.lower()}"
        if colons == "::" or name.lower() in ("before", "after", "first-letter", "first-line"):
            yield f"css-pseudo-element-{name.lower()}"
    for mark, slug in {"[": "attribute", ">": "child", "+": "adjacent-sibling", "~": "general-sibling"}.items():
        if mark in selector:
            yield f"css-selector-{slug}"
    for pattern, slug in ((r"\.[a-z]", "class"), (r"#[a-z]", "id"), (r"\*", "universal"), (",", "grouping")):
        if re.search(pattern, selector, re.IGNORECASE):
            yield f"css-selector-{slug}"


def _declarations(style: str) -> Iterator[str]:
    for name, value in _DECLARATION.findall(style):
        name, value = name.lower(), value.strip().lower()
        sides = _SIDES.fullmatch(name)
        yield "css-variables" if name.startswith("--") else _PROPERTIES.get(name, f"css-{name}")
        if sides is not None:
            yield f"css-{sides[1]}"
        if name == "display":
            yield f"css-display-{value.split()[0].removeprefix('inline-') if value else ''}"
        if "!important" in value:
            yield "css-important"
        for unit in _UNIT.findall(value):
            yield f"css-unit-{'percent' if unit == '%' else unit.lower()}"
        for function in _FUNCTION.findall(value):
            yield _FUNCTIONS.get(function.lower(), f"css-{function.lower()}")
