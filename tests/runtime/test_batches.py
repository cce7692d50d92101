"""Batches: real sockets, a reactor that only takes notes, and no time that passes by itself."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.support.batches import BatchesTestCase, Echo, NotingReactor, Port
from tests.support.fakes import EHLO, hooks
from tests.support.tls_helpers import TLSTestCase
from twisted_smtpd.runtime import batches as module
from twisted_smtpd.runtime.batches import Batches, BatchReactor, joined
from twisted_smtpd.smtp import SMTP

MAIL = b"MAIL FROM:<a@b.example>\r\n"


class JoinTests(BatchesTestCase):
    def test_the_reactor_sees_one_reader_while_there_are_sockets(self) -> None:
        factory = self.factory()
        clients = [self.serve(factory)[0] for _ in range(3)]
        (reader,) = self.reactor.readers
        self.assertIs(reader, factory.connections.batches)
        self.assertTrue(verifyObject(IReadDescriptor, reader))
        for client in clients:
            client.close()
        self.reactor.turn()
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([], []))
        self.assertEqual(factory.connections.open, set())

    def test_the_next_connection_of_a_port_is_there_from_the_start(self) -> None:
        factory = self.factory()
        first = self.serve(factory)[1]
        self.assertIs(first.reactor.batches, factory.connections.batches)
        self.assertIs(self.port.reactor, first.reactor)
        second = self.serve(factory)[1]
        self.assertIs(second.reactor, first.reactor)
        self.assertEqual(self.reactor.readers, [factory.connections.batches])

    def test_a_port_goes_on_with_its_reactor(self) -> None:
        reactor = BatchReactor(Batches(self.reactor))
        port: Any = object()
        reactor.addReader(port)
        reactor.addWriter(port)
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([port], [port]))
        reactor.removeReader(port)
        reactor.removeWriter(port)
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([], []))

    def test_all_else_is_the_reactors(self) -> None:
        reactor = BatchReactor(Batches(self.reactor))
        called: list[str] = []
        reactor.callLater(1, called.append, "late")
        self.reactor.advance(1)
        self.assertEqual((called, reactor.seconds()), (["late"], 1))
        self.assertTrue(IReactorFDSet.providedBy(reactor))

    def test_transports_of_other_kinds_are_left_alone(self) -> None:
        class Other(tcp.Server):
            pass

        for transport in (self.transport(Echo(print), Other)[1], ProtocolWrapper(None, None), object()):  # type: ignore[arg-type]
            self.assertIs(joined(transport, None), None)

    def test_a_server_on_two_reactors_has_batches_on_each(self) -> None:
        factory = self.factory()
        self.serve(factory)
        first = factory.connections.batches
        self.port = Port(NotingReactor())
        self.serve(factory)
        self.assertIsNot(factory.connections.batches, first)

    def test_without_epoll_the_reactor_serves_the_sockets(self) -> None:
        self.patch(module, "select", object())
        client, transport = self.serve(self.factory())
        self.assertEqual(self.reactor.readers, [transport])
        client.send(EHLO)
        self.reactor.turn()
        self.assertEqual(self.heard(client)[:4], b"250-")

    def test_a_connection_over_a_unix_socket(self) -> None:
        client, _transport = self.echo(
            lambda echo, data: echo.transport.write(data), Batches(self.reactor), unix.Server
        )
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual(self.heard(client), b"hello")

    def test_no_file_is_left_open(self) -> None:
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        factory = self.factory()
        protocol = factory.buildProtocol(None)
        client, accepted = socket.socketpair()
        transport: Any = tcp.Server(accepted, protocol, ("192.0.2.1", 1), None, 1, self.reactor)  # type: ignore[arg-type]
        protocol.makeConnection(transport)
        client.close()
        self.reactor.turn()
        self.assertFalse(transport.connected)
        del factory, protocol, transport, accepted
        gc.collect()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class OrderTests(BatchesTestCase):
    def test_all_dialogs_run_before_the_first_is_answered(self) -> None:
        """That is what batches are for."""
        seen: list[bytes] = []
        clients: list[socket.socket] = []

        def handle_MAIL(*_: object) -> str:
            seen.extend(self.heard(client) for client in clients)
            return "250 OK"

        factory = self.factory(hooks(handle_MAIL=handle_MAIL))
        clients += [self.serve(factory)[0] for _ in range(3)]
        for client in clients:
            client.send(EHLO + MAIL)
        self.reactor.turn()
        self.assertEqual(seen, [b""] * 9)
        for client in clients:
            self.assertEqual(self.heard(client)[-14:], b"250 2.1.0 OK\r\n")

    def test_a_hook_that_takes_its_time_keeps_only_its_own_client_waiting(self) -> None:
        seen: list[bytes] = []
        clients: list[socket.socket] = []

        def handle_EHLO(*_: object) -> str:
            seen.extend(self.heard(client)[:3] for client in clients)
            self.now += module.MAX_HELD * 2
            return "250 OK"

        factory = self.factory(hooks(handle_EHLO=handle_EHLO))
        clients += [self.serve(factory)[0] for _ in range(3)]
        for client in clients:
            client.send(EHLO)
        self.reactor.turn()
        self.assertEqual(sorted(seen), [b""] * 7 + [b"250"] * 2)

    def test_a_hook_that_takes_its_time_for_each_chunk(self) -> None:
        seen: list[bytes] = []

        async def handle_DATA_STREAM(server: Any, session: Any, envelope: Any, stream: Any) -> str:
            async for _ in stream:
                seen.append(self.heard(waiting)[:3])
                self.now += module.MAX_HELD * 2
            return "250 OK"

        factory = self.factory(hooks(handle_DATA_STREAM=handle_DATA_STREAM))
        waiting, *sending = [self.serve(factory)[0] for _ in range(3)]
        for client in sending:
            client.send(EHLO + MAIL + b"RCPT TO:<c@d.example>\r\nDATA\r\n")
        self.reactor.turn()
        for client in (waiting, *sending):
            client.send(EHLO if client is waiting else b"part of a message\r\n")
        self.reactor.turn()
        self.assertEqual(seen, [b"", b"250"])

    def test_the_reactor_has_its_turn_while_clients_go_on(self) -> None:
        batches = Batches(self.reactor)
        count = 0

        def again(echo: Echo, data: bytes) -> None:
            nonlocal count
            count += 1
            self.now += module.MAX_TURN / 3
            for client in clients:
                client.send(b"more")

        clients = [self.echo(again, batches)[0] for _ in range(2)]
        again(None, b"")  # type: ignore[arg-type]
        self.reactor.turn()
        self.assertEqual(count, 1 + 4)

    def test_one_client_alone_is_not_waited_for(self) -> None:
        """It will hardly have answered: to look would cost a system call for each reply."""
        batches = Batches(self.reactor)
        arrived: list[bytes] = []
        client, _ = self.echo(lambda echo, data: (arrived.append(data), client.send(b"more")), batches)
        client.send(b"more")
        self.reactor.turn()
        self.assertEqual(len(arrived), 1)
        self.reactor.turn()
        self.assertEqual(len(arrived), 2)

    def test_a_server_that_runs_the_reactor_inside_a_hook(self) -> None:
        batches = Batches(self.reactor)
        arrived: list[bytes] = []

        def nested(echo: Echo, data: bytes) -> None:
            arrived.append(data)
            client.send(b"second")
            self.reactor.turn()
            arrived.append(b"end of " + data)

        client, _ = self.echo(nested, batches)
        client.send(b"first")
        self.patch(module, "MAX_TURN", -1.0)
        self.reactor.turn()
        self.assertEqual(arrived, [b"first", b"end of first"])


class WritingTests(BatchesTestCase):
    def test_what_is_written_to_a_transport_goes_out_in_the_same_batch(self) -> None:
        client, _transport = self.echo(lambda echo, data: echo.transport.write(data * 2), Batches(self.reactor))
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual(self.heard(client), b"hellohello")

    def test_what_the_client_does_not_take_goes_out_when_it_reads(self) -> None:
        size = 2**22
        client, _transport = self.echo(lambda echo, data: echo.transport.write(b"x" * size), Batches(self.reactor))
        client.send(b"hello")
        got = 0
        for _ in range(1000):
            self.reactor.turn()
            got += len(self.heard(client))
        self.assertEqual(got, size)
        client.send(b"!")
        self.reactor.turn()
        self.assertNotEqual(self.heard(client), b"")

    def test_a_part_goes_out_at_once_and_the_rest_when_the_client_reads(self) -> None:
        size = 2**16
        client, transport = self.echo(lambda echo, data: echo.transport.write(b"x" * size), Batches(self.reactor))
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.send(b"hello")
        self.reactor.turn()
        self.assertTrue(0 < len(transport.dataBuffer) - transport.offset < size)
        got = 0
        for _ in range(1000):
            got += len(self.heard(client))
            self.reactor.turn()
        self.assertEqual((got, transport.dataBuffer), (size, b""))
        # Now the socket is full before anything is written.
        with contextlib.suppress(BlockingIOError):
            while True:
                transport.socket.send(b"y" * 1000)
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual(len(transport.dataBuffer), size)
        said = b""
        for _ in range(1000):
            said += self.heard(client)
            self.reactor.turn()
        self.assertEqual(said.count(b"x"), size)

    def test_nothing_overtakes_what_is_still_to_be_written(self) -> None:
        batches = Batches(self.reactor)

        def act(echo: Echo, data: bytes) -> None:
            said.append(self.heard(first))
            full.write(b"!")

        said: list[bytes] = []
        first, full = self.echo(lambda echo, data: None, batches)
        second, _ = self.echo(act, batches)
        self.fill(full)
        second.send(b"hello")
        for _ in range(1000):
            self.reactor.turn()
            said.append(self.heard(first))
        self.assertEqual(b"".join(said), b"x" * 2**16 + b"!")

    def test_the_end_comes_when_all_is_written(self) -> None:
        for end in ("loseConnection", "loseWriteConnection"):
            self.port = Port(self.reactor)

            def act(echo: Echo, data: bytes, end: str = end) -> None:
                echo.transport.write(b"bye")
                getattr(echo.transport, end)()

            client, _transport = self.echo(act, Batches(self.reactor))
            client.send(b"hello")
            self.reactor.turn()
            self.assertEqual((self.heard(client), client.recv(10)), (b"bye", b""), end)

    def test_what_is_written_to_a_client_that_has_gone(self) -> None:
        def act(echo: Echo, data: bytes) -> None:
            client.close()
            echo.transport.write(b"anybody there?")

        client, transport = self.echo(act, Batches(self.reactor))
        protocol = transport.protocol
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual([type(reason) for reason in protocol.reasons], [ConnectionLost])

    def test_producers_are_asked_for_more(self) -> None:
        class Producer:
            def __init__(self, streaming: bool) -> None:
                self.asked = 0
                transport.registerProducer(self, streaming)

            def pauseProducing(self) -> None:
                pass

            def resumeProducing(self) -> None:
                self.asked += 1

        client, transport = self.echo(lambda echo, data: echo.transport.write(data), Batches(self.reactor))
        pull = Producer(False)
        before = pull.asked
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual((self.heard(client), pull.asked), (b"hello", before + 1))
        transport.unregisterProducer()
        push = Producer(True)
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual((self.heard(client), push.asked), (b"hello", 0))
        transport.producerPaused = True
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual((self.heard(client), push.asked), (b"hello", 1))
        transport.unregisterProducer()

    def test_what_is_written_between_batches_goes_out_in_the_next(self) -> None:
        client, transport = self.echo(lambda echo, data: None, Batches(self.reactor))
        transport.write(b"by a timer")
        self.assertEqual(self.heard(client), b"")
        self.reactor.turn()
        self.assertEqual(self.heard(client), b"by a timer")

    def test_the_last_reply_goes_out_before_the_end(self) -> None:
        client, transport = self.serve(self.factory())
        client.send(b"QUIT\r\n")
        self.reactor.turn()
        self.assertEqual(self.heard(client)[:4], b"221 ")
        self.assertEqual(client.recv(10), b"")
        self.assertFalse(transport.connected)

    def test_more_replies_than_a_client_reads(self) -> None:
        """What was held for the end of the batch does not stand between a client and its limits."""
        factory = self.factory()
        client, _transport = self.serve(factory)
        (protocol,) = factory.connections.open
        self.flood(client, protocol)


class EndTests(BatchesTestCase):
    def reasons(self, transport: Any, protocol: Any) -> list[type]:
        self.assertFalse(transport.connected)
        self.assertEqual(self.reactor.readers, [])
        return [type(reason) for reason in protocol.reasons]

    def test_the_client_hangs_up(self) -> None:
        client, transport = self.echo(lambda echo, data: None, Batches(self.reactor))
        protocol = transport.protocol
        client.close()
        self.reactor.turn()
        self.assertEqual(self.reasons(transport, protocol), [ConnectionDone])

    def test_the_client_hangs_up_with_something_unread(self) -> None:
        # That resets the connection.
        client, transport = self.echo(lambda echo, data: None, Batches(self.reactor))
        protocol = transport.protocol
        transport.socket.send(b"unread")
        client.close()
        self.reactor.turn()
        self.assertEqual(self.reasons(transport, protocol), [ConnectionLost])

    def test_the_client_is_gone_while_nothing_is_read_from_it(self) -> None:
        client, transport = self.echo(lambda echo, data: None, Batches(self.reactor))
        protocol = transport.protocol
        transport.pauseProducing()
        transport.write(b"something")
        client.close()
        self.reactor.turn()
        self.assertEqual(self.reasons(transport, protocol), [ConnectionLost])

    def test_a_half_closed_connection_is_answered(self) -> None:
        client, transport = self.serve(self.factory())
        client.send(b"NOOP\r\n")
        client.shutdown(socket.SHUT_WR)
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.heard(client)[:4], b"250 ")
        self.assertFalse(transport.connected)

    def test_an_error_ends_its_own_connection_only(self) -> None:
        batches = Batches(self.reactor)
        _, broken = pair = self.echo(lambda echo, data: 1 // 0, batches)
        protocol = broken.protocol
        client, _ = self.echo(lambda echo, data: echo.transport.write(data), batches)
        for one in (pair[0], client):
            one.send(b"hello")
        self.reactor.turn()
        self.assertEqual([type(reason) for reason in protocol.reasons], [ZeroDivisionError])
        self.assertEqual(self.heard(client), b"hello")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_error_in_a_unix_connection(self) -> None:
        client, transport = self.echo(lambda echo, data: 1 // 0, Batches(self.reactor), unix.Server)
        protocol = transport.protocol
        client.send(b"hello")
        self.reactor.turn()
        self.assertEqual(self.reasons(transport, protocol), [ZeroDivisionError])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_error_at_the_end_of_a_connection(self) -> None:
        client, transport = self.echo(lambda echo, data: None, Batches(self.reactor))
        self.patch(transport.protocol, "connectionLost", lambda reason: 1 // 0)
        client.close()
        self.reactor.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_one_connection_ends_another_of_its_batch(self) -> None:
        for end in ("abortConnection", "loseConnection"):
            self.port = Port(self.reactor)
            batches = Batches(self.reactor)
            arrived: list[bytes] = []
            pairs: list[Any] = []

            def act(
                echo: Echo, data: bytes, end: str = end, pairs: list[Any] = pairs, got: list[bytes] = arrived
            ) -> None:
                got.append(data)
                for _, transport in pairs:
                    if transport is not echo.transport:
                        getattr(transport, end)()

            pairs += [self.echo(act, batches) for _ in range(2)]
            for client, _ in pairs:
                client.send(b"hello")
            self.reactor.turn()
            self.reactor.turn()
            self.assertEqual(arrived, [b"hello"])

    def pausing(self, batches: Batches) -> tuple[list[Any], list[bytes]]:
        """Two clients the first of which to say something has both paused, and what has arrived."""
        arrived: list[bytes] = []

        def act(echo: Echo, data: bytes) -> None:
            arrived.append(data)
            for _, transport in pairs:
                transport.pauseProducing()

        pairs = [self.echo(act, batches) for _ in range(2)]
        return pairs, arrived

    def test_paused_by_another_of_its_round_it_is_read_no_more(self) -> None:
        pairs, arrived = self.pausing(Batches(self.reactor))
        for client, _ in pairs:
            client.send(b"hello")
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(arrived, [b"hello"])
        for _, transport in pairs:
            transport.resumeProducing()
        self.reactor.turn()
        self.assertEqual(arrived, [b"hello"] * 2)

    def test_paused_by_another_while_it_writes(self) -> None:
        batches = Batches(self.reactor)
        pairs, arrived = self.pausing(batches)
        for _, transport in pairs:
            self.fill(transport)
        for client, _ in pairs:
            client.send(b"hello")
        self.reactor.turn()
        self.assertEqual(arrived, [b"hello"])
        self.assertEqual([len(self.reactor.readers), batches._events[pairs[0][1].fileno()]], [1, module.WRITE])

    def test_the_reactor_ends(self) -> None:
        _client, transport = self.echo(lambda echo, data: None, Batches(self.reactor))
        protocol = transport.protocol
        for reader in self.reactor.removeAll():
            reader.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.reasons(transport, protocol), [ConnectionLost])

    def test_a_client_aborted_between_batches(self) -> None:
        client, transport = self.echo(lambda echo, data: None, Batches(self.reactor))
        protocol = transport.protocol
        client.send(b"unheard")
        transport.abortConnection()
        self.reactor.turn()
        self.assertEqual(self.reasons(transport, protocol), [ConnectionAborted])


class TLSTests(TLSTestCase, BatchesTestCase):
    def setUp(self) -> None:
        BatchesTestCase.setUp(self)

    def test_what_is_below_tls_is_served_in_batches(self) -> None:
        """With a ``ssl:`` endpoint, the dialog's transport is the TLS protocol."""
        factory = self.factory()
        wrapped = TLSMemoryBIOFactory(self.options(), False, factory, self.reactor)
        _, transport = self.transport(wrapped.buildProtocol(None))  # type: ignore[arg-type]
        self.assertIs(transport.reactor.batches, factory.connections.batches)
        (protocol,) = factory.connections.open
        self.assertIsInstance(protocol, SMTP)
