"""The same inside a Twisted program, with adbapi: ``python support_tickets_twisted.py``."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread

from twisted_smtpd import SMTPFactory


class Tickets:
    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def start(self, server: Any) -> None:
        await self.pool.runOperation(
            "CREATE TABLE IF NOT EXISTS ticket (id INTEGER PRIMARY KEY, sender TEXT, subject TEXT, raw BLOB)"
        )

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = await deferToThread(message_from_bytes, envelope.content, policy=default)
        row = (str(message["From"] or ""), str(message["Subject"] or ""), envelope.content)
        await self.pool.runOperation("INSERT INTO ticket (sender, subject, raw) VALUES (?, ?, ?)", row)
        return "250 2.0.0 Ticket opened"

    def stop(self) -> None:
        self.pool.close()


async def serve(loop: Any, path: str, port: int) -> tuple[Any, Any]:
    """Start a server; its handler first."""
    pool = ConnectionPool("sqlite3", path, check_same_thread=False, cp_min=1, cp_max=1)
    factory = SMTPFactory(Tickets(pool))
    await factory.start_handler()
    listening = await TCP4ServerEndpoint(loop, port, interface="127.0.0.1").listen(factory)
    return factory, listening


if __name__ == "__main__":
    loop: Any = reactor
    loop.callWhenRunning(lambda: Deferred.fromCoroutine(serve(loop, "tickets.db", 8025)))
    loop.run()
