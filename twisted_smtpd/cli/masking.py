"""Keeps secrets out of what is printed: of errors, and of ``--show-config``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from twisted_smtpd.cli.sources import Entry
from twisted_smtpd.logs.masking import HIDDEN

__all__ = ["shown_values", "without_secrets"]

# Options of handlers whose value is a secret; misspelled ones, too.
_SECRET = re.compile(r"pas+w|pass?phrase|secret|token|credential|api-?key", re.IGNORECASE)


def shown_values(entry: Entry) -> tuple[str, ...]:
    """The values of an option as they may be shown.

    :param entry: the option.
    """
    if entry.hidden:
        return (HIDDEN,)
    if entry.option.key == "handler":
        return (entry.values[0], *(shown for _, shown in _arguments(entry)))
    if entry.option.secret:
        return tuple(
            f"{kind}:{HIDDEN}" if colon else kind for kind, colon, _ in (v.partition(":") for v in entry.values)
        )
    return entry.values


def without_secrets(text: str, entries: Iterable[Entry]) -> str:
    """A text in which nothing is left of the options' secrets.

    :param text: the text.
    :param entries: the options that are set.
    """
    secrets = {secret for entry in entries for secret in _secrets(entry) if secret}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _secrets(entry: Entry) -> Iterator[str]:
    if entry.hidden:
        yield from entry.values
    elif entry.option.key == "handler":
        for word, shown in _arguments(entry):
            if word != shown:
                yield word.partition("=")[2] if word.startswith("-") else word
    elif entry.option.secret:
        yield from (value.partition(":")[2] for value in entry.values)


def _arguments(entry: Entry) -> Iterator[tuple[str, str]]:
    """The handler's arguments, each with what may be shown of it."""
    secret = False
    for word in entry.values[1:]:
        option, equals, _ = word.partition("=")
        if word.startswith("-"):
            # The name of a file is no secret.
            secret = bool(_SECRET.search(option)) and not option.endswith("-file")
            yield word, f"{option}={HIDDEN}" if secret and equals else word
            secret = secret and not equals
        else:
            yield word, HIDDEN if secret else _shown_url(word)
            secret = False


def _shown_url(word: str) -> str:
    """A word in which a URL is only its scheme and host: the rest may have a token or a password in it."""
    scheme, separator, _ = word.partition("://")
    if not separator or not scheme.isalpha():
        return word
    try:
        parts = urlsplit(word)
        host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return f"{scheme}://{HIDDEN}"
    rest = parts.path.strip("/") or parts.query or parts.username
    return f"{scheme}://{host}{f'/{HIDDEN}' if rest else ''}"
