"""Shows the queue with a real Postfix as the next host: it delivers, defers and bounces, and it takes the bounces.

``python scripts/queue_postfix.py`` (as root: Postfix wants it) starts a Postfix of its own on the loopback, which sends
all that it takes to a collector of ours, and ``-c queue FOLDER + proxy`` in front of it.  It prints what became of each
recipient, and what Python's ``email`` reads in the bounces.  Exits with 1 if anything is different, with 77 where there
is no Postfix or no root.
"""

from __future__ import annotations

import smtplib
import sys
import tempfile
import time
from email import message_from_bytes, policy
from email.message import Message
from pathlib import Path
from typing import Any

from own_postfix import Postfix, is_here, wait_for
from queue_lab import NextHost, Server, message, queue_command, wait_until_empty

SKIPPED = 77
ACCESS = """\
smtpd_recipient_restrictions = check_recipient_access inline:{{
    {{ defer@y.example = {defer} }},
    {{ bounce@y.example = 550 5.1.1 No such mailbox }} }}, permit_mynetworks, reject
"""


class Checks:
    """What is expected."""

    good = True

    def __call__(self, name: str, good: Any, shown: object = "") -> None:
        print(f"{'ok    ' if good else 'FAILED'} {name}{f': {shown}' if shown != '' else ''}", flush=True)
        self.good = self.good and bool(good)


check = Checks()


def settings(collector: NextHost, defer: str, *more: str) -> list[str]:
    """Lines of Postfix's configuration."""
    return [f"relayhost = [127.0.0.1]:{collector.port}", ACCESS.format(defer=defer), *more]


def send(port: int, name: str, recipients: list[str], notify: str, sender: str = "anne@x.example") -> None:
    """Send a message through the queue."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        client.mail(sender, ["RET=HDRS", "ENVID=order+2B4711"])
        for recipient in recipients:
            client.rcpt(recipient, [f"NOTIFY={notify}", f"ORCPT=rfc822;old-{recipient}"])
        code, reply = client.data(message(name, 2000))
        check(f"the queue takes a message for {', '.join(recipients)}", code == 250, reply.decode())


def notices(collector: NextHost, count: int) -> list[Message]:
    """The notices that have arrived, read by the email package."""
    wait_for(f"{count} notices", lambda: len(collector.notices) >= count)
    return [message_from_bytes(one, policy=policy.default) for one in collector.notices]


def recipients_of(notice: Message) -> dict[str, tuple[str, str]]:
    """Action and status of each recipient in a notice."""
    status = next(part for part in notice.walk() if part.get_content_type() == "message/delivery-status")
    found = {}
    for block in status.get_payload()[1:]:  # type: ignore[union-attr]
        if "Final-Recipient" in block:  # type: ignore[operator]
            address = str(block["Final-Recipient"]).partition(";")[2].strip()  # type: ignore[index]
            found[address] = (str(block["Action"]), str(block["Status"]))  # type: ignore[index]
    return found


def deliver_defer_bounce(base: Path, collector: NextHost) -> None:
    """One message to three recipients; then the one that was deferred is accepted."""
    folder = base / "spool"
    with Postfix(new(base, "postfix"), settings(collector, "450 4.2.1 Mailbox busy")) as postfix:
        server = Server(folder, postfix.port, ["--retry", "2", "--retry-max", "2"])
        send(
            server.port, "three@x.example", [f"{name}@y.example" for name in ("deliver", "defer", "bounce")], "FAILURE"
        )
        wait_for("delivery", lambda: collector.received["three@x.example"])
        (bounce,) = notices(collector, 1)
        check("the bounce has the recipient that was refused", True, recipients_of(bounce))
        check("and no other", recipients_of(bounce) == {"bounce@y.example": ("failed", "5.1.1")})
        check("Postfix has taken the bounce", postfix.outcomes("anne@x.example") == ["sent"], bounce["subject"])
        whole = str(bounce)
        for field in ("Original-Envelope-Id: order+4711", "Original-Recipient: rfc822; old-bounce@y.example"):
            check(field, field in whole)
        check("Auto-Submitted", bounce["auto-submitted"] == "auto-replied", bounce["auto-submitted"])
        check("it has the header only, as RET=HDRS asks", "text/rfc822-headers" in whole and "00000 abc" not in whole)
        check("no part of it is malformed", not any(part.defects for part in bounce.walk()))
        print(queue_command("list", str(folder)).rstrip())
        main_cf = postfix.folder / "etc" / "main.cf"
        main_cf.write_text(main_cf.read_text().replace("450 4.2.1 Mailbox busy", "OK"))
        # A reload would leave the process that the queue is connected to as it is.
        postfix.run("postfix", "stop")
        postfix.run("postfix", "start")
        left = wait_until_empty(folder, 30)
        wait_for("second delivery", lambda: collector.received["three@x.example"] == 2)
        check("the deferred recipient is delivered when it is accepted", not left and len(collector.notices) == 1)
        check("once for each recipient", collector.received["three@x.example"] == 2)
        postfix.run("postfix", "stop")
        send(server.port, "down@x.example", ["deliver@y.example"], "FAILURE")
        time.sleep(3)
        check("while Postfix is stopped it waits", "4.4.1" in queue_command("list", str(folder)))
        postfix.run("postfix", "start")
        wait_for("delivery", lambda: collector.received["down@x.example"])
        check("when Postfix is back it is delivered", not wait_until_empty(folder, 30))
        server.end()


def success(base: Path, collector: NextHost) -> None:
    """A notice of success: from Postfix where it has DSN, from the queue where it has not."""
    for name, more in (("Postfix", ()), ("the queue", ("smtpd_discard_ehlo_keywords = dsn",))):
        collector.notices.clear()
        folder = new(base, f"spool-{name[:3]}")
        # Ours has DSN: without it, Postfix gives the notice itself.
        more = (*more, "smtp_discard_ehlo_keywords = dsn")
        with Postfix(new(base, f"postfix-{name[:3]}"), settings(collector, "OK", *more)) as postfix:
            server = Server(folder, postfix.port)
            send(server.port, f"success-{name[:3]}@x.example", ["deliver@y.example"], "SUCCESS")
            (notice,) = notices(collector, 1)
            found = recipients_of(notice)
            by = "the queue" if "X-Queue-ID" in str(notice) else "Postfix"
            check(f"NOTIFY=SUCCESS: a notice by {name}", by == name, found)
            check("it says relayed", found == {"deliver@y.example": ("relayed", found["deliver@y.example"][1])})
            server.end()


def new(base: Path, name: str) -> Path:
    """A new folder."""
    folder = base / name
    folder.mkdir()
    return folder


def main() -> int:
    """Run it; 0 if all is as expected."""
    if not is_here():
        print("there is no Postfix, or no right to start it")
        return SKIPPED
    collector = NextHost()
    collector.up()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base.chmod(0o755)
        deliver_defer_bounce(base, collector)
        success(base, collector)
    collector.down()
    print("all as expected" if check.good else "FAILED")
    return 0 if check.good else 1


if __name__ == "__main__":
    sys.exit(main())
