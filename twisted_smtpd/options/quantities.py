"""Numbers on the command line: sizes, times and counts."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.python import usage

from twisted_smtpd.options.option import COUNT, OCTETS, OCTETS_PER_SECOND, SECONDS, Option

__all__ = ["Quantity", "count", "octets", "seconds"]

_SIZE = re.compile(r"([0-9]{1,15})(?:([KMG])(?:I?B)?)?", re.ASCII | re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,15}", re.ASCII)
_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def octets(text: str) -> int:
    """A number of octets: ``1000``, ``10K``, ``32M``, ``32MiB`` (a K is 1024).

    :raises ValueError: it isn't one; the error says what is.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("a size in octets, such as 50000, 500K, 10M or 1G")
    return int(match[1]) * _FACTORS[(match[2] or "").upper()]


def seconds(text: str) -> float:
    """A time in seconds: ``30`` or ``0.5``.

    :raises ValueError: it isn't one; the error says what is.
    """
    if _SECONDS.fullmatch(text) is None:
        raise ValueError("a number of seconds, such as 30 or 0.5")
    return float(text)


def count(text: str) -> int:
    """A whole number.

    :raises ValueError: it isn't one; the error says what is.
    """
    if _COUNT.fullmatch(text) is None:
        raise ValueError("a whole number")
    return int(text)


_PARSERS: dict[str, Callable[[str], float]] = {
    COUNT: count,
    OCTETS: octets,
    OCTETS_PER_SECOND: octets,
    SECONDS: seconds,
}


class Quantity:
    """Reads the value of an option that is a number.

    :param option: the option.
    :ivar keyword: the server's keyword argument, if it is an option of the server.
    :ivar option: the name on the command line, without dashes.
    :ivar low: the least value allowed, 0 included.
    :ivar high: the greatest value allowed.
    """

    def __init__(self, option: Option) -> None:
        self.keyword, self.option = option.name, option.flag
        self.low = 0 if option.zero else option.cli_low
        self.high = option.high
        self._option = option
        self._parse = _PARSERS[option.unit]

    def __call__(self, text: str) -> float:
        """Read what the command line says.

        :raises usage.UsageError: it isn't such a number, or it is out of bounds; the error names the option and the
            value.
        """
        try:
            value = self._parse(text)
        except ValueError as error:
            raise usage.UsageError(f"--{self.option}: {text!r} is not {error}") from None
        if not self._option.within(value, self._option.cli_low):
            raise usage.UsageError(f"--{self.option}: {text!r} is not {self._option.bounds(self._option.cli_low)}")
        return value
