"""Clients that don't read, clients that send ahead, and any order of events."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    ENVELOPE,
    MESSAGE,
    Client,
    Promises,
    Recorder,
    codes,
    connect,
    hooks,
    join,
    make_factory,
    pass_time,
)
from twisted_smtpd.protocol.connection import MAX_SENT_AHEAD
from twisted_smtpd.smtp import SMTP, SMTPReplyError
from twisted_smtpd.wire.replies import BadStatus


class BackPressureTests(SynchronousTestCase):
    def test_a_client_that_does_not_read_gets_a_bounded_number_of_replies(self) -> None:
        client = connect()
        client.transport.room = 4000
        client.protocol.dataReceived(b"NOOP\r\n" * 100000)
        held = len(client.transport.value())
        self.assertLess(held, 4000 + 1000 * 20)
        client.protocol.dataReceived(b"NOOP\r\n" * 100000)
        self.assertEqual(len(client.transport.value()), held)

    def test_and_nothing_more_is_read_from_it(self) -> None:
        client = connect()
        client.transport.room = 0
        client.protocol.dataReceived(b"NOOP\r\n" * 100000)
        self.assertEqual(client.transport.producerState, "paused")

    def test_when_it_reads_again_all_is_answered(self) -> None:
        client = connect()
        client.transport.room = 4000
        client.protocol.dataReceived(b"NOOP\r\n" * 5000)
        said = b""
        for _ in range(20):
            said += client.read()
            client.transport.producer.resumeProducing()
        self.assertEqual(codes(said + client.read()), [250] * 5000)
        self.assertEqual(client.transport.producerState, "producing")

    def test_it_is_cut_off_after_the_timeout(self) -> None:
        client = connect(timeout=100)
        client.transport.room = 10
        client.protocol.dataReceived(b"NOOP\r\n")
        pass_time(client, 97)
        self.assertFalse(client.aborted)
        pass_time(client, 6)
        self.assertTrue(client.aborted)

    def test_a_hook_that_pushes_waits(self) -> None:
        steps: list[int] = []

        async def hook(server: SMTP, *arguments: Any) -> None:
            for step in range(3):
                await server.push(f"250 {step}")
                steps.append(step)
            return None

        client = connect(hooks(handle_NOOP=hook))
        client.transport.room = 0
        client.protocol.dataReceived(b"RSET\r\n")
        self.assertEqual(client.transport.producerState, "producing")
        client.transport.producer.resumeProducing()
        client.read()
        client.transport.room = None
        client.protocol._output.pauseProducing()
        client.protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(steps, [])
        client.protocol._output.resumeProducing()
        self.assertEqual(steps, [0, 1, 2])
        self.assertEqual(codes(client.read()), [250] * 3)

    def test_a_hook_is_not_charged_for_a_client_that_does_not_read(self) -> None:
        promises = Promises()

        async def hook(server: SMTP, *arguments: Any) -> Any:
            server._output.pauseProducing()
            await server.push("250 one")
            return await promises()

        client = connect(hooks(handle_NOOP=hook), hook_timeout=50, timeout=100)
        client.protocol.dataReceived(b"NOOP\r\n")
        pass_time(client, 60)
        self.assertEqual(promises.made, [])
        client.protocol._output.resumeProducing()
        pass_time(client, 40)
        self.assertEqual(len(promises.made), 1)
        self.assertEqual(promises.cancelled, [])
        pass_time(client, 12)
        self.assertEqual(promises.cancelled, promises.made)

    def test_content_waits_for_a_client_that_reads(self) -> None:
        handler = Recorder()
        client = connect(handler)
        client.send(ENVELOPE)
        client.protocol._output.pauseProducing()
        client.protocol.dataReceived(b"DATA\r\n")
        client.protocol.dataReceived(b"x\r\n.\r\n")
        self.assertEqual(handler.envelopes, [])
        client.protocol._output.resumeProducing()
        self.assertEqual(codes(client.read()), [354, 250])

    def test_a_client_that_goes_away_unread(self) -> None:
        client = connect()
        client.protocol._output.pauseProducing()
        client.protocol.dataReceived(ENVELOPE)
        client.lose()
        self.assertEqual(client.protocol.connections.open, set())

    def test_replies_of_one_read_go_out_in_one_write(self) -> None:
        client = connect()
        writes = client.transport.writes
        client.send(ENVELOPE + b"DATA\r\n")
        self.assertEqual(client.transport.writes, writes + 1)


class SentAheadTests(SynchronousTestCase):
    """While a hook is at work, what the client sends is kept, up to a bound; the disconnect is still seen."""

    def waiting(self) -> tuple[Client, Promises]:
        promises = Promises()
        client = connect(hooks(handle_VRFY=promises))
        client.send(b"VRFY a\r\n")
        return client, promises

    def test_the_transport_is_paused_above_the_bound_only(self) -> None:
        client, _ = self.waiting()
        client.send(b"NOOP\r\n")
        client.send(b"x" * (MAX_SENT_AHEAD - len(b"NOOP\r\n")))
        self.assertEqual(client.transport.producerState, "producing")
        client.send(b"x")
        self.assertEqual(client.transport.producerState, "paused")
        client.send(b"x")
        self.assertEqual(client.transport.pauses, 1)

    def test_it_is_resumed_when_there_is_room(self) -> None:
        client, promises = self.waiting()
        client.send(b"NOOP\r\n" * 20000)
        promises.made[0].callback("250 OK")
        self.assertEqual(codes(client.read()), [250] * 20001)
        self.assertEqual((client.transport.producerState, client.transport.resumes), ("producing", 1))

    def test_it_is_not_resumed_while_there_is_none(self) -> None:
        client, promises = self.waiting()
        client.send(b"VRFY b\r\n" + b"NOOP\r\n" * 20000)
        promises.made[0].callback("250 OK")
        self.assertEqual(client.transport.producerState, "paused")
        promises.made[1].callback("250 OK")
        self.assertEqual(client.transport.producerState, "producing")

    def test_it_is_not_resumed_after_the_end(self) -> None:
        client, promises = self.waiting()
        client.send(b"QUIT\r\n" + b"NOOP\r\n" * 20000)
        promises.made[0].callback("250 OK")
        self.assertEqual(codes(client.read()), [250, 221])
        self.assertEqual(client.transport.resumes, 0)

    def test_one_command_at_a_time(self) -> None:
        at_work: list[int] = []
        promises = Promises()

        async def hook(*arguments: Any) -> str:
            at_work.append(1)
            self.assertEqual(len(at_work), 1)
            await promises()
            at_work.pop()
            return "250 OK"

        client = connect(hooks(handle_NOOP=hook))
        client.send(b"NOOP\r\nNOOP\r\n")
        client.send(b"NOOP\r\n")
        for number in range(3):
            promises.made[number].callback(None)
        self.assertEqual(codes(client.read()), [250] * 3)

    def test_content_sent_ahead_of_the_354(self) -> None:
        promises = Promises()
        handler = Recorder()
        handler.handle_RCPT = promises  # type: ignore[attr-defined]
        client = connect(handler)
        client.send(MESSAGE)
        client.send(b"NOOP\r\n")
        promises.made[0].callback("250 OK")
        self.assertEqual(codes(client.read()), [250, 354, 250, 250])
        self.assertEqual(handler.contents, [b"Subject: hi\r\n\r\nhello\r\n"])


EVENTS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 400)),
    st.tuples(
        st.just("answer"),
        st.sampled_from(["250 OK", "550 no", "450 later", "421 bye", None, KeyError(), SMTPReplyError(451)]),
    ),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 5.0, 61.0, 301.0])),
    st.tuples(st.just("block"), st.none()),
    st.tuples(st.just("free"), st.none()),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("drain"), st.none()),
)
WEIGHTED = st.one_of(
    EVENTS, st.tuples(st.just("send"), st.integers(1, 400)), st.tuples(st.just("answer"), st.just("250 OK"))
)


class EventsTests(SynchronousTestCase):
    """Any order of what a client, a network, a clock and hooks may do: nothing raises, and nothing stays."""

    commands = (MESSAGE + b"VRFY a\r\nFOO\r\nNOOP\r\nRSET\r\n" + b"x" * 20000 + b"\r\n") * 3 + b"QUIT\r\nNOOP\r\n"

    @settings(deadline=None, database=None, max_examples=400)
    @given(st.lists(WEIGHTED, max_size=60), st.booleans())
    def test_in_any_order(self, events: list[tuple[str, Any]], stubborn: bool) -> None:
        promises = Promises()
        waiting: list[Deferred[Any]] = []
        at_work: list[str] = []

        async def hook(server: SMTP, *arguments: Any) -> Any:
            name = server._verb
            self.assertEqual(at_work, [])
            at_work.append(name)
            try:
                while True:
                    waiting.append(promises())
                    try:
                        return await waiting[-1]
                    except CancelledError:
                        if not stubborn:
                            raise
            finally:
                at_work.pop()

        names = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "VRFY", "NOOP", "QUIT")
        factory = make_factory(hooks(**{f"handle_{name}": hook for name in names}), clock=Clock(), max_errors=5)
        client = join(factory)
        data = self.commands
        for event, value in events:
            if event == "send" and not client.closed and client.transport.producerState == "producing":
                client.protocol.dataReceived(data[:value])
                data = data[value:]
            elif event == "answer":
                pending = [promise for promise in promises.made if not promise.called]
                if pending and isinstance(value, Exception):
                    pending[0].errback(value)
                elif pending:
                    pending[0].callback(value)
            elif event == "wait":
                pass_time(client, value, 2.5)
            elif event == "block" and client.transport.producer is not None:
                client.transport.producer.pauseProducing()
            elif event == "free" and client.transport.producer is not None:
                client.transport.producer.resumeProducing()
            elif event == "finish" and not client.closed:
                client.finish_sending()
            elif event == "drain":
                factory.drain(30)
        said = codes(client.read())
        if 421 in said or 221 in said:
            self.assertIn(said[-1], (421, 221))
            self.assertTrue(client.closed or client.protocol._runner.coroutine is not None or client.protocol.paused)
        client.lose()
        for promise in promises.made:
            if not promise.called:
                promise.callback("250 OK")
        self.assertEqual(at_work, [])
        self.assertEqual(factory.connections.open, set())
        self.assertEqual(factory.connections.buffered, 0)
        factory.stopFactory()
        self.flushLoggedErrors(KeyError, BadStatus)
        self.assertEqual(self.flushLoggedErrors(), [])
