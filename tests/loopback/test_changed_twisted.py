"""Servers on real sockets, on a loop that is not the global reactor's, with a Twisted that has changed inside."""

from __future__ import annotations

import smtplib
from typing import Any

from twisted.internet import tcp
from twisted.protocols import tls

from tests.loopback.controllers import LIMIT, ControllerCase, send
from tests.loopback.test_controller_scripts import ScriptCase
from tests.support.changed_twisted import SHORTCUTS, ChangedTwistedMixin, hide
from twisted_smtpd.runtime import twisted_private
from twisted_smtpd.runtime.twisted_private import SOCKETS
from twisted_smtpd.tls.engine import OwnCreator


class SecondLoopTests(ChangedTwistedMixin, ControllerCase):
    """Trial has the global reactor, which does not run meanwhile."""

    def setUp(self) -> None:
        super().setUp()
        ControllerCase.setUp(self)
        self.server_context, self.client_context = self.contexts()

    def send_all(self) -> None:
        """A message in clear, one after STARTTLS, and one over implicit TLS."""
        with self.make(tls_context=self.server_context) as controller:
            send(controller)
            send(controller, self.client_context)
        with (
            self.make(ssl_context=self.server_context) as controller,
            smtplib.SMTP_SSL(
                controller.hostname, controller.port, context=self.client_context, timeout=LIMIT
            ) as client,
        ):
            client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\r\n\r\nIt works.\r\n")
        self.assertEqual(len(self.handler.envelopes), 3)
        self.handler.envelopes.clear()

    def test_as_it_is(self) -> None:
        self.send_all()
        self.assertEqual(self.lines, [])

    def test_without_any_one_of_the_names_of_sockets(self) -> None:
        for name in SOCKETS.names[0].uses:
            self.forget()
            unhide = hide(tcp.Server, name)
            try:
                self.send_all()
            finally:
                unhide()
            self.assert_one_line(f"tcp.Server.{name}:", "slower, not wrong")

    def test_without_direct_writes_of_tls(self) -> None:
        self.lack(twisted_private.DIRECT_TLS)
        self.send_all()
        self.assert_one_line("TLSMemoryBIOProtocol.write:", "slower, not wrong")

    def test_without_the_clock_of_tls(self) -> None:
        # As for contexts that are the user's own: with Twisted's layer.
        self.patch(OwnCreator, "is_unchanged", lambda creator: False)
        owners: list[tuple[Any, str]] = [
            (tls.BufferingTLSTransport, "_aggregator"),
            (tls._AggregateSmallWrites, "_clock"),
        ]
        for owner, name in owners:
            self.forget()
            unhide = hide(owner, name)
            try:
                self.send_all()
            finally:
                unhide()
            self.assert_one_line("BufferingTLSTransport._aggregator._clock:", "slower, not wrong")

    def test_with_nothing_private_at_all(self) -> None:
        for shortcut in SHORTCUTS.values():
            self.lack(shortcut)
        self.send_all()
        self.assertEqual(len(self.lines), len(set(self.lines)))
        self.assertGreaterEqual(len(self.lines), 3)


CHANGED = """
    import sys
    from twisted.logger import formatEvent, globalLogPublisher
    from tests.support.changed_twisted import hide
    from twisted_smtpd.runtime import twisted_private
    def tell(event):
        if event["log_namespace"] == twisted_private.__name__:
            print(formatEvent(event))
    globalLogPublisher.addObserver(tell)
"""


class OwnProgramTests(ScriptCase):
    """Programs without a reactor, and one with Twisted's asyncio reactor."""

    def test_a_reactor_that_can_not_be_moved_serves_one_loop_after_another(self) -> None:
        for name in twisted_private.MOVING.names[0].uses:
            said = self.run_script(
                CHANGED
                + f"""
    from twisted_smtpd.runtime.reactors import LoopReactor
    hide(LoopReactor, {name!r})
    async def main():
        async with UnthreadedController(Handler(), port=0) as controller:
            await asyncio.to_thread(send, controller)
    asyncio.run(main())
    asyncio.run(main())
    with Controller(Handler(), port=0) as controller:
        asyncio.run(main())
        send(controller)
"""
            )
            self.assertEqual(said.count("sent"), 4)
            (line,) = [line for line in said if line != "sent"]
            self.assertIn(f"AsyncioSelectorReactor.{name}:", line)

    def test_a_loop_that_twisteds_reactor_does_not_name(self) -> None:
        said = self.run_script(
            CHANGED
            + """
    from twisted.internet import asyncioreactor
    asyncioreactor.install()
    hide(asyncioreactor.AsyncioSelectorReactor, "_asyncioEventloop")
    from twisted.internet.task import react
    from twisted.internet.threads import deferToThread
    class Plain:
        def handle_DATA(self, server, session, envelope):
            return "250 OK"
    def in_thread():
        with Controller(Plain(), port=0) as controller:
            send(controller)
    async def main(reactor):
        async with Controller(Plain(), port=0) as controller:
            await deferToThread(send, controller)
        await deferToThread(in_thread)
        try:
            Controller(Plain(), port=0).start()
        except RuntimeError as error:
            print("refused")
    react(main)
"""
        )
        (line,) = [line for line in said if line.startswith("Twisted ")]
        self.assertEqual([line for line in said if not line.startswith("Twisted ")], ["sent", "sent", "refused"])
        self.assertIn("AsyncioSelectorReactor._asyncioEventloop:", line)
