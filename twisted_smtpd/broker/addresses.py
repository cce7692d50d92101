"""Where the nodes of a broker are: AMQP URLs, whose passwords are never shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["ENVIRONMENT", "place_of", "read_urls"]

#: The environment variable that has the URLs, with blanks between them.
ENVIRONMENT = "AMQP_URL"

_SCHEMES = ("amqp", "amqps")


def place_of(url: str) -> str:
    """A URL as it may be shown: host and port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"


def read_urls(words: Iterable[str], path: str | None, environment: Mapping[str, str]) -> list[str]:
    """The URLs of the nodes, from the first source that has some.

    :param words: those of the command line.
    :param path: a file with a URL in each line; ``#`` begins a comment.
    :param environment: the environment, see :data:`ENVIRONMENT`.
    :raises ValueError: there are none, or one can't be used; the text shows no password.
    :raises OSError: the file can't be read.
    """
    urls = list(words)
    if path is not None:
        lines = (line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
        urls += [line for line in lines if line]
    if not urls:
        urls = environment.get(ENVIRONMENT, "").split()
    if not urls:
        raise ValueError(f"name a node: amqp://HOST, --url-file FILE, or the environment variable {ENVIRONMENT}")
    for number, url in enumerate(urls, 1):
        try:
            parts = urlsplit(url)
            usable = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"URL {number} is not amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://…")
    return urls
