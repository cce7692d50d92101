"""Requests to a site in memory, without sockets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

__all__ = ["Answer", "Browser"]


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Browser:
    """Asks a site.

    :ivar headers: what it sends with each request.
    """

    def __init__(self, site: Any, clock: Clock | None = None, **headers: str) -> None:
        self.site, self.clock = site, clock
        self.headers = {"Host": "localhost:8026", **{name.replace("_", "-"): value for name, value in headers.items()}}

    def connect(self) -> tuple[Any, StringTransportWithDisconnection]:
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4000))
        transport = StringTransportWithDisconnection(peerAddress=IPv4Address("TCP", "127.0.0.1", 4000))
        transport.protocol = channel
        if self.clock is not None:
            channel.callLater = self.clock.callLater
        channel.makeConnection(transport)
        return channel, transport

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **headers: str | None) -> Answer:
        """Ask, and close the connection."""
        all_headers = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body or method not in ("GET", "HEAD"):
            all_headers.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items() if value)]
        channel, transport = self.connect()
        channel.dataReceived("\r\n".join((*lines, "", "")).encode() + body)
        if self.clock is not None and not transport.value():
            self.clock.advance(1)
        octets = transport.value()
        if transport.connected:
            transport.loseConnection()
        return read(octets)


def read(octets: bytes) -> Answer:
    """Take an answer apart."""
    head, _, body = octets.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if headers.get("transfer-encoding") == "chunked":
        whole = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
        body = whole
    return Answer(int(first.split()[1]), headers, body)
