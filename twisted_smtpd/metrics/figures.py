"""What a server has done, as metrics for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_smtpd.interfaces import IMeasured
from twisted_smtpd.runtime.connections import Connections, Counts
from twisted_smtpd.runtime.histogram import Histogram

__all__ = ["Collect", "Metric", "Reading", "histogram", "snapshot", "total"]

log = Logger()

#: A name and a value for each label.
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """One metric.

    :ivar name: its name, without the ``_total`` of a counter.
    :ivar kind: ``"counter"``, ``"gauge"`` or ``"histogram"``.
    :ivar help: what it is.
    :ivar samples: for each value what follows the name (``"_total"``, ``"_bucket"``…), the labels, and the value.
    """

    name: str
    kind: str
    help: str
    samples: tuple[tuple[str, Labels, float], ...]

    @classmethod
    def gauge(cls, name: str, help: str, value: float) -> Metric:
        """A value that goes up and down."""
        return cls(name, "gauge", help, (("", {}, value),))

    def plain(self) -> list[Any]:
        """The metric in types of JSON, for :meth:`of_plain`."""
        return [self.name, self.kind, self.help, [[suffix, dict(labels), v] for suffix, labels, v in self.samples]]

    @classmethod
    def of_plain(cls, plain: list[Any]) -> Metric:
        """The opposite of :meth:`plain`."""
        name, kind, text, samples = plain
        return cls(name, kind, text, tuple((suffix, labels, value) for suffix, labels, value in samples))


def total(name: str, help: str, values: float | Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    """A counter.

    :param values: its value; or for each tuple of labels' values one.
    :param labels: the names of the labels.
    """
    several = values if isinstance(values, Mapping) else {(): values}
    samples = (("_total", dict(zip(labels, key, strict=True)), value) for key, value in several.items())
    return Metric(name, "counter", help, tuple(samples))


def histogram(name: str, help: str, values: Histogram) -> Metric:
    """A histogram."""
    *below, count = accumulate(values.counts)
    samples: list[tuple[str, Labels, float]] = [
        ("_bucket", {"le": str(bound)}, number) for bound, number in zip(values.bounds, below, strict=True)
    ]
    samples += [("_bucket", {"le": "+Inf"}, count), ("_sum", {}, values.sum), ("_count", {}, count)]
    return Metric(name, "histogram", help, tuple(samples))


@dataclass(frozen=True)
class Reading:
    """What one process says of itself.

    :ivar worker: its number, or ``None`` for a server that is one process.
    :ivar metrics: a :func:`snapshot`, or ``None`` from a worker that does not run, or did not answer.
    :ivar restarts: how often this worker was started anew.
    """

    worker: int | None
    metrics: list[Metric] | None
    restarts: int = 0


#: What the page asks when it is read.
Collect = Callable[[], "list[Reading] | Deferred[list[Reading]]"]


def snapshot(servers: Iterable[Connections], handlers: Iterable[object] = ()) -> list[Metric]:
    """What the servers of a process have done until now.

    :param servers: their connections; servers that share them count once.
    :param handlers: their handlers, which may have metrics of their own; a handler of several servers counts once.
    """
    different = list({id(connections): connections for connections in servers}.values())
    counts = [connections.counts for connections in different]
    metrics = [
        Metric.gauge("smtpd_connections", "Clients being served.", sum(len(one.open) for one in different)),
        Metric.gauge("smtpd_buffered_bytes", "Messages in memory.", sum(one.buffered for one in different)),
        *_of_counts(counts),
    ]
    for handler in {id(handler): handler for handler in handlers}.values():
        metrics += _of_handler(handler)
    return _without_doubles(metrics)


def _of_counts(counts: list[Counts]) -> Iterator[Metric]:
    def added(name: str) -> int:
        return sum(getattr(one, name) for one in counts)

    def merged(name: str) -> Counter[tuple[str, ...]]:
        parts: Counter[tuple[str, ...]] = Counter()
        for one in counts:
            parts.update(getattr(one, name))
        return parts

    took = Histogram()
    for one in counts:
        took.add(one.took)
    verdicts: dict[tuple[str, ...], float] = {
        (verdict,): added(verdict) for verdict in ("accepted", "deferred", "refused")
    }
    yield total("smtpd_connections_served", "Clients served.", added("connections"))
    yield total("smtpd_turned_away", "Clients that heard 421 for a greeting.", added("turned_away"))
    text = "Messages by their answer; over LMTP, answers for a recipient."
    yield total("smtpd_messages", text, verdicts, "verdict")
    yield total("smtpd_message_bytes", "Content of the messages that were answered.", added("octets"))
    yield total("smtpd_recipients", "Recipients of the messages that were accepted.", added("recipients"))
    yield histogram("smtpd_message_seconds", "From a message's last octet to its reply: the time of the hook.", took)
    text = "Replies that said no, by the command and the reply code."
    yield total("smtpd_refusals", text, merged("refusals"), "verb", "code")
    yield total("smtpd_client_errors", "Mistakes of clients.", added("errors"))
    yield total("smtpd_hook_failures", "Hooks that failed or took too long.", added("hook_failures"))
    yield total("smtpd_auth", "Attempts to sign in.", merged("auth"), "mechanism", "result")
    yield total("smtpd_tls", "TLS handshakes that succeeded.", merged("tls"), "version")
    yield total("smtpd_tls_failures", "TLS handshakes that failed.", added("tls_failures"))


def _of_handler(handler: object) -> list[Metric]:
    if not IMeasured.providedBy(handler):
        return []
    try:
        return list(handler.metrics())
    except Exception:
        # The other metrics must be seen all the more.
        log.failure("{handler} could not give its metrics", handler=handler)
        return []


def _without_doubles(metrics: Iterable[Metric]) -> list[Metric]:
    """Each name once: with two handlers of a kind, what both have done together."""
    merged: dict[str, Metric] = {}
    for metric in metrics:
        earlier = merged.get(metric.name)
        if earlier is None:
            merged[metric.name] = metric
            continue
        values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for suffix, labels, value in (*earlier.samples, *metric.samples):
            key = suffix, tuple(labels.items())
            values[key] = values.get(key, 0) + value
        samples = tuple((suffix, dict(labels), value) for (suffix, labels), value in values.items())
        merged[metric.name] = Metric(metric.name, metric.kind, metric.help, samples)
    return list(merged.values())
