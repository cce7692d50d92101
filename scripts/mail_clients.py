"""Shows that the mail of real clients arrives intact: Exim, Postfix, msmtp and PHPMailer deliver to twisted-smtpd.

``python scripts/mail_clients.py`` (as root: Exim and Postfix want it) starts ``twisted-smtpd`` with the handler below,
and sends to it with each client that is installed: attachments, 8-bit text, parameters of DSN, UTF-8 addresses; and
with a client of its own binary messages in random chunks (RFC 3030).  ``Proxy`` hands the same messages on.  It prints
what arrived, with the command that carried the content.  Exits with 1 if anything is different; with 77 if no client is
installed.

Exim is taken from ``$EXIM``, ``$PATH`` or ``/usr/sbin``; PHPMailer from where Debian's ``libphp-phpmailer`` has it, or
from ``$PHPMAILER``, a folder with its ``src``.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import json
import os
import pwd
import random
import re
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from pathlib import Path
from typing import Any

from postfix_lmtp import HERE as _POSTFIX_SCRIPT
from postfix_lmtp import MASTER_CF, SKIPPED, WAIT, Postfix, check, free_port, wait_for

HERE = _POSTFIX_SCRIPT.parent
SENDER, RECIPIENT = "anne@client.example", "bart@server.example"
UTF8_SENDER, UTF8_RECIPIENT = "j\u00f6rg@b\u00fccher.example", "\u7528\u6237@server.example"
PHPMAILER = Path(os.environ.get("PHPMAILER", "/usr/share/php/libphp-phpmailer"))

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mail_owner = postfix
myhostname = relay.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
smtputf8_enable = yes
message_size_limit = 0
relayhost = [127.0.0.1]:{port}
smtp_tls_security_level = none
notify_classes =
"""

EXIM_CONF = """\
primary_hostname = exim.example
exim_path = {exim}
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
exim_user = {user}
exim_group = {group}
keep_environment =
tls_advertise_hosts =
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
chunking_advertise_hosts = *
accept_8bitmime = true
never_users =
trusted_users = root
qualify_domain = client.example
acl_smtp_rcpt = accept
begin acl
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = {port}
  hosts_try_chunking = {chunking}
begin retry
"""

PHP = r"""<?php
foreach (['Exception', 'PHPMailer', 'SMTP'] as $name) { require $argv[1] . "/src/$name.php"; }
$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$mail->isSMTP();
$mail->Host = '127.0.0.1';
$mail->Port = (int)$argv[2];
$mail->SMTPAutoTLS = false;
$mail->CharSet = 'UTF-8';
$mail->Encoding = '8bit';
$mail->dsn = 'SUCCESS,FAILURE';
$mail->setFrom('anne@client.example', "J\u{f6}rg");
$mail->addAddress('bart@server.example');
$mail->Subject = "Gr\u{fc}\u{df}e";
$mail->Body = "Gr\u{fc}\u{df}e\r\n.\r\n..zwei\r\n";
$mail->addAttachment($argv[3], 'data.bin');
$mail->send();
"""


class Notes:
    """Notes each message with its envelope, as a line of JSON."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        note = {
            "helo": session.host_name,
            "mail_from": envelope.mail_from,
            "ret": envelope.ret,
            "envid": envelope.envelope_id,
            "body": envelope.mail_parameters.get("BODY"),
            "utf8": envelope.smtp_utf8,
            "recipients": [
                {
                    "address": recipient.address,
                    "notify": sorted(recipient.notify) if recipient.notify is not None else None,
                    "orcpt": recipient.original_recipient and recipient.original_recipient.address,
                }
                for recipient in envelope.recipients
            ],
            "content": base64.b64encode(envelope.content).decode(),
        }
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps(note) + "\n")
        return "250 2.0.0 Noted"


class Server:
    """``twisted-smtpd`` with :class:`Notes`, and its log."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._read = 0

    def trace(self) -> str:
        """The dialogs since the last call."""
        text = (self.folder / "trace").read_text(errors="replace")
        new, self._read = text[self._read :], len(text)
        return new

    def message(self, who: str) -> dict[str, Any]:
        """The next message."""
        notes = self.folder / "notes"
        line = wait_for(f"message of {who}", lambda: notes.exists() and notes.read_text())
        notes.unlink()
        note: dict[str, Any] = json.loads(line.splitlines()[0])
        note["content"] = base64.b64decode(note["content"])
        trace = self.trace()
        verbs = re.findall(r" C: (BDAT|DATA)\b", trace)
        note["verb"] = f"{len(verbs)} BDAT" if "BDAT" in verbs else "DATA"
        return note


@contextlib.contextmanager
def serving(folder: Path, *handler: str) -> Iterator[Server]:
    """A server, whose messages and log are in a folder."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "NOTES": str(folder / "notes")}
    command = [sys.executable, "-m", "twisted_smtpd", "--trace", "-l", "127.0.0.1:0", "--size", "0", "-c", *handler]
    with open(folder / "trace", "wb") as log:
        process = subprocess.Popen(command, cwd=HERE, env=environment, stdout=log, stderr=log)
    try:
        found = wait_for("server", lambda: re.search(r"listens on 127.0.0.1:(\d+)", (folder / "trace").read_text()))
        yield Server(folder, int(found[1]))
    finally:
        process.terminate()
        process.wait(WAIT)


# -- messages ----------------------------------------------------------------------------------------------------------


def with_attachments() -> bytes:
    """A message with a picture and a page, each longer than a chunk of any client, and lines that begin with dots."""
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = SENDER, RECIPIENT, "Attachments"
    message["Date"], message["Message-ID"] = "Mon, 30 Nov 2026 10:00:00 +0000", "<1@client.example>"
    message.set_content("Dots:\r\n.\r\n..\r\n.three\r\nEnd\r\n")
    message.add_attachment(random.Random(1).randbytes(300_000), "image", "png", filename="picture.png")
    message.add_attachment("<p>Page</p>\n" * 5000, subtype="html", filename="page.html")
    return message.as_bytes()


def in_eight_bits(sender: str = SENDER, recipient: str = RECIPIENT, policy: Any = SMTP) -> bytes:
    """A message whose text has octets beyond ASCII."""
    message = EmailMessage(policy=policy)
    message["From"], message["To"], message["Subject"] = sender, recipient, "Gr\u00fc\u00dfe"
    message["Date"], message["Message-ID"] = "Mon, 30 Nov 2026 10:00:00 +0000", "<2@client.example>"
    message.set_content("Gr\u00fc\u00dfe aus \u6771\u4eac\r\n" * 20, cte="8bit")
    return message.as_bytes()


def intact(sent: bytes, arrived: bytes) -> bool:
    """Whether a message is what was sent, but for the trace headers that relays add above."""
    head, _, body = sent.partition(b"\r\n\r\n")
    new_head, _, new_body = arrived.partition(b"\r\n\r\n")
    return new_body == body and new_head.replace(b"\r\n\t", b"\r\n ").endswith(head.replace(b"\r\n\t", b"\r\n "))


# -- clients -----------------------------------------------------------------------------------------------------------


def judge(name: str, note: dict[str, Any], content: bool, **expected: Any) -> bool:
    """Compare a message with what was sent, and print it."""
    recipient = note["recipients"][0]
    found = {**{key: note[key] for key in ("mail_from", "ret", "envid", "utf8")}, **recipient}
    wrong = {key: (found[key], value) for key, value in expected.items() if found[key] != value}
    shown = [note["verb"], f"{len(note['content']):,} octets {'intact' if content else 'DAMAGED'}"]
    shown += [f"BODY={note['body']}"] if note["body"] else []
    shown += [f"{key}={found[key]}" for key in ("ret", "envid", "notify", "orcpt") if found[key] is not None]
    shown += ["SMTPUTF8"] if note["utf8"] else []
    return check(name, content and not wrong, ", ".join(shown) + (f"; found and wanted: {wrong}" if wrong else ""))


def relayed(name: str, server: Server, say: Callable[[bytes], None]) -> bool:
    """Send all kinds of messages through a relay.

    :param say: gives the relay an SMTP dialog behind EHLO.
    """
    good = True
    dsn = {"ret": "HDRS", "envid": "QQ+1", "notify": ["DELAY", "FAILURE"], "orcpt": "b+x@z.example"}
    for kind, sent, sender, recipient, mail, rcpt, expected in (
        ("attachments", with_attachments(), SENDER, RECIPIENT, "", "", {}),
        ("8-bit text", in_eight_bits(), SENDER, RECIPIENT, " BODY=8BITMIME", "", {}),
        (
            *("DSN", in_eight_bits(), SENDER, RECIPIENT, " BODY=8BITMIME RET=HDRS ENVID=QQ+2B1"),
            *(" NOTIFY=FAILURE,DELAY ORCPT=rfc822;b+2Bx@z.example", dsn),
        ),
        (
            *("UTF-8 addresses", in_eight_bits(UTF8_SENDER, UTF8_RECIPIENT, SMTPUTF8), UTF8_SENDER, UTF8_RECIPIENT),
            *(" BODY=8BITMIME SMTPUTF8", "", {"utf8": True}),
        ),
    ):
        dotted = re.sub(rb"(?m)^\.", b"..", sent)
        lines = f"MAIL FROM:<{sender}>{mail}\r\nRCPT TO:<{recipient}>{rcpt}\r\nDATA\r\n".encode()
        say(lines + dotted + b".\r\n")
        note = server.message(name)
        good &= judge(
            f"{name}, {kind}", note, intact(sent, note["content"]), mail_from=sender, address=recipient, **expected
        )
    return good


def try_exim(exim: str, server: Server, folder: Path) -> bool:
    """Exim takes the messages on its standard input, and delivers them with BDAT; then one with DATA."""
    version = subprocess.run([exim, "-bV", "-C", "/dev/null"], capture_output=True, text=True).stdout
    print(re.search(r"Exim version \S+", version)[0])  # type: ignore[index]
    user, group = user_of_exim()
    good = True
    for chunking in ("*", ""):
        place = folder / ("exim-chunks" if chunking else "exim-data")
        (place / "spool").mkdir(parents=True)
        for path in (place, place / "spool"):
            shutil.chown(path, user)
        conf = place / "exim.conf"
        values = {"exim": Path(exim).resolve(), "user": user, "group": group, "chunking": chunking}
        conf.write_text(EXIM_CONF.format(folder=place, port=server.port, **values))

        def say(dialog: bytes, conf: Path = conf, place: Path = place) -> None:
            command = [exim, "-C", str(conf), "-odf", "-bs"]
            done = subprocess.run(
                command, input=b"EHLO client.example\r\n" + dialog + b"QUIT\r\n", capture_output=True, timeout=WAIT
            )
            if b"250 OK id=" not in done.stdout:
                log = "".join(path.read_text() for path in place.glob("*log"))
                raise SystemExit(f"FAILED: Exim: {done.stdout!r} {done.stderr!r} {log}")

        good &= relayed(f"Exim {'with CHUNKING' if chunking else 'without'}", server, say)
    return good


def user_of_exim() -> tuple[str, int]:
    """The user that Exim runs as, and its group."""
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = next(known[name] for name in ("Debian-exim", "exim", "mail", "nobody") if name in known)
    return user.pw_name, user.pw_gid


class Relay(Postfix):
    """A Postfix that sends everything to a server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, free_port()
        for name in ("etc", "queue", "data"):
            (folder / name).mkdir(parents=True)
        (folder / "etc" / "main.cf").write_text(MAIN_CF.format(folder=folder, port=port))
        master = MASTER_CF.format(smtp=self.port) + "smtp unix - - n - - smtp\n"
        (folder / "etc" / "master.cf").write_text(master)
        shutil.chown(folder / "data", "postfix")


def say(port: int, dialog: bytes) -> None:
    """Have a relay take a message over SMTP."""
    with smtplib.SMTP("127.0.0.1", port, timeout=WAIT) as client:
        client.ehlo("client.example")
        assert client.sock is not None
        client.sock.sendall(dialog)
        for _ in range(4):
            code, text = client.getreply()
            if code not in (250, 354):
                raise SystemExit(f"FAILED: {code} {text!r}")


def try_proxy(name: str, port: int, server: Server, folder: Path) -> bool:
    """Our own Proxy sends BDAT to a next host that has CHUNKING, as Postfix and we have."""
    place = folder / f"proxy-{port}"
    place.mkdir()
    with serving(place, "proxy", f"127.0.0.1:{port}") as proxy:
        return relayed(name, server, functools.partial(say, proxy.port))


def try_postfix(postfix: str, server: Server, folder: Path) -> bool:
    """Postfix takes the messages over SMTP."""
    version = subprocess.run(["postconf", "-h", "mail_version"], capture_output=True, text=True).stdout.strip()
    print(f"Postfix {version}")
    relay = Relay(folder / "postfix", server.port)
    relay.run("postfix", "start")
    try:
        good = relayed("Postfix", server, functools.partial(say, relay.port))
        return good & try_proxy("Proxy, then Postfix", relay.port, server, folder)
    finally:
        relay.run("postfix", "stop")


def try_msmtp(msmtp: str, server: Server, folder: Path) -> bool:
    """Msmtp refuses to send where DSN is asked for and not offered."""
    print(subprocess.run([msmtp, "--version"], capture_output=True, text=True).stdout.splitlines()[0])
    good = True
    for kind, sent in (("attachments and DSN", with_attachments()), ("8-bit text and DSN", in_eight_bits())):
        command = [msmtp, "--host=127.0.0.1", f"--port={server.port}", f"--from={SENDER}", "--file=/dev/null"]
        command += ["--dsn-notify=success,failure", "--dsn-return=full", RECIPIENT]
        subprocess.run(command, input=sent.replace(b"\r\n", b"\n"), check=True, timeout=WAIT)
        note = server.message("msmtp")
        expected = {"mail_from": SENDER, "address": RECIPIENT, "ret": "FULL", "notify": ["FAILURE", "SUCCESS"]}
        good &= judge(f"msmtp, {kind}", note, note["content"] == sent, **expected)
    return good


def try_phpmailer(php: str, server: Server, folder: Path) -> bool:
    """PHPMailer sends NOTIFY without looking at EHLO."""
    source = (PHPMAILER / "src" / "PHPMailer.php").read_text()
    print("PHPMailer", re.search(r"const VERSION = '([^']*)'", source)[1])  # type: ignore[index]
    program, data = folder / "send.php", folder / "data.bin"
    program.write_text(PHP)
    data.write_bytes(random.Random(2).randbytes(100_000))
    subprocess.run([php, str(program), str(PHPMAILER), str(server.port), str(data)], check=True, timeout=WAIT)
    note = server.message("PHPMailer")
    message = message_from_bytes(note["content"])
    text, attachment = (part.get_payload(decode=True) for part in message.get_payload())  # type: ignore[union-attr]
    content = attachment == data.read_bytes() and text.startswith("Gr\u00fc\u00dfe\r\n.\r\n..zwei\r\n".encode())
    expected = {"mail_from": SENDER, "address": RECIPIENT, "notify": ["FAILURE", "SUCCESS"]}
    return judge("PHPMailer, attachment, 8-bit text, DSN", note, content, **expected)


def try_binary(server: Server) -> bool:
    """Binary messages in random chunks: no lines, no encoding (RFC 3030)."""
    print("a client of its own")
    choice, good = random.Random(3), True
    for chunks in (1, 40):
        content = b"Content-Transfer-Encoding: binary\r\n\r\n" + choice.randbytes(500_000)
        places = [0, *sorted(choice.sample(range(1, len(content)), chunks - 1)), len(content)]
        pieces = [content[start:end] for start, end in itertools.pairwise(places)]
        said = b"EHLO client.example\r\nMAIL FROM:<anne@client.example> BODY=BINARYMIME\r\n"
        said += b"RCPT TO:<bart@server.example>\r\n"
        for piece in pieces[:-1]:
            said += b"BDAT %d\r\n%b" % (len(piece), piece)
        said += b"BDAT %d LAST\r\n%bQUIT\r\n" % (len(pieces[-1]), pieces[-1])
        with socket.create_connection(("127.0.0.1", server.port), WAIT) as client:
            client.sendall(said)
            while client.recv(2**16):
                pass
        note = server.message("the client")
        good &= judge(f"BINARYMIME, {chunks} chunks", note, note["content"] == content, mail_from=SENDER)
    return good


def main() -> int:
    """Run it; 0 if all is as it should be."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    root = os.geteuid() == 0
    exim = os.environ.get("EXIM") or shutil.which("exim4", path=path) or shutil.which("exim", path=path)
    tools: list[tuple[str | None, Any]] = [
        (exim if root else None, try_exim),
        (shutil.which("postfix", path=path) if root else None, try_postfix),
        (shutil.which("msmtp"), try_msmtp),
        (shutil.which("php") if (PHPMAILER / "src").is_dir() else None, try_phpmailer),
    ]
    if not any(tool for tool, _ in tools):
        print("skipped: it takes Exim, Postfix (both with root), msmtp or PHPMailer")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="mail-clients-") as name:
        folder = Path(name)
        # The processes of Exim and Postfix are not root.
        folder.chmod(0o755)
        with serving(folder, "mail_clients.Notes") as server:
            good = [attempt(tool, server, folder) for tool, attempt in tools if tool]
            good.append(try_binary(server))
            print("twisted-smtpd's Proxy")
            good.append(try_proxy("Proxy", server.port, server, folder))
    print("all is well" if all(good) else "FAILED")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
