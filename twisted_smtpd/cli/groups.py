"""The groups of command-line options that :mod:`twisted_smtpd.tap` puts together.

A group is a mixin: it has its own ``optFlags``, ``optParameters`` and ``opt_*`` methods, checks what belongs to it in
``postOptions`` (and calls ``super()``), and adds its keyword arguments for the server in ``server_options``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins
from twisted.python import usage

from twisted_smtpd.handlers.registry import HandlerError, handler_names, make_handler
from twisted_smtpd.options.table import DEFAULTS

__all__ = [
    "HandlerOptions",
    "LimitOptions",
    "ListenOptions",
    "Listener",
    "OptionGroup",
    "Quantity",
    "ServerOptions",
    "count",
    "line_octets",
    "octets",
    "seconds",
]

DEFAULT_PORT = 8025
LOOPBACK = ("127.0.0.1", "::1")
DAY = 86400

_SIZE = re.compile(r"([0-9]{1,15})(?:([KMG])(?:I?B)?)?", re.ASCII | re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,15}", re.ASCII)
_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}

# HOST:PORT, [IPv6]:PORT, :PORT, PORT and HOST, where a host has no colon unless it is in brackets.
_WHERE = re.compile(r"(?:\[(?P<literal>[^\[\]\\]*)\]|(?P<host>[^:\[\]/=\\]*?))(?:(?:^|:)(?P<port>[0-9]+))?", re.ASCII)
_NAME = re.compile(r"[!-~]{1,255}", re.ASCII)
_TEXT = re.compile(r"[ -~]{1,400}", re.ASCII)


def octets(text: str) -> int:
    """A number of octets: ``1000``, ``10K``, ``32M``, ``32MiB`` (a K is 1024).

    :raises ValueError: it isn't one; the error says what is.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("a size in octets, such as 50000, 500K, 10M or 1G")
    return int(match[1]) * _FACTORS[(match[2] or "").upper()]


def line_octets(text: str) -> int:
    """A limit on lines: what RFC 5321 section 4.5.3.1.6 grants every line, or more; or 0.

    :raises ValueError: it isn't one; the error says what is.
    """
    value = octets(text)
    if 0 < value < 1000:
        raise ValueError("0 or at least 1000 octets, the CRLF included (RFC 5321 section 4.5.3.1.6)")
    return value


def seconds(text: str) -> float:
    """A time in seconds: ``30`` or ``0.5``.

    :raises ValueError: it isn't one; the error says what is.
    """
    if _SECONDS.fullmatch(text) is None:
        raise ValueError("a number of seconds, such as 30 or 0.5")
    return float(text)


def count(text: str) -> int:
    """A whole number.

    :raises ValueError: it isn't one; the error says what is.
    """
    if _COUNT.fullmatch(text) is None:
        raise ValueError("a whole number")
    return int(text)


@dataclass(frozen=True)
class Quantity:
    """A numeric option of the server.

    :ivar option: its name on the command line, without the dashes.
    :ivar keyword: the server's keyword argument.
    :ivar parse: :func:`octets`, :func:`line_octets`, :func:`seconds` or :func:`count`.
    :ivar low: the least value allowed.
    :ivar high: the greatest value allowed.
    :ivar description: one line for ``--help``.
    :ivar short: its one-letter name, if it has one.
    """

    option: str
    keyword: str
    parse: Callable[[str], float]
    low: float
    high: float
    description: str
    short: str | None = None

    def __call__(self, text: str) -> float:
        """Read what the command line says.

        :raises usage.UsageError: it isn't such a quantity, or out of bounds; names the option and the value.
        """
        try:
            value = self.parse(text)
        except ValueError as error:
            raise usage.UsageError(f"--{self.option}: {text!r} is not {error}") from None
        if not self.low <= value <= self.high:
            raise usage.UsageError(f"--{self.option}: {text!r} is not between {self.low:,} and {self.high:,}")
        return value

    def parameter(self) -> list[Any]:
        """The row for ``optParameters``: its value stays ``None`` unless it is given, the server knows the default."""
        default = DEFAULTS.get(self.keyword)
        shown = f"{default // 2**20}M" if isinstance(default, int) and default >= 2**20 else default or "no limit"
        return [self.option, self.short, None, f"{self.description} [default: {shown}]", self]


LIMITS = (
    Quantity("size", "data_size_limit", octets, 0, 2**40, "Largest message, such as 10M; 0: any size.", "s"),
    Quantity("line-length-limit", "line_length_limit", line_octets, 0, 2**30, "Longest line of a message; 0: any."),
    Quantity("max-recipients", "max_recipients", count, 1, 10**6, "Recipients of one message."),
    Quantity("timeout", "timeout", seconds, 0.1, DAY, "Seconds a client may stay silent."),
    Quantity("session-timeout", "session_timeout", seconds, 0.1, 7 * DAY, "Seconds a session may last."),
    Quantity("min-data-rate", "min_data_rate", octets, 0, 2**30, "Octets a second at which a message must arrive."),
    Quantity("max-errors", "max_errors", count, 1, 10**6, "Errors before a client is cut off."),
    Quantity("max-auth-failures", "max_auth_failures", count, 1, 10**6, "Wrong passwords before a client is cut off."),
    Quantity("max-connections", "max_connections", count, 1, 10**6, "Clients at a time."),
    Quantity("max-connections-per-address", "max_connections_per_address", count, 0, 10**6, "The same per address."),
    Quantity("max-buffered", "max_buffered", octets, 2**16, 2**44, "Octets held for all messages in progress."),
    Quantity("hook-timeout", "hook_timeout", seconds, 0.1, DAY, "Seconds the handler may take for one step."),
    Quantity("command-call-limit", "command_call_limit", count, 1, 10**9, "Calls of each command in one session."),
)


class OptionGroup(usage.Options):
    """What the groups share."""

    @property
    def supervising(self) -> bool:
        """Whether this process only has others serve."""
        return False

    def server_options(self) -> dict[str, Any]:
        """The keyword arguments for the server that the options ask for; a default is left to the server."""
        return {}


class LimitOptions(OptionGroup):
    """An option for each limit."""

    optParameters: ClassVar[list[list[Any]]] = [limit.parameter() for limit in LIMITS]

    def server_options(self) -> dict[str, Any]:
        given = {limit.keyword: self[limit.option] for limit in LIMITS if self[limit.option] is not None}
        return {**super().server_options(), **given}


class ServerOptions(OptionGroup):
    """How the server presents itself and what it accepts."""

    optFlags: ClassVar[list[list[str | None]]] = [
        ["smtputf8", "u", "Offer SMTPUTF8 (the default; for command lines written for aiosmtpd)."],
        ["no-smtputf8", None, "Don't offer SMTPUTF8: addresses and headers in ASCII only."],
        ["no-enhanced-status-codes", None, "Replies without enhanced status codes."],
        ["lmtp", None, "Speak LMTP instead of SMTP: an answer for each recipient, to a mail server in front."],
        ["decode-data", None, "Give the handler the message as str instead of bytes."],
    ]
    optParameters: ClassVar[list[list[Any]]] = [
        ["hostname", None, None, "The server's name in greeting and replies (default: this machine's full name)."],
        ["ident", None, None, "The software's name in the greeting."],
        ["bare-newline", None, "normalize", "A bare CR or LF in a message: normalize (make it CRLF) or reject."],
    ]

    def postOptions(self) -> None:
        super().postOptions()
        if self["smtputf8"] and self["no-smtputf8"]:
            raise usage.UsageError("--smtputf8 and --no-smtputf8 contradict each other")
        if self["lmtp"] and self["no-enhanced-status-codes"]:
            raise usage.UsageError("--no-enhanced-status-codes: LMTP has to have them")
        if self["hostname"] is not None and not _NAME.fullmatch(self["hostname"]):
            raise usage.UsageError(f"--hostname: {self['hostname']!r} is not a host name")
        if self["ident"] is not None and not _TEXT.fullmatch(self["ident"]):
            raise usage.UsageError(f"--ident: {self['ident']!r} is not printable ASCII of at most 400 characters")
        if self["bare-newline"] not in ("normalize", "reject"):
            raise usage.UsageError(f"--bare-newline: {self['bare-newline']!r} is neither 'normalize' nor 'reject'")

    def server_options(self) -> dict[str, Any]:
        named = {name: self[name] for name in ("hostname", "ident") if self[name] is not None}
        return {
            **super().server_options(),
            **named,
            "enable_SMTPUTF8": not self["no-smtputf8"],
            "enhanced_status_codes": not self["no-enhanced-status-codes"],
            "decode_data": bool(self["decode-data"]),
            "bare_newline": self["bare-newline"],
        }


class HandlerOptions(OptionGroup):
    """Which handler decides what happens to the mail.

    :ivar handler: the handler, once the options are parsed.
    """

    handler: object
    arguments: Sequence[str] = ()

    optParameters: ClassVar[list[list[Any]]] = [
        ["class", "c", "debugging", "Handler: a name (see --help-handlers) or a dotted path, package.module.Class."],
    ]

    def opt_help_handlers(self) -> NoReturn:
        """List the handlers that have a name, and exit."""
        names = handler_names()
        width = max(len(name) for name, _ in names)
        for name, summary in names:
            print(f"{name:{width}}  {summary}")
        sys.exit(0)

    def parseArgs(self, *arguments: str) -> None:
        self.arguments = arguments

    def postOptions(self) -> None:
        super().postOptions()
        if self.supervising:
            return
        # `twist` is a script in another folder, and a handler in the folder it is started from must be found.
        # At the end of the path, so that a file lying there can't take the place of an installed module.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            self.handler = make_handler(self["class"], self.arguments)
        except HandlerError as error:
            raise usage.UsageError(str(error)) from error


GRACE = Quantity("grace", "grace", seconds, 0, 3600, "")


@dataclass(frozen=True)
class Listener:
    """A place to listen.

    :ivar name: the place as a person would write it.
    :ivar endpoint: the same as an endpoint.
    :ivar optional: whether a machine that lacks this address family may go without.
    :ivar tls: makes the TLS connections, where TLS comes first; ``None`` where it does not, or the endpoint sees to it.
    """

    name: str
    endpoint: IStreamServerEndpoint
    optional: bool = False
    tls: IOpenSSLServerConnectionCreator | None = None

    @property
    def secure(self) -> bool:
        """Whether TLS comes first."""
        return self.tls is not None or self.name.startswith(("ssl:", "tls:"))


def _endpoint_types() -> set[str]:
    return {"tcp", "ssl", "unix", *(parser.prefix for parser in getPlugins(IStreamServerEndpointStringParser))}


def _places(option: str, where: str) -> list[tuple[str, str, bool]]:
    """The name and the endpoint description of each place in what ``--listen`` says, and whether it is optional."""
    match = _WHERE.fullmatch(where)
    if match is None or not where or where.partition(":")[0] in _endpoint_types():
        return [(where, where, False)]
    port = int(match["port"] or DEFAULT_PORT)
    if port > 65535:
        raise usage.UsageError(f"--{option}: {where!r}: a port is a number up to 65535")
    host = match["literal"] if match["literal"] is not None else match["host"]
    if host in ("", "localhost"):
        return [(*_tcp(address, port), ":" in address) for address in LOOPBACK]
    return [(*_tcp(host, port), False)]


def _tcp(host: str, port: int) -> tuple[str, str]:
    if ":" in host:
        escaped = host.replace(":", "\\:")
        return f"[{host}]:{port}", f"tcp6:{port}:interface={escaped}"
    return f"{host}:{port}", f"tcp:{port}:interface={host}"


class ListenOptions(OptionGroup):
    """Where the server listens.

    :param reactor: what listens; by default the global reactor, looked up when the options are parsed.
    :ivar listeners: the places, once the options are parsed.
    """

    listeners: Sequence[Listener] = ()

    optParameters: ClassVar[list[list[Any]]] = [
        ["grace", None, 10.0, "Seconds that messages in progress get at shutdown.", GRACE],
    ]

    def __init__(self, reactor: Any = None) -> None:
        super().__init__()
        self.reactor = reactor
        self._where: list[str] = []

    def opt_listen(self, where: str) -> None:
        """HOST:PORT, [IPv6]:PORT, PORT (of the loopback) or a Twisted endpoint description; may be repeated."""
        self._where.append(where)

    opt_l = opt_listen

    @property
    def default_places(self) -> list[str]:
        """Where to listen if nothing is said about it."""
        return [f"localhost:{DEFAULT_PORT}"]

    def postOptions(self) -> None:
        super().postOptions()
        self.listeners = self.places("listen", self._where or self.default_places)

    def places(self, option: str, wheres: Sequence[str]) -> list[Listener]:
        """The places that some words name.

        :param option: the option they were given to, without its dashes.
        :raises usage.UsageError: if one names none.
        """
        return [
            Listener(name, self._endpoint(option, where, description), optional)
            for where in wheres
            for name, description, optional in _places(option, where)
        ]

    def listening_reactor(self, option: str) -> Any:
        """What the places given to an option are listened on with."""
        if self.reactor is None:
            from twisted.internet import reactor

            self.reactor = reactor
        return self.reactor

    def _endpoint(self, option: str, where: str, description: str) -> IStreamServerEndpoint:
        try:
            endpoint: IStreamServerEndpoint = serverFromString(self.listening_reactor(option), description)
        except Exception as error:  # each endpoint type has a parser of its own, with errors of its own
            reason = f"{type(error).__name__}: {error}"
            raise usage.UsageError(
                f"--{option}: {where!r} is neither HOST:PORT nor an endpoint description: {reason}"
            ) from None
        return endpoint
