"""The scenarios: what is sent, how, and what the server has to do with it."""

from __future__ import annotations

import functools
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import bodies

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
KIB, MIB = 2**10, 2**20


@dataclass(frozen=True)
class Scenario:
    """One kind of work.

    :ivar key: a short name, for the command line.
    :ivar title: what it is, for the report.
    :ivar messages: how many are measured in a round.
    :ivar size: octets of a message's body.
    :ivar connections: how many at the same time.
    :ivar recipients: per message.
    :ivar body: what its body is made of, one of ``bodies.KINDS``.
    :ivar keep: whether a connection sends more than one message.
    :ivar pipelining: whether the client sends commands in groups (RFC 2920); this and the next two need our client.
    :ivar tls: ``"none"``, ``"starttls"`` or ``"implicit"``.
    :ivar resume: the version of TLS with which each connection but the first ones resumes a session; "" for none.
    :ivar auth: whether each connection authenticates with PLAIN.
    :ivar hook: ``"plain"`` answers at once, ``"wait"`` after a timer of 0 s, ``"stream"`` reads the content in chunks.
    :ivar quick: whether ``--quick`` includes it.
    """

    key: str
    title: str
    messages: int
    size: int
    connections: int = 20
    recipients: int = 1
    keep: bool = True
    pipelining: bool = False
    body: str = "lines"
    tls: str = "none"
    resume: str = ""
    auth: bool = False
    hook: str = "plain"
    quick: bool = False

    @property
    def own_client(self) -> bool:
        """Whether smtp-source can't do it, or isn't there."""
        return self.pipelining or self.auth or self.tls != "none" or not has_smtp_source()

    def command(self, port: int, messages: int) -> list[str]:
        """The command that sends so many messages to a port of this host."""
        if not self.own_client:
            command = [postfix("smtp-source"), "-s", str(min(self.connections, messages)), "-m", str(messages)]
            content = ["-l", str(self.size)]
            if self.body != "lines":
                content = ["-F", bodies.message_file(self.body, self.size)]
            command += [*content, "-r", str(self.recipients), "-f", "a@bench.example"]
            command += ["-t", "b@bench.example", "-M", "client.example"]
            return [*command, *(["-d"] if self.keep else []), f"{HOST}:{port}"]
        command = [sys.executable, str(HERE / "client.py"), str(port), "--messages", str(messages)]
        command += ["--size", str(self.size), "--connections", str(self.connections), "--tls", self.tls]
        command += ["--recipients", str(self.recipients), "--body", self.body]
        if self.resume:
            command += ["--resume", self.resume]
        for name in ("keep", "pipelining", "auth"):
            if getattr(self, name):
                command.append(f"--{name}")
        return command


SCENARIOS = (
    Scenario("connection", "one connection per 4 KB message", 2000, 4 * KIB, keep=False, quick=True),
    Scenario("kept", "1 KB messages, connection kept", 5000, KIB, quick=True),
    Scenario("100k", "100 KB messages", 1000, 100 * KIB, quick=True),
    Scenario("5m", "5 MB messages", 30, 5 * MIB, connections=4, quick=True),
    Scenario("100k-text", "100 KB messages, ordinary text", 1000, 100 * KIB, body="text"),
    Scenario("5m-text", "5 MB messages, ordinary text", 30, 5 * MIB, connections=4, body="text", quick=True),
    Scenario("50m", "50 MB messages", 2, 50 * MIB, connections=2),
    Scenario("50-rcpt", "50 recipients", 300, KIB, recipients=50, quick=True),
    Scenario("500-rcpt", "500 recipients", 40, KIB, recipients=500),
    Scenario("pipelined", "1 KB messages, pipelined", 5000, KIB, pipelining=True, quick=True),
    Scenario("pipelined-50", "50 recipients, pipelined", 400, KIB, recipients=50, pipelining=True),
    Scenario("wait", "1 KB messages, hook waits", 5000, KIB, hook="wait", quick=True),
    Scenario("stream", "5 MB messages, streaming hook", 30, 5 * MIB, connections=4, hook="stream"),
    Scenario("starttls", "STARTTLS, one connection per 4 KB message", 400, 4 * KIB, keep=False, tls="starttls"),
    Scenario("resumed", "STARTTLS, session resumed (TLS 1.3)", 800, 4 * KIB, keep=False, tls="starttls", resume="1.3"),
    Scenario(
        "resumed-12", "STARTTLS, session resumed (TLS 1.2)", 800, 4 * KIB, keep=False, tls="starttls", resume="1.2"
    ),
    Scenario("tls", "implicit TLS, 1 KB messages, connection kept", 3000, KIB, tls="implicit"),
    Scenario("tls-5m", "implicit TLS, 5 MB messages", 30, 5 * MIB, connections=4, tls="implicit"),
    Scenario(
        "tls-5m-text",
        "implicit TLS, 5 MB messages, ordinary text",
        30,
        5 * MIB,
        connections=4,
        body="text",
        tls="implicit",
    ),
    Scenario("auth", "AUTH PLAIN, one connection per 4 KB message", 600, 4 * KIB, keep=False, auth=True),
)


@dataclass(frozen=True)
class Target:
    """What the server's CPU per message may be, as a multiple of others'.

    :ivar scenario: the key of the scenario.
    :ivar ratios: the name of the other server, and the multiple.
    """

    scenario: str
    ratios: tuple[tuple[str, float], ...]


def _target(scenario: str, sink: float, aiosmtpd: float) -> Target:
    return Target(scenario, (("smtp-sink", sink), ("aiosmtpd", aiosmtpd)))


TARGETS = (
    _target("connection", 2.4, 0.30),
    _target("kept", 2.0, 0.17),
    _target("100k", 0.4, 0.06),
    _target("5m", 0.3, 0.04),
    Target("5m-text", (("smtp-sink", 0.3),)),
    _target("50-rcpt", 2.0, 0.20),
    Target("starttls", (("go-smtp", 1.2),)),
    Target("tls", (("go-smtp", 1.0),)),
)


@functools.cache
def has_smtp_source() -> bool:
    """Whether Postfix's load generator is installed; without it our own does all."""
    try:
        postfix("smtp-source")
    except FileNotFoundError:
        return False
    return True


def postfix(program: str) -> str:
    """Where one of Postfix's test programs is; they are often outside a user's PATH.

    :raises FileNotFoundError: if it is not installed.
    """
    for path in (None, "/usr/sbin", "/usr/lib/postfix/sbin", "/usr/libexec/postfix"):
        found = shutil.which(program, path=path)
        if found:
            return found
    raise FileNotFoundError(f"{program} is part of Postfix, which is not installed (Debian: apt install postfix)")
