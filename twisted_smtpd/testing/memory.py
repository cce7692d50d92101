"""Dialogs in memory: a handler is tested without sockets, without threads, and by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.policy import SMTP as SMTP_POLICY
from email.utils import getaddresses
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP

__all__ = ["Dialog", "Replies", "connect", "deliver", "talk"]

#: The address of a client in memory (RFC 5737).
CLIENT = "192.0.2.1"


class Dialog:
    """The client's end of a connection in memory.

    :param protocol: the server's end.
    :param host: the client's address: an IPv4 address, or an address object of Twisted.
    :param transport: what is between them.
    :ivar transport: what is between them.
    :ivar protocol: the server's end.
    """

    transport: Any

    def __init__(self, protocol: SMTP, host: Any = CLIENT, transport: Any = None) -> None:
        address = IPv4Address("TCP", host, 40000) if isinstance(host, str) else host
        self.transport = StringTransport(peerAddress=address) if transport is None else transport
        self.protocol = protocol
        protocol.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    @property
    def clock(self) -> Any:
        """The server's clock: ``dialog.clock.advance(60)`` lets a minute pass."""
        return self.protocol.connections.timers.clock

    def send(self, data: bytes) -> bytes:
        """Send one segment.

        :param data: octets; a closed connection does not get them.
        :returns: what was answered since the last call.
        """
        if not self.closed:
            self.protocol.dataReceived(data)
        return self.read()

    def read(self) -> bytes:
        """What was answered since the last call."""
        said: bytes = self.transport.value()
        self.transport.clear()
        return said

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection."""
        return bool(self.transport.disconnecting)

    @property
    def aborted(self) -> bool:
        """Whether the server has reset the connection."""
        return bool(self.transport.disconnected)

    def lose(self, clean: bool = True) -> None:
        """Have the connection end.

        :param clean: whether it was closed, and not reset.
        """
        self.transport.connected = False
        self.protocol.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))

    def finish_sending(self) -> None:
        """Shut down this side only."""
        self.protocol.readConnectionLost()


def connect(handler: object, *, protocol: type[SMTP] = SMTP, host: Any = CLIENT, **options: Any) -> Dialog:
    """Connect to a new server in memory.

    :param handler: the handler to be tested.
    :param protocol: the server's class.
    :param host: the client's address.
    :param options: see :class:`~twisted_smtpd.smtp.SMTP`; ``clock`` is a :class:`~twisted.internet.task.Clock` unless
        another one is given, ``hostname`` is ``localhost``.
    """
    options.setdefault("hostname", "localhost")
    options.setdefault("clock", Clock())
    return Dialog(protocol(handler, **options), host)


def talk(
    handler: object,
    script: str | bytes | Iterable[str | bytes],
    *,
    protocol: type[SMTP] = SMTP,
    host: Any = CLIENT,
    **options: Any,
) -> str:
    """Say something to a handler's server, and return the dialog.

    :param handler: the handler to be tested.
    :param script: what the client says.  A ``str`` is lines, each of which is sent by itself with a CRLF; ``bytes`` are
        one segment, sent as they are.
    :param protocol: see :func:`connect`, as for the others.
    :returns: the dialog, a line of it in each line: ``C:`` and ``S:`` tell who said it, ``--`` is a remark.
    """
    dialog = connect(handler, protocol=protocol, host=host, **options)
    lines = _lines("S:", dialog.read())
    for segment in _segments(script):
        if dialog.closed or dialog.aborted:
            break
        lines += _lines("C:", segment)
        lines += _lines("S:", dialog.send(segment))
    if dialog.aborted:
        lines.append("-- the server has reset the connection")
    elif dialog.closed:
        lines.append("-- the server has closed the connection")
    dialog.lose()
    return "\n".join(lines)


def _segments(script: str | bytes | Iterable[str | bytes]) -> Iterator[bytes]:
    for part in (script,) if isinstance(script, (str, bytes)) else script:
        if isinstance(part, bytes):
            yield part
        else:
            # Not splitlines(), which takes more than line ends for a line's end.
            yield from (f"{line}\r\n".encode() for line in part.replace("\r\n", "\n").removesuffix("\n").split("\n"))


def _lines(who: str, data: bytes) -> list[str]:
    if not data:
        return []
    return [f"{who} {line.decode('utf-8', 'backslashreplace')}" for line in data.removesuffix(b"\r\n").split(b"\r\n")]


@dataclass(frozen=True)
class Replies:
    """What a server has answered to a message.

    A reply of several lines has a line feed between them.  ``""`` is no reply: a hook waits for something.

    :ivar mail: the reply to MAIL.
    :ivar rcpt: the reply to each RCPT, by recipient.
    :ivar data: the replies to the message: one, or in LMTP one for each accepted recipient; none if it was not sent.
    """

    mail: str
    rcpt: dict[str, str]
    data: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether the message was accepted for each recipient."""
        replies = (self.mail, *self.rcpt.values(), *self.data)
        return bool(self.data) and all(reply.startswith("2") for reply in replies)


def deliver(
    handler: object,
    message: bytes | str | Message,
    *,
    mail_from: str | None = None,
    rcpt_tos: Iterable[str] | None = None,
    segment: int | None = None,
    protocol: type[SMTP] = SMTP,
    host: Any = CLIENT,
    **options: Any,
) -> Replies:
    """Give a message to a handler's server, as a client does.

    :param handler: the handler to be tested.
    :param message: an :class:`email.message.EmailMessage`, or the text; line ends become CRLF.
    :param mail_from: the sender; by default that of ``From:``, or ``anne@example.com``.
    :param rcpt_tos: the recipients; by default those of ``To:``, ``Cc:`` and ``Bcc:``, or ``bart@example.com``.
    :param segment: octets of the message that arrive at once; ``None`` for all.
    :param protocol: see :func:`connect`, as for the others.
    """
    content = _content(message)
    if isinstance(message, Message):
        if mail_from is None:
            mail_from = next(iter(_addresses(message, "From")), None)
        if rcpt_tos is None:
            rcpt_tos = _addresses(message, "To", "Cc", "Bcc")
    sender = "anne@example.com" if mail_from is None else mail_from
    recipients = list(rcpt_tos or ("bart@example.com",))
    dialog = connect(handler, protocol=protocol, host=host, **options)
    dialog.read()
    utf8 = " SMTPUTF8" if not all(map(str.isascii, (sender, *recipients))) else ""

    def say(line: str) -> str:
        return _text(dialog.send(f"{line}\r\n".encode()))

    say(f"{'LHLO' if issubclass(protocol, LMTP) else 'EHLO'} client.example")
    mail = say(f"MAIL FROM:<{sender}>{utf8}")
    rcpt = {recipient: say(f"RCPT TO:<{recipient}>") for recipient in recipients} if mail.startswith("2") else {}
    data: tuple[str, ...] = ()
    if any(reply.startswith("2") for reply in rcpt.values()):
        data = _send_content(dialog, content, segment)
    dialog.send(b"QUIT\r\n")
    dialog.lose()
    return Replies(mail, rcpt, data)


def _send_content(dialog: Dialog, content: bytes, segment: int | None) -> tuple[str, ...]:
    answer = dialog.send(b"DATA\r\n")
    if not answer.startswith(b"354"):
        return (_text(answer),)
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    octets = stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n.\r\n")
    size = segment or len(octets)
    said = b"".join(dialog.send(octets[place : place + size]) for place in range(0, len(octets), size))
    return _replies(said)


def _content(message: bytes | str | Message) -> bytes:
    if isinstance(message, Message):
        return message.as_bytes(policy=SMTP_POLICY)
    octets = message.encode() if isinstance(message, str) else message
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _addresses(message: Message, *names: str) -> list[str]:
    values = [str(value) for name in names for value in message.get_all(name, ())]
    return [address for _, address in getaddresses(values) if address]


def _text(said: bytes) -> str:
    return said.decode("utf-8", "backslashreplace").removesuffix("\r\n").replace("\r\n", "\n")


def _replies(said: bytes) -> tuple[str, ...]:
    """The replies in what a server has said, each whole."""
    replies, lines = [], []
    for line in _text(said).split("\n") if said else ():
        lines.append(line)
        if line[3:4] != "-":
            replies.append("\n".join(lines))
            lines = []
    return tuple(replies)
