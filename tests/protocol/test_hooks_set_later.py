"""A hook that is set on a handler, or on its class, takes effect for the connections that are opened afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, Client, answering, codes, join, make_factory
from twisted_smtpd.handlers import Chain, Sink
from twisted_smtpd.smtp import SMTP


class Handler:
    """Has no hook at first."""


class Sub(Handler):
    """Inherits what its base class is given."""


def by_factory(handler: Any) -> Callable[[], Client]:
    factory = make_factory(handler)
    return lambda: join(factory)


def by_hand(handler: Any) -> Callable[[], Client]:
    clock = Clock()
    return lambda: Client(SMTP(handler, hostname="mx.example", clock=clock))


class LaterTests(SynchronousTestCase):
    """Seen: ``monkeypatch.setattr(handler, "handle_RCPT", …)`` while the server runs was ignored without a word."""

    def refusals(self, connect: Callable[[], Client]) -> bool:
        return codes(connect().send(EHLO + b"NOOP\r\n"))[-1] == 458

    def each(self, check: Callable[[Callable[[], Client], Any], None]) -> None:
        for server in (by_factory, by_hand):
            handler = Sub()
            check(server(handler), handler)

    def test_on_the_instance(self) -> None:
        def check(connect: Callable[[], Client], handler: Any) -> None:
            self.assertFalse(self.refusals(connect))
            handler.handle_NOOP = answering("458 later")
            self.assertTrue(self.refusals(connect))
            del handler.handle_NOOP
            self.assertFalse(self.refusals(connect))

        self.each(check)

    def test_on_the_class_and_on_its_base(self) -> None:
        def check(connect: Callable[[], Client], handler: Any) -> None:
            for cls in (Sub, Handler):
                self.assertFalse(self.refusals(connect))
                cls.handle_NOOP = answering("458 later")  # type: ignore[union-attr]
                try:
                    self.assertTrue(self.refusals(connect))
                finally:
                    del cls.handle_NOOP  # type: ignore[union-attr]

        self.each(check)

    def test_one_in_the_place_of_another(self) -> None:
        def check(connect: Callable[[], Client], handler: Any) -> None:
            handler.handle_VRFY = answering("458 later")
            connect()
            del handler.handle_VRFY
            handler.handle_NOOP = answering("458 later")
            self.assertTrue(self.refusals(connect))

        self.each(check)

    def test_a_mechanism_too(self) -> None:
        def check(connect: Callable[[], Client], handler: Any) -> None:
            connect()
            handler.auth_FOO = answering("anne")
            client = connect()
            client.protocol.auth_require_tls = False
            self.assertIn(b"AUTH FOO\r\n", client.send(EHLO))

        self.each(check)

    def test_an_ehlo_with_another_number_of_arguments(self) -> None:
        def four(server: Any, session: Any, envelope: Any, hostname: str) -> str:
            session.host_name = hostname
            return "250 four"

        def five(server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> list[str]:
            session.host_name = hostname
            return [*responses[:-1], "250 five"]

        def check(connect: Callable[[], Client], handler: Any) -> None:
            for hook in (four, five, four):
                handler.handle_EHLO = hook
                self.assertTrue(connect().send(EHLO).endswith(b"250 %b\r\n" % hook.__name__.encode()))

        self.each(check)

    def test_a_connection_that_is_open_keeps_its_hooks(self) -> None:
        def check(connect: Callable[[], Client], handler: Any) -> None:
            client = connect()
            handler.handle_NOOP = answering("458 later")
            self.assertEqual(codes(client.send(b"NOOP\r\n"))[-1:], [250])

        self.each(check)

    def test_other_attributes_change_nothing(self) -> None:
        def check(connect: Callable[[], Client], handler: Any) -> None:
            first = connect().protocol._settings
            handler.messages = []
            self.assertIs(connect().protocol._settings, first)

        self.each(check)

    def test_the_connections_are_still_counted_together(self) -> None:
        def check(connect: Callable[[], Client], handler: Any) -> None:
            first = connect()
            handler.handle_NOOP = answering("458 later")
            self.assertIs(connect().protocol.connections, first.protocol.connections)

        self.each(check)

    def in_chain(self, check: Callable[[Callable[[], Client], Any], None]) -> None:
        for server in (by_factory, by_hand):
            for wrap in (lambda member: Chain(Sink(), member), lambda member: Chain(Chain(member), Sink())):
                member = Sub()
                check(server(wrap(member)), member)

    def test_on_a_member_of_a_chain_and_of_a_chain_in_it(self) -> None:
        def check(connect: Callable[[], Client], member: Any) -> None:
            for owner in (member, Sub, Handler):
                self.assertFalse(self.refusals(connect))
                owner.handle_NOOP = answering("458 later")
                try:
                    self.assertTrue(self.refusals(connect))
                finally:
                    del owner.handle_NOOP
            self.assertFalse(self.refusals(connect))

        self.in_chain(check)

    def test_one_in_the_place_of_another_in_a_chain(self) -> None:
        def check(connect: Callable[[], Client], member: Any) -> None:
            member.handle_NOOP = answering("250 first")
            client = connect()
            self.assertEqual(codes(client.send(EHLO + b"NOOP\r\n"))[-1], 250)
            member.handle_NOOP = answering("458 later")
            self.assertTrue(self.refusals(connect))
            self.assertEqual(codes(client.send(b"NOOP\r\n")), [458])

        self.in_chain(check)

    def test_the_connections_of_a_chain_keep_working_when_a_hook_is_gone(self) -> None:
        def check(connect: Callable[[], Client], member: Any) -> None:
            member.handle_NOOP = answering("458 later")
            client = connect()
            del member.handle_NOOP
            self.assertEqual(codes(client.send(EHLO + b"NOOP\r\n"))[-1], 250)

        self.in_chain(check)

    def test_a_mechanism_of_a_member_too(self) -> None:
        def check(connect: Callable[[], Client], member: Any) -> None:
            connect()
            member.auth_FOO = answering("anne")
            client = connect()
            client.protocol.auth_require_tls = False
            self.assertIn(b"AUTH FOO\r\n", client.send(EHLO))

        self.in_chain(check)

    def test_what_is_set_on_the_chain_itself_stays(self) -> None:
        member = Sub()
        chain: Any = Chain(member)
        connect = by_factory(chain)
        chain.handle_NOOP = answering("458 later")
        self.assertTrue(self.refusals(connect))
        member.handle_NOOP = answering("250 unheard")
        self.assertTrue(self.refusals(connect))
