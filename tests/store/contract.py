"""What each store has to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from zope.interface.verify import verifyObject

from twisted_smtpd.session import Recipient
from twisted_smtpd.store import Address, Change, Counts, IMessageStore, Matching, NewMessage, SessionFacts, parse_query

TestMethod = Callable[[Any], Awaitable[None]]


def new(
    subject: str = "hi", *, session: str = "s1", body: str = "hello", to: str = "b@y.example", **options: Any
) -> Any:
    content = f"From: Anne <anne@x.example>\r\nTo: Bart <{to}>\r\nSubject: {subject}\r\n\r\n{body}\r\n".encode()
    facts = SessionFacts(session)
    return NewMessage(content, "bounces@x.example", (), (Recipient("cate@y.example"),), facts, **options)


def synchronous(test: TestMethod) -> Callable[[Any], Deferred[None]]:
    """A test written as a coroutine."""

    def run(self: Any) -> Deferred[None]:
        return ensureDeferred(test(self))

    run.__name__, run.__qualname__ = test.__name__, test.__qualname__
    return run


class StoreContract:
    """The tests; a test case mixes them in and says how to make a store."""

    store: Any

    async def make(self, **options: Any) -> Any:
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        raise NotImplementedError

    async def do(self, name: str, *arguments: Any, **options: Any) -> Any:
        return await maybeDeferred(getattr(self.store, name), *arguments, **options)

    async def found(self, query: str = "", **criteria: Any) -> list[int]:
        matching = Matching(terms=parse_query(query), **criteria)
        ids: list[int] = await self.do("ids", matching)
        # What is found in another way is the same.
        self.assertEqual([stored.id for stored in await self.do("find", matching)], ids)  # type: ignore[attr-defined]
        summaries = await self.do("summaries", matching, newest_first=False)
        self.assertEqual([summary.id for summary in summaries], ids)  # type: ignore[attr-defined]
        self.assertEqual(await self.do("count", matching), len(ids))  # type: ignore[attr-defined]
        unread = sum(not summary.seen for summary in summaries)
        self.assertEqual(await self.do("tally", matching), (len(ids), unread))  # type: ignore[attr-defined]
        return ids


class StoreTests(StoreContract):
    assertEqual: Any

    @synchronous
    async def test_it_provides_the_interface(self) -> None:
        self.store = await self.make()
        verifyObject(IMessageStore, self.store)

    @synchronous
    async def test_messages_have_rising_numbers_and_are_found_in_order(self) -> None:
        self.store = await self.make()
        stored = [await self.do("add", new()) for _ in range(3)]
        self.assertEqual([one.id for one in stored], [1, 2, 3])
        await self.do("delete", [3])
        self.assertEqual((await self.do("add", new())).id, 4)
        self.assertEqual(await self.found(), [1, 2, 4])
        newest = await self.do("find", Matching(), limit=2, newest_first=True)
        self.assertEqual([one.id for one in newest], [4, 2])
        shown = await self.do("summaries", Matching(), limit=2, offset=1)
        self.assertEqual([one.id for one in shown], [2, 1])
        self.assertEqual(await self.found(after=1, before=4), [2])
        self.assertEqual((await self.do("get", 2), await self.do("get", 3)), (stored[1], None))
        self.assertEqual(await self.do("ids", Matching(), limit=2), [1, 2])

    @synchronous
    async def test_a_message_comes_back_as_it_went_in(self) -> None:
        self.store = await self.make()
        facts = SessionFacts("s1", ("2001:db8::1", 4711, 0, 0), "client.example", True, "TLSv1.3", "anne")
        recipients = (
            Recipient("ö@y.example", ["NOTIFY=SUCCESS", "X"], {"NOTIFY": "SUCCESS", "X": None}),
            Recipient("b@y.example"),
        )
        content = bytes(range(256)) * 5
        message = NewMessage(content, "", ("SIZE=4", "BODY=8BITMIME"), recipients, facts, refusal="554 5.7.1 no")
        stored = await self.do("add", message)
        back = await self.do("get", stored.id)
        self.assertEqual((back, back.message.recipients, back.message.session), (stored, recipients, facts))

    @synchronous
    async def test_search_by_criteria(self) -> None:
        self.store = await self.make()
        await self.do("add", new("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", mailbox="team"))
        await self.do("add", new("Bill", session="s2", body="please pay", refusal="554 no"))
        for criteria, ids in (
            ({"subject": "GRÜSSE"}, [1]),
            ({"subject": "ü"}, [1]),
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
            self.assertEqual(await self.found(**criteria), ids, criteria)

    @synchronous
    async def test_signs_that_patterns_have_stand_for_themselves(self) -> None:
        self.store = await self.make()
        long = "y" * 900 + "*"
        for subject in ("a*b?c[d]e", "aXbYcde", long):
            await self.do("add", new(subject, body=f"{subject} {'z' * 2000}"))
        for text, found in (
            *(("a*b", 1), ("b?c", 1), ("c[d]e", 1), ("*", 2), ("?", 1), ("[d", 1), ("]e", 1), ("axb", 1)),
            *(("a?b", 0), ("[a]x", 0), (long, 1), (long[:-1], 1), ("z" * 1500, 3), ("z" * 1500 + "*", 0), ("c\0d", 0)),
        ):
            self.assertEqual((text, await self.do("count", Matching(text=text))), (text, found))

    @synchronous
    async def test_search_by_query(self) -> None:
        self.store = await self.make()
        noon = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
        await self.do("add", new("Invoice 4711 50%_off", body='say "x* OR y" AND (z)', received=noon))
        await self.do("add", new("Lunch", to="dora+team@z.example", body="pizza " * 400, mailboxes=("dora", "Team A")))
        await self.do("add", new("Refused", refusal="554 no", body="=C3=B6 <html> a'b\\c"))
        await self.do("mark", [2], True)
        await self.do("tag", [1], ["Paid"])
        for query, ids in (
            ("voice", [1]),
            ("VOICE 4711", [1]),
            ('"invoice 4711"', [1]),
            ('"4711 invoice"', []),
            ("50%_off", [1]),
            ("50%xoff", []),
            ('"OR y"', [1]),
            ("x* OR y", []),
            ("PIZ ZZA", [2]),
            ("NEAR(pizza)", []),
            ("from:anne", [1, 2]),
            ("from:bounces@x.example", [1, 2]),
            ("from:bart", []),
            ("-voice", [2]),
            ("!from:anne", []),
            ("to:bart to:team", [2]),
            ("bcc:cate", [1, 2]),
            ("addressed:dora+", [2]),
            ("cc:b", []),
            ("subject:in", [1]),
            ("subject:l", [2]),
            ("zz", []),
            ("zza", [2]),
            ("lu", [2]),
            ("is:read", [2]),
            ("is:unread -is:tagged", []),
            ("is:tagged", [1]),
            ("has:tags", [1]),
            ("tag:PAID", [1]),
            ("-tag:paid", [2]),
            ("is:refused", [3]),
            ("-is:refused", [1, 2]),
            ("has:attachment", []),
            ("mailbox:dora", [2]),
            ('mailbox:"team a"', [2]),
            ("-mailbox:dora", [1]),
            ("before:2026-02-01", [1]),
            ("after:2026-01-31 before:2026-02-01", [1]),
            ("-before:2026-02-01", [2]),
            ("larger:1K", [2]),
            ("smaller:1K", [1]),
            ("pizza*", []),
            ("\x00", []),
            ("'", []),
            ('""', [1, 2]),
        ):
            self.assertEqual(await self.found(query), ids, query)

    @synchronous
    async def test_what_a_list_shows(self) -> None:
        self.store = await self.make()
        noon = datetime(2026, 1, 31, 12, 0, 0, 250000, tzinfo=timezone.utc)
        await self.do("add", new("Lunch", body="  some\r\n text", received=noon, mailboxes=("b", "a")))
        await self.do("tag", [1], ["y", "x"])
        [summary] = await self.do("summaries", Matching())
        self.assertEqual(summary.sender, Address("Anne", "anne@x.example"))
        self.assertEqual(summary.to, (Address("Bart", "b@y.example"),))
        self.assertEqual(summary.bcc, (Address("", "cate@y.example"),))
        self.assertEqual((summary.subject, summary.snippet, summary.received), ("Lunch", "some text", noon))
        self.assertEqual((summary.tags, summary.seen, summary.mailboxes), (("x", "y"), False, ("b", "a")))
        self.assertEqual((summary.recipients, summary.mail_from), (("cate@y.example",), "bounces@x.example"))

    @synchronous
    async def test_read_state_and_tags(self) -> None:
        self.store = await self.make()
        for _ in range(2):
            await self.do("add", new())
        self.assertEqual(await self.do("mark", [1, 1, 9], seen=True), 1)
        self.assertEqual((await self.found(seen=True), await self.found(seen=False)), ([1], [2]))
        self.assertEqual(await self.do("tag", [1, 2], add=["a", "b"]), 2)
        await self.do("tag", [2], remove=["a"])
        self.assertEqual((await self.found(tag="a"), await self.found(tag="b")), ([1], [1, 2]))
        self.assertEqual(await self.do("tags"), {"a": 1, "b": 2})

    @synchronous
    async def test_a_message_in_several_mailboxes_counts_in_each(self) -> None:
        self.store = await self.make()
        await self.do("add", new(mailboxes=("b", "a")))
        await self.do("add", new(mailboxes=("a",), refusal="554 no"))
        await self.do("add", new(mailbox="a"))
        await self.do("mark", [3], True)
        self.assertEqual(await self.do("mailboxes"), {"a": Counts(2, 1, 1), "b": Counts(1, 1, 0)})
        self.assertEqual(list(await self.do("mailboxes")), ["a", "b"])
        self.assertEqual((await self.do("counts"), await self.do("counts", "b")), (Counts(2, 1, 1), Counts(1, 1, 0)))
        self.assertEqual(await self.do("counts", "c"), Counts())

    @synchronous
    async def test_what_is_deleted_can_be_brought_back_for_ten_minutes(self) -> None:
        self.store = await self.make()
        for _ in range(3):
            await self.do("add", new("Lunch"))
        self.assertEqual(await self.do("delete", [1, 3, 3, 9]), 2)
        self.assertEqual((await self.found(), await self.found("lunch"), await self.do("get", 1)), ([2], [2], None))
        self.assertEqual(await self.do("counts"), Counts(1, 1, 0))
        self.assertEqual(await self.do("mark", [1], True), 0)
        self.assertEqual(await self.do("restore", [1, 2, 9]), 1)
        self.assertEqual((await self.found(), await self.found("lunch")), ([1, 2], [1, 2]))
        self.pass_time(601)
        self.assertEqual((await self.do("restore", [3]), await self.found()), (0, [1, 2]))

    @synchronous
    async def test_a_transcript_goes_with_the_last_message_of_its_session(self) -> None:
        self.store = await self.make()
        await self.do("keep_transcript", "s1", "too early")
        for _ in range(2):
            await self.do("add", new())
        await self.do("keep_transcript", "s1", "C: hello")
        await self.do("delete", [1])
        self.pass_time(601)
        self.assertEqual(await self.do("transcript", "s1"), "C: hello")
        await self.do("delete", [2])
        self.assertEqual(await self.do("restore", [2]), 1)
        self.assertEqual(await self.do("transcript", "s1"), "C: hello")
        await self.do("delete", [2])
        self.pass_time(601)
        await self.do("purge")
        self.assertEqual(await self.do("transcript", "s1"), None)

    @synchronous
    async def test_the_oldest_go_when_there_are_too_many(self) -> None:
        self.store = await self.make(max_messages=2)
        for _ in range(3):
            await self.do("add", new("Lunch"))
        self.assertEqual((await self.found(), await self.found("lunch"), self.store.dropped), ([2, 3], [2, 3], 1))

    @synchronous
    async def test_the_oldest_go_when_they_are_too_large(self) -> None:
        self.store = await self.make(max_octets=1000)
        for _ in range(3):
            await self.do("add", new(body="x" * 300))
        self.assertEqual(await self.found(), [2, 3])
        await self.do("add", new(body="x" * 2000))
        self.assertEqual(await self.found(), [4])

    @synchronous
    async def test_what_is_deleted_makes_room_first(self) -> None:
        self.store = await self.make(max_messages=2)
        for _ in range(2):
            await self.do("add", new())
        await self.do("delete", [2])
        await self.do("add", new())
        self.assertEqual((await self.found(), await self.do("restore", [2])), ([1, 3], 0))

    @synchronous
    async def test_who_watches_hears_of_each_message_until_it_stops(self) -> None:
        self.store = await self.make()
        heard: list[Any] = []
        stop = self.store.watch(heard.append)
        stored = await self.do("add", new())
        self.assertEqual(heard, [stored])
        stop()
        stop()
        await self.do("add", new())
        self.assertEqual(heard, [stored])

    @synchronous
    async def test_who_watches_changes_hears_of_all(self) -> None:
        self.store = await self.make(max_messages=2)
        heard: list[Change] = []
        stop = self.store.watch_changes(heard.append)
        await self.do("add", new("One"))
        await self.do("add", new("Two"))
        await self.do("mark", [1, 2, 9], True)
        await self.do("mark", [1], False)
        await self.do("tag", [2], ["x"])
        await self.do("mark", [9], True)
        await self.do("delete", [1])
        await self.do("restore", [1])
        await self.do("add", new("Three"))
        stop()
        await self.do("mark", [2], True)
        self.assertEqual(
            [(change.kind, change.ids) for change in heard],
            [
                ("new", (1,)),
                ("new", (2,)),
                ("seen", (1, 2)),
                ("unseen", (1,)),
                ("tags", (2,)),
                ("deleted", (1,)),
                ("restored", (1,)),
                ("new", (3,)),
                ("deleted", (1,)),
            ],
        )
        first = heard[0].number
        self.assertEqual([change.number - first for change in heard], list(range(9)))
        self.assertEqual([change.summary and change.summary.subject for change in heard[:3]], ["One", "Two", None])

    @synchronous
    async def test_a_change_names_the_mailboxes_of_its_messages(self) -> None:
        """Listeners of one mailbox hear nothing of the others."""
        self.store = await self.make(max_messages=2)
        heard: list[Change] = []
        self.store.watch_changes(heard.append)
        await self.do("add", new(mailboxes=("a", "b")))
        await self.do("add", new(mailbox="c"))
        await self.do("mark", [1, 2], True)
        await self.do("tag", [2], ["x"])
        await self.do("delete", [1])
        await self.do("restore", [1])
        await self.do("add", new(mailbox="d"))
        self.assertEqual(
            [" ".join(sorted(change.mailboxes)) for change in heard],
            ["a b", "c", "a b c", "c", "a b", "a b", "d", "a b"],
        )

    @synchronous
    async def test_the_tags_of_one_mailbox(self) -> None:
        self.store = await self.make()
        await self.do("add", new(mailbox="a"))
        await self.do("add", new(mailbox="b"))
        await self.do("tag", [1], ["x", "y"])
        await self.do("tag", [2], ["x"])
        self.assertEqual(await self.do("tags"), {"x": 2, "y": 1})
        self.assertEqual(await self.do("tags", "b"), {"x": 1})
