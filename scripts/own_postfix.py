"""A Postfix of one's own, in a folder and on the loopback only; as root, which Postfix wants."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from queue_lab import free_port

WAIT = 60

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mail_owner = postfix
myhostname = next.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
notify_classes =
message_size_limit = 50000000
smtpd_client_connection_count_limit = 0
smtpd_recipient_restrictions = permit_mynetworks, reject
default_process_limit = 200
"""

MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def is_here() -> bool:
    """Whether there is a Postfix, and the right to start it."""
    return os.geteuid() == 0 and shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None


class Postfix:
    """A Postfix.

    :param folder: an empty folder for all of it.
    :param settings: lines for ``main.cf``.
    """

    def __init__(self, folder: Path, settings: Sequence[str] = ()) -> None:
        self.folder, self.port = folder, free_port()
        for parent in (folder, *folder.parents[:1]):
            parent.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (folder / name).mkdir()
        text = MAIN_CF.format(folder=folder) + "".join(f"{line}\n" for line in settings)
        (folder / "etc" / "main.cf").write_text(text)
        (folder / "etc" / "master.cf").write_text(MASTER_CF.format(port=self.port))
        shutil.chown(folder / "data", "postfix")

    def run(self, *command: str) -> str:
        """Run one of Postfix's commands."""
        words = [command[0], "-c", str(self.folder / "etc"), *command[1:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT)
        if done.returncode:
            raise SystemExit(f"FAILED: {' '.join(words)}: {done.stdout}{done.stderr}{self.log()}")
        return done.stdout

    def __enter__(self) -> Postfix:
        self.run("postfix", "start")
        return self

    def __exit__(self, *error: object) -> None:
        self.run("postfix", "stop")

    def log(self) -> str:
        """Its log."""
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def outcomes(self, address: str) -> list[str]:
        """The statuses that it logged for a recipient."""
        return re.findall(rf"to=<{re.escape(address)}>,.* status=(\w+)", self.log())


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    """What is found, once it is there."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.1)
    raise SystemExit(f"FAILED: no {what} within {WAIT} s")
