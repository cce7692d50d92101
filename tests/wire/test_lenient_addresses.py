"""Paths that no RFC allows and that all others take, since they mean only one thing."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Recorder, codes, connect
from twisted_smtpd.wire.addresses import parse_mailbox, parse_path, plain_path
from twisted_smtpd.wire.replies import SMTPReplyError

LOCAL_PARTS = ("local.", ".local", "a..b", "..", ".", "a...b.", "é..b")


class DotTests(SynchronousTestCase):
    """docomo's customers, and HPE's iLO, have such addresses."""

    def test_dots_anywhere_in_a_local_part(self) -> None:
        for local in LOCAL_PARTS:
            address = f"{local}@x.example"
            for text in (f"<{address}>", address, f"< {address} >", f"<@a.example:{address}>"):
                self.assertEqual(parse_path(text), (address, ""))
            self.assertEqual(parse_mailbox(address), address)
            plain = (address, "SIZE=1") if address.isascii() else None
            self.assertEqual(plain_path(f"FROM:<{address}> SIZE=1", "FROM:"), plain)

    def test_dots_in_a_domain_are_not_taken(self) -> None:
        for domain in ("a.", ".a", "a..b", "."):
            for text in (f"<a@{domain}>", f"a@{domain}"):
                self.assertRaises(SMTPReplyError, parse_path, text)
                self.assertIsNone(plain_path(f"TO:{text}", "TO:"))

    def test_a_quoted_string_that_is_needed_stays(self) -> None:
        """The next host may insist on it."""
        for local in ('"a..b"', '".a"', '"a."'):
            self.assertEqual(parse_path(f"<{local}@x>"), (f"{local}@x", ""))

    def test_in_a_transaction(self) -> None:
        handler = Recorder()
        client = connect(handler)
        envelope = b"EHLO a\r\nMAIL FROM:<local.@x.example>\r\nRCPT TO:<a..b@y.example>\r\nDATA\r\n.\r\n"
        self.assertEqual(codes(client.send(envelope)), [250, 250, 250, 354, 250])
        (taken,) = handler.envelopes
        self.assertEqual((taken.mail_from, taken.rcpt_tos), ("local.@x.example", ["a..b@y.example"]))


class UntidyTests(SynchronousTestCase):
    def test_blanks_inside_of_the_brackets(self) -> None:
        for text in ("< a@b >", "<a@b >", "<\ta@b>", "<  @c:a@b\t>"):
            self.assertEqual(parse_path(text + " SIZE=1"), ("a@b", "SIZE=1"))
        self.assertEqual(parse_path('< "a b"@c >'), ('"a b"@c', ""))

    def test_a_semicolon_behind_the_brackets(self) -> None:
        for text in ("<a@b>;", "< a@b >;"):
            self.assertEqual(parse_path(text + " SIZE=1"), ("a@b", "SIZE=1"))
            self.assertEqual(parse_path(text), ("a@b", ""))
        self.assertEqual(parse_path("<>; SIZE=1", null=True), ("", "SIZE=1"))
        self.assertEqual(parse_path("<>;", null=True), ("", ""))

    def test_what_means_more_than_one_thing_is_refused(self) -> None:
        for text in ("<a @b>", "<a@ b>", "<a b@c>", "<a@b>;;", "<a@b>;X", "<>;x", "< >", "<a@b;>", "a@b;"):
            self.assertRaises(SMTPReplyError, parse_path, text, null=True)

    def test_in_a_transaction(self) -> None:
        client = connect()
        said = client.send(b"EHLO a\r\nMAIL FROM:< a@b >; SIZE=9\r\nRCPT TO:<c@d>;\r\n")
        self.assertEqual(codes(said), [250] * 3)
        self.assertEqual(client.protocol.envelope.mail_from, "a@b")

    def test_long_ones_are_given_up_in_linear_time(self) -> None:
        began = time.perf_counter()
        for text in ("<" + " " * 100_000, "<a" + " " * 100_000, "<" + "." * 100_000, "<a@b" + " " * 100_000 + ";"):
            self.assertRaises(SMTPReplyError, parse_path, text)
        self.assertLess(time.perf_counter() - began, 5)


class DefaultDomainTests(SynchronousTestCase):
    """``MAIL FROM:<root>``: refused, or with ``default_domain`` an address of that domain."""

    def test_without_it_a_domain_is_needed(self) -> None:
        client = connect()
        self.assertEqual(codes(client.send(b"EHLO a\r\nMAIL FROM:<root>\r\n")), [250, 553])

    def test_it_is_added_to_what_has_none(self) -> None:
        client = connect(default_domain="lan.example")
        said = client.send(b'EHLO a\r\nMAIL FROM:<root>\r\nRCPT TO:<root>\r\nRCPT TO:<a@b>\r\nRCPT TO:"x y"\r\n')
        self.assertEqual(codes(said), [250, 250, 250, 250, 501])
        envelope = client.protocol.envelope
        self.assertEqual((envelope.mail_from, envelope.rcpt_tos), ("root@lan.example", ["root@lan.example", "a@b"]))

    def test_postmaster_and_the_null_path_stay_as_they_are(self) -> None:
        client = connect(default_domain="lan.example")
        self.assertEqual(codes(client.send(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\n")), [250] * 3)
        self.assertEqual(client.protocol.envelope.rcpt_tos, ["Postmaster"])

    def test_the_whole_address_counts(self) -> None:
        local = "a" * 240
        self.assertEqual(parse_path(f"<{local}>", default_domain="x.example")[0], f"{local}@x.example")
        self.assertRaises(SMTPReplyError, parse_path, f"<{local}>", default_domain="long.example.com")

    def test_it_is_a_host_name(self) -> None:
        for name in ("", "a b", "@x", "a\r\nb"):
            self.assertRaises(ValueError, connect, default_domain=name)
