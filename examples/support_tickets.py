"""Support mail becomes tickets: ``twisted-smtpd --reactor asyncio -c support_tickets.Tickets tickets.db``."""

from __future__ import annotations

import asyncio
import sqlite3
from argparse import ArgumentParser
from email import message_from_bytes
from email.policy import default
from typing import Any

SCHEMA = """
    CREATE TABLE IF NOT EXISTS ticket (
        id INTEGER PRIMARY KEY, message_id TEXT UNIQUE, sender TEXT, subject TEXT, text TEXT, raw BLOB)
"""


class Tickets:
    """Takes mail for support@example.com and writes each message once."""

    address = "support@example.com"

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Tickets:
        parser.add_argument("path", help="the database")
        return cls(parser.parse_args(args).path)

    def start(self, server: Any) -> None:
        with sqlite3.connect(self.path) as database:
            database.execute(SCHEMA)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.lower() != self.address:
            return "550 5.1.1 No such address here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        # In a thread: parsing and the disk must not make other clients wait.
        number = await asyncio.get_running_loop().run_in_executor(None, self.store, envelope.content)
        # Not before it is stored: with 250 the client forgets the message.
        return f"250 2.0.0 Ticket {number}"

    def store(self, content: bytes) -> int:
        message = message_from_bytes(content, policy=default)
        body = message.get_body(preferencelist=("plain", "html"))
        text = body.get_content().replace("\r\n", "\n") if body is not None else ""
        message_id = message["Message-ID"] or None
        row = (message_id, str(message["From"] or ""), str(message["Subject"] or ""), text, content)
        with sqlite3.connect(self.path, timeout=30) as database:
            added = database.execute(
                "INSERT OR IGNORE INTO ticket (message_id, sender, subject, text, raw) VALUES (?, ?, ?, ?, ?)", row
            )
            if added.rowcount:
                return added.lastrowid or 0
            # The client did not hear our 250, and has sent the message again.
            (number,) = database.execute("SELECT id FROM ticket WHERE message_id = ?", (message_id,)).fetchone()
            return int(number)
