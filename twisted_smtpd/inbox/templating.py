"""Templates of the pages: Jinja2, with everything escaped."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any
from zlib import crc32

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from twisted_smtpd.logs.escaping import peer_text
from twisted_smtpd.store.summary import Address

__all__ = ["age", "make_environment", "size"]

# Colours of tags and of the marks of senders; the styles have as many.
_HUES = 10
_URL = re.compile(r"https?://[^\s<>\"'\\^`{|}]{1,2000}", re.IGNORECASE)
_TRAILING = ".,;:!?*_)]"


def size(octets: int) -> str:
    """A size for people: ``"640 B"``, ``"12 KB"``, ``"3.4 MB"``.

    :param octets: the size.
    """
    if octets < 1000:
        return f"{octets} B"
    if octets < 1_000_000:
        return f"{octets / 1000:.1f} KB" if octets < 10_000 else f"{octets / 1000:.0f} KB"
    return f"{octets / 1_000_000:.1f} MB"


def age(moment: datetime, now: datetime | None = None) -> str:
    """How long ago something was, for people; after a day, the date.

    :param moment: when it was; aware.
    :param now: the time that it is; aware.
    """
    now = now or datetime.now(timezone.utc)
    seconds = (now - moment).total_seconds()
    if seconds < 60:
        return "now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 86400:
        return f"{int(seconds // 3600)} h"
    return f"{moment.day} {moment:%b}" + ("" if moment.year == now.year else f" {moment.year}")


def hue(text: str) -> int:
    """The number of the colour that stands for a text."""
    return crc32(text.encode("utf-8", "replace")) % _HUES


def initial(address: Address | None) -> str:
    """The letter that stands for a sender."""
    text = "" if address is None else address.name or address.address
    return next((char.upper()[0] for char in text if char.isalnum()), "?")


def with_links(text: str) -> Markup:
    """A text in which links can be followed."""
    pieces: list[Markup] = []
    last = 0
    for match in _URL.finditer(text):
        url = match[0].rstrip(_TRAILING)
        pieces += [
            escape(text[last : match.start()]),
            Markup('<a href="{0}" target="_blank" rel="noopener noreferrer nofollow">{0}</a>').format(url),
        ]
        last = match.start() + len(url)
    return Markup("").join([*pieces, escape(text[last:])])


def _template(name: str) -> str | None:
    file = files("twisted_smtpd.inbox") / "templates" / name
    return file.read_text(encoding="utf-8") if file.is_file() else None


def make_environment() -> Environment:
    """The templates; each is read once."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Any] = {"octets": size, "age": age, "hue": hue, "initial": initial}
    filters.update(with_links=with_links, peer=peer_text)
    environment.filters.update(filters)
    icons: Any = environment.get_template("icons.html").module
    environment.globals["icon"] = icons.icon
    return environment
