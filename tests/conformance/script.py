"""Reads the dialogs of the conformance suite: one file for an RFC, one dialog for a rule.

A file begins with comments.  Each dialog begins with ``=== SECTION: THE RULE``, and goes on with ``key: value`` lines:

``option``
    ``name=value``, an argument of :class:`SMTP`, in Python's notation; may be repeated.
``handler``
    one of :data:`HANDLERS`; a recorder unless given.
``protocol``
    ``lmtp``; SMTP unless given.
``after``
    ``EHLO``, ``MAIL`` or ``RCPT``: the client has said all up to this command, and the server has said yes.
``message``
    the content of a message the handler gets, as in ``C:`` lines; may be repeated.
``sees``
    what is true for the handler in the end, in Python: of ``envelope`` and ``recipient``, those of the last message,
    and of ``calls``, what the hooks noted.

Then comes what is said: ``C:`` is a line of the client's, sent with CRLF; ``B:`` the same without; ``S:`` a line of the
server's.  ``S+:`` is a keyword line that an EHLO response has, ``S-:`` one that it does not have; both in place of the
response.  In server lines ``*`` is any text.  ``TLS`` is a handshake, and what follows goes over TLS.  ``S-closes``
says that the server has closed the connection.  ``C:`` and ``B:`` have the escapes of :mod:`tests.support.dialogs`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.support.dialogs import unescape

BEFORE = {"EHLO": 1, "MAIL": 2, "RCPT": 3}
_HEADING = re.compile(r"=== ([0-9A-Za-z.]+(?:, [0-9A-Za-z.]+)*): (.+)")


@dataclass
class Turn:
    """What a client sends, and what the server is to say to it.

    :ivar handshake: whether TLS begins before it is sent.
    """

    sent: bytes
    lines: list[str] = field(default_factory=list)
    has: list[str] = field(default_factory=list)
    has_not: list[str] = field(default_factory=list)
    closes: bool = False
    handshake: bool = False

    def complaint(self, said: bytes) -> str | None:
        """What is wrong with an answer, if something is."""
        lines = said.decode().removesuffix("\r\n").split("\r\n") if said else []
        if self.has or self.has_not:
            keywords = [line[4:] for line in lines]
            missing = [k for k in self.has if not any(fnmatchcase(word, k) for word in keywords)]
            surplus = [k for k in self.has_not if any(fnmatchcase(word, k) for word in keywords)]
            return f"{keywords}: {missing} missing, {surplus} not wanted" if missing or surplus else None
        good = len(lines) == len(self.lines) and all(map(_matches, lines, self.lines))
        return None if good else f"{self.sent[:80]!r}: said {lines}, wanted {self.lines}"


def _matches(line: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), line) is not None


@dataclass
class Script:
    """One dialog.

    :ivar rfc: the RFC's number.
    :ivar section: where the rule is.
    :ivar rule: the rule, in a few words.
    """

    rfc: str
    section: str
    rule: str
    options: dict[str, Any] = field(default_factory=dict)
    handler: str = "recorder"
    lmtp: bool = False
    before: int = 0
    messages: list[bytes] = field(default_factory=list)
    sees: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    _handshake: bool = False

    @property
    def name(self) -> str:
        """For the test's method."""
        return re.sub(r"\W+", "_", f"{self.section} {self.rule}").strip("_")

    @property
    def segments(self) -> list[bytes]:
        """All that the client says, cut where TLS begins."""
        result = [b""]
        for turn in self.turns:
            if turn.handshake:
                result.append(b"")
            result[-1] += turn.sent
        return result

    def read(self, line: str) -> None:
        """Take one line of the file."""
        key, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "TLS":
            self._handshake = True
        elif line == "S-closes":
            self.turns[-1].closes = True
        elif not colon:
            raise ValueError(f"not a line of a dialog: {line!r}")
        elif key in ("C", "B"):
            self.turns.append(Turn(unescape(value) + (b"\r\n" if key == "C" else b""), handshake=self._handshake))
            self._handshake = False
        elif key in ("S", "S+", "S-"):
            turn = self.turns[-1]
            {"S": turn.lines, "S+": turn.has, "S-": turn.has_not}[key].append(value)
        else:
            self._read_header(key, value)

    def _read_header(self, key: str, value: str) -> None:
        if key == "option":
            name, _, literal = value.partition("=")
            self.options[name] = ast.literal_eval(literal)
        elif key == "handler":
            self.handler = value
        elif key == "protocol":
            self.lmtp = {"lmtp": True}[value]
        elif key == "after":
            self.before = BEFORE[value]
        elif key == "message":
            self.messages.append(unescape(value))
        elif key == "sees":
            self.sees.append(value)
        else:
            raise ValueError(f"not a key: {key!r}")


def scripts(path: Path) -> Iterator[Script]:
    """The dialogs of a file."""
    script = None
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.startswith("#") or not line:
            continue
        try:
            if line.startswith("==="):
                heading = _HEADING.fullmatch(line)
                if heading is None:
                    raise ValueError("a heading is '=== SECTION: THE RULE'")
                if script is not None:
                    yield script
                script = Script(path.stem.removeprefix("rfc"), heading[1], heading[2])
            elif script is None:
                raise ValueError("a dialog begins with a heading")
            else:
                script.read(line)
        except (ValueError, SyntaxError, LookupError) as error:
            raise ValueError(f"{path.name}:{number}: {error}") from error
    if script is not None:
        yield script
