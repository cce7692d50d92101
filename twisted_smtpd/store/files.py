"""Messages in files of other programs: mbox, Maildir, and .eml."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from io import BufferedIOBase

from twisted_smtpd.store.messages import StoredMessage
from twisted_smtpd.store.outline import Address, outline, parse_addresses

__all__ = ["FORMATS", "FileMessage", "read", "size_of", "writer"]

#: What messages can be exported as.
FORMATS = ("mbox", "maildir", "eml")

# A line that begins a message in an mbox: "From sender date".  Programs put > before such lines of a message.
_FROM = b"From "
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_TO_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_DATE = "%a %b %d %H:%M:%S %Y"
_SUBFOLDERS = ("new", "cur")
# Headers in which a delivery has left its recipients, and others where there are none.
_RECIPIENTS = (("x-original-to", "delivered-to", "envelope-to", "x-rcptto"), ("to", "cc", "bcc"))


@dataclass(frozen=True)
class FileMessage:
    """A message of a file.

    :ivar content: the message; its lines end with CRLF.
    :ivar mail_from: the reverse-path, as far as it is known; ``""`` if not.
    :ivar recipients: the addresses that it was delivered to, or those of its headers.
    :ivar received: when it came, or what its ``Date:`` says.
    :ivar seen: whether it was read.
    :ivar octets: how far the files have been read.
    """

    content: bytes
    mail_from: str
    recipients: tuple[str, ...]
    received: datetime
    seen: bool
    octets: int


def size_of(path: str) -> int:
    """The octets of a file or of a folder's files, to tell how far one is.

    :raises OSError: if it can't be read.
    """
    if not os.path.isdir(path):
        return os.stat(path).st_size
    return sum(os.stat(file).st_size for file in _files(path))


def read(path: str) -> Iterator[FileMessage]:
    """Read the messages of an mbox, a Maildir, a folder with ``.eml`` files, or one such file.

    :param path: the file or the folder.
    :raises ValueError: if it is none of these.
    :raises OSError: if it can't be read.
    """
    if os.path.isdir(path):
        files = _files(path)
        if not files and not _is_maildir(path):
            raise ValueError(f"{path} is neither a Maildir nor a folder with .eml files")
        octets = 0
        for file in files:
            with open(file, "rb") as opened:
                content = opened.read()
                octets += len(content)
                yield _message(content, octets, _flags(file), os.fstat(opened.fileno()).st_mtime)
        return
    with open(path, "rb") as opened:
        beginning = opened.read(len(_FROM))
        opened.seek(0)
        if beginning == _FROM:
            yield from _read_mbox(opened)
        elif path.lower().endswith(".eml"):
            content = opened.read()
            yield _message(content, len(content), "", os.fstat(opened.fileno()).st_mtime)
        elif beginning:
            raise ValueError(f"{path} is no mbox: it does not begin with a line From SENDER DATE; is it an .eml?")


def _is_maildir(path: str) -> bool:
    return all(os.path.isdir(os.path.join(path, name)) for name in _SUBFOLDERS)


def _files(path: str) -> list[str]:
    """The files of a Maildir or a folder with .eml files, the oldest first as far as their names tell."""
    folders = [os.path.join(path, name) for name in _SUBFOLDERS] if _is_maildir(path) else [path]
    found = [os.path.join(folder, name) for folder in folders for name in os.listdir(folder) if name[:1] != "."]
    if not _is_maildir(path):
        found = [file for file in found if file.lower().endswith(".eml")]
    return sorted((file for file in found if os.path.isfile(file)), key=_place)


def _place(file: str) -> list[tuple[int, str]]:
    """Numbers in a name are compared as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", os.path.basename(file))]


def _flags(file: str) -> str:
    """The flags of a message in a Maildir: S for one that was read."""
    return os.path.basename(file).partition(":2,")[2]


def _read_mbox(file: BufferedIOBase) -> Iterator[FileMessage]:
    lines: list[bytes] = []
    first, octets, before = b"", 0, b"\n"
    for line in file:
        if line.startswith(_FROM) and before in (b"\n", b"\r\n"):
            if first:
                yield _of_mbox(first, lines, octets)
            first, lines = line, []
        else:
            lines.append(line)
        octets += len(line)
        before = line
    if first:
        yield _of_mbox(first, lines, octets)


def _of_mbox(first: bytes, lines: list[bytes], octets: int) -> FileMessage:
    # The last empty line belongs to the file.
    if lines and lines[-1] in (b"\n", b"\r\n"):
        lines.pop()
    content = _QUOTED.sub(rb"\1", b"".join(lines))
    sender, _, date = first[len(_FROM) :].decode("utf-8", "replace").strip().partition(" ")
    try:
        received: float | None = datetime.strptime(date.strip()[:24], _DATE).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        received = None
    return _message(content, octets, "", received, "" if sender in ("MAILER-DAEMON", "-") else sender)


def _message(
    content: bytes, octets: int, flags: str, received: float | None, mail_from: str | None = None
) -> FileMessage:
    content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    headers = outline(content[: 2**16]).headers
    if mail_from is None:
        mail_from = next((one.address for one in _addresses(headers, "return-path")), "")
    for names in _RECIPIENTS:
        recipients = [one.address for name in names for one in _addresses(headers, name) if "@" in one.address]
        if recipients:
            break
    time = _date(headers) if received is None else datetime.fromtimestamp(received, timezone.utc)
    seen = "S" in flags or "R" in "".join(headers.get("status", []))
    return FileMessage(content, mail_from, tuple(dict.fromkeys(recipients)), time, seen, octets)


def _addresses(headers: dict[str, list[str]], name: str) -> list[Address]:
    return [one for value in headers.get(name, ()) for one in parse_addresses(value)]


def _date(headers: dict[str, list[str]]) -> datetime:
    try:
        time = parsedate_to_datetime(headers["date"][0])
        return (time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (KeyError, ValueError, TypeError, OverflowError, IndexError):
        return datetime.now(timezone.utc)


# -- export ------------------------------------------------------------------------------------------------------------


def writer(path: str, form: str) -> tuple[Callable[[StoredMessage], None], Callable[[], None]]:
    """Make a file or a folder for messages.

    :param path: the file or the folder; it must not be there, or be empty.
    :param form: one of :data:`FORMATS`.
    :returns: a function that writes a message, and one that ends it.
    :raises OSError: if it can't be made, or is there already.
    """
    if form == "mbox":
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        file = os.fdopen(descriptor, "wb")
        return (lambda stored: _write_mbox(file, stored)), file.close
    _make_folder(path)
    if form == "eml":
        return (lambda stored: _write_file(os.path.join(path, f"{stored.id}.eml"), stored.message.content)), _nothing
    for name in ("tmp", *_SUBFOLDERS):
        os.mkdir(os.path.join(path, name), 0o700)
    return (lambda stored: _write_maildir(path, stored)), _nothing


def _nothing() -> None:
    """There is nothing to end."""


def _make_folder(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path) or os.listdir(path):
            raise


def _write_file(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _write_mbox(file: BufferedIOBase, stored: StoredMessage) -> None:
    message = stored.message
    sender = re.sub(r"\s", "", message.mail_from) or "MAILER-DAEMON"
    date = message.received.astimezone(timezone.utc).strftime(_DATE)
    content = _TO_QUOTE.sub(rb">\1", message.content.replace(b"\r\n", b"\n"))
    # Python's own reader fails on anything but ASCII.
    file.write(f"From {sender} {date}\n".encode("ascii", "replace"))
    file.write(content if content.endswith(b"\n") else content + b"\n")
    file.write(b"\n")


def _write_maildir(path: str, stored: StoredMessage) -> None:
    name = (
        f"{int(stored.message.received.timestamp())}.{stored.id}.{re.sub(r'[^A-Za-z0-9.-]', '_', socket.gethostname())}"
    )
    folder, name = ("cur", f"{name}:2,S") if stored.seen else ("new", name)
    final = os.path.join(path, folder, name)
    _write_file(final, stored.message.content.replace(b"\r\n", b"\n"))
    time = stored.message.received.timestamp()
    os.utime(final, (time, time))
