"""``--show-config`` and ``--check``: what is in force, and where each option comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted_smtpd.cli.masking import shown_values
from twisted_smtpd.cli.sources import Entry
from twisted_smtpd.options.command import SETTINGS
from twisted_smtpd.options.option import Option, amount
from twisted_smtpd.options.reference import default_text
from twisted_smtpd.options.table import TABLE

if TYPE_CHECKING:
    from twisted_smtpd.cli.command import Options

__all__ = ["shown", "summary"]

# Columns of a setting; what follows is where it comes from.
COLUMN = 40


def shown(servers: Sequence[Options], values: Sequence[Mapping[str, Any]]) -> str:
    """The options in force, as a configuration file; what is not set is a comment.

    :param servers: the options of each listener.
    :param values: the options of each server, the defaults included.
    """
    several = len(servers) > 1 or any(entry.listener for entry in servers[0].entries.values())
    lines = []
    for option in SETTINGS.values():
        if option.in_file and (servers[0].is_command or not option.command):
            entry = servers[0].entries.get(option.key)
            lines.append(_line(option, None if entry is not None and entry.listener else entry, values[0]))
    for server in servers if several else ():
        lines += ["", "[[listener]]"]
        lines += [_line(entry.option, entry, {}) for entry in server.entries.values() if entry.listener]
    return "".join(f"{line}\n" for line in lines)


def _line(option: Option, entry: Entry | None, values: Mapping[str, Any]) -> str:
    if entry is not None:
        text = _setting(option, shown_values(entry))
        return f"{f'{option.key} = {text}':{COLUMN}} # {entry.origin}"
    default, origin = default_text(option), "default"
    if option.switch:
        default = str(option.default).lower()
    if option.name in TABLE and values.get(option.name, option.default) != option.default and option.unit:
        default, origin = amount(values[option.name], option.unit), "the handler's default"
    return f"{f'# {option.key}: {default}' if default else f'# {option.key}':{COLUMN}} # {origin}"


def _setting(option: Option, values: Sequence[str]) -> str:
    """A value as TOML."""
    if option.switch or (option.unit and re.fullmatch(r"[0-9]+", values[0])):
        return values[0]
    texts = [json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for value in values]
    return f"[{', '.join(texts)}]" if option.repeats or option.key == "handler" else texts[0]


def summary(servers: Sequence[Options]) -> str:
    """What a server would do, in a line.

    :param servers: the options of each listener.
    """
    return "; ".join(_one(server) for server in servers)


def _one(server: Options) -> str:
    places = " and ".join(listener.name for listener in server.listeners)
    return f"{server['class']} on {places}"
