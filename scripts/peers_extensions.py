"""Asks other mail servers which ESMTP extensions they offer.

It makes the table of ``docs/reference/extensions.rst`` of it.

``python scripts/peers_extensions.py [--write docs/reference/]`` starts each server that is installed, twice: as it
is, with a certificate and a way to authenticate where it needs them, and with all extensions turned on that can be.
Each time it says EHLO before and after STARTTLS.  aiosmtpd and twisted.mail are Python packages, smtp-server is an
npm package (``npm install --prefix benchmarks``), Postfix and Exim need root.  go-smtp is not started: what is said
of it is quoted from its source.  Exits with 77 if a server is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mail_clients import HERE, Relay, user_of_exim
from postfix_lmtp import SKIPPED, WAIT, free_port, wait_for

KEYWORDS = (
    *("SIZE", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "DSN", "LIMITS"),
    *("REQUIRETLS", "STARTTLS", "AUTH", "XCLIENT", "EXPN", "ETRN", "MT-PRIORITY", "DELIVERBY", "FUTURERELEASE", "RRVS"),
)
#: From ``handleGreet`` in its conn.go, commit 6944e338.
GO_SMTP = {
    **dict.fromkeys(("SIZE", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "LIMITS"), "yes"),
    **dict.fromkeys(("STARTTLS", "AUTH"), "yes"),
    **dict.fromkeys(("SMTPUTF8", "BINARYMIME", "DSN", "REQUIRETLS", "MT-PRIORITY", "DELIVERBY", "RRVS"), "option"),
}
#: It would take Dovecot or Cyrus SASL.
NOT_TRIED = {"Postfix": {"AUTH": "not tried"}}

AIOSMTPD = """
import ssl, sys, time
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import AuthResult
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
more = {"enable_SMTPUTF8": True} if sys.argv[3] == "all" else {}
Controller(Sink(), hostname="127.0.0.1", port=int(sys.argv[1]), tls_context=context, auth_require_tls=False,
           authenticator=lambda *_: AuthResult(success=True), **more).start()
time.sleep(60)
"""

SMTP_SERVER = """
const {SMTPServer} = require(process.argv[4] + '/smtp-server');
const pem = require('fs').readFileSync(process.argv[2]);
const all = process.argv[3] == 'all' ? {hideENHANCEDSTATUSCODES: false, hideDSN: false, hideREQUIRETLS: false,
    useXClient: true, useXForward: true, size: 1e6} : {};
new SMTPServer({key: pem, cert: pem, onAuth(auth, session, done) { done(null, {user: 1}); }, ...all})
    .listen(+process.argv[1], '127.0.0.1');
setTimeout(() => process.exit(), 60000);
"""

EXIM = """\
primary_hostname = exim.example
spool_directory = {folder}
log_file_path = {folder}/%slog
exim_user = {user}
exim_group = {group}
keep_environment =
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
tls_advertise_hosts = *
tls_certificate = {pem}
acl_smtp_rcpt = accept
{more}
begin acl
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = true
begin routers
begin transports
begin retry
"""
EXIM_ALL = """\
dsn_advertise_hosts = *
prdr_enable = true
acl_smtp_etrn = accept
acl_smtp_vrfy = accept
acl_smtp_expn = accept
"""
POSTFIX_ALL = """\
smtpd_authorized_xclient_hosts = 127.0.0.1
"""

#: Started with a port, a file with a certificate and its key, and whether all is to be on.
Start = Callable[[int, Path, bool], "contextlib.AbstractContextManager[object]"]


@contextlib.contextmanager
def running(*command: str) -> Iterator[None]:
    """A process, ended at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def word(everything: bool) -> str:
    """For a program's command line."""
    return "all" if everything else "default"


def aiosmtpd(port: int, pem: Path, everything: bool) -> contextlib.AbstractContextManager[object]:
    """Aiosmtpd's controller."""
    return running(sys.executable, "-c", AIOSMTPD, str(port), str(pem), word(everything))


def twisted_mail(port: int, pem: Path, everything: bool) -> contextlib.AbstractContextManager[object]:
    """The server of the benchmarks."""
    script = HERE.parent / "benchmarks" / "servers" / "with_twisted_mail.py"
    return running(sys.executable, str(script), "--port", str(port), "--tls=starttls", f"--certificate={pem}", "--auth")


def smtp_server(port: int, pem: Path, everything: bool) -> contextlib.AbstractContextManager[object]:
    """Nodemailer's."""
    modules = os.environ.get("NODE_MODULES", str(HERE.parent / "benchmarks" / "node_modules"))
    return running("node", "-e", SMTP_SERVER, str(port), str(pem), word(everything), modules)


@contextlib.contextmanager
def postfix(port: int, pem: Path, everything: bool) -> Iterator[None]:
    """A Postfix of its own; its AUTH needs Dovecot or Cyrus SASL, and is not tried."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        relay = Relay(Path(name) / "postfix", 25)
        for file, old, new in (
            ("main.cf", "notify", f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {pem}\nnotify"),
            ("main.cf", "relayhost", (POSTFIX_ALL if everything else "") + "relayhost"),
            ("master.cf", f":{relay.port} ", f":{port} "),
            ("master.cf", "pickup", "tlsmgr unix - - n 1000? 1 tlsmgr\npickup"),
        ):
            path = relay.folder / "etc" / file
            path.write_text(path.read_text().replace(old, new, 1))
        relay.run("postfix", "start")
        try:
            yield
        finally:
            relay.run("postfix", "stop")


@contextlib.contextmanager
def exim(port: int, pem: Path, everything: bool) -> Iterator[None]:
    """An Exim of its own."""
    program = os.environ.get("EXIM") or shutil.which("exim4", path="/usr/sbin") or "exim4"
    user, group = user_of_exim()
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shutil.chown(name, user)
        shutil.chown(pem, user)
        conf = Path(name) / "conf"
        more = EXIM_ALL if everything else ""
        conf.write_text(EXIM.format(folder=name, user=user, group=group, port=port, pem=pem, more=more))
        with running(program, "-C", str(conf), "-bdf"):
            yield


PEERS: dict[str, Start] = {
    "aiosmtpd": aiosmtpd,
    "twisted.mail": twisted_mail,
    "smtp-server": smtp_server,
    "Postfix": postfix,
    "Exim": exim,
}
VERSIONS = {
    "aiosmtpd": [sys.executable, "-c", "import importlib.metadata as m; print(m.version('aiosmtpd'))"],
    "twisted.mail": [sys.executable, "-c", "import importlib.metadata as m; print(m.version('twisted'))"],
    "smtp-server": [
        *("node", "-p", "require(process.argv[1] + '/smtp-server/package.json').version"),
        os.environ.get("NODE_MODULES", str(HERE.parent / "benchmarks" / "node_modules")),
    ],
    "Postfix": ["postconf", "-h", "mail_version"],
    "Exim": [os.environ.get("EXIM") or "exim4", "-bV", "-C", "/dev/null"],
}


def version(name: str) -> str | None:
    """A server's version; ``None`` if it is not installed."""
    try:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin"
        done = subprocess.run(VERSIONS[name], capture_output=True, text=True, env={**os.environ, "PATH": path})
    except OSError:
        return None
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
    return found[0] if found and done.returncode == 0 else None


def offered(port: int) -> set[str]:
    """The keywords of a server, before and after STARTTLS."""

    def connected() -> smtplib.SMTP | None:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            return smtplib.SMTP("127.0.0.1", port, timeout=WAIT)
        return None

    with wait_for("banner", connected) as client:
        client.ehlo("client.example")
        found = {keyword.upper() for keyword in client.esmtp_features}
        client.starttls(context=ssl._create_unverified_context())
        client.ehlo("client.example")
        return found | {keyword.upper() for keyword in client.esmtp_features}


def table(columns: dict[str, dict[str, str]]) -> str:
    """A column for each server."""
    lines = [".. list-table::", "   :header-rows: 1", "", "   * - keyword", *(f"     - {name}" for name in columns)]
    for keyword in KEYWORDS:
        lines += [f"   * - {keyword}", *(f"     - {found.get(keyword, 'no')}" for found in columns.values())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the table there")
    arguments = parser.parse_args()
    columns: dict[str, dict[str, str]] = {}
    missing = [name for name in PEERS if version(name) is None]
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        pem = Path(name) / "both.pem"
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x.example -days 2"
        )
        subprocess.run([*command.split(), "-keyout", pem, "-out", f"{pem}.crt"], check=True, capture_output=True)
        pem.write_text(pem.read_text() + Path(f"{pem}.crt").read_text())
        for peer, start in PEERS.items():
            if peer in missing:
                continue
            found = []
            for everything in (False, True):
                port = free_port()
                with start(port, pem, everything):
                    found.append(offered(port))
            columns[f"{peer} {version(peer)}"] = {
                keyword: "yes" if keyword in found[0] else "option" for keyword in found[0] | found[1]
            } | NOT_TRIED.get(peer, {})
    columns["go-smtp"] = GO_SMTP
    print(table(columns))
    if missing:
        print(f"not installed: {', '.join(missing)}")
        return SKIPPED
    if arguments.write is not None:
        (arguments.write / "peers-extensions.txt").write_text(table(columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
