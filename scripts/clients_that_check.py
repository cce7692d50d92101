"""Have Django and nodemailer send through ``--tls-self-signed --tls-write-to``.

They are set up with the lines of ``docs/reference/tls.rst``:

    pip install django && npm install nodemailer && python scripts/clients_that_check.py

The commands and the settings are read from the section "Clients that check certificates"; only the port is another one.
Both clients check the certificate, so each is also tried without being told what to trust, and has to fail then.
Prints a line for each attempt; exits with 1 if one did not end as it should, with 77 if neither client is installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
LIMIT = 120  # seconds, for each client
MISSING = 77
PORT = "8025"

_MANAGE = """\
import os
from django.core.management import execute_from_command_line
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""
_SEND = """\
const nodemailer = require("nodemailer");
{transport}
transport.sendMail({{ from: "bart@example.com", to: "anne@example.com", subject: "Hello", text: "It works." }}).then(
  (sent) => console.log(sent.response),
  (error) => {{ console.error(error.message); process.exit(1); }},
);
"""


def lines_of_the_docs() -> dict[str, list[str]]:
    """The blocks of the section, by language."""
    page = (HOME / "docs" / "reference" / "tls.rst").read_text(encoding="utf-8")
    section = page.split("Clients that check certificates\n")[1].split("\n====")[0]
    blocks: dict[str, list[str]] = {}
    for language, block in re.findall(r"\.\. code-block:: (\S+)\n\n((?:    .*\n|\n)+)", section):
        blocks.setdefault(language, []).append(re.sub("(?m)^    ", "", block).strip())
    return blocks


def run(line: str, folder: Path, trusting: bool) -> subprocess.CompletedProcess[str]:
    """Run a client's line.

    :param trusting: whether to leave the variable in it that names what to trust.
    """
    variable, *words = shlex.split(line)
    name, _, value = variable.partition("=")
    environment = {name: value} if trusting else {}
    modules = [str(one / "node_modules") for one in (Path.cwd(), *Path.cwd().parents, HOME / "benchmarks")]
    if words[0] == "python":
        words[0] = sys.executable
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "NODE_PATH": os.pathsep.join(modules), **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def installed() -> set[str]:
    """Which of the clients are here."""
    found = {"Django"} if importlib.util.find_spec("django") else set()
    if shutil.which("node"):
        probe = run("X=1 node -e \"require('nodemailer')\"", HOME, trusting=True)
        found |= {"nodemailer"} if probe.returncode == 0 else set()
    return found


def main() -> int:
    clients = installed()
    for client in sorted({"Django", "nodemailer"} - clients):
        print(f"     {client} is not installed")
    if not clients:
        return MISSING
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    blocks = lines_of_the_docs()
    serve, django, node = blocks["sh"]
    settings, transport = (blocks[kind][0].replace(PORT, port) for kind in ("python", "javascript"))
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "manage.py").write_text(_MANAGE)
        (folder / "settings.py").write_text(f"{settings}\nSECRET_KEY = 'none'\nUSE_TZ = True\n")
        (folder / "send.js").write_text(_SEND.format(transport=transport))
        command = [sys.executable, "-m", "twisted_smtpd", *shlex.split(serve)[1:], "--listen", f"localhost:{port}"]
        path = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
        with (folder / "mail").open("wb") as mail:
            server = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                stdout=mail,
                stderr=subprocess.PIPE,
                text=True,
            )
        try:
            assert server.stderr is not None
            next(line for line in server.stderr if " listens on " in line)
            for client, line in (("Django", django), ("nodemailer", node)):
                for trusting in (True, False) if client in clients else ():
                    ended = run(line, folder, trusting)
                    good = (ended.returncode == 0) is trusting
                    bad += not good
                    last = (ended.stdout + ended.stderr).strip().splitlines()[-1:]
                    print(f"{'ok  ' if good else 'FAIL'} {client} {'with' if trusting else 'without'} the file:", *last)
        finally:
            server.terminate()
            server.communicate(timeout=30)
        got = (folder / "mail").read_text(encoding="utf-8").count("anne@example.com")
        print(f"{'ok  ' if got else 'FAIL'} the server has printed the mail")
        bad += not got
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
