"""Which octets end a command (RFC 5321 section 2.3.8), and what becomes of the line behind a bad one."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Client, Recorder, codes, connect
from tests.support.tls_dialog import SecureTestCase
from twisted_smtpd.smtp import SMTP

LONG = b"NOOP " + b"x" * 1200


def octet_by_octet(client: Client, data: bytes) -> list[int]:
    return codes(b"".join(client.send(bytes((octet,))) for octet in data))


def at_once(client: Client, data: bytes) -> list[int]:
    return codes(client.send(data))


WAYS: tuple[Callable[[Client, bytes], list[int]], ...] = (at_once, octet_by_octet)


class LineFeedTests(SynchronousTestCase):
    def check(self, data: bytes, expected: list[int], **options: Any) -> None:
        for send in WAYS:
            client = connect(max_errors=1000, **options)
            self.assertEqual(send(client, data), expected, (data, send))

    def test_the_line_behind_one_that_ends_with_lf_is_answered(self) -> None:
        """It was swallowed: the client waited until the timeout."""
        self.check(b"NOOP\nNOOP\r\nNOOP\r\n", [250, 250, 250])
        self.check(b"NOOP\nNOOP\r\nNOOP\r\n", [500, 500, 250], bare_newline="reject")

    def test_no_line_without_an_answer(self) -> None:
        for lines in (b"NOOP\n" * 5, b"\n" * 5, b"FOO\n" * 5, b"\r\n\n\r\n\n\n"):
            self.check(lines, [250 if lines[:4] == b"NOOP" else 500] * 5)
            self.check(lines, [500] * 5, bare_newline="reject")

    def test_with_reject_nothing_behind_a_line_feed_is_carried_out(self) -> None:
        for send in WAYS:
            client = connect(bare_newline="reject", max_errors=1000)
            self.assertEqual(send(client, b"X\nEHLO evil\nRSET\nEHLO evil\r\n"), [500] * 4)
            self.assertIsNone(client.protocol.session.host_name)
            self.assertEqual(send(client, b"EHLO a\r\n"), [250])

    def test_the_tail_of_a_line_that_is_too_long_is_no_command(self) -> None:
        self.check(LONG + b"\nQUIT\r\nNOOP\r\n", [500, 250])
        self.check(LONG + b"\nQUIT\nQUIT\nQUIT\r\nNOOP\r\n", [500, 500, 500, 250])
        self.check(LONG + b"\n" + LONG + b"\nQUIT\r\nNOOP\r\n", [500, 500, 250])
        self.check(LONG + b"\nQUIT\r\nNOOP\r\n", [500, 500, 250], bare_newline="reject")

    def test_a_long_line_behind_one_that_ends_with_lf_has_the_same_answer_however_it_is_split(self) -> None:
        """Seen in one of 7,000 random sessions: 500 either way, but with another text."""
        long = b"x" * 14000
        for policy in ("normalize", "reject"):
            for sent in (long + b"\n" + long, b"NOOP\n" + long, long + b"\nNOOP", b"NOOP\n" + long + b"\nNOOP"):
                sent += b"\r\nNOOP\r\n"
                client = connect(bare_newline=policy)
                split = b"".join(client.send(sent[i : i + 1]) for i in range(len(sent)))
                self.assertEqual(connect(bare_newline=policy).send(sent), split, (policy, sent[:9]))
                self.assertTrue(split.endswith(b"\r\n250 2.0.0 OK\r\n"), split)

    def test_the_longest_line_may_end_either_way(self) -> None:
        for line_end in (b"\r\n", b"\n"):
            self.check(b"NOOP " + b"x" * 505 + line_end, [250])
            self.check(b"NOOP " + b"x" * 506 + line_end, [500])

    def test_what_a_command_waits_for_may_end_so_too(self) -> None:
        login = base64.b64encode(b"\0anne\0secret")
        options: dict[str, Any] = {"auth_require_tls": False, "auth_callback": lambda *arguments: True}
        self.check(b"EHLO a\nAUTH PLAIN\n" + login + b"\nNOOP\n", [250, 334, 235, 250], **options)
        self.check(b"EHLO a\r\nAUTH PLAIN\r\n" + login + b"\r\r\nNOOP\r\n", [250, 334, 501, 250], **options)
        self.check(b"EHLO a\r\nAUTH PLAIN\r\n" + login + b"\n", [250, 334, 500], bare_newline="reject", **options)

    def test_a_message_ends_with_crlf_however_its_commands_end(self) -> None:
        handler = Recorder()
        client = connect(handler)
        envelope = b"HELO a\nMAIL FROM:<a@b.example>\nRCPT TO:<c@d.example>\nDATA\n"
        self.assertEqual(codes(client.send(envelope + b"a\n.\nQUIT\n.\n\r\n.\r\nNOOP\n"))[-2:], [250, 250])
        self.assertEqual(handler.contents, [b"a\r\n.\r\nQUIT\r\n.\r\n\r\n"])

    def test_a_subclass_gets_the_line_without_its_end(self) -> None:
        heard: list[bytes] = []

        class Listening(SMTP):
            def lineReceived(self, line: bytes) -> None:
                heard.append(line)
                super().lineReceived(line)

        connect(protocol=Listening).send(b"NOOP\nNOOP a\r\n")
        self.assertEqual(heard, [b"NOOP", b"NOOP a"])


class InjectionTests(SecureTestCase):
    def test_what_stands_behind_starttls_is_injected_however_its_line_ends(self) -> None:
        for rest in (b"NOOP\r\n", b"NOOP\n", b"N", b"\n", b"\r\n", b"\r", b"\0"):
            peer = self.connect(tls_context=self.files())
            self.assertEqual(codes(peer.send(b"EHLO a\nSTARTTLS\n" + rest)), [250, 421], rest)
            self.assertTrue(peer.closed)
            self.assertFalse(peer.transport.TLS)

    def test_starttls_may_end_with_lf(self) -> None:
        peer = self.connect(tls_context=self.files())
        self.assertEqual(codes(peer.send(b"EHLO a\nSTARTTLS\n")), [250, 220])
        self.assertTrue(peer.transport.TLS)
