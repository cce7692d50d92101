"""Many clients may come at once: the queue of connections that are not accepted yet is long, on every kind of port."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import sys
import tempfile
from typing import Any
from unittest import skipIf

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import TestCase

from twisted_smtpd.runtime.backlog import BACKLOG, widen
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.runtime.listening import bind_inet, bind_unix
from twisted_smtpd.service import ListeningService
from twisted_smtpd.workers.shared_sockets import Binder, Inheritor


def _longest(listening: socket.socket) -> int:
    """How many clients may wait on a TCP socket: ``tcpi_sacked`` of Linux's ``TCP_INFO`` has it for listening ones."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=I", info, 28)[0])


def _most() -> int:
    with open("/proc/sys/net/core/somaxconn") as file:
        return min(BACKLOG, int(file.read()))


@skipIf(not sys.platform.startswith("linux"), "TCP_INFO is asked as Linux has it")
class BacklogTests(TestCase):
    """Seen: with Twisted's 50, half of 200 clients that connected at once were not greeted within 12 s."""

    def serve(self, description: str, listening_reactor: Any = reactor) -> Any:
        endpoint = serverFromString(listening_reactor, description)
        service = ListeningService(ServerFactory(), [Listener(description, endpoint)], reactor=reactor)
        service.startService()
        self.addCleanup(service.stopService)
        ((_, port),) = service.ports
        return port

    def test_a_port_of_an_endpoint_description(self) -> None:
        self.assertEqual(_longest(self.serve("tcp:0:interface=127.0.0.1").socket), _most())

    def test_a_backlog_that_was_asked_for_is_kept(self) -> None:
        self.assertEqual(_longest(self.serve("tcp:0:interface=127.0.0.1:backlog=7").socket), 7)

    def test_a_socket_that_was_handed_over(self) -> None:
        """As systemd's, whose ``Backlog=`` may be anything."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            bound.listen(3)
            bound.setblocking(False)
            port: Any = reactor.adoptStreamPort(bound.fileno(), socket.AF_INET, ServerFactory())  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        widen(port)
        self.assertEqual(_longest(port.socket), _most())

    def test_a_worker_s_port(self) -> None:
        binder = Binder(reactor)
        description = "tcp:0:interface=127.0.0.1"
        self.assertEqual(_longest(self.serve(description, binder).socket), _most())
        (shared,) = binder.shared
        copy = os.dup(shared.descriptor)
        inherited = type(shared)(shared.key, copy, shared.family, shared.place)
        self.assertEqual(_longest(self.serve(description, Inheritor(reactor, [inherited])).socket), _most())

    def test_a_controller_s_port(self) -> None:
        (binding,), _ = bind_inet(["127.0.0.1"], 0)
        self.addCleanup(binding.close)
        self.assertEqual(_longest(binding._socket), _most())  # type: ignore[attr-defined]

    def test_unix_sockets(self) -> None:
        """The system tells no number here, so clients come until one is refused."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "a")
        self.assertGreaterEqual(self.knock(path, self.serve(f"unix:{path}")), 200)
        path = os.path.join(folder, "b")
        (binding,) = bind_unix(path)
        port: Any = binding.listen(reactor, ServerFactory())
        self.addCleanup(port.stopListening)
        self.assertGreaterEqual(self.knock(path, port), 200)

    def knock(self, path: str, port: Any) -> int:
        """How many of 200 clients get into the queue while none is accepted."""
        port.stopReading()
        for number in range(200):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.setblocking(False)
            refusal = client.connect_ex(path)
            if refusal == errno.EAGAIN:
                return number
            self.assertEqual(refusal, 0)
        return 200
