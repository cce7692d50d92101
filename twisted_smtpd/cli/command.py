"""The command line of ``twist smtpd``, and that of ``twisted-smtpd``, which has the log and the reactor as well."""

from __future__ import annotations

import getopt
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

from twisted.copyright import version as twisted_version
from twisted.logger import Logger
from twisted.python import usage

from twisted_smtpd import __version__
from twisted_smtpd.cli.auth import AuthOptions
from twisted_smtpd.cli.config_file import Configuration, read_configuration
from twisted_smtpd.cli.environment import from_environment
from twisted_smtpd.cli.failures import FailureOptions
from twisted_smtpd.cli.groups import flag_row, own_parameter_row
from twisted_smtpd.cli.handler import HandlerOptions
from twisted_smtpd.cli.help import help_text
from twisted_smtpd.cli.logs import LogOptions
from twisted_smtpd.cli.masking import without_secrets
from twisted_smtpd.cli.proxies import TrustOptions
from twisted_smtpd.cli.server import ServerOptions
from twisted_smtpd.cli.sources import Layer, Report, changed_keys, from_command_line, merged, raise_it
from twisted_smtpd.cli.workers import WorkerOptions
from twisted_smtpd.handlers.registry import HandlerError
from twisted_smtpd.options.command import COMMAND, FLAGS
from twisted_smtpd.runtime.exit_status import EX_USAGE, call_program, program_name
from twisted_smtpd.runtime.leaving import BoundedExit
from twisted_smtpd.runtime.reactor_names import install_reactor, reactor_name
from twisted_smtpd.workers import worker

__all__ = ["Command", "Options", "refuse"]

log = Logger()

_FLAG = re.compile(r"--([a-z][a-z0-9-]*)")
# They end the program, whatever else is said.
_ENDS = ("--help", "--version", "--help-handlers", "--help-auth")
# Where each listener has its own.
_PLACES = ("listen", "listen_tls")
# Lines that --check prints at most.
MAX_ERRORS = 100


def refuse(error: object) -> NoReturn:
    """Exit with 64 and one line: Twist would print its own usage, all plugins included, below the line that matters.

    :param error: what is wrong, and what to do.
    """
    _say(error)
    sys.exit(EX_USAGE)


def _say(error: object) -> None:
    line, name = " ".join(str(error).split()), program_name()
    sys.stderr.write(f"{name}: {line} (see {name} --help)\n")


# The last group is the first to check its options, so that no handler is made for a command line that is wrong.
class Options(HandlerOptions, WorkerOptions, FailureOptions, TrustOptions, AuthOptions, ServerOptions):
    """The command line of ``twist smtpd``, and the options of its first listener.

    :param reactor: see :class:`~twisted_smtpd.cli.listening.ListenOptions`.
    :ivar servers: the options of each listener, once the command line is parsed: one, or one for each ``[[listener]]``
        of a configuration file.
    :ivar entries: what is set, and where.
    :ivar exit: bounds the end of the process, once the service is made.
    """

    optFlags: ClassVar[list[list[str | None]]] = [flag_row(COMMAND["check"]), flag_row(COMMAND["show-config"])]
    optParameters: ClassVar[list[list[Any]]] = [own_parameter_row(COMMAND["config"])]

    #: Whether it is a command of its own, with a log of its own.
    is_command = False

    def __init__(self, reactor: Any = None) -> None:
        super().__init__(reactor)
        self.servers: list[Options] = [self]
        self.entries: Layer = {}
        self.exit: BoundedExit | None = None
        self._first = self
        self._handlers: dict[tuple[str, ...], object] = {}
        self._layers: list[Layer] = []
        self._others: list[Layer] = []
        # What --check has found wrong, in order.
        self._found: dict[str, None] = {}

    def getSynopsis(self) -> str:
        """The first line of the help; Twisted's would repeat that of the command above."""
        return f"Usage: {program_name()} [options] [HANDLER ARGUMENTS] [-- HANDLER OPTIONS]"

    def getUsage(self, width: int | None = None) -> str:
        """The help."""
        return help_text(self.is_command)

    def opt_version(self) -> NoReturn:
        """Display the version and exit."""
        print(f"twisted-smtpd {__version__} (Twisted {twisted_version})")
        sys.exit(0)

    # -- parsing -------------------------------------------------------------------------------------------------------

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line, the environment and the configuration file; exit with 64 and one line if it is wrong.

        With ``--check``, there is a line for each error that can be found.

        :param options: the words of the command line.
        """
        self.words = list(sys.argv[1:] if options is None else options)
        try:
            given, arguments = self._words()
            layer, others = from_command_line(given, arguments)
            if ends := [word for word in others if word.startswith(_ENDS)]:
                usage.Options.parseOptions(self, ends)
            self._lay(layer, self._note if "check" in layer else raise_it)
        except usage.UsageError as error:
            refuse(error)
        for server in self.servers:
            try:
                server.parse_entries()
            except usage.UsageError as error:
                if "check" not in layer:
                    server.refuse(error)
                server.note_all(error)
        if self._found:
            sys.exit(EX_USAGE)

    def _words(self) -> tuple[list[tuple[str, str]], list[str]]:
        """The options by their long names, and the handler's arguments.

        Options may follow the arguments, as in ``-c mailbox DIR -l :2525``; after ``--`` none does.
        """
        try:
            options, arguments = getopt.gnu_getopt(self.words, self.shortOpt, self.longOpt)
        except getopt.GetoptError as error:
            raise usage.UsageError(f"{error.msg}{self._hint(error)}") from None
        given = []
        for name, value in options:
            name = name.lstrip("-")
            # Twisted knows an option that has a method by the method's name.
            long = self.synonyms[name if name in self.synonyms else name.replace("-", "_")]
            given.append((long.replace("_", "-"), value))
        return given, arguments

    def _hint(self, error: getopt.GetoptError) -> str:
        if "requires" in error.msg:
            return ""
        if not self.is_command and COMMAND.get(error.opt) and COMMAND[error.opt].command:
            return f" (it is twist's: twist --{error.opt} … smtpd)"
        # Imported here: few options are misspelled.
        import difflib

        names = [name.rstrip("=") for name in self.longOpt]
        if found := difflib.get_close_matches(error.opt, names, n=1, cutoff=0.75):
            return f": did you mean --{found[0]}?"
        return " (a handler's own options follow `--`)"

    def _lay(self, command_line: Layer, report: Report) -> None:
        """Lay the sources over each other, for each listener."""
        environment = from_environment(os.environ, report)
        self._others = [environment, command_line]
        configuration = Configuration({})
        entry = command_line.get("config") or environment.get("config")
        if entry is not None:
            configuration = read_configuration(entry.values[0], report)
        handler = command_line.get("handler")
        below = merged([configuration.top, *configuration.listeners, environment])
        if handler is not None and not handler.words and "handler" in below:
            origin = below["handler"].origin
            words = " ".join(handler.values[1:])
            report(usage.UsageError(f"{words!r}: the handler and its arguments are in {origin}: name it with -c"))
        self._check_places(configuration, report)
        self._layers = [configuration.top, *configuration.listeners]
        layers = [merged([configuration.top, one, *self._others]) for one in configuration.listeners or ({},)]
        self.servers = [self, *(self._sibling() for _ in layers[1:])]
        for server, layer in zip(self.servers, layers, strict=True):
            server.entries = layer

    def _check_places(self, configuration: Configuration, report: Report) -> None:
        """With several listeners, each says where it is."""
        if not configuration.listeners:
            return
        outside = {key: entry for layer in (configuration.top, *self._others) for key, entry in layer.items()}
        for key in _PLACES:
            if key in outside and (len(configuration.listeners) > 1 or outside[key].place):
                report(usage.UsageError(f"{outside[key].label}: each [[listener]] has places of its own"))
        for place, layer in zip(configuration.places, configuration.listeners, strict=True):
            if not any(key in layer or key in outside for key in _PLACES):
                report(usage.UsageError(f"{place}: this [[listener]] has no listen = […]"))

    def _sibling(self) -> Options:
        """The options of another listener in this process."""
        other = type(self)(self.reactor)
        other._first = self
        return other

    def parse_entries(self) -> None:
        """Parse what is set for this listener.

        :raises usage.UsageError: a value can't be used, or does not go with another.
        """
        words: list[str] = []
        for entry in self.entries.values():
            option = entry.option
            if option.command and not self.is_command:
                log.warn("{name} is for twisted-smtpd: twist has options of its own before smtpd", name=entry.label)
            elif not option.process or self is self._first or option.key in ("workers", "check", "show_config"):
                words += entry.command_line()
        if self is not self._first:
            # The first has installed it.
            self.reactor = self._first.reactor
        handler = self.entries.get("handler")
        usage.Options.parseOptions(self, [*words, "--", *(handler.values[1:] if handler else ())])

    # -- what the groups ask -------------------------------------------------------------------------------------------

    def handler_given(self) -> bool:
        handler = self.entries.get("handler")
        return handler is not None and bool(handler.words or not handler.name.startswith("-"))

    def shared_handler(self, make: Callable[[], object]) -> object:
        handler = self.entries.get("handler")
        if handler is not None and handler.listener:
            return make()
        # Set for all listeners: they share it.
        made, key = self._first._handlers, handler.values if handler else ()
        if key not in made:
            made[key] = make()
        return made[key]

    def listening_reactor(self, option: str) -> Any:
        if self is not self._first:
            return self._first.listening_reactor(option)
        return super().listening_reactor(option)

    @property
    def own_limits(self) -> bool:
        """Whether this listener sets a limit for itself that the listeners have together."""
        return any(entry.listener and entry.option.shared for entry in self.entries.values())

    # -- errors --------------------------------------------------------------------------------------------------------

    def refuse(self, error: object) -> NoReturn:
        """Exit with 64 and one line, in which options are named as they were given, and no secret is shown.

        :param error: what is wrong.
        """
        refuse(self._line(error))

    def _line(self, error: object) -> str:
        text = str(error)
        if isinstance(error, BaseException) and isinstance(error.__cause__, HandlerError):
            entry = self.entries.get("handler")
            text = f"{entry.label}: {text}" if entry and not entry.name.startswith("-") else text
        else:
            text = self._as_given(text)
        return without_secrets(text, self.entries.values())

    def _note(self, error: object) -> None:
        """Print an error, unless it was printed for another listener."""
        found = self._first._found
        if str(error) in found:
            return
        found[str(error)] = None
        if len(found) > MAX_ERRORS:
            refuse("there are more errors")
        _say(error)

    def note_all(self, error: usage.UsageError | None) -> None:
        """Print each error in these options: leave out what is wrong, and try the rest.

        :param error: the first of them.
        """
        left, gone, reactor = dict(self.entries), set[str](), self.reactor
        while error is not None:
            keys = _keys_in(error)
            if not gone.intersection(keys):
                self._note(self._line(error))
            if not keys or keys[0] not in left:
                break
            # An error about it and another option is none any more.
            gone.add(keys[0])
            del left[keys[0]]
            rest = self._sibling()
            rest.entries, rest.reactor = left, reactor
            rest._first = rest if self is self._first else self._first
            error = rest.first_error()
            # It can be installed only once.
            reactor = rest.reactor

    def first_error(self) -> usage.UsageError | None:
        """What is wrong first with these options, if anything is."""
        try:
            self.parse_entries()
        except usage.UsageError as error:
            return error
        return None

    def _as_given(self, text: str) -> str:
        """An error about an option of the command line, with the name and the place under which it was given."""
        match = _FLAG.match(text)
        option, _ = FLAGS.get(match[1], (None, None)) if match else (None, None)
        entry = self.entries.get(option.key) if option is not None else None
        if match is None or entry is None or entry.name.startswith("-"):
            return text
        rest = text[match.end() :]
        return entry.label + (_FLAG.sub(_key_of_flag, rest) if entry.place else rest)

    # -- later ---------------------------------------------------------------------------------------------------------

    @property
    def configured(self) -> bool:
        """Whether there is a configuration file."""
        return "config" in self.entries

    def reload(self) -> None:
        """Say in the log which options of the configuration file have changed: they hold after a restart."""
        path = self.entries["config"].values[0]
        try:
            configuration = read_configuration(path)
        except usage.UsageError as error:
            log.error("the configuration has an error; what was read at the start holds: {error}", error=str(error))
            return
        changed = list(changed_keys(self._layers, [configuration.top, *configuration.listeners]))
        if changed:
            log.warn("{path} has changed: restart for {what}", path=path, what=", ".join(changed))

    def worker_arguments(self) -> tuple[list[str], bool]:
        """What a worker runs.

        :returns: the module and its arguments; and whether this process has to log what the worker prints.
        """
        # Imported here: one process without workers does not need it.
        from twisted_smtpd.workers.service import twist_arguments

        return twist_arguments(self.reactor, getattr(self, "parent", None), self.words)


def _keys_in(error: usage.UsageError) -> list[str]:
    """The options that an error is about; the first is the one that is wrong."""
    if isinstance(error.__cause__, HandlerError):
        return ["handler"]
    text = str(error)
    options = [FLAGS.get(match[1], (None, None))[0] for match in _FLAG.finditer(text)]
    return [option.key for option in options if option is not None] if _FLAG.match(text) else []


def _key_of_flag(match: re.Match[str]) -> str:
    option, _ = FLAGS.get(match[1], (None, None))
    return match[0] if option is None else option.key


class Command(LogOptions, Options):
    """The command line of ``twisted-smtpd``.

    ``-n``, ``--nosetuid`` and ``-v`` are for command lines written for aiosmtpd: no user is switched to.
    """

    is_command = True

    optFlags: ClassVar[list[list[str | None]]] = [
        ["nosetuid", "n", "Changes nothing; for command lines written for aiosmtpd."],
        ["verbose", "v", "Changes nothing; for command lines written for aiosmtpd."],
    ]

    def __init__(self, reactor: Any = None) -> None:
        call_program("twisted-smtpd")
        super().__init__(reactor)

    def opt_reactor(self, name: str) -> None:
        if self.reactor is not None:
            return
        try:
            self.reactor = install_reactor(name)
        except KeyError:
            raise usage.UsageError(f"--reactor: there is no reactor {name!r}") from None
        except Exception as error:  # a reactor that this machine can't have
            raise usage.UsageError(f"--reactor: {name!r} can't be had here: {error}") from None

    opt_reactor.__doc__ = COMMAND["reactor"].help

    def postOptions(self) -> None:
        super().postOptions()
        if worker.assigned is not None:
            self.log_lock = worker.assigned.log_lock
        elif self.supervising and self.log_lock is None:
            # Its end is that of the process.
            self.log_lock, path = tempfile.mkstemp()
            os.unlink(path)

    def worker_arguments(self) -> tuple[list[str], bool]:
        # A program may have installed another reactor than the options name.
        return ["twisted_smtpd", f"--reactor={reactor_name(self.reactor)}", *self.words], False
