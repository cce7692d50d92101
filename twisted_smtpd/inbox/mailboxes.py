"""Which mailboxes a message is for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from twisted_smtpd.logs.escaping import peer_text
from twisted_smtpd.store.messages import NewMessage
from twisted_smtpd.store.outline import outline

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Mailboxes", "Rule"]

# Mailboxes of a message, and characters of a name.
MAX_NAMES = 100
MAX_NAME = 200
# A token has to be as hard to guess as the one of --http-token.
MIN_TOKEN = 16

Facts = Callable[[NewMessage, Any], Iterator[str]]


def _recipients(message: NewMessage, server: Any) -> Iterator[str]:
    return (recipient.address.lower() for recipient in message.recipients)


def _domains(message: NewMessage, server: Any) -> Iterator[str]:
    return (address.rpartition("@")[2] for address in _recipients(message, server) if "@" in address)


def _tags(message: NewMessage, server: Any) -> Iterator[str]:
    """What stands between the first plus and the @ of each recipient."""
    locals_of = (address.rpartition("@")[0] for address in _recipients(message, server))
    return (tag for local in locals_of if (tag := local.partition("+")[2]))


def _users(message: NewMessage, server: Any) -> Iterator[str]:
    user = message.session.user
    return iter([] if user is None else [user])


def _listeners(message: NewMessage, server: Any) -> Iterator[str]:
    address = server.transport.getHost()
    if hasattr(address, "port"):
        yield peer_text((address.host, address.port))
        yield str(address.port)
    else:
        yield os.fsdecode(getattr(address, "name", None) or b"")


#: What rules and words of the option look at, by name.
_FACTS: dict[str, Facts] = {
    "recipient": _recipients,
    "domain": _domains,
    "tag": _tags,
    "user": _users,
    "listener": _listeners,
}


@dataclass(frozen=True)
class Rule:
    """A mailbox, and which messages are for it: those of which one line of the rule is true.

    :ivar name: the mailbox.
    :ivar patterns: what is looked at (``recipient``, ``domain``, ``tag``, ``user``, ``listener``) to patterns, in which
        ``*`` stands for any text; case does not matter.
    :ivar headers: name of a header to a pattern of its value.
    :ivar token: the token that opens this mailbox; ``None`` without one of its own.
    """

    name: str
    patterns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = field(default=None, repr=False)

    def fits(self, message: NewMessage, server: Any, headers: Callable[[str], Sequence[str]]) -> bool:
        """Whether a message is for this mailbox.

        :param headers: gives the values of a header.
        """
        return any(
            fnmatchcase(fact.casefold(), pattern)
            for kind, patterns in self.patterns.items()
            for fact in _FACTS[kind](message, server)
            for pattern in patterns
        ) or any(
            fnmatchcase(value.casefold(), pattern) for name, pattern in self.headers.items() for value in headers(name)
        )


class Mailboxes:
    """Says which mailboxes a message is for.

    :param rules: mailboxes with rules; a message is in all that fit.
    :param by: what names the mailboxes of a message that no rule takes: ``recipient``, ``domain``, ``tag``, ``user``,
        ``listener``, ``header:NAME``; empty for none.
    :param default: the mailbox of what is in no other.
    :raises ValueError: if something of that is not known.
    """

    def __init__(self, rules: Sequence[Rule] = (), by: str = "", default: str = "") -> None:
        if by and by not in _FACTS and not re.fullmatch(r"header:[!-9;-~]{1,100}", by):
            raise ValueError(f"{by!r} is neither a file nor one of {', '.join(_FACTS)}, header:NAME")
        self._rules, self._by, self._default = tuple(rules), by, default

    @property
    def tokens(self) -> dict[str, str | None]:
        """The tokens that open one mailbox: token to its name."""
        return {rule.token: rule.name for rule in self._rules if rule.token is not None}

    def names(self, message: NewMessage, server: Any) -> tuple[str, ...]:
        """The mailboxes of a message.

        :param message: the message.
        :param server: the connection through which it came.
        """
        read: list[Mapping[str, list[str]]] = []

        def headers(name: str) -> Sequence[str]:
            if not read:
                # Read when a rule asks for a header.
                read.append(outline(message.content).headers)
            return read[0].get(name.lower(), ())

        found = [rule.name for rule in self._rules if rule.fits(message, server, headers)]
        if not found and self._by:
            kind, _, header = self._by.partition(":")
            found = list(headers(header) if header else _FACTS[kind](message, server))
        names = dict.fromkeys(_name(name) for name in found[:MAX_NAMES])
        names.pop("", None)
        return tuple(names) or (self._default,)

    @classmethod
    def read(cls, text: str) -> Mailboxes:
        """What the option ``--mailboxes`` says: nothing, a word, or a file.

        :raises ValueError: if it is neither, or the file has mistakes.
        :raises OSError: if the file can't be read.
        """
        if not text.endswith(".toml"):
            return cls(by=text)
        with open(text, "rb") as file:
            try:
                settings = tomllib.load(file)
            except ValueError as error:
                raise ValueError(f"{text} is no TOML: {error}") from None
        try:
            return _from_settings(settings)
        except ValueError as error:
            raise ValueError(f"{text}: {error}") from None


def _name(text: str) -> str:
    """A name of a mailbox, made of what a client has said."""
    printable = "".join(letter for letter in text if letter.isprintable())
    return printable.encode("utf-8", "replace").decode().strip()[:MAX_NAME]


def _from_settings(settings: Mapping[str, Any]) -> Mailboxes:
    _check_keys(settings, {"mailbox", "others", "default"}, "the file")
    tables = settings.get("mailbox", [])
    if not isinstance(tables, list):
        raise ValueError("write [[mailbox]] for each mailbox, with two brackets")
    rules = [_rule(table) for table in tables]
    tokens = [rule.token for rule in rules if rule.token is not None]
    if len(tokens) != len(set(tokens)):
        raise ValueError("two mailboxes have the same token")
    return Mailboxes(rules, _text(settings, "others", ""), _text(settings, "default", ""))


def _rule(table: Any) -> Rule:
    if not isinstance(table, dict):
        raise ValueError("write [[mailbox]] for each mailbox, and name = and so on below")
    name = _text(table, "name", "")
    if not name or name != _name(name):
        raise ValueError("a [[mailbox]] has no name, or one with line ends")
    where = f"mailbox {name!r}"
    _check_keys(table, {"name", "header", "token", "token_file", *_FACTS}, where)
    patterns = {kind: _patterns(table[kind], where, kind) for kind in _FACTS if kind in table}
    headers = table.get("header", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError(f'{where}: write header = {{ "X-Name" = "pattern" }}')
    if not patterns and not headers:
        raise ValueError(f"{where} takes no messages: it needs {', '.join(_FACTS)} or header")
    token = _text(table, "token", "")
    if path := _text(table, "token_file", ""):
        with open(path, encoding="utf-8") as file:
            token = file.readline().strip()
    if (token or path) and len(token) < MIN_TOKEN:
        raise ValueError(f"{where}: a token has at least {MIN_TOKEN} characters")
    return Rule(name, patterns, {key: value.casefold() for key, value in headers.items()}, token or None)


def _patterns(value: Any, where: str, kind: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise ValueError(f'{where}: {kind} is a text or a list of texts, such as ["*@example.com"]')
    return tuple(one.casefold() for one in values)


def _text(table: Mapping[str, Any], key: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key} is a text")
    return value


def _check_keys(table: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(table) - known):
        raise ValueError(f"{where} has {', '.join(unknown)}, which is not known; known are {', '.join(sorted(known))}")
