"""The manual page, made from the options: ``twisted-smtpd man``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence

from twisted_smtpd import __version__
from twisted_smtpd.cli.help import TOPICS, Topic, option_text
from twisted_smtpd.cli.subcommands import SUBCOMMANDS
from twisted_smtpd.handlers.registry import built_in_handlers
from twisted_smtpd.options.option import Option
from twisted_smtpd.runtime.exit_status import EX_USAGE

__all__ = ["main", "manual_page"]

NAME = "twisted-smtpd"

_DESCRIPTION = (
    "An SMTP and LMTP server that gives each message to a handler. Without options it listens on 127.0.0.1 and ::1, "
    "port 8025, and prints what it receives.",
    "Words that are no options are the handler's arguments. The handler's own options come last, after a word of two "
    "dashes.",
)
_SIGNALS = (
    (
        "SIGTERM, SIGINT",
        "Stop. New clients are refused, idle ones hear 421, and messages in progress get the time of --grace. A second "
        "signal ends that time, a third one ends the process at once.",
    ),
    (
        "SIGHUP",
        "Read certificates, password files and lists of addresses again. The log says which options of the "
        "configuration file have changed: they hold after a restart.",
    ),
)
_STATUS = (
    ("0", "The server was stopped. With --check: it would start."),
    ("1", "A port can't be had, or the handler can't be started."),
    ("64", "The command line or the configuration is wrong. One line on the standard error says where."),
)
_ENVIRONMENT = (
    (
        "TWISTED_SMTPD_NAME",
        "Each option may stand in a variable named like its key in the configuration file, in capital letters: "
        "TWISTED_SMTPD_MAX_ERRORS=5. The file goes before the defaults, the environment before the file, the command "
        "line before both.",
    ),
    ("CREDENTIALS_DIRECTORY", "Where systemd keeps the credentials that a file option names with credential:NAME."),
)
_FILES = (
    (
        "--config FILE",
        "TOML. An option is named without its dashes, with underscores: max_errors = 5. A table [[listener]] is a "
        "listener of its own, with its own places, handler and limits. --show-config prints what holds.",
    ),
)


def _escaped(text: str) -> str:
    """A text for roff: a hyphen stays the character that people copy, a leading dot is no request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")
    return f"\\&{text}" if text.startswith(".") else text


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _sentence(text: str) -> str:
    """A text with the options in it in bold."""
    return re.sub(r"(\\-\\-[a-z](?:[a-z]|\\-)*)", r"\\fB\1\\fR", _escaped(text))


def _entries(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in entries:
        yield from (".TP", _bold(term), _sentence(text))


def _option(option: Option) -> Iterator[str]:
    names = [f"--{option.flag}", *([f"-{option.short}"] if option.short else [])]
    value = "" if option.switch else f" \\fI{_escaped(option.placeholder)}\\fR"
    yield from (".TP", ", ".join(f"{_bold(name)}{value}" for name in names), _sentence(option_text(option)))


def _topic(topic: Topic) -> Iterator[str]:
    yield f".SS {_escaped(topic.title)}"
    for option in topic.options(True):
        yield from _option(option)
    yield from _entries(topic.others)


def _examples() -> Iterator[str]:
    for topic in TOPICS:
        for example in topic.examples:
            yield from (".PP", ".nf", f".RS\n{_escaped(f'{NAME} {example}')}\n.RE", ".fi")


def manual_page() -> str:
    """The page of ``twisted-smtpd``, for section 1, in the macros of man(7)."""
    lines = [
        f'.TH "{NAME.upper()}" "1" "" "{NAME} {__version__}" "User Commands"',
        ".SH NAME",
        f"{_escaped(NAME)} \\- SMTP and LMTP server that is programmed in Python",
        ".SH SYNOPSIS",
        f"{_bold(NAME)} [\\fIoptions\\fR] [\\fB\\-c\\fR \\fIHANDLER\\fR] [\\fIARGUMENTS\\fR] "
        "[\\fB\\-\\-\\fR \\fIHANDLER OPTIONS\\fR]",
        ".br",
        f"{_bold(NAME)} \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        *(line for text in _DESCRIPTION for line in (".PP", _sentence(text))),
        ".SH OPTIONS",
    ]
    for topic in TOPICS:
        if not topic.command:
            lines += _topic(topic)
    lines += [".SH HANDLERS", "What \\fB\\-c\\fR takes, beside the path of a class, package.module.Class:"]
    lines += _entries(built_in_handlers())
    lines += [".SH COMMANDS", *_entries((name, one.summary) for name, one in SUBCOMMANDS.items())]
    for title, entries in (
        ("SIGNALS", _SIGNALS),
        ("EXIT STATUS", _STATUS),
        ("ENVIRONMENT", _ENVIRONMENT),
        ("FILES", _FILES),
    ):
        lines += [f".SH {title}", *_entries(entries)]
    lines += [".SH EXAMPLES", *_examples(), ".SH SEE ALSO", ".BR swaks (1),", ".BR systemd.socket (5)", ""]
    return "\n".join(lines)


def main(words: Sequence[str]) -> None:
    """Print the manual page.

    :param words: none.
    """
    if words:
        sys.stderr.write(f"{NAME} man: takes no arguments\n")
        sys.exit(EX_USAGE)
    sys.stdout.write(manual_page())
