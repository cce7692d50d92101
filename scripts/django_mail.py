"""Django's own tests of sending mail, with twisted-smtpd's server for tests in the place of aiosmtpd's controller.

Run it with the Python of an environment that has twisted-smtpd and Django; pip fetches the source of that Django, which
has the tests.  It ends with the status of Django's test runner.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

# Stands for `aiosmtpd.controller`: Django's handler decides, and the server for tests keeps what it takes.
CONTROLLER = """
import atexit
from twisted_smtpd.testing import MailServer

servers = []

class Controller(MailServer):
    def __init__(self, handler, hostname, port):
        super().__init__(hostname=hostname, port=port, starttls=False, auth=False, default_domain="nowhere.example")
        keep = self.handler.handle_DATA
        async def handle_DATA(server, session, envelope):
            # Two tests send from "tester", and expect it so.
            envelope.mail_from = envelope.mail_from.removesuffix("@nowhere.example")
            status = await handler.handle_DATA(server, session, envelope)
            return await keep(server, session, envelope) if status.startswith("250") else status
        self.handler.handle_DATA = handle_DATA
        servers.append(self)

@atexit.register
def tell():
    kept = sum(len(server.messages) for server in servers)
    print(f"{len(servers)} servers of twisted_smtpd.testing kept {kept} messages")
"""


def main() -> None:
    """Fetch Django's tests, and run them."""
    django = version("django")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = (
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            f"django=={django}",
        )
        subprocess.run((*pip, "--dest", name), check=True)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (source,) = folder.glob("django-*/tests")
        stands_in = folder / "stands_in" / "aiosmtpd"
        stands_in.mkdir(parents=True)
        (stands_in / "__init__.py").write_text("")
        (stands_in / "controller.py").write_text(CONTROLLER)
        path = os.pathsep.join((str(stands_in.parent), str(source.parent)))
        run = subprocess.run(
            (sys.executable, "runtests.py", "mail", "--parallel", "1"),
            cwd=source,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        print(f"Django {django}")
    sys.exit(run.returncode)


main()
