"""The examples for Prometheus and Grafana name metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest, skipUnless

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.examples.test_examples import EXAMPLES, converse
from twisted_smtpd import SMTPFactory
from twisted_smtpd.handlers import Sink
from twisted_smtpd.metrics.exposition import families
from twisted_smtpd.metrics.figures import Reading, snapshot
from twisted_smtpd.queue import Queue
from twisted_smtpd.runtime.connections import Connections

# Seconds; promtool answers at once.
TIMEOUT = 60


def names() -> set[str]:
    """What may stand in a query."""
    found = set()
    for family in families([Reading(1, snapshot([Connections(Clock())]))]):
        found.add(f"{family.name}_total" if family.type == "counter" else family.name)
        if family.type == "histogram":
            found.add(f"{family.name}_bucket")
    for metric in Queue("spool", Sink()).metrics():
        found |= {metric.name + suffix for suffix, _, _ in metric.samples}
    return found


def named(text: str) -> set[str]:
    return set(re.findall(r"\bsmtpd_\w+", text))


def expressions(thing: Any) -> Iterator[str]:
    if isinstance(thing, dict):
        for key, value in thing.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from expressions(value)


@skipUnless(EXAMPLES.is_dir(), "the examples are not installed")
class MonitoringTests(SynchronousTestCase):
    def test_the_dashboard(self) -> None:
        text = (EXAMPLES / "grafana.json").read_text()
        used = named(" ".join(expressions(json.loads(text))))
        self.assertLessEqual(used, names())
        # What is worth a metric is worth a look.
        self.assertGreaterEqual(len(used), len(names()) // 2)

    def test_each_panel_has_a_place_of_its_own(self) -> None:
        panels = json.loads((EXAMPLES / "grafana.json").read_text())["panels"]
        self.assertEqual(len({(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}), len(panels))
        self.assertEqual(len({one["id"] for one in panels}), len(panels))

    def test_the_alerts(self) -> None:
        self.assertLessEqual(named((EXAMPLES / "prometheus-rules.yml").read_text()), names())

    def test_promtool_has_nothing_to_say(self) -> None:
        promtool = shutil.which("promtool")
        if promtool is None:
            raise SkipTest("promtool is not installed")
        for words in (["config", "prometheus.yml"], ["rules", "prometheus-rules.yml"]):
            done = subprocess.run(
                [promtool, "check", *words], cwd=EXAMPLES, capture_output=True, text=True, timeout=TIMEOUT
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

    def test_the_queries_of_the_page(self) -> None:
        page = Path(EXAMPLES.parent, "docs", "reference", "metrics.rst").read_text()
        self.assertLessEqual(named(page) - {"smtpd_worker_up"}, names())

    def test_a_handler_that_counts(self) -> None:
        import runpy

        handler = runpy.run_path(str(EXAMPLES / "metrics_of_a_handler.py"))["Sorted"]()
        factory = SMTPFactory(handler, clock=Clock())
        for sender in ("anne@example.com", "bart@Example.COM", "c@elsewhere.example", ""):
            lines = ("EHLO x", f"MAIL FROM:<{sender}>", "RCPT TO:<d@example.com>", "DATA", "hi", ".")
            converse(factory, *lines)
        (metric,) = handler.metrics()
        self.assertEqual(
            {labels["domain"]: value for _, labels, value in metric.samples}, {"example.com": 2, "other": 2}
        )
