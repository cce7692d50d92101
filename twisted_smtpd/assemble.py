"""Builds the settings of a class, a handler and options, which connections share."""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from importlib import import_module
from operator import attrgetter
from types import MemberDescriptorType
from typing import Any, NoReturn, cast

from twisted_smtpd.auth.offer import mechanism_table
from twisted_smtpd.options.option import SECONDS
from twisted_smtpd.options.security import Security
from twisted_smtpd.options.table import DEFAULTS, OPTIONS, TABLE, SMTPOptions, call_limits, check
from twisted_smtpd.protocol.chunking import reading_chunk
from twisted_smtpd.protocol.counting import counted
from twisted_smtpd.protocol.dispatch import Dispatch
from twisted_smtpd.protocol.envelope_extensions import ON_REQUEST
from twisted_smtpd.protocol.extensions import Extension
from twisted_smtpd.protocol.hooks import Hooks
from twisted_smtpd.protocol.settings import RATE_WINDOW, Command, CommandMethod, SharedSettings, ignore
from twisted_smtpd.protocol.states import TRANSACTION, Refusal, State, transaction_state, verdict
from twisted_smtpd.runtime.awaiting import hook_names, settle
from twisted_smtpd.runtime.connections import Connections
from twisted_smtpd.runtime.handler_check import check_handler, deprecated_data_hook
from twisted_smtpd.runtime.host_name import own_name
from twisted_smtpd.runtime.lost_overrides import OF_SERVERS, warn_of_lost_overrides
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["Settings", "settings_for"]

AUTH_NOT_OFFERED = Refusal(502, "5.5.1", "AUTH is not offered here")

# Where no network is trusted, these are unknown.
_OF_TRUSTED = frozenset({"XCLIENT", "XFORWARD"})
# Where the extension is not offered, its command is unknown.
_OF_EXTENSIONS = {"BDAT": "CHUNKING", "ETRN": "ETRN"}
# What needs no coroutine where no hook waits.
_SHORTENED = frozenset({"CONNECT", "HELO", "EHLO", "MAIL", "RCPT", "QUIT"})
# The commands that check_helo_needed() and check_auth_needed() decide about, where a class has its own ...
_NEED_HELO = frozenset({"MAIL", "RCPT", "DATA", "BDAT", "AUTH", "STARTTLS"})
_NEED_AUTH = frozenset({"MAIL", "RCPT", "DATA", "BDAT"})
# ... and those that call check_auth_needed() themselves, since they may come before HELO.
_ASK_BY_THEMSELVES = frozenset({"HELP", "VRFY", "EXPN"})


class Settings(SharedSettings):
    """What connections of one class, with one handler and the same options, share.

    A subclass may set an option as a class attribute; that value wins.

    :param cls: the protocol class.
    :param handler: the handler.
    :param options: see :class:`SMTPOptions`.
    :raises TypeError: for an option that does not exist, or a value of the wrong type.
    :raises ValueError: for a value out of bounds.
    """

    def __init__(self, cls: type[Dispatch], handler: object, options: SMTPOptions) -> None:
        unknown = sorted(set(options) - set(DEFAULTS))
        if unknown:
            raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {unknown[0]!r}")
        check_handler(handler)
        warn_of_lost_overrides(cls, OF_SERVERS)
        self.cls, self.handler, self.options = cls, handler, options
        values: dict[str, Any] = {**DEFAULTS, **_handler_values(handler), **options, **_class_values(cls)}
        for name in ("hostname", "ident"):
            if values[name] == "":
                values[name] = None
        check(values)
        for name, needed in cls.required_options.items():
            if values[name] != needed:
                raise ValueError(f"{cls.__name__} needs {name}={needed!r}, not {values[name]!r}")
        if values["hostname"] is None:
            values["hostname"] = own_name()
        if values["ident"] is None:
            # A class written for aiosmtpd may have its own.
            ident = cls.__ident__
            values["ident"] = ident if isinstance(ident, str) else cls.default_ident
        self.values = cast(SMTPOptions, values)
        self.own = tuple(values[name] for name in OPTIONS)
        # They are looked at for each connection, where dir() would take ten times as long.
        if hasattr(type(handler), "renew_hooks"):
            handler.renew_hooks()  # type: ignore[attr-defined]
        self._attributes = [found for one in _with_members(handler) for found in _attributes_of(one)]
        self._names = [*map(tuple, self._attributes)]
        self._called = _called(handler)
        self.hooks = {name: f"handle_{name}" for name in hook_names(handler)}
        self.deprecated_data_hook = deprecated_data_hook(handler)
        self.old_hooks = _old_hooks(cls)
        # A class with its own push(), or its own way to call hooks, may refuse what no hook does.
        has_a_say = cls._call_handler_hook is not Dispatch._call_handler_hook or _is_set_by(cls, "push")
        self.asked = frozenset(self.hooks) | (_SHORTENED if has_a_say else frozenset())
        self.call_limits = call_limits(values["command_call_limit"])
        self.security = Security(values, self.hooks)
        self.mechanisms = mechanism_table(cls, handler, values, self.hooks)
        self.binds_channels = any(name.endswith("-PLUS") for name in self.mechanisms)
        for creator in (self.security.starttls, self.security.implicit):
            if (choose := getattr(creator, "choose_engine", None)) is not None:
                choose(self.binds_channels)
        self.extensions, disabled = _chosen_extensions(cls, self)
        self.ehlo_state = _state_getter(self.extensions)
        self.ehlo_responses: dict[Hashable, str] = {}
        ignored = {name.upper(): ignore for name in values["ignore_parameters"] or ()}
        # Clients say AUTH=<> unasked; RFC 4954 section 5 would have it treated as if it were not there.
        self.mail_parameters = {"AUTH": ignore, **{k: e.refuse for e in disabled for k in e.mail_parameters}, **ignored}
        self.mail_parameters.update((k, p) for e in self.extensions for k, p in e.mail_parameters.items())
        self.rcpt_parameters = {**{k: e.refuse for e in disabled for k in e.rcpt_parameters}, **ignored}
        self.rcpt_parameters.update((k, p) for e in self.extensions for k, p in e.rcpt_parameters.items())
        self.exclusive = tuple(names for e in self.extensions for names in e.exclusive)
        self.commands = _commands(cls, self.extensions, self.security, self.values)
        self.dispatch = _dispatch(cls, self.commands, self.security, offers_auth=bool(self.mechanisms))
        own_commands = _own_commands(cls, self.commands)
        self.guarded = _dispatch(cls, own_commands, self.security, offers_auth=bool(self.mechanisms))
        limits = [command.size_limit for command in self.commands.values()]
        self.longest_command, self.fits_all = max(limits), min(limits) - len("\r\n")
        times = [value for option in TABLE.values() if option.unit == SECONDS and (value := values[option.name])]
        self.shortest_limit = min(RATE_WINDOW, *times, *self.security.deadlines)
        self.connections = Connections(values["clock"])
        self.lost_is_heard = cls.connection_lost is not Dispatch.connection_lost

    def connections_on(self, reactor: Any) -> Connections:
        """The connections of protocols that are made by hand and served by this reactor."""
        if self.values["clock"] is not None:
            return self.connections
        _last_used[reactor] = self
        found: dict[Any, Connections] = self.__dict__.setdefault("_on_reactors", {})
        if reactor not in found:
            found[reactor] = Connections(reactor)
        return found[reactor]

    def are_current(self) -> bool:
        """Whether the handler still has the hooks that it had.

        This is asked for each connection: a test may set a hook on a handler, or on its class, while the server runs.
        """
        names = [*map(tuple, self._attributes)]
        if names == self._names:
            return True
        # An attribute that is no hook is set and deleted at any time.
        if _called(self.handler) != self._called:
            return False
        self._names = names
        return True


def _with_members(handler: object) -> Iterator[object]:
    """A handler; and those of which it has its hooks, if it is a chain."""
    yield handler
    if hasattr(type(handler), "renew_hooks"):
        for member in handler.handlers:  # type: ignore[attr-defined]
            yield from _with_members(member)


def _attributes_of(handler: object) -> list[Mapping[str, Any]]:
    return [*map(vars, type(handler).__mro__[:-1]), getattr(handler, "__dict__", {})]


def _called(handler: object) -> list[str]:
    """The names of the methods that are called, if the handler has them; those of each member of a chain."""
    prefixes = ("handle_", "auth_", "process_message")
    return [name for one in _with_members(handler) for name in dir(one) if name.startswith(prefixes)]


def _old_hooks(cls: type[Any]) -> frozenset[str]:
    """The hooks of a class that aiosmtpd has deprecated; they are called all the same."""
    names = frozenset(name for name in ("ehlo_hook", "rset_hook") if hasattr(cls, name))
    for name in sorted(names):
        text = f"{cls.__qualname__}.{name}() is deprecated, write handle_{name[:4].upper()}() in the handler"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
    return names


def _handler_values(handler: object) -> Mapping[str, Any]:
    """What a handler that keeps messages, or prints them, would rather have than the defaults."""
    values = getattr(handler, "option_defaults", None)
    return {name: values[name] for name in DEFAULTS if name in values} if isinstance(values, Mapping) else {}


def _class_values(cls: type[Any]) -> dict[str, Any]:
    """The options that a class sets as attributes."""
    given = {name: getattr(cls, name) for name in DEFAULTS if hasattr(cls, name)}
    # SMTP has a default as an attribute, for programs that read it there.
    by_itself = {name: getattr(Hooks, name) for name in given if name in vars(Hooks)}
    return {
        name: value
        for name, value in given.items()
        if not isinstance(value, MemberDescriptorType) and (value != by_itself.get(name) or _is_set_by(cls, name))
    }


def _is_set_by(cls: type[Any], name: str) -> bool:
    """Whether a class of another package has this attribute."""
    return any(name in vars(base) for base in cls.__mro__ if not base.__module__.startswith("twisted_smtpd."))


def _state_getter(extensions: Iterable[Extension]) -> Callable[[Any], Hashable] | None:
    varies_with: set[str] = {"hostname"}
    for extension in extensions:
        if extension.varies_with is None:
            return None
        varies_with.update(extension.varies_with)
    return attrgetter(*sorted(varies_with))


def _extension(name: str) -> Any:
    """An extension by its name, or one of another package by its dotted path.

    :raises ValueError: if there is none.
    """
    if (extension := ON_REQUEST.get(name.upper())) is not None:
        return extension
    module, dot, attribute = name.rpartition(".")
    if not dot:
        raise ValueError(f"offer_extensions are of {', '.join(ON_REQUEST)}, or package.module.Name; not {name!r}")
    try:
        found = getattr(import_module(module), attribute)
        return found() if isinstance(found, type) else found
    # Importing a module, or making an object, may raise anything.
    except Exception as error:
        raise ValueError(f"offer_extensions: {name}: {type(error).__name__}: {error}") from error


def _chosen_extensions(cls: type[Dispatch], settings: Settings) -> tuple[tuple[Extension, ...], list[Extension]]:
    """The extensions that a server offers, and those that it has turned off.

    :raises TypeError: if one to be offered is neither a name nor an extension.
    :raises ValueError: for a name that is unknown, or of an extension that can't be turned off.
    """
    values = settings.values
    known = list(cls.extensions)
    for wanted in values["offer_extensions"] or ():
        extension = _extension(wanted) if isinstance(wanted, str) else wanted
        if not isinstance(extension, Extension):
            raise TypeError(f"an extension is a name or an Extension, not {wanted!r}")
        if all(extension is not other for other in known):
            known.append(extension)
    off = {name.upper() for name in values["disable_extensions"] or ()}
    able = sorted(extension.name for extension in known if extension.optional)
    if unable := sorted(off.difference(able)):
        raise ValueError(f"disable_extensions are of {', '.join(able)}; not {unable[0]!r}")
    off.update(extension.name for extension in known if off.intersection(extension.requires))
    disabled = [extension for extension in known if extension.name in off]
    return tuple(e for e in known if e not in disabled and e.in_use(settings)), disabled


def _commands(
    cls: type[Dispatch], extensions: Iterable[Extension], security: Security, values: SMTPOptions
) -> dict[str, Command]:
    """The verbs of a class, and of its extensions."""
    growth: Counter[str] = Counter()
    commands = {}
    for extension in extensions:
        growth.update(extension.growth)
    for extension in extensions:
        for verb, function in extension.commands.items():
            limit = cls.command_size_limit + growth[verb]
            commands[verb] = Command(_settled(function), limit, foreign=True)
    offered = {extension.name for extension in extensions}
    for name in dir(cls):
        verb = name[5:].upper()
        if not name.startswith("smtp_") or verb in cls.withheld_commands:
            continue
        method = getattr(cls, name)
        owner = next(base for base in cls.__mro__ if name in vars(base))
        foreign = not vars(owner).get("_own_commands", False)
        if verb in _OF_TRUSTED and security.xclients is None and not foreign:
            continue
        if verb in _OF_EXTENSIONS and _OF_EXTENSIONS[verb] not in offered and not foreign:
            continue
        limit = cls.command_size_limits.get(verb, cls.command_size_limit + growth[verb])
        method = _settled(method) if foreign else _unguarded(method)
        commands[verb] = Command(counted(verb, method, values), limit, foreign)
    return commands


def _own_commands(cls: type[Dispatch], commands: Mapping[str, Command]) -> dict[str, Command]:
    """This package's own commands, also those that a class overrides: it may call them by name."""
    own = {verb: command for verb, command in commands.items() if not command.foreign}
    for base in cls.__mro__:
        if "_own_commands" in vars(base):
            for name, method in vars(base).items():
                if name.startswith("smtp_"):
                    own.setdefault(name[5:].upper(), Command(_unguarded(method), cls.command_size_limit, False))
    return own


def _unguarded(method: CommandMethod) -> CommandMethod:
    """A command as the table of states calls it, which has let it through."""
    return getattr(method, "unguarded", method)


def _settled(method: Callable[..., Any]) -> CommandMethod:
    """A command of another package, which may await anything, be a plain function, or forget to reply."""

    @wraps(method)
    async def run(connection: Dispatch, argument: str | None) -> None:
        connection._no_reply_yet()
        result = await settle(method(connection, argument), connection.loop)
        connection._check_replied(method.__name__, result)

    return run


def _dispatch(
    cls: type[Dispatch], commands: Mapping[str, Command], security: Security, offers_auth: bool
) -> dict[State, dict[str, Command]]:
    """For each state, what each verb does: the table of states with the methods of a class."""
    states: dict[State, dict[str, Command]] = {
        state: {verb: _cell(command, verdict(state, verb, cls.states)) for verb, command in commands.items()}
        for state in State
    }
    needs_helo = set(_NEED_HELO & commands.keys())
    if "STARTTLS" in needs_helo and security.starttls is None:
        needs_helo.discard("STARTTLS")
        # smtp_STARTTLS itself says that STARTTLS is not available.
        states[State.NEW]["STARTTLS"] = commands["STARTTLS"]
    elif "STARTTLS" in needs_helo:
        states[State.CLEAR]["STARTTLS"] = _after_helo(commands["STARTTLS"], cls.states[State.NEW]["STARTTLS"])
    if "AUTH" in commands and not offers_auth:
        needs_helo.discard("AUTH")
        for state in (State.NEW, State.STRANGER, *TRANSACTION):
            states[state]["AUTH"] = _cell(commands["AUTH"], AUTH_NOT_OFFERED)
    if (
        cls.check_helo_needed is not Dispatch.check_helo_needed
        or cls.check_auth_needed is not Dispatch.check_auth_needed
    ):
        _ask_checks(states, commands, needs_helo)
    for state, cells in states.items():
        if "*" not in cls.states[state]:
            # A command of another package decides for itself.  Where it calls ours by name, that one asks the table.
            cells.update((verb, command) for verb, command in commands.items() if command.foreign)
        if (chunk := cells.get("BDAT")) is not None:
            cells["BDAT"] = replace(chunk, method=reading_chunk(chunk.method))
    return states


def _cell(command: Command, refusal: Refusal | None) -> Command:
    return command if refusal is None else Command(_refuse(refusal), command.size_limit, False)


def _refuse(refusal: Refusal) -> CommandMethod:
    def refuse(connection: Dispatch, argument: str | None) -> NoReturn:
        raise SMTPReplyError(refusal.code, refusal.enhanced, refusal.text)

    return refuse


def _after_helo(command: Command, refusal: Refusal | None) -> Command:
    """A command in CLEAR, where the client may have said HELO or not."""
    refused = _cell(command, refusal)

    def run(connection: Dispatch, argument: str | None) -> Awaitable[None]:
        return (command if connection.session.host_name else refused).method(connection, argument)

    return Command(run, command.size_limit, command.foreign)


def _ask_checks(states: dict[State, dict[str, Command]], commands: Mapping[str, Command], needs_helo: set[str]) -> None:
    """Call the checks that a class overrides, in place of the states that they stand for.

    :param needs_helo: the verbs of ``_NEED_HELO`` that are offered.
    """
    unchecked = {state: dict(verbs) for state, verbs in states.items()}

    def checked(verb: str) -> CommandMethod:
        async def run(connection: Dispatch, argument: str | None) -> None:
            if await settle(connection.check_helo_needed(), connection.loop):
                return
            if verb in _NEED_AUTH and await settle(connection.check_auth_needed(verb), connection.loop):
                return
            await unchecked[transaction_state(connection)][verb].method(connection, argument)

        return run

    for verb in needs_helo:
        for state in (State.NEW, State.STRANGER, *TRANSACTION, *((State.CLEAR,) if verb == "STARTTLS" else ())):
            states[state][verb] = Command(checked(verb), commands[verb].size_limit, commands[verb].foreign)
    for verb in _ASK_BY_THEMSELVES & commands.keys():
        states[State.STRANGER][verb] = commands[verb]


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple((name, _hashable(one)) for name, one in value.items())
    if isinstance(value, (list, set)) and value and all(isinstance(name, str) for name in value):
        # A program that makes the protocol of each connection may write a new list of names each time.
        return (type(value), *value)
    try:
        hash(value)
    except TypeError:
        # Anything else is known by its identity, which is safe, because the settings keep it alive.  Whether it is an
        # instance of Hashable does not tell: a tuple or a frozen dataclass may have a dict inside.
        return id(value)
    return cast(Hashable, value)


# Weak, so that settings (and with them the handler) live as long as a connection, a factory or a controller holds them.
_live: weakref.WeakValueDictionary[Hashable, Settings] = weakref.WeakValueDictionary()


# The settings of the last connection that came from asyncio, for each reactor: no factory holds them.
_last_used: weakref.WeakKeyDictionary[Any, Settings] = weakref.WeakKeyDictionary()


def settings_for(cls: type[Dispatch], handler: object, options: SMTPOptions) -> Settings:
    """The live settings of this class, handler and options, or new ones."""
    # Named tuples of different classes may be equal, but they don't let in the same clients.
    kinds = (type(options.get("authenticator")), type(options.get("auth_callback")))
    key: Hashable = (cls, id(handler), kinds, *options.items())
    try:
        settings = _live.get(key)
    except TypeError:
        key = (cls, id(handler), kinds, *((name, _hashable(value)) for name, value in options.items()))
        settings = _live.get(key)
    if settings is None:
        settings = _live[key] = Settings(cls, handler, options)
    elif not settings.are_current():
        before, settings = settings, Settings(cls, handler, options)
        # They count for one server.
        settings.connections = before.connections
        _live[key] = settings
    return settings
