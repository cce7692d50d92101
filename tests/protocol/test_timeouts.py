"""Every wait has an end: idle clients, long sessions, slow uploads, slow hooks, and the last reply."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    ENVELOPE,
    MESSAGE,
    Client,
    Promises,
    Recorder,
    answering,
    clock_of,
    codes,
    connect,
    hooks,
    join,
    last_line,
    make_factory,
    pass_time,
    stubborn,
)
from twisted_smtpd.assemble import RATE_WINDOW
from twisted_smtpd.protocol.timeouts import CLOSING_TIME


class IdleTests(SynchronousTestCase):
    def test_a_silent_client_hears_421_first(self) -> None:
        client = connect(timeout=100)
        pass_time(client, 99)
        self.assertFalse(client.closed)
        pass_time(client, 3)
        self.assertEqual(client.read(), b"421 4.4.2 Idle for too long, closing the connection\r\n")
        self.assertTrue(client.closed)
        self.assertFalse(client.aborted)

    def test_each_octet_puts_it_off(self) -> None:
        client = connect(timeout=100)
        for _ in range(10):
            pass_time(client, 90)
            client.send(b"x")
        self.assertFalse(client.closed)

    def test_a_client_that_says_nothing_at_all(self) -> None:
        client = connect(timeout=10)
        pass_time(client, 11)
        self.assertTrue(client.closed)

    def test_in_the_middle_of_a_message(self) -> None:
        """Nothing of it is handed on, nor kept."""
        handler = Recorder()
        client = connect(handler, timeout=10)
        client.send(MESSAGE[:-3])
        pass_time(client, 11)
        self.assertEqual(codes(client.read()), [421])
        self.assertTrue(client.closed)
        client.lose()
        self.assertEqual((handler.envelopes, client.protocol.connections.buffered), ([], 0))

    def test_a_hook_at_work_is_not_idleness(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_NOOP=promises), timeout=10)
        client.send(b"NOOP\r\n")
        pass_time(client, 65)
        self.assertFalse(client.closed)
        promises.made[0].callback("250 OK")
        self.assertEqual(codes(client.read()), [250])
        # The timers look every 10 seconds at least, so they do at 70 and at 80.
        pass_time(client, 9)
        self.assertFalse(client.closed)
        pass_time(client, 7)
        self.assertTrue(client.closed)

    def test_no_timer_is_left_behind(self) -> None:
        client = connect(timeout=10)
        client.lose()
        pass_time(client, 11)
        self.assertEqual(clock_of(client).getDelayedCalls(), [])


class SessionTimeoutTests(SynchronousTestCase):
    def test_a_client_that_never_stops_talking(self) -> None:
        client = connect(session_timeout=100)
        for _ in range(99):
            pass_time(client, 1)
            client.send(b"NOOP\r\n")
        self.assertFalse(client.closed)
        pass_time(client, 3)
        self.assertEqual(client.read(), b"421 4.4.2 Connection was open for too long, closing it\r\n")
        self.assertTrue(client.closed)

    def test_a_client_that_reads_a_little_now_and_then(self) -> None:
        client = connect(session_timeout=100, timeout=50)
        client.send(b"NOOP\r\n")
        for _ in range(20):
            if not client.aborted:
                client.protocol._output.resumeProducing()
                client.protocol._output.pauseProducing()
                pass_time(client, 10)
        self.assertTrue(client.aborted)

    def test_a_hook_that_ends_with_the_session_is_answered_for(self) -> None:
        """And nothing that was sent ahead is run."""
        client = connect(hooks(handle_NOOP=Promises()), hook_timeout=100, session_timeout=50)
        client.send(b"NOOP\r\nRSET\r\n")
        clock_of(client).advance(101)
        self.assertEqual(codes(client.read()), [451, 421])
        self.assertTrue(client.closed)


class RateTests(SynchronousTestCase):
    """min_data_rate: slowloris; over a window, so that an upload with a pause goes on."""

    def upload(self, octets_per_second: int, seconds: int, **options: Any) -> Client:
        client = connect(timeout=1000, **options)
        client.send(ENVELOPE + b"DATA\r\n")
        for _ in range(seconds):
            client.send(b"x" * octets_per_second)
            pass_time(client, 1)
        return client

    def test_at_the_limit(self) -> None:
        self.assertFalse(self.upload(100, 200, line_length_limit=0).closed)

    def test_below_the_limit(self) -> None:
        self.assertTrue(self.upload(98, 70).closed)
        client = self.upload(98, 59)
        pass_time(client, 3)
        self.assertEqual(client.read(), b"421 4.4.2 Too slow, closing the connection\r\n")

    def test_a_pause_within_the_window(self) -> None:
        client = connect(timeout=1000)
        client.send(ENVELOPE + b"DATA\r\n")
        pass_time(client, RATE_WINDOW - 2)
        client.send(b"x" * 6000)
        pass_time(client, RATE_WINDOW - 10)
        self.assertFalse(client.closed)

    def test_a_fast_start_does_not_pay_for_a_slow_rest(self) -> None:
        client = connect(timeout=1000)
        client.send(ENVELOPE + b"DATA\r\n" + b"x" * 100000)
        pass_time(client, 2 * RATE_WINDOW + 5)
        self.assertTrue(client.closed)

    def test_0_is_no_limit(self) -> None:
        self.assertFalse(self.upload(1, 200, min_data_rate=0).closed)

    def test_commands_are_not_measured(self) -> None:
        client = connect(timeout=1000)
        pass_time(client, 500)
        self.assertFalse(client.closed)


class HookTimeoutTests(SynchronousTestCase):
    def test_a_hook_that_takes_too_long_is_cancelled_and_451(self) -> None:
        for name, command in (("handle_NOOP", b"NOOP\r\n"), ("handle_DATA", MESSAGE)):
            promises = Promises()
            client = connect(hooks(**{name: promises}), hook_timeout=100)
            client.send(command)
            pass_time(client, 99)
            self.assertEqual(promises.cancelled, [])
            pass_time(client, 3)
            self.assertEqual(promises.cancelled, promises.made)
            self.assertEqual(last_line(client.read()), "451 4.3.0 Processing took too long, try again later")
            self.assertEqual(codes(client.send(b"RSET\r\n")), [250])
            self.assertFalse(client.closed)

    def test_the_hook_after_one_that_took_too_long_is_cancelled_when_its_client_goes(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_NOOP=promises), hook_timeout=100)
        client.send(b"NOOP\r\n")
        pass_time(client, 102)
        client.send(b"NOOP\r\n")
        client.lose()
        self.assertEqual(promises.cancelled, promises.made)
        self.assertEqual(len(promises.made), 2)

    def test_the_time_is_the_hooks_not_each_waits(self) -> None:
        clock = Clock()

        async def hook(*arguments: Any) -> str:
            for _ in range(100):
                await deferLater(clock, 10)
            return "250 OK"

        client = connect(hooks(handle_NOOP=hook), hook_timeout=100, clock=clock)
        client.send(b"NOOP\r\n")
        pass_time(client, 105)
        self.assertEqual(codes(client.read()), [451])

    def test_each_hook_has_its_own_time(self) -> None:
        clock = Clock()
        client = connect(
            hooks(handle_NOOP=lambda *arguments: deferLater(clock, 60, lambda: "250 OK")), hook_timeout=100, clock=clock
        )
        client.send(b"NOOP\r\nNOOP\r\nNOOP\r\n")
        pass_time(client, 185)
        self.assertEqual(codes(client.read()), [250, 250, 250])

    def test_a_long_upload_is_no_part_of_the_hooks_time(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_DATA=promises), hook_timeout=100, min_data_rate=0, timeout=1000)
        client.send(MESSAGE[:-5])
        pass_time(client, 200)
        client.send(MESSAGE[-5:])
        pass_time(client, 90)
        self.assertEqual(promises.cancelled, [])
        pass_time(client, 15)
        self.assertEqual(promises.cancelled, promises.made)

    def test_a_hook_that_answers_when_cancelled(self) -> None:
        """It made up its mind; and the next one is timed as if nothing had been."""
        promises = Promises()

        async def hook(*arguments: Any) -> str:
            try:
                return str(await promises())
            except CancelledError:
                return "450 busy"

        client = connect(hooks(handle_NOOP=hook), hook_timeout=100)
        for _ in range(2):
            client.send(b"NOOP\r\n")
            pass_time(client, 102)
            self.assertEqual(last_line(client.read()), "450 4.2.0 busy")
            pass_time(client, 50)
            self.assertFalse(client.closed)

    def test_a_hook_may_clean_up_when_cancelled(self) -> None:
        promises = Promises()

        async def hook(*arguments: Any) -> str:
            try:
                return str(await promises())
            finally:
                await promises()

        client = connect(hooks(handle_NOOP=hook), hook_timeout=100)
        client.send(b"NOOP\r\n")
        pass_time(client, 102)
        self.assertEqual(promises.cancelled, promises.made[:1])
        promises.made[1].callback(None)
        self.assertEqual(codes(client.read()), [451])
        self.assertFalse(client.closed)

    def test_a_hook_that_ignores_cancellation(self) -> None:
        promises = Promises()

        client = connect(hooks(handle_NOOP=stubborn(promises)), hook_timeout=100)
        client.send(b"NOOP\r\nRSET\r\n")
        pass_time(client, 102 + CLOSING_TIME)
        self.assertEqual(codes(client.read()), [421])
        self.assertTrue(client.closed)
        client.lose()
        self.assertEqual(len(promises.made), 2)
        promises.made[-1].callback("250 OK")
        self.assertEqual(client.read(), b"")

    def test_what_it_was_for_does_not_matter_once_it_has_ended(self) -> None:
        client = connect(hooks(handle_NOOP=answering("250 OK")), hook_timeout=1)
        client.send(b"NOOP\r\n")
        pass_time(client, 50)
        self.assertFalse(client.closed)


class ClosingTests(SynchronousTestCase):
    def test_a_client_that_does_not_take_its_last_reply(self) -> None:
        client = connect()
        client.send(b"QUIT\r\n")
        pass_time(client, CLOSING_TIME - 1)
        self.assertFalse(client.aborted)
        pass_time(client, 3)
        self.assertTrue(client.aborted)

    def test_nothing_is_read_or_said_after_the_end(self) -> None:
        handler = Recorder()
        client = connect(handler)
        client.send(b"QUIT\r\n")
        client.protocol.dataReceived(MESSAGE)
        self.assertEqual((client.read(), handler.envelopes), (b"", []))
        client.protocol.hang_up("421 x")
        client.protocol.close()
        self.assertEqual(client.read(), b"")

    def test_the_end_while_a_hook_is_at_work(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_NOOP=promises))
        client.send(b"NOOP\r\n")
        client.protocol.hang_up("421 x")
        promises.made[0].callback("250 OK")
        self.assertEqual(codes(client.read()), [421])

    def test_abort_after_the_end_does_nothing(self) -> None:
        client = connect()
        client.lose()
        client.protocol.abort()
        client.protocol.close()
        self.assertFalse(client.aborted)


class PrecisionTests(SynchronousTestCase):
    def test_deadlines_are_met_within_a_part_of_the_shortest_limit(self) -> None:
        for offset in (0, 0.1, 7, 33, 59):
            client = connect(timeout=64)
            pass_time(client, offset, 0.1)
            client.send(b"NOOP\r\n")
            sent = clock_of(client).seconds()
            while not client.closed:
                clock_of(client).advance(0.1)
            self.assertGreaterEqual(clock_of(client).seconds() - sent, 63.9)
            self.assertLessEqual(clock_of(client).seconds() - sent, 64 + 2)


class LimitTests(SynchronousTestCase):
    def test_clients_that_hang_up_after_data_still_count(self) -> None:
        promises = Promises()
        factory = make_factory(hooks(handle_DATA=promises), max_connections_per_address=2, hook_timeout=10)
        for _ in range(5):
            client = join(factory)
            client.send(MESSAGE)
            client.lose()
        self.assertEqual(len(promises.made), 2)
        self.assertEqual(len(factory.connections.open), 2)
        promises.made[0].callback("250 OK")
        self.assertEqual(len(factory.connections.open), 1)
        self.assertEqual(promises.cancelled, [])
        pass_time(client, 60)
        self.assertEqual(promises.cancelled, [promises.made[1]])
        self.assertEqual(factory.connections.open, set())
        self.assertEqual(factory.connections.timers.clock.getDelayedCalls(), [])

    def test_draining_waits_for_the_hook_of_a_client_that_is_gone(self) -> None:
        promises = Promises()
        factory = make_factory(hooks(handle_DATA=promises))
        client = join(factory)
        client.send(MESSAGE)
        client.lose()
        drained = factory.drain(10)
        self.assertNoResult(drained)
        promises.made[0].callback("250 OK")
        self.successResultOf(drained)

    def test_draining_ends_with_the_grace_period_all_the_same(self) -> None:
        factory = make_factory(hooks(handle_DATA=Promises()))
        client = join(factory)
        client.send(MESSAGE)
        client.lose()
        drained = factory.drain(10)
        pass_time(client, 11)
        self.successResultOf(drained)

    def test_a_session_that_hooks_keep_busy_ends_in_time(self) -> None:
        clock = Clock()
        slow = hooks(handle_NOOP=lambda *arguments: deferLater(clock, 7, lambda: "250 OK"))
        client = connect(slow, session_timeout=600, clock=clock)
        for _ in range(700):
            if client.closed:
                break
            client.protocol.dataReceived(b"NOOP\r\n")
            pass_time(client, 1)
        self.assertTrue(client.closed)
        self.assertLess(clock.seconds(), 620)
        self.assertTrue(client.read().endswith(b"421 4.4.2 Connection was open for too long, closing it\r\n"))

    def test_dripping_octets_do_not_prolong_a_hook_that_does_not_read(self) -> None:
        client = connect(hooks(handle_DATA_STREAM=Promises()), hook_timeout=100, session_timeout=10**6, timeout=50)
        client.send(ENVELOPE + b"DATA\r\n" + (b"x" * 98 + b"\r\n") * 4000)
        for _ in range(3):
            client.protocol.dataReceived(b"x")
            pass_time(client, 40)
        client.protocol.dataReceived(b"\r\n.\r\n")
        self.assertEqual(codes(client.read())[-1], 451)

    def test_one_deferred_that_cannot_be_cancelled_stops_no_clock_but_its_own(self) -> None:
        def refuse(promise: Deferred[Any]) -> None:
            raise RuntimeError("no")

        factory = make_factory(hooks(handle_NOOP=Promises(refuse)), hook_timeout=20, timeout=300)
        stuck, idle = join(factory), join(factory)
        stuck.send(b"NOOP\r\n")
        pass_time(idle, 400)
        self.assertTrue(stuck.closed)
        self.assertTrue(idle.closed)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_time_a_client_does_not_read_is_charged_to_nobody(self) -> None:
        client = connect(timeout=300)
        client.transport.room = 10
        client.send(b"NOOP\r\nNOOP\r\n")
        client.send(b"NOOP\r\n")
        pass_time(client, 290)
        client.transport.room = None
        client.transport.producer.resumeProducing()
        pass_time(client, 250)
        self.assertFalse(client.closed)
