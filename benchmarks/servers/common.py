"""What the measured Python servers share: their command line, their certificate and how they say what arrived."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import NoReturn

HOST = "127.0.0.1"
HOSTNAME = "bench.example"
USER, PASSWORD = b"user", b"secret"
SIZE_LIMIT = 128 * 2**20
BACKLOG = 5000
MAX_CONNECTIONS = 10_000

#: The exit status of a server that lacks what a scenario needs: the scenario is skipped, not failed.
UNSUPPORTED = 77


@dataclass
class Options:
    """What a scenario asks of a server.

    :ivar port: the TCP port to listen on.
    :ivar tls: ``"none"``, ``"starttls"`` or ``"implicit"``.
    :ivar certificate: path of a PEM file with the certificate and its key.
    :ivar auth: whether AUTH PLAIN is offered, in clear too.
    :ivar hook: ``"plain"`` answers at once, ``"wait"`` after a timer of 0 s, ``"stream"`` reads the content in chunks.
    :ivar reactor: ``"asyncio"`` or ``"uvloop"`` for Twisted's servers; ``""`` is the default one.
    :ivar tls_layer: what does TLS: ``"pyopenssl"``, or ``"twisted"`` for Twisted's layer with pyOpenSSL; ``""`` is what
        the server chooses.
    """

    port: int
    tls: str
    certificate: str
    auth: bool
    hook: str
    reactor: str
    tls_layer: str = ""


def options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", choices=("none", "starttls", "implicit"), default="none")
    parser.add_argument("--certificate", default="")
    parser.add_argument("--auth", action="store_true")
    parser.add_argument("--hook", choices=("plain", "wait", "stream"), default="plain")
    parser.add_argument("--reactor", choices=("", "asyncio", "uvloop"), default="")
    parser.add_argument("--tls-layer", choices=("", "pyopenssl", "twisted"), default="")
    return Options(**vars(parser.parse_args()))


def unsupported(reason: str) -> NoReturn:
    """End this server because it lacks what the scenario needs."""
    print(reason, file=sys.stderr)
    sys.exit(UNSUPPORTED)


def report(messages: int) -> None:
    """Say how many messages arrived: the last thing a server does."""
    print(messages, flush=True)
