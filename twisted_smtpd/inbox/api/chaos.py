"""Mailpit's triggers of failures."""

from __future__ import annotations

from collections.abc import Mapping

from twisted_smtpd.testing.failures import Failure, Failures

__all__ = ["Chaos"]

# Mailpit's triggers, and where they are.
_PLACES = {"Sender": "MAIL", "Recipient": "RCPT", "Authentication": "AUTH"}
_DEFAULT_CODE = 451


class Chaos:
    """Mailpit's triggers, each of which is a failure with a chance.

    :param failures: the failures of the server; ``None`` if it has none.
    """

    def __init__(self, failures: Failures | None) -> None:
        self.failures = failures
        self._codes = dict.fromkeys(_PLACES, _DEFAULT_CODE)
        self._of: dict[str, Failure] = {}

    def get(self) -> dict[str, dict[str, int]]:
        """The triggers."""
        there = list(self.failures or ())
        chances = {name: round(one.chance * 100) for name, one in self._of.items() if one in there}
        return {name: {"ErrorCode": self._codes[name], "Probability": chances.get(name, 0)} for name in _PLACES}

    def set(self, triggers: Mapping[str, Mapping[str, int]]) -> None:
        """Set the triggers; those that are not given happen no longer."""
        assert self.failures is not None
        for failure in self._of.values():
            failure.remove()
        self._of.clear()
        for name, place in _PLACES.items():
            trigger = triggers.get(name)
            self._codes[name] = trigger["ErrorCode"] if trigger else _DEFAULT_CODE
            if trigger and trigger["Probability"]:
                code, chance = str(trigger["ErrorCode"]), trigger["Probability"] / 100
                self._of[name] = self.failures.add(Failure(place, code, chance=chance))
