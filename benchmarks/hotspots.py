"""Show where the server's time goes, as a flame graph and a table.

``python benchmarks/hotspots.py [--write docs/explanation/]``.

Needs Linux's ``perf``, the right to see the kernel's part (root, or ``kernel.perf_event_paranoid`` of 1 or less), and
Python 3.13 or newer, which tells ``perf`` of its own functions.  ``docs/explanation/benchmarks.rst``
says how to read the result.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout is measured, whether or not some version is installed

import flame  # noqa: E402
import report  # noqa: E402
from load import SCENARIOS, Scenario  # noqa: E402
from measure import (  # noqa: E402
    Cores,
    MeasurementError,
    Server,
    allow_many_sockets,
    free_port,
    run_load,
    run_measured,
    started,
    take_cores,
)
from peers import PEERS  # noqa: E402
from run import describe_machine, make_certificate  # noqa: E402

# Two groups of scenarios, a table each.
KEYS = ("kept", "connection", "5m")
TLS_KEYS = ("tls", "starttls", "tls-5m")
ROUNDS = 5
SECONDS = 4.0
FREQUENCY = 1999
# How perf finds the callers: in so many octets of the stack that it keeps of each sample; or, where only the kernel's
# are asked for, at no cost.
DEEP, SHALLOW = "dwarf,32768", "fp"
# Pages of memory by which perf may be behind with writing; a stack takes more than four.
BUFFER = 4096
# Below, something is wrong with what perf saw; parts of all samples, and of the time that the kernel counted.
ENOUGH_WHOLE, ENOUGH_TIME = 0.98, 0.8
FUNCTIONS = 15

TWISTED, BATCHES, OUTPUT, CONNECTION = "Twisted", "batches", "output", "connection and its parts"
COMMANDS, WIRE, LOGGING, HANDLER = "commands", "wire", "logging", "handler"
TLS, OPENSSL = "TLS in Python", "OpenSSL"
COLLECTOR, REST = "garbage collector", "rest of the interpreter"
SEND, RECV, EPOLL, CALLS = "kernel: send", "kernel: recv", "kernel: epoll", "kernel: other system calls"
FAULTS = "kernel: page faults, interrupts"
KERNEL = (SEND, RECV, EPOLL, CALLS, FAULTS)

#: The layers, as the table and the legend have them, and their colours.
COLOURS = {
    SEND: "#e8927c",
    RECV: "#efae9c",
    EPOLL: "#f3c1b3",
    CALLS: "#f6d0c5",
    FAULTS: "#f9ded7",
    TWISTED: "#b9b9c6",
    BATCHES: "#9ec5e8",
    OUTPUT: "#8fd0c4",
    CONNECTION: "#a5d58b",
    COMMANDS: "#ecd06f",
    WIRE: "#f0b660",
    LOGGING: "#c9a9dd",
    HANDLER: "#e3a6c4",
    TLS: "#b6a58b",
    OPENSSL: "#a8917a",
    COLLECTOR: "#c4b49c",
    REST: "#dadada",
}

#: The layers of the package's modules; all others are commands.
MODULES = {
    "runtime/batches.py": BATCHES,
    "runtime/output.py": OUTPUT,
    "protocol/body.py": CONNECTION,
    "protocol/connection.py": CONNECTION,
    "protocol/running.py": CONNECTION,
    "protocol/timeouts.py": CONNECTION,
    "runtime/connections.py": CONNECTION,
    "runtime/timers.py": CONNECTION,
    "stream.py": CONNECTION,
    "protocol/tls.py": TLS,
}
# What these files do, with what they call, is OpenSSL's part.
LIBRARIES = ("libssl", "libcrypto")
SYSTEM_CALLS = {"send": SEND, "recv": RECV, "epoll_wait": EPOLL, "epoll_ctl": EPOLL}

PYTHON = "py::"
# What Python does only so that perf sees its functions: no part of what the server costs otherwise.
TRAMPOLINE = frozenset({"py_trampoline_evaluator", "PyUnstable_Code_GetExtra"})
_frame = re.compile(r"\s*[0-9a-f]+ (.+) \(([^()]*|\[[^]]*\])\)")

# Function and file of each frame, the innermost first.
Frames = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Sample:
    """Where the server was when it was looked at.

    :ivar layer: what the time is counted for.
    :ivar function: the Python function that ran, or called what ran.
    :ivar stack: for the graph, the outermost frame first.
    """

    layer: str
    function: flame.Frame
    stack: tuple[flame.Frame, ...]


@dataclass(frozen=True)
class Profile:
    """One scenario's.

    :ivar cpu: seconds of CPU per message, undisturbed: the median of the rounds.
    :ivar profiled: the same while Python told ``perf`` of its functions.
    :ivar samples: what it saw then.
    :ivar kernel: the layers of the kernel, and their parts of a server that was looked at from outside only.
    """

    scenario: Scenario
    cpu: float
    profiled: float
    samples: Sequence[Sample]
    kernel: Mapping[str, float]

    @functools.cached_property
    def weights(self) -> Mapping[str, float]:
        """The part of the whole that one sample of a layer stands for.

        What Python does for ``perf`` makes the rest of the server slower, and the kernel not.
        """
        counts = Counter(sample.layer for sample in self.samples)
        others = sum(count for layer, count in counts.items() if layer not in KERNEL)
        each = (1 - sum(self.kernel.values())) / others
        return {
            layer: self.kernel.get(layer, 0.0) / count if layer in KERNEL else each for layer, count in counts.items()
        }

    def cells(self, part: float) -> tuple[str, str]:
        """A part of the whole: in microseconds per message, and in percent."""
        return report.figure(self.cpu * 1e6 * part), f"{part:.1%}"


def read_frames(data: Path) -> Iterator[Frames]:
    """Read the stacks that ``perf`` has recorded."""
    for block in perf("script", "-i", str(data), "-F", "ip,sym,dso", "--no-inline").split("\n\n"):
        frames = [(match[1], match[2]) for match in map(_frame.match, block.splitlines()) if match]
        if frames:
            yield frames


def read_stack(frames: Frames) -> Sample:
    """Understand one stack."""
    kernel = [name for name, file in frames if in_kernel(file)]
    called = [name for name, file in frames if not in_kernel(file)]
    functions = [python_frame(name) for name in called if name.startswith(PYTHON)]
    # What the standard library does is done for its caller.
    function = next((frame for frame in functions if frame.layer != REST), flame.Frame("no function", REST))
    layer = function.layer
    stack = functions[::-1]
    names = [frame.name for frame in stack]
    if "ReactorBase.mainLoop" in names:
        stack = stack[names.index("ReactorBase.mainLoop") :]
    if any(name.startswith("gc_collect") for name in called):
        layer = COLLECTOR
        stack.append(flame.Frame(COLLECTOR, COLLECTOR))
    elif in_openssl(frames):
        layer = OPENSSL
        stack.append(flame.Frame(OPENSSL, OPENSSL))
    if kernel:
        layer, top = kernel_layer(kernel[-1], called[0] if called else "")
        stack += [flame.Frame(top, layer), *(flame.Frame(name, layer, "kernel") for name in inner_kernel(kernel))]
    return Sample(layer, function, tuple(stack))


def in_openssl(frames: Frames) -> bool:
    """Whether OpenSSL runs, or called what runs.  Its assembly hides its callers from ``perf``."""
    return any(Path(file).name.startswith(LIBRARIES) for _, file in frames)


def in_kernel(file: str) -> bool:
    """Whether a file that perf names is the kernel, or a module of it."""
    return file.startswith("[") and file not in ("[vdso]", "[unknown]")


def python_frame(name: str) -> flame.Frame:
    """The frame of ``py::FUNCTION:FILE``."""
    function, _, file = name.removeprefix(PYTHON).rpartition(":")
    path = Path(file)
    if path.is_relative_to(ROOT / "twisted_smtpd"):
        module = path.relative_to(ROOT / "twisted_smtpd").as_posix()
        folders = {"wire": WIRE, "tls": TLS}
        layer = MODULES.get(module) or folders.get(module.partition("/")[0], COMMANDS)
        if function == "log_message":
            layer = LOGGING
    elif path.is_relative_to(ROOT):
        layer = HANDLER
    elif "twisted" in path.parts:
        layer = LOGGING if "logger" in path.parts else TWISTED
    else:
        layer = REST
    return flame.Frame(function, layer, "/".join(path.parts[-2:]))


def kernel_layer(entry: str, caller: str) -> tuple[str, str]:
    """The layer of what the kernel does, and its name.

    :param entry: the kernel's outermost function.
    :param caller: the function of the process that it works for.
    """
    if "syscall" not in entry.lower() and "svc" not in entry:
        return FAULTS, "page fault" if "fault" in entry else "interrupt"
    call = caller.lstrip("_").removeprefix("libc_").removesuffix("64")
    return SYSTEM_CALLS.get(call, CALLS), f"{call}()"


def inner_kernel(names: Sequence[str]) -> Iterator[str]:
    """The kernel's functions, outermost first, without those that each system call starts with."""
    for name in reversed(names):
        if not re.match(r"(entry_SYSCALL|do_syscall|x64_sys_call|__(x64|se|do)_sys|__sys_|el0|invoke_syscall)", name):
            # What the compiler has split or specialised is still one function.
            yield re.sub(r"(\.(part|isra|constprop|cold)(\.\d+)?)+$", "", name)


def undisturbed(scenario: Scenario, cores: Cores) -> tuple[float, int, dict[str, float]]:
    """Seconds of CPU per message, the median of the rounds; how many messages to profile; the kernel's layers.

    :raises MeasurementError: if ``perf`` may not see the kernel.
    """
    with tempfile.TemporaryDirectory() as name, serving(scenario, [], cores) as server:
        data = Path(name) / "perf.data"
        run_load(scenario.command(server.port, scenario.messages))
        runs = [
            run_measured(server, scenario.command(server.port, scenario.messages), scenario.messages)
            for _ in range(ROUNDS)
        ]
        rate = statistics.median(run.messages / run.seconds for run in runs)
        messages = max(scenario.messages, round(rate * SECONDS))
        with recording(server.process.pid, data, SHALLOW):
            run_load(scenario.command(server.port, messages))
        server.stop()
        samples = [read_stack(frames) for frames in read_frames(data)]
    counts = Counter(sample.layer for sample in samples if sample.layer in KERNEL)
    if not counts[SEND]:
        raise MeasurementError("perf may not see the kernel's part: sysctl kernel.perf_event_paranoid=1")
    parts = {layer: count / len(samples) for layer, count in counts.items()}
    return statistics.median(run.cpu / run.messages for run in runs), messages, parts


def profiled(scenario: Scenario, messages: int, cores: Cores) -> tuple[float, list[Sample]]:
    """Seconds of CPU per message while ``perf`` looks, and what it sees.

    :raises MeasurementError: if what it saw is not nearly all.
    """
    with tempfile.TemporaryDirectory() as name, serving(scenario, ["-X", "perf_jit"], cores) as server:
        data, pid = Path(name) / "perf.data", server.process.pid
        try:
            run_load(scenario.command(server.port, max(1, messages // 10)))
            with recording(pid, data, DEEP):
                run = run_measured(server, scenario.command(server.port, messages), messages)
            server.stop()
            # Python writes its functions as code of their own; perf makes a file of each, beside what Python wrote.
            perf("inject", "--jit", "-i", str(data), "-o", f"{data}.jit")
            stacks = list(read_frames(Path(f"{data}.jit")))
        finally:
            for file in (*Path("/tmp").glob(f"jitted-{pid}-*.so"), Path(f"/tmp/jit-{pid}.dump")):
                file.unlink(missing_ok=True)
    whole = [frames for frames in stacks if frames[-1][0] in ("_start", "__libc_start_main") or in_openssl(frames[:1])]
    due = run.cpu * FREQUENCY
    if len(whole) < ENOUGH_WHOLE * len(stacks) or len(stacks) < ENOUGH_TIME * due:
        raise MeasurementError(f"perf saw too little: {len(whole)} whole stacks of {len(stacks)}, {due:.0f} were due")
    samples = [read_stack(frames) for frames in whole if not for_perf(frames)]
    return run.cpu / run.messages, samples


def for_perf(frames: Frames) -> bool:
    """Whether Python was at what it does only so that ``perf`` sees its functions."""
    name = frames[0][0]
    return name in TRAMPOLINE or name.startswith(PYTHON)


@contextlib.contextmanager
def serving(scenario: Scenario, interpreter_options: list[str], cores: Cores) -> Iterator[Server]:
    """This checkout's server, started for a scenario."""
    port = free_port()
    command = [sys.executable, *interpreter_options, str(ROOT / "benchmarks" / "servers" / "ours.py")]
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder)) if scenario.tls != "none" else ""
        command += ["--port", str(port), "--tls", scenario.tls, "--certificate", str(certificate)]
        with started(command, port, cores, silent=scenario.tls == "implicit") as server:
            yield server


@contextlib.contextmanager
def recording(pid: int, data: Path, callers: str) -> Iterator[None]:
    """Have ``perf`` look at a process meanwhile, from the first moment on.

    :param callers: how it finds them.
    """
    orders, answers = os.pipe(), os.pipe()
    command = ["perf", "record", "--quiet", "--no-buildid-cache", "-k", "mono", "-e", "cpu-clock", "-p", str(pid)]
    command += ["-F", str(FREQUENCY), "--call-graph", callers, "-m", str(BUFFER), "-o", str(data)]
    command += ["--delay=-1", f"--control=fd:{orders[0]},{answers[1]}"]
    with (
        open(answers[0]) as answer,
        open(orders[1], "w", buffering=1) as order,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=(orders[0], answers[1])) as recorder,
    ):
        os.close(orders[0])
        os.close(answers[1])
        try:
            with contextlib.suppress(BrokenPipeError):
                order.write("enable\n")
            begun = answer.readline()
            if begun:
                yield
        finally:
            recorder.send_signal(signal.SIGINT)
            message = recorder.communicate()[1]
    if not begun:
        raise MeasurementError(f"perf record: {message.strip()}")


def perf(*arguments: str) -> str:
    """Run ``perf``; what it prints."""
    result = subprocess.run(["perf", *arguments], capture_output=True, text=True)
    if result.returncode:
        raise MeasurementError(f"perf {arguments[0]}: {result.stderr.strip()}")
    return result.stdout


def profile(scenario: Scenario, cores: Cores) -> Profile:
    """Measure a scenario undisturbed, then look at it."""
    cpu, messages, kernel = undisturbed(scenario, cores)
    cost, samples = profiled(scenario, messages, cores)
    print(f"  {scenario.key:12}  {cpu * 1e6:10,.1f} µs  {len(samples):7,} samples", file=sys.stderr, flush=True)
    return Profile(scenario, cpu, cost, samples, kernel)


def text(profiles: Sequence[Profile], with_tls: Sequence[Profile], machine: dict[str, str]) -> str:
    """The tables."""
    about = "Microseconds of CPU per message, and their part of all."
    parts = [
        report.section("By layer", about, by_layer(profiles)),
        report.section("By layer, with TLS", about, by_layer(with_tls)),
        report.section(f"By function: {profiles[0].scenario.title}", about, by_function(profiles[0])),
        report.section("Profiled with", "\n".join(f":{name}: {value}" for name, value in machine.items())),
    ]
    return "\n\n".join(parts) + "\n"


def by_layer(profiles: Sequence[Profile]) -> str:
    """A row for each layer; those of all scenarios beside each other."""
    parts = [defaultdict[str, float](float) for _ in profiles]
    for part, p in zip(parts, profiles, strict=True):
        for sample in p.samples:
            part[sample.layer] += p.weights[sample.layer]
    rows = [
        [layer, *(cell for part, p in zip(parts, profiles, strict=True) for cell in p.cells(part[layer]))]
        for layer in COLOURS
        if any(part[layer] for part in parts)
    ]
    rows.append(["all", *(cell for p in profiles for cell in (report.figure(p.cpu * 1e6), "100%"))])
    head = ["layer", *(cell for p in profiles for cell in (p.scenario.title, "part"))]
    return report.table(head, rows)


def by_function(profile: Profile) -> str:
    """The Python functions that cost most, with what C code does for them and without the kernel."""
    parts = defaultdict[flame.Frame, float](float)
    for sample in profile.samples:
        if sample.layer not in KERNEL:
            parts[sample.function] += profile.weights[sample.layer]
    most = sorted(parts.items(), key=lambda item: -item[1])[:FUNCTIONS]
    rows = [[f"``{frame.name}``", *profile.cells(part)] for frame, part in most]
    return report.table(["function", "µs", "part"], rows)


def graph(profile: Profile) -> str:
    """The flame graph."""
    cost = profile.cpu * 1e6
    root = flame.Node(flame.Frame(f"one message: {cost:,.0f} µs of CPU", REST))
    for sample in profile.samples:
        root.add(sample.stack, profile.weights[sample.layer])
    return flame.draw(root, profile.scenario.title, "µs per message", cost, COLOURS)


def describe(profiles: Sequence[Profile], cores: Cores) -> dict[str, str]:
    """What the figures depend on."""
    slower = [p.profiled / p.cpu - 1 for p in profiles]
    return {
        **describe_machine(cores, ROUNDS),
        PEERS[0].name: PEERS[0].version(),
        "samples": ", ".join(f"{len(p.samples):,}" for p in profiles),
        "slower meanwhile": ", ".join(f"{part:.0%}" for part in slower),
    }


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the graph and the table there")
    arguments = parser.parse_args()
    if arguments.write is not None and not arguments.write.is_dir():
        parser.error(f"--write: {arguments.write} is not a folder")
    if sys.version_info < (3, 13):
        parser.error("run it with Python 3.13 or newer, which can tell perf of its functions")
    if shutil.which("perf") is None:
        parser.error("perf is not installed (Debian: apt install linux-perf)")
    return arguments


def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    allow_many_sockets()
    cores = take_cores()
    scenarios = {scenario.key: scenario for scenario in SCENARIOS}
    try:
        profiles, with_tls = ([profile(scenarios[key], cores) for key in keys] for keys in (KEYS, TLS_KEYS))
    except MeasurementError as error:
        sys.exit(f"{error}")
    tables = text(profiles, with_tls, describe([*profiles, *with_tls], cores))
    print(tables)
    if arguments.write is not None:
        note = ".. Written by benchmarks/hotspots.py; changes by hand are lost.\n\n"
        (arguments.write / "hotspots-table.txt").write_text(note + tables, encoding="utf-8")
        (arguments.write / "hotspots.svg").write_text(graph(profiles[0]), encoding="utf-8")


if __name__ == "__main__":
    main()
