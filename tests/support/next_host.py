"""A scripted next host, for the tests of what forwards to it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.fakes import Client
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Proxy
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP

EHLO = "250-next.example\n250-PIPELINING\n250-SIZE 10000\n250-8BITMIME\n250-SMTPUTF8\n250-DSN\n250 ENHANCEDSTATUSCODES"
CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


class Wire(StringTransport):
    """The client's transport: what is written goes to the script at once, unless it is held back."""

    def __init__(self, line: Line) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.25", 25))
        self.line = line

    def write(self, data: bytes) -> None:
        self.line.heard(data)

    def abortConnection(self) -> None:
        self.line.closed = True
        if self.connected:
            self.connected = False
            self.line.client.connectionLost(Failure(ConnectionDone()))

    def loseConnection(self) -> None:
        self.abortConnection()


class Line:
    """One connection to the scripted host.

    :ivar commands: what the client has said, a line each; a message is one entry.
    """

    def __init__(self, host: NextHostDouble, client: Any) -> None:
        self.host = host
        self.client = client
        self.commands: list[str] = []
        self.messages: list[bytes] = []
        self.closed = False
        self._buffer = b""
        self._in_content = False
        # Octets of a chunk, whose commands are always LAST here.
        self._left: int | None = None
        self._accepted = 0

    def start(self) -> None:
        self.client.makeConnection(Wire(self))
        self.say(self.host.answer("", self))

    def say(self, status: str | None) -> None:
        if status is None or self.closed:
            return
        self.client.dataReceived("".join(f"{line}\r\n" for line in status.split("\n")).encode())

    def hang_up(self) -> None:
        self.client.transport.abortConnection()

    def heard(self, data: bytes) -> None:
        self._buffer += data
        while not self.closed:
            if self._left is not None:
                if len(self._buffer) < self._left:
                    return
                self.messages.append(self._buffer[: self._left])
                self._buffer, self._left = self._buffer[self._left :], None
                for _ in range(self._accepted if self.host.lmtp else 1):
                    self.say(self.host.answer(".", self))
                continue
            end = b"\r\n.\r\n" if self._in_content else b"\r\n"
            haystack = b"\r\n" + self._buffer if self._in_content else self._buffer
            found = haystack.find(end)
            if found < 0:
                return
            piece = haystack[:found]
            self._buffer = haystack[found + len(end) :]
            if self._in_content:
                self._in_content = False
                self.messages.append(piece[2:].replace(b"\r\n..", b"\r\n.") + b"\r\n")
                for _ in range(self._accepted if self.host.lmtp else 1):
                    self.say(self.host.answer(".", self))
                continue
            line = piece.decode()
            self.commands.append(line)
            verb = line.split(" ")[0]
            status = self.host.answer(line, self)
            if verb == "MAIL":
                self._accepted = 0
            if verb == "RCPT" and (status or "").startswith("2"):
                self._accepted += 1
            if verb == "BDAT":
                self._left = int(line.split()[1])
                continue
            if verb == "DATA" and (status or "").startswith("3"):
                self._in_content = True
            self.say(status)


@implementer(IStreamClientEndpoint)
class NextHostDouble:
    """An endpoint whose other end answers from a table.

    :param answers: command, or the start of one, to a status; ``""`` is the greeting and ``"."`` the end of data.
        A status may be a list, used up one after the other, or ``None`` for silence.
    """

    def __init__(self, lmtp: bool = False, **answers: Any) -> None:
        self.lmtp = lmtp
        self.lines: list[Line] = []
        self.refuse_connections = False
        self.hold_connections = False
        self.answers: dict[str, Any] = {
            "": "220 next.example",
            "EHLO": EHLO,
            "LHLO": EHLO,
            "DATA": "354 go on",
            ".": "250 2.0.0 queued as 42",
            **answers,
        }

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.refuse_connections:
            return fail(ConnectionRefusedError())
        if self.hold_connections:
            return Deferred()
        line = Line(self, factory.buildProtocol(None))
        self.lines.append(line)
        line.start()
        return succeed(line.client)

    def answer(self, command: str, line: Line) -> str | None:
        keys = [key for key in self.answers if (command == key if key in ("", ".") else command.startswith(key))]
        answer = self.answers[max(keys, key=len)] if keys else "250 2.0.0 fine"
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            call: Callable[[Line], str | None] = answer
            return call(line)
        return answer  # type: ignore[no-any-return]

    @property
    def commands(self) -> list[str]:
        return [command for line in self.lines for command in line.commands]

    @property
    def messages(self) -> list[bytes]:
        return [message for line in self.lines for message in line.messages]


def transaction(*recipients: str, mail: str = "", rcpt: str = "", content: bytes = CONTENT) -> bytes:
    lines = [f"MAIL FROM:<a@x.example>{mail}", *(f"RCPT TO:<{one}>{rcpt}" for one in recipients or ("b@y.example",))]
    return "".join(f"{line}\r\n" for line in (*lines, "DATA")).encode() + content + b".\r\n"


class ProxyTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = io.StringIO()
        observer = textFileLogObserver(self.log)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def proxy(self, host: NextHostDouble, handler: type[Proxy] = Proxy, **options: Any) -> Proxy:
        options.setdefault("protocol", "lmtp" if host.lmtp else "smtp")
        return handler(host, reactor=self.clock, **options)

    def serve(
        self, host: NextHostDouble, protocol: type[SMTP] = SMTP, handler: type[Proxy] = Proxy, **options: Any
    ) -> SMTPFactory:
        return SMTPFactory(
            self.proxy(host, handler, **options), protocol=protocol, hostname="mx.example", clock=self.clock
        )

    def join(self, factory: SMTPFactory) -> Client:
        client = Client(factory.buildProtocol(None))
        verb = b"LHLO" if isinstance(client.protocol, LMTP) else b"EHLO"
        client.send(verb + b" client.example\r\n")
        return client

    def say(self, host: NextHostDouble, data: bytes, protocol: type[SMTP] = SMTP, **options: Any) -> bytes:
        return self.join(self.serve(host, protocol, **options)).send(data)
