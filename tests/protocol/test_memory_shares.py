"""One address has a share of the memory for messages, and what is counted is what is held."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, Client, clock_of, codes, hooks, join, make_factory
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.protocol.body import COPIES, GROWTH

KIB = 1024
LINES = b"x" * 62 + b"\r\n"
MIB = LINES * (2**20 // len(LINES))


class MemoryShareTests(SynchronousTestCase):
    """Seen: 11 connections of one address filled ``max_buffered``, and all clients heard 452."""

    def sending(self, factory: SMTPFactory, host: str = "192.0.2.1", content: bytes = MIB) -> Client:
        client = join(factory, host)
        client.send(ENVELOPE + b"DATA\r\n")
        client.send(content)
        return client

    def end(self, client: Client) -> int:
        return codes(client.send(b".\r\n"))[-1]

    def test_one_address_has_a_quarter(self) -> None:
        factory = make_factory(max_buffered=16 * 2**20)
        greedy = [self.sending(factory) for _ in range(8)]
        other = self.sending(factory, "198.51.100.1")
        self.assertEqual([self.end(client) for client in greedy], [250] * 4 + [452] * 4)
        self.assertEqual(self.end(other), 250)
        self.assertEqual((factory.connections.buffered, factory.connections.memory._held), (0, {}))

    def test_or_what_the_option_says(self) -> None:
        for limit, accepted in ((2 * 2**20, 2), (0, 8)):
            factory = make_factory(max_buffered=16 * 2**20, max_buffered_per_address=limit)
            clients = [self.sending(factory) for _ in range(8)]
            self.assertEqual([self.end(client) for client in clients].count(250), accepted)

    def test_loopback_has_no_share(self) -> None:
        factory = make_factory(max_buffered=16 * 2**20)
        clients = [self.sending(factory, "127.0.0.1") for _ in range(8)]
        self.assertEqual([self.end(client) for client in clients], [250] * 8)

    def test_a_client_that_goes_gives_its_share_back(self) -> None:
        factory = make_factory(max_buffered=16 * 2**20)
        self.sending(factory).lose()
        self.assertEqual((factory.connections.buffered, factory.connections.memory._held), (0, {}))

    def test_the_copies_of_a_handler_are_counted(self) -> None:
        seen: list[int] = []

        def handle_DATA(server: Any, session: Any, envelope: Any) -> str:
            seen.append(server.connections.buffered)
            return "250 OK"

        factory = make_factory(hooks(handle_DATA=handle_DATA))
        self.assertEqual(self.end(self.sending(factory)), 250)
        self.assertEqual(seen, [COPIES * len(MIB)])
        self.assertEqual((factory.connections.buffered, factory.connections.memory._held), (0, {}))

    def test_where_memory_is_short_a_message_has_to_grow(self) -> None:
        """A client that has sent much and then drips at ``min_data_rate`` would hold its memory for an hour."""
        for limit, closed in ((3 * 2**20 // 2, True), (4 * 2**20, False)):
            factory = make_factory(max_buffered=limit, max_buffered_per_address=0)
            client = self.sending(factory)
            for _ in range(130):
                clock_of(client).advance(1)
                client.send(LINES * 2)
            self.assertEqual(client.closed, closed)

    def test_at_an_even_rate_it_does_for_an_hour(self) -> None:
        self.assertGreaterEqual(60 / 3600, GROWTH)
