"""The dialog of a connection in the log, for ``--trace``: as the client and the server say it, without secrets."""

from __future__ import annotations

from collections.abc import Container
from typing import Protocol

from twisted_smtpd.logs.events import DIALOG, Client
from twisted_smtpd.logs.masking import HIDDEN, shown_line, shown_reply
from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.wire.commands import parse_command
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["Transcript", "shown_client_line"]


class Waiting(Protocol):
    """The command in progress.

    :ivar input: the input that it waits for, or ``None``.
    """

    @property
    def input(self) -> object: ...


class Traced(Client, Protocol):
    """A connection whose dialog is written down.

    :ivar _commands: the verbs that are known at the moment.
    :ivar _hidden_lines: how many of the next unknown commands may be secrets.
    """

    _settings: SharedSettings
    _hidden_lines: int

    @property
    def _runner(self) -> Waiting:
        """The command in progress."""

    @property
    def _commands(self) -> Container[str]:
        """The verbs that are known."""


def shown_client_line(connection: Traced, line: bytes) -> str:
    """A line that the client has said, as it may be shown; to be called before the line is acted on.

    :param connection: the connection.
    :param line: the line without its line end.
    """
    # A line that a command waits for is one of an AUTH exchange, or of a program's own command.
    secret = connection._runner.input is not None or (connection._hidden_lines and not _is_known(connection, line))
    return HIDDEN if secret else shown_line(line, connection._settings.mechanisms)


def _is_known(connection: Traced, line: bytes) -> bool:
    commands = connection._commands
    try:
        return parse_command(line, commands)[0] in commands
    except SMTPReplyError:
        return False


class Transcript:
    """Writes down the dialog of one connection.

    :param connection: the connection.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Traced) -> None:
        self._connection = connection

    def client_line(self, line: bytes) -> None:
        """The client has said a line.

        :param line: the line without its line end.
        """
        self._say("C", shown_client_line(self._connection, line))

    def refused_line(self) -> None:
        """The client has said a line that can't be read, or is too long."""
        self._say("C", "(a line that is refused)")

    def content(self, octets: int, chunk: bool = False) -> None:
        """The client has sent a message, or a chunk of one.

        :param octets: its size.
        :param chunk: whether it is a chunk.
        """
        self._say("C", f"({octets:,} octets of {'a chunk' if chunk else 'content'})")

    def server_lines(self, data: bytes) -> None:
        """The server says something.

        :param data: whole lines with their line ends.
        """
        for line in data.removesuffix(b"\r\n").split(b"\r\n"):
            self._say("S", shown_reply(line).decode("utf-8", "replace"))

    def note(self, text: str) -> None:
        """Something has happened that no line tells."""
        self._say("", text)

    def _say(self, side: str, line: str) -> None:
        DIALOG.tell(self._connection, side=side, line=line)
