"""The metrics in Prometheus' text formats, written by prometheus-client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from twisted_smtpd.metrics.figures import Metric, Reading, total

__all__ = ["exposition", "families"]


class _Readings(Collector):
    """Readings of some processes, as prometheus-client asks for them."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Family]:
        return families(self._readings)


def families(readings: list[Reading]) -> list[Family]:
    """The metrics of some processes, each name once.

    :param readings: of each process.
    """
    found: dict[str, Family] = {}
    for reading in readings:
        for metric in reading.metrics or ():
            _add(found, metric, reading)
    for reading in readings:
        if reading.worker is not None:
            for metric in _of_worker(reading):
                _add(found, metric, reading)
    return list(found.values())


def _of_worker(reading: Reading) -> Iterator[Metric]:
    up = float(reading.metrics is not None)
    yield Metric.gauge("smtpd_worker_up", "Whether this worker runs and answers.", up)
    yield total("smtpd_worker_restarts", "How often this worker was started anew.", reading.restarts)


def _add(found: dict[str, Family], metric: Metric, reading: Reading) -> None:
    family = found.get(metric.name)
    if family is None:
        family = found[metric.name] = Family(metric.name, metric.help, metric.kind)
    worker = {} if reading.worker is None else {"worker": str(reading.worker)}
    for suffix, labels, value in metric.samples:
        family.add_sample(f"{metric.name}{suffix}", {**worker, **labels}, value)


def exposition(readings: Iterable[Reading], accepted: str = "") -> tuple[str, bytes]:
    """The page.

    With workers, each value has the label ``worker``: a worker that is started anew counts from 0 again, which a
    scraper can tell from a sum that fell only if it sees the parts.

    :param readings: of each process.
    :param accepted: the ``Accept`` header: a scraper may ask for OpenMetrics.
    :returns: the content type, and the page.
    """
    encode, content_type = choose_encoder(accepted)
    return content_type, encode(_Readings(list(readings)))
