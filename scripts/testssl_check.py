"""Run testssl.sh against a real server: STARTTLS and TLS from the start, with an RSA and with an ECDSA certificate, and
with either library for TLS.

    python scripts/testssl_check.py [rsa] [ecdsa] [ssl] [pyopenssl]

The certificates are signed by an authority made for the occasion, which testssl.sh is told to trust.  Everything
happens on the loopback: nothing is looked up or fetched.  Findings worse than INFO are printed.  The exit status is 1
if one of them is MEDIUM, HIGH or CRITICAL, or if testssl.sh could not examine something; 77 if it is not installed (on
Debian: ``apt install testssl.sh``).  It takes some minutes.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from twisted_smtpd.auth.passwords import set_password  # noqa: E402

LIMIT = 900  # seconds, for one run of testssl.sh
MISSING = 77
GOOD = ("OK", "INFO", "DEBUG")
TOLERATED = ("LOW",)
# Warnings about testssl.sh's own tools.  Any other one is something it could not examine, so it counts.
NO_TICKET = "openssl s_client may hang up before it has read the tickets that TLS 1.3 sends last"
OF_THE_TOOL = {
    "engine_problem": "its OpenSSL can't try GOST, which no OpenSSL offers by itself",
    "sessionresumption_ticket": NO_TICKET,
    "sessionresumption_ID": NO_TICKET,
}

KINDS, LIBRARIES = ("rsa", "ecdsa"), {"ssl": "the standard library", "pyopenssl": "pyOpenSSL"}
PROGRAMS = ("testssl", "testssl.sh")
Key = Any


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def sign(subject: str, key: Key, issuer: str, issuer_key: Key, authority: bool) -> x509.Certificate:
    """A certificate of 80 days as an authority on the Internet would issue it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    rsa_server = not authority and isinstance(key, rsa.RSAPrivateKey)
    usage = {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
    usage["key_encipherment"] = rsa_server
    others = ("content_commitment", "data_encipherment", "key_agreement", "encipher_only")
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=80))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(**usage, **dict.fromkeys((*others, "decipher_only"), False)),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        ocsp = x509.UniformResourceIdentifier("http://ocsp.invalid/")
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, ocsp)
        builder = (
            builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        )
    return builder.sign(issuer_key, hashes.SHA256())


def write_certificates(folder: Path, kind: str) -> None:
    """``ca.pem``, and ``server.pem`` with the key in it."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = sign("Throw-away Authority", root_key, "Throw-away Authority", root_key, authority=True)
    key: Key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    server = sign("localhost", key, "Throw-away Authority", root_key, authority=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "ca.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(Encoding.PEM) + private)


@contextlib.contextmanager
def serving(folder: Path, library: str) -> Iterator[tuple[int, int]]:
    """The server as the command line makes it; its ports for STARTTLS and for TLS from the start."""
    command = [sys.executable, "-m", "twisted", "--log-format=text", "--log-level=debug", "smtpd", "-c", "sink"]
    command += ["--hostname=localhost", "--tlscert=server.pem", "-l", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"]
    if library == "pyopenssl":
        # Channel binding needs it.
        set_password(folder / "users", "user", "secret", scram=True)
        command += ["--auth-file", "users"]
    path = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        try:
            for line in server.stdout:
                log.write(line.encode())
                log.flush()
                if " listens on " in line:
                    clear, secure = (int(part.split()[0]) for part in line.split("127.0.0.1:")[1:])
                    break
            else:
                raise SystemExit("the server did not start")
            # The log goes on, and a full pipe would stop the server.
            drain = subprocess.Popen(["cat"], stdin=server.stdout, stdout=log)
            yield clear, secure
        finally:
            server.terminate()
            server.wait(timeout=30)
    drain.wait(timeout=30)


def examine(program: str, folder: Path, label: str, port: int, *how: str) -> list[dict[str, str]]:
    """What testssl.sh finds at a port."""
    report = folder / f"{label}.json"
    command = [program, *how, "--quiet", "--color=0", "--warnings=batch", "--nodns=none", "--ip=127.0.0.1"]
    command += ["--full", f"--add-ca={folder / 'ca.pem'}", f"--jsonfile={report}", f"localhost:{port}"]
    with (folder / f"{label}.txt").open("wb") as output:
        subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=LIMIT)
    findings: list[dict[str, str]] = json.loads(report.read_text())
    return findings


def judge(label: str, findings: list[dict[str, str]]) -> bool:
    """Print what is worse than INFO; whether all of it may stay."""
    good = any(finding["id"] == "scanTime" and finding["severity"] == "INFO" for finding in findings)
    if not good:
        print(f"FAIL {label}: testssl.sh did not finish")
    for finding in findings:
        severity = finding["severity"]
        if severity in GOOD:
            continue
        excuse = OF_THE_TOOL.get(finding["id"]) if severity == "WARN" else None
        fine = severity in TOLERATED or excuse is not None
        good = good and fine
        reason = f"  [{excuse}]" if excuse else ""
        print(f"{'ok  ' if fine else 'FAIL'} {label}: {severity} {finding['id']}: {finding['finding']}{reason}")
    counted = ", ".join(
        f"{sum(finding['severity'] == severity for finding in findings)} {severity}"
        for severity in ("OK", "INFO", "LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN")
    )
    print(f"{'ok  ' if good else 'FAIL'} {label}: {counted}", flush=True)
    return good


def main(wanted: list[str]) -> int:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        print("testssl.sh is not installed")
        return MISSING
    outcome = []
    chosen = [kind for kind in KINDS if kind in wanted] or KINDS
    for kind, library in itertools.product(chosen, [name for name in LIBRARIES if name in wanted] or LIBRARIES):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            write_certificates(folder, kind)
            with serving(folder, library) as (clear, secure), ThreadPoolExecutor() as pool:
                runs = {
                    "STARTTLS": pool.submit(examine, program, folder, "starttls", clear, "--starttls=smtp"),
                    "implicit TLS": pool.submit(examine, program, folder, "implicit", secure),
                }
                outcome += [judge(f"{kind} {library} {label}", run.result()) for label, run in runs.items()]
            log = (folder / "log").read_text()
            if f" by {LIBRARIES[library]}" not in log:
                print(f"FAIL {library} was not used")
                outcome.append(False)
            if "Traceback" in log:
                print("FAIL the server's log has a traceback")
                outcome.append(False)
    return 0 if all(outcome) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
