"""Where options come from: a configuration file, environment variables, the command line; the later wins.

Each source gives a layer: an :class:`Entry` for each option that it sets.  Layers are laid over each other, and what
comes of that is read like a command line, so that there is one reader for all values.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias

from twisted.python import usage

from twisted_smtpd.options.command import FLAGS, SETTINGS
from twisted_smtpd.options.option import Option
from twisted_smtpd.options.table import TABLE

__all__ = ["Entry", "Layer", "Report", "entry_of_file", "merged", "raise_it", "resolved", "suggestion"]

# Octets of a file that has one value.
MAX_VALUE = 2**16

CREDENTIAL = "credential:"


@dataclass(frozen=True)
class Entry:
    """An option that is set somewhere.

    :ivar option: its row.
    :ivar values: its value as on the command line, several for an option that repeats; that of one which is on or off
        is ``true`` or ``false``, and that of the handler its name and its arguments.
    :ivar name: its name where it is set: ``hook_timeout``, ``--hook-timeout``, ``TWISTED_SMTPD_HOOK_TIMEOUT``.
    :ivar place: the file and the line, or nothing.
    :ivar hidden: whether the value comes from a file of its own, and so is not to be shown.
    :ivar words: the words of the command line, if that is where it is set.
    :ivar listener: whether it is set for one of several listeners.
    """

    option: Option
    values: tuple[str, ...] = field(repr=False)
    name: str
    place: str = ""
    hidden: bool = False
    words: tuple[str, ...] = field(default=(), repr=False)
    listener: bool = False

    @property
    def origin(self) -> str:
        """Where it is set, in words."""
        return self.place or ("the command line" if self.name.startswith("-") else self.name)

    @property
    def label(self) -> str:
        """How an error begins that is about this option."""
        return f"{self.place}: {self.name}" if self.place else self.name

    def command_line(self) -> list[str]:
        """The words for Twisted's parser of options; the handler's arguments are not among them.

        :raises usage.UsageError: a credential of systemd is not there.
        """
        if self.option.switch and not self.words:
            value = self.values[0] == "true"
            return [
                f"--{flag}" for flag, (option, meaning) in FLAGS.items() if (option, meaning) == (self.option, value)
            ]
        if self.words and not self.option.path:
            return list(self.words)
        values = self.values[:1] if self.option.key == "handler" else self.values
        if self.option.path:
            try:
                values = tuple(map(resolved, values))
            except usage.UsageError as error:
                raise usage.UsageError(f"--{self.option.flag}: {error}") from None
        return [f"--{self.option.flag}={value}" for value in values]


#: What one source sets, by the options' names in a configuration file.
Layer: TypeAlias = Mapping[str, Entry]

#: Is given what is wrong in a source; unless it raises that, the rest of the source is read.
Report: TypeAlias = Callable[[usage.UsageError], object]


def raise_it(error: usage.UsageError) -> NoReturn:
    """The first error is the last."""
    raise error


def merged(layers: Iterable[Layer]) -> dict[str, Entry]:
    """One layer of several; the later ones win."""
    return {key: entry for layer in layers for key, entry in layer.items()}


def resolved(path: str) -> str:
    """A path, where ``credential:NAME`` stands for a credential of systemd (``LoadCredential=``).

    :raises usage.UsageError: there are no credentials, or the name is none.
    """
    if not path.startswith(CREDENTIAL):
        return path
    name, folder = path.removeprefix(CREDENTIAL), os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise usage.UsageError(f"{path}: systemd has set no $CREDENTIALS_DIRECTORY; LoadCredential={name}:/path does")
    if not re.fullmatch(r"[^/\0]+", name) or name in (".", ".."):
        raise usage.UsageError(f"{path}: {name!r} is no name of a credential")
    return os.path.join(folder, name)


def entry_of_file(key: str, path: str, name: str, place: str = "") -> Entry:
    """An option whose value is in a file: a secret that is to be neither in the configuration nor shown.

    :param key: the option.
    :param path: the file.
    :param name: the name under which the file is given.
    :param place: see :class:`Entry`.
    :raises usage.UsageError: the file can't be read.
    """
    option = SETTINGS[key]
    label = f"{place}: {name}" if place else name
    try:
        with open(resolved(path), "rb") as file:
            data = file.read(MAX_VALUE + 1)
        text = data.decode().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise usage.UsageError(f"{label}: {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if len(data) > MAX_VALUE or "\0" in text or ("\n" in text and not option.repeats and key != "handler"):
        raise usage.UsageError(f"{label}: {path}: it is not one line of text")
    return Entry(option, split(option, text), name, place, hidden=True)


def split(option: Option, text: str) -> tuple[str, ...]:
    """The values in a text: words, which may be quoted as in a shell, for an option that has several.

    :raises usage.UsageError: a quotation mark is not closed.
    """
    if not option.repeats and option.key != "handler":
        return (text,)
    # Imported here: few servers have such a variable.
    import shlex

    try:
        words = tuple(shlex.split(text))
    except ValueError:
        raise usage.UsageError("a quotation mark is not closed") from None
    if not words:
        raise usage.UsageError("there is no word in it")
    return words


def file_key(name: str) -> str | None:
    """The option that a name such as ``hostname_file`` is about, if it is one."""
    key = name.removesuffix("_file")
    if key == name or name in SETTINGS or key not in SETTINGS:
        return None
    option = SETTINGS[key]
    return key if option.in_file and not option.switch and not option.unit and not option.path else None


def suggestion(name: str, keys: Iterable[str]) -> str:
    """A hint for a name that is no option's: the one that may be meant, or nothing.

    :param name: what is given.
    :param keys: the names that there are.
    """
    by_keyword = {keyword.lower(): option.key for keyword, option in TABLE.items() if option.flag}
    if name in by_keyword:
        return f": it is called {by_keyword[name]}"
    option, meaning = FLAGS.get(name.replace("_", "-"), (None, None))
    if option is not None and option.in_file:
        return f": write {option.key}{'' if meaning is None else f' = {str(meaning).lower()}'}"
    found = difflib.get_close_matches(name, list(keys), n=1, cutoff=0.7)
    return f": did you mean {found[0]}?" if found else ""


def from_command_line(given: Iterable[tuple[str, str]], arguments: Sequence[str]) -> tuple[dict[str, Entry], list[str]]:
    """The layer of a command line.

    :param given: flags without dashes with their values, in order; an empty value for one that is on or off.
    :param arguments: the handler's arguments.
    :returns: the layer, and the words that set no option, such as ``--help``.
    """
    layer: dict[str, Entry] = {}
    others: list[str] = []
    for flag, text in given:
        option, meaning = FLAGS.get(flag, (None, None))
        if option is None:
            others.append(f"--{flag}={text}" if text else f"--{flag}")
            continue
        former = layer.get(option.key)
        value = text if meaning is None else str(meaning).lower()
        word = f"--{flag}={text}" if meaning is None else f"--{flag}"
        values, words = (former.values, former.words) if former else ((), ())
        kept = values if option.repeats else ()
        layer[option.key] = Entry(option, (*kept, value), f"--{flag}", words=(*words, word))
    if arguments:
        former = layer.get("handler")
        name = former.values[0] if former else str(SETTINGS["handler"].default)
        words = former.words if former else ()
        layer["handler"] = Entry(SETTINGS["handler"], (name, *arguments), "--class", words=words)
    return layer, others


def changed_keys(before: Sequence[Layer], after: Sequence[Layer]) -> Iterator[str]:
    """The options that two readings of a configuration set differently, with what a person calls the part.

    :param before: the layers at first: those of the whole process, then one for each listener.
    :param after: the same, later.
    """
    if len(before) != len(after):
        yield "the number of [[listener]] tables"
    for number, (old, new) in enumerate(zip(before, after, strict=False)):
        for key in sorted({*old, *new}):
            values = [entry.values if (entry := layer.get(key)) else None for layer in (old, new)]
            if values[0] != values[1]:
                yield f"{key} of listener {number}" if number else key


def known_file(path: str) -> str:
    """A file's name in errors: without the folder, if it is in the current one."""
    return os.path.relpath(path) if Path(path).resolve().parent == Path.cwd() else path
