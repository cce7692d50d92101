"""A node of RabbitMQ, for tests and scripts: it runs as their user, in a folder, on free ports of the loopback."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from unittest import SkipTest

__all__ = ["Node", "free_port"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def rabbitmq() -> str:
    """The script that starts a node as the user who runs it."""
    found = sorted(glob.glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"))
    if not found:
        if os.environ.get("CI") == "true":
            raise RuntimeError("rabbitmq-server is not installed")
        raise SkipTest("rabbitmq-server is not installed")
    return found[-1]


class Node:
    """A node of the broker."""

    def __init__(self, number: int, folder: Path, epmd: int) -> None:
        self.name, self.port = f"node{number}@localhost", free_port()
        place = folder / f"node{number}"
        place.mkdir()
        (place / "plugins").write_text("[].\n")
        home = folder / "home"
        home.mkdir(exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text("twisted-smtpd")
            cookie.chmod(0o400)
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "ERL_EPMD_PORT": str(epmd),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(place / "mnesia"),
            "RABBITMQ_LOG_BASE": str(place / "log"),
            "RABBITMQ_PID_FILE": str(place / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(place / "none"),
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [rabbitmq()],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(240):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.5)
        raise RuntimeError(f"{self.name} does not start")

    def ctl(self, *words: str) -> str:
        done = subprocess.run(
            [Path(rabbitmq()).with_name("rabbitmqctl"), "-n", self.name, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def end(self) -> None:
        """Kill it for good, and the daemon of its cluster that knows the ports."""
        self.kill()
        epmd = glob.glob("/usr/lib/erlang/erts-*/bin/epmd")
        subprocess.run([*epmd[-1:], "-kill"], env=self.environment, capture_output=True)

    def kill(self) -> None:
        """Kill it at once, with all processes of its session."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
