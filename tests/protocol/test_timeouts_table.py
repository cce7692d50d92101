"""The table of time limits, row by row: how a connection gets there, and what happens when each limit is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, MESSAGE, Client, Promises, clock_of, connect, hooks, last_line, stubborn
from twisted_smtpd.protocol.timeouts import SITUATIONS, Situation

TOO_LONG = "421 4.4.2 Connection was open for too long, closing it"
IDLE = "421 4.4.2 Idle for too long, closing the connection"
STUCK = "421 4.3.0 Processing took too long, try again later"
HOOK = "451 4.3.0 Processing took too long, try again later"


def waiting_for_a_step(**options: Any) -> Client:
    return connect(proxy_from=["192.0.2.1"], **{"proxy_protocol_timeout": 20, **options})


def gone_and_cancelled(**options: Any) -> Client:
    client = gone(**options)
    clock_of(client).advance(20)
    return client


def gone(**options: Any) -> Client:
    client = connect(hooks(handle_DATA=stubborn(Promises())), **options)
    client.send(MESSAGE)
    client.lose()
    return client


def closing(**options: Any) -> Client:
    client = connect(**options)
    client.send(b"QUIT\r\n")
    return client


def not_reading(**options: Any) -> Client:
    client = connect(**options)
    client.transport.room = 0
    client.protocol.dataReceived(b"NOOP\r\n")
    client.protocol._output.pauseProducing()
    client.read()
    return client


def cancelled(**options: Any) -> Client:
    client = at_work(**options)
    clock_of(client).advance(20)
    return client


def at_work(**options: Any) -> Client:
    client = connect(hooks(handle_NOOP=stubborn(Promises())), **options)
    client.send(b"NOOP\r\n")
    return client


def ending_at_work(**options: Any) -> Client:
    client = connect(hooks(handle_NOOP=Promises()), **options)
    client.send(b"NOOP\r\n")
    return client


def stream_full(**options: Any) -> Client:
    client = connect(hooks(handle_DATA_STREAM=Promises()), **{"timeout": 1000, **options})
    client.send(ENVELOPE + b"DATA\r\n")
    while client.transport.producerState == "producing":
        client.protocol.dataReceived(b"x" * 998 + b"\r\n")
    return client


def message_arriving(**options: Any) -> Client:
    client = connect(**options)
    client.send(ENVELOPE + b"DATA\r\n")
    return client


def idle(**options: Any) -> Client:
    return connect(**options)


# Situation, limit: how a connection gets there, the options, after how many seconds the limit is over, what is said,
# and whether the connection is then "open", "closed", "aborted" or "forgotten".
ROWS: dict[tuple[str, str], tuple[Callable[..., Client], dict[str, float], float, str, str]] = {
    (
        "waits for a step before SMTP (PROXY header, TLS handshake)",
        "handshake_timeout or proxy_protocol_timeout",
    ): (waiting_for_a_step, {}, 20, "", "aborted"),
    ("the client has gone; a hook that was cancelled goes on", "hook_timeout and 10 s"): (
        *(gone_and_cancelled, {"hook_timeout": 20}, 10, "", "forgotten"),
    ),
    ("the client has gone; a hook has its message", "hook_timeout"): (gone, {"hook_timeout": 20}, 20, "", "open"),
    ("is closing", "10 s"): (closing, {}, 10, "", "aborted"),
    ("the client does not read its replies", "timeout"): (not_reading, {"timeout": 20}, 20, "", "aborted"),
    ("the client does not read its replies", "session_timeout"): (
        *(not_reading, {"session_timeout": 20}, 20, "", "aborted"),
    ),
    ("a hook that was cancelled goes on", "session_timeout"): (
        *(cancelled, {"hook_timeout": 20, "session_timeout": 25}, 10, STUCK, "closed"),
    ),
    ("a hook that was cancelled goes on", "hook_timeout and 10 s"): (
        *(cancelled, {"hook_timeout": 20}, 10, STUCK, "closed"),
    ),
    ("a hook is at work", "session_timeout"): (
        *(ending_at_work, {"hook_timeout": 30, "session_timeout": 20}, 30, TOO_LONG, "closed"),
    ),
    ("a hook is at work", "hook_timeout"): (ending_at_work, {"hook_timeout": 20}, 20, HOOK, "open"),
    ("a hook does not read its stream", "hook_timeout"): (stream_full, {"hook_timeout": 20}, 20, "", "open"),
    ("a hook does not read its stream", "session_timeout"): (
        *(stream_full, {"session_timeout": 20}, 20, TOO_LONG, "closed"),
    ),
    ("a message arrives", "timeout"): (message_arriving, {"timeout": 20}, 20, IDLE, "closed"),
    ("a message arrives", "session_timeout"): (message_arriving, {"session_timeout": 20}, 20, TOO_LONG, "closed"),
    ("a message arrives", "min_data_rate"): (
        *(message_arriving, {}, 60, "421 4.4.2 Too slow, closing the connection", "closed"),
    ),
    ("waits for the client", "timeout"): (idle, {"timeout": 20}, 20, IDLE, "closed"),
    ("waits for the client", "session_timeout"): (idle, {"session_timeout": 20}, 20, TOO_LONG, "closed"),
}


def situation_of(client: Client) -> Situation:
    return next(row for row in SITUATIONS if row.applies(client.protocol._timeouts))


def state(client: Client) -> str:
    if client.aborted:
        return "aborted"
    if client.protocol not in client.protocol.connections.open:
        return "forgotten"
    return "closed" if client.closed else "open"


class TableTests(SynchronousTestCase):
    def test_each_limit_of_each_situation_has_a_row_here(self) -> None:
        limits = {(situation.name, limit.name) for situation in SITUATIONS for limit in situation.limits}
        self.assertEqual(set(ROWS), limits)
        self.assertEqual(len({situation.name for situation in SITUATIONS}), len(SITUATIONS))

    def test_a_connection_gets_there(self) -> None:
        for (name, _), (reach, options, *_) in ROWS.items():
            self.assertEqual(situation_of(reach(**options)).name, name)

    def test_nothing_happens_before_the_time(self) -> None:
        for (name, limit), (reach, options, seconds, *_) in ROWS.items():
            client = reach(**options)
            before = state(client)
            clock_of(client).pump([0.5] * round(seconds / 0.5 - 1))
            self.assertEqual((client.read(), state(client)), (b"", before), (name, limit))

    def test_and_then_it_does(self) -> None:
        for (name, limit), (reach, options, seconds, said, end) in ROWS.items():
            client = reach(**options)
            # The timers look once in a 64th of the shortest limit.
            clock_of(client).pump([0.5] * round(seconds / 0.5 + 4))
            self.assertEqual((last_line(client.read()), state(client)), (said, end), (name, limit))

    def test_the_timers_come_back_for_the_limit(self) -> None:
        """A visit says when the next limit is over; never later than it is."""
        for (name, limit), (reach, options, seconds, *_) in ROWS.items():
            client = reach(**options)
            now = clock_of(client).seconds()
            following = client.protocol._timeouts.visit(now)
            self.assertGreater(following, now, (name, limit))
            self.assertLessEqual(following, now + seconds, (name, limit))

    def test_nothing_is_left(self) -> None:
        for reach, options, *_ in ROWS.values():
            client = reach(**options)
            if client.transport.connected:
                client.lose()
            clock_of(client).pump([5.0] * 300)
            self.assertEqual(clock_of(client).getDelayedCalls(), [])
            self.assertEqual(client.protocol.connections.open, set())
