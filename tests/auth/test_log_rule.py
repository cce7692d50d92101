"""The fail2ban rule of the documentation: it finds who guesses passwords, and nobody can have another one banned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.address import IPv6Address
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.logger import formatEventAsClassicLogText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, answering, connect, hooks, pass_time, raiser
from twisted_smtpd.handlers import Proxy
from twisted_smtpd.handlers.forwarding.client import ClientError
from twisted_smtpd.logs.events import SIGN_IN_BLOCKED
from twisted_smtpd.logs.forms import text_line, untimed_text_line
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.replies import Reply

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "internet.rst"

VICTIM = "198.51.100.66"
# What somebody would like to see in the log, in both forms.
LINES = tuple(f"{start} 1 {VICTIM}:25 AUTH PLAIN failed for user 'root'" for start in ("[twisted_smtpd#warn]", "warn"))
FORGED = tuple(
    f"{before}{line}"
    for line in LINES
    for before in ("", "\n", "\r\n2026-01-01T00:00:00+0000 ", "\nmx python[1]: 2026 ", "\nmx python[1]: ", "\u2028 ")
)


@skipUnless(PAGE.is_file(), "the documentation is not installed")
class RuleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        found = re.search(r"^    failregex = (.*)$", PAGE.read_text(), re.MULTILINE)
        assert found is not None
        self.rule = re.compile(found[1].replace("<HOST>", r"(?P<host>[\w.:]+)"))

    def lines(self) -> list[str]:
        """The lines of the log, as a file has them: as ``twist`` writes them, then as ``twisted-smtpd`` does."""
        texts = [formatEventAsClassicLogText(event) or "" for event in self.events]
        texts += [text_line(event) for event in self.events]
        texts += [untimed_text_line(event) for event in self.events]
        return [line for text in texts for line in text.rstrip("\n").split("\n")]

    def banned(self) -> list[str]:
        """Whom the rule finds: in the journal, and in a file, where fail2ban has cut out the date."""
        found = []
        for line in self.lines():
            in_file = re.sub(r"^\d\d\d\d-\d\d-\d\dT\S+", "", line)
            for form in (in_file, f"mx python[123]: {line}"):
                match = self.rule.search(form)
                if match is not None:
                    found.append(match["host"])
        return found

    def test_it_finds_who_guesses(self) -> None:
        client = connect(auth_callback=answering(False), auth_require_tls=False, host="192.0.2.7")
        client.send(EHLO + b"AUTH PLAIN AGEAYg==\r\n")
        self.assertEqual(self.banned(), ["192.0.2.7"] * 6)

    def test_it_finds_who_is_not_heard_any_more(self) -> None:
        host = IPv6Address("TCP", "2001:db8::1", 4321)
        SIGN_IN_BLOCKED.tell(connect(host=host).protocol)
        self.assertEqual(self.banned(), ["2001:db8::1"] * 6)

    def test_a_sender_bans_nobody(self) -> None:
        """``from=<…>`` was written as it came, and a quoted local part can have nearly anything."""
        for text in (*LINES, *(f"x> {line}" for line in LINES)):
            sender = text.replace("\\", "\\\\").replace('"', '\\"')
            client = connect()
            client.send(EHLO + f'MAIL FROM:<"{sender}"@evil.example>\r\nRCPT TO:<b@y.example>\r\n'.encode())
            said = client.send(b"DATA\r\nhello\r\n.\r\n")
            self.assertIn(b"250 2.0.0", said)
        found = [line for line in self.lines() if "from=<" in line]
        self.assertEqual(len(found), 12)
        for line in found:
            self.assertNotIn("AUTH PLAIN failed", line)
            self.assertEqual(line.count("<"), 2)
        self.assertEqual(self.banned(), [])

    def test_a_sender_that_a_hook_has_set_bans_nobody(self) -> None:
        for text in FORGED:

            def handle_MAIL(
                server: Any, session: Any, envelope: Any, address: str, options: list[str], text: str = text
            ) -> str:
                envelope.mail_from = f'"{text}"'
                return "250 OK"

            client = connect(hooks(handle_MAIL=handle_MAIL))
            client.send(EHLO + b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nhello\r\n.\r\n")
        self.assertEqual(self.banned(), [])

    def test_what_the_next_host_says_bans_nobody(self) -> None:
        for text in FORGED:

            async def refuse(*arguments: Any, text: str = text) -> Any:
                raise ClientError(f"it said {text}")

            async def say(*arguments: Any, text: str = text) -> Any:
                return [Reply(550, None, (text,))]

            for forward in (refuse, say):
                proxy: Any = Proxy("tcp:192.0.2.1:25", reactor=Clock())
                proxy._forward = forward
                envelope = Envelope()
                envelope.rcpt_tos, envelope.content = ["b@y.example"], b"x: y\r\n"
                server: Any = connect().protocol
                session = Session(None)
                coroutine = proxy.handle_DATA(server, session, envelope)
                self.assertRaises(StopIteration, coroutine.send, None)
        self.assertTrue([line for line in self.lines() if "AUTH PLAIN failed" in line], "it is in the log")
        self.assertEqual(self.banned(), [])

    def test_a_name_or_an_error_bans_nobody(self) -> None:
        for text in FORGED:
            client = connect(hooks(handle_NOOP=raiser(ValueError(text)), handle_VRFY=answering(succeed(text))))
            client.send(EHLO)
            client.send(b"NOOP\r\nVRFY a@x.example\r\n")
            pass_time(client, 1)
        self.assertTrue(self.flushLoggedErrors())
        self.assertEqual(self.banned(), [])
