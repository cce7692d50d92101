"""A consumer behind a queue that takes each message once, though the queue may deliver it a second time.

twisted-smtpd -c queue SPOOL + consume_once.Orders orders.db
"""

from __future__ import annotations

import sqlite3


class Orders:
    def __init__(self, path):
        self.database = sqlite3.connect(path)
        self.database.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, sender TEXT, text BLOB)")

    @classmethod
    def from_cli(cls, parser, *args):
        parser.add_argument("path", help="the database")
        return cls(parser.parse_args(args).path)

    def handle_DATA(self, server, session, envelope):
        # The id is the same for each attempt: what is there already is not stored again.
        row = (envelope.queue_id, envelope.mail_from, envelope.content)
        with self.database:
            self.database.execute("INSERT OR IGNORE INTO orders VALUES (?, ?, ?)", row)
        return "250 OK"
