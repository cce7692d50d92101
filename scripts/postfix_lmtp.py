"""Shows twisted-smtpd's LMTP behind a real Postfix: it delivers, defers and bounces per recipient.

``python scripts/postfix_lmtp.py`` (as root: Postfix wants it) starts a Postfix of its own, with its queue and its
configuration in a temporary folder and on the loopback only, and ``twist smtpd --lmtp`` with the handler below on a
Unix socket and on TCP.  Over each it sends one message to four recipients through Postfix, and prints what Postfix
made of the answer for each, from its log.  The deferred one is delivered when the queue is flushed, and only to that
recipient; the bounced one comes back to the sender, as a message of its own, over LMTP too.  Exits with 1 if anything
is different, with 77 where there is no Postfix or no root.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
SKIPPED = 77
WAIT = 60
RECIPIENTS = ("deliver", "defer", "bounce", "deliver.too")

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mail_owner = postfix
myhostname = mx.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
transport_maps = inline:{{
    {{ unix.example = lmtp:unix:{folder}/lmtp }},
    {{ tcp.example = lmtp:inet:127.0.0.1:{lmtp} }} }}
default_transport = error:5.1.2 nowhere else
notify_classes =
"""

MASTER_CF = """\
127.0.0.1:{smtp} inet n - n - - smtpd
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
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Verdicts:
    """Decides by the recipient's local part; a deferred recipient is deferred once."""

    def __init__(self) -> None:
        self.deferred: set[str] = set()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> AsyncIterator[str]:
        """Yield a status for each recipient, and note what was taken."""
        for address in envelope.rcpt_tos:
            verdict = self.verdict(address)
            with open(os.environ["NOTES"], "a") as notes:
                note = {"from": envelope.mail_from, "to": address, "said": verdict, "together": len(envelope.rcpt_tos)}
                notes.write(json.dumps({**note, "bounce": b"multipart/report" in envelope.content}) + "\n")
            yield verdict

    def verdict(self, address: str) -> str:
        """What becomes of the message for this recipient."""
        word = address.partition("@")[0]
        if word == "bounce":
            return "550 5.1.1 No such mailbox"
        if word == "defer" and address not in self.deferred:
            self.deferred.add(address)
            return "452 4.2.2 Mailbox full for now"
        return "250 2.1.5 Delivered"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    """What is found, once it is there."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.1)
    raise SystemExit(f"FAILED: no {what} within {WAIT} s")


@contextlib.contextmanager
def lmtp_server(folder: Path) -> Iterator[int]:
    """``twist smtpd --lmtp``; gives its TCP port."""
    path = os.pathsep.join(filter(None, [str(HERE.parent.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NOTES": str(folder / "notes")}
    places = ["-l", f"unix:{folder}/lmtp:mode=666", "-l", "127.0.0.1:0"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "twisted",
            "--log-format=text",
            "smtpd",
            "--lmtp",
            *places,
            "-c",
            "postfix_lmtp.Verdicts",
        ],
        cwd=HERE.parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if " listens on " in line), "")
        if not line:
            raise SystemExit("FAILED: the LMTP server did not start")
        yield int(line.rpartition(":")[2])
    finally:
        process.terminate()
        process.communicate(timeout=WAIT)


class Postfix:
    """A Postfix of its own below a folder."""

    def __init__(self, folder: Path, lmtp: int) -> None:
        self.folder, self.port = folder, free_port()
        for name in ("etc", "queue", "data"):
            (folder / name).mkdir()
        (folder / "etc" / "main.cf").write_text(MAIN_CF.format(folder=folder, lmtp=lmtp))
        (folder / "etc" / "master.cf").write_text(MASTER_CF.format(smtp=self.port))
        shutil.chown(folder / "data", "postfix")

    def run(self, *command: str) -> None:
        """Run one of Postfix's commands."""
        words = [command[0], "-c", str(self.folder / "etc"), *command[1:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT)
        if done.returncode:
            raise SystemExit(f"FAILED: {' '.join(words)}: {done.stdout}{done.stderr}{self.log()}")

    def log(self) -> str:
        """Its log."""
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def deferred(self) -> list[str]:
        """The names of the messages that it keeps for later."""
        return [path.name for path in (self.folder / "queue" / "deferred").rglob("*") if path.is_file()]

    def send(self, domain: str) -> None:
        """Hand it a message to all recipients in a domain."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=WAIT) as client:
            to = [f"{name}@{domain}" for name in RECIPIENTS]
            client.sendmail(f"sender@{domain}", to, "Subject: hello\r\n\r\n.It works.\r\n")

    def outcomes(self, address: str) -> list[tuple[str, str]]:
        """What it logged for a recipient: DSN code and status, each."""
        pattern = rf"to=<{re.escape(address)}>, .*relay=.*, dsn=([0-9.]+), status=(.*)"
        return re.findall(pattern, self.log())


def check(name: str, good: bool, shown: object) -> bool:
    """Print one outcome."""
    print(f"{'ok    ' if good else 'FAILED'} {name}: {shown}")
    return good


def notes_of(folder: Path, domain: str) -> list[dict[str, Any]]:
    """What the handler has noted for a domain."""
    notes = [json.loads(line) for line in (folder / "notes").read_text().splitlines()]
    return [note for note in notes if note["to"].endswith(f"@{domain}")]


def try_domain(postfix: Postfix, domain: str) -> bool:
    """Send one message to four recipients, and look at what becomes of it."""
    print(f"over {domain.partition('.')[0]}:")
    postfix.send(domain)
    wanted = {"deliver": "sent", "defer": "deferred", "bounce": "bounced", "deliver.too": "sent"}
    good = True
    for name, status in wanted.items():
        address = f"{name}@{domain}"
        (dsn, found), *_ = wait_for(f"outcome for {address}", functools.partial(postfix.outcomes, address))
        good &= check(address, found.startswith(status), f"{dsn} {found}")
    bounce = wait_for("bounce", lambda: [n for n in notes_of(postfix.folder, domain) if n["to"] == f"sender@{domain}"])
    good &= check("the bounce", bounce[0]["from"] == "<>" and bounce[0]["bounce"], bounce[0])
    wait_for("deferred message", postfix.deferred)
    postfix.run("postqueue", "-f")
    retried = wait_for("second attempt", lambda: postfix.outcomes(f"defer@{domain}")[1:])
    good &= check(f"defer@{domain}, later", retried[0][1].startswith("sent"), " ".join(retried[0]))
    said: dict[str, list[str]] = {}
    for note in notes_of(postfix.folder, domain):
        said.setdefault(note["to"].partition("@")[0], []).append(note["said"][:3])
    expected = {
        "deliver": ["250"],
        "defer": ["452", "250"],
        "bounce": ["550"],
        "deliver.too": ["250"],
        "sender": ["250"],
    }
    good &= check("no recipient got it twice", said == expected, said)
    together = notes_of(postfix.folder, domain)[0]["together"]
    return good & check("in one transaction", together == len(RECIPIENTS), f"{together} recipients")


def main() -> int:
    """Run it; 0 if all is as it should be."""
    if shutil.which("postfix") is None or os.geteuid() != 0:
        print("skipped: it takes Postfix, and root to run it")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="postfix-lmtp-") as name:
        folder = Path(name)
        # Postfix's processes are not root.
        folder.chmod(0o755)
        with lmtp_server(folder) as lmtp:
            postfix = Postfix(folder, lmtp)
            postfix.run("postfix", "start")
            try:
                good = [try_domain(postfix, domain) for domain in ("unix.example", "tcp.example")]
                good.append(check("the queue is empty in the end", not postfix.deferred(), postfix.deferred()))
                if not all(good):
                    print(postfix.log())
            finally:
                postfix.run("postfix", "stop")
    print("all is well" if all(good) else "FAILED")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
