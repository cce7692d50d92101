"""The store in memory, and what goes into stores."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.store.contract import StoreTests, new
from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.store import Matching, MemoryStore, NewMessage, SessionFacts


class MemoryStoreTests(StoreTests, TestCase):
    now = 0.0

    async def make(self, **options: Any) -> MemoryStore:
        return MemoryStore(**options, seconds=lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def test_it_keeps_at_least_one(self) -> None:
        self.assertRaises(ValueError, MemoryStore, 0)

    def test_what_is_cleared_does_not_come_back(self) -> None:
        store = MemoryStore()
        for _ in range(2):
            store.add(new())
        store.delete([1])
        store.clear()
        self.assertEqual((store.find(Matching()), store.restore([1, 2]), store.add(new()).id), ([], 0, 3))
        store.close()
        self.assertEqual(store.find(Matching(refused=None)), [])


class NewMessageTests(SynchronousTestCase):
    def test_it_is_made_of_what_a_hook_is_given(self) -> None:
        session, envelope = Session(), Envelope()
        session.host_name, session.authenticated, session.login_data = "client.example", True, b"anne"
        envelope.mail_from, envelope.content = "<>", "decoded ö"
        envelope.recipients.append(Recipient("b@y.example"))
        message = NewMessage.of(session, envelope, mailbox="team")
        self.assertEqual((message.mail_from, message.content, message.mailbox), ("", "decoded ö".encode(), "team"))
        facts = message.session
        self.assertEqual((facts.user, facts.helo, facts.tls, facts.id), ("anne", "client.example", None, session.id))

    def test_headers_that_python_can_not_parse_are_no_error(self) -> None:
        for line in (b"From: \xff <@@>\r\n", b"To: a@[\r\n", b"Subject: =?utf-8?b?!!?=\r\n", b"To: =?x?q?=00?=\r\n"):
            message = NewMessage(line + b"\r\nx", "", (), (), SessionFacts("1"))
            self.assertIsInstance((message.subject, *message.senders, *message.addressees), tuple)

    def test_its_mailboxes_are_those_given_and_its_mailbox_is_the_first(self) -> None:
        for options, mailboxes in (({}, ("",)), ({"mailbox": "a"}, ("a",)), ({"mailboxes": ("b", "a")}, ("b", "a"))):
            message = NewMessage(b"", "", (), (), SessionFacts("1"), **options)  # type: ignore[arg-type]
            self.assertEqual((message.mailboxes, message.mailbox), (mailboxes, mailboxes[0]))
