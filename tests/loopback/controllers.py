"""For the tests of controllers: handlers, and controllers that have a loop of their own."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.tls_helpers import issue
from twisted_smtpd.controller import (
    Controller,
)
from twisted_smtpd.session import Envelope
from twisted_smtpd.smtp import SMTP

LIMIT = 20  # seconds, for a test that hangs


class Keeper:
    """Keeps messages, after it has waited for asyncio."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.threads: set[int] = set()

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:
        await asyncio.sleep(0)
        self.threads.add(threading.get_ident())
        self.envelopes.append(envelope)
        return "250 OK"


class Slow:
    """Takes a message when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:
        self.begun.set()
        await asyncio.to_thread(self.go_on.wait, LIMIT)
        return "250 Taken"


def send(controller: Any, starttls: ssl.SSLContext | None = None) -> None:
    with smtplib.SMTP(controller.hostname, controller.port, timeout=LIMIT) as client:
        if starttls is not None:
            client.starttls(context=starttls)
        client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\r\n\r\nIt works.\r\n")


def in_thread(function: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


class ControllerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.handler = Keeper()

    def make(self, cls: Any = Controller, handler: Any = None, *arguments: Any, **options: Any) -> Any:
        if cls is Controller or issubclass(cls, Controller):
            options.setdefault("port", 0)
        options.setdefault("server_hostname", "mx.example")
        controller = cls(handler or self.handler, *arguments, loop=asyncio.new_event_loop(), **options)
        self.addCleanup(controller.stop, no_assert=True)
        return controller

    def contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """The server's and the client's."""
        issued = issue("localhost")
        file = Path(self.mktemp())
        file.write_bytes(issued.pem + issued.key_pem)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(file)
        client = ssl.create_default_context(cadata=issued.pem.decode())
        client.check_hostname = False
        return server, client

    def folder(self) -> Path:
        """One whose name is short enough for a socket."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)
