"""The handler that stores messages in a Maildir."""

from __future__ import annotations

import contextlib
import email.message
import errno
import itertools
import mailbox
import os
import secrets
import socket
import time
from email.generator import BytesGenerator
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from twisted_smtpd.handlers.message import Message, status_of
from twisted_smtpd.handlers.trace import split_header, trace_header, trace_values
from twisted_smtpd.interfaces import HookServer
from twisted_smtpd.runtime.reactors import in_thread, wait_for
from twisted_smtpd.session import Envelope, Session, as_bytes
from twisted_smtpd.wire.replies import Reply
from twisted_smtpd.wire.slices import slices

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterable, Mapping
    from email.policy import Policy

    from twisted.internet.defer import Deferred

__all__ = ["Mailbox"]

_LINE_END = os.linesep.encode()
_counter = itertools.count(1)
# Characters that a file name can't have are written as other Maildir programs write them.
_HOST = socket.gethostname().replace("/", r"\057").replace(":", r"\072")


class Mailbox(Message):
    """Adds each message to a Maildir.

    The client hears 250 when the message is on the disk: written and synchronised under ``tmp``, renamed into ``new``,
    and that folder synchronised.  All of this happens in the reactor's thread pool.  A disk that is full or can't be
    written to makes the hook fail, which is a 451 for the client; nothing of the message stays behind.

    With ``prepare_message`` as it is and no ``message_class``, the message is stored as the client sent it: the line
    ends are the system's own in a Maildir, the trace headers are put first, and the first lines of a message without
    header are made what :func:`~twisted_smtpd.handlers.trace.split_header` says.

    A subclass may override ``prepare_message`` and ``handle_message``; they are called in the reactor's thread.  An
    override of ``handle_message`` that wants to store its message without holding up the other clients returns what
    :meth:`store` returns.

    :param mail_dir: where the Maildir is, or is to be created; the folder above it must exist.
    :param message_class: see :class:`~twisted_smtpd.handlers.Message`.
    :param policy: see :class:`~twisted_smtpd.handlers.Message`.
    :raises OSError: if the Maildir can't be created.
    """

    #: Options whose defaults are others with this handler: it takes lines of any length, as real mail has them.
    option_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"line_length_limit": 0})

    def __init__(
        self,
        mail_dir: str | os.PathLike[str],
        message_class: Callable[..., email.message.Message] | None = None,
        *,
        policy: Policy[Any] | None = None,
    ) -> None:
        super().__init__(message_class, policy=policy)
        self.mail_dir = mail_dir
        # A daemon changes its working directory; the Maildir stays where it was meant to be.
        self._path = os.path.abspath(os.path.expanduser(mail_dir))
        _create(self._path)
        #: The standard library's view of the same Maildir, to read it with.
        self.mailbox = mailbox.Maildir(self._path, create=False)

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Mailbox:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: the path of the Maildir.
        """
        if len(args) != 1 or not args[0]:
            parser.error("it takes one argument, the folder of the Maildir")
        return cls(args[0])

    def reset(self) -> None:
        """Remove all messages."""
        self.mailbox.clear()

    async def handle_DATA(self, server: HookServer, session: Session, envelope: Envelope) -> str | Reply:
        """Store a message.

        :returns: ``"250 OK"`` once it is on the disk, or what an overridden ``handle_message`` returned.
        :raises OSError: if it could not be stored.
        """
        if not _is(self.handle_message, Mailbox.handle_message):
            return await super().handle_DATA(server, session, envelope)
        if self.message_class is None and self.policy is None and _is(self.prepare_message, Message.prepare_message):
            if envelope.content is None:
                raise TypeError("envelope.content is bytes or str, not NoneType")
            trace = trace_header(trace_values(session, envelope), envelope.smtp_utf8)
            await wait_for(in_thread(self._store_as_sent, trace, as_bytes(envelope.content)))
        else:
            await wait_for(self.store(await self._prepared(session, envelope)))
        return status_of(None)

    def handle_message(self, message: email.message.Message) -> Any:
        """Store a message; it is on the disk when this returns.

        :raises OSError: if it could not be stored.
        """
        self._store_message(message)

    def store(self, message: email.message.Message) -> Deferred[None]:
        """Store a message in the reactor's thread pool.

        :returns: a Deferred that fires when the message is on the disk, or fails with :exc:`OSError`.
        """
        return in_thread(self._store_message, message)

    def _store_as_sent(self, trace: bytes, content: bytes) -> None:
        parts = (trace, *split_header(content))
        self._write(lines.replace(b"\r\n", _LINE_END) for part in parts for lines in slices(part))

    def _store_message(self, message: email.message.Message) -> None:
        subdir, info = "new", ""
        if isinstance(message, mailbox.MaildirMessage):
            subdir, info = message.get_subdir(), message.get_info()
        self._write([_flatten(message)], subdir, info)

    def _write(self, parts: Iterable[bytes], subdir: str = "new", info: str = "") -> None:
        now = time.time()
        # Unique among threads, processes and hosts that share the folder; in containers process ids start over.
        name = f"{int(now)}.M{int(now % 1 * 1e6)}P{os.getpid()}Q{next(_counter)}R{secrets.token_hex(4)}.{_HOST}"
        temporary = os.path.join(self._path, "tmp", name)
        final = os.path.join(self._path, subdir, f"{name}{self.mailbox.colon}{info}" if info else name)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, final)
        except BaseException:
            _remove(temporary)
            raise
        try:
            _sync_folder(os.path.dirname(final))
        except BaseException:
            # The client will be told to send it again.
            _remove(final)
            raise


def _is(method: Any, function: object) -> bool:
    """Whether a method is this function, overridden neither in a subclass nor on the instance."""
    return getattr(method, "__func__", None) is function


def _flatten(message: email.message.Message) -> bytes:
    """A message as bytes, with the headers as they are: folding them anew would break signatures."""
    output = BytesIO()
    try:
        BytesGenerator(output, mangle_from_=False, maxheaderlen=0).flatten(message, linesep=os.linesep)
    except UnicodeEncodeError:
        # Parsed from a str (decode_data) with more than ASCII in its body, which has no encoding of its own.
        text = message.as_string(policy=message.policy.clone(max_line_length=0, linesep=os.linesep))
        return text.encode("utf-8", "surrogateescape")
    return output.getvalue()


def _create(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise FileNotFoundError(errno.ENOENT, "the folder to create the Maildir in does not exist", parent)
    for folder in (path, *(os.path.join(path, name) for name in ("tmp", "new", "cur"))):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, "a Maildir is a folder, this is none", folder) from None
        else:
            _sync_folder(os.path.dirname(folder))


def _sync_folder(path: str) -> None:
    """Make the names in a folder durable: to synchronise a file does not synchronise its name."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems can't do this; they do it with the rename.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)
