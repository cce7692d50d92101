"""The factory: one server's counts, its limits on connections, and its orderly end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.address import HostnameAddress, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    GREETING,
    MESSAGE,
    Client,
    Promises,
    Recorder,
    answering,
    codes,
    connect,
    hooks,
    join,
    make_factory,
)
from tests.support.lives import Living
from tests.support.tls_helpers import TLSTestCase
from twisted_smtpd.auth.authenticators import AcceptAnyone
from twisted_smtpd.factory import ImplicitTLS, SMTPFactory
from twisted_smtpd.handlers import Sink
from twisted_smtpd.runtime.connections import LINGER, limited_address
from twisted_smtpd.smtp import SMTP


def ipv6(host: str) -> IAddress:
    address: IAddress = IPv6Address("TCP", host, 40000)
    return address


class FactoryTests(SynchronousTestCase):
    def test_it_makes_protocols(self) -> None:
        factory = make_factory()
        client = join(factory)
        self.assertEqual(client.read(), GREETING)
        self.assertIs(type(client.protocol), SMTP)
        self.assertIs(client.protocol.factory, factory)

    def test_of_any_class(self) -> None:
        class Mine(SMTP):
            def __init__(self, handler: object) -> None:
                super().__init__(handler, hostname="mine.example", clock=clock, data_size_limit=5)

        clock = Clock()
        factory = SMTPFactory(object(), protocol=Mine, clock=clock, hostname="x")
        factory.options = {}
        client = join(factory)
        self.assertEqual(client.read(), b"220 mine.example ESMTP twisted-smtpd\r\n")
        self.assertEqual(factory.connections.open, {client.protocol})

    def test_bad_options_are_found_when_it_is_made(self) -> None:
        self.assertRaises(TypeError, SMTPFactory, object(), no_such_option=1)
        self.assertRaises(ValueError, SMTPFactory, object(), timeout=0)

    def test_it_leaves_no_timer_behind(self) -> None:
        clock = Clock()
        factory = make_factory(clock=clock)
        client = join(factory)
        factory.stopFactory()
        self.assertNotEqual(clock.getDelayedCalls(), [])
        client.lose()
        self.assertEqual(clock.getDelayedCalls(), [])
        join(factory).lose()
        factory.stopFactory()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_settings_are_computed_once(self) -> None:
        calls: list[int] = []

        class Handler:
            def __dir__(self) -> list[str]:
                calls.append(1)
                return list(super().__dir__())

        factory = make_factory(Handler())
        made = len(calls)
        self.assertGreater(made, 0)
        for _ in range(5):
            join(factory).lose()
        self.assertEqual(len(calls), made)

    def test_a_factory_that_is_gone_leaves_nothing(self) -> None:
        handler = Recorder()
        factory = make_factory(handler)
        join(factory).lose()
        alive = weakref.ref(handler)
        del handler, factory
        gc.collect()
        self.assertIsNone(alive())


class ConnectionLimitTests(SynchronousTestCase):
    def test_at_the_limit_and_beyond(self) -> None:
        factory = make_factory(max_connections=2)
        first, second = join(factory), join(factory)
        third = join(factory)
        self.assertEqual((first.read(), second.read()), (GREETING, GREETING))
        self.assertEqual(third.read(), b"421 4.3.2 mx.example has too many connections, try again later\r\n")
        self.assertTrue(third.closed)
        third.lose()
        self.assertEqual(len(factory.connections.open), 2)
        first.lose()
        self.assertEqual(join(factory).read(), GREETING)

    def test_one_that_is_refused_is_not_heard(self) -> None:
        factory = make_factory(max_connections=1)
        join(factory)
        refused = join(factory)
        refused.read()
        refused.protocol.dataReceived(MESSAGE)
        refused.protocol.readConnectionLost()
        self.assertEqual(refused.read(), b"")

    def test_one_that_is_refused_and_does_not_go_is_cut_off(self) -> None:
        clock = Clock()
        factory = make_factory(max_connections=1, clock=clock)
        join(factory)
        refused = join(factory)
        clock.pump([1] * 12)
        self.assertTrue(refused.aborted)

    def test_two_servers_with_the_same_settings_have_a_limit_each(self) -> None:
        handler, clock = object(), Clock()
        one, other = (make_factory(handler, max_connections=1, clock=clock) for _ in range(2))
        self.assertEqual(join(one).read(), GREETING)
        self.assertEqual(join(other).read(), GREETING)
        self.assertEqual(codes(join(one).read()), [421])

    def test_a_class_with_options_of_its_own_is_counted_by_its_factory(self) -> None:
        class Mine(SMTP):
            def __init__(self, handler: object, **options: Any) -> None:
                super().__init__(handler, command_call_limit={"NOOP": 3}, **options)

        factory = make_factory(protocol=Mine, max_connections=1)
        join(factory)
        self.assertEqual(codes(join(factory).read()), [421])


class AddressLimitTests(SynchronousTestCase):
    def refused(self, *hosts: Any, limit: int = 1) -> bool:
        """Whether the last of these clients of one server is refused."""
        factory = make_factory(max_connections_per_address=limit)
        clients = [join(factory, host) for host in hosts]
        for client in clients[:-1]:
            self.assertFalse(client.closed)
        if clients[-1].closed:
            self.assertEqual(clients[-1].read(), b"421 4.7.0 mx.example has too many connections from your address\r\n")
        for client in clients:
            client.lose()
        self.assertEqual(dict(factory.connections.per_address), {})
        return clients[-1].closed

    def test_at_the_limit_and_beyond(self) -> None:
        self.assertFalse(self.refused("192.0.2.1", "192.0.2.1", "192.0.2.1", limit=3))
        self.assertTrue(self.refused("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.1", limit=3))

    def test_other_addresses_have_their_own(self) -> None:
        self.assertFalse(self.refused("192.0.2.1", "192.0.2.2"))

    def test_an_ipv6_client_is_its_network(self) -> None:
        self.assertTrue(self.refused(ipv6("2001:db8:0:1::1"), ipv6("2001:db8:0:1:ffff::2")))
        self.assertFalse(self.refused(ipv6("2001:db8:0:1::1"), ipv6("2001:db8:0:2::1")))

    def test_a_mapped_ipv4_address_is_the_same_client(self) -> None:
        self.assertTrue(self.refused("192.0.2.1", ipv6("::ffff:192.0.2.1")))
        self.assertFalse(self.refused(ipv6("::ffff:192.0.2.1"), ipv6("::ffff:192.0.2.2")))

    def test_a_scope_is_no_way_around(self) -> None:
        self.assertTrue(self.refused(ipv6("fe80::1%eth0"), ipv6("fe80::1%eth1")))

    def test_loopback_and_unix_sockets_are_exempt(self) -> None:
        for host in ("127.0.0.1", "127.9.9.9", ipv6("::1"), ipv6("::ffff:127.0.0.1"), UNIXAddress("/run/x")):
            self.assertFalse(self.refused(host, host, host), host)
        self.assertIsNone(limited_address(""))

    def test_an_address_that_is_none(self) -> None:
        self.assertFalse(self.refused(HostnameAddress(b"x.example", 1), HostnameAddress(b"x.example", 2)))

    def test_0_is_no_limit(self) -> None:
        self.assertFalse(self.refused(*["192.0.2.1"] * 60, limit=0))

    def test_one_that_is_gone_makes_room(self) -> None:
        factory = make_factory(max_connections_per_address=1)
        join(factory).lose()
        self.assertEqual(join(factory).read(), GREETING)

    def test_a_refused_one_that_goes_makes_none(self) -> None:
        factory = make_factory(max_connections_per_address=1)
        join(factory)
        join(factory).lose()
        self.assertEqual(codes(join(factory).read()), [421])


class RecountTests(SynchronousTestCase):
    """A client behind a proxy is counted for its own address."""

    def setUp(self) -> None:
        self.factory = make_factory(max_connections_per_address=1)
        self.connections = self.factory.connections
        self.limits = self.factory.settings.values
        join(self.factory, "192.0.2.1")

    def test_the_same_address(self) -> None:
        self.assertIsNone(self.connections.recount("192.0.2.1", "192.0.2.1", self.limits))
        self.assertEqual(dict(self.connections.per_address), {"192.0.2.1": 1})

    def test_another_address(self) -> None:
        self.assertIsNone(self.connections.recount("192.0.2.1", "192.0.2.2", self.limits))
        self.assertEqual(dict(self.connections.per_address), {"192.0.2.2": 1})
        self.assertIsNone(self.connections.recount("192.0.2.2", None, self.limits))
        self.assertEqual(dict(self.connections.per_address), {})

    def test_an_address_that_has_enough(self) -> None:
        join(self.factory, "192.0.2.2")
        refusal = self.connections.recount("192.0.2.1", "192.0.2.2", self.limits)
        self.assertEqual(refusal, "421 4.7.0 {hostname} has too many connections from your address")
        self.assertEqual(dict(self.connections.per_address), {"192.0.2.1": 1, "192.0.2.2": 1})


class DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.promises = Promises()
        self.clock = Clock()
        self.factory = make_factory(hooks(handle_DATA=self.promises, handle_NOOP=self.promises), clock=self.clock)

    def join(self) -> Client:
        client = join(self.factory)
        client.read()
        return client

    def test_without_clients_it_is_over_at_once(self) -> None:
        self.assertIsNone(self.successResultOf(self.factory.drain()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle_clients_hear_421(self) -> None:
        client = self.join()
        drained = self.factory.drain()
        self.assertEqual(client.read(), b"421 4.3.2 Shutting down, try again later\r\n")
        self.assertTrue(client.closed)
        self.assertNoResult(drained)
        client.lose()
        self.assertIsNone(self.successResultOf(drained))
        self.factory.stopFactory()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_between_two_commands_of_a_transaction_is_idle(self) -> None:
        client = self.join()
        client.send(MESSAGE.partition(b"DATA")[0])
        self.factory.drain()
        self.assertEqual(codes(client.read()), [421])

    def test_a_message_being_sent_is_taken_in(self) -> None:
        client = self.join()
        client.send(MESSAGE[:-5])
        self.factory.drain()
        self.assertFalse(client.closed)
        client.send(MESSAGE[-5:] + b"MAIL FROM:<more@x.example>\r\n")
        self.promises.made[0].callback("250 stored")
        self.assertEqual(codes(client.read()), [250, 421])
        self.assertTrue(client.closed)

    def test_a_hook_at_work_is_waited_for(self) -> None:
        client = self.join()
        client.send(b"NOOP\r\nNOOP\r\n")
        self.factory.drain()
        self.promises.made[0].callback("250 OK")
        self.assertEqual(codes(client.read()), [250, 421])
        self.assertEqual(len(self.promises.made), 1)

    def test_after_the_grace_period_connections_end_with_421(self) -> None:
        """They were reset, which tells a client nothing."""
        client = self.join()
        client.send(MESSAGE)
        drained = self.factory.drain(grace=5)
        self.clock.advance(4.9)
        self.assertFalse(client.closed)
        client.read()
        self.clock.advance(0.2)
        self.assertEqual(client.read(), b"421 4.3.2 Shutting down, try again later\r\n")
        self.assertTrue(client.closed)
        self.assertNoResult(drained)
        self.clock.pump([LINGER / 4] * 12)
        self.assertTrue(client.aborted, "one that stays is reset all the same")
        client.lose(clean=False)
        self.successResultOf(drained)

    def test_the_grace_may_end_early_even_before_it_has_begun(self) -> None:
        for early in (False, True):
            client = self.join()
            client.send(MESSAGE)
            connections = self.factory.connections
            if early:
                connections.end_grace()
                self.assertFalse(client.closed)
            self.factory.drain(grace=1000)
            client.read()
            connections.end_grace()
            self.clock.advance(0)
            self.assertEqual(codes(client.read()), [421])
            self.factory = make_factory(self.factory.handler, clock=self.clock)

    def test_new_connections_are_refused(self) -> None:
        self.join()
        self.factory.drain()
        late = join(self.factory)
        self.assertEqual(late.read(), b"421 4.3.2 mx.example is shutting down, try again later\r\n")
        self.assertTrue(late.closed)

    def test_it_may_be_asked_twice(self) -> None:
        client = self.join()
        first, second = self.factory.drain(), self.factory.drain()
        client.lose()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.factory.drain())

    def test_another_server_goes_on(self) -> None:
        other = make_factory(self.factory.handler, clock=self.clock)
        client = join(other)
        self.factory.drain()
        self.assertEqual(client.read(), GREETING)
        self.assertEqual(join(other).read(), GREETING)

    def test_a_client_that_does_not_read_is_cut_off(self) -> None:
        client = self.join()
        client.protocol._output.pauseProducing()
        client.protocol.dataReceived(b"RSET\r\n")
        drained = self.factory.drain(grace=5)
        self.clock.advance(6)
        self.assertTrue(client.aborted)
        client.lose()
        self.successResultOf(drained)

    def test_one_that_does_not_go_is_cut_off_while_others_are_waited_for(self) -> None:
        idle, busy = self.join(), self.join()
        busy.send(MESSAGE)
        drained = self.factory.drain(grace=100 * LINGER)
        self.clock.pump([LINGER / 4] * 12)
        self.assertTrue(idle.aborted)
        self.assertFalse(busy.closed)
        idle.lose()
        self.promises.made[0].callback("250 stored")
        self.assertEqual(codes(busy.read())[-2:], [250, 421])
        self.assertFalse(busy.aborted)
        busy.lose()
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_class_with_options_of_its_own_is_drained_too(self) -> None:
        class Mine(SMTP):
            def __init__(self, handler: object, **options: Any) -> None:
                super().__init__(handler, command_call_limit={"NOOP": 3}, **options)

        factory = make_factory(protocol=Mine)
        client = join(factory)
        drained = factory.drain()
        self.assertTrue(client.closed)
        client.lose()
        self.successResultOf(drained)

    def test_the_greeting_may_still_be_waited_for(self) -> None:
        factory = make_factory(hooks(handle_CONNECT=self.promises))
        client = join(factory)
        factory.drain()
        self.promises.made[0].callback("220 hello")
        self.assertEqual(codes(client.read()), [220, 421])


class HandmadeTests(SynchronousTestCase):
    """Protocols that a program makes by hand: the same handler and options are the same server."""

    def test_they_share_limits(self) -> None:
        handler, clock = hooks(handle_NOOP=answering("250 OK")), Clock()
        first = connect(handler, max_connections=1, clock=clock)
        second = connect(handler, max_connections=1, clock=clock)
        self.assertFalse(first.closed)
        self.assertTrue(second.closed)

    def test_other_handlers_have_their_own(self) -> None:
        clock = Clock()
        self.assertFalse(connect(hooks(), max_connections=1, clock=clock).closed)
        self.assertFalse(connect(hooks(), max_connections=1, clock=clock).closed)


class HandlerLifeTests(SynchronousTestCase):
    def test_the_handler_is_told_what_the_server_is(self) -> None:
        handler, clock = Living(), Clock()
        factory = make_factory(handler, clock=clock, max_recipients=7)
        self.successResultOf(factory.start_handler([("192.0.2.1", 25)]))
        (server,) = handler.servers
        self.assertEqual((server.hostname, server.addresses), ("mx.example", (("192.0.2.1", 25),)))
        self.assertIs(server.reactor, clock)
        self.assertEqual((server.options["max_recipients"], server.options["max_errors"]), (7, 10))
        self.assertNotIn("max_recipients", repr(server))

    def test_stop_is_paired_with_start(self) -> None:
        handler = Living()
        factory = make_factory(handler)
        self.successResultOf(factory.stop_handler())
        self.successResultOf(factory.start_handler())
        self.failureResultOf(factory.start_handler(), RuntimeError)
        self.successResultOf(factory.stop_handler())
        self.successResultOf(factory.stop_handler())
        self.assertEqual(handler.events, ["start", "stop"])

    def test_a_start_that_is_given_up_is_cancelled(self) -> None:
        cancelled: list[Any] = []
        started = make_factory(Living(start=Deferred(cancelled.append))).start_handler()
        started.cancel()
        self.failureResultOf(started, CancelledError)
        self.assertEqual(len(cancelled), 1)


class NoTLSTests(TLSTestCase):
    """AUTH that can't be offered is said at the start, once."""

    NAMES = "CRAM-MD5 LOGIN OAUTHBEARER PLAIN XOAUTH2"
    TEXT = f"AUTH {NAMES} is offered with TLS only, and there is no TLS: no client can authenticate"

    def warnings_of(self, use: Callable[[SMTPFactory], object], **options: Any) -> list[str]:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        factory = SMTPFactory(Sink(), **{"authenticator": AcceptAnyone(), **options})
        for _ in range(2):
            use(factory)
        return [formatEvent(event) for event in events if "is offered with TLS only" in str(event.get("log_format"))]

    def test_at_the_start_of_the_factory(self) -> None:
        self.assertEqual(self.warnings_of(SMTPFactory.doStart), [self.TEXT])

    def test_what_gives_tls(self) -> None:
        for options in (
            {"tls_context": self.files()},
            {"auth_require_tls": False},
            {"authenticator": None},
            {"proxy_from": ["192.0.2.1"]},
        ):
            self.assertEqual(self.warnings_of(SMTPFactory.doStart, **options), [], options)

        context = self.files()

        def with_tls(factory: SMTPFactory) -> None:
            ImplicitTLS(factory, context).doStart()

        def known(factory: SMTPFactory) -> None:
            factory.endpoint_has_tls = True
            factory.doStart()

        for use in (with_tls, known):
            self.assertEqual(self.warnings_of(use), [])
