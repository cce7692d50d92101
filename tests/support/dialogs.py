"""Scripted dialogs: what a client says and what the server answers, as a file; and ways to split the octets.

A file starts with comments, which name the rule, and a header of ``key: value`` lines:

``option``
    ``name=value``, an argument of :class:`SMTP`, in Python's notation; may be repeated.
``handler``
    one of :data:`HANDLERS`; a recorder unless given.
``protocol``
    ``lmtp``; SMTP unless given.
``message``
    the content of a message the handler gets, in the notation of ``C:`` lines; may be repeated.

The dialog follows: ``C:`` is a line of the client's, sent with CRLF; ``B:`` the same without; ``S:`` a line of the
server's; ``S-closes`` says that it has closed the connection.  In ``C:`` and ``B:`` lines ``\\r``, ``\\n``, ``\\t``,
``\\0``, ``\\xNN`` and ``\\\\`` are octets, and ``{a*600}`` is 600 times ``a``.  The greeting is read before.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.fakes import Recorder
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP

_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))|\{([^{}*]*)\*([0-9]+)\}", re.DOTALL)
_ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


class Refuser(Recorder):
    """Refuses the senders ``refused@...``, the recipients ``refused@...`` and the messages that say ``refuse me``."""

    def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("refused@"):
            return "550 Sender refused"
        envelope.mail_from = address
        return "250 OK"

    def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("refused@"):
            return "550 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if b"refuse me" in envelope.content:
            return "554 Refused"
        return await super().handle_DATA(server, session, envelope)


class Closer(Recorder):
    """Says 421 where it can."""

    def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: str | None) -> str:
        return "421 4.3.2 Going away"


class Talker(Recorder):
    """Answers with text that would be more than one reply."""

    def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: str | None) -> str:
        return "250 one\r\n550 two\r\n250 three"

    def handle_VRFY(self, server: Any, session: Any, envelope: Any, address: str) -> str:
        return "250 \x00\x1b[2J\x7f caf\u00e9"

    def handle_EHLO(self, server: Any, session: Any, envelope: Any, name: str, responses: list[str]) -> list[str]:
        session.host_name = name
        return [*responses[:-1], "250-X-MORE", responses[-1]]


class Sorter(Recorder):
    """Accepts a message for some of its recipients: their local part is the code."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        await super().handle_DATA(server, session, envelope)
        return [f"{address.partition('@')[0]} for {address}" for address in envelope.rcpt_tos]


HANDLERS: dict[str, Callable[[], Recorder]] = {
    "recorder": Recorder,
    "refuser": Refuser,
    "closer": Closer,
    "talker": Talker,
    "sorter": Sorter,
}


@dataclass
class Script:
    """One dialog."""

    options: dict[str, Any] = field(default_factory=dict)
    handler: str = "recorder"
    protocol: type[SMTP] = SMTP
    messages: list[bytes] = field(default_factory=list)
    # What the client sends, what the server answers to it, and whether it closes then.
    turns: list[tuple[bytes, bytes, bool]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Script:
        script = cls()
        for number, line in enumerate(path.read_text("ascii").splitlines(), 1):
            try:
                script._read_line(line)
            except (ValueError, SyntaxError, LookupError) as error:
                raise ValueError(f"{path.name}:{number}: {error}") from error
        return script

    def _read_line(self, line: str) -> None:
        key, _, value = line.partition(": ")
        if line in ("S-closes", "C:"):
            key = line.rstrip(":")
        if not line or line.startswith("#"):
            return
        if key == "option":
            name, _, literal = value.partition("=")
            self.options[name] = ast.literal_eval(literal)
        elif key == "handler":
            self.handler = value
        elif key == "protocol":
            self.protocol = {"lmtp": LMTP}[value]
        elif key == "message":
            self.messages.append(unescape(value))
        elif key == "C":
            self.turns.append((unescape(value) + b"\r\n", b"", False))
        elif key == "B":
            self.turns.append((unescape(value), b"", False))
        elif key == "S":
            sent, said, closes = self.turns[-1]
            self.turns[-1] = sent, said + value.encode() + b"\r\n", closes
        elif key == "S-closes":
            self.turns[-1] = (*self.turns[-1][:2], True)
        else:
            raise ValueError(f"not a line of a dialog: {line!r}")

    @property
    def sent(self) -> bytes:
        return b"".join(turn[0] for turn in self.turns)

    @property
    def said(self) -> bytes:
        return b"".join(turn[1] for turn in self.turns)

    @property
    def closes(self) -> bool:
        return any(turn[2] for turn in self.turns)


def unescape(text: str) -> bytes:
    def octets(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return bytes.fromhex(match[1].decode())
        if match[2]:
            return _ESCAPES[match[2]]
        return match[3] * int(match[4])

    return _ESCAPE.sub(octets, text.encode("ascii"))


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def octet_by_octet(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        yield data[index : index + 1]


def at_random(seed: int) -> Callable[[bytes], Iterator[bytes]]:
    def split(data: bytes) -> Iterator[bytes]:
        choice = random.Random(seed)
        start = 0
        while start < len(data):
            end = start + choice.choice((1, 2, 3, 5, 8, 21, 55, 300))
            yield data[start:end]
            start = end

    return split


SPLITS = [whole, octet_by_octet, *map(at_random, range(5))]
