"""Stores of messages, for programs that look at the mail they took: an interface, one in memory, and one in a file.

:class:`IMessageStore` says what a store can do; :class:`MemoryStore` and ``twisted_smtpd.store.sqlite.SQLiteStore`` are
two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_smtpd.on_demand import on_demand

if TYPE_CHECKING:
    from twisted_smtpd.store.interfaces import IMessageStore
    from twisted_smtpd.store.memory import MemoryStore
    from twisted_smtpd.store.messages import Matching, NewMessage, SessionFacts, StoredMessage
    from twisted_smtpd.store.query import QueryError, Term, parse_query
    from twisted_smtpd.store.summary import Address, Change, Counts, Summary

__all__ = [
    "Address",
    "Change",
    "Counts",
    "IMessageStore",
    "Matching",
    "MemoryStore",
    "NewMessage",
    "QueryError",
    "SessionFacts",
    "StoredMessage",
    "Summary",
    "Term",
    "parse_query",
]

# A server for tests needs little of this, and a first test waits for each import.
__getattr__ = on_demand(
    __name__,
    {
        "Address": "summary",
        "Change": "summary",
        "Counts": "summary",
        "IMessageStore": "interfaces",
        "Matching": "messages",
        "MemoryStore": "memory",
        "NewMessage": "messages",
        "QueryError": "query",
        "SessionFacts": "messages",
        "StoredMessage": "messages",
        "Summary": "summary",
        "Term": "query",
        "parse_query": "query",
    },
)
