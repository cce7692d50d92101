"""What a subclass written for aiosmtpd overrides is called, or warned of; nothing is left out without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, Recorder, connect
from twisted_smtpd.controller import Controller, UnthreadedController
from twisted_smtpd.runtime.lost_overrides import OF_CONTROLLERS, OF_SERVERS
from twisted_smtpd.smtp import SMTP


def warned(make: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
        make()
    return [str(warning.message) for warning in caught]


def nothing(self: Any, *arguments: Any) -> None:
    """Overrides something."""


class LostTests(SynchronousTestCase):
    """Seen: one program gave up root in ``_create_server``, and would have gone on as root."""

    def test_of_a_controller(self) -> None:
        for base in (Controller, UnthreadedController):
            for name in OF_CONTROLLERS:
                mine: Any = type("Mine", (base,), {name: nothing})
                said = warned(lambda mine=mine: mine(Recorder()))
                self.assertEqual(len(said), 1, name)
                self.assertIn(f"Mine.{name}() is never called here", said[0])

    def test_of_a_server(self) -> None:
        for name in OF_SERVERS:
            mine: Any = type("Mine", (SMTP,), {name: nothing})
            self.assertIn(f"Mine.{name}() is never called here", warned(lambda mine=mine: mine(Recorder()))[0])

    def test_what_is_called_is_not_warned_of(self) -> None:
        class Mine(SMTP):
            def _call_handler_hook(self, command: str, *arguments: Any) -> Any:
                return super()._call_handler_hook(command, *arguments)

        self.assertEqual(warned(lambda: Mine(Recorder())), [])
        self.assertEqual(warned(lambda: Controller(Recorder())), [])


class OldHookTests(SynchronousTestCase):
    """``ehlo_hook`` and ``rset_hook`` of the class, which aiosmtpd has deprecated and calls."""

    def server(self) -> type[SMTP]:
        class Mine(SMTP):
            async def ehlo_hook(self) -> None:
                await self.push("250-XMINE")

            def rset_hook(self) -> None:
                called.append("rset")

        self.called: list[str] = []
        called = self.called
        return Mine

    def test_ehlo_hook_announces_more(self) -> None:
        said = connect(protocol=self.server()).send(EHLO)
        self.assertTrue(said.startswith(b"250-mx.example\r\n"), said)
        self.assertTrue(said.endswith(b"250-XMINE\r\n250 HELP\r\n"), said)

    def test_beside_the_handlers_hook(self) -> None:
        class Handler:
            async def handle_EHLO(self, server: SMTP, session: Any, envelope: Any, hostname: str) -> str:
                session.host_name = hostname
                return "250 HELP"

        self.assertIn(b"250-XMINE\r\n", connect(Handler(), protocol=self.server()).send(EHLO))

    def test_rset_hook_is_called(self) -> None:
        connect(protocol=self.server()).send(b"RSET\r\n")
        self.assertEqual(self.called, ["rset"])

    def test_they_are_said_to_be_deprecated(self) -> None:
        server = self.server()
        self.assertIn("ehlo_hook() is deprecated", " ".join(warned(lambda: server(Recorder()))))
