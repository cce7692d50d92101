"""Options from environment variables: ``TWISTED_SMTPD_MAX_ERRORS=5``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from twisted.python import usage

from twisted_smtpd.cli.sources import Entry, Report, entry_of_file, file_key, raise_it, split, suggestion
from twisted_smtpd.options.command import SETTINGS

__all__ = ["PREFIX", "from_environment", "variable"]

PREFIX = "TWISTED_SMTPD_"

# What Kubernetes puts into each container for a service that is called twisted-smtpd, or twisted-smtpd-mx.
_SERVICE = re.compile(
    r"(?:.*_)?SERVICE_(?:HOST|PORT(?:_.*)?)|(?:.*_)?PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?"
)
_URL = re.compile(r"(?:tcp|udp|sctp)://")

_TRUTH = {"1": "true", "true": "true", "yes": "true", "on": "true", "0": "false", "false": "false"}
_TRUTH |= {"no": "false", "off": "false"}


def variable(key: str) -> str:
    """The name of an option's variable."""
    return PREFIX + key.upper()


def from_environment(environment: Mapping[str, str], report: Report = raise_it) -> dict[str, Entry]:
    """The layer of environment variables.  An empty one counts as not set.

    :param environment: all variables; those that are not ours are passed over.
    :param report: is given an error for each variable that is no option, or whose value can't be one.
    """
    layer: dict[str, Entry] = {}
    for name, text in sorted(environment.items()):
        rest = name.removeprefix(PREFIX)
        if rest == name or not text or _SERVICE.fullmatch(rest):
            continue
        if (rest == "PORT" or rest.endswith("_PORT")) and _URL.match(text):
            continue
        try:
            entry = _entry(name, rest.lower(), text)
        except usage.UsageError as error:
            report(error)
            continue
        former = layer.setdefault(entry.option.key, entry)
        if former is not entry:
            report(usage.UsageError(f"{former.name} and {name} contradict each other"))
    return layer


def _entry(name: str, key: str, text: str) -> Entry:
    if (hidden := file_key(key)) is not None:
        return entry_of_file(hidden, text, name)
    option = SETTINGS.get(key)
    if option is None or not (option.in_file or key == "config"):
        hint = suggestion(key, SETTINGS)
        meant = re.sub(r"(\w+)( = \w+|\??)$", lambda found: variable(found[1]) + found[2].replace(" ", ""), hint)
        raise usage.UsageError(f"the environment variable {name} is no option{meant}")
    if option.switch:
        if text.lower() not in _TRUTH:
            raise usage.UsageError(f"{name} is true or false, not {text!r}")
        return Entry(option, (_TRUTH[text.lower()],), name)
    try:
        return Entry(option, split(option, text), name)
    except usage.UsageError as error:
        raise usage.UsageError(f"{name}: {error}") from None
