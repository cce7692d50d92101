"""A client that sends all it has, shuts down its side and then reads, on real sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.fakes import GREETING, MESSAGE, Recorder, codes
from twisted_smtpd.factory import SMTPFactory

TIMEOUT = 20.0

reactor: Any = _reactor


def talk(port: int, data: bytes, half_close: bool) -> bytes:
    """Send everything, perhaps shut down this side, and read to the end."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        said = b""
        while part := client.recv(65536):
            said += part
        return said


class SlowRecorder(Recorder):
    """Takes a moment to think, so that the client's end is seen while a hook is at work."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        await deferLater(reactor, 0.01)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        await deferLater(reactor, 0.05)
        return await super().handle_DATA(server, session, envelope)


class HalfCloseTests(TestCase):
    timeout = 60

    async def serve(self, handler: Recorder) -> int:
        factory = SMTPFactory(handler, hostname="mx.example", max_idle_commands=0)
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(factory.drain, 1.0)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def check(self, handler: Recorder, data: bytes, expected: list[int], half_close: bool = True) -> Deferred[None]:
        async def run() -> None:
            port = await self.serve(handler)
            said = await deferToThread(talk, port, data, half_close)
            self.assertTrue(said.startswith(GREETING))
            self.assertEqual(codes(said), expected)

        return Deferred.fromCoroutine(run())

    def test_everything_is_answered(self) -> Deferred[None]:
        return self.check(Recorder(), MESSAGE + MESSAGE, [220, *[250, 250, 250, 354, 250] * 2])

    def test_hooks_at_work_are_waited_for(self) -> Deferred[None]:
        return self.check(SlowRecorder(), MESSAGE + MESSAGE, [220, *[250, 250, 250, 354, 250] * 2])

    def test_more_replies_than_a_socket_holds(self) -> Deferred[None]:
        return self.check(Recorder(), b"NOOP\r\n" * 100000 + b"QUIT\r\n", [220, *[250] * 100000, 221])

    def test_quit_without_shutting_down(self) -> Deferred[None]:
        return self.check(SlowRecorder(), MESSAGE + b"QUIT\r\n", [220, 250, 250, 250, 354, 250, 221], half_close=False)

    def test_a_message_without_an_end_is_not_taken(self) -> Deferred[None]:
        handler = Recorder()
        checked = self.check(handler, MESSAGE[:-3], [220, 250, 250, 250, 354])

        def check_handler(_: None) -> None:
            self.assertEqual(handler.envelopes, [])

        return checked.addCallback(check_handler)
