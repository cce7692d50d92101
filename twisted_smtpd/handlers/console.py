"""The handler that prints messages for people; the default of the command line."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from zope.interface import implementer

from twisted_smtpd.handlers.printing import harmless, in_encoding, one_line, warn_if_lost, write_whole
from twisted_smtpd.interfaces import HookServer, IDATAHandler, IStartable
from twisted_smtpd.logs.escaping import peer_text
from twisted_smtpd.runtime.computing import compute
from twisted_smtpd.runtime.lifecycle import ServerInfo
from twisted_smtpd.session import Envelope, Peer, Session, within_brackets

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from twisted_smtpd.handlers.readable import Readable

__all__ = ["Console"]

# A sender must not be able to draw a frame: it would hide where this message ends, or invent another one.
_FRAME = re.compile("^(?=={8,})", re.MULTILINE)
# Recipients that are shown.
MAX_RECIPIENTS = 20

_BOLD, _DIM, _END = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@implementer(IDATAHandler, IStartable)
class Console:
    """Prints each message as a person wants to read it: headers and text decoded, attachments and links as lists.

    What a terminal would obey is shown as ``\\x1b`` or the like.  A text that is longer than 65,536 characters is cut.

    :param stream: where to print; ``None`` is what the standard output is now.
    :param raw: print the message as it has come instead.
    :param color: whether to use colours; by default on a terminal, unless there is a variable ``NO_COLOR``.
    """

    #: Options whose defaults are others with this handler: it takes lines of any length, as real mail has them.
    option_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"line_length_limit": 0})

    def __init__(self, stream: TextIO | None = None, *, raw: bool = False, color: bool | None = None) -> None:
        self.stream: TextIO = sys.stdout if stream is None else stream
        self._raw = raw
        self._color = _wants_color(self.stream) if color is None else color
        self._count = 0

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Console:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: none, ``stdout`` or ``stderr``, then options.
        """
        parser.add_argument("stream", nargs="?", choices=("stdout", "stderr"), default="stdout")
        parser.add_argument("--raw", action="store_true", help="print messages as they have come")
        options = parser.parse_args(list(args))
        return cls(sys.stderr if options.stream == "stderr" else sys.stdout, raw=options.raw)

    def start(self, server: ServerInfo) -> None:
        """Warn in the log if what is printed is lost."""
        warn_if_lost(self.stream, "console")

    async def handle_DATA(self, server: HookServer, session: Session, envelope: Envelope) -> str:
        """Print a message.

        :returns: ``"250 OK"``.
        :raises OSError: if the stream is broken.
        :raises ValueError: if the stream is closed.
        """
        content = envelope.content_bytes
        self._count += 1
        head = list(self._head(session, envelope, len(content)))
        # In a thread: the email package takes its time, and can be made to take more.
        text = await compute(self._printable, head, content, getattr(self.stream, "encoding", None))
        write_whole(self.stream, text)
        return "250 OK"

    def _head(self, session: Session, envelope: Envelope, octets: int) -> Iterator[str]:
        """The frame, and what is said of the envelope and the client."""
        moment = time.strftime("%H:%M:%S")
        yield self._styled(f"======== message {self._count}, {moment}, {octets:,} octets ========", _BOLD)
        recipients = [f"<{one_line(address)}>" for address in envelope.rcpt_tos[:MAX_RECIPIENTS]]
        if len(envelope.rcpt_tos) > MAX_RECIPIENTS:
            recipients.append(f"and {len(envelope.rcpt_tos) - MAX_RECIPIENTS:,} more")
        yield self._field("sender", f"<{one_line(within_brackets(envelope.mail_from))}>")
        yield self._field("recipients", ", ".join(recipients))
        client = f"{_address(session.peer)} ({one_line(session.host_name or '?')})"
        if session.tls:
            client += f", {one_line(getattr(session.ssl, 'version', None) or 'TLS')}"
        if session.authenticated:
            login = getattr(session.auth_data, "login", None)
            name = login.decode("utf-8", "backslashreplace") if isinstance(login, bytes) else login
            client += f", signed in{f' as {one_line(name)}' if name else ''}"
        yield self._field("client", client)
        yield ""

    def _printable(self, head: list[str], content: bytes, encoding: str | None) -> str:
        # Imported here: the email package takes its time, and is needed with the first message.
        from twisted_smtpd.handlers.readable import readable

        try:
            body = _source(content) if self._raw else "\n".join(self._body(readable(content)))
        except Exception:  # what the email package can't read is printed as it is
            body = _source(content)
        return in_encoding("\n".join((*head, body, self._styled("=" * 8, _BOLD), "", "")), encoding)

    def _body(self, message: Readable) -> Iterator[str]:
        for name, value in message.headers:
            yield self._field(name, one_line(value))
        if message.text:
            yield ""
            yield _framed(harmless(message.text))
        if message.more:
            yield self._styled(f"… and {message.more:,} more characters", _DIM)
        if message.attachments:
            yield ""
            yield self._styled("Attachments:", _BOLD)
            for one in message.attachments:
                yield f"  {one_line(one.name) or '(no name)'}  {one_line(one.kind)}, {one.octets:,} octets"
        if message.links:
            yield ""
            yield self._styled("Links:", _BOLD)
            for link in message.links:
                yield f"  {one_line(link)}"

    def _field(self, name: str, value: str) -> str:
        return f"{self._styled(f'{name}:', _DIM)} {value}"

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{_END}" if self._color else text


def _framed(text: str) -> str:
    """A text in which no line looks like the frame around a message."""
    return _FRAME.sub("- ", text)


def _source(content: bytes) -> str:
    text = content.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return _framed(harmless(text.removesuffix("\n")))


def _address(peer: Peer | None) -> str:
    if isinstance(peer, tuple):
        return peer_text(peer)
    return f"unix:{one_line(peer)}" if peer else "a Unix socket"


def _wants_color(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False
