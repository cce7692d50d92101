"""``twisted-smtpd inbox import`` and ``export``: messages of other programs into an inbox's file, and out of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TextIO

from twisted_smtpd.runtime.database import DatabaseError
from twisted_smtpd.session import Recipient
from twisted_smtpd.store.direct import StoreFile
from twisted_smtpd.store.files import FORMATS, FileMessage, read, size_of, writer
from twisted_smtpd.store.messages import Matching, NewMessage, SessionFacts
from twisted_smtpd.store.query import QueryError, parse_query

__all__ = ["Progress", "main"]

NAME = "twisted-smtpd inbox"
# Messages that share a commit.
PORTION = 100
# Seconds between two changes of the bar.
PAUSE = 0.1
WIDTH = 30


def main(words: Sequence[str]) -> None:
    """Import or export messages.

    :param words: the command line.
    """
    options = _parser().parse_args(words)
    try:
        count = options.run(options)
    except KeyboardInterrupt:
        sys.exit(f"\n{NAME}: interrupted; what was done stays")
    except (DatabaseError, ValueError, OSError) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
        sys.exit(f"{NAME}: {' '.join(reason.split())}")
    print(f"{count:,} message{'' if count == 1 else 's'} {options.done}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=NAME, description="Imports messages into an inbox's file, and exports them.")
    commands = parser.add_subparsers(required=True, metavar="import|export")
    importing = commands.add_parser("import", help="put messages of files into the inbox")
    importing.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="an mbox, a Maildir, an .eml or a folder of them"
    )
    importing.add_argument("--mailbox", default="", help="the mailbox that they are for")
    importing.set_defaults(run=_import, done="imported")
    exporting = commands.add_parser("export", help="write messages of the inbox to files")
    exporting.add_argument("target", help="the file or the folder; it must not be there, or be empty")
    exporting.add_argument("--format", choices=FORMATS, default="mbox", help="[default: mbox]")
    exporting.add_argument("--mailbox", help="the messages of this mailbox only")
    exporting.add_argument("--query", default="", help="what messages, as in the page: 'from:anne -is:read'")
    exporting.set_defaults(run=_export, done="exported")
    for command in (importing, exporting):
        command.add_argument("--store", required=True, metavar="FILE", help="the inbox's file")
    return parser


def _import(options: argparse.Namespace) -> int:
    total = sum(map(size_of, options.sources))
    store = StoreFile(options.store, create=True)
    count = before = 0
    with Progress("octets", total) as progress:
        try:
            for source in options.sources:
                found, done = read(source), 0
                while portion := list(islice(found, PORTION)):
                    store.add([(_new(message, options.mailbox), message.seen) for message in portion])
                    count, done = count + len(portion), portion[-1].octets
                    progress.show(before + done, count)
                before += done
        finally:
            store.close()
    return count


def _new(message: FileMessage, mailbox: str) -> NewMessage:
    recipients = tuple(map(Recipient, message.recipients))
    facts = SessionFacts("import")
    return NewMessage(
        message.content, message.mail_from, (), recipients, facts, mailbox=mailbox, received=message.received
    )


def _export(options: argparse.Namespace) -> int:
    store = StoreFile(options.store)
    try:
        try:
            matching = Matching(mailbox=options.mailbox, terms=parse_query(options.query))
        except QueryError as error:
            raise ValueError(f"--query: {error}") from None
        total, count = store.count(matching), 0
        write, end = writer(options.target, options.format)
        with Progress("messages", total) as progress:
            try:
                for count, stored in enumerate(store.find(matching), 1):
                    write(stored)
                    progress.show(count, count)
            finally:
                end()
    finally:
        store.close()
    return count


class Progress:
    """A bar on a terminal; nothing where there is none.

    :param unit: what is counted.
    :param total: how many there are.
    :param stream: where it is shown.
    :param seconds: the time in seconds.
    """

    def __init__(
        self,
        unit: str,
        total: int,
        stream: TextIO | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unit, self._total, self._seconds = unit, total, seconds
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._began = seconds()
        self._next = self._began

    def __enter__(self) -> Progress:
        return self

    def show(self, done: int, messages: int) -> None:
        """Show how far it is.

        :param done: how many of the total are done.
        :param messages: how many messages these are.
        """
        now = self._seconds()
        if not self._shown or now < self._next:
            return
        self._next = now + PAUSE
        part = min(1.0, done / self._total) if self._total else 1.0
        bar = "█" * int(part * WIDTH)
        rate = messages / max(now - self._began, 0.001)
        self._stream.write(f"\r\x1b[K{bar:░<{WIDTH}} {part:4.0%}  {messages:,} messages, {rate:,.0f} a second")
        self._stream.flush()

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
