"""Waiting for messages, and hearing of changes as they happen."""

from __future__ import annotations

import json
from typing import Any

from tests.support.inbox_api import APITestCase
from tests.support.web import read
from twisted_smtpd.inbox.api import events
from twisted_smtpd.inbox.api.events import KEEP_ALIVE, MAX_LISTENERS
from twisted_smtpd.inbox.api.waiting import MAX_WAITING

WAIT = "/api/v1/wait"
EVENTS = "/api/v1/events"


class WaitTests(APITestCase):
    def test_a_message_that_is_there(self) -> None:
        self.add("one")
        self.add("two")
        self.assertEqual(self.get(WAIT)["Subject"], "two")
        self.assertEqual(self.get(f"{WAIT}?query=subject:one")["Subject"], "one")

    def test_a_message_that_comes(self) -> None:
        waiting = self.begin(f"{WAIT}?query=subject:code")
        self.clock.advance(10)
        self.add("other")
        self.clock.advance(1)
        self.assertEqual(waiting.value(), b"")
        self.add("your code", "it is 1234")
        self.clock.advance(1)
        answer = self.answered(waiting, WAIT)
        self.assertEqual(answer.status, 200)
        self.assertEqual(json.loads(answer.body)["Text"].strip(), "it is 1234")
        self.assertEqual(len(self.api._context.waiting), 0)

    def test_it_comes_at_once_but_after_the_sender_has_its_answer(self) -> None:
        waiting = self.begin(WAIT)
        self.clock.advance(1)
        self.add()
        self.assertEqual(waiting.value(), b"")
        self.clock.advance(0)
        self.assertEqual(read(waiting.value()).status, 200)

    def test_the_time_passes(self) -> None:
        waiting = self.begin(f"{WAIT}?timeout=2.5")
        self.clock.advance(2.4)
        self.assertEqual(waiting.value(), b"")
        self.clock.advance(0.2)
        answer = self.answered(waiting, WAIT)
        self.assertEqual((answer.status, answer.body), (404, b'{"Error":"no message came in 2.5 seconds"}'))
        self.assertEqual(self.clock.getDelayedCalls()[1:], [])

    def test_no_time_is_a_look(self) -> None:
        self.refused(404, f"{WAIT}?timeout=0")
        self.add()
        self.assertEqual(self.ask(f"{WAIT}?timeout=0").status, 200)

    def test_only_those_that_come_after_one(self) -> None:
        number = self.add("old")
        waiting = self.begin(f"{WAIT}?after={number}")
        self.add("new")
        self.clock.advance(1)
        self.assertEqual(json.loads(read(waiting.value()).body)["Subject"], "new")

    def test_several(self) -> None:
        self.add("1")
        waiting = self.begin(f"{WAIT}?count=3")
        self.add("2")
        self.clock.advance(1)
        self.assertEqual(waiting.value(), b"")
        self.add("3")
        self.clock.advance(1)
        answer = self.answered(waiting, WAIT)
        self.assertEqual([one["Subject"] for one in json.loads(answer.body)["messages"]], ["3", "2", "1"])
        late = self.begin(f"{WAIT}?count=9&timeout=1")
        self.clock.advance(1)
        self.assertIn(b"3 of 9 messages", late.value())

    def test_a_burst_is_one_look(self) -> None:
        looks = []
        summaries = self.store.summaries
        self.patch(self.store, "summaries", lambda *a, **k: looks.append(1) or summaries(*a, **k))
        self.begin(f"{WAIT}?query=subject:never")
        self.clock.advance(1)
        for expected, seconds in ((2, 0), (2, 0.04), (3, 0.02)):
            for _ in range(50):
                self.add()
            self.clock.advance(seconds)
            self.assertEqual(len(looks), expected)

    def test_tags_and_restored_messages_count(self) -> None:
        self.add()
        waiting = self.begin(f"{WAIT}?query=tag:done")
        self.store.tag([1], ["done"])
        self.clock.advance(1)
        self.assertEqual(read(waiting.value()).status, 200)

    def test_those_who_go_away_are_forgotten(self) -> None:
        waiting = self.begin(WAIT)
        self.assertEqual(len(self.api._context.waiting), 1)
        waiting.loseConnection()
        self.assertEqual(len(self.api._context.waiting), 0)
        self.add()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_no_more_than_so_many(self) -> None:
        transports = [self.begin(WAIT) for _ in range(MAX_WAITING)]
        answer = self.ask(WAIT)
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "5"))
        transports[0].loseConnection()
        self.assertEqual(self.begin(WAIT).value(), b"")

    def test_bounds(self) -> None:
        for query in ("timeout=301", "timeout=-1", "timeout=nan", "timeout=inf", "count=0", "count=101", "after=x"):
            self.assertIn(query.partition("=")[0], self.refused(400, f"{WAIT}?{query}"))

    def test_the_end_of_the_server_ends_it(self) -> None:
        waiting = self.begin(WAIT)
        self.api.close()
        answer = self.answered(waiting, WAIT)
        self.assertEqual((answer.status, answer.body), (503, b'{"Error":"the server is stopping"}'))

    def test_only_its_own_mailbox(self) -> None:
        self.serve(tokens={"t": "ann"})
        waiting = self.begin(WAIT, Authorization="Bearer t")
        self.add("his", mailbox="bob")
        self.clock.advance(1)
        self.assertEqual(waiting.value(), b"")
        self.add("hers", mailbox="ann")
        self.clock.advance(1)
        self.assertEqual(json.loads(read(waiting.value()).body)["Subject"], "hers")


def heard(transport: Any) -> list[tuple[str, str, Any]]:
    """The events of a stream: each with its id, its name and its data."""
    found = []
    for block in read(transport.value() + b"0\r\n\r\n").body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


class EventTests(APITestCase):
    def listen(self, query: str = "", **headers: str) -> Any:
        transport = self.begin(EVENTS + query, **headers)
        self.assertIn(b"HTTP/1.1 200 ", transport.value())
        return transport

    def test_each_change(self) -> None:
        listening = self.listen()
        self.add("Hi")
        self.store.mark([1], True)
        self.store.mark([1], False)
        self.store.tag([1], ["x"])
        self.store.delete([1])
        self.store.restore([1])
        names = [name for _, name, _ in heard(listening)]
        self.assertEqual(names, ["new", "seen", "unseen", "tags", "deleted", "restored"])
        self.assertTrue(all(data["IDs"] == ["1"] for _, _, data in heard(listening)))
        self.assertEqual(heard(listening)[0][2]["Message"]["Subject"], "Hi")
        self.assertIn(b"\r\nContent-Type: text/event-stream\r\n", listening.value().replace(b"content-t", b"Content-T"))

    def test_nothing_of_a_message_breaks_the_stream(self) -> None:
        listening = self.listen()
        self.add(content="Subject: =?utf-8?q?a=0Aevent=3A_x=0A=0Adata=3A_{}=E2=80=A8=0D?=\n\nid: 7\n\ndata: x\n")
        ((_, name, data),) = heard(listening)
        self.assertEqual(name, "new")
        self.assertIn("event", data["Message"]["Subject"])

    def test_comments_keep_it_alive(self) -> None:
        listening = self.listen()
        before = len(listening.value())
        self.clock.advance(KEEP_ALIVE)
        self.assertIn(b": still here\n\n", listening.value()[before:])
        listening.loseConnection()
        self.assertEqual(len(self.api._context.events), 0)
        self.clock.advance(KEEP_ALIVE)

    def test_it_lasts_longer_than_other_requests(self) -> None:
        listening = self.listen()
        for _ in range(100):
            self.clock.advance(KEEP_ALIVE)
        self.add()
        self.assertEqual(len(heard(listening)), 1)

    def test_what_was_missed(self) -> None:
        listening = self.listen()
        for number in range(5):
            self.add(str(number))
        ids = [id for id, _, _ in heard(listening)]
        listening.loseConnection()
        for again in (
            self.listen(**{"Last-Event-ID": ids[2]}),
            self.listen(f"?last-event-id={ids[2]}"),
        ):
            self.assertEqual([data["Message"]["Subject"] for _, _, data in heard(again)], ["3", "4"])
        self.assertEqual(heard(self.listen(**{"Last-Event-ID": ids[4]})), [])
        self.assertEqual(heard(self.listen()), [])

    def test_what_can_t_be_told_is_a_reset(self) -> None:
        self.patch(events, "MAX_KEPT", 3)
        listening = self.listen()
        for number in range(6):
            self.add(str(number))
        ids = [id for id, _, _ in heard(listening)]
        run = ids[0].partition("-")[0]
        self.assertEqual(len(heard(self.listen(**{"Last-Event-ID": ids[2]}))), 3)
        for last in (ids[1], "other-5", f"{run}-99", f"{run}-", f"{run}--1", "x", f"{run}-" + "9" * 50, "-", "\xb2"):
            ((id, name, data),) = heard(self.listen(**{"Last-Event-ID": last}))
            self.assertEqual((id, name, data), (ids[5], "reset", {}), last)

    def test_what_is_kept_is_bounded_in_octets(self) -> None:
        self.patch(events, "MAX_KEPT_OCTETS", 2000)
        for number in range(50):
            self.add(str(number))
        self.assertLess(self.api._context.events._octets, 2001)

    def test_an_event_that_is_too_large(self) -> None:
        listening = self.listen()
        self.add(recipients=tuple(f"{'x' * 60}{number}@y.example" for number in range(900)))
        ((_, name, data),) = heard(listening)
        self.assertEqual((name, data), ("new", {"IDs": ["1"]}))
        self.patch(events, "_MAX_EVENT", 1000)
        for _ in range(300):
            self.add()
        self.store.mark(range(302), True)
        self.assertEqual(heard(listening)[-1][1], "reset")

    def test_no_more_than_so_many_listeners(self) -> None:
        transports = [self.listen() for _ in range(MAX_LISTENERS)]
        answer = self.ask(EVENTS)
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "5"))
        transports[5].loseConnection()
        self.listen()

    def test_a_slow_one_is_dropped_and_the_others_are_not(self) -> None:
        self.patch(events, "MAX_PENDING", 2**15)
        slow, quick = self.listen(), self.listen()
        slow.producer.pauseProducing()
        before = len(slow.value())
        for _ in range(100):
            self.add()
        self.assertFalse(slow.connected)
        self.assertEqual(len(slow.value()), before)
        self.assertEqual(len(heard(quick)), 100)
        self.assertEqual(len(self.api._context.events), 1)

    def test_one_that_is_slow_for_a_while_gets_all_in_order(self) -> None:
        slow = self.listen()
        slow.producer.pauseProducing()
        for number in range(20):
            self.add(str(number))
        slow.producer.resumeProducing()
        self.add("20")
        subjects = [data["Message"]["Subject"] for _, _, data in heard(slow)]
        self.assertEqual(subjects, [str(number) for number in range(21)])

    def test_only_its_own_mailbox(self) -> None:
        self.serve(tokens={"t": "ann", "all": None})
        own = self.listen(Authorization="Bearer t")
        all = self.listen(Authorization="Bearer all")
        one = self.listen("?mailbox=bob", Authorization="Bearer all")
        self.add("hers", mailbox="ann")
        self.add("his", mailbox="bob")
        self.store.mark([2], True)
        self.store.delete([1])
        self.assertEqual([name for _, name, _ in heard(own)], ["new", "deleted"])
        self.assertEqual([name for _, name, _ in heard(all)], ["new", "new", "seen", "deleted"])
        self.assertEqual([name for _, name, _ in heard(one)], ["new", "seen"])
        first = heard(all)[0][0]
        again = self.listen(Authorization="Bearer t", **{"Last-Event-ID": first})
        self.assertEqual([name for _, name, _ in heard(again)], ["deleted"])
        self.refused(403, f"{EVENTS}?mailbox=bob", Authorization="Bearer t")

    def test_head(self) -> None:
        self.assertEqual(self.ask(EVENTS, "HEAD").status, 200)
        self.assertEqual(len(self.api._context.events), 0)

    def test_the_end_of_the_server_ends_it(self) -> None:
        listening = self.listen()
        self.api.close()
        self.assertTrue(listening.value().endswith(b"0\r\n\r\n"))
