"""The handler that prints messages."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from zope.interface import implementer

from twisted_smtpd.handlers.printing import harmless, in_encoding, one_line, warn_if_lost, write_whole
from twisted_smtpd.interfaces import HookServer, IDATAHandler, IStartable
from twisted_smtpd.runtime.computing import compute, is_large
from twisted_smtpd.runtime.lifecycle import ServerInfo
from twisted_smtpd.session import Envelope, Session, within_brackets
from twisted_smtpd.wire.slices import slices

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["Debugging"]

_BEGIN = "---------- MESSAGE FOLLOWS ----------"
_END = "------------ END MESSAGE ------------"

# A sender must not be able to draw a frame: it would hide where this message ends, or invent another one.
_FRAME = re.compile(f"^(?={re.escape(_BEGIN)}|{re.escape(_END)})", re.MULTILINE)


def _printable(head: str, content: str | bytes, encoding: str | None) -> str:
    """What is printed of a message.

    :param head: what comes before its content.
    :param encoding: the stream's, if it has one.
    """
    if not isinstance(content, str):
        content = content.decode("utf-8", "backslashreplace")
    content = "".join(_FRAME.sub("- ", harmless(lines.replace("\r\n", "\n"))) for lines in slices(content))
    if content and not content.endswith("\n"):
        content += "\n"
    return in_encoding(f"{head}{content}{_END}\n", encoding)


@implementer(IDATAHandler, IStartable)
class Debugging:
    """Prints each message with its envelope.

    What a terminal would obey (escape sequences, other control characters, bidirectional controls) and bytes that are
    not UTF-8 are shown as ``\\x1b`` or the like.  A line of the message that looks like the frame around it gets a dash
    and a blank before it.

    :param stream: where to print; ``None`` is what the standard output is now.
    """

    #: Options whose defaults are others with this handler: it takes lines of any length, as real mail has them.
    option_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"line_length_limit": 0})

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream: TextIO = sys.stdout if stream is None else stream

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Debugging:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: none, ``stdout`` or ``stderr``.
        """
        if len(args) > 1 or (args and args[0] not in ("stdout", "stderr")):
            parser.error(f"it takes stdout or stderr, not {' '.join(args)!r}")
        return cls(sys.stderr if args == ("stderr",) else sys.stdout)

    def start(self, server: ServerInfo) -> None:
        """Warn in the log if what is printed is lost."""
        # Not earlier: twistd puts /dev/null in the place of the standard output when it leaves the terminal.
        warn_if_lost(self.stream, "debugging")

    async def handle_DATA(self, server: HookServer, session: Session, envelope: Envelope) -> str:
        """Print a message.

        :returns: ``"250 OK"``.
        :raises OSError: if the stream is broken.
        :raises ValueError: if the stream is closed.
        """
        content = envelope.content or ""
        encoding = getattr(self.stream, "encoding", None)
        head = "\n".join((_BEGIN, *self._envelope_lines(session, envelope), "", ""))
        if is_large(content):
            text = await compute(_printable, head, content, encoding)
        else:
            text = _printable(head, content, encoding)
        write_whole(self.stream, text)
        return "250 OK"

    def _envelope_lines(self, session: Session, envelope: Envelope) -> list[str]:
        def line(*words: object) -> str:
            return " ".join(one_line(word) for word in words)

        lines = [
            line("X-Peer:", session.peer),
            line(f"MAIL FROM:<{within_brackets(envelope.mail_from)}>", *envelope.mail_options),
        ]
        if [recipient.address for recipient in envelope.recipients] == envelope.rcpt_tos:
            lines += [line(f"RCPT TO:<{recipient.address}>", *recipient.options) for recipient in envelope.recipients]
        else:
            # A handle_RCPT has put in other addresses than the client's, so the options can't be assigned to them.
            lines += [line(f"RCPT TO:<{address}>") for address in envelope.rcpt_tos]
            if envelope.rcpt_options:
                lines.append(line("rcpt options:", *envelope.rcpt_options))
        return lines
