"""``--help``: the options by topic, with examples.  Each topic fits a screen of 24 lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from twisted_smtpd.cli.subcommands import SUBCOMMANDS
from twisted_smtpd.options.command import SETTINGS
from twisted_smtpd.options.option import COUNT, OCTETS, OCTETS_PER_SECOND, SECONDS, Option
from twisted_smtpd.options.reference import default_text, flag_text
from twisted_smtpd.runtime.exit_status import program_name

__all__ = ["TOPICS", "Topic", "help_text", "option_name", "option_text", "topic_lines"]

WIDTH = 79
# Columns of an option with its value; a longer one has its text in the next line.
COLUMN = 30


@dataclass(frozen=True)
class Topic:
    """A part of the help.

    :ivar title: its heading.
    :ivar group: the group of options.
    :ivar units: the units of its options, where a group has several topics.
    :ivar rates: whether its options are rates, or ``None`` for all.
    :ivar first: flags that stand before the others.
    :ivar others: options that set nothing, with what they do.
    :ivar examples: arguments for the command.
    :ivar command: whether only ``twisted-smtpd`` has it.
    """

    title: str
    group: str
    units: tuple[str, ...] = ()
    rates: bool | None = None
    first: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    examples: tuple[str, ...] = ()
    command: bool = False

    def options(self, is_command: bool) -> Iterator[Option]:
        """Its options.

        :param is_command: whether it is the help of ``twisted-smtpd``.
        """
        options = [option for option in SETTINGS.values() if option.group == self.group and self._has(option)]
        first = [SETTINGS[flag] for flag in self.first]
        for option in (*first, *(option for option in options if option not in first)):
            if is_command or not option.command:
                yield option

    def _has(self, option: Option) -> bool:
        is_rate = option.name.endswith("_rate")
        return (not self.units or option.unit in self.units) and self.rates in (None, is_rate)


TOPICS = (
    Topic(
        "Handler",
        "handler",
        others=(
            ("--help-handlers", "List the handlers that have a name."),
            ("--help", "This help."),
            ("--version", "The version."),
        ),
        examples=("-c mailbox Maildir", "-c proxy mail.example.com:587 -- --tls starttls", "-c mymodule.MyHandler"),
    ),
    Topic(
        "Other commands",
        "",
        others=tuple((name, f"{one.summary[0].upper()}{one.summary[1:]}.") for name, one in SUBCOMMANDS.items()),
        examples=("completion bash > /etc/bash_completion.d/twisted-smtpd",),
        command=True,
    ),
    Topic("Listening addresses", "listening", examples=("-l 0.0.0.0:25 -l [::]:25", "-l unix:/run/smtp.sock:mode=660")),
    Topic("Process and configuration", "process", examples=("--config smtpd.toml --check",)),
    Topic("Log", "log", examples=("--log-format=json --log-level=warn",)),
    Topic(
        "Protocol",
        "protocol",
        others=(("-u, --smtputf8", "Offer SMTPUTF8; this is so by default."),),
        examples=("--hostname=mx.example.com --lmtp -l unix:/run/lmtp",),
    ),
    Topic("Extensions", "extensions", examples=("--disable-extensions=CHUNKING,BINARYMIME",)),
    Topic("Sizes", "limits", (OCTETS, OCTETS_PER_SECOND), examples=("--size=50M --max-buffered=1G",)),
    Topic("Times", "limits", (SECONDS,), examples=("--timeout=60 --hook-timeout=30",)),
    Topic("Numbers", "limits", (COUNT,), rates=False, examples=("--max-connections=5000 --max-recipients=100",)),
    Topic("Rates", "limits", (COUNT,), rates=True, examples=("--connection-rate=30 --message-rate=60",)),
    Topic(
        "TLS",
        "tls",
        first=("tlscert",),
        others=(("--requiretls", "With --tls-self-signed: take no mail without TLS."),),
        examples=(
            "--tlscert fullchain.pem --tlskey key.pem --listen-tls :8465",
            "--tls-self-signed --tls-write-to tls",
        ),
    ),
    Topic("Proxies and trusted mail servers", "proxies", examples=("--proxy-from 10.0.0.0/8",)),
    Topic(
        "Authentication",
        "auth",
        others=(
            ("--help-auth", "List the kinds of checkers that --auth knows."),
            ("--help-auth-type KIND", "Explain one."),
        ),
        examples=("--auth-file users --auth-required --tlscert both.pem",),
    ),
    Topic(
        "Failures on demand",
        "failures",
        examples=("--fail 'rcpt=451:10%' --fail-seed 7", "--fail 'answer=drop:times=1:match=bart@'"),
    ),
)


def help_text(is_command: bool) -> str:
    """The help.

    :param is_command: whether it is that of ``twisted-smtpd``.
    """
    intro = (
        "An SMTP server that gives each message to a handler.  Without options it listens on 127.0.0.1 and ::1, port "
        "8025, and prints what it receives.  Each option may stand in a file as well (--config FILE: max_errors = 5) "
        "and in the environment (TWISTED_SMTPD_MAX_ERRORS=5)."
    )
    lines = ["", *textwrap.wrap(intro, WIDTH), ""]
    for topic in TOPICS:
        lines += [*topic_lines(topic, is_command), ""]
    return "\n".join(lines)


def topic_lines(topic: Topic, is_command: bool) -> list[str]:
    """The lines of a topic; none, if it has no options."""
    rows = [(option_name(option), option_text(option)) for option in topic.options(is_command)]
    if not rows and not (topic.command and is_command):
        return []
    lines = [f"{topic.title}:"]
    for name, text in (*rows, *topic.others):
        wrapped = textwrap.wrap(text, WIDTH - COLUMN, break_on_hyphens=False)
        if len(name) > COLUMN - 4:
            lines.append(f"  {name}")
        else:
            lines.append(f"  {name:{COLUMN - 2}}{wrapped.pop(0)}")
        lines += [f"{'':{COLUMN}}{line}" for line in wrapped]
    lines += [f"  $ {program_name()} {example}" for example in topic.examples]
    return lines


def option_name(option: Option) -> str:
    """An option with what stands for its value: ``-s, --size SIZE``."""
    short = f"-{option.short}, " if option.short else ""
    return f"{short}--{option.flag}" if option.switch else f"{short}--{option.flag} {option.placeholder}"


def option_text(option: Option) -> str:
    """What an option is, with its default."""
    default = default_text(option)
    return f"{flag_text(option)}{f' [default: {default}]' if default else ''}"
