"""Connections whose dialog is kept, and that tell of what was refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.testing.failures import Failures
from twisted_smtpd.testing.protocol import SMTPDouble, WatchedContent
from twisted_smtpd.testing.transcript import Transcript
from twisted_smtpd.testing.wire import Wire

__all__ = ["InboxConnection", "Keeper", "inbox_protocol"]

# Refused commands of a transaction that are remembered.
MAX_REFUSED = 20
# What a transaction consists of, and what ends it.
_PARTS = frozenset({"MAIL", "RCPT", "DATA", "BDAT"})
_ENDS = (b"MAIL", b"RSET", b"HELO", b"EHLO", b"LHLO", b"QUIT")
_PATH = re.compile(rb"<([^<>]{0,1000})>")


class Keeper(Protocol):
    """Keeps what its connections tell."""

    def session_began(self, session: Session, transcript: Transcript) -> None:
        """A client has connected."""

    def session_ended(self, session: Session) -> None:
        """A client has gone; its transcript is complete."""

    def keep_refused(
        self, server: Any, session: Session, envelope: Envelope, recipients: tuple[Recipient, ...], refusal: str
    ) -> None:
        """A message was refused; or all that would have led to one, then the envelope has no content."""

    def message_refused(
        self, server: Any, session: Session, envelope: Envelope, recipients: tuple[Recipient, ...], refusal: str
    ) -> None:
        """A failure on demand has refused a message, for some recipients or for all."""


class _WatchedDialog(WatchedContent):
    """Notes replies as well, where no :class:`~twisted_smtpd.testing.wire.Wire` does."""

    __slots__ = ()

    def server_lines(self, data: bytes) -> None:
        self._own.server(data)
        if self._traced:
            super().server_lines(data)


class _NoWire(Wire):
    """Stands for a wire on a connection that began when nothing was to go wrong.

    A failure that is set later happens, but for octets in the place of a reply, or one by one.

    :param connection: the connection.
    """

    def __init__(self, connection: SMTPDouble) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        transport: Any = self._connection.transport
        transport.write(data)

    def split_next(self, delay: float) -> None:
        """It can't."""

    def replace_next(self, data: bytes) -> None:
        """It can't."""

    async def emptied(self) -> None:
        """Nothing waits in it."""

    def lost(self) -> None:
        """Nothing waits in it."""


class InboxConnection(SMTPDouble):
    """One SMTP connection of an inbox.

    :cvar keeper: gets what there is to keep.
    :ivar was_kept: whether the message in progress was kept, or can't be.
    """

    keeper: Keeper
    was_kept = False
    _refused_parts: tuple[tuple[bytes, str], ...] = ()

    @property
    def refusal_listener(self) -> Keeper:
        # Not the handler: that may be a chain.
        return self.keeper

    def makeConnection(self, transport: Any) -> None:
        if self.failures:
            super().makeConnection(transport)
        else:
            # Nothing goes wrong: replies go straight to the socket.
            self.wire = _NoWire(self)
            SMTP.makeConnection(self, transport)  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        super().connectionMade()
        if isinstance(self.wire, _NoWire):
            self._transcript = _WatchedDialog(self, self.transcript, self.trace)
        if self.session is not None:
            self.keeper.session_began(self.session, self.transcript)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self.session is not None:
            self._end_transaction()
            self.keeper.session_ended(self.session)

    def lineReceived(self, line: bytes) -> None:
        if self._refused_parts and line[:4].upper() in _ENDS:
            self._end_transaction()
        super().lineReceived(line)

    def _refusal_sent(self, code: int, wire: bytes) -> None:
        line = self._line
        if line and self._verb in _PARTS and len(self._refused_parts) < MAX_REFUSED:
            self._refused_parts += ((line, one_line(wire)),)
        super()._refusal_sent(code, wire)

    def _message_judged(self) -> None:
        super()._message_judged()
        self._refused_parts = ()
        if self._code >= 300 and not self.was_kept:
            envelope = self.envelope
            self.keeper.keep_refused(self, self.session, envelope, tuple(envelope.recipients), one_line(self._said))
        self.was_kept = False

    def _end_transaction(self) -> None:
        """Keep what is known of a message that was refused before it was sent."""
        parts, self._refused_parts = self._refused_parts, ()
        if not parts:
            return
        envelope = Envelope()
        envelope.mail_from = self.envelope.mail_from or _path(parts, b"MAIL")
        envelope.content = envelope.original_content = b""
        refused = tuple(Recipient(path) for path in _paths(parts, b"RCPT"))
        self.keeper.keep_refused(self, self.session, envelope, (*self.envelope.recipients, *refused), parts[0][1])


def _paths(parts: Sequence[tuple[bytes, str]], verb: bytes) -> list[str]:
    found = (_PATH.search(line) for line, _ in parts if line[:4].upper() == verb)
    return [match[1].decode("utf-8", "replace") for match in found if match is not None]


def _path(parts: Sequence[tuple[bytes, str]], verb: bytes) -> str:
    return next(iter(_paths(parts, verb)), "")


def one_line(wire: bytes) -> str:
    """A reply in one line, without anything that a terminal obeys."""
    lines = wire.decode("utf-8", "replace").rstrip("\r\n").split("\r\n")
    text = " ".join((f"{lines[0][:3]} {lines[0][4:]}", *(line[4:] for line in lines[1:])))
    return "".join(letter if letter.isprintable() else " " for letter in text)[:1000]


def inbox_protocol(keeper: Keeper, failures: Failures, lmtp: bool) -> type[InboxConnection]:
    """The class of the connections of one inbox.

    :param keeper: gets what there is to keep.
    :param failures: what is to go wrong.
    :param lmtp: whether it is LMTP.
    """
    bases = (InboxConnection, LMTP) if lmtp else (InboxConnection,)
    return type("InboxConnection", bases, {"keeper": keeper, "server_failures": failures, "__module__": __name__})
