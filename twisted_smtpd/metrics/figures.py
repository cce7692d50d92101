"""What a server has done, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from twisted.internet.defer import Deferred

from twisted_smtpd.runtime.connections import Connections

__all__ = ["Collect", "Metric", "Reading", "exposition", "snapshot"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    :ivar name: its name on the page.
    :ivar kind: ``"counter"`` or ``"gauge"``.
    :ivar help: what it is.
    :ivar values: for each label (``""`` for none) the key of its value in a :func:`snapshot`.
    """

    name: str
    kind: str
    help: str
    values: Mapping[str, str]


METRICS = (
    Metric("smtpd_connections", "gauge", "Clients being served.", {"": "open"}),
    Metric("smtpd_buffered_octets", "gauge", "Octets of messages in memory.", {"": "buffered"}),
    Metric("smtpd_connections_total", "counter", "Clients served.", {"": "connections"}),
    Metric("smtpd_turned_away_total", "counter", "Clients that heard 421 for a greeting.", {"": "turned_away"}),
    Metric(
        "smtpd_messages_total",
        "counter",
        "Messages by their answer; over LMTP, answers for a recipient.",
        {f'verdict="{verdict}"': verdict for verdict in ("accepted", "deferred", "refused")},
    ),
    Metric("smtpd_message_octets_total", "counter", "Content of the messages that were answered.", {"": "octets"}),
    Metric("smtpd_client_errors_total", "counter", "Mistakes of clients.", {"": "errors"}),
    Metric("smtpd_hook_failures_total", "counter", "Hooks that failed or took too long.", {"": "hook_failures"}),
)


@dataclass(frozen=True)
class Reading:
    """What one process says of itself.

    :ivar worker: its number, or ``None`` for a server that is one process.
    :ivar values: a :func:`snapshot`, or ``None`` from a worker that does not run, or did not answer.
    :ivar restarts: how often this worker was started anew.
    """

    worker: int | None
    values: Mapping[str, int] | None
    restarts: int = 0


#: What the page asks when it is read.
Collect = Callable[[], "list[Reading] | Deferred[list[Reading]]"]


def snapshot(*servers: Connections) -> dict[str, int]:
    """What the servers of a process have done until now.

    :param servers: their connections; servers that share them count once.
    :returns: the fields of :class:`twisted_smtpd.runtime.connections.Counts`; ``open``, the connections there are;
        ``buffered``, as in :class:`twisted_smtpd.runtime.connections.Connections`.
    """
    sums: Counter[str] = Counter()
    for one in {id(connections): connections for connections in servers}.values():
        sums.update({**asdict(one.counts), "open": len(one.open), "buffered": one.buffered})
    return dict(sums)


def exposition(readings: Iterable[Reading]) -> str:
    """The page.

    With workers, each value has the label ``worker``: a worker that is started anew counts from 0 again, which a
    scraper can tell from a sum that fell only if it sees the parts.

    :param readings: of each process.
    """
    readings = list(readings)
    return "".join(f"{line}\n" for line in _lines(readings))


def _lines(readings: list[Reading]) -> Iterator[str]:
    for metric in METRICS:
        yield from _head(metric.name, metric.kind, metric.help)
        for reading in readings:
            if reading.values is not None:
                for label, key in metric.values.items():
                    yield f"{metric.name}{_labels(reading, label)} {reading.values.get(key, 0)}"
    supervisor = [reading for reading in readings if reading.worker is not None]
    if supervisor:
        yield from _head("smtpd_worker_up", "gauge", "Whether this worker runs and answers.")
        for reading in supervisor:
            yield f"smtpd_worker_up{_labels(reading)} {int(reading.values is not None)}"
        yield from _head("smtpd_worker_restarts_total", "counter", "How often this worker was started anew.")
        for reading in supervisor:
            yield f"smtpd_worker_restarts_total{_labels(reading)} {reading.restarts}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _labels(reading: Reading, label: str = "") -> str:
    worker = "" if reading.worker is None else f'worker="{reading.worker}"'
    both = ",".join(filter(None, (worker, label)))
    return f"{{{both}}}" if both else ""
