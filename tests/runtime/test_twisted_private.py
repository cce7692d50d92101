"""A Twisted that has changed inside: each private name is found, or the server does without it and says so once."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import socket
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from OpenSSL import SSL
from twisted.internet import tcp, unix
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd
from tests.support.batches import BatchesTestCase, NotingReactor
from tests.support.changed_twisted import SHORTCUTS, ChangedTwistedMixin, ServingReactor, hide
from tests.support.fakes import MESSAGE, codes
from tests.support.tls_dialog import SecureTestCase
from twisted_smtpd.protocol import connection
from twisted_smtpd.runtime import twisted_private as module
from twisted_smtpd.runtime.batches import BatchReactor
from twisted_smtpd.runtime.connections import Connections, ICounted
from twisted_smtpd.runtime.listening import RunningServer
from twisted_smtpd.runtime.output import Output
from twisted_smtpd.runtime.reactors import LoopReactor, loop_of
from twisted_smtpd.runtime.twisted_private import Names, Shortcut
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.tls.contexts import SSLObjectConnection
from twisted_smtpd.tls.private import SESSION_REUSED, session_reused
from twisted_smtpd.tls.records import RecordConnection
from twisted_smtpd.workers.shared_sockets import Binder, take_turns

PACKAGE = Path(twisted_smtpd.__file__).parent
SOCKET_NAMES = tuple(module.SOCKETS.names[0].uses)


class Listens(NotingReactor):
    """Listens on real ports, without ever looking at them."""

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> tcp.Port:
        listening = tcp.Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening


def loop_reactor(test: SynchronousTestCase) -> LoopReactor:
    loop = asyncio.SelectorEventLoop()
    test.addCleanup(loop.close)
    return LoopReactor(loop)


def listening_port(test: SynchronousTestCase) -> tcp.Port:
    port = Listens().listenTCP(0, Factory(), interface="127.0.0.1")
    test.addCleanup(lambda: port.connected and port.connectionLost(connectionDone))
    return port


class InstalledTwistedTests(ChangedTwistedMixin):
    def test_every_name_is_there_and_the_log_is_empty(self) -> None:
        reactor = loop_reactor(self)
        examples = {
            "LOOP_OF_REACTOR": reactor,
            "MOVING": reactor,
            "TURNS": listening_port(self),
        }
        self.assertIn("SOCKETS", SHORTCUTS)
        for name, shortcut in SHORTCUTS.items():
            self.assertTrue(shortcut.is_there(examples.get(name)), name)
        self.assertTrue(SESSION_REUSED.is_there(SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)))
        self.assertEqual(self.lines, [])

    def test_unix_sockets_have_the_same_names(self) -> None:
        pretended: Any = module._Pretended()
        transport = unix.Server(pretended, pretended, b"", None, 0, pretended)
        self.assertEqual([name for name in SOCKET_NAMES if not hasattr(transport, name)], [])

    def test_every_private_name_in_the_package_is_its_own_or_in_the_tables(self) -> None:
        """So that a new use of something private is listed, and checked."""
        tables = [names for shortcut in (*SHORTCUTS.values(), SESSION_REUSED) for names in shortcut.names]
        listed = {part for names in tables for name in names.uses for part in name.split(".")}
        used: dict[str, str] = {}
        own: set[str] = set()
        for path in PACKAGE.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                _sort(node, path.name, used, own)
        # Public in spite of their names: what ends a process without unwinding, and the methods of named tuples.
        listed |= {"_exit", "_fields", "_asdict", "_replace", "_make"}
        self.assertEqual({name: where for name, where in used.items() if name not in own | listed}, {})

    def test_twisted_calls_only_what_the_connections_of_tls_have(self) -> None:
        tree = ast.parse(textwrap.dedent(inspect.getsource(TLSMemoryBIOProtocol)))
        called = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr == "_tlsConnection"
            # Twisted 24.7 asks for NPN, too, which pyOpenSSL no longer has.
            and hasattr(SSL.Connection, node.attr)
        }
        self.assertIn("bio_read", called)
        for name in called:
            self.assertTrue(hasattr(SSLObjectConnection, name), name)
        # Whatever moves octets has to tell RecordConnection of it.
        moves_none = {"get_alpn_proto_negotiated", "get_peer_certificate"}
        self.assertEqual(called - moves_none - set(vars(RecordConnection)), set())


def _sort(node: ast.AST, file: str, used: dict[str, str], own: set[str]) -> None:
    """Note which private names a piece of code uses, and which it makes."""
    if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
        on_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if on_self and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        else:
            used.setdefault(node.attr, file)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        own.add(node.name)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        if file != "twisted_private.py":
            own.add(node.target.id)
    elif isinstance(node, ast.Assign):
        own.update(target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("twisted_smtpd"):
        used.update({one.name: file for one in node.names if one.name.startswith("_") and one.name[1:2] != "_"})


class ShortcutTests(ChangedTwistedMixin):
    def shortcut(self, *names: Names) -> Shortcut:
        return Shortcut("it is slower", names, library="Twisted 99.1")

    def test_what_is_missing_is_logged_once(self) -> None:
        shortcut = self.shortcut(
            Names("Thing", lambda _: SimpleNamespace(a=1), {"a": "", "b": "", "c.d": ""}),
            Names("Other", lambda given: given, {"x": ""}),
        )
        for _ in range(2):
            self.assertFalse(shortcut.is_there(object()))
        self.assertEqual(self.lines, ["Twisted 99.1 has no Thing.b, Thing.c.d, Other.x: it is slower"])

    def test_it_is_checked_once(self) -> None:
        asked: list[object] = []
        shortcut = self.shortcut(Names("Thing", asked.append, {}))
        for _ in range(2):
            self.assertTrue(shortcut.is_there("given"))
        self.assertEqual((asked, self.lines), (["given"], []))

    def test_what_behaves_otherwise_is_not_used(self) -> None:
        shortcut = self.shortcut(Names("Thing", lambda _: object(), {}, lambda thing: False))
        self.assertFalse(shortcut.is_there())
        self.assertEqual(self.lines, ["Twisted 99.1 has no Thing as it was known: it is slower"])

    def test_what_can_not_be_made_any_more_is_not_used(self) -> None:
        def make(_: object) -> object:
            raise TypeError("a new parameter")

        shortcut = self.shortcut(Names("Thing", make, {"a": ""}))
        self.assertFalse(shortcut.is_there())
        self.assertIn("has no Thing as it was known (a new parameter): it is slower", self.lines[0])

    def test_a_transport_that_writes_in_another_way_is_not_used(self) -> None:
        self.patch(tcp.Server, "write", lambda transport, data: transport.socket.send(data))
        self.assertFalse(module.SOCKETS.is_there())
        self.assert_one_line("tcp.Server as it was known", "slower, not wrong")

    def test_a_transport_that_reads_in_another_way_is_not_used(self) -> None:
        self.patch(tcp.Server, "doRead", lambda transport: transport.protocol.dataReceived(transport.socket.recv(10)))
        self.assertFalse(module.SOCKETS.is_there())

    def test_a_write_of_tls_with_another_signature_is_not_used(self) -> None:
        self.patch(module, "TLSMemoryBIOProtocol", SimpleNamespace(write=lambda data: None))
        self.assertFalse(module.DIRECT_TLS.is_there())
        self.assert_one_line("TLSMemoryBIOProtocol as it was known")


class OrdinaryWayTests(ChangedTwistedMixin, BatchesTestCase):
    """A whole dialog over a real socket, without the sockets' shortcut."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = ServingReactor()
        self.port.reactor = self.reactor

    def said(self, client: socket.socket, count: int) -> list[int]:
        """So many replies of the server, at the reactor's own pace."""
        said = b""
        for _ in range(20):
            self.reactor.turn()
            said += self.heard(client)
            if said.endswith(b"\r\n") and len(codes(said)) >= count:
                break
        return codes(said)

    def dialog(self) -> Any:
        """Take a message, and end; the transport."""
        client, transport = self.transport(self.factory().buildProtocol(None))
        self.assertEqual(self.said(client, 1), [220])
        direct = transport.protocol._output.direct
        client.send(MESSAGE)
        self.assertEqual(self.said(client, 5), [250, 250, 250, 354, 250])
        client.send(b"QUIT\r\n")
        self.assertEqual(self.said(client, 1), [221])
        self.reactor.turn()
        self.assertEqual(client.recv(10), b"")
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([], []))
        return direct, transport

    def test_with_the_shortcut(self) -> None:
        direct, transport = self.dialog()
        self.assertTrue(direct)
        self.assertIsInstance(transport.reactor, BatchReactor)
        self.assertEqual(self.lines, [])

    def test_without_any_one_of_the_names(self) -> None:
        for name in SOCKET_NAMES:
            self.forget()
            self.port.reactor = self.reactor
            unhide = hide(tcp.Server, name)
            try:
                for _ in range(2):
                    direct, transport = self.dialog()
                    self.assertFalse(direct)
            finally:
                unhide()
            self.assertIs(transport.reactor, self.reactor)
            self.assertIs(self.port.reactor, self.reactor)
            self.assert_one_line(f"tcp.Server.{name}:", "slower, not wrong")

    def test_more_replies_than_a_client_reads(self) -> None:
        self.lack(module.SOCKETS)
        # It would yield before its replies are too many.
        for name in ("COMMANDS_AT_ONCE", "TIME_AT_ONCE"):
            self.patch(connection, name, 10**9)
        client, transport = self.transport(self.factory(max_idle_commands=0).buildProtocol(None))
        self.assertEqual(self.said(client, 1), [220])
        protocol = transport.protocol
        self.flood(client, protocol)
        self.assertFalse(protocol.paused)


class OrdinaryTLSTests(ChangedTwistedMixin, SecureTestCase):
    """TLS whose writes are Twisted's."""

    def secured(self) -> list[Any]:
        starttls = self.connect(tls_context=self.files())
        starttls.starttls()
        implicit = self.connect(ssl_context=self.files())
        implicit.handshake()
        wrapped = self.join_wrapped(self.factory(), self.files())
        wrapped.handshake()
        return [starttls, implicit, wrapped]

    def test_starttls_and_tls_from_the_start(self) -> None:
        for lacks in (False, True):
            self.forget()
            if lacks:
                self.patch(module, "TLSMemoryBIOProtocol", SimpleNamespace())
            for peer in self.secured():
                self.assertEqual(peer.protocol._output._tls is None, lacks)
                self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])
                self.assertEqual(codes(peer.send(b"QUIT\r\n")), [221])
                self.assertTrue(peer.transport.protocol.disconnecting)
        self.assert_one_line("TLSMemoryBIOProtocol.write:", "slower, not wrong")

    def test_the_last_reply_is_not_lost_when_the_reactor_has_no_further_turn(self) -> None:
        self.patch(module, "TLSMemoryBIOProtocol", SimpleNamespace())
        for peer in self.secured():
            peer.tls.send(b"QUIT\r\n")
            peer.transport.protocol.dataReceived(peer._outgoing())
            said = peer.transport.value()
            peer.transport.clear()
            self.assertEqual(codes(peer._decrypt(said)), [221])

    def test_a_second_loop_without_the_layers_clock(self) -> None:
        factory = TLSMemoryBIOFactory(module._NoConnections(), False, Factory(), self.clock)
        for lacks in (False, True):
            self.forget()
            if lacks:
                self.lack(module.TLS_CLOCK)
            layer: Any = factory.protocol(factory, Factory(), False)
            written: list[bytes] = []
            self.patch(TLSMemoryBIOProtocol, "write", lambda tls, data, written=written: written.append(data))
            reactor: Any = NotingReactor()
            module.keep_tls_on(reactor, layer)
            self.assertEqual(layer._aggregator._clock is reactor, not lacks)
            if lacks:
                layer.write(b"hello")
                self.assertEqual((written, self.clock.getDelayedCalls()), ([b"hello"], []))
        self.assert_one_line("BufferingTLSTransport._aggregator._clock:", "slower, not wrong")


class ReactorTests(ChangedTwistedMixin):
    def test_moved_with_its_timers(self) -> None:
        reactor = loop_reactor(self)
        called: list[str] = []
        reactor.callLater(0, called.append, "late")
        other = asyncio.SelectorEventLoop()
        self.addCleanup(other.close)
        self.assertTrue(reactor.is_free())
        reactor.move(other)
        self.assertIs(loop_of(reactor), other)
        other.call_later(0, lambda: other.call_soon(other.stop))
        other.run_forever()
        self.assertEqual((called, self.lines), (["late"], []))

    def test_without_any_one_of_the_names_it_stays(self) -> None:
        for name in module.MOVING.names[0].uses:
            self.forget()
            reactor = loop_reactor(self)
            unhide = hide(LoopReactor, name)
            try:
                for _ in range(2):
                    self.assertFalse(reactor.is_free())
                self.assertIs(loop_of(reactor), reactor.home)
            finally:
                unhide()
            self.assert_one_line(f"AsyncioSelectorReactor.{name}:", "a reactor of its own")

    def test_the_loop_of_twisteds_own_reactor(self) -> None:
        class Plain(LoopReactor.__mro__[1]):  # type: ignore[misc]
            def installWaker(self) -> None:
                """Needs no waker."""

        loop = asyncio.SelectorEventLoop()
        self.addCleanup(loop.close)
        self.assertIs(loop_of(Plain(loop)), loop)
        self.assertEqual(self.lines, [])
        self.forget()
        self.lack(module.LOOP_OF_REACTOR)
        for _ in range(2):
            self.assertIs(loop_of(Plain(loop)), None)
        self.assert_one_line("AsyncioSelectorReactor._asyncioEventloop:")
        self.assertIs(loop_of(NotingReactor()), None)

    def test_the_threads_of_the_pool(self) -> None:
        for lacks in (False, True):
            self.forget()
            if lacks:
                self.lack(module.DAEMON_THREADS)
            for _ in range(2):
                made = loop_reactor(self).getThreadPool().threadFactory
                self.assertEqual(made is threading.Thread, lacks)
        self.assert_one_line("ThreadPool.threadFactory:")

    def test_trials_test_cases(self) -> None:
        self.assertFalse(module.called_by_trial())
        self.assertTrue(self.asked_by_a_test_case())
        self.forget()
        self.patch(module, "find_spec", lambda name: None)
        for _ in range(2):
            self.assertFalse(self.asked_by_a_test_case())
        self.assert_one_line("twisted.trial._asynctest:")

    def asked_by_a_test_case(self) -> bool:
        names: dict[str, Any] = {"__name__": "twisted.trial._asynctest", "ask": module.called_by_trial}
        exec("answer = ask()", names)
        return bool(names["answer"])

    def test_the_loop_that_runs_here(self) -> None:
        async def ask() -> list[object]:
            return [find() for find in (module.running_loop, module._running_loop)]

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        self.assertEqual(loop.run_until_complete(ask()), [loop] * 2)
        self.assertEqual([module.running_loop(), module._running_loop()], [None] * 2)


class PortTests(ChangedTwistedMixin):
    def test_the_parents_end_is_not_that_of_the_workers_sockets(self) -> None:
        for lacks in (False, True):
            self.forget()
            if lacks:
                self.lack(module.KEPT_PORTS)
            binder = Binder(Listens())
            for _ in range(2):
                port: Any = binder.listenTCP(0, Factory(), interface="127.0.0.1")
                self.assertEqual(port._shouldShutdown, lacks)
                workers = socket.socket(fileno=os.dup(binder.shared[-1].descriptor))
                self.addCleanup(workers.close)
                place = port.getHost()
                port.connectionLost(connectionDone)
                with socket.create_connection((place.host, place.port)):
                    workers.accept()[0].close()
        self.assert_one_line("tcp.Port._shouldShutdown:")

    def test_taking_turns(self) -> None:
        for lacks in (False, True):
            self.forget()
            port: Any = listening_port(self)
            if lacks:
                del port.numberAccepts
            before = port.doRead
            for _ in range(2):
                take_turns(port, NotingReactor(), lambda: 0)
            self.assertEqual(port.doRead == before, lacks)
        self.assert_one_line("tcp.Port.numberAccepts:", "less evenly")


class CountedTests(SynchronousTestCase):
    def test_a_protocol_that_is_counted_is_given_what_it_needs(self) -> None:
        self.assertTrue(ICounted.implementedBy(SMTP))
        server = RunningServer(lambda: SMTP(object()), NotingReactor())
        protocol = server.buildProtocol(None)
        self.assertIs(protocol.factory, server)
        self.assertIs(protocol.connections, server.connections)
        self.assertIsInstance(protocol.connections, Connections)


class SessionTests(ChangedTwistedMixin):
    def test_without_pyopenssls_own_connection_nothing_is_known(self) -> None:
        self.patch(SESSION_REUSED, "_there", None)
        connection: Any = SimpleNamespace()
        for _ in range(2):
            self.assertIs(session_reused(connection), None)
        self.assert_one_line("pyOpenSSL", "SSL.Connection._ssl:", "tls-unique")


class UntouchedOutputTests(ChangedTwistedMixin):
    def test_a_transport_of_another_kind_needs_no_check(self) -> None:
        """A string transport has none of the names, and a server on Windows none of the sockets."""
        for _ in range(2):
            output = Output(SimpleNamespace(), lambda: 0.0, lambda: None, lambda: None)  # type: ignore[arg-type]
            self.assertFalse(output.direct)
        self.assertEqual((module.SOCKETS._there, self.lines), (None, []))
