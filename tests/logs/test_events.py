"""One line for each event; nothing that a client sends breaks one, and no secret is in any."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv6Address
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, ENVELOPE, MESSAGE, Client, answering, connect, hooks, raiser
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.logs import bridge
from twisted_smtpd.logs.forms import json_line, text_line, untimed_text_line
from twisted_smtpd.runtime.limits import LINES_A_SECOND

SECRET = "hunter2-Geheim"
ENCODED = base64.b64encode(f"\0anne\0{SECRET}".encode())


class LogCase(SynchronousTestCase):
    """Keeps the events."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lines(self) -> list[str]:
        """What the events say, without level, session and address."""
        return [untimed_text_line(event).split(" ", 3)[3] for event in self.events]

    def named(self, name: str) -> list[Any]:
        return [event for event in self.events if event.get("event") == name]


class EventTests(LogCase):
    def test_a_refusal_has_the_command_and_the_reply(self) -> None:
        client = connect(hooks(handle_RCPT=answering("550 5.1.1 No such user")))
        client.send(ENVELOPE + b"FOO bar\r\nDATA\r\n")
        self.assertEqual(
            self.lines(),
            [
                'refused "RCPT TO:<b@y.example>": 550 5.1.1 No such user',
                'refused "FOO bar": 500 5.5.1 Command FOO not recognized',
                'refused "DATA": 554 5.5.1 No valid recipients',
            ],
        )

    def test_an_accepted_command_is_not_blamed_for_what_comes_later(self) -> None:
        client = connect()
        client.send(EHLO + b"x" * 5000 + b"\r\n")
        self.assertEqual(self.lines(), ["refused: 500 5.5.2 Line too long"])
        client.protocol.hang_up("421 4.4.2 Idle for too long, closing the connection")
        self.assertEqual(self.lines()[1:], ["cut off: 421 4.4.2 Idle for too long, closing the connection"])

    def test_a_cut_off_after_errors(self) -> None:
        client = connect(max_errors=1)
        client.send(b"FOO\r\n")
        client.lose()
        self.assertEqual([event["event"] for event in self.events], ["refused", "cut_off", "disconnected"])
        self.assertIn("421 4.7.0 Too many errors", self.lines()[2])

    def test_who_has_closed_the_connection(self) -> None:
        for end, reason in (
            (lambda client: client.lose(), "the client has closed it"),
            (lambda client: client.finish_sending(), "the client has closed it"),
            (lambda client: client.lose(clean=False), "lost: Connection to the other side was lost"),
        ):
            client = connect()
            client.send(EHLO)
            end(client)
            if not self.events:
                client.lose()
            self.assertIn(f"0 messages: {reason}", self.lines()[0])
            self.events.clear()

    def test_a_tls_error_is_told_in_words(self) -> None:
        client = connect()
        error = SSL.Error([("ssl", "", "wrong version number")])
        client.protocol.connectionLost(Failure(error))
        self.assertRegex(self.lines()[0], "0 messages: lost: wrong version number$")

    def test_a_client_that_is_turned_away(self) -> None:
        connect(hooks(handle_CONNECT=answering("554 5.7.1 Not you")))
        self.assertEqual(self.lines(), ["turned away: 554 5.7.1 Not you"])

    def test_one_that_is_turned_away_before_its_session_has_its_address(self) -> None:
        connect(max_connections=1).protocol.connections.draining = True
        first = connect(max_connections=1)
        first.protocol.connections.draining = True
        second = type(first.protocol).sharing(first.protocol._settings)
        second.connections = first.protocol.connections
        Client(second, IPv6Address("TCP", "2001:db8::1", 99)).lose()
        (event,) = self.events
        self.assertEqual((event["event"], event["peer"]), ("turned_away", "[2001:db8::1]:99"))

    def test_a_message(self) -> None:
        client = connect()
        client.send(MESSAGE.replace(b"Subject: hi", b"Subject: hi\r\nMESSAGE-id:  <1@x>"))
        (line,) = self.lines()
        self.assertRegex(
            line,
            r"^message accepted from=<a@x\.example> to=<b@y\.example> size=\d+ helo=client\.example "
            r'message_id="<1@x>" took=0\.\d{3}: 250 2\.0\.0 OK$',
        )
        client.send(b"QUIT\r\n")
        client.lose()
        self.assertRegex(self.lines()[1], r"^disconnected after 0\.\d s, 1 message: QUIT$")

    def test_a_refused_message_has_one_line(self) -> None:
        client = connect(hooks(handle_DATA=answering("554 5.6.0 Spam")))
        client.send(MESSAGE)
        (line,) = self.lines()
        self.assertTrue(line.startswith("message refused ") and line.endswith(": 554 5.6.0 Spam"), line)

    def test_lmtp_recipients_have_their_replies_where_they_differ(self) -> None:
        handler = hooks(handle_DATA=answering(["250 2.1.5 Kept", "550 5.2.2 Full"]))
        script = MESSAGE.replace(b"EHLO", b"LHLO").replace(b"DATA\r\n", b"RCPT TO:<c@y.example>\r\nDATA\r\n")
        connect(handler, LMTP).send(script)
        (line,) = self.lines()
        self.assertIn("to=<b@y.example>(250 2.1.5 Kept),<c@y.example>(550 5.2.2 Full) size=", line)

    def test_a_defect_of_a_hook(self) -> None:
        connect(hooks(handle_NOOP=raiser(ZeroDivisionError("a\nb\x1b")))).send(EHLO + b"NOOP\r\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        failed, refused = self.events
        text = text_line(failed)
        self.assertTrue(all(line.startswith("    ") for line in text.split("\n")[1:]), text)
        self.assertNotIn("\x1b", text)
        self.assertIn("ZeroDivisionError", json.loads(json_line(failed))["traceback"])
        self.assertEqual(refused["event"], "refused")

    def test_addresses_are_text(self) -> None:
        connect(host=IPv6Address("TCP", "2001:db8::1", 4321)).send(b"FOO\r\n")
        self.assertIn(" [2001:db8::1]:4321 refused ", text_line(self.events[0]))


class FormTests(LogCase):
    def test_nothing_breaks_a_line(self) -> None:
        client = connect()
        for octets in (b"\x1b[2J", b"\r", b"\x00", "\u2028".encode(), "\u202e".encode(), b"\xff", b'"', b"\\n"):
            client.send(b"EHLO x" + octets + b"y\r\nFOO a" + octets + b"z\r\nMAIL FROM:<" + octets + b"@b>\r\nRSET\r\n")
            client.protocol._errors = 0
        self.assertGreater(len(self.events), 8)
        for event in self.events:
            self.assertTrue(text_line(event).isprintable(), text_line(event))
            self.assertTrue(formatEvent(event).isprintable())
            line = json_line(event)
            self.assertTrue(line.isprintable() and line.isascii(), line)
            self.assertEqual(json.loads(line)["event"], event["event"])

    def test_json_has_nothing_of_twisteds(self) -> None:
        connect().send(b"FOO\r\n")
        found = json.loads(json_line(self.events[0]))
        fields = ["time", "level", "message", "event", "session", "peer", "verb", "code", "reply"]
        self.assertEqual(list(found), fields)
        self.assertRegex(found["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d$")

    def test_an_event_of_another_module_has_the_same_form(self) -> None:
        session = connect().protocol.session
        event = {"log_format": "{session.id}: the next host says {what}", "session": session, "what": "no"}
        self.assertEqual(untimed_text_line(event), f"info {session.id} 192.0.2.1:40000 the next host says no")
        found = json.loads(json_line(event))
        self.assertEqual((found["peer"], found["event"], found["what"]), ("192.0.2.1:40000", "server", "no"))


class BoundTests(LogCase):
    def test_lines_of_a_client_in_a_second(self) -> None:
        clock = Clock()
        client = connect(clock=clock, max_errors=10**6)
        client.send(b"FOO\r\n" * 1000)
        for _ in range(30):
            client.protocol.take_turn()
        left_out = self.named("refused")
        self.assertEqual(len(left_out), LINES_A_SECOND)
        total = client.protocol._errors
        clock.advance(1)
        (event,) = self.named("left_out")
        self.assertEqual(event["count"], total - LINES_A_SECOND)
        self.assertIn(f"\u2026 and {total - LINES_A_SECOND:,} more", text_line(event))
        client.send(b"BAR\r\n")
        self.assertEqual(len(self.named("refused")), LINES_A_SECOND + 1)

    def test_accepted_messages_have_a_line_each(self) -> None:
        client = connect(clock=Clock())
        client.send(EHLO)
        for _ in range(3 * LINES_A_SECOND):
            client.send(MESSAGE.removeprefix(EHLO))
        self.assertEqual(len(self.named("message")), 3 * LINES_A_SECOND)


class SecretTests(LogCase):
    def all_text(self) -> str:
        forms = (text_line, json_line, formatEvent, str)
        return "\n".join(form(event) for event in self.events for form in forms)

    def assertNoSecret(self) -> None:
        text = self.all_text()
        for secret in (SECRET, ENCODED.decode(), base64.b64encode(SECRET.encode()).decode()):
            self.assertNotIn(secret, text)

    def script(self, *lines: bytes) -> Client:
        client = connect(auth_callback=answering(False), auth_require_tls=False, trace=True)
        client.send(EHLO + b"".join(line + b"\r\n" for line in lines))
        return client

    def test_no_mechanism_and_no_mistake_shows_one(self) -> None:
        word = base64.b64encode(SECRET.encode())
        for lines in (
            (b"AUTH PLAIN " + ENCODED,),
            (b"AUTH PLAIN", ENCODED),
            (b"AUTH LOGIN", b"YW5uZQ==", word),
            (b"AUTH LOGIN YW5uZQ==", word),
            (b"AUTH " + ENCODED,),
            (b"auth  plain " + ENCODED + b" x",),
            (b"AUTHPLAIN " + ENCODED,),
            (b" AUTH PLAIN " + ENCODED,),
            (b"AUTH\tPLAIN " + ENCODED,),
            (b"AUTH FOO", b"YW5uZQ==", word),
            (b"AUTH LOGIN !", b"anne", SECRET.encode()),
            (b"AUTH FOO " + ENCODED, b"NOOP", b"anne", SECRET.encode() + b" x"),
            (b"AUTH XOAUTH2 " + base64.b64encode(f"user=anne\1auth=Bearer {SECRET}\1\1".encode()),),
            (b"PASS " + SECRET.encode(),),
        ):
            self.events.clear()
            self.script(*lines).lose()
            self.assertTrue(self.events)
            self.assertNoSecret()

    def test_the_third_unknown_command_is_shown_again(self) -> None:
        self.script(b"AUTH FOO x", b"one", b"two", b"three")
        self.assertIn('refused "***": 500 5.5.1 Command not recognized', self.lines())
        self.assertIn('refused "THREE": 500 5.5.1 Command THREE not recognized', self.lines())

    def test_a_failed_sign_in_is_one_line(self) -> None:
        client = connect(auth_callback=answering(False), auth_require_tls=False)
        client.send(EHLO + b"AUTH PLAIN " + ENCODED + b"\r\n")
        self.assertEqual(self.lines(), ["AUTH PLAIN failed for user 'anne'"])


class BridgeTests(LogCase):
    def test_records_have_the_fields(self) -> None:
        bridge.begin(self)
        self.addCleanup(bridge.end, self)
        with self.assertLogs("mail.log", logging.INFO) as found:
            connect(hooks(handle_NOOP=raiser(KeyError("x")))).send(EHLO + b"VRFY\r\nNOOP\r\n")
        self.flushLoggedErrors(KeyError)
        refused, failed, _ = found.records
        self.assertEqual(
            (refused.levelno, refused.__dict__["verb"], refused.__dict__["code"]), (logging.INFO, "VRFY", 501)
        )
        self.assertEqual(refused.__dict__["peer"], "192.0.2.1:40000")
        self.assertIs(failed.exc_info[0], KeyError)  # type: ignore[index]
        self.assertEqual(failed.levelno, logging.ERROR)

    def test_nothing_goes_there_when_the_last_server_has_ended(self) -> None:
        other = object()
        for user in (self, other):
            bridge.begin(user)
        bridge.end(self)
        self.assertTrue(bridge.is_bridged())
        bridge.end(other)
        bridge.end(other)
        with self.assertNoLogs("mail.log", logging.DEBUG):
            connect().send(b"FOO\r\n")
