"""Run programs that were written for aiosmtpd, after no other change than the package's name in their imports.

    python scripts/aiosmtpd_programs.py [--unchanged] [PROGRAM ...]

Downloads the source of each program from PyPI, makes a virtual environment for it with Twisted and pytest, replaces
``aiosmtpd`` in its import statements by ``twisted_smtpd``, and runs its own tests, or the program itself where it has
none.  With ``--unchanged`` it runs with aiosmtpd, to compare.  Needs the network, and a minute or two.

What came of it (Python 3.11, Twisted 26.10); docs/how-to/migrating.rst explains each failure:

* dsmtpd 1.2.1, a server that stores into a Maildir: 27 of its 28 tests pass.  The other one wants the sender of a
  message with SMTPUTF8 in an encoded word.
* smtp-test-server 0.1.0, a server for tests: keeps its messages.
* maildirsink 0.1.3, a command: takes mail and ends with Ctrl-C.
* Mailrise 1.4.0, a gateway to notifications: its 13 tests pass.
* GNU Mailman 3.3.10, the tests of its LMTP server: 17 of 20 pass.  The others compare a whole reply of a hook, which
  has an enhanced status code here.
* Django 5.2.19, the tests of sending mail: 208 of 210 pass.  The others send from ``tester``, without a domain.
* Trac 1.6, the tests of its notifications: 83 of 84 pass.  The other one sends to ``john``, without a domain.
* smtpdfix 0.5.3, a pytest fixture: 74 of its 88 tests pass.  It has a STARTTLS command of its own, written with
  asyncio's streams, which 11 of the others use; 2 give a mock for an ``ssl.SSLContext``; 1 wants the time a handshake
  may take to be 5 seconds, which it sets by overriding a private method of the controller.
* pytest-localserver 0.10.0, the tests of its SMTP server: none of 6 passes whole, since it stops its controller by
  means of ``controller.cancel_tasks`` and the private ``controller._thread``, and servers share a thread here.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parent.parent
TIME_LIMIT = 600

IMPORT = re.compile(r"^(\s*(?:from|import)\s+)aiosmtpd\b", re.MULTILINE)
PATCH = re.compile(r"""(["'])aiosmtpd\.""")
# `import aiosmtpd.smtp` binds the package's name, which is used below then.
WHOLE = re.compile(r"^\s*import\s+aiosmtpd\b", re.MULTILINE)
USE = re.compile(r"\baiosmtpd\.")

USE_MOCK_SERVER = """
import smtplib
from smtp_test_server.context import SmtpMockServer
with SmtpMockServer() as server:
    with smtplib.SMTP(server.host, server.port) as client:
        client.sendmail("a@example.com", ["b@example.com"], "Subject: one\\n\\nHello\\n")
        client.sendmail("a@example.com", ["b@example.com", "c@example.com"], "Subject: two\\n\\nHello\\n")
assert [message["Subject"] for message in server.messages] == ["one", "two"], server.messages
print("2 messages kept")
"""

USE_MAILDIRSINK = """
import signal, smtplib, socket, subprocess, sys, tempfile, time
from pathlib import Path
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "maildirsink", "--host=127.0.0.1", f"--port={port}", f"--dir={folder}/mail"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for attempt in range(100):
        try:
            client = smtplib.SMTP("127.0.0.1", port)
            break
        except OSError:
            time.sleep(0.1)
    for number in range(3):
        client.sendmail("a@example.com", ["b@example.com"], f"Subject: {number}\\n\\nHello\\n")
    client.quit()
    server.send_signal(signal.SIGINT)
    log = server.communicate(timeout=20)[1]
    assert server.returncode == 0, log
    stored = [path for path in Path(folder, "mail", "new").iterdir()]
    assert len(stored) == 3, (stored, log)
print("3 messages stored")
"""

# Where the import fails, Trac's tests use another server.
TRAC_TESTS = """
import unittest, trac.tests._aiosmtpd
unittest.main(None, argv=["", "trac.tests.notification", "trac.ticket.tests.notification"])
"""


@dataclass(frozen=True)
class Program:
    """A program on PyPI.

    :ivar needs: what it, or its tests, need besides pytest.
    :ivar run: the arguments for Python, in the program's folder.
    :ivar path: where its packages are.
    """

    name: str
    version: str
    run: tuple[str, ...]
    needs: tuple[str, ...] = field(default=())
    path: str = "."


PYTEST = ("-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider")

PROGRAMS = (
    Program("dsmtpd", "1.2.1", (*PYTEST, "tests")),
    Program("smtp-test-server", "0.1.0", ("-c", USE_MOCK_SERVER)),
    Program("maildirsink", "0.1.3", ("-c", USE_MAILDIRSINK), path="src"),
    Program(
        "smtpdfix",
        "0.5.3",
        (*PYTEST, "--timeout=60", "tests"),
        ("pytest-asyncio", "pytest-timeout", "portpicker", "cryptography"),
    ),
    # Its own package brings what it needs; the one in the folder, with the changed imports, comes first.
    Program(
        "mailman",
        "3.3.10",
        ("-m", "nose2", "-v", "-P", "test_lmtp"),
        ("mailman == 3.3.10", "flufl.testing", "nose2"),
        path="src",
    ),
    Program("django", "5.2.19", ("tests/runtests.py", "mail", "--parallel", "1"), ("asgiref", "sqlparse")),
    Program("mailrise", "1.4.0", (*PYTEST, "tests"), ("apprise == 1.4.5", "PyYAML", "pytest-asyncio"), path="src"),
    Program("pytest-localserver", "0.10.0.post0", (*PYTEST, "tests/test_smtp.py"), ("werkzeug",)),
    Program("Trac", "1.6", ("-c", TRAC_TESTS), ("Jinja2", "setuptools < 81")),
)


def fetch(program: Program, folder: Path) -> Path:
    """Download and unpack a program; returns its folder."""
    pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--no-binary=:all:", "-d", str(folder)]
    subprocess.run([*pip, f"{program.name}=={program.version}"], check=True, timeout=TIME_LIMIT)
    (archive,) = folder.iterdir()
    shutil.unpack_archive(archive, folder, filter="data")
    (unpacked,) = (entry for entry in folder.iterdir() if entry.is_dir())
    return unpacked


def change_imports(folder: Path) -> int:
    """Replace the package's name in imports, and where they bind it; returns in how many places."""
    places = 0
    for path in folder.rglob("*.py"):
        text, uses = path.read_text("utf-8"), 0
        if WHOLE.search(text):
            text, uses = USE.subn("twisted_smtpd.", text)
        text, imports = IMPORT.subn(r"\1twisted_smtpd", text)
        text, patches = PATCH.subn(r"\1twisted_smtpd.", text)
        if uses or imports or patches:
            path.write_text(text, "utf-8")
        places += uses + imports + patches
    return places


def try_out(program: Program, unchanged: bool) -> bool:
    """Run a program; returns whether it went well."""
    with tempfile.TemporaryDirectory() as folder:
        source, environment = Path(folder, "source"), Path(folder, "venv")
        source.mkdir()
        home = fetch(program, source)
        venv.create(environment, with_pip=True)
        python = str(environment / "bin" / "python")
        server = "aiosmtpd" if unchanged else "twisted[tls] >= 24.7"
        subprocess.run(
            [python, "-m", "pip", "-q", "install", server, "pytest", *program.needs], check=True, timeout=TIME_LIMIT
        )
        if unchanged:
            print(f"== {program.name} {program.version}, unchanged", flush=True)
        else:
            print(f"== {program.name} {program.version}, {change_imports(home)} imports changed", flush=True)
        paths = [str(home / program.path), str(PROJECT)]
        ended = subprocess.run(
            [python, *program.run],
            cwd=home,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=TIME_LIMIT,
        )
        print(f"== {program.name}: {'good' if ended.returncode == 0 else f'status {ended.returncode}'}", flush=True)
        return ended.returncode == 0


def main() -> int:
    """Run the programs named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Run programs written for aiosmtpd on twisted-smtpd.")
    parser.add_argument("--unchanged", action="store_true", help="run them with aiosmtpd instead")
    parser.add_argument("program", nargs="*", choices=[[], *(program.name for program in PROGRAMS)])
    options = parser.parse_args()
    chosen = [program for program in PROGRAMS if not options.program or program.name in options.program]
    return min(1, sum(not try_out(program, options.unchanged) for program in chosen))


if __name__ == "__main__":
    sys.exit(main())
