"""HTML of messages, made safe to show.

It is shown in a frame that runs no scripts and is no part of our site (see :data:`FRAME_POLICY`).  That is the wall;
what is done here is the second one, and makes mail look as its sender meant it, without asking anybody for images.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from html import escape, unescape
from urllib.parse import unquote

import nh3

from twisted_smtpd.inbox.content import INLINE_IMAGES, Content

__all__ = ["FRAME_POLICY", "FRAME_POLICY_REMOTE", "Shown", "show_html"]

#: The policy of the frame: nothing runs, nothing is loaded, and links open windows of their own.
FRAME_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; font-src data:; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
#: The same where a person has asked for what the message loads from elsewhere.
FRAME_POLICY_REMOTE = FRAME_POLICY.replace("data:", "data: http: https:").replace(
    "'unsafe-inline'", "'unsafe-inline' http: https:"
)

#: Characters of HTML that are shown; the rest is left out.
MAX_HTML = 2 * 2**20
#: Octets of images in the message that are put into the HTML, together.
MAX_IMAGES = 16 * 2**20


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What the parser of HTML may have to build; it copies formatting elements that stay open into each paragraph.
_MAX_ELEMENTS = 500_000
_MAX_DEPTH = 2000
_MAX_SCOPES = 10_000_000

_FORMATTING = _names("a b big code em font i nobr s small strike strong tt u")
_VOID = _names("area base br col embed hr img input link meta param source track wbr")
# How ends what hides tags: quoted values, comments, declarations.
_ENDS = {'"': '"', "'": "'", "<!--": "-->", "<![CDATA[": "]]>", "<!": ">", "<?": ">"}
# Elements whose content has no tags.
_RAW = _names("iframe noembed noframes plaintext script style textarea title xmp")
# What ends without a tag of its own when what it is in ends.
_ENDS_BEFORE = _names("dd dt li option p")
# What the same element ends, if it is the last one that is open.
_ENDS_ITSELF = _names("dd dt li option p td th tr")
_TAG = re.compile(
    r"""(?P<hides><!--|<!\[CDATA\[|<[!?]|=\s*["'])|<(?P<end>/?)(?P<name>[a-z][^\s/>]{0,40})""", re.IGNORECASE | re.ASCII
)

_TAGS = _names(
    "a abbr acronym address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd "
    "del details dfn dir div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li "
    "main map mark nav nobr ol p picture pre q rp rt ruby s samp section small span strike strong style sub "
    "summary sup table tbody td tfoot th thead time tr tt u ul var wbr area source"
)
_NOTHING_OF = _names("script title noscript template iframe object embed svg math textarea select")
_EVERYWHERE = _names(
    "align background bgcolor border class color dir face height id lang role size style title valign width"
)
_OWN = {
    "a": {"href", "name"},
    "area": {"href", "shape", "coords", "alt"},
    "img": {"src", "alt", "hspace", "vspace", "srcset", "usemap"},
    "source": {"srcset", "media", "type"},
    "map": {"name"},
    "table": {"cellpadding", "cellspacing", "rules", "summary"},
    "td": {"colspan", "rowspan", "nowrap", "headers", "abbr", "scope"},
    "th": {"colspan", "rowspan", "nowrap", "headers", "abbr", "scope"},
    "col": {"span"},
    "colgroup": {"span"},
    "ol": {"start", "type", "reversed"},
    "ul": {"type"},
    "li": {"value", "type"},
    "time": {"datetime"},
    "style": {"media", "type"},
    "details": {"open"},
    "blockquote": {"cite"},
}
_ATTRIBUTES = {"*": set(_EVERYWHERE), **_OWN}
_SCHEMES = {"http", "https", "mailto", "tel", "cid", "data"}

_BODY = re.compile(r"<body\b([^>]{0,10000})>", re.IGNORECASE)
_BODY_ATTRIBUTE = re.compile(
    r"""\b(style|bgcolor|class|dir|lang|text)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE
)
_BODY_COLOURS = {"bgcolor": "background-color", "text": "color"}
_REMOTE_CSS = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])\s*(?:https?:)?//""", re.IGNORECASE)
_DATA_IMAGE = re.compile(r"data:(image/[a-z]+);base64,[A-Za-z0-9+/=\s]*", re.IGNORECASE)
_REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
# Styles of ours that those of the message override.
_STYLE = (
    "html{color-scheme:light;background:#fff;color:#1b1d22}"
    "body{margin:0;font:14px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}"
    "img{max-width:100%}"
)


@dataclass(frozen=True)
class Shown:
    """HTML that can be put into the frame.

    :ivar html: a whole document; ``""`` if the HTML can't be shown.
    :ivar remote: how many things it would load from elsewhere.
    :ivar problem: what is left out, or why nothing is shown, in a line; ``""`` if all is well.
    """

    html: str
    remote: int = 0
    problem: str = ""


def show_html(content: Content, remote: bool = False) -> Shown:
    """Make the HTML of a message safe.  It takes up to a second for large ones: do it in a thread.

    :param content: the message.
    :param remote: whether what it loads from elsewhere is left in.
    """
    html = content.html[:MAX_HTML]
    problem = "" if len(html) == len(content.html) else "Only the beginning of this HTML is shown, as it is very long"
    if takes_too_long(html):
        return Shown("", 0, "This HTML is nested so that it would take very long to show; look at its source")
    attributes = _Attributes(content, remote)
    # A NUL makes parsers differ.
    cleaned = nh3.clean(
        _with_body_as_div(html.replace("\0", "")),
        tags=set(_TAGS),
        clean_content_tags=set(_NOTHING_OF),
        attributes=_ATTRIBUTES,
        attribute_filter=attributes.filter,
        url_schemes=_SCHEMES,
        set_tag_attribute_values={"a": {"target": "_blank"}, "area": {"target": "_blank"}},
        link_rel="noopener noreferrer nofollow",
    )
    attributes.found += len(_REMOTE_CSS.findall(cleaned))
    if attributes.left_out:
        problem = problem or f"{attributes.left_out} images are left out, as they are very large"
    margin = "" if _BODY.search(html) else "body{margin:12px}"
    document = (
        f'<!doctype html><html><head><meta charset="utf-8"><title>Message</title><style>{_STYLE}{margin}</style></head>'
        f"<body>{cleaned}</body></html>"
    )
    return Shown(document, attributes.found, problem)


class _Attributes:
    """Decides about attributes.

    :ivar found: how many things would be loaded from elsewhere.
    :ivar left_out: how many images of the message were too large.
    """

    def __init__(self, content: Content, remote: bool) -> None:
        self._content, self._remote = content, remote
        self._room = MAX_IMAGES
        self._images: dict[str, str] = {}
        self.found = self.left_out = 0

    def filter(self, tag: str, name: str, value: str) -> str | None:
        """The value that an attribute gets; ``None`` to leave it out."""
        if name == "href":
            return value if re.match(r"\s*(?:https?:|mailto:|tel:|#)", value, re.IGNORECASE) else None
        if name in ("src", "background"):
            return self._image(value)
        if name == "srcset":
            # The image is shown from its src.
            self.found += 1
            return value if self._remote and "data:" not in value.lower() else None
        return value

    def _image(self, value: str) -> str | None:
        value = value.strip()
        if value[:4].lower() == "cid:":
            return self._inline(unquote(value[4:]))
        if _REMOTE.match(value):
            self.found += 1
            return value if self._remote else None
        match = _DATA_IMAGE.fullmatch(value)
        return value if match is not None and match[1].lower() in INLINE_IMAGES else None

    def _inline(self, content_id: str) -> str | None:
        part = self._content.by_content_id(content_id)
        if part is None or not part.is_image:
            return None
        if part.id not in self._images:
            if part.size > self._room:
                self.left_out += 1
                return None
            payload = self._content.payload(part.id) or b""
            self._images[part.id] = f"data:{part.content_type};base64,{b64encode(payload).decode('ascii')}"
        # Each use of an image counts: a thousand of one would be as long as a thousand images.
        if part.size > self._room:
            self.left_out += 1
            return None
        self._room -= part.size
        return self._images[part.id]


def _with_body_as_div(html: str) -> str:
    """HTML in which the attributes of the body are kept, which the cleaner would drop."""
    match = _BODY.search(html)
    if match is None:
        return html
    # What browsers have for a body, unless the message says something else.
    style = "margin:8px;min-height:100vh;"
    kept = ""
    for name, *values in _BODY_ATTRIBUTE.findall(match[1]):
        value = unescape("".join(values))
        if name.lower() in ("bgcolor", "text"):
            style += f"{_BODY_COLOURS[name.lower()]}:{re.sub('[^#a-zA-Z0-9]', '', value)};"
        elif name.lower() == "style":
            style += value
        else:
            kept += f' {name.lower()}="{escape(value)}"'
    return f'{html[: match.start()]}<div style="{escape(style)}"{kept}>{html[match.end() :]}'


class _Hidden:
    """Where tags may not be tags, but parts of comments, of values and of texts.

    :ivar until: the place up to which what looks like an end of an element need not be one.
    """

    def __init__(self, html: str) -> None:
        self._html = html
        self._found: dict[str, int] = {}
        self.until = 0

    def begin(self, mark: str, place: int) -> None:
        """Something begins that hides tags.

        :param mark: what it begins with: a quotation mark, the beginning of a comment, or the name of an element.
        :param place: where its content begins.
        """
        # What was found for an earlier place is right for this one, too; looking again for each would take too long.
        if place > self._found.get(mark, -1):
            end = re.compile(_ENDS.get(mark, f"</{mark}"), re.IGNORECASE | re.ASCII).search(self._html, place)
            self._found[mark] = len(self._html) if end is None else end.start()
        self.until = max(self.until, self._found[mark])


def takes_too_long(html: str) -> bool:
    """Whether a parser of HTML would need minutes, or gigabytes, for this.

    It follows the tags as a parser would at worst: a formatting element whose end is missing, or in a place where it
    may not count, counts as open to the end; what is in comments counts as well.

    :param html: the HTML.
    """
    hidden = _Hidden(html)
    opened: list[str] = []
    tags = formatting = most = depth = irregular = 0
    for match in _TAG.finditer(html):
        if match["hides"]:
            mark = match["hides"].upper()
            hidden.begin(mark[-1] if mark[0] == "=" else mark, match.end())
            continue
        tags += 1
        name = match["name"].lower()
        if not match["end"]:
            if name in _VOID:
                continue
            if opened and opened[-1] == name and name in _ENDS_ITSELF:
                opened.pop()
            opened.append(name)
            if name in _RAW:
                hidden.begin(name, match.end())
            depth = max(depth, len(opened))
            formatting += name in _FORMATTING
            most = max(most, formatting)
            if depth > _MAX_DEPTH:
                return True
            continue
        if match.start() < hidden.until:
            irregular += name in _FORMATTING
            continue
        while opened and opened[-1] != name and opened[-1] in _ENDS_BEFORE:
            opened.pop()
        if opened and opened[-1] == name:
            opened.pop()
            formatting -= name in _FORMATTING
        elif name in _FORMATTING:
            irregular += 1
        elif name in opened[-100:]:
            while opened[-1] != name:
                last = opened.pop()
                formatting -= last in _FORMATTING
                irregular += last in _FORMATTING
            opened.pop()
    return (most + irregular) * tags > _MAX_ELEMENTS or depth * tags > _MAX_SCOPES
