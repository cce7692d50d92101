"""What is computed once and shared by connections: limits, command table."""

from __future__ import annotations

import socket
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

from twisted_smtpd.auth.offer import mechanism_table
from twisted_smtpd.options.security import Security
from twisted_smtpd.options.table import DEFAULTS, OPTIONS, SMTPOptions, call_limits, check
from twisted_smtpd.runtime.awaiting import hook_names, takes_responses
from twisted_smtpd.runtime.connections import Connections

if TYPE_CHECKING:
    from twisted_smtpd.protocol.extensions import Extension

__all__ = ["RATE_WINDOW", "Command", "Settings", "settings_for"]

# Over how many seconds a client has to keep up min_data_rate.
RATE_WINDOW = 60.0

# What Command.at_once does without, where it is this package's own.
_SHORTENED = ("check_helo_needed", "check_auth_needed", "push", "_call_handler_hook")


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
        check(self.values)
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
        self.call_limits = call_limits(self.values["command_call_limit"])
        limits = (self.values["timeout"], self.values["session_timeout"], self.values["hook_timeout"], RATE_WINDOW)
        self.shortest_limit = min(*limits, *self.security.deadlines)
        # For protocols that are made by hand; a factory has its own.
        self.connections = Connections(self.values["clock"])


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
