"""The servers that are measured: how each is started, and how it proves what arrived."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from load import HOST, Scenario, postfix
from measure import Cores, MeasurementError, Server, Unsupported, free_port, run_load, started

SERVERS = Path(__file__).resolve().parent / "servers"
NODE_PACKAGE = SERVERS.parent / "node_modules" / "smtp-server" / "package.json"
BUILT = SERVERS.parent / "build"
GO_PATH, GO_PACKAGE = "/usr/share/gocode", "golang-github-emersion-go-smtp-dev"
BACKLOG = 5000
MAX_CONNECTIONS = 10_000
# How long smtp-sink may take to end once it has the last message it waits for.
SINK_TIMEOUT = 5.0


@dataclass(frozen=True)
class Peer:
    """A server written for this benchmark on top of some library; it prints its count when it is told to end.

    :ivar name: for the report.
    :ivar script: in ``servers/``.
    """

    name: str
    script: str

    def version(self) -> str:
        """Which version is measured, and in what it runs.

        :raises Unsupported: if it is not installed.
        """
        try:
            return f"{importlib.metadata.version(self.name)}, Python {platform.python_version()}"
        except importlib.metadata.PackageNotFoundError:
            raise Unsupported(f"{self.name} is not installed: pip install -r benchmarks/requirements.txt") from None

    def interpreter(self) -> str:
        """What runs the script."""
        return sys.executable

    def command(self, port: int, scenario: Scenario, certificate: Path, expected: int) -> list[str]:
        """The command that starts it."""
        command = [self.interpreter(), str(SERVERS / self.script), "--port", str(port), "--hook", scenario.hook]
        command += ["--tls", scenario.tls, "--certificate", str(certificate)]
        return [*command, "--auth"] if scenario.auth else command

    def check(self, server: Server, expected: int) -> None:
        """End the server, and make sure that it got every message once.

        :raises MeasurementError: if it didn't.
        """
        output = server.stop()
        if output.strip() != str(expected):
            raise MeasurementError(f"{expected} messages were sent, {output.strip() or 'no number'} arrived")

    @contextlib.contextmanager
    def serving(self, scenario: Scenario, certificate: Path, expected: int, cores: Cores) -> Iterator[Server]:
        """The server, started for a scenario.

        :param expected: how many messages will be sent to it.
        """
        port = free_port()
        command = self.command(port, scenario, certificate, expected)
        with started(command, port, cores, silent=scenario.tls == "implicit") as server:
            yield server


class Ours(Peer):
    """The server of this checkout."""

    def version(self) -> str:
        import twisted_smtpd

        twisted = importlib.metadata.version("twisted")
        return f"{twisted_smtpd.__version__}, Twisted {twisted}, Python {platform.python_version()}"


@dataclass(frozen=True)
class OursOnReactor(Ours):
    """The same on another reactor.

    :ivar reactor: ``"asyncio"``, or ``"uvloop"`` for asyncio's with that loop.
    """

    reactor: str

    def version(self) -> str:
        if importlib.util.find_spec(self.reactor) is None:
            raise Unsupported(f"{self.reactor} is not installed")
        return super().version()

    def command(self, port: int, scenario: Scenario, certificate: Path, expected: int) -> list[str]:
        return [*super().command(port, scenario, certificate, expected), "--reactor", self.reactor]


class TwistedMail(Peer):
    """The server that Twisted comes with."""

    def version(self) -> str:
        return f"Twisted {importlib.metadata.version('twisted')}, Python {platform.python_version()}"


class Nodemailer(Peer):
    """A server on Node.js."""

    def version(self) -> str:
        if not NODE_PACKAGE.exists():
            raise Unsupported("smtp-server is not installed: npm install --prefix benchmarks")
        node = subprocess.run([self.interpreter(), "--version"], capture_output=True, text=True, check=True)
        return f"{json.loads(NODE_PACKAGE.read_text())['version']}, Node.js {node.stdout.strip()}"

    def interpreter(self) -> str:
        node = shutil.which("node")
        if node is None:
            raise Unsupported("Node.js is not installed")
        return node


class GoSmtp(Peer):
    """A server in Go, compiled with the packages that the system has of it."""

    def version(self) -> str:
        if shutil.which("go") is None:
            raise Unsupported("Go is not installed")
        # Debian's packages are sources below one folder.
        environment = {"GOPATH": GO_PATH, **os.environ, "GO111MODULE": "off"}
        command = ["go", "build", "-o", self.interpreter(), str(SERVERS / self.script)]
        built = subprocess.run(command, env=environment, capture_output=True, text=True)
        if built.returncode:
            reason = "go-smtp is not installed (Debian: apt install golang-github-emersion-go-{smtp,sasl}-dev)"
            raise Unsupported(reason if "go-smtp" in built.stderr else built.stderr)
        go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True)
        package = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Version}", GO_PACKAGE], capture_output=True, text=True
        )
        return f"{package.stdout.partition('-')[0] or 'unknown version'}, {go.stdout.split()[2]}"

    def interpreter(self) -> str:
        """What is built."""
        return str(BUILT / Path(self.script).stem)

    def command(self, port: int, scenario: Scenario, certificate: Path, expected: int) -> list[str]:
        command = super().command(port, scenario, certificate, expected)
        return [command[0], *command[2:]]


class SmtpSink(Peer):
    """Postfix's test server, in C, which keeps nothing.

    Its own counter (``-c``) costs it a write for each message, some 5 to 9 %.  So it is told instead to end itself
    after one message more than will be sent: that one more then has to end it proves the count.
    """

    def version(self) -> str:
        try:
            postfix("smtp-sink")
            answer = subprocess.run([postfix("postconf"), "-h", "mail_version"], capture_output=True, text=True)
        except FileNotFoundError as error:
            raise Unsupported(str(error)) from None
        return f"Postfix {answer.stdout.strip()}"

    def command(self, port: int, scenario: Scenario, certificate: Path, expected: int) -> list[str]:
        if scenario.tls != "none" or scenario.auth or scenario.hook != "plain":
            raise Unsupported("smtp-sink has no TLS, checks no password and has no hooks")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        listen = [f"{HOST}:{port}", str(BACKLOG)]
        return [postfix("smtp-sink"), *user, "-m", str(MAX_CONNECTIONS), "-M", str(expected + 1), *listen]

    def check(self, server: Server, expected: int) -> None:
        if server.process.poll() is not None:
            raise MeasurementError(f"more than {expected} messages arrived")
        one_more = Scenario("", "", messages=1, size=1, connections=1)
        with contextlib.suppress(MeasurementError):  # it may end before the reply is read
            run_load(one_more.command(server.port, 1))
        try:
            server.process.wait(SINK_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"fewer than {expected} messages arrived") from None


#: Measured when they are asked for.
ON_REACTORS: tuple[Peer, ...] = (
    OursOnReactor("twisted-smtpd-asyncio", "ours.py", "asyncio"),
    OursOnReactor("twisted-smtpd-uvloop", "ours.py", "uvloop"),
)

PEERS: tuple[Peer, ...] = (
    Ours("twisted-smtpd", "ours.py"),
    *ON_REACTORS,
    Peer("aiosmtpd", "with_aiosmtpd.py"),
    TwistedMail("twisted.mail.smtp", "with_twisted_mail.py"),
    Nodemailer("nodemailer", "with_nodemailer.mjs"),
    GoSmtp("go-smtp", "with_go_smtp.go"),
    SmtpSink("smtp-sink", ""),
)

#: Servers as a user starts them from the shell, for the start time; ``{port}`` stands for the port.
COMMANDS = {
    "twist smtpd": [sys.executable, "-m", "twisted", "smtpd", "-c", "sink", "-l", "127.0.0.1:{port}"],
    "aiosmtpd": [sys.executable, "-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink", "-l", "127.0.0.1:{port}"],
}
