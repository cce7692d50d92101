"""What is known about one option of the server: its default, its bounds, its name on the command line, its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted_smtpd.wire.addresses import parse_mailbox
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = [
    *("COUNT", "OCTETS", "OCTETS_PER_SECOND", "SECONDS"),
    *("Option", "amount", "is_domain", "is_host_name", "is_text"),
]

COUNT = "count"
OCTETS = "octets"
OCTETS_PER_SECOND = "octets a second"
SECONDS = "seconds"

_METAVARS = {COUNT: "N", OCTETS: "SIZE", OCTETS_PER_SECOND: "SIZE", SECONDS: "SECONDS"}


class Option:
    """One row of the table of options.

    :param default: the value if none is given.
    :param help: what the option is, as a part of a sentence: it begins the option's line in ``--help``, in the tables
        of the documentation and in the documentation of ``SMTP``.
    :param doc: further sentences, for the documentation of ``SMTP`` only.
    :param unit: for a number :data:`COUNT`, :data:`OCTETS`, :data:`OCTETS_PER_SECOND` or :data:`SECONDS`.
    :param low: the least value.
    :param high: the greatest value.
    :param zero: what 0 means, if it is allowed although it is below ``low``, or has a meaning of its own.
    :param cli_low: the least value on the command line, where the constructor has to take less.
    :param per_verb: whether a mapping of verb to number is allowed, too.
    :param choices: the values of an option that has few.
    :param valid: whether a text can be used.
    :param wanted: what ``valid`` wants, for the error.
    :param unset: what happens if the default is ``None``, for the texts.
    :param flag: the name on the command line, without dashes; a number's is made from its keyword.  For a truth value
        it is the flag that turns the default around.
    :param short: the one-letter name on the command line.
    :param flag_help: what the command line's option does, where ``help`` does not say it.
    :param group: the group on the command line and in the documentation: ``"limits"`` for numbers and ``"protocol"``
        for others, unless given.
    :param own: whether a connection has it as an attribute.
    :param key: the name in a configuration file; by default that of the command line with underscores, and for a truth
        value the keyword argument: it is named for what it is, and not for the flag that turns it around.
    :param metavar: what stands for the value in ``--help``.
    :param repeats: whether the command line may have it several times; a configuration file has a list then.
    :param path: whether the value names a file, which may be a credential of systemd.
    :param secret: whether the value must not be shown.
    :param process: whether it is for the whole process, and not for one of several listeners.
    :param shared: whether it limits what all listeners have together, unless one of them sets it for itself.
    :param command: whether only ``twisted-smtpd`` has it, since ``twist`` has its own.
    :param in_file: whether a configuration file may set it.
    :ivar name: the keyword argument.
    :ivar names: whether it is a collection of names; on the command line with commas between them.
    :ivar one_name: whether a ``str`` may stand for such a collection: names with commas or blanks between them.
    :ivar optional: whether the value may be ``None``.
    :ivar whole: whether a number has to be an ``int``.
    """

    __slots__ = (
        *("choices", "cli_low", "command", "default", "doc", "flag", "flag_help", "group", "help", "high", "in_file"),
        *("low", "metavar", "name", "names", "one_name", "optional", "own", "own_key", "path", "per_verb", "process"),
        *("repeats", "secret", "shared", "short", "unit", "unset", "valid", "wanted", "whole", "zero"),
    )

    def __init__(
        self,
        default: Any,
        help: str,
        doc: str = "",
        *,
        unit: str = "",
        low: float = 0,
        high: float = float("inf"),
        zero: str = "",
        cli_low: float | None = None,
        per_verb: bool = False,
        choices: tuple[str, ...] = (),
        valid: Callable[[str], bool] | None = None,
        wanted: str = "",
        unset: str = "",
        flag: str = "",
        short: str = "",
        flag_help: str = "",
        group: str = "",
        own: bool = True,
        key: str = "",
        metavar: str = "",
        repeats: bool = False,
        path: bool = False,
        secret: bool = False,
        process: bool = False,
        shared: bool = False,
        command: bool = False,
        in_file: bool = True,
    ) -> None:
        self.default, self.help, self.doc = default, help, doc
        self.unit, self.low, self.high, self.zero = unit, low, high, zero
        self.cli_low = low if cli_low is None else cli_low
        self.per_verb, self.choices, self.valid, self.wanted, self.unset = per_verb, choices, valid, wanted, unset
        self.flag, self.short, self.flag_help = flag, short, flag_help
        self.group = group or ("limits" if unit else "protocol")
        self.own, self.own_key, self.metavar = own, key, metavar
        self.repeats, self.path, self.secret = repeats, path, secret
        self.process, self.shared, self.command, self.in_file = process, shared, command, in_file
        self.name = flag
        self.names, self.one_name, self.optional, self.whole = False, False, False, unit in (COUNT, OCTETS)

    def named(self, name: str, kind: Any) -> Option:
        """Take over what the table says beside the row.

        :param name: the keyword argument.
        :param kind: the type that the table gives the option.
        :returns: this option.
        """
        self.name = name
        kinds = getattr(kind, "__args__", ())
        self.names, self.one_name, self.optional = Iterable[str] in kinds, str in kinds, type(None) in kinds
        if self.unit and not self.flag:
            self.flag = name.replace("_", "-")
        return self

    @property
    def placeholder(self) -> str:
        """What stands for the value in ``--help``."""
        return self.metavar or "|".join(self.choices) or _METAVARS.get(self.unit, "TEXT")

    @property
    def switch(self) -> bool:
        """Whether it is on or off, and on the command line a flag without a value."""
        return isinstance(self.default, bool)

    @property
    def key(self) -> str:
        """The name in a configuration file."""
        return self.own_key or (self.name.lower() if self.switch else self.flag).replace("-", "_")

    def check(self, value: Any) -> None:
        """Check a value that a program gives.

        :raises TypeError: it is of the wrong type.
        :raises ValueError: it is out of bounds.
        """
        if value is None and self.optional:
            return
        if self.unit:
            if self.per_verb and isinstance(value, Mapping):
                for verb, number in value.items():
                    self._check_number(f"{self.name}[{verb!r}]", number)
            else:
                self._check_number(self.name, value)
        elif self.choices and value not in self.choices:
            raise ValueError(f"{self.name} is {' or '.join(map(repr, self.choices))}, not {value!r}")
        elif self.names:
            # Taken letter by letter a single name would mean other ones.
            if isinstance(value, bytes) or (isinstance(value, str) and not self.one_name):
                raise TypeError(f"{self.name} is a collection of names, not {value!r}")
        elif self.valid is not None:
            if not isinstance(value, str):
                raise TypeError(f"{self.name} is a str, not {value!r}")
            if not self.valid(value):
                raise ValueError(f"{self.name} is {self.wanted}, not {value!r}")

    def _check_number(self, name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            kind = "a whole number" if self.whole else "a number"
            more = ", or a mapping of verbs to such numbers" if self.per_verb else ""
            raise TypeError(f"{name} is {kind}{more}, not {value!r}")
        if not self.within(value, self.low):
            raise ValueError(f"{name} must be {self.bounds(self.low)}, not {value!r}")

    def within(self, value: float, low: float) -> bool:
        """Whether a number is within the bounds.

        :param value: the number.
        :param low: the least value, apart from 0 where that has a meaning of its own.
        """
        return low <= value <= self.high or (value == 0 and bool(self.zero))

    def bounds(self, low: float) -> str:
        """The bounds in words, for errors: ``between 1 and 1,000,000``.

        :param low: see :meth:`within`.
        """
        zero = "0 or " if self.zero and low > 0 else ""
        return f"{zero}between {low:,} and {self.high:,}"


def amount(value: float, unit: str, spelled: bool = False) -> str:
    """A number in words: ``2000``, or ``32M`` for octets, as the command line takes it.

    :param value: the number.
    :param unit: its unit.
    :param spelled: whether it is for people only: ``2,000`` and ``32 MiB``.
    """
    power = 0
    # The command line knows no T.
    while unit == OCTETS and value and value % 1024 == 0 and power < 3 + spelled:
        value //= 1024
        power += 1
    prefix = "KMGT"[power - 1] if power else ""
    if spelled:
        return f"{value:,} {prefix}iB" if prefix else f"{value:,}"
    return f"{value}{prefix}"


def is_domain(text: str) -> bool:
    """Whether a text can be the domain of an address, in ASCII."""
    try:
        return text.isascii() and parse_mailbox(f"a@{text}") == f"a@{text}"
    except SMTPReplyError:
        return False


def is_host_name(text: str) -> bool:
    """Whether a text can be said as the server's name: no blank, no control character, 255 octets at most."""
    return 0 < len(text) <= 255 and text.isascii() and text.isprintable() and " " not in text


def is_text(text: str) -> bool:
    """Whether a text can be a part of a line that is sent: printable ASCII, 400 octets at most."""
    return 0 < len(text) <= 400 and text.isascii() and text.isprintable()
