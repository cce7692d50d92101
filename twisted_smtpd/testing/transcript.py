"""The dialog of one session, for people to read."""

from __future__ import annotations

from typing import Any

from twisted_smtpd.logs.masking import shown_reply

__all__ = ["MAX_LINES", "Transcript"]

#: Lines of a dialog that are kept; of a longer one, these are its first.
MAX_LINES = 500
# Characters of a line that are kept.
MAX_WIDTH = 500


class Transcript:
    """What was said in a session: ``C:`` by the client, ``S:`` by the server, ``--`` is a remark.

    Secrets are ``***``, and of a message only the size is told.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = 0

    def client(self, line: str) -> None:
        """Note a line of the client.

        :param line: as it may be shown; see :func:`~twisted_smtpd.protocol.transcript.shown_client_line`.
        """
        self._add("C:", _readable(line))

    def content(self, size: int, chunk: bool = False) -> None:
        """Note a message, or a chunk of one (RFC 3030).

        :param size: its octets.
        :param chunk: whether it is a chunk.
        """
        self._add("C:", f"({size:,} octets of {'a chunk' if chunk else 'message'})")
        if not chunk:
            self._add("C:", ".")

    def server(self, data: bytes) -> None:
        """Note what the server sends: replies, or parts of them."""
        for line in data.removesuffix(b"\r\n").split(b"\r\n"):
            self._add("S:", _readable(shown_reply(line).decode("utf-8", "backslashreplace")))

    def remark(self, text: str) -> None:
        """Note an event, such as the end of the connection."""
        self._add("--", text)

    def _add(self, who: str, text: str) -> None:
        if len(self._lines) < MAX_LINES:
            self._lines.append(f"{who} {text[:MAX_WIDTH]}")
        else:
            self._more += 1

    @property
    def length(self) -> int:
        """How many lines there have been, those that are not kept included."""
        return len(self._lines) + self._more

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines so far, each with its mark."""
        more = (f"-- {self._more:,} more lines",) if self._more else ()
        return (*self._lines, *more)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __eq__(self, other: Any) -> bool:
        return self.lines == other.lines if isinstance(other, Transcript) else NotImplemented

    __hash__ = object.__hash__


def _readable(text: str) -> str:
    """A text in one line, without anything that a terminal obeys."""
    return "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in text)
