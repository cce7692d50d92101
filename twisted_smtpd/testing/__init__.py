"""A mail server for tests: it takes what a program sends, shows it, and fails as it is told.

* :class:`MailServer` runs in a thread, for any test; :class:`AsyncMailServer` in a coroutine of asyncio or trial.
* :class:`MailServerMixin` and :class:`AsyncMailServerMixin` are for ``unittest`` and trial; pytest has the fixture
  ``smtpd``, see :mod:`twisted_smtpd.testing.plugin`.
* :func:`talk` and :func:`deliver` test a handler without any socket.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from twisted_smtpd.on_demand import on_demand

if TYPE_CHECKING:
    from twisted_smtpd.testing.cases import AsyncMailServerMixin, MailServerMixin, mail_server_for
    from twisted_smtpd.testing.failures import Failure, Step
    from twisted_smtpd.testing.memory import Dialog, deliver, talk
    from twisted_smtpd.testing.messages import ReceivedMessage
    from twisted_smtpd.testing.server import AsyncMailServer, MailServer

__all__ = [
    "AsyncMailServer",
    "AsyncMailServerMixin",
    "Dialog",
    "Failure",
    "MailServer",
    "MailServerMixin",
    "ReceivedMessage",
    "Step",
    "deliver",
    "mail_server_for",
    "talk",
]

# pytest loads this package in every run where it is installed; Twisted is loaded when a server is wanted.
_load = on_demand(
    __name__,
    {
        "AsyncMailServer": "server",
        "AsyncMailServerMixin": "cases",
        "Dialog": "memory",
        "Failure": "failures",
        "MailServer": "server",
        "MailServerMixin": "cases",
        "ReceivedMessage": "messages",
        "Step": "failures",
        "deliver": "memory",
        "mail_server_for": "cases",
        "talk": "memory",
    },
)


def __getattr__(name: str) -> Any:
    with _plain_imports():
        return _load(name)


@contextmanager
def _plain_imports() -> Iterator[None]:
    """Import without pytest's work on assert statements, which takes a third of the time.

    pytest works on all modules of a package with a plugin, for those that help tests with assertions; these have none.
    """
    finders = list(sys.meta_path)
    sys.meta_path[:] = [finder for finder in finders if type(finder).__module__ != "_pytest.assertion.rewrite"]
    try:
        yield
    finally:
        sys.meta_path[:] = finders


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
