"""Session and envelope: what is there at the start, and names that are told apart in a log."""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.session import Envelope, Recipient, Session


class SessionTests(SynchronousTestCase):
    def test_at_the_start(self) -> None:
        session = Session()
        for name in ("peer", "proxy_peer", "proxy_data", "ssl", "host_name", "auth_data", "login_data", "loop"):
            self.assertIsNone(getattr(session, name), name)
        self.assertFalse(session.tls)
        self.assertFalse(session.extended_smtp)
        self.assertFalse(session.authenticated)

    def test_the_loop_is_kept(self) -> None:
        loop = cast(Any, object())
        self.assertIs(Session(loop).loop, loop)

    def test_the_id_is_one_word_and_stays(self) -> None:
        sessions = [Session() for _ in range(100)]
        names = [session.id for session in sessions]
        self.assertEqual(names, [session.id for session in sessions])
        self.assertEqual(len(set(names)), 100)
        for name in names:
            self.assertTrue(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", name), name)

    def test_repr_has_what_a_log_needs_and_no_secret(self) -> None:
        session = Session()
        session.peer = ("192.0.2.1", 5)
        session.auth_data = session.login_data = "hunter2"
        self.assertIn(session.id, repr(session))
        self.assertIn("192.0.2.1", repr(session))
        self.assertNotIn("hunter2", repr(session))

    def test_a_session_that_is_renewed_forgets_what_was_said(self) -> None:
        before, session = Session(), Session()
        before.peer, before.tls, before.proxy_data = ("192.0.2.1", 5), True, "proxied"
        before.host_name, before.extended_smtp, before.authenticated = "client.example", True, True
        before.auth_data = before.login_data = "someone"
        session.inherit(before)
        self.assertEqual((session.id, session.peer, session.tls), (before.id, before.peer, True))
        self.assertEqual(session.proxy_data, "proxied")
        for name in ("host_name", "auth_data", "login_data"):
            self.assertIsNone(getattr(session, name), name)
        self.assertFalse(session.extended_smtp or session.authenticated)

    def test_a_program_may_add_attributes(self) -> None:
        session = Session()
        cast(Any, session).mine = 1
        self.assertEqual(cast(Any, session).mine, 1)


class EnvelopeTests(SynchronousTestCase):
    def test_at_the_start(self) -> None:
        envelope = Envelope()
        self.assertIsNone(envelope.mail_from)
        self.assertIsNone(envelope.content)
        self.assertIsNone(envelope.original_content)
        self.assertFalse(envelope.smtp_utf8)
        for name in ("mail_options", "rcpt_tos", "rcpt_options", "recipients"):
            self.assertEqual(getattr(envelope, name), [], name)
        self.assertEqual(envelope.mail_parameters, {})

    def test_nothing_is_shared(self) -> None:
        one, other = Envelope(), Envelope()
        one.rcpt_tos.append("a@x.example")
        one.mail_parameters["SIZE"] = "1"
        self.assertEqual((other.rcpt_tos, other.mail_parameters), ([], {}))
        first, second = Recipient("a"), Recipient("b")
        first.options.append("X")
        self.assertEqual(second.options, [])

    def test_content_as_bytes_whatever_it_is(self) -> None:
        envelope = Envelope()
        self.assertEqual(envelope.content_bytes, b"")
        for content in (b"", b"\xff\x00", "", "gr\u00fc\u00dfe", b"\xff \xc3\xbc".decode("utf-8", "surrogateescape")):
            envelope.content = content
            expected = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
            self.assertEqual(envelope.content_bytes, expected)
        self.assertEqual(envelope.content_bytes, b"\xff \xc3\xbc", "no byte that the client sent is changed")

    def test_repr_has_no_content(self) -> None:
        envelope = Envelope()
        envelope.mail_from = "a@x.example"
        envelope.rcpt_tos.append("b@y.example")
        envelope.content = b"private"
        self.assertEqual(repr(envelope), "<Envelope from='a@x.example' to=['b@y.example']>")
