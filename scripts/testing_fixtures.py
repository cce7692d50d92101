"""Servers for tests by the thousand: no flake, no leak, how long a start takes, and the first one beside smtpdfix's.

Run it with the Python of an environment that has twisted-smtpd (from a wheel), pytest, pytest-xdist and smtpdfix; it
prints what it found, and ends with status 1 if something is not as it has to be.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import smtplib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LIMIT = 570  # seconds, for a pytest that hangs

TESTS = """
import smtplib
import pytest

@pytest.mark.parametrize("number", range({number}))
def test_mail(mail_server, number):
    with smtplib.SMTP(mail_server.hostname, mail_server.port, timeout=60) as client:
        client.sendmail("anne@example.com", ["bart@example.com"], f"Subject: {{number}}\\n\\nhi\\n")
    assert mail_server.wait_for(timeout=60)["Subject"] == str(number)
    assert len(mail_server.messages) == 1
"""

FIRST = """
def test_first(smtpd):
    import smtplib
    with smtplib.SMTP(smtpd.hostname, smtpd.port, timeout=60) as client:
        client.sendmail("anne@example.com", ["bart@example.com"], "Subject: hi\\n\\nhi\\n")
    assert len(smtpd.messages) == 1
"""


def facts() -> dict[str, float]:
    """What may leak in this process."""
    gc.collect()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "objects": len(gc.get_objects()),
        "peak of memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_one_process(number: int) -> bool:
    """Start, use and stop so many servers; print what is left of them."""
    from twisted_smtpd.testing import MailServer

    starts, stops = [], []

    def one() -> None:
        begin = time.perf_counter()
        server = MailServer()
        server.start()
        starts.append(time.perf_counter() - begin)
        with smtplib.SMTP(server.hostname, server.port, timeout=60) as client:
            client.sendmail("anne@example.com", ["bart@example.com"], "Subject: hi\n\nhi\n")
        server.wait_for(timeout=60)
        begin = time.perf_counter()
        server.stop()
        stops.append(time.perf_counter() - begin)

    # Caches fill up.
    for _ in range(100):
        one()
    before = facts()
    for _ in range(number):
        one()
    after = facts()
    warm = starts[1:]
    print(f"{number} servers in one process")
    print(f"  first start {starts[0] * 1000:.1f} ms; then median {statistics.median(warm) * 1000:.2f} ms, ", end="")
    print(f"99 % below {sorted(warm)[len(warm) * 99 // 100] * 1000:.2f} ms, longest {max(warm) * 1000:.1f} ms")
    print(f"  stop: median {statistics.median(stops) * 1000:.2f} ms, longest {max(stops) * 1000:.1f} ms")
    for name, value in before.items():
        print(f"  {name}: {value:,.0f} after the first 100, {after[name]:,.0f} at the end")
    grown = (after["objects"] - before["objects"]) / number
    level = after["descriptors"] <= before["descriptors"] and after["threads"] <= before["threads"]
    return level and grown < 0.1 and statistics.median(warm) < 0.005


def pytest(folder: Path, *options: str) -> tuple[float, str]:
    """Run pytest; the seconds it took, and its output."""
    # pytest compiles plugins anew in each run where it may not keep the result.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    run = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return time.perf_counter() - begin, run.stdout + run.stderr


def under_pytest(number: int) -> bool:
    """Run so many tests with a fixture each, in one process and in four."""
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_mail.py").write_text(TESTS.format(number=number))
        for options in ((), ("-n", "4")):
            seconds, output = pytest(folder, *options)
            good = good and f"{number} passed" in output
            print(
                f"pytest {' '.join(options) or 'in one process'}: {output.strip().splitlines()[-1]} ({seconds:.1f} s)"
            )
    return good


SETUPS = {
    "twisted_smtpd": "from twisted_smtpd.testing import MailServer\nwith MailServer(): pass\n",
    "smtpdfix": "from smtpdfix import SMTPDFix\nwith SMTPDFix('127.0.0.1', {port}): pass\n",
}


def cpu_of(command: tuple[str, ...], folder: Path) -> float:
    """The seconds of CPU time that a command takes: other programs on the machine hardly change them."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, capture_output=True, timeout=LIMIT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_setups(rounds: int) -> bool:
    """A new process imports the library, starts a server and stops it: in turns."""
    times: dict[str, list[float]] = {whose: [] for whose in SETUPS}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            for whose, text in SETUPS.items():
                with socket.create_server(("127.0.0.1", 0)) as free:
                    port = free.getsockname()[1]
                times[whose].append(cpu_of((sys.executable, "-c", text.format(port=port)), Path(name)))
    middle = {whose: statistics.median(values) for whose, values in times.items()}
    ratio = middle["twisted_smtpd"] / middle["smtpdfix"]
    print(f"import, start and stop in a new process, CPU time (median of {rounds}, in turns):")
    print(f"  twisted_smtpd {middle['twisted_smtpd']:.3f} s, smtpdfix {middle['smtpdfix']:.3f} s, ratio {ratio:.2f}")
    return ratio <= 1.3


def first_fixtures(rounds: int) -> None:
    """A pytest with one test that uses the fixture: twisted-smtpd's, and smtpdfix's, in turns."""
    # Each without the other's plugin; smtpdfix calls its own smtpd.
    others = {"twisted_smtpd": "no:smtpd", "smtpdfix": "no:twisted_smtpd"}
    times: dict[str, list[float]] = {whose: [] for whose in others}
    # pytest compiles plugins anew in each run where it may not keep the result.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_first.py").write_text(FIRST)
        (folder / "pytest.ini").write_text("[pytest]\n")
        for number in range(rounds + 1):
            for whose, other in others.items():
                seconds = cpu_of((sys.executable, "-m", "pytest", "-q", "-p", other), folder)
                # The first run compiles the modules.
                if number:
                    times[whose].append(seconds)
    ours, theirs = (statistics.median(times[whose]) for whose in ("twisted_smtpd", "smtpdfix"))
    print(f"the whole of a pytest with one test, CPU time (median of {rounds}, in turns):")
    print(f"  twisted_smtpd {ours:.3f} s, smtpdfix {theirs:.3f} s, ratio {ours / theirs:.2f}")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("process", "pytest", "first"))
    given = parser.parse_args()
    results = {}
    if given.only in (None, "first"):
        results["first"] = first_setups(given.rounds)
        first_fixtures(given.rounds)
    if given.only in (None, "process"):
        results["process"] = in_one_process(given.number)
    if given.only in (None, "pytest"):
        results["pytest"] = under_pytest(given.number)
    sys.exit(
        0 if all(results.values()) else f"not as it has to be: {[name for name, good in results.items() if not good]}"
    )


main()
