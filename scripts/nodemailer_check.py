"""Have nodemailer, a mail client for Node.js, sign in and send: STARTTLS and TLS from the start, by each mechanism.

    npm install nodemailer && python scripts/nodemailer_check.py

Node finds nodemailer in a ``node_modules`` of the current folder, of one above it, or in ``benchmarks``.  The
certificate is signed by an authority made for the occasion, which nodemailer is told to trust: it verifies the chain
and the name.  Prints a line for each attempt; exits with 1 if one did not end as it should, with 77 if Node.js or
nodemailer is not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from tests.support.tls_helpers import issue  # noqa: E402

LIMIT = 120  # seconds, for everything that nodemailer does
MISSING = 77

SERVER = """
import email.message
import email.policy
import sys
from twisted.internet import endpoints, reactor
from twisted.internet.defer import gatherResults
from twisted.python import log
from twisted_smtpd import SMTPFactory
from twisted_smtpd.auth import AuthResult, Identity
from twisted_smtpd.factory import ImplicitTLS
from twisted_smtpd.tls import CertificateFiles

TEXT = ".dot\\n" + "line of text\\n" * 3000 + ".dot\\n.\\nQUIT\\n" + "\\u20ac" * 1000

class Authenticator:
    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2")

    async def __call__(self, server, session, envelope, mechanism, data):
        if mechanism == "CRAM-MD5":
            right = data.check("corr\\u00e8ct horse".encode())
        elif mechanism == "XOAUTH2":
            right = data.token == "ya29.token"
        else:
            right = data.password == "corr\\u00e8ct horse".encode()
        session.mechanism = mechanism
        return AuthResult(success=right and data.login == b"anne", handled=False, auth_data=Identity(data.login))

class Handler:
    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text = message.get_content().replace("\\r\\n", "\\n")
        whole = message["Subject"] == "Gr\\u00fc\\u00dfe" and text.rstrip("\\n") == TEXT
        about = f"{session.mechanism} {session.ssl.version} from {session.login_data.decode()}"
        return f"250 {about} {'whole' if whole else 'NOT WHOLE'}"

log.startLogging(sys.stderr, setStdout=False)
certificates = CertificateFiles("server.pem")
factory = SMTPFactory(
    Handler(), hostname="localhost", tls_context=certificates, require_starttls=True,
    authenticator=Authenticator(), auth_mechanisms=Authenticator.mechanisms, auth_required=True,
)
def listening(ports):
    print(*(port.getHost().port for port in ports), flush=True)
gatherResults([
    endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(each)
    for each in (factory, ImplicitTLS(factory, certificates))
]).addCallback(listening)
reactor.run()
"""

CLIENT = """
const { readFileSync } = require("fs");
const nodemailer = require("nodemailer");
const [clear, secure] = process.argv.slice(2).map(Number);
const text = ".dot\\n" + "line of text\\n".repeat(3000) + ".dot\\n.\\nQUIT\\n" + "\\u20ac".repeat(1000);

async function attempt(way, method, right) {
  const oauth = { type: "OAuth2", user: "anne", accessToken: right ? "ya29.token" : "wrong" };
  const password = { user: "anne", pass: right ? "corr\\u00e8ct horse" : "wrong" };
  const transport = nodemailer.createTransport({
    host: "localhost", port: way === "implicit" ? secure : clear, secure: way === "implicit",
    requireTLS: way === "starttls", ignoreTLS: way === "clear", authMethod: method,
    tls: { ca: readFileSync("ca.pem"), servername: "localhost" }, connectionTimeout: 20000, socketTimeout: 20000,
    auth: method === "XOAUTH2" ? oauth : password,
  });
  const result = { way, method, right };
  try {
    const sent = await transport.sendMail({
      from: "anne@example.com", to: "bart@example.com", cc: "carl@example.com", subject: "Gr\\u00fc\\u00dfe", text,
    });
    result.said = sent.response;
  } catch (error) {
    result.said = error.response || error.message;
  }
  transport.close();
  console.log(JSON.stringify(result));
}

(async () => {
  for (const way of ["starttls", "implicit"])
    for (const method of ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"])
      for (const right of [true, false]) await attempt(way, method, right);
  await attempt("clear", "PLAIN", true);
})();
"""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[list[str]]:
    """The server; its ports for STARTTLS and for TLS from the start."""
    path = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()
        finally:
            server.terminate()
            server.communicate(timeout=30)


def expected(way: str, method: str, right: bool) -> tuple[str, str]:
    """How the answer to an attempt begins and ends."""
    if way == "clear":
        return "530 5.7.0", ""
    if right:
        return f"250 2.0.0 {method} TLSv1.3 from anne", " whole"
    return "535 5.7.8", ""


def main() -> int:
    node = shutil.which("node")
    modules = [str(folder / "node_modules") for folder in (Path.cwd(), *Path.cwd().parents, HOME / "benchmarks")]
    environment = {**os.environ, "NODE_PATH": os.pathsep.join(modules)}
    find = "console.log(require('nodemailer/package.json').version)"
    found = node and subprocess.run([node, "-e", find], env=environment, capture_output=True, text=True)
    if not node or not found or found.returncode:
        print("Node.js or nodemailer is not installed")
        return MISSING
    outcome = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = issue("Throw-away Authority", ca=True)
        issued = issue("localhost", issuer=authority)
        (folder / "server.pem").write_bytes(issued.pem + issued.key_pem)
        (folder / "ca.pem").write_bytes(authority.pem)
        (folder / "client.js").write_text(CLIENT)
        with serving(folder) as ports:
            client = subprocess.run(
                [node, "client.js", *ports], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT
            )
        print(f"nodemailer {found.stdout.strip()}")
        for line in client.stdout.splitlines():
            attempt = json.loads(line)
            said = attempt.pop("said")
            begins, ends = expected(**attempt)
            good = said.startswith(begins) and said.endswith(ends)
            outcome.append(good)
            secret = "right secret" if attempt["right"] else "wrong secret"
            print(f"{'ok  ' if good else 'FAIL'} {attempt['way']:8} {attempt['method']:8} {secret}: {said}")
        if client.stderr:
            print(client.stderr)
        if "Traceback" in (folder / "log").read_text():
            print("FAIL the server's log has a traceback")
            outcome.append(False)
    good = len(outcome) == 17 and all(outcome)
    print(f"{sum(outcome)} of 17 as they should be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
