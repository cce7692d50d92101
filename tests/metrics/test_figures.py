"""Tests for :mod:`twisted_smtpd.metrics`: what is counted, and the page."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.fakes import ENVELOPE, MESSAGE, answering, hooks, join, make_factory
from twisted_smtpd.handlers import Chain
from twisted_smtpd.interfaces import IMeasured
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.metrics.exposition import exposition
from twisted_smtpd.metrics.figures import Metric, Reading, histogram, snapshot, total
from twisted_smtpd.metrics.page import metrics_site, metrics_url
from twisted_smtpd.runtime.connections import Connections
from twisted_smtpd.runtime.histogram import Histogram
from twisted_smtpd.tap import Options, makeService


def raising(*arguments: Any) -> None:
    raise RuntimeError("broken")


def values(metrics: Iterable[Metric]) -> dict[str, float]:
    """Each value by its name on the page and the values of its labels, without the zeros and the buckets."""
    return {
        " ".join((f"{metric.name}{suffix}".removeprefix("smtpd_"), *labels.values())): value
        for metric in metrics
        for suffix, labels, value in metric.samples
        if value and suffix != "_bucket"
    }


class CountTests(SynchronousTestCase):
    def counts(self, data: bytes, hook: Callable[..., Any] | None = None, **options: Any) -> dict[str, float]:
        """What is counted after a client said this."""
        handler = hooks(handle_DATA=hook) if hook else hooks()
        self.clock = Clock()
        self.factory = make_factory(handler, clock=self.clock, **options)
        self.client = join(self.factory)
        self.client.send(data)
        return self.now()

    def now(self) -> dict[str, float]:
        return values(snapshot([self.factory.connections]))

    def test_a_message(self) -> None:
        content = len(b"Subject: hi\r\n\r\nhello\r\n")
        self.assertEqual(
            self.counts(MESSAGE),
            {
                "connections_served_total": 1,
                "connections": 1,
                "messages_total accepted": 1,
                "message_bytes_total": content,
                "message_seconds_count": 1,
                "recipients_total": 1,
            },
        )
        self.client.lose()
        self.assertNotIn("connections", self.now())

    def test_recipients(self) -> None:
        three = MESSAGE.replace(b"DATA", b"RCPT TO:<c@y.example>\r\nRCPT TO:<d@y.example>\r\nDATA")
        self.assertEqual(self.counts(three)["recipients_total"], 3)
        self.assertNotIn("recipients_total", self.counts(three, answering("550 No")))

    def test_the_time_of_the_hook(self) -> None:
        gate: Deferred[str] = Deferred()
        self.counts(MESSAGE, lambda *arguments: gate)
        self.clock.advance(7)
        gate.callback("250 OK")
        self.assertEqual(self.now()["message_seconds_sum"], 7)
        (metric,) = (one for one in snapshot([self.factory.connections]) if one.name == "smtpd_message_seconds")
        buckets = {labels["le"]: value for suffix, labels, value in metric.samples if suffix == "_bucket"}
        self.assertEqual((buckets["5.0"], buckets["10.0"], buckets["+Inf"]), (0, 1, 1))

    def test_verdicts(self) -> None:
        self.assertEqual(self.counts(MESSAGE, answering("452 Full"))["messages_total deferred"], 1)
        self.assertEqual(self.counts(MESSAGE, answering("550 No"))["messages_total refused"], 1)
        self.assertEqual(self.counts(MESSAGE, data_size_limit=3)["messages_total refused"], 1)

    def test_a_hook_that_fails_is_a_failure_and_a_deferred_message(self) -> None:
        for hook in (raising, answering(None), answering("nonsense")):
            counts = self.counts(MESSAGE, hook)
            self.flushLoggedErrors()
            self.assertEqual((counts["hook_failures_total"], counts["messages_total deferred"]), (1, 1), hook)
            self.assertNotIn("messages_total accepted", counts)

    def test_lmtp_counts_each_recipient(self) -> None:
        two = MESSAGE.replace(b"EHLO", b"LHLO").replace(b"DATA", b"RCPT TO:<c@y.example>\r\nDATA")
        counts = self.counts(two, answering(["250 OK", "550 No"]), protocol=LMTP)
        self.assertEqual((counts["messages_total accepted"], counts["messages_total refused"]), (1, 1))

    def test_mistakes(self) -> None:
        counts = self.counts(b"NONSENSE\r\nMAIL FROM:<>\r\n")
        self.assertEqual(counts["client_errors_total"], 2)
        self.assertEqual((counts["refusals_total ? 500"], counts["refusals_total MAIL 503"]), (1, 1))

    def test_an_answer_of_a_hook_is_no_mistake(self) -> None:
        self.factory = make_factory(hooks(handle_RCPT=answering("550 No such user")))
        self.assertIn(b"550 5.1.0 No such user", join(self.factory).send(ENVELOPE))
        self.assertNotIn("client_errors_total", self.now())
        self.assertEqual(self.now()["refusals_total RCPT 550"], 1)

    def test_a_client_can_not_add_names(self) -> None:
        before = len(self.counts(b"NONSENSE\r\nMAIL FROM:<>\r\n"))
        self.client.send(b"".join(b"X%d\r\n" % number for number in range(5)))
        self.assertEqual(len(self.now()), before)

    def test_clients_turned_away(self) -> None:
        self.counts(b"", max_connections=1)
        join(self.factory)
        self.assertEqual((self.now()["turned_away_total"], self.now()["connections_served_total"]), (1, 1))

    def test_memory(self) -> None:
        counts = self.counts(ENVELOPE + b"DATA\r\n" + b"x" * 70 + b"\r\n" + b"y" * 50)
        self.assertGreaterEqual(counts["buffered_bytes"], 70)

    def test_sign_ins(self) -> None:
        def know(mechanism: str, login: bytes, password: bytes) -> bool:
            return password == b"right"

        self.counts(b"EHLO x\r\n", auth_callback=know, auth_require_tls=False)
        for password in (b"wrong", b"wrong", b"right"):
            self.client.send(b"AUTH PLAIN " + b64encode(b"\0anne\0" + password) + b"\r\n")
            self.clock.advance(30)
        counts = self.now()
        self.assertEqual((counts["auth_total PLAIN failure"], counts["auth_total PLAIN success"]), (2, 1))


@implementer(IMeasured)
class Measured:
    """A handler with metrics of its own."""

    def __init__(self, *metrics: Metric) -> None:
        self.given = metrics

    def metrics(self) -> tuple[Metric, ...]:
        return self.given


@implementer(IMeasured)
class Broken:
    def metrics(self) -> tuple[Metric, ...]:
        raise RuntimeError("broken")


class HandlerTests(SynchronousTestCase):
    def test_a_handler_has_metrics(self) -> None:
        handler = Measured(Metric.gauge("queue_messages", "Messages in the queue.", 3))
        self.assertEqual(values(snapshot([], [handler, handler]))["queue_messages"], 3)

    def test_those_of_one_name_are_added(self) -> None:
        one, two = (Measured(total("sent", "Sent.", {("mx",): number, ("b",): 1}, "host")) for number in (1, 2))
        self.assertEqual(values(snapshot([], [one, two])), {"sent_total mx": 3, "sent_total b": 2})

    def test_one_that_fails_takes_nothing_else_away(self) -> None:
        handler = Measured(Metric.gauge("queue_messages", "Messages in the queue.", 3))
        self.assertEqual(values(snapshot([], [Broken(), handler])), {"queue_messages": 3})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_method_that_is_not_declared_is_left_alone(self) -> None:
        self.assertEqual(values(snapshot([], [hooks(metrics=raising)])), {})

    def test_a_chain_has_those_of_its_parts(self) -> None:
        chain = Chain(hooks(), Measured(Metric.gauge("queue_messages", "Messages in the queue.", 3)))
        self.assertEqual(values(snapshot([], [chain])), {"queue_messages": 3})
        self.assertFalse(IMeasured.providedBy(Chain(hooks())))

    def test_they_pass_through_json(self) -> None:
        metrics = snapshot([Connections(Clock())], [Measured(histogram("took", "Took.", Histogram((1.0,))))])
        plain = json.loads(json.dumps([metric.plain() for metric in metrics]))
        self.assertEqual([Metric.of_plain(one).plain() for one in plain], [metric.plain() for metric in metrics])
        self.assertEqual(values(map(Metric.of_plain, plain)), values(metrics))


def page_of(*readings: Reading, accepted: str = "") -> str:
    return exposition(readings, accepted)[1].decode()


class ExpositionTests(SynchronousTestCase):
    some: ClassVar[list[Metric]] = [total("smtpd_messages", "Messages.", {("accepted",): 3}, "verdict")]

    def test_the_format(self) -> None:
        metrics = snapshot([Connections(Clock())])
        for readings in ([Reading(None, metrics)], [Reading(1, metrics, 2), Reading(2, None)]):
            page = page_of(*readings)
            for line in page.splitlines():
                self.assertRegex(line, r'# (HELP|TYPE) \w+ .+|[a-z_]+(\{([a-z]+="[^"]+",?)+\})? [0-9.]+')
            names = re.findall(r"^# TYPE (\w+)", page, re.MULTILINE)
            self.assertEqual(len(names), len(set(names)))

    def test_prometheus_can_read_it(self) -> None:
        metrics = snapshot([Connections(Clock())])
        for accepted, parse in (("", text_string_to_metric_families), ("application/openmetrics-text", openmetrics)):
            page = page_of(Reading(1, metrics, 2), Reading(2, metrics), accepted=accepted)
            names = {family.name for family in parse(page)}
            self.assertEqual(names, {metric.name for metric in metrics} | {"smtpd_worker_up", "smtpd_worker_restarts"})

    def test_one_process_has_no_worker_label(self) -> None:
        page = page_of(Reading(None, self.some))
        self.assertIn('\nsmtpd_messages_total{verdict="accepted"} 3.0\n', page)
        self.assertNotIn("worker", page)

    def test_each_worker_has_its_own_values(self) -> None:
        page = page_of(Reading(1, self.some), Reading(2, None, 4))
        self.assertIn('smtpd_messages_total{verdict="accepted",worker="1"} 3.0\n', page)
        self.assertIn('smtpd_worker_up{worker="1"} 1.0\nsmtpd_worker_up{worker="2"} 0.0\n', page)
        self.assertIn('smtpd_worker_restarts_total{worker="2"} 4.0\n', page)
        self.assertNotIn('verdict="accepted",worker="2"', page)


class PageTests(SynchronousTestCase):
    reason = ""

    def get(self, collect: Callable[[], Any], path: bytes = b"/metrics") -> StringTransport:
        channel = metrics_site(collect, lambda: self.reason, Clock()).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.channel: Any = channel
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        return transport

    def test_the_page(self) -> None:
        said = self.get(lambda: [Reading(None, [Metric.gauge("smtpd_connections", "Clients.", 5)])]).value()
        self.assertTrue(said.startswith(b"HTTP/1.1 200 OK\r\n"), said)
        self.assertIn(b"\r\nContent-Type: text/plain; version=0.0.4", said)
        self.assertIn(b"\nsmtpd_connections 5.0\n", said)

    def test_nothing_else_is_there(self) -> None:
        for path in (b"/", b"/metrics/", b"/metrics/x", b"/other", b"/health"):
            self.assertIn(b" 404 ", self.get(lambda: [], path).value())

    def test_whether_it_is_ready(self) -> None:
        said = self.get(raising, b"/readyz").value()
        self.assertTrue(said.startswith(b"HTTP/1.1 200 OK\r\n"), said)
        self.assertTrue(said.endswith(b"\r\n\r\nok\n"), said)
        self.reason = "stopping"
        said = self.get(raising, b"/readyz").value()
        self.assertTrue(said.startswith(b"HTTP/1.1 503 "), said)
        self.assertTrue(said.endswith(b"\r\n\r\nstopping\n"), said)
        self.assertTrue(self.get(raising, b"/healthz").value().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_a_failure_is_logged_and_says_nothing(self) -> None:
        said = self.get(lambda: raising()).value()
        self.assertTrue(said.startswith(b"HTTP/1.1 500 "), said)
        self.assertNotIn(b"broken", said)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_it_waits_for_workers(self) -> None:
        answer: Deferred[list[Reading]] = Deferred()
        transport = self.get(lambda: answer)
        self.assertEqual(transport.value(), b"")
        answer.callback([Reading(1, [])])
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
