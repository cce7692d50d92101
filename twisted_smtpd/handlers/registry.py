"""Handlers by name, for the command line."""

from __future__ import annotations

import inspect
import sys
import traceback
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from twisted_smtpd.interfaces import IHandlerPlugin
from twisted_smtpd.runtime.handler_check import faults, note_checked
from twisted_smtpd.runtime.plugins import find_plugins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "HandlerError",
    "HandlerPlugin",
    "built_in_handlers",
    "handler_names",
    "is_handler",
    "make_handler",
    "nearest_name",
]

log = Logger()


class HandlerError(ValueError):
    """A handler can't be made of what the command line says; the text is one line for the user."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


@implementer(IPlugin, IHandlerPlugin)
@dataclass(frozen=True)
class HandlerPlugin:
    """A handler's name, given by another package in a module of its own under ``twisted/plugins/``.

    :param name: the name, a word.
    :param summary: what the handler does, and its arguments, in a line.
    :param handler: its class, or its dotted path.
    :param takes_the_rest: whether its arguments may have a ``+``: what follows is its own, also in a chain.
    :param alone: why several processes can't run it, to go on "--workers: not with …"; empty if they can.
    """

    name: str
    summary: str
    handler: str | Callable[..., Any]
    takes_the_rest: bool = False
    alone: str = ""


_BUILT_IN = (
    HandlerPlugin(
        "amqp",
        "puts each message into RabbitMQ for `twisted-smtpd consume` URL ... [-- --url-file FILE --queue NAME ...]",
        "twisted_smtpd.broker.handler:AMQP",
    ),
    HandlerPlugin(
        "chain", "asks handlers in turn [HANDLER ARGUMENTS + HANDLER ...]", "twisted_smtpd.handlers.chain:Chain"
    ),
    HandlerPlugin(
        "console",
        "prints each message for people [stdout|stderr] [-- --raw]",
        "twisted_smtpd.handlers.console:Console",
    ),
    HandlerPlugin(
        "debugging",
        "prints each message with its envelope [stdout|stderr]",
        "twisted_smtpd.handlers.debugging:Debugging",
    ),
    HandlerPlugin(
        "inbox",
        "keeps messages and shows them in the browser [-- --http HOST:PORT --store FILE ...]",
        "twisted_smtpd.inbox.handler:Inbox",
        alone="an inbox, whose messages and page belong to one process",
    ),
    HandlerPlugin(
        "limits",
        "limits each client at several servers together, in redis://HOST [-- --connections N --messages N ...]",
        "twisted_smtpd.handlers.shared_limits:SharedLimits",
    ),
    HandlerPlugin("mailbox", "stores each message in a Maildir FOLDER", "twisted_smtpd.handlers.maildir:Mailbox"),
    HandlerPlugin(
        "proxy",
        "forwards to HOST:PORT or an ENDPOINT [-- --lmtp --tls starttls|implicit --username ...]",
        "twisted_smtpd.handlers.proxy:Proxy",
    ),
    HandlerPlugin(
        "queue",
        "queues each message in FOLDER, and has others deliver it [FOLDER + HANDLER ARGUMENTS + HANDLER ...]",
        "twisted_smtpd.queue.handler:Queue",
        takes_the_rest=True,
        alone="a queue, whose folder belongs to one process",
    ),
    HandlerPlugin(
        "recipients",
        "refuses recipients that are not listed in file:PATH, regex:PATTERN or https://… [-- --refuse ...]",
        "twisted_smtpd.handlers.listed:Recipients",
    ),
    HandlerPlugin(
        "senders",
        "refuses senders that are not listed in file:PATH, regex:PATTERN or https://… [-- --refuse ...]",
        "twisted_smtpd.handlers.listed:Senders",
    ),
    HandlerPlugin("sink", "accepts each message and throws it away", "twisted_smtpd.handlers.sink:Sink"),
    HandlerPlugin(
        "webhook", "posts each message as JSON to URL [-- --secret-file FILE]", "twisted_smtpd.handlers.webhook:Webhook"
    ),
)


# Modules that come with an extra of this package.
_EXTRAS = {"pika": "amqp"}


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise HandlerError(f"{self.prog}: {message}")


def _registered() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for plugin in (*_BUILT_IN, *find_plugins(IHandlerPlugin)):
        found.setdefault(plugin.name, plugin)
    return found


def built_in_handlers() -> list[tuple[str, str]]:
    """Name and summary of each handler that comes with this package."""
    return [(plugin.name, plugin.summary) for plugin in _BUILT_IN]


def handler_names() -> list[tuple[str, str]]:
    """The names ``-c`` knows besides dotted paths.

    :returns: name and summary of each: the built-in ones, then what plugins of other packages register.
    """
    return [(name, plugin.summary) for name, plugin in _registered().items()]


def is_handler(name: str) -> bool:
    """Whether this is the name of a handler, or the dotted path of a class."""
    if "." in name or ":" in name:
        try:
            return isinstance(_import(name, name), type)
        except HandlerError:
            return False
    return any(plugin.name == name for plugin in _BUILT_IN) or name in _registered()


def takes_the_rest(name: str) -> bool:
    """Whether all that follows a handler's name, further handlers too, is its own."""
    # One of another package need not have the attribute.
    return any(plugin.name == name and getattr(plugin, "takes_the_rest", False) for plugin in _registered().values())


def runs_alone(name: str) -> str:
    """Why a handler can't be run by several processes; empty if it can.

    :param name: its name.
    """
    return next((plugin.alone for plugin in _BUILT_IN if plugin.name == name), "")


def nearest_name(name: str) -> str | None:
    """The name of a handler that a misspelled one was meant for."""
    # Imported here: few names are misspelled.
    import difflib

    return next(iter(difflib.get_close_matches(name.lower(), _registered(), n=1, cutoff=0.75)), None)


def make_handler(name: str, arguments: Sequence[str]) -> Any:
    """Make a handler as the command line names it.

    :param name: a built-in name, a name registered by an :class:`~twisted_smtpd.interfaces.IHandlerPlugin`, or a dotted
        path such as ``package.module.Class`` or ``package.module:Class``.
    :param arguments: what its ``from_cli(parser, *arguments)`` gets.
    :raises HandlerError: if there is no such handler, or it can't be imported, or it does not take these arguments.
    """
    handler: Any = name
    if "." not in name and ":" not in name:
        # Plugins are searched only for what is not built in.
        known = {plugin.name: plugin for plugin in _BUILT_IN}
        if name not in known:
            known = _registered()
        if name not in known:
            nearest = nearest_name(name)
            names = f"it is one of {', '.join(known)}, or a class as package.module.Class"
            raise HandlerError(f"there is no handler {name!r}: {f'did you mean {nearest}?' if nearest else names}")
        handler = known[name].handler
    if isinstance(handler, str):
        handler = _import(handler, name)
        # Calling something else does not give a handler: os.getcwd() would give a str, which has no hooks.
        if not inspect.isclass(handler):
            raise HandlerError(f"handler {name} is not a class but {type(handler).__name__}")
    made = _construct(handler, name, arguments)
    _warn_of_lost_hooks(made, name)
    return made


def _import(path: str, name: str) -> Any:
    module_name, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise HandlerError(f"{path!r} is no path to a class: write it as package.module.Class")
    found = _import_module(module_name, name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            where = getattr(sys.modules[module_name], "__file__", None) or module_name
            raise HandlerError(f"handler {name}: there is no {attribute} in {where}") from None
    return found


def _import_module(module_name: str, name: str) -> Any:
    try:
        return import_module(module_name)
    except KeyboardInterrupt:
        raise
    # Importing a user's module may raise anything: a script may even call sys.exit().
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            text = f"there is no module {error.name}: start in the folder it is in, or install it, or set PYTHONPATH"
        elif isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
            text = f"{error.name} is missing: pip install 'twisted-smtpd[{_EXTRAS[error.name]}]'"
        else:
            text = f"importing {module_name} failed: {type(error).__name__}: {error}{_where(error)}"
        raise HandlerError(f"handler {name}: {text}") from error


def _where(error: BaseException) -> str:
    """The line of the imported module that failed; a SyntaxError says it by itself."""
    if isinstance(error, SyntaxError):
        return ""
    # Not the import machinery, which may be the innermost.
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen ")]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"


def _construct(handler: Any, name: str, arguments: Sequence[str]) -> Any:
    if inspect.isabstract(handler):
        missing = ", ".join(sorted(handler.__abstractmethods__))
        raise HandlerError(f"handler {name} is a base class: name a subclass of it that has {missing}")
    from_cli = getattr(handler, "from_cli", None)
    if from_cli is None and arguments:
        raise HandlerError(f"handler {name} takes no arguments (it has no from_cli), not {' '.join(arguments)!r}")
    make, given = (handler, ()) if from_cli is None else (from_cli, (_Parser(prog=f"handler {name}"), *arguments))
    _check_call(make, given, name)
    try:
        made = make(*given)
    except HandlerError:
        raise
    except OSError as error:
        text = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
        raise HandlerError(f"handler {name}: {text}") from error
    except ValueError as error:
        raise HandlerError(f"handler {name}: {error}") from error
    # A handler without hooks accepts all mail and drops it.
    if made is None:
        raise HandlerError(f"handler {name}: its from_cli returned None: did it forget `return`?")
    return made


def _check_call(make: Callable[..., Any], given: tuple[Any, ...], name: str) -> None:
    """Tell a wrong number of arguments from a TypeError inside the handler, which is a defect to be seen."""
    try:
        signature = inspect.signature(make)
    except ValueError:
        # Some classes written in C have none.
        return
    try:
        signature.bind(*given)
    except TypeError as error:
        hint = "" if given else "; on the command line a class is made by its classmethod from_cli(cls, parser, *args)"
        raise HandlerError(f"handler {name}: {error} in {getattr(make, '__name__', name)}{signature}{hint}") from error


def _warn_of_lost_hooks(handler: object, name: str) -> None:
    """Say in the log what is legal, but rarely meant: all mail is accepted, or a hook isn't called."""
    note_checked(handler)
    for fault, _ in faults(handler):
        log.warn("handler {name}{fault}", name=name, fault=fault)
