"""What was measured, as tables (which are plain text and reStructuredText at once) and as a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from load import TARGETS, Scenario
from measure import Sample

OURS = "twisted-smtpd"
BASES = ("smtp-sink", "aiosmtpd", "go-smtp")
NOTHING = "-"


@dataclass
class Results:
    """All that one run of the benchmark found.

    :ivar machine: name and value of what describes the machine.
    :ivar versions: of each server that is measured.
    :ivar scenarios: those that were asked for.
    :ivar samples: by scenario's key and server's name, one for each round.
    :ivar skipped: why a server has no figure in a scenario; by scenario's key and server's name.
    :ivar failed: the same, where it should have one.
    :ivar memory: bytes for each idle connection, by server's name, one for each round.
    :ivar start: seconds to the first banner, by command, one for each round.
    """

    machine: dict[str, str]
    versions: dict[str, str]
    scenarios: Sequence[Scenario]
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    skipped: dict[tuple[str, str], str] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=dict)
    start: dict[str, list[float]] = field(default_factory=dict)

    def cpu(self, scenario: str, server: str) -> float | None:
        """Seconds of CPU per message: the median of the rounds."""
        samples = self.samples.get((scenario, server))
        return statistics.median(s.cpu / s.messages for s in samples) if samples else None

    def spread(self, scenario: str, server: str) -> float:
        """How far the rounds of a figure lie apart, as a part of their median."""
        costs = [s.cpu / s.messages for s in self.samples[scenario, server]]
        return (max(costs) - min(costs)) / statistics.median(costs)

    def rate(self, scenario: str, server: str) -> tuple[float, float] | None:
        """Messages per second, and how much of its core the server used: medians of the rounds."""
        samples = self.samples.get((scenario, server))
        if not samples:
            return None
        return (
            statistics.median(s.messages / s.seconds for s in samples),
            statistics.median(s.cpu / s.seconds for s in samples),
        )

    def ratio(self, scenario: str, server: str, base: str) -> float | None:
        """CPU per message of one server in that of another: the median of the rounds' ratios.

        The machine may be slower for a while: the two of one round ran one after the other.
        """
        pairs = zip(self.samples.get((scenario, server), ()), self.samples.get((scenario, base), ()), strict=False)
        ratios = [(one.cpu / one.messages) / (other.cpu / other.messages) for one, other in pairs]
        return statistics.median(ratios) if ratios else None


@dataclass(frozen=True)
class Check:
    """A ratio beside its target; ``ratio`` is ``None`` where it was not measured."""

    title: str
    base: str
    ratio: float | None
    target: float


def checks(results: Results) -> list[Check]:
    """The targets of the scenarios that were asked for."""
    titles = {scenario.key: scenario.title for scenario in results.scenarios}
    return [
        Check(titles[target.scenario], base, results.ratio(target.scenario, OURS, base), limit)
        for target in TARGETS
        if target.scenario in titles
        for base, limit in target.ratios
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A reStructuredText "simple table"; the first column is text, the others are figures."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    texts = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    return "\n".join([rule, texts[0].rstrip(), rule, *(text.rstrip() for text in texts[1:]), rule])


def section(title: str, *parts: str) -> str:
    """A section of the report."""
    return "\n\n".join([f"{title}\n{'-' * len(title)}", *parts])


def figure(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def text(results: Results) -> str:
    """The whole report."""
    parts = (_targets, _costs, _ratios, _rates, _memory, _start, _conditions, _notes)
    return "\n\n".join(filter(None, (part(results) for part in parts))) + "\n"


def _targets(results: Results) -> str:
    rows = [[c.title, c.base, figure(c.ratio), figure(c.target), _verdict(c)] for c in checks(results)]
    if not rows:
        return ""
    head = ["work", "CPU of", "measured", "at most", "reached"]
    return section("Targets", f"CPU per message of {OURS}, as a multiple of another server's.", table(head, rows))


def _verdict(check: Check) -> str:
    if check.ratio is None:
        return NOTHING
    return "yes" if check.ratio <= check.target else "no"


def _by_server(results: Results, cell: str, cells: Iterable[Sequence[str]]) -> str:
    return table([cell, *results.versions], cells)


def _costs(results: Results) -> str:
    if not results.samples:
        return ""
    rows = []
    for scenario in results.scenarios:
        costs = [results.cpu(scenario.key, server) for server in results.versions]
        rows.append([scenario.title, *(figure(cost and cost * 1e6) for cost in costs)])
    spreads = [results.spread(*key) for key in results.samples]
    about = f"Microseconds; the rounds of one figure lie {statistics.median(spreads):.0%} apart (median)."
    return section("CPU per message", about, _by_server(results, "work", rows))


def _ratios(results: Results) -> str:
    rows = []
    for scenario in results.scenarios:
        for base in BASES:
            ratios = [results.ratio(scenario.key, server, base) for server in results.versions]
            if any(ratio is not None for ratio in ratios):
                rows.append([f"{scenario.title} / {base}", *map(figure, ratios)])
    if not rows:
        return ""
    return section("CPU per message, as a multiple", _by_server(results, "work / in units of", rows))


def _rates(results: Results) -> str:
    if not results.samples:
        return ""
    rows = []
    for scenario in results.scenarios:
        rates = [results.rate(scenario.key, server) for server in results.versions]
        rows.append([scenario.title, *(f"{figure(r[0])} ({r[1]:.0%})" if r else NOTHING for r in rates)])
    about = (
        "In parentheses how busy the server's core was: clearly below 100 %, "
        "the load or a wait was the limit and the server could have done more."
    )
    return section("Messages per second", about, _by_server(results, "work", rows))


def _memory(results: Results) -> str:
    if not results.memory:
        return ""
    rows = [[name, figure(statistics.median(values) / 1024)] for name, values in results.memory.items()]
    return section("Memory per idle connection", table(["server", "KiB"], rows))


def _start(results: Results) -> str:
    if not results.start:
        return ""
    rows = [[name, figure(statistics.median(values))] for name, values in results.start.items()]
    return section("From the start to the first banner", table(["command", "seconds"], rows))


def _conditions(results: Results) -> str:
    rows = [*results.machine.items(), *results.versions.items()]
    return section("Measured with", "\n".join(f":{name}: {value}" for name, value in rows))


def _notes(results: Results) -> str:
    titles = {scenario.key: scenario.title for scenario in results.scenarios}
    lines = [f"* **No figure**, {_where(titles, key)}: {reason}" for key, reason in results.failed.items()]
    by_reason: dict[tuple[str, str], list[str]] = {}
    for (scenario, server), reason in results.skipped.items():
        by_reason.setdefault((server, reason), []).append(titles.get(scenario, scenario))
    lines += [f"* {server}: {reason} ({'; '.join(where)})." for (server, reason), where in by_reason.items()]
    return section("Left out", "\n".join(lines)) if lines else ""


def _where(titles: dict[str, str], key: tuple[str, str]) -> str:
    return f"{key[1]}, {titles.get(key[0], key[0])}"


def write(results: Results, folder: Path) -> None:
    """Write the table and the plot for the documentation.

    :param folder: gets ``benchmarks-table.txt`` (reStructuredText to include) and, if any load ran, ``benchmarks.svg``.
    """
    note = ".. Written by benchmarks/run.py; changes by hand are lost.\n\n"
    (folder / "benchmarks-table.txt").write_text(note + text(results), encoding="utf-8")
    if results.samples:
        plot(results, folder / "benchmarks.svg")


def plot(results: Results, path: Path) -> None:
    """Draw CPU per message: a line for each scenario, a mark for each server."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures give the same file
    from matplotlib import pyplot

    scenarios = [s for s in results.scenarios if any((s.key, server) in results.samples for server in results.versions)]
    figure_, axes = pyplot.subplots(figsize=(9, 1.2 + 0.42 * len(scenarios)), layout="constrained")
    marks = dict(zip(results.versions, "osD^vP*X", strict=False))
    for server in results.versions:
        points = [(results.cpu(s.key, server), y) for y, s in enumerate(scenarios)]
        known = [(cost * 1e6, y) for cost, y in points if cost is not None]
        xs, ys = [x for x, _ in known], [y for _, y in known]
        size, layer = (90, 3) if server == OURS else (42, 2)
        axes.scatter(xs, ys, s=size, zorder=layer, marker=marks[server], label=server)
    axes.set_xscale("log")
    axes.set_xlabel("server CPU per message, µs (logarithmic; left is better)")
    axes.set_yticks(range(len(scenarios)), [s.title for s in scenarios])
    axes.invert_yaxis()
    axes.grid(axis="both", alpha=0.3)
    figure_.legend(loc="outside lower center", ncols=len(results.versions), frameon=False)
    figure_.savefig(path, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure_)
