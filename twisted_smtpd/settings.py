"""What is computed once and shared by connections: limits, command table."""

from __future__ import annotations

import socket
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypedDict

from twisted.internet.interfaces import IReactorTime

from twisted_smtpd.auth.results import AuthCallbackType, AuthenticatorType
from twisted_smtpd.auth.table import mechanism_table
from twisted_smtpd.hooks import hook_names, takes_responses
from twisted_smtpd.networks import Network
from twisted_smtpd.security import Security
from twisted_smtpd.traffic import Traffic

if TYPE_CHECKING:
    from twisted_smtpd.extensions import Extension

__all__ = ["DEFAULTS", "Command", "SMTPOptions", "Settings", "settings_for"]

MIB = 2**20


class SMTPOptions(TypedDict, total=False):
    """The keyword arguments of :class:`twisted_smtpd.smtp.SMTP`, which documents them."""

    data_size_limit: int | None
    enable_SMTPUTF8: bool
    decode_data: bool
    hostname: str | None
    ident: str | None
    timeout: float
    command_call_limit: int | Mapping[str, int] | None
    line_length_limit: int | None
    max_recipients: int
    session_timeout: float
    min_data_rate: float
    max_errors: int
    max_connections: int
    max_connections_per_address: int
    max_buffered: int
    hook_timeout: float
    bare_newline: str
    enhanced_status_codes: bool
    tls_context: Any
    require_starttls: bool
    ssl_context: Any
    proxy_from: Iterable[Network] | None
    proxy_protocol_timeout: float | None
    xclient_from: Iterable[Network] | None
    auth_required: bool
    auth_require_tls: bool
    auth_mechanisms: Iterable[str] | None
    auth_exclude_mechanism: Iterable[str] | None
    auth_callback: AuthCallbackType | None
    authenticator: AuthenticatorType | None
    max_auth_failures: int
    loop: Any
    clock: IReactorTime | None


DEFAULTS = SMTPOptions(
    data_size_limit=32 * MIB,
    enable_SMTPUTF8=True,
    decode_data=False,
    hostname=None,
    ident=None,
    timeout=300,
    command_call_limit=None,
    line_length_limit=2000,
    max_recipients=1000,
    session_timeout=3600,
    min_data_rate=100,
    max_errors=10,
    max_connections=1000,
    max_connections_per_address=50,
    max_buffered=512 * MIB,
    hook_timeout=540,
    bare_newline="normalize",
    enhanced_status_codes=True,
    tls_context=None,
    require_starttls=False,
    ssl_context=None,
    proxy_from=None,
    proxy_protocol_timeout=None,
    xclient_from=None,
    auth_required=False,
    auth_require_tls=True,
    auth_mechanisms=None,
    auth_exclude_mechanism=None,
    auth_callback=None,
    authenticator=None,
    max_auth_failures=3,
    loop=None,
    clock=None,
)

#: The options that are attributes of a connection.
OPTIONS = tuple(name for name in DEFAULTS if name not in ("loop", "clock"))

# Over how many seconds a client has to keep up min_data_rate.
RATE_WINDOW = 60.0

_ABOVE_ZERO = (
    "timeout",
    "session_timeout",
    "hook_timeout",
    "max_recipients",
    "max_errors",
    "max_connections",
    "proxy_protocol_timeout",
    "max_auth_failures",
)
# What Command.at_once does without, where it is this package's own.
_SHORTENED = ("check_helo_needed", "check_auth_needed", "push", "_call_handler_hook")

_ZERO_OR_MORE = ("min_data_rate", "max_buffered", "data_size_limit", "line_length_limit", "max_connections_per_address")


@dataclass(frozen=True)
class Command:
    """One verb of the command table.

    :ivar method: the unbound ``smtp_VERB``.
    :ivar size_limit: octets of its command line, CRLF included, after EHLO.
    :ivar foreign: whether a subclass outside this package defined it: it may await anything.
    :ivar at_once: the unbound ``_begin_VERB`` that can be called instead, for a client that may send the command: it
        returns what is left to be awaited, or ``None``, which saves a coroutine where nothing is waited for.
    """

    method: Callable[..., Any]
    size_limit: int
    foreign: bool
    at_once: Callable[..., Any] | None


class Settings:
    """What connections of one class, with one handler and the same options, share.

    A subclass may set an option as a class attribute; that value wins.

    :param cls: the protocol class.
    :param handler: the handler.
    :param options: see :class:`SMTPOptions`.
    :raises TypeError: for an option that does not exist, or a value of the wrong type.
    :raises ValueError: for a value out of bounds.
    """

    def __init__(self, cls: type[Any], handler: object, options: SMTPOptions) -> None:
        unknown = sorted(set(options) - set(DEFAULTS))
        if unknown:
            raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {unknown[0]!r}")
        self.cls, self.handler, self.options = cls, handler, options
        self.values: dict[str, Any] = {**DEFAULTS, **options, **_class_values(cls)}
        _check(self.values)
        for name, needed in cls.required_options.items():
            if self.values[name] != needed:
                raise ValueError(f"{cls.__name__} needs {name}={needed!r}, not {self.values[name]!r}")
        if self.values["hostname"] is None:
            self.values["hostname"] = socket.getfqdn()
        if self.values["ident"] is None:
            self.values["ident"] = cls.default_ident
        #: What each connection has of its own, in the order of ``OPTIONS``.
        self.own = tuple(self.values[name] for name in OPTIONS)
        #: What the handler has for which hook: ``MAIL`` to ``handle_MAIL``.
        self.hooks = {name: f"handle_{name}" for name in hook_names(handler)}
        self.security = Security(self.values, self.hooks)
        self.ehlo_takes_responses = "EHLO" in self.hooks and takes_responses(handler.handle_EHLO)  # type: ignore[attr-defined]
        self.mechanisms = mechanism_table(cls, handler, self.values, self.hooks)
        self.extensions: tuple[Extension, ...] = tuple(e for e in cls.extensions if e.in_use(self))
        #: What the EHLO response depends on, and the responses; ``None`` where it has to be put together each time.
        self.ehlo_state = _state_getter(self.extensions)
        self.ehlo_responses: dict[Hashable, str] = {}
        self.mail_parameters = {k: p for e in self.extensions for k, p in e.mail_parameters.items()}
        self.rcpt_parameters = {k: p for e in self.extensions for k, p in e.rcpt_parameters.items()}
        # What a subclass outside this package has a say in, of what is done in a shorter way where nobody has.
        foreign = {name for name in _SHORTENED if _foreign(getattr(cls, name))}
        self.foreign_push = "push" in foreign
        self.foreign_hook_calls = "_call_handler_hook" in foreign
        self.commands = _command_table(cls, self.extensions, at_once=not foreign)
        self.longest_command = max(command.size_limit for command in self.commands.values())
        #: The hooks that are called, also where a subclass has a say in how.
        self.asked = set(self.hooks)
        if self.foreign_push or self.foreign_hook_calls:
            self.asked |= {"MAIL", "RCPT"}
        self.call_limits = _call_limits(self.values["command_call_limit"])
        limits = (self.values["timeout"], self.values["session_timeout"], self.values["hook_timeout"], RATE_WINDOW)
        self.shortest_limit = min(*limits, *self.security.deadlines)
        # For protocols that are made by hand; a factory has its own.
        self.traffic = Traffic(self.values["clock"])


def _class_values(cls: type[Any]) -> dict[str, Any]:
    """The options that a class sets as attributes."""
    given = {name: getattr(cls, name) for name in DEFAULTS if hasattr(cls, name)}
    return {name: value for name, value in given.items() if not isinstance(value, MemberDescriptorType)}


def _state_getter(extensions: Iterable[Extension]) -> Callable[[Any], Hashable] | None:
    varies_with: set[str] = {"hostname"}
    for extension in extensions:
        if extension.varies_with is None:
            return None
        varies_with.update(extension.varies_with)
    return attrgetter(*sorted(varies_with))


def _check(values: Mapping[str, Any]) -> None:
    for name in (*_ABOVE_ZERO, *_ZERO_OR_MORE):
        value = values[name]
        optional = DEFAULTS[name] is None or name in ("data_size_limit", "line_length_limit")  # type: ignore[literal-required]
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} is a number, not {value!r}")
        if value < 0 or (value == 0 and name in _ABOVE_ZERO):
            raise ValueError(f"{name} must be {'above 0' if name in _ABOVE_ZERO else '0 or more'}, not {value!r}")
    if values["bare_newline"] not in ("normalize", "reject"):
        raise ValueError(f'bare_newline is "normalize" or "reject", not {values["bare_newline"]!r}')


def _call_limits(limit: int | Mapping[str, int] | None) -> dict[str, int] | None:
    """``command_call_limit`` as verb to count; ``*`` is for those that are not named, 20 by default."""
    if limit is None:
        return None
    if isinstance(limit, Mapping):
        if not all(isinstance(count, int) for count in limit.values()):
            raise TypeError("each value of command_call_limit is an int")
        return {"*": 20, **limit}
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"command_call_limit is an int or a dict of verb to int, not {limit!r}")
    return {"*": limit}


def _command_table(cls: type[Any], extensions: Iterable[Extension], at_once: bool) -> dict[str, Command]:
    growth: Counter[str] = Counter()
    for extension in extensions:
        growth.update(extension.growth)
    table = {}
    for name in dir(cls):
        if name.startswith("smtp_") and name[5:].upper() not in cls.withheld_commands:
            verb, method = name[5:].upper(), getattr(cls, name)
            limit = cls.command_size_limits.get(verb, cls.command_size_limit + growth[verb])
            begin = getattr(cls, f"_begin_{verb}", None) if at_once and not _foreign(method) else None
            table[verb] = Command(method, limit, _foreign(method), begin)
    return table


def _foreign(method: Callable[..., Any]) -> bool:
    """Whether it was defined outside this package."""
    module = getattr(method, "__module__", None) or ""
    return module.partition(".")[0] != "twisted_smtpd"


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple(value.items())
    if isinstance(value, (list, set)) and value and all(isinstance(name, str) for name in value):
        # Written where each connection's protocol is made, a list of names is a new one each time.
        return (type(value), *value)
    # Anything else is told by its identity, which is safe: the settings keep it alive.
    return value if isinstance(value, Hashable) else id(value)


# Weak, so that settings (and with them the handler) live as long as a connection, a factory or a controller holds them.
_live: weakref.WeakValueDictionary[Hashable, Settings] = weakref.WeakValueDictionary()


def settings_for(cls: type[Any], handler: object, options: SMTPOptions) -> Settings:
    """The live settings of this class, handler and options, or new ones."""
    key: Hashable = (cls, id(handler), *options.items())
    try:
        settings = _live.get(key)
    except TypeError:
        key = (cls, id(handler), *((name, _hashable(value)) for name, value in options.items()))
        settings = _live.get(key)
    if settings is None:
        settings = _live[key] = Settings(cls, handler, options)
    return settings
