"""What the tests of the dialog share: a transport, a client, and handlers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.session import Envelope
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.testing.memory import CLIENT, Dialog

T = TypeVar("T")

GREETING = b"220 mx.example ESMTP twisted-smtpd\r\n"
EHLO = b"EHLO client.example\r\n"
ENVELOPE = EHLO + b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n"
MESSAGE = ENVELOPE + b"DATA\r\nSubject: hi\r\n\r\nhello\r\n.\r\n"

# RFC 5321 section 4.2: code, hyphen or blank, printable text.
REPLY_LINE = re.compile(rb"[2-5][0-5][0-9][- ][\t -~\x80-\xff]*")


class Transport(StringTransport):
    """A transport whose other end stops reading at ``room`` octets, and sees the end only when told."""

    producer: Any
    room: int | None = None
    pauses = resumes = writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)
        if self.producer is not None and self.room is not None and len(self.value()) > self.room:
            self.producer.pauseProducing()

    def pauseProducing(self) -> None:
        self.pauses += 1
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self.resumes += 1
        super().resumeProducing()


class Client(Dialog):
    """The other end of a connection, which may be slow to read.

    :param protocol: the server's end.
    :param host: the client's address.
    """

    def __init__(self, protocol: SMTP, host: Any = CLIENT, transport: Transport | None = None) -> None:
        address = IPv4Address("TCP", host, 40000) if isinstance(host, str) else host
        super().__init__(protocol, host, Transport(peerAddress=address) if transport is None else transport)


class Recorder:
    """Keeps the envelope of each message it is given."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    @property
    def contents(self) -> list[Any]:
        return [envelope.content for envelope in self.envelopes]

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        return "250 OK"


def hooks(**methods: Callable[..., Any]) -> Any:
    """A handler of these hooks: ``hooks(handle_NOOP=lambda server, session, envelope, arg: "250 OK")``."""
    return type("Handler", (), {name: staticmethod(method) for name, method in methods.items()})()


def answering(status: Any) -> Callable[..., Any]:
    """A hook that returns this, whatever it is called with."""
    return lambda *arguments: status


def raiser(error: BaseException) -> Callable[..., Any]:
    """A hook that raises this."""

    def hook(*arguments: Any) -> Any:
        raise error

    return hook


def connect(handler: Any = None, protocol: type[SMTP] = SMTP, host: Any = "192.0.2.1", **options: Any) -> Client:
    """A client of a new server, past the greeting unless that is not the usual one."""
    options.setdefault("hostname", "mx.example")
    options.setdefault("clock", Clock())
    client = Client(protocol(object() if handler is None else handler, **options), host)
    if client.transport.value() == GREETING:
        client.read()
    return client


def make_factory(handler: Any = None, protocol: type[SMTP] = SMTP, **options: Any) -> SMTPFactory:
    options.setdefault("hostname", "mx.example")
    options.setdefault("clock", Clock())
    return SMTPFactory(object() if handler is None else handler, protocol=protocol, **options)


def join(factory: SMTPFactory, host: Any = "192.0.2.1") -> Client:
    """A client of a factory's server; its greeting is not read."""
    return Client(factory.buildProtocol(None), host)


class Promises:
    """Deferreds that a hook waits for, in the order in which it asked."""

    def __init__(self, canceller: Callable[[Deferred[Any]], None] | None = None) -> None:
        self.made: list[Deferred[Any]] = []
        self.cancelled: list[Deferred[Any]] = []
        self._canceller = canceller

    def __call__(self, *arguments: Any) -> Deferred[Any]:
        promise: Deferred[Any] = Deferred(self._cancel)
        self.made.append(promise)
        return promise

    def _cancel(self, promise: Deferred[Any]) -> None:
        self.cancelled.append(promise)
        if self._canceller is not None:
            self._canceller(promise)


def stubborn(promises: Promises) -> Callable[..., Any]:
    """A hook that waits again when it is cancelled."""

    async def hook(*arguments: Any) -> str:
        while True:
            try:
                return str(await promises())
            except Exception:
                continue

    return hook


def codes(replies: bytes) -> list[int]:
    """The codes of some replies, each once, however many lines it has."""
    lines = replies.split(b"\r\n")
    assert lines.pop() == b"", replies
    assert all(REPLY_LINE.fullmatch(line) for line in lines), replies
    return [int(line[:3]) for line in lines if line[3:4] == b" "]


def last_line(replies: bytes) -> str:
    return replies.decode().rstrip("\r\n").rpartition("\n")[2]


def clock_of(client: Client) -> Clock:
    clock = client.protocol.connections.timers.clock
    assert isinstance(clock, Clock)
    return clock


def pass_time(client: Client, seconds: float, step: float = 0.5) -> None:
    """Let time pass in small steps, as a reactor does."""
    clock_of(client).pump([step] * round(seconds / step))
