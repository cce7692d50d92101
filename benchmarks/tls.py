"""What TLS costs with each library: ``python benchmarks/tls.py [--write docs/reference/]``.

All rows are of this server; ``docs/reference/tls.rst`` has the table.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import report
from load import SCENARIOS, Scenario
from measure import Cores, allow_many_sockets, free_port, idle_memory, run_load, run_measured, started, take_cores
from run import describe_machine, make_certificate

HERE = Path(__file__).resolve().parent
ROUNDS = 3
IDLE_CONNECTIONS = 500
LAYERS = {"": "the standard library", "pyopenssl": "pyOpenSSL", "twisted": "Twisted's layer, pyOpenSSL"}
KEYS = ("tls", "tls-5m", "starttls", "resumed", "resumed-12")


def make_rsa_certificate(folder: Path) -> Path:
    """The same with an RSA key of 2,048 bits."""
    key, certificate, both = folder / "rsa-key.pem", folder / "rsa-certificate.pem", folder / "rsa-both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench.example", "-days", "2"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    return both


def command(port: int, tls: str, certificate: Path, layer: str) -> list[str]:
    """What starts the server."""
    server = [sys.executable, str(HERE / "servers" / "ours.py"), "--port", str(port), "--tls", tls]
    return [*server, "--certificate", str(certificate), "--tls-layer", layer]


def cost(scenario: Scenario, certificate: Path, layer: str, cores: Cores) -> float:
    """Microseconds of CPU for a message."""
    port = free_port()
    with started(command(port, scenario.tls, certificate, layer), port, cores, scenario.tls == "implicit") as server:
        run_load(scenario.command(port, max(1, scenario.messages // 10)))
        sample = run_measured(server, scenario.command(port, scenario.messages), scenario.messages)
        server.stop()
    return sample.cpu / sample.messages * 1e6


def idle(certificate: Path, layer: str, cores: Cores) -> float:
    """KiB of an idle connection."""
    port = free_port()
    with started(command(port, "implicit", certificate, layer), port, cores, silent=True) as server:
        return idle_memory(server, IDLE_CONNECTIONS, "implicit") / 1024


def row(title: str, measured: Sequence[Sequence[float]]) -> list[str]:
    """A row of the table: the median of the rounds for each layer."""
    return [title, *(report.figure(statistics.median(column)) for column in zip(*measured, strict=True))]


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the table there")
    options = parser.parse_args()
    allow_many_sockets()
    cores = take_cores()
    scenarios = {scenario.key: scenario for scenario in SCENARIOS}
    with tempfile.TemporaryDirectory() as name:
        ecdsa, rsa = make_certificate(Path(name)), make_rsa_certificate(Path(name))
        kinds = [(scenarios[key].title, scenarios[key], ecdsa) for key in KEYS]
        kinds.append((f"{scenarios['starttls'].title}, RSA", scenarios["starttls"], rsa))
        measured: dict[str, list[list[float]]] = {}
        for _ in range(options.rounds):
            for title, scenario, certificate in kinds:
                found = [cost(scenario, certificate, layer, cores) for layer in LAYERS]
                measured.setdefault(title, []).append(found)
            measured.setdefault("memory of an idle connection, KiB", []).append(
                [idle(ecdsa, layer, cores) for layer in LAYERS]
            )
    table = report.table(["", *LAYERS.values()], [row(title, found) for title, found in measured.items()])
    about = describe_machine(cores, options.rounds)
    text = "\n".join([table, "", *(f":{key}: {value}" for key, value in about.items()), ""])
    print(text)
    if options.write is not None:
        note = ".. Written by benchmarks/tls.py; changes by hand are lost.\n\n"
        (options.write / "tls-table.txt").write_text(note + text, encoding="utf-8")


if __name__ == "__main__":
    main()
