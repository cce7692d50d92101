"""The way of someone who has never used the server for tests: a virtual environment, an install, six lines, green.

Run it with any Python; it installs this project and pytest.  It prints the commands, what they print, and how long they
take; and ends with status 1 if the test does not pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
TEST = HOME / "examples" / "testing" / "test_hello.py"
# What is installed is a copy, so that no build/ is left here.
PARTS = ("twisted_smtpd", "twisted", "setup.cfg", "pyproject.toml", "README.rst", "LICENSE")
LIMIT = 570  # seconds, for an install that hangs


def step(shown: str, *command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command, and print it as a person would type it."""
    print(f"$ {shown}", flush=True)
    begin = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT)
    print(run.stdout + (run.stderr if run.returncode else ""), end="")
    print(f"    # {time.perf_counter() - begin:.1f} s", flush=True)
    if run.returncode:
        sys.exit(f"status {run.returncode}")
    return run


def copy_project(folder: Path) -> None:
    """Copy what an install needs."""
    folder.mkdir()
    for part in PARTS:
        if (HOME / part).is_dir():
            shutil.copytree(HOME / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        else:
            shutil.copy(HOME / part, folder)


def main() -> None:
    """Take each step."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_hello.py").write_text(TEST.read_text())
        copy_project(folder / "twisted-smtpd")
        lines = len([line for line in TEST.read_text().splitlines() if line])
        step("python -m venv .venv", sys.executable, "-m", "venv", ".venv", folder=folder)
        python = str(folder / ".venv" / "bin" / "python")
        pip = "-m", "pip", "install", "--quiet", "--disable-pip-version-check"
        step("pip install ./twisted-smtpd pytest", python, *pip, "./twisted-smtpd", "pytest", folder=folder)
        step(f"pytest test_hello.py    # {lines} lines", python, "-m", "pytest", "test_hello.py", folder=folder)
        run = step("pytest test_hello.py    # again", python, "-m", "pytest", "-q", "test_hello.py", folder=folder)
    print(f"green after {time.perf_counter() - begin:.0f} s")
    sys.exit(0 if "1 passed" in run.stdout else "the test has not passed")


main()
