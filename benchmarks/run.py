"""Measure twisted-smtpd beside other servers: ``python benchmarks/run.py [--quick] [--write docs/explanation/]``.

``docs/explanation/benchmarks.rst`` says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout is measured, whether or not some version is installed

import report  # noqa: E402
from load import SCENARIOS, Scenario, has_smtp_source  # noqa: E402
from measure import (  # noqa: E402
    Cores,
    MeasurementError,
    Unsupported,
    allow_many_sockets,
    free_port,
    idle_memory,
    run_load,
    run_measured,
    started,
    take_cores,
)
from peers import COMMANDS, ON_REACTORS, PEERS, Peer  # noqa: E402

ROUNDS, QUICK_ROUNDS, QUICK_SHARE = 5, 2, 5
IDLE_CONNECTIONS = 1000
MEMORY, START = "memory", "start"
NO_LOAD = Scenario(MEMORY, "memory per idle connection", messages=0, size=0)


class Benchmark:
    """One run of everything that was asked for.

    :param results: where the figures go.
    :param cores: where the servers and the loads run.
    :param certificate: a PEM file with a certificate and its key.
    """

    def __init__(self, results: report.Results, cores: Cores, certificate: Path) -> None:
        self.results, self.cores, self.certificate = results, cores, certificate

    def attempt(self, what: str, server: str, work: Callable[[], str]) -> None:
        """Measure one thing once, unless it is known that there will be no figure."""
        key = (what, server)
        if key in self.results.skipped or key in self.results.failed:
            return
        try:
            outcome = work()
        except Unsupported as error:
            self.results.skipped[key] = outcome = str(error)
        except MeasurementError as error:
            self.results.failed[key] = outcome = str(error)
        print(f"  {what:12}  {server:18}  {outcome}", file=sys.stderr, flush=True)

    def cost(self, scenario: Scenario, peer: Peer) -> str:
        """Run one scenario on one server: some messages to warm up, then those that are measured."""
        warm_up = max(1, scenario.messages // 10)
        expected = warm_up + scenario.messages
        with peer.serving(scenario, self.certificate, expected, self.cores) as server:
            run_load(scenario.command(server.port, warm_up))
            sample = run_measured(server, scenario.command(server.port, scenario.messages), scenario.messages)
            peer.check(server, expected)
        self.results.samples.setdefault((scenario.key, peer.name), []).append(sample)
        return f"{sample.cpu / sample.messages * 1e6:12,.1f} µs  {sample.messages / sample.seconds:10,.1f} /s"

    def memory(self, peer: Peer) -> str:
        """Measure what an idle connection takes."""
        with peer.serving(NO_LOAD, self.certificate, 0, self.cores) as server:
            octets = idle_memory(server, IDLE_CONNECTIONS)
        self.results.memory.setdefault(peer.name, []).append(octets)
        return f"{octets / 1024:12,.1f} KiB"

    def start(self, name: str) -> str:
        """Measure how long a command takes to its first banner."""
        port = free_port()
        command = [argument.format(port=port) for argument in COMMANDS[name]]
        with started(command, port, self.cores) as server:
            self.results.start.setdefault(name, []).append(server.start_seconds)
            return f"{server.start_seconds:12,.2f} s"

    def round(self, peers: list[Peer], extras: set[str], number: int = 0) -> None:
        """Measure everything once, each scenario on one server after the other.

        :param number: of the round: each begins with another server.
        """
        first = number % len(peers) if peers else 0
        peers = peers[first:] + peers[:first]
        for scenario in self.results.scenarios:
            for peer in peers:
                self.attempt(scenario.key, peer.name, lambda s=scenario, p=peer: self.cost(s, p))  # type: ignore[misc]
        if MEMORY in extras:
            for peer in peers:
                self.attempt(MEMORY, peer.name, lambda p=peer: self.memory(p))  # type: ignore[misc]
        if START in extras:
            for name in COMMANDS:
                self.attempt(START, name, lambda n=name: self.start(n))  # type: ignore[misc]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = [*(scenario.key for scenario in SCENARIOS), MEMORY, START]
    names = [peer.name for peer in PEERS]
    parser.add_argument("--quick", action="store_true", help="fewer scenarios, messages and rounds, for CI")
    parser.add_argument("--rounds", type=int, help=f"how many (default: {ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--scenarios", nargs="+", choices=keys, metavar="KEY", help=f"only these of {', '.join(keys)}")
    parser.add_argument("--servers", nargs="+", choices=names, metavar="NAME", help=f"only these of {', '.join(names)}")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the table and the plot there")
    parser.add_argument(
        "--fail-above", type=float, metavar="FACTOR", help="exit with 1 if a ratio is over FACTOR times its target"
    )
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    if arguments.write is not None and not arguments.write.is_dir():
        parser.error(f"--write: {arguments.write} is not a folder")
    return arguments


def choose_scenarios(arguments: argparse.Namespace) -> list[Scenario]:
    """The scenarios asked for, with as many messages as asked for."""
    chosen = [s for s in SCENARIOS if (s.key in arguments.scenarios if arguments.scenarios else True)]
    if not arguments.quick:
        return chosen
    return [
        dataclasses.replace(s, messages=max(1, s.messages // QUICK_SHARE))
        for s in chosen
        if s.quick or arguments.scenarios
    ]


def choose_peers(arguments: argparse.Namespace) -> tuple[list[Peer], dict[str, str]]:
    """The servers asked for that are installed, and their versions."""
    peers, versions = [], {}
    for peer in PEERS:
        if peer.name not in arguments.servers if arguments.servers else peer in ON_REACTORS:
            continue
        try:
            versions[peer.name] = peer.version()
        except Unsupported as error:
            print(f"without {peer.name}: {error}", file=sys.stderr)
        else:
            peers.append(peer)
    return peers, versions


def describe_machine(cores: Cores, rounds: int) -> dict[str, str]:
    """What the figures depend on beside the servers."""
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    shared = " (the same: the machine has one)" if cores.server == cores.load else ""
    return {
        "processor": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "cores": f"server on {cores.server}, load on {cores.load}{shared}",
        "Python": describe_python(),
        "OpenSSL": describe_openssl(),
        "load": "smtp-source, and what that can't do: client.py" if has_smtp_source() else "client.py",
        "rounds": str(rounds),
        "other load": f"{os.getloadavg()[0]:.1f} processes when it started (average of a minute)",
    }


def describe_python() -> str:
    """The interpreter of the servers in Python, and how it was built."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    profiled = "with" if "--enable-optimizations" in arguments else "without"
    return f"{platform.python_version()}, {platform.python_compiler()}, built {profiled} --enable-optimizations"


def describe_openssl() -> str:
    """Both libraries for TLS have one."""
    try:
        from OpenSSL import SSL
    except ImportError:
        return ssl.OPENSSL_VERSION
    return f"{ssl.OPENSSL_VERSION} (ssl), {SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()} (pyOpenSSL)"


def make_certificate(folder: Path) -> Path:
    """Make a self-signed certificate with an ECDSA P-256 key; both in one PEM file."""
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=bench.example", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    return both


def gross(results: report.Results, factor: float) -> list[report.Check]:
    """The ratios that are so far over their target that noise does not explain it."""
    return [c for c in report.checks(results) if c.ratio is not None and c.ratio > factor * c.target]


def main() -> int:
    """Run the command line.

    :returns: the exit status: 1 if something that should have a figure has none, or a ratio is grossly over its target.
    """
    arguments = parse_arguments()
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    extras = {MEMORY, START} & set(arguments.scenarios or ({START} if arguments.quick else {MEMORY, START}))
    peers, versions = choose_peers(arguments)
    allow_many_sockets()
    cores = take_cores()
    results = report.Results(describe_machine(cores, rounds), versions, choose_scenarios(arguments))
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(results, cores, make_certificate(Path(folder)))
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", file=sys.stderr)
            benchmark.round(peers, extras, number - 1)
    print(report.text(results))
    if results.failed:
        print("something failed: see above; nothing is written", file=sys.stderr)
    elif arguments.write is not None:
        report.write(results, arguments.write)
    too_much = gross(results, arguments.fail_above) if arguments.fail_above else []
    for check in too_much:
        print(f"{check.title}: {check.ratio:.2f} times {check.base}, the target is {check.target}", file=sys.stderr)
    return 1 if results.failed or too_much else 0


if __name__ == "__main__":
    sys.exit(main())
