"""Handlers that are started and stopped, for the tests of that."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.task import Clock

from twisted_smtpd.runtime.lifecycle import ServerInfo
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.smtp import SMTP

INFO = ServerInfo("mx.example", [("127.0.0.1", 25)], Clock(), {})


class Living:
    """Notes its start and stop, and each message.

    :param events: where to note them.
    :param name: what is put in front of each note.
    :param start: what its ``start`` returns, or the exception that it raises.
    :param stop: the same for its ``stop``.
    """

    def __init__(self, events: list[str] | None = None, name: str = "", *, start: Any = None, stop: Any = None) -> None:
        self.events: list[str] = [] if events is None else events
        self.name, self.results = name, {"start": start, "stop": stop}
        self.servers: list[ServerInfo] = []

    def _note(self, what: str) -> Any:
        self.events.append(f"{self.name} {what}".strip())
        result = self.results.get(what)
        if isinstance(result, BaseException):
            raise result
        return result

    def start(self, server: ServerInfo) -> Any:
        self.servers.append(server)
        return self._note("start")

    def stop(self) -> Any:
        return self._note("stop")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self._note("message")
        return "250 OK"


class Beside(Service):
    """A service that notes what is done to it."""

    def __init__(self, events: list[str], name: str = "service", *, error: Exception | None = None) -> None:
        self.events, self.label, self.error = events, name, error

    def startService(self) -> None:
        super().startService()
        self.events.append(f"{self.label} start")
        if self.error is not None:
            raise self.error

    def stopService(self) -> None:
        super().stopService()
        self.events.append(f"{self.label} stop")
