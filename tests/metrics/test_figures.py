"""Tests for :mod:`twisted_smtpd.metrics.figures` and :mod:`twisted_smtpd.metrics.page`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, MESSAGE, answering, hooks, join, make_factory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.metrics.figures import METRICS, Reading, exposition, snapshot
from twisted_smtpd.metrics.page import metrics_site, metrics_url
from twisted_smtpd.runtime.connections import Connections
from twisted_smtpd.tap import Options, makeService


def raising(*arguments: Any) -> None:
    raise RuntimeError("broken")


class CountTests(SynchronousTestCase):
    def counts(self, data: bytes, hook: Callable[..., Any] | None = None, **options: Any) -> dict[str, int]:
        """What is counted after a client said this; without the zeros."""
        handler = hooks(handle_DATA=hook) if hook else hooks()
        self.factory = make_factory(handler, **options)
        self.client = join(self.factory)
        self.client.send(data)
        return {key: value for key, value in snapshot(self.factory.connections).items() if value}

    def test_a_message(self) -> None:
        content = len(b"Subject: hi\r\n\r\nhello\r\n")
        self.assertEqual(self.counts(MESSAGE), {"connections": 1, "open": 1, "accepted": 1, "octets": content})
        self.client.lose()
        self.assertEqual(snapshot(self.factory.connections)["open"], 0)

    def test_verdicts(self) -> None:
        self.assertEqual(self.counts(MESSAGE, answering("452 Full"))["deferred"], 1)
        self.assertEqual(self.counts(MESSAGE, answering("550 No"))["refused"], 1)
        self.assertEqual(self.counts(MESSAGE, data_size_limit=3)["refused"], 1)

    def test_a_hook_that_fails_is_a_failure_and_a_deferred_message(self) -> None:
        for hook in (raising, answering(None), answering("nonsense")):
            counts = self.counts(MESSAGE, hook)
            self.flushLoggedErrors()
            self.assertEqual((counts["hook_failures"], counts["deferred"]), (1, 1), hook)
            self.assertNotIn("accepted", counts)

    def test_lmtp_counts_each_recipient(self) -> None:
        two = MESSAGE.replace(b"EHLO", b"LHLO").replace(b"DATA", b"RCPT TO:<c@y.example>\r\nDATA")
        counts = self.counts(two, answering(["250 OK", "550 No"]), protocol=LMTP)
        self.assertEqual((counts["accepted"], counts["refused"]), (1, 1))

    def test_mistakes(self) -> None:
        self.assertEqual(self.counts(b"NONSENSE\r\nMAIL FROM:<>\r\n")["errors"], 2)

    def test_an_answer_of_a_hook_is_no_mistake(self) -> None:
        factory = make_factory(hooks(handle_RCPT=answering("550 No such user")))
        self.assertIn(b"550 5.1.0 No such user", join(factory).send(ENVELOPE))
        self.assertEqual(factory.connections.counts.errors, 0)

    def test_clients_turned_away(self) -> None:
        self.counts(b"", max_connections=1)
        join(self.factory)
        self.assertEqual(
            (snapshot(self.factory.connections)["turned_away"], self.factory.connections.counts.connections), (1, 1)
        )

    def test_memory(self) -> None:
        counts = self.counts(ENVELOPE + b"DATA\r\n" + b"x" * 70 + b"\r\n" + b"y" * 50)
        self.assertGreaterEqual(counts["buffered"], 70)


class ExpositionTests(SynchronousTestCase):
    def test_every_count_is_on_the_page(self) -> None:
        shown = {key for metric in METRICS for key in metric.values.values()}
        self.assertEqual(shown, set(snapshot(Connections(Clock()))))

    def test_the_format(self) -> None:
        values = dict.fromkeys(snapshot(Connections(Clock())), 7)
        for page in (exposition([Reading(None, values)]), exposition([Reading(1, values, 2), Reading(2, None)])):
            self.assertTrue(page.endswith("\n"))
            for line in page.splitlines():
                self.assertRegex(line, r'# (HELP|TYPE) \w+ .+|[a-z_]+(\{([a-z]+="\w+",?)+\})? [0-9]+')
            names = re.findall(r"^# TYPE (\w+)", page, re.MULTILINE)
            self.assertEqual(len(names), len(set(names)))

    def test_one_process_has_no_worker_label(self) -> None:
        page = exposition([Reading(None, {"accepted": 3})])
        self.assertIn('\nsmtpd_messages_total{verdict="accepted"} 3\n', page)
        self.assertNotIn("worker", page)

    def test_each_worker_has_its_own_values(self) -> None:
        page = exposition([Reading(1, {"accepted": 3}), Reading(2, None, 4)])
        self.assertIn('smtpd_messages_total{worker="1",verdict="accepted"} 3\n', page)
        self.assertIn('smtpd_worker_up{worker="1"} 1\nsmtpd_worker_up{worker="2"} 0\n', page)
        self.assertIn('smtpd_worker_restarts_total{worker="2"} 4\n', page)
        self.assertNotIn('smtpd_connections{worker="2"}', page)


class PageTests(SynchronousTestCase):
    def get(self, collect: Callable[[], Any], path: bytes = b"/metrics") -> StringTransport:
        channel = metrics_site(collect, Clock()).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.channel: Any = channel
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        return transport

    def test_the_page(self) -> None:
        said = self.get(lambda: [Reading(None, {"open": 5})]).value()
        self.assertTrue(said.startswith(b"HTTP/1.1 200 OK\r\n"), said)
        self.assertIn(b"\r\nContent-Type: text/plain; version=0.0.4", said)
        self.assertIn(b"\nsmtpd_connections 5\n", said)

    def test_nothing_else_is_there(self) -> None:
        for path in (b"/", b"/metrics/", b"/metrics/x", b"/other"):
            self.assertIn(b" 404 ", self.get(lambda: [], path).value())

    def test_a_failure_is_logged_and_says_nothing(self) -> None:
        said = self.get(lambda: raising()).value()
        self.assertTrue(said.startswith(b"HTTP/1.1 500 "), said)
        self.assertNotIn(b"broken", said)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_it_waits_for_workers(self) -> None:
        answer: Deferred[list[Reading]] = Deferred()
        transport = self.get(lambda: answer)
        self.assertEqual(transport.value(), b"")
        answer.callback([Reading(1, {})])
        self.assertIn(b"smtpd_worker_up", transport.value())

    def test_a_reader_that_goes_ends_the_asking(self) -> None:
        cancelled: list[Any] = []
        answer: Deferred[list[Reading]] = Deferred(cancelled.append)
        self.get(lambda: answer)
        self.channel.connectionLost(Failure(ConnectionError()))
        self.assertEqual(cancelled, [answer])

    def test_where_it_is(self) -> None:
        self.assertEqual(metrics_url(IPv4Address("TCP", "127.0.0.1", 9)), "http://127.0.0.1:9/metrics")
        self.assertEqual(metrics_url(IPv6Address("TCP", "::1", 9)), "http://[::1]:9/metrics")
        self.assertIn("/run/m", metrics_url(UNIXAddress("/run/m")))


class CommandLineTests(SynchronousTestCase):
    def test_only_on_request_and_on_the_loopback(self) -> None:
        for words, ports in (((), []), (("--metrics=9000",), [("127.0.0.1", 9000), ("::1", 9000)])):
            options = Options(MemoryReactorClock())
            options.parseOptions(("-c", "sink", "-l", "192.0.2.1:25", *words))
            service: Any = makeService(options)
            service.startService()
            self.assertEqual([(s[3], s[0]) for s in options.reactor.tcpServers], [("192.0.2.1", 25), *ports])
            self.successResultOf(service.stopService())
