"""The same over a store whose results come later: each route once, with an SQLite file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.inbox.api.test_threads import ThreadCase, test
from tests.support.inbox_api import message
from twisted_smtpd.store.sqlite import SQLiteStore


class SQLiteTests(ThreadCase):
    timeout = 60

    async def over_sqlite(self, **settings: Any) -> SQLiteStore:
        path = Path(self.mktemp()).absolute()
        store = SQLiteStore(str(path))
        self.addCleanup(store.close)
        await self.start(store, **settings)
        return store

    async def get(self, path: str) -> Any:
        answer = await self.ask(path)
        self.assertEqual(answer.status, 200, answer.body)
        return json.loads(answer.body)

    async def do(self, method: str, path: str, body: Any = None) -> None:
        answer = await self.ask(path, method, body)
        self.assertEqual((answer.status, answer.body), (200, b"ok"))

    @test
    async def test_a_walk(self) -> None:
        store = await self.over_sqlite()
        for subject, mailbox in (("one", "ann"), ("two", "bob"), ("three", "ann")):
            await store.add(message(subject, f"text of {subject}", mailbox=mailbox))
        await store.add(message("bad", refusal="550 No"))
        page = await self.get("/api/v1/messages?limit=2&start=1")
        self.assertEqual([one["Subject"] for one in page["messages"]], ["two", "one"])
        self.assertEqual((page["total"], page["unread"], page["messages_count"]), (3, 3, 3))
        found = await self.get("/api/v1/search?query=is:unread%20subject:one")
        self.assertEqual([one["ID"] for one in found["messages"]], ["1"])
        self.assertEqual((await self.get("/api/v1/message/latest"))["Subject"], "three")
        self.assertEqual((await self.get("/api/v1/messages?mailbox=ann"))["messages_unread"], 1)
        await self.do("PUT", "/api/v1/messages", {"Search": "subject:two", "Read": True})
        await self.do("PUT", "/api/v1/tags", {"IDs": ["1", "2"], "Tags": ["red"]})
        await self.do("PUT", "/api/v1/tags/red", {"Name": "blue"})
        self.assertEqual((await self.get("/api/v1/info"))["Tags"], {"blue": 2})
        self.assertEqual((await self.get("/api/v1/info"))["Database"], store.path)
        self.assertEqual([one["Name"] for one in await self.get("/api/v1/mailboxes")][-2:], ["ann", "bob"])
        await self.do("DELETE", "/api/v1/messages", {"IDs": ["1"]})
        self.assertEqual((await self.ask("/api/v1/message/1")).status, 404)
        await self.do("POST", "/api/v1/messages/restore", {"IDs": ["1"]})
        await self.do("DELETE", "/api/v1/search?query=tag:blue")
        self.assertEqual([one["Subject"] for one in (await self.get("/api/v1/messages"))["messages"]], ["three"])
        await self.do("DELETE", "/api/v1/messages")
        self.assertEqual((await self.get("/api/v1/messages"))["total"], 0)
        for path in ("/readyz", "/livez"):
            self.assertEqual((await self.ask(path)).body, b"ok")

    @test
    async def test_a_message_that_comes_while_one_waits(self) -> None:
        store = await self.over_sqlite()
        answering = Deferred.fromCoroutine(self.ask("/api/v1/wait?query=subject:code&timeout=30"))
        await store.add(message("other"))
        await store.add(message("your code", "it is 4711"))
        answer = await answering
        self.assertEqual(json.loads(answer.body)["Subject"], "your code")
