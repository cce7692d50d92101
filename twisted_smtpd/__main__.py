"""The command ``twisted-smtpd``; also ``python -m twisted_smtpd``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from twisted.application.service import IService

from twisted_smtpd.cli.command import Command
from twisted_smtpd.cli.subcommands import SUBCOMMANDS
from twisted_smtpd.logs.setup import start_logging
from twisted_smtpd.tap import makeService

__all__ = ["main"]

_LOG_OPTIONS = ("format", "level", "file")


def main(words: Sequence[str] | None = None) -> None:
    """Run a server until a signal ends it, or another command: see :mod:`twisted_smtpd.cli.subcommands`.

    :param words: the command line, without the program's name; by default that of the process.
    """
    open_missing_streams()
    try:
        command(sys.argv[1:] if words is None else words)
    except BrokenPipeError:
        # The reader of the help has seen enough: `twisted-smtpd --help | head`.  Python would flush stdout once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)


def command(words: Sequence[str]) -> None:
    """What the words of the command line ask for.

    :param words: the command line, without the program's name.
    """
    if words and words[0] in SUBCOMMANDS:
        SUBCOMMANDS[words[0]].run(words[1:])
        return
    options = Command()
    options.parseOptions(words)
    if options.dry:
        # What it would warn of at its start.
        start_logging(level="warn")
    run(options, makeService(options))


def open_missing_streams() -> None:
    """Put the null device in the place of standard streams that are closed.

    The next socket would get such a descriptor, and its client what is written to the log.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def run(options: Command, service: IService) -> None:
    """Run a service.

    :param options: the parsed command line.
    :param service: the service.
    """
    reactor = options.reactor
    # First, so that a port in use is one line on stderr and nothing else.
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    # When signals are heard: a program that reads where the server listens may send one at once.
    reactor.callWhenRunning(options.begin_log, options.log_lock)
    reactor.run()
    number = options.exit.number if options.exit is not None else None
    if number is not None:
        # As twist does: the status tells that a signal has ended it.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
