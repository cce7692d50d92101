"""The server for tests in ``unittest`` and in trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from unittest import TestCase

from twisted.internet.defer import Deferred

from twisted_smtpd.testing.server import AsyncMailServer, MailServer

__all__ = ["AsyncMailServerMixin", "MailServerMixin", "mail_server_for"]


def mail_server_for(test_case: TestCase, **options: Any) -> MailServer:
    """Start a server that is stopped at the end of a test.

    :param test_case: a test of ``unittest``, or a ``SynchronousTestCase`` of trial.
    :param options: see :class:`MailServer`.
    """
    server = MailServer(**options)
    server.start()
    test_case.addCleanup(server.stop)
    return server


if TYPE_CHECKING:
    _Case = TestCase
else:
    _Case = object


class MailServerMixin(_Case):
    """Gives each test of a class a server of its own; stands before ``TestCase`` in the list of base classes.

    :cvar mail_server_options: see :class:`MailServer`.
    :ivar smtpd: the server.
    """

    mail_server_options: ClassVar[dict[str, Any]] = {}
    smtpd: MailServer

    def setUp(self) -> None:
        super().setUp()
        self.smtpd = mail_server_for(self, **self.mail_server_options)


class AsyncMailServerMixin(_Case):
    """The same for trial's ``TestCase``: the server runs on the reactor of the test, beside it.

    (In an ``IsolatedAsyncioTestCase``, use ``await self.enterAsyncContext(AsyncMailServer())``.)

    :cvar mail_server_options: see :class:`AsyncMailServer`.
    :ivar smtpd: the server.
    """

    mail_server_options: ClassVar[dict[str, Any]] = {}
    smtpd: AsyncMailServer

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.smtpd = AsyncMailServer(**self.mail_server_options)
        await self.smtpd.start()
        self.addCleanup(self._stop_mail_server)

    def _stop_mail_server(self) -> Any:
        return Deferred.fromCoroutine(self.smtpd.stop())
