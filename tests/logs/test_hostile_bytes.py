"""Whatever a client, a proxy or a hook puts into the log: a line stays a line, and a terminal obeys nothing in it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from twisted.logger import formatEvent, formatEventAsClassicLogText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.auth_helpers import dial
from tests.support.fakes import EHLO, Client, answering, connect, hooks, raiser
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.logs.forms import json_line, text_line, untimed_text_line
from twisted_smtpd.wire.replies import SMTPReplyError

# Escape sequences, C1 controls, line ends of all kinds, bidirectional controls, what is no character, quotes.
PIECES: tuple[bytes, ...] = (
    *(b"\x1b[2J", b"\x07", b"\x00", b"\x7f", b"\x9b2J", b"\r", b"\x0b", b"\x0c", b"\x1c", b"\t"),
    *(text.encode() for text in ("\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\ufeff", "\U000e0001", "\ud7ff")),
    *(b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x8a", b'"', b"\\", b"'", b"\\n", b"%s", b"{session}", b"\xf0\x9f\x98\x80"),
    # What somebody would like to see as a line of its own.
    b" warn 1 198.51.100.66:25 AUTH PLAIN failed for user 'root'",
)


def in_commands(piece: bytes) -> Client:
    client = connect(trace=True, max_errors=1000)
    client.send(
        b'EHLO a%sb\r\nFOO%s x\r\nMAIL FROM:<a%sb@x.example>\r\nMAIL FROM:<"a%sb"@x.example> SMTPUTF8\r\n'
        b"VRFY %s\r\nRCPT TO:<a%sb@x.example> ORCPT=rfc822;%s\r\nRSET\r\n" % ((piece,) * 7)
    )
    return client


def in_a_message(piece: bytes) -> Client:
    client = connect(trace=True)
    client.send(EHLO + b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
    client.send(b"Message-ID: <%s@x>\r\nSubject: %s\r\n\r\n%s\r\n.\r\n" % ((piece.replace(b"\r", b"\x0d\x0d"),) * 3))
    return client


def in_an_envelope_of_a_hook(piece: bytes) -> Client:
    text = piece.decode("utf-8", "replace")

    def handle_MAIL(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        session.host_name, envelope.mail_from = text, f"a{text}b"
        return "250 OK"

    def handle_RCPT(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        envelope.rcpt_tos.append(f"<{text}>")
        return "250 OK"

    client = connect(hooks(handle_MAIL=handle_MAIL, handle_RCPT=handle_RCPT), trace=True)
    client.send(EHLO + b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nx\r\n.\r\n")
    return client


def in_a_sign_in(piece: bytes) -> Client:
    client = dial(trace=True, max_errors=1000, max_auth_failures=1000)
    client.send(b"AUTH PLAIN " + b64encode(b"\0a%sb\0x" % piece) + b"\r\n")
    client.send(b"AUTH LOGIN\r\n" + b64encode(b"a" + piece) + b"\r\n" + b64encode(piece) + b"\r\n")
    client.send(b"AUTH %s x\r\n%s\r\n%s\r\n%s\r\n" % ((piece,) * 4))
    return client


def in_replies(piece: bytes) -> Client:
    text = piece.decode("utf-8", "replace")
    client = connect(
        hooks(
            handle_NOOP=answering(f"550 no {text} more"),
            handle_VRFY=raiser(SMTPReplyError(550, "5.1.1", f"no {text}")),
            handle_RSET=raiser(ValueError(text)),
        ),
        LMTP,
        trace=True,
    )
    client.send(EHLO.replace(b"EHLO", b"LHLO") + b"NOOP\r\nVRFY x\r\nRSET\r\n")
    return client


def in_what_a_proxy_says(piece: bytes) -> Client:
    xclient = connect(xclient_from=["192.0.2.1"], trace=True, max_errors=1000)
    quoted = b"".join(b"+%02X" % octet for octet in piece)
    xclient.send(EHLO)
    for name in (b"NAME", b"HELO", b"LOGIN", b"ADDR", b"PORT", b"PROTO"):
        xclient.send(b"XCLIENT %s=%s\r\nEHLO x\r\nXCLIENT %s=%s\r\nEHLO x\r\n" % (name, quoted, name, piece))
    return xclient


def in_a_proxy_header(piece: bytes) -> Client:
    client = connect(proxy_protocol_timeout=5, trace=True)
    client.send(b"PROXY TCP4 %s 192.0.2.2 1 2\r\n" % piece)
    return client


FIELDS: tuple[Callable[[bytes], Client], ...] = (
    in_commands,
    in_a_message,
    in_an_envelope_of_a_hook,
    in_a_sign_in,
    in_replies,
    in_what_a_proxy_says,
    in_a_proxy_header,
)


class HostileBytesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def test_a_line_stays_a_line(self) -> None:
        for fill in FIELDS:
            for piece in PIECES:
                self.events.clear()
                fill(piece).lose()
                self.flushLoggedErrors()
                self.assertTrue(self.events, (fill, piece))
                for event in self.events:
                    self.check(event, (fill.__name__, piece))

    def check(self, event: Any, about: object) -> None:
        for form in (text_line, untimed_text_line, formatEvent, formatEventAsClassicLogText):
            text = str(form(event)).removesuffix("\n")
            first, *more = text.split("\n")
            self.assertTrue(first.isprintable(), (about, form, first))
            # Only a traceback has more lines; they are indented, so that none is taken for an event.
            for line in more:
                if form is not formatEventAsClassicLogText and "log_failure" in event and form is not formatEvent:
                    self.assertTrue(line.startswith("    ") and line.isprintable(), (about, form, line))
        line = json_line(event)
        self.assertTrue(line.isascii() and line.isprintable(), (about, line))
        self.assertIn("message", json.loads(line))
