"""Mail through the installed ``twist smtpd`` into a Maildir: one message with smtplib, one with swaks.

Run by the Python of the environment that has twisted-smtpd, in a folder without its source.
"""

import mailbox
import re
import signal
import smtplib
import subprocess
import sys
import tempfile
from pathlib import Path

BIN = Path(sys.executable).parent
WAYS = (
    [BIN / "twist", "smtpd"],
    [BIN / "twisted-smtpd"],
    [sys.executable, "-m", "twisted_smtpd"],
    [BIN / "twistd", "--nodaemon", "--pidfile=", "smtpd"],
)


def port_of(server: subprocess.Popen[str]) -> str:
    """Where the server says it listens."""
    assert server.stdout is not None
    for line in server.stdout:
        if match := re.search(r"listens on .*127\.0\.0\.1:([0-9]+)", line):
            return match[1]
        if match := re.search(r'"places": "127\.0\.0\.1:([0-9]+)"', line):
            return match[1]
    sys.exit(f"{server.args} ended before it listened")


def try_out(command: list, folder: Path) -> None:
    maildir = folder / "Maildir"
    arguments = ["-c", "mailbox", maildir, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            port = port_of(server)
            with smtplib.SMTP("127.0.0.1", int(port), timeout=30) as client:
                client.sendmail("anne@example.com", ["bart@example.com"], "Subject: by smtplib\r\n\r\n.dot\r\n")
            addresses = ["--from", "anne@example.com", "--to", "bart@example.com"]
            swaks = [
                "swaks",
                "--server",
                f"127.0.0.1:{port}",
                *addresses,
                "--header",
                "Subject: by swaks",
                "--silent",
                "2",
            ]
            subprocess.run(swaks, check=True, timeout=60)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    messages = list(mailbox.Maildir(maildir, create=False))
    subjects = sorted(message["Subject"] for message in messages)
    assert subjects == ["by smtplib", "by swaks"], subjects
    assert {message["X-RcptTo"] for message in messages} == {"bart@example.com"}, [m.items() for m in messages]
    (first,) = (message for message in messages if message["Subject"] == "by smtplib")
    assert first.get_payload() == ".dot\n" or first.get_payload() == ".dot\r\n", first.get_payload()


for way in WAYS:
    with tempfile.TemporaryDirectory() as temporary:
        try_out(way, Path(temporary))
    print("smoke:", *way, "- two messages sent and read back")
