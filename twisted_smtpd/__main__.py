"""``python -m twisted_smtpd ARGS`` and ``twisted-smtpd ARGS``: the server with a log of its own.

The arguments are those of ``twist smtpd``, and the options of the log.  The log goes to the standard error; the
standard output is for what handlers print.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from twisted_smtpd.cli.command import Options, refuse
from twisted_smtpd.logs.setup import start_logging
from twisted_smtpd.tap import makeService

__all__ = ["main"]

_LOG_OPTIONS = ("format", "level", "file")


def main() -> None:
    """Run a server until a signal ends it."""
    log, words = _log_options(sys.argv[1:])
    try:
        start_logging(**log)
    except (OSError, ValueError) as error:
        refuse(error)
    options = Options()
    options.parseOptions(words)
    service = makeService(options)
    reactor = options.reactor
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


def _log_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Take the options of the log out of a command line.

    :returns: these, by the parameters of :func:`start_logging`; and the other words.
    """
    found: dict[str, str] = {}
    rest = list(words)
    place = 0
    while place < len(rest) and rest[place] != "--":
        flag, equals, value = rest[place].partition("=")
        name = flag.removeprefix("--log-")
        if flag.startswith("--log-") and name in _LOG_OPTIONS:
            if not equals and place + 1 == len(rest):
                refuse(f"option {flag} requires argument")
            found[name] = value if equals else rest.pop(place + 1)
            del rest[place]
        else:
            place += 1
    return found, rest


if __name__ == "__main__":
    main()
