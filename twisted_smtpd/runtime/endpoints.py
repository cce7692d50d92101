"""Endpoints from descriptions, without a search for plugins where Twisted itself has the kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser

from twisted_smtpd.runtime.plugins import find_plugins

__all__ = ["is_endpoint_type", "server_endpoint"]

# Those that serverFromString() knows by itself.
_BUILT_IN = frozenset({"tcp", "unix", "ssl"})


def _parsers_of_twisted() -> Iterator[Any]:
    # The module with Twisted's own plugins; to search for them would import those of all other packages.
    from twisted.plugins import twisted_core

    return (value for value in vars(twisted_core).values() if IStreamServerEndpointStringParser.providedBy(value))


def _parser(kind: str) -> Any:
    found = next((parser for parser in _parsers_of_twisted() if parser.prefix == kind), None)
    if found is None:
        plugins = find_plugins(IStreamServerEndpointStringParser)
        found = next((parser for parser in plugins if parser.prefix == kind), None)
    return found


def is_endpoint_type(kind: str) -> bool:
    """Whether a word is a kind of endpoint, and no name of a host.

    :param kind: what stands before the first colon.
    """
    if kind in _BUILT_IN:
        return True
    # A name with a dot is a host's, and so is localhost; others may be those of a plugin.
    return kind.isidentifier() and kind != "localhost" and _parser(kind) is not None


def server_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The endpoint for a description: ``serverFromString``, which writes no ``dropin.cache``.

    :param reactor: what listens.
    :param description: the description.
    :raises Exception: it is wrong; each kind of endpoint has errors of its own.
    """
    kind = description.partition(":")[0]
    if kind in _BUILT_IN:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
        return endpoint
    parser = _parser(kind)
    if parser is None:
        raise ValueError(f"Unknown endpoint type: {kind!r}")
    arguments, options = _split(description)
    endpoint = parser.parseStreamServer(reactor, *arguments[1:], **options)
    return endpoint


def _split(description: str) -> tuple[list[str], dict[str, str]]:
    """The arguments in a description: parts with colons between them, some ``name=value``; a backslash escapes."""
    arguments: list[str] = []
    options: dict[str, str] = {}
    name: str | None = None
    text = ""
    letters = iter(f"{description}:")
    for letter in letters:
        if letter == "\\":
            text += next(letters, "")
        elif letter == "=" and name is None:
            name, text = text, ""
        elif letter == ":":
            if name is None:
                arguments.append(text)
            else:
                options[name] = text
            name, text = None, ""
        else:
            text += letter
    if text or name is not None:
        raise ValueError("there is nothing behind the last backslash")
    return arguments, options
