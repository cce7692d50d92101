"""A client that was not let in, or that has not met a condition, is not served because something else went well."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.support.fakes import EHLO, GREETING, Client, answering, codes, connect, hooks
from tests.support.tls_dialog import SecureTestCase
from tests.support.tls_helpers import Client as TLSSettings
from twisted_smtpd.protocol import opening

COMMANDS = (b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@y.example>", b"DATA", b"VRFY <b@y.example>", b"RSET", b"HELP")


class RequiredTLSTests(SecureTestCase):
    def test_a_greeting_of_a_hooks_own_does_not_stand_for_starttls(self) -> None:
        for status in ("220 mx.example at your service", "220-mx.example\n220 welcome", "250 OK"):
            handler = hooks(handle_CONNECT=answering(status))
            peer = self.connect(handler, tls_context=self.files(), require_starttls=True, max_errors=99)
            peer.read()
            for command in COMMANDS:
                self.assertEqual(codes(peer.send(command + b"\r\n")), [530], (status, command))
            self.assertEqual(codes(peer.send(EHLO)), [250])
            for command in COMMANDS:
                self.assertEqual(codes(peer.send(command + b"\r\n")), [530], (status, command))
            peer.starttls(TLSSettings())
            self.assertEqual(codes(peer.send(COMMANDS[0] + b"\r\n")), [503])
            self.assertEqual(codes(peer.send(EHLO + COMMANDS[0] + b"\r\n")), [250, 250])

    def test_nor_for_authentication(self) -> None:
        handler = hooks(handle_CONNECT=answering("220 mx.example"), auth_PLAIN=answering("anne"))
        client = connect(handler, auth_required=True, auth_require_tls=False)
        client.read()
        client.send(EHLO)
        self.assertEqual(codes(client.send(COMMANDS[0] + b"\r\n")), [530])


class BrokenOpeningTests(SecureTestCase):
    """A step before the greeting that fails."""

    def setUp(self) -> None:
        super().setUp()
        self.gate: Deferred[None] = Deferred()

        async def at_once(client: Any) -> bool:
            raise RuntimeError("oops")

        async def later(client: Any) -> bool:
            await self.gate
            raise RuntimeError("oops")

        self.at_once, self.later = at_once, later

    def refused(self, client: Client) -> None:
        for command in (EHLO, b"HELO x\r\n", *(b"%b\r\n" % command for command in COMMANDS), b"NOOP\r\n"):
            self.assertEqual(codes(client.send(command)), [503], command)
        self.assertIsNone(client.protocol.session.host_name)
        self.assertEqual(codes(client.send(b"QUIT\r\n")), [221])
        self.assertTrue(client.closed)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_client_is_not_served(self) -> None:
        self.patch(opening, "STEPS", ((lambda client: True, self.at_once), *opening.STEPS))
        asked: list[Any] = []
        client = connect(hooks(handle_CONNECT=lambda *arguments: asked.append(arguments) or "220 hello"), max_errors=99)
        self.assertEqual(codes(client.read()), [451])
        self.refused(client)
        self.assertEqual(asked, [])

    def test_nor_is_one_that_was_quick(self) -> None:
        self.patch(opening, "STEPS", ((lambda client: True, self.later), *opening.STEPS))
        client = connect(max_errors=99)
        self.assertEqual(client.send(EHLO + b"MAIL FROM:<a@x.example>\r\n"), b"")
        self.gate.callback(None)
        self.assertEqual(codes(client.read()), [451, 503, 503])
        self.refused(client)

    def test_a_step_that_says_no_is_no_greeting(self) -> None:
        async def no(client: Any) -> bool:
            return False

        self.patch(opening, "STEPS", ((lambda client: True, no),))
        client = connect(max_errors=99)
        said = client.read()
        self.assertNotIn(GREETING, said)
        self.assertEqual(codes(client.send(EHLO)), [503])
