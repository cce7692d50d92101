"""``twisted-smtpd queue list|show|retry|hold|delete|flush FOLDER``: looks after a queue, while it is used, too."""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from twisted_smtpd.handlers.printing import harmless, one_line
from twisted_smtpd.queue import upkeep
from twisted_smtpd.queue.disk import DATABASE, body_path
from twisted_smtpd.queue.tables import HELD
from twisted_smtpd.queue.upkeep import Listed
from twisted_smtpd.runtime.database import DatabaseError, clear_error, connect

__all__ = ["VERBS", "main"]

NAME = "twisted-smtpd queue"
#: What can be done.
VERBS = ("list", "show", "retry", "hold", "delete", "flush")
# Messages from which on a terminal sees how far it is.
_MANY = 1000
_EPILOG = """\
list    the messages in the queue, the oldest first, with what was answered last
show    all that is known of messages, with their header; --content: with all of it
retry   try messages now, also those that are held or dead
hold    keep messages, and don't try them until retry
delete  remove messages; the sender gets no bounce
flush   try all messages now that are neither held nor dead
"""


class Mistake(Exception):
    """What was asked for can't be done; the text is one line."""


def main(words: Sequence[str]) -> None:
    """Do what the command line asks for.

    :param words: the command line.
    """
    options = _parser().parse_intermixed_args(words)
    try:
        _check(options)
        connection = _open(options.folder)
        with contextlib.closing(connection):
            _run(connection, options)
    except BrokenPipeError:
        # The reader has seen enough; the caller ends in silence.
        raise
    except (Mistake, DatabaseError, OSError) as error:
        sys.exit(f"{NAME}: {one_line(error)}")
    except sqlite3.Error as error:
        sys.exit(f"{NAME}: {one_line(clear_error(error, options.folder))}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Looks after a queue, also while a server uses it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("folder", help="of the queue")
    parser.add_argument("ids", nargs="*", metavar="ID", help="of messages, as list shows them")
    several = parser.add_mutually_exclusive_group()
    several.add_argument("--all", dest="which", action="store_const", const="all", help="all messages")
    several.add_argument("--held", dest="which", action="store_const", const="held", help="those that are held")
    several.add_argument("--dead", dest="which", action="store_const", const="dead", help="those that are dead")
    parser.add_argument("--content", action="store_true", help="show the whole message")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.ids and options.which:
        raise Mistake(f"{options.verb}: give ids, or --{options.which}")
    if options.verb == "flush" and (options.ids or options.which):
        raise Mistake("flush is for all messages: retry takes ids")
    if options.verb not in ("list", "flush") and not (options.ids or options.which):
        raise Mistake(f"{options.verb}: of which messages?  Give ids, --all, --held or --dead")


def _open(folder: str) -> sqlite3.Connection:
    path = os.path.join(folder, DATABASE)
    if not os.path.exists(path):
        # Also if the folder may not be read.
        raise Mistake(f"there is no queue in {folder}")
    return connect(path)


def _run(connection: sqlite3.Connection, options: argparse.Namespace) -> None:
    verb = options.verb
    if verb == "flush":
        _change(upkeep.retry_all(connection, time.time()), len(upkeep.numbers(connection)), "due")
        return
    found = _found(connection, options)
    if verb == "list":
        _list(connection, found)
    elif verb == "show":
        for number in found:
            _show(connection, options.folder, number, options.content)
    elif verb == "retry":
        _change(upkeep.retry(connection, found, time.time()), len(found), "due")
    elif verb == "hold":
        _change(upkeep.hold(connection, found), len(found), "held")
    else:
        _change(_deleted(connection, options.folder, found), len(found), "deleted")


def _found(connection: sqlite3.Connection, options: argparse.Namespace) -> list[int]:
    if not options.ids:
        return upkeep.numbers(connection, options.which or "all")
    found = []
    for id in options.ids:
        number = upkeep.number_of(connection, id.upper())
        if number is None:
            raise Mistake(f"there is no message {id}")
        found.append(number)
    return found


def _deleted(connection: sqlite3.Connection, folder: str, found: Sequence[int]) -> Iterator[int]:
    for files in upkeep.delete(connection, found):
        yield min(upkeep.CHUNK, len(found))
        for id in files:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(body_path(folder, id))


def _change(changes: Iterable[int], total: int, what: str) -> None:
    """Make changes, and say how many messages were changed."""
    changed = 0
    bar = total >= _MANY and sys.stderr.isatty()
    for count in changes:
        changed += count
        if bar:
            filled = min(30, 30 * changed // total)
            print(f"\r[{'#' * filled:30}] {changed:,} of {total:,}", end="", file=sys.stderr, flush=True)
    if bar:
        print(file=sys.stderr)
    changed = min(changed, total)
    print(f"{changed:,} message{'' if changed == 1 else 's'} {what}")


def _list(connection: sqlite3.Connection, found: Sequence[int]) -> None:
    now = time.time()
    count = octets = 0
    for number in found:
        message = upkeep.listed(connection, number)
        if message is None:
            continue
        count, octets = count + 1, octets + message.size
        print(f"{message.id}  {_size(message.size)}  {_age(now - message.arrived)} old  from {_path(message.sender)}")
        for one in message.recipients:
            print(f"    {_state(one.state, one.due, one.attempts, now)}  {_path(one.address)}")
            if one.reply:
                print(f"        {one_line(' '.join(one.reply.split()))}")
    print(f"{count:,} message{'' if count == 1 else 's'}, {_size(octets)}")


def _show(connection: sqlite3.Connection, folder: str, number: int, whole: bool) -> None:
    message = upkeep.listed(connection, number)
    if message is None:
        return
    facts, now = message.facts, time.time()
    print(f"Message {message.id}, {message.size:,} octets, accepted {_time(message.arrived)}")
    print(f"From {_path(message.sender)} {one_line(' '.join(facts.get('options') or ()))}".rstrip())
    for one in message.recipients:
        print(f"To {_path(one.address)}: {_state(one.state, one.due, one.attempts, now)}")
        if one.reply:
            print(f"    {one_line(' '.join(one.reply.split()))}")
    login = facts.get("login")
    signed_in = f", signed in as {one_line(login)}" if login else ", signed in" if facts.get("authenticated") else ""
    peer = facts.get("peer")
    client = one_line(peer[0]) if isinstance(peer, list) and peer else "this machine"
    print(f"Client {client}, {one_line(facts.get('host_name') or 'no name')}{signed_in}")
    print(f"Session {one_line(facts.get('session') or 'none: a notice of the server')}\n")
    content = _content(connection, folder, message)
    shown = content if whole else content.partition(b"\r\n\r\n")[0] + b"\r\n"
    text = shown.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    print(harmless(text) if sys.stdout.isatty() else text)


def _content(connection: sqlite3.Connection, folder: str, message: Listed) -> bytes:
    if message.in_file:
        with open(body_path(folder, message.id), "rb") as file:
            return file.read()
    row: Any = connection.execute("SELECT content FROM bodies WHERE message = ?", (message.number,)).fetchone()
    return b"" if row is None else bytes(row[0])


def _path(address: str) -> str:
    return f"<{one_line(address)}>"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _state(state: str, due: float, attempts: int, now: float) -> str:
    if due >= HELD:
        return state
    when = "now" if due <= now else f"in {_age(due - now).strip()}"
    return f"{state}, {attempts} attempt{'' if attempts == 1 else 's'}, next {when}"


def _age(seconds: float) -> str:
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * factor:
            return f"{int(seconds / factor)} {unit}"
    return f"{max(0, int(seconds))} s"


def _size(octets: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if octets >= factor:
            return f"{octets / factor:.1f} {unit}"
    return f"{octets} B"
