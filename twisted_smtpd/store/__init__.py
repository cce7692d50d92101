"""Stores of messages, for programs that look at the mail they took: an interface, one in memory, and one in a file.

:class:`IMessageStore` says what a store can do; :class:`MemoryStore` and ``twisted_smtpd.store.sqlite.SQLiteStore`` are
two.
"""

from __future__ import annotations

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
