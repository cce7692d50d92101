"""The store in memory, and what each store has to do."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.store import IMessageStore, Matching, MemoryStore, NewMessage, SessionFacts, StoredMessage


def new(subject: str = "hi", *, session: str = "s1", body: str = "hello", **options: Any) -> NewMessage:
    content = f"From: Anne <anne@x.example>\r\nTo: Bart <b@y.example>\r\nSubject: {subject}\r\n\r\n{body}\r\n".encode()
    facts = SessionFacts(session)
    return NewMessage(content, "bounces@x.example", (), (Recipient("cate@y.example"),), facts, **options)


class StoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()

    def found(self, **criteria: Any) -> list[int]:
        return [stored.id for stored in self.store.find(Matching(**criteria))]

    def test_it_provides_the_interface(self) -> None:
        verifyObject(IMessageStore, self.store)

    def test_messages_have_rising_numbers_and_are_found_in_order(self) -> None:
        stored = [self.store.add(new()) for _ in range(3)]
        self.assertEqual([one.id for one in stored], [1, 2, 3])
        self.store.delete([3])
        self.assertEqual(self.store.add(new()).id, 4)
        self.assertEqual(self.found(), [1, 2, 4])
        newest = self.store.find(Matching(), limit=2, newest_first=True)
        self.assertEqual([one.id for one in newest], [4, 2])
        self.assertEqual((self.found(after=1, before=4), self.store.count(Matching())), ([2], 3))
        self.assertEqual((self.store.get(2), self.store.get(3)), (stored[1], None))

    def test_search(self) -> None:
        self.store.add(new("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", mailbox="team"))
        self.store.add(new("Bill", session="s2", body="please pay", refusal="554 no"))
        for criteria, ids in (
            ({"subject": "GRÜSSE"}, [1]),
            ({"sender": "bounces@"}, [1]),
            ({"sender": "anne"}, [1]),
            ({"to": "CATE"}, [1]),
            ({"to": "bart"}, [1]),
            ({"text": "hello grüße"}, [1]),
            ({"text": "hello pay"}, []),
            ({"mailbox": "team"}, [1]),
            ({"mailbox": ""}, []),
            ({"refused": True}, [2]),
            ({"refused": None}, [1, 2]),
            ({"refused": None, "session": "s2"}, [2]),
        ):
            self.assertEqual(self.found(**criteria), ids, criteria)
        self.assertEqual(self.store.mailboxes(), {"team": 1})

    def test_read_state_and_tags(self) -> None:
        for _ in range(2):
            self.store.add(new())
        self.assertEqual(self.store.mark([1, 1, 9], seen=True), 1)
        self.assertEqual((self.found(seen=True), self.found(seen=False)), ([1], [2]))
        self.assertEqual(self.store.tag([1, 2], add=["a", "b"]), 2)
        self.store.tag([2], remove=["a"])
        self.assertEqual((self.found(tag="a"), self.found(tag="b")), ([1], [1, 2]))

    def test_a_transcript_goes_with_the_last_message_of_its_session(self) -> None:
        self.store.keep_transcript("s1", "too early")
        for _ in range(2):
            self.store.add(new())
        self.store.keep_transcript("s1", "C: hello")
        self.store.delete([1])
        self.assertEqual(self.store.transcript("s1"), "C: hello")
        self.store.delete([2])
        self.assertEqual(self.store.transcript("s1"), None)

    def test_the_oldest_go_when_there_is_no_room(self) -> None:
        self.store = MemoryStore(max_messages=2, max_octets=1000)
        for _ in range(3):
            self.store.add(new())
        self.assertEqual((self.found(), self.store.dropped), ([2, 3], 1))
        self.store.add(new(body="x" * 2000))
        self.assertEqual(self.found(), [4])
        self.assertRaises(ValueError, MemoryStore, 0)

    def test_who_watches_hears_of_each_message_until_it_stops(self) -> None:
        heard: list[StoredMessage] = []
        stop = self.store.watch(heard.append)
        stored = self.store.add(new())
        stop()
        stop()
        self.store.add(new())
        self.assertEqual(heard, [stored])
        self.store.close()
        self.assertEqual(self.found(refused=None), [])


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
