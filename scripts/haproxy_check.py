"""A real HAProxy in front of a real server: does the handler see the client?

Run it with the project importable, and HAProxy installed::

    $ python scripts/haproxy_check.py

It starts ``twist smtpd`` and HAProxy on free ports of the loopback, connects from 127.0.0.2 through each of HAProxy's
ways of telling (version 1 and 2, clear, TLS ended by HAProxy, TLS passed through, STARTTLS, TLS made by HAProxy), and
prints what the handler saw.  It ends with 0 if that was always the client, 77 if HAProxy is missing, else 1.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLIENT, PROXY, STRANGER = "127.0.0.2", "127.0.0.1", "127.0.0.3"
MISSING = 77

CONFIGURATION = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
{sections}
"""

# Name, what is added to HAProxy's bind line, what to its server line, which of our ports, how the client speaks TLS,
# and what the handler has to see: session.tls, and whether session.ssl is there.
WAYS = (
    ("v1", "", "send-proxy check", "clear", "", True, "tls=False ssl=False"),
    ("v2", "", "send-proxy-v2 check", "clear", "", True, "tls=False ssl=False"),
    ("v1 STARTTLS", "", "send-proxy", "clear", "starttls", True, "tls=True ssl=True"),
    ("v2 STARTTLS", "", "send-proxy-v2", "clear", "starttls", True, "tls=True ssl=True"),
    ("v1 implicit TLS", "", "send-proxy", "tls", "implicit", True, "tls=True ssl=True"),
    ("v2 implicit TLS", "", "send-proxy-v2", "tls", "implicit", True, "tls=True ssl=True"),
    ("v2 TLS ended by HAProxy", "ssl crt {pem}", "send-proxy-v2-ssl", "clear", "implicit", True, "tls=True ssl=False"),
    ("v1 TLS ended by HAProxy", "ssl crt {pem}", "send-proxy", "clear", "implicit", True, "tls=False ssl=False"),
    ("v1 TLS by HAProxy", "", "send-proxy ssl verify none", "tls", "", True, "tls=True ssl=True"),
    ("v2 TLS by HAProxy", "", "send-proxy-v2 ssl verify none", "tls", "", True, "tls=True ssl=True"),
    ("v2 unique id, CRC32c", "", "send-proxy-v2 proxy-v2-options crc32c", "clear", "", True, "tls=False ssl=False"),
    ("no header", "", "", "clear", "", False, ""),
)


class Witness:
    """The handler: NOOP answers with what it knows of the client."""

    async def handle_NOOP(self, server: Any, session: Any, envelope: Any, arg: Any) -> str:
        proxy = session.proxy_peer[0] if session.proxy_peer else None
        return f"250 peer={session.peer[0]} proxy={proxy} tls={session.tls} ssl={session.ssl is not None}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"no server listens on port {port}")


@contextlib.contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(port: int, tls: str, source: str = CLIENT) -> str:
    """What the handler says it saw."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = (source, 0)
    client: smtplib.SMTP
    if tls == "implicit":
        client = smtplib.SMTP_SSL("127.0.0.1", port, timeout=10, source_address=address, context=context)
    else:
        client = smtplib.SMTP("127.0.0.1", port, timeout=10, source_address=address)
    with client:
        client.ehlo()
        if tls == "starttls":
            client.starttls(context=context)
            client.ehlo()
        return client.noop()[1].decode().partition(" ")[2]


def check(name: str, port: int, tls: str, served: bool, expected: str) -> bool:
    wanted = f"peer={CLIENT} proxy={PROXY} {expected}" if served else "hung up on"
    try:
        said = ask(port, tls)
    except (smtplib.SMTPServerDisconnected, ConnectionResetError):
        said = "hung up on"
    good = said == wanted
    print(f"{'ok  ' if good else 'FAIL'} {name:26} {said}", flush=True)
    return good


def check_stranger(port: int) -> bool:
    """A header from somebody who is no proxy is a bad command, and says nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(STRANGER, 0)) as client:
        replies = client.makefile("rb")
        greeting = replies.readline()
        client.sendall(b"PROXY TCP4 192.0.2.66 192.0.2.1 1 25\r\nNOOP\r\n")
        said = [replies.readline() for _ in range(2)]
    good = greeting.startswith(b"220") and said[0].startswith(b"500") and f"peer={STRANGER}".encode() in said[1]
    print(f"{'ok  ' if good else 'FAIL'} {'header from a stranger':26} {said[0].decode().strip()}")
    return good


def health(folder: Path) -> bool:
    """HAProxy's own checks, with a LOCAL header in version 2, go through."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(folder / "admin"))
        admin.sendall(b"show stat\n")
        rows = admin.makefile().read().splitlines()
    names = rows[0].lstrip("# ").split(",")
    checked = [row.split(",")[names.index("status")] for row in rows[1:] if ",s," in row and ",no check," not in row]
    good = len(checked) == 2 and all(status == "UP" for status in checked)
    print(f"{'ok  ' if good else 'FAIL'} {'health checks':26} {checked}")
    return good


def main() -> int:
    haproxy = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if haproxy is None:
        print("haproxy is not installed")
        return MISSING
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cert.pem").write_bytes(certificate())
        ports = {"clear": free_port(), "tls": free_port()}
        fronts = [free_port() for _ in WAYS]
        (folder / "haproxy.cfg").write_text(configuration(folder, ports, fronts))
        twist = [
            sys.executable,
            "-m",
            "twisted",
            "--log-file",
            str(folder / "log"),
            "smtpd",
            "-c",
            "haproxy_check.Witness",
        ]
        twist += ["-l", f"127.0.0.1:{ports['clear']}", "--listen-tls", f"127.0.0.1:{ports['tls']}"]
        twist += ["--tls-self-signed", f"--proxy-from={PROXY}", "--hostname", "mx.example"]
        here = Path(__file__).parent
        path = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
        with running(*twist, cwd=here, env={**os.environ, "PYTHONPATH": path}) as server:
            wait_for(ports["tls"], server)
            with running(haproxy, "-f", str(folder / "haproxy.cfg"), "-db", stdout=subprocess.DEVNULL) as proxy:
                wait_for(fronts[0], proxy)
                # Long enough for HAProxy's first health checks.
                time.sleep(1.5)
                outcome = [
                    check(way[0], front, way[4], way[5], way[6]) for way, front in zip(WAYS, fronts, strict=True)
                ]
                outcome += [check_stranger(ports["clear"]), health(folder)]
        if not all(outcome):
            print((folder / "log").read_text())
    print(f"{sum(outcome)} of {len(outcome)} as they should be")
    return 0 if all(outcome) else 1


def configuration(folder: Path, ports: dict[str, int], fronts: list[int]) -> str:
    pem = folder / "cert.pem"
    sections = [f"global\n    stats socket {folder / 'admin'} mode 600"]
    for index, ((_, bind, server, ours, *_), front) in enumerate(zip(WAYS, fronts, strict=True)):
        smtpchk = "\n    option smtpchk EHLO check.example" if " check" in server else ""
        sections.append(
            f"listen l{index}\n    bind 127.0.0.1:{front} {bind.format(pem=pem)}{smtpchk}\n"
            f"    server s 127.0.0.1:{ports[ours]} {server} inter 500"
        )
    return CONFIGURATION.format(sections="\n".join(sections))


def certificate() -> bytes:
    """A certificate and its key for HAProxy."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM) + private


if __name__ == "__main__":
    sys.exit(main())
