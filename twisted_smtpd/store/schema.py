"""The tables of a store in SQLite."""

from __future__ import annotations

import sqlite3
from urllib.parse import quote

from twisted_smtpd.runtime.database import DatabaseError
from twisted_smtpd.store.searchable import Searchable

__all__ = ["COLUMN_NAMES", "SCHEMA", "check_sqlite", "check_version", "index_texts"]

#: What ``PRAGMA user_version`` says of a file with these tables.
VERSION = 1
# For the tokenizer "trigram", and for RETURNING.
_NEEDED = (3, 35, 0)

#: The columns of the index, quoted: ``to`` is a word of SQL.
COLUMN_NAMES = {name: f'"{name}"' for name in Searchable._fields}

# How many accepted, unread and refused messages a row stands for; it stands for none while it is in the bin.
_COUNTED = (
    ("total", "({0}.binned IS NULL AND NOT {0}.refused)"),
    ("unread", "({0}.binned IS NULL AND NOT {0}.refused AND NOT {0}.seen)"),
    ("refused", "({0}.binned IS NULL AND {0}.refused)"),
)
_PLUS = ", ".join(f"{name} = {name} + {what.format('new')}" for name, what in _COUNTED)
_MINUS = ", ".join(f"{name} = {name} - {what.format('old')}" for name, what in _COUNTED)
_CHANGE = ", ".join(f"{name} = {name} + {what.format('new')} - {what.format('old')}" for name, what in _COUNTED)
_COLUMNS = ", ".join(COLUMN_NAMES.values())

# The rows of "messages" are short, as what is not in an index is found by going through all of them.  Rows of
# "contents" begin with what a list shows, so that showing it does not read the content.  What is searched is in small
# letters.
#
# The index ("words") has all messages up to the number in "indexed".  Others follow many at a time: that takes a
# quarter of the time, as each savepoint has the index write what it has.  A message that goes before is never in it.
#
# A message with binned = 0 is gone: it is not counted, and its rows are removed with others.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, received REAL NOT NULL, size INTEGER NOT NULL,
    seen INTEGER NOT NULL, refused INTEGER NOT NULL, attachments INTEGER NOT NULL, inline INTEGER NOT NULL,
    session TEXT NOT NULL, binned REAL,
    {" TEXT NOT NULL, ".join(name for column, name in COLUMN_NAMES.items() if column != "body")} TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS messages_received ON messages (received);
CREATE INDEX IF NOT EXISTS messages_session ON messages (session);
CREATE INDEX IF NOT EXISTS messages_unread ON messages (id) WHERE NOT seen AND binned IS NULL;
CREATE INDEX IF NOT EXISTS messages_refused ON messages (id) WHERE refused;
CREATE INDEX IF NOT EXISTS messages_attached ON messages (id) WHERE attachments > 0;
CREATE INDEX IF NOT EXISTS messages_binned ON messages (binned) WHERE binned IS NOT NULL;
CREATE TABLE IF NOT EXISTS contents (
    id INTEGER PRIMARY KEY REFERENCES messages ON DELETE CASCADE,
    summary TEXT NOT NULL, body TEXT NOT NULL, envelope TEXT NOT NULL, content BLOB NOT NULL);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (
    {_COLUMNS}, content = '', tokenize = 'trigram case_sensitive 1', detail = none);
CREATE TABLE IF NOT EXISTS indexed (id INTEGER PRIMARY KEY, last INTEGER NOT NULL);
INSERT OR IGNORE INTO indexed VALUES (1, 0);
CREATE TABLE IF NOT EXISTS mailed (
    mailbox TEXT NOT NULL, id INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE, place INTEGER NOT NULL,
    PRIMARY KEY (mailbox, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mailed_id ON mailed (id);
CREATE TABLE IF NOT EXISTS tags (
    tag TEXT NOT NULL, folded TEXT NOT NULL, id INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE,
    PRIMARY KEY (tag, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_id ON tags (id);
CREATE INDEX IF NOT EXISTS tags_folded ON tags (folded, id);
CREATE TABLE IF NOT EXISTS sessions (session TEXT PRIMARY KEY, transcript TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (
    mailbox TEXT PRIMARY KEY, folded TEXT NOT NULL, total INTEGER NOT NULL DEFAULT 0,
    unread INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS counts_folded ON counts (folded);
CREATE TABLE IF NOT EXISTS totals (
    id INTEGER PRIMARY KEY, total INTEGER NOT NULL DEFAULT 0, unread INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 0, octets INTEGER NOT NULL DEFAULT 0);
INSERT OR IGNORE INTO totals (id) VALUES (1);
CREATE TRIGGER IF NOT EXISTS messages_come AFTER INSERT ON messages BEGIN
    UPDATE totals SET {_PLUS}, kept = kept + 1, octets = octets + new.size;
END;
CREATE TRIGGER IF NOT EXISTS messages_change AFTER UPDATE OF seen, binned ON messages BEGIN
    UPDATE totals SET {_CHANGE},
        kept = kept - (new.binned IS 0) + (old.binned IS 0),
        octets = octets + new.size * ((old.binned IS 0) - (new.binned IS 0));
    UPDATE counts SET {_CHANGE} WHERE mailbox IN (SELECT mailbox FROM mailed WHERE id = new.id);
END;
CREATE TRIGGER IF NOT EXISTS messages_go BEFORE DELETE ON messages BEGIN
    UPDATE totals SET {_MINUS},
        kept = kept - (old.binned IS NOT 0), octets = octets - old.size * (old.binned IS NOT 0);
    UPDATE counts SET {_MINUS} WHERE mailbox IN (SELECT mailbox FROM mailed WHERE id = old.id);
    INSERT INTO words (words, rowid, {_COLUMNS})
        SELECT 'delete', id, {_COLUMNS} FROM messages JOIN contents USING (id)
        WHERE id = old.id AND id <= (SELECT last FROM indexed);
END;
PRAGMA user_version = {VERSION}
"""


def index_texts(connection: sqlite3.Connection) -> None:
    """Add to the index what is not in it.

    :param connection: the connection, in a transaction.
    """
    # What is gone need not be added.
    connection.execute("DELETE FROM messages WHERE binned = 0")
    [last] = connection.execute("SELECT last FROM indexed").fetchone()
    [newest] = connection.execute("SELECT max(id) FROM messages").fetchone()
    if newest is not None and newest > last:
        texts = f"SELECT id, {_COLUMNS} FROM messages JOIN contents USING (id) WHERE id > ?"
        connection.execute(f"INSERT INTO words (rowid, {_COLUMNS}) {texts}", (last,))
        connection.execute("UPDATE indexed SET last = ?", (newest,))


def check_sqlite() -> None:
    """See whether this SQLite can do what a store needs.

    :raises DatabaseError: if it can't.
    """
    if sqlite3.sqlite_version_info < _NEEDED:
        needed = ".".join(map(str, _NEEDED))
        raise DatabaseError(f"a store needs SQLite {needed} or later; this is {sqlite3.sqlite_version}")
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5 (x, tokenize = 'trigram')")
    except sqlite3.OperationalError as error:
        raise DatabaseError(f"SQLite {sqlite3.sqlite_version} has no full-text search: {error}") from None
    finally:
        connection.close()


def check_version(path: str) -> None:
    """See whether a file, if there is one, is a store of this version.

    :param path: of the file.
    :raises DatabaseError: if it is a database of something else, or of a later version.
    """
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return
    try:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        # Database says what is wrong.
        return
    finally:
        connection.close()
    if version > VERSION:
        raise DatabaseError(f"{path} is a store of a later version of twisted-smtpd")
    if version != VERSION and tables:
        raise DatabaseError(f"{path} is a database of another program")
