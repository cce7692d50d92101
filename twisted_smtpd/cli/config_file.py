"""Options from a configuration file: TOML, with a table ``[[listener]]`` for each of several listeners."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.python import usage

from twisted_smtpd.cli.sources import Entry, Layer, Report, entry_of_file, file_key, known_file, raise_it, suggestion
from twisted_smtpd.logs.escaping import clean
from twisted_smtpd.options.command import SETTINGS
from twisted_smtpd.options.option import Option
from twisted_smtpd.runtime.files import open_at_once

__all__ = ["Configuration", "read_configuration"]

# Octets; the longest configuration that makes sense has some kilobytes.
MAX_FILE = 2**20

_LISTENER = re.compile(r"\[\[\s*(?:listener|\"listener\"|'listener')\s*\]\]")
_KEY = re.compile(r"\s*(?:\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+))\s*[=.]")


@dataclass(frozen=True)
class Configuration:
    """What a configuration file says.

    :ivar top: the options for the whole process, and for all listeners.
    :ivar listeners: the options of each ``[[listener]]``.
    :ivar places: file and line of each.
    """

    top: Layer
    listeners: tuple[Layer, ...] = ()
    places: tuple[str, ...] = ()


def read_configuration(path: str, report: Report = raise_it) -> Configuration:
    """Read a configuration file.

    :param path: the file.
    :param report: is given an error for each thing in it that is no option; the error has the file and the line.
    :raises usage.UsageError: it can't be read.
    """
    shown = known_file(path)
    text = _read(path, shown)
    # Imported here: a server without such a file needs no parser for it.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at line ([0-9]+), column ([0-9]+)\)", str(error), re.DOTALL)
        what, line = (found[1], found[2]) if found else (str(error), text.rstrip().count("\n") + 1)
        raise usage.UsageError(f"{shown}, line {line}: {what[:1].lower()}{what[1:]}") from None
    except RecursionError:
        raise usage.UsageError(f"{shown}: it is nested too deeply") from None
    places = _places(text)
    tables = document.pop("listener", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        line = places.get((0, "listener"), 0)
        raise usage.UsageError(f"{shown}{f', line {line}' if line else ''}: a listener is written as [[listener]]")
    layers = [_layer(table, number, shown, places, report) for number, table in enumerate([document, *tables])]
    starts = tuple(f"{shown}, line {places.get((number, ''), '?')}" for number in range(1, len(layers)))
    return Configuration(layers[0], tuple(layers[1:]), starts)


def _read(path: str, shown: str) -> str:
    try:
        with open(path, "rb", opener=open_at_once) as file:
            # A pipe with a writer is read to its end; SIGHUP may come when there is none any more.
            os.set_blocking(file.fileno(), True)
            data = file.read(MAX_FILE + 1)
            is_empty_pipe = not data and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise usage.UsageError(f"{shown}: {error.strerror}") from None
    except ValueError:
        raise usage.UsageError(f"{shown!r} is no name of a file") from None
    if is_empty_pipe:
        raise usage.UsageError(f"{shown}: it is a pipe that nothing is written to")
    if len(data) > MAX_FILE:
        raise usage.UsageError(f"{shown}: it is larger than {MAX_FILE:,} octets")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise usage.UsageError(f"{shown}, line {line}: it is not UTF-8") from None


def _places(text: str) -> dict[tuple[int, str], int]:
    """The line of each key, which the parser does not tell: by the number of its table, 0 for the top, and its name."""
    places: dict[tuple[int, str], int] = {}
    table, within = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not within:
            if _LISTENER.match(line.strip()):
                table += 1
                places[table, ""] = number
            elif (header := re.match(r"\s*\[+\s*\"?'?([A-Za-z0-9_-]+)", line)) and line.rstrip().endswith("]"):
                places.setdefault((0, header[1]), number)
            elif key := _KEY.match(line):
                places.setdefault((table, key[1] or key[2] or key[3] or ""), number)
        for quotes in re.findall("\"\"\"|'''", line):
            # A string of several lines, in which nothing is a key.
            within = quotes if not within else "" if within == quotes else within
    return places


def _layer(
    table: Mapping[str, Any], number: int, shown: str, places: Mapping[tuple[int, str], int], report: Report
) -> Layer:
    layer: dict[str, Entry] = {}
    for name, value in table.items():
        line = places.get((number, name)) or places.get((0, name)) or places.get((number, ""))
        place = f"{shown}, line {line}" if line else shown
        try:
            entry = _entry(name, value, number, place)
        except usage.UsageError as error:
            report(error)
            continue
        former = layer.setdefault(entry.option.key, entry)
        if former is not entry:
            report(usage.UsageError(f"{place}: {former.name} and {name} contradict each other"))
    return layer


def _entry(name: str, value: Any, number: int, place: str) -> Entry:
    key = file_key(name) or name
    option = SETTINGS.get(key)
    if option is None or not option.in_file:
        known = [known for known, row in SETTINGS.items() if row.in_file]
        raise usage.UsageError(f"{place}: {clean(name)} is no option{suggestion(name, known)}")
    if number and option.process:
        raise usage.UsageError(f"{place}: {name} is for the whole process: it stands above the first [[listener]]")
    if key != name:
        if not isinstance(value, str):
            raise usage.UsageError(f"{place}: {name} is the name of a file")
        entry = entry_of_file(key, value, name, place)
    else:
        entry = Entry(option, _values(option, value, f"{place}: {name}"), name, place)
    return entry if not number else Entry(option, entry.values, name, place, entry.hidden, listener=True)


def _values(option: Option, value: Any, label: str) -> tuple[str, ...]:
    """A value as the command line has it.

    :raises usage.UsageError: it is of another type.
    """
    shown = "" if option.secret or option.key == "handler" else f", not {_toml(value)}"
    if option.switch:
        if not isinstance(value, bool):
            raise usage.UsageError(f"{label} is true or false{shown}")
        return (str(value).lower(),)
    if option.repeats or option.names or option.key == "handler":
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list) or not several or not all(isinstance(one, str) for one in several):
            raise usage.UsageError(f"{label} is a text or a list of texts{shown}")
        return (",".join(several),) if option.names else tuple(several)
    if option.unit and isinstance(value, (int, float)) and not isinstance(value, bool):
        return (str(value),)
    if not isinstance(value, str):
        raise usage.UsageError(f"{label} is a {'number' if option.unit else 'text'}{shown}")
    return (value,)


def _toml(value: Any) -> str:
    """A value as it is written in a file, in few words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    return f"{value!r:.80}" if isinstance(value, str) else str(value)[:80]
