"""The arguments of the inbox on the command line."""

from __future__ import annotations

import re
import secrets
import shlex
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeVar

from twisted.logger import Logger
from twisted.python.usage import UsageError

from twisted_smtpd.inbox.settings import LOOPBACK_NAMES
from twisted_smtpd.options.quantities import count, octets
from twisted_smtpd.runtime.endpoints import server_endpoint
from twisted_smtpd.runtime.listeners import Listener, UmaskEndpoint
from twisted_smtpd.runtime.places import Place, places_of

__all__ = ["DEFAULT_HTTP", "Arguments", "listeners_of", "parse_arguments"]

log = Logger()

DEFAULT_HTTP = "127.0.0.1:8026"
#: Messages that a file keeps, unless it is told otherwise.
MAX_MESSAGES = 100_000
# A token that is given has to be as hard to guess.
MIN_TOKEN = 16

_AGE = re.compile(r"(\d{1,6})([smhdw]?)", re.ASCII)
_AGE_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LOOPBACK = re.compile(r"127\.|::1$|localhost$")
T = TypeVar("T")


@dataclass(frozen=True)
class Arguments:
    """What the command line says.

    :ivar http: where the page is: ``HOST:PORT`` or an endpoint description.
    :ivar store: the file with the messages; ``None`` for a temporary one.
    :ivar max_messages: how many messages are kept; 0 for any number, ``None`` for 500 or 100,000.
    :ivar max_age: seconds for which a message is kept; 0 keeps it forever.
    :ivar max_size: octets that all messages may have together; 0 for any number.
    :ivar mailboxes: a word or a file, see :class:`~twisted_smtpd.inbox.mailboxes.Mailboxes`; empty for one mailbox.
    :ivar users: user to password for the page.
    :ivar tokens: bearer tokens that open all mailboxes.
    :ivar http_hosts: names of the page's host beside those of loopback.
    :ivar base: the path below which the page is.
    :ivar title: its title.
    :ivar release: the arguments of the handler ``proxy`` for the host to which messages may be sent on.
    :ivar check_links: whether links in messages may be asked for.
    :ivar trust_programs: whether programs may send, release and set failures without a token.
    """

    http: str = DEFAULT_HTTP
    store: str | None = None
    max_messages: int | None = None
    max_age: float = 0
    max_size: int = 0
    mailboxes: str = ""
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: tuple[str, ...] = field(default=(), repr=False)
    http_hosts: frozenset[str] = LOOPBACK_NAMES
    base: str = ""
    title: str = "Inbox"
    release: tuple[str, ...] = ()
    check_links: bool = False
    trust_programs: bool = False


def parse_arguments(parser: ArgumentParser, words: Sequence[str]) -> Arguments:
    """Read the arguments.

    :param parser: says what is wrong with them.
    :param words: the arguments.
    :raises ValueError: if something is wrong that the parser does not see.
    """
    if missing := [name for name in ("jinja2", "nh3") if find_spec(name) is None]:
        raise ValueError(f"{' and '.join(missing)} missing: pip install 'twisted-smtpd[inbox]'")
    for name, text in _HELP.items():
        extra: dict[str, Any] = {"action": "append"} if name == "http-host" else {}
        if name in _SWITCHES:
            extra = {"action": "store_true"}
        parser.add_argument(f"--{name}", help=text, **extra)
    given = parser.parse_args(list(words))
    is_file = given.store is not None
    http = given.http or DEFAULT_HTTP
    arguments = Arguments(
        http=http,
        store=given.store,
        max_messages=_read("max-messages", given.max_messages, count, MAX_MESSAGES if is_file else None),
        max_age=_read("max-age", given.max_age, age, 0),
        max_size=_read("max-size", given.max_size, octets, 0),
        mailboxes=given.mailboxes or "",
        users=_users(given.http_password_file),
        tokens=_tokens(given.http_token),
        http_hosts=LOOPBACK_NAMES | {name.lower().rstrip(".") for name in given.http_host or ()},
        base=_base(given.http_path),
        title=given.title or "Inbox",
        release=tuple(shlex.split(given.release or "")),
        check_links=given.check_links,
        trust_programs=given.http_trust_programs,
    )
    if arguments.trust_programs and (arguments.users or arguments.tokens):
        raise ValueError("--http-trust-programs: not with a password or a token, which programs have to show then")
    if not (arguments.users or arguments.tokens) and not all(map(_is_loopback, _places(http))):
        raise ValueError(f"--http {http}: not without --http-password-file or --http-token, as others can reach it")
    return arguments


_HELP = {
    "http": f"where the page is (default {DEFAULT_HTTP})",
    "store": "the file that keeps the messages (default a temporary one)",
    "max-messages": f"keep so many messages, 0 for any number (default 500; {MAX_MESSAGES} with --store)",
    "max-age": "keep messages for so long: 90s, 30m, 12h, 7d (default forever)",
    "max-size": "keep so many octets of messages: 500M, 2G (default any number)",
    "mailboxes": "recipient, domain, tag, user, listener, header:NAME, or a TOML file with rules",
    "http-password-file": "a file with lines USER:PASSWORD for the page",
    "http-token": "a token for the page and the API, file:PATH to read it, auto to make one and log it",
    "http-host": "a name under which browsers reach the page, beside localhost; repeatable",
    "http-path": "the path below which the page is, such as /inbox",
    "http-trust-programs": "programs on this machine may send, release and set failures without a token",
    "title": "the title of the page",
    "release": "'HOST:PORT [--tls starttls …]': the host to which messages may be sent on; as for the handler proxy",
    "check-links": "let people have links in messages checked, which asks web servers",
}
_SWITCHES = frozenset({"check-links", "http-trust-programs"})


def _read(name: str, text: str | None, read: Any, default: Any) -> Any:
    if text is None:
        return default
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"--{name}: {text!r} is not {error}") from None


def age(text: str) -> float:
    """A time: ``90``, ``90s``, ``30m``, ``12h``, ``7d`` or ``2w``.

    :raises ValueError: it isn't one; the error says what is.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError("a time, such as 90s, 30m, 12h or 7d")
    return float(match[1]) * _AGE_UNITS[match[2]]


def _users(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    users: dict[str, str] = {}
    with open(path, encoding="utf-8") as file:
        for line in filter(None, map(str.strip, file)):
            user, colon, password = line.partition(":")
            if not colon or not user or not password:
                # The line is not repeated: it may be a password.
                raise ValueError(f"--http-password-file: {path}: a line is not USER:PASSWORD")
            users[user] = password
    if not users:
        raise ValueError(f"--http-password-file: {path} has no line USER:PASSWORD")
    return users


def _tokens(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    if text == "auto":
        token = secrets.token_urlsafe(24)
        # Once, and here only: it is how the user gets to know it.
        log.warn("--http-token auto: the token is {token}", token=token)
        return (token,)
    if text.startswith("file:"):
        with open(text.removeprefix("file:"), encoding="utf-8") as file:
            text = file.readline().strip()
    if len(text) < MIN_TOKEN:
        raise ValueError(f"--http-token: a token has at least {MIN_TOKEN} characters; auto makes one")
    return (text,)


def _base(path: str | None) -> str:
    base = (path or "").rstrip("/")
    if base and re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", base) is None:
        raise ValueError(f"--http-path: {path!r} is not a path such as /inbox")
    return base


# -- where the page is -------------------------------------------------------------------------------------------------


def _places(http: str) -> list[Place]:
    try:
        return places_of("http", http)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _is_loopback(place: Place) -> bool:
    """Whether only this machine reaches a place."""
    if place.description.startswith("unix:"):
        return True
    match = re.search(r":interface=(.*)$", place.description)
    return match is not None and _LOOPBACK.match(match[1].replace("\\", "")) is not None


def listeners_of(http: str, reactor: Any) -> list[Listener]:
    """The places where the page is.

    :param http: the option's value.
    :param reactor: what listens.
    :raises ValueError: if it is no place.
    """
    found: list[Listener] = []
    for place in _places(http):
        try:
            endpoint = UmaskEndpoint.for_description(reactor, place.description)
            found.append(Listener(place.name, endpoint or server_endpoint(reactor, place.description), place.optional))
        except Exception as error:
            raise ValueError(f"--http: {http!r} is neither HOST:PORT nor an endpoint description: {error}") from None
    return found
