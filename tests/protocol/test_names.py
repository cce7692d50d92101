"""The names that clients give themselves, and other lenient readings of what can mean one thing only."""

from __future__ import annotations

from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import codes, connect, hooks
from twisted_smtpd.handlers.received import received_header


def note(heard: list[str], server: object, session: object, envelope: object, hostname: str) -> str:
    heard.append(hostname)
    return "250 OK"


class NameTests(SynchronousTestCase):
    """RFC 5321 section 4.1.4: no client is refused for its name."""

    def test_the_name_as_hooks_and_headers_have_it(self) -> None:
        for said, name, in_header in (
            (b"my pc", "my pc", "my?pc"),
            (b"b\xc3\xbcro", "b\xfcro", "b?ro"),
            (b"b\xfcro", "b\ufffdro", "b?ro"),
            (b"a\tb", "a?b", "a?b"),
            (b"x (y) by z", "x (y) by z", "x??y??by?z"),
        ):
            for verb in (b"HELO ", b"EHLO ", b"ehlo  "):
                heard: list[str] = []
                hook = partial(note, heard)
                client = connect(hooks(handle_HELO=hook, handle_EHLO=hook))
                self.assertEqual(codes(client.send(verb + said + b"\r\n"))[-1], 250)
                self.assertEqual(heard, [name])
                protocol = client.protocol
                self.assertEqual(protocol.session.host_name, name)
                header = received_header(protocol, protocol.session, protocol.envelope)
                self.assertTrue(header.startswith(f"Received: from {in_header} ([192.0.2.1])\r\n".encode()), header)

    def test_control_characters_are_an_error(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(b"EHLO a\x1b[2J\r\nEHLO \xff\0\r\nEHLO a\rb\r\n")), [500, 500, 500])
        self.assertIsNone(client.protocol.session.host_name)


class LenientTests(SynchronousTestCase):
    def test_size_and_body_after_helo(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(b"HELO a\r\nMAIL FROM:<a@b> SIZE=10 BODY=8BITMIME\r\n")), [250, 250])
        self.assertEqual(client.protocol.envelope.mail_options, ["SIZE=10", "BODY=8BITMIME"])

    def test_what_a_client_has_to_be_told_of_needs_ehlo(self) -> None:
        for command in (b"MAIL FROM:<a@b> SMTPUTF8", b"MAIL FROM:<a@b> SIZE=10 REQUIRETLS", b"MAIL FROM:<a@b> X=1"):
            self.assertEqual(codes(connect().send(b"HELO a\r\n" + command + b"\r\n")), [250, 555])
        client = connect()
        self.assertEqual(codes(client.send(b"HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b> NOTIFY=NEVER\r\n"))[-1], 555)

    def test_quit_goes_with_an_argument_too(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(b"QUIT foo\r\n")), [221])
        self.assertTrue(client.closed)
