"""For tests of a Twisted that has changed inside: hide a private name from this package, or a whole shortcut."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.batches import NotingReactor
from twisted_smtpd.runtime import twisted_private
from twisted_smtpd.runtime.twisted_private import Names, Shortcut

SHORTCUTS: dict[str, Shortcut] = {
    name: value for name, value in vars(twisted_private).items() if isinstance(value, Shortcut)
}


def hide(cls: type, name: str) -> Callable[[], None]:
    """Have an attribute of a class's instances hidden from this package, as if Twisted had renamed it.

    Twisted's own code, and the tests, find it as before.

    :returns: a function that undoes it.
    """
    find: Any = cls.__getattribute__

    def found(self: object, asked: str) -> Any:
        if asked == name and sys._getframe(1).f_globals["__name__"].startswith("twisted_smtpd."):
            raise AttributeError(asked)
        return find(self, asked)

    cls.__getattribute__ = found  # type: ignore[assignment,method-assign]
    return lambda: delattr(cls, "__getattribute__")


class ChangedTwistedMixin(SynchronousTestCase):
    """Has every shortcut checked anew, and keeps the lines that the checks log."""

    def setUp(self) -> None:
        super().setUp()
        for shortcut in SHORTCUTS.values():
            self.patch(shortcut, "_there", None)
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self._note)
        self.addCleanup(globalLogPublisher.removeObserver, self._note)

    def _note(self, event: Any) -> None:
        if event["log_namespace"] == twisted_private.__name__:
            self.events.append(event)

    @property
    def lines(self) -> list[str]:
        """What the checks have logged."""
        return [str(formatEvent(event)) for event in self.events]

    def forget(self) -> None:
        """Have every shortcut checked anew."""
        for shortcut in SHORTCUTS.values():
            shortcut._there = None
        self.events.clear()

    def lack(self, shortcut: Shortcut) -> None:
        """Have all names of a shortcut missing."""
        names = tuple(Names(one.owner, lambda _: object(), one.uses) for one in shortcut.names)
        self.patch(shortcut, "names", names)

    def assert_one_line(self, *words: str) -> None:
        """One line was logged, as a warning, with all of these words."""
        self.assertEqual([event["log_level"].name for event in self.events], ["warn"], self.lines)
        for word in words:
            self.assertIn(word, self.lines[0])


class ServingReactor(NotingReactor):
    """Also writes and ends connections, as a real reactor does."""

    def turn(self) -> None:
        self.advance(0)
        readable, writable, _ = select.select(self.readers, self.writers, [], 0)
        for one, act in [(one, "doRead") for one in readable] + [(one, "doWrite") for one in writable]:
            if one in self.readers or one in self.writers:
                why = getattr(one, act)()
                if why:
                    self.removeReader(one)
                    self.removeWriter(one)
                    one.connectionLost(Failure(why))
