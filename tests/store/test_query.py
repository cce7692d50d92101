"""The language in which people search."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.store import QueryError, Term, parse_query


class QueryTests(SynchronousTestCase):
    def test_terms(self) -> None:
        for query, terms in (
            ("", ()),
            ('  ""  ', ()),
            ("Hello world", (Term("text", "hello"), Term("text", "world"))),
            ('"Hello  world"', (Term("text", "hello  world"),)),
            ('"not ended', (Term("text", "not ended"),)),
            ("-", (Term("text", "-"),)),
            ("-no !never", (Term("text", "no", True), Term("text", "never", True))),
            ('-"no way"', (Term("text", "no way", True),)),
            ("FROM:Anne", (Term("from", "anne"),)),
            ('subject:"Your order" x', (Term("subject", "your order"), Term("text", "x"))),
            ("https://x.example/?a=b", (Term("text", "https://x.example/?a=b"),)),
            ('re:"a b"', (Term("text", "re:a b"),)),
            ("text:x", (Term("text", "text:x"),)),
            ("has:attachments -has:inlines", (Term("has", "attachment"), Term("has", "inline", True))),
            ("is:READ", (Term("is", "read"),)),
            ("larger:1.5K smaller:2MB", (Term("larger", 1536), Term("smaller", 2 * 2**20))),
            ("smaller:500", (Term("smaller", 500),)),
            ("message-id:<A@b>", (Term("message-id", "<a@b>"),)),
        ):
            self.assertEqual(parse_query(query), terms, query)

    def test_times(self) -> None:
        day = datetime(2026, 1, 31, tzinfo=timezone.utc)
        for text, time in (
            ("2026-01-31", day),
            ("2026/01/31", day),
            ('"31 Jan 2026"', day),
            ('"January 31, 2026"', day),
            ("2026-01-31T01:00:00+01:00", day),
            ("2026-01-31T00:00:00Z", day),
            ('"2026-01-31 14:30"', day.replace(hour=14, minute=30)),
        ):
            self.assertEqual(parse_query(f"before:{text}"), (Term("before", time),), text)
        [term] = parse_query("after:2026-01-31", timezone(timedelta(hours=2)))
        self.assertEqual(term.value, day - timedelta(hours=2))

    def test_what_can_not_be_read_is_an_error_of_one_line(self) -> None:
        for query in (
            "before:soon",
            "after:0001-01-01T00:00:00+10:00",
            "larger:big",
            "larger:1T",
            "is:green",
            "has:wings",
            "from:",
            "subject: x",
            'tag:""',
            "x" * 2001,
            "x " * 51,
            "before:" + "9" * 500,
        ):
            error = self.assertRaises(QueryError, parse_query, query)
            self.assertEqual(len(str(error).splitlines()), 1, query)
            self.assertLess(len(str(error)), 150)
