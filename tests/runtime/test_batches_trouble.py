"""Batches in which something goes wrong: one connection's trouble must not become another's, nor the server's."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.batches import BatchesTestCase, Echo
from twisted_smtpd.runtime import batches as module
from twisted_smtpd.runtime.batches import Batches


@implementer(IPushProducer)
class Resumed:
    """Does something when its transport has written all."""

    def __init__(self, act: Any) -> None:
        self.resumeProducing = act

    def pauseProducing(self) -> None:
        """It has nothing to pause."""

    def stopProducing(self) -> None:
        """Nor to stop."""


class TroubleTestCase(BatchesTestCase):
    def nothing(self, batches: Batches) -> Any:
        return self.echo(lambda echo, data: None, batches)

    def echoing(self, batches: Batches) -> Any:
        return self.echo(lambda echo, data: echo.transport.write(data), batches)

    def polls(self, batches: Batches) -> Any:
        """What the epoll object would report now."""
        return batches._epoll.poll(0)


class LastWritesTests(TroubleTestCase):
    """What is written while the answers of a batch go out."""

    def test_the_end_of_a_connection_makes_another_one_write(self) -> None:
        """As a hook for DISCONNECT does that leaves a lock, for which a hook of another connection waits."""
        batches = Batches(self.reactor)
        other, waiting = self.nothing(batches)
        client, leaving = self.echo(lambda echo, data: echo.transport.loseConnection(), batches)
        self.patch(leaving.protocol, "connectionLost", lambda reason: waiting.write(b"your turn"))
        client.send(b"bye")
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.heard(other), b"your turn")

    def test_a_connection_that_another_ended_meanwhile_keeps_nobody_busy(self) -> None:
        batches = Batches(self.reactor)
        first_client, first = self.echoing(batches)
        second_client, second = self.echoing(batches)
        protocol = second.protocol

        first.registerProducer(Resumed(second.abortConnection), True)
        first.producerPaused = True
        for client in (first_client, second_client):
            client.send(b"hello")
        batches.doRead()
        self.assertEqual(self.polls(batches), [])
        self.reactor.turn()
        self.assertEqual([type(reason) for reason in protocol.reasons], [ConnectionAborted])


class BrokenTests(TroubleTestCase):
    """Errors that the machinery itself meets."""

    def test_a_socket_that_can_not_be_read_ends_its_own_connection_only(self) -> None:
        # A hook may set this; memory may be short, too.
        batches = Batches(self.reactor)
        broken_client, broken = self.nothing(batches)
        broken.bufferSize = -1
        client, _ = self.echoing(batches)
        for one in (broken_client, client):
            one.send(b"hello")
        self.reactor.turn()
        self.assertEqual(self.heard(client), b"hello")
        self.assertFalse(broken.connected)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_an_interruption_leaves_nothing_held(self) -> None:
        """An exception from a signal's handler may come between any two instructions."""
        factory = self.factory()
        client, _ = self.serve(factory)
        batches: Any = factory.connections.batches

        def interrupted() -> float:
            if batches.holding:
                raise KeyboardInterrupt
            return 0.0

        client.send(b"NOOP\r\n")
        self.patch(module, "perf_counter", interrupted)
        self.assertRaises(KeyboardInterrupt, batches.doRead)
        self.patch(module, "perf_counter", lambda: 0.0)
        self.serve(factory)

    def test_without_a_file_left_for_epoll_the_reactor_serves_the_socket(self) -> None:
        class Full:
            @staticmethod
            def epoll() -> None:
                raise OSError(24, "Too many open files")

        factory = self.factory()
        self.patch(module, "select", Full)
        client, transport = self.serve(factory)
        self.assertEqual(self.reactor.readers, [transport])
        client.send(b"NOOP\r\n")
        self.reactor.turn()
        self.assertEqual(self.heard(client)[:3], b"250")

    def test_a_socket_that_a_hook_has_taken_away(self) -> None:
        batches = Batches(self.reactor)
        client, transport = self.nothing(batches)
        protocol = transport.protocol
        taken = socket.socket(fileno=transport.socket.detach())
        self.addCleanup(taken.close)
        client.send(b"hello")
        self.reactor.turn()
        self.assertFalse(transport.connected)
        self.assertEqual(len(protocol.reasons), 1)
        self.assertEqual((self.polls(batches), self.reactor.readers), ([], []))
        self.assertEqual(taken.recv(10), b"hello")

    def test_a_descriptor_that_was_closed_twice(self) -> None:
        """A mistake of other code in the process, which closes a number that is not its own any longer."""
        batches = Batches(self.reactor)
        _client, broken = self.nothing(batches)
        protocol = broken.protocol
        client, _ = self.echoing(batches)
        os.close(broken.fileno())
        broken.abortConnection()
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual([type(reason) for reason in protocol.reasons], [ConnectionAborted])
        self.assertEqual(self.heard(client), b"hello")

    def test_a_socket_that_a_hook_has_closed_does_not_block_the_next(self) -> None:
        batches = Batches(self.reactor)
        _first_client, first = self.nothing(batches)
        descriptor = first.fileno()
        first.socket.close()
        client, accepted = socket.socketpair()
        self.addCleanup(client.close)
        if accepted.fileno() != descriptor:
            client, accepted = accepted, client
        self.assertEqual(accepted.fileno(), descriptor)
        client.setblocking(False)
        echo = Echo(lambda echo, data: echo.transport.write(data))
        second: Any = tcp.Server(accepted, echo, ("192.0.2.1", 40000), None, 1, first.reactor)
        echo.makeConnection(second)
        self.addCleanup(lambda: second.connectionLost(Failure(ConnectionAborted())))
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual(self.heard(client), b"hello")
        first.connectionLost(Failure(ConnectionAborted()))
        client.send(b"again")
        self.reactor.turn()
        self.assertEqual(self.heard(client), b"again")


class JoinTests(TroubleTestCase):
    def test_what_a_protocol_wrote_before_it_was_a_server(self) -> None:
        """Such as one that was something else before; the reactor would go on telling that the socket is writable."""
        factory = self.factory()
        protocol = factory.buildProtocol(None)
        made = protocol.connectionMade

        def connection_made() -> None:
            transport: Any = protocol.transport
            transport.write(b"hello\r\n")
            made()

        protocol.connectionMade = connection_made  # type: ignore[method-assign]
        client, _ = self.transport(protocol)
        self.assertEqual(self.reactor.writers, [])
        said = b""
        for _ in range(3):
            self.reactor.turn()
            said += self.heard(client)
        self.assertEqual(said[:11], b"hello\r\n220 ")
