"""The configuration of docs/how-to/internet.rst does what the page says, as it stands in ``examples/internet``.

The commands are read from the unit files and run with sockets handed over as systemd does it; only folders, and the
names of hosts that exist nowhere, are put in place.
"""

from __future__ import annotations

import mailbox
import os
import re
import shlex
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import SkipTest, skipUnless

from tests.loopback.servers import LIMIT, TWIST, ServerCase
from tests.support.tls_helpers import Issued, issue
from twisted_smtpd.auth import set_password

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
UNITS = EXAMPLES / "internet"

# Moves the sockets to where systemd puts them, from descriptor 3 on, and becomes the server.
LAUNCHER = """
import os, sys
words = sys.argv[1:]
split = words.index("--")
high = [os.dup(int(number)) for number in words[:split]]
high = [number if number > 50 else os.dup2(number, 51 + index) for index, number in enumerate(high)]
for index, number in enumerate(high):
    os.dup2(number, 3 + index)
names = ":".join(["a.socket"] * len(high))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=names)
os.execv(words[split + 1], words[split + 1:])
"""

ANNE, PASSWORD = "anne@example.com", "correct horse"
BART = "bart@example.com"
STRANGER = "carl@elsewhere.example"
MESSAGE = "Subject: Hello\r\n\r\nIt works.\r\n"


def setting(unit: str, name: str) -> list[str]:
    """The values of a setting in a unit file."""
    text = (UNITS / unit).read_text().replace("\\\n", " ")
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


@skipUnless(UNITS.is_dir(), "the examples are not installed")
@skipUnless(os.name == "posix", "systemd hands over sockets on POSIX only")
class InternetTests(ServerCase):
    authority = issue("The Authority", ca=True)

    def setUp(self) -> None:
        super().setUp()
        shutil.copy(EXAMPLES / "internet.py", self.folder)
        (self.folder / "recipients").write_text(f"{BART}\npostmaster@example.com\n")
        set_password(self.folder / "users", ANNE, PASSWORD, kind="scrypt")
        (self.folder / "ca.pem").write_bytes(self.authority.pem)
        self.environment["SSL_CERT_FILE"] = str(self.folder / "ca.pem")
        self.install(issue("localhost", issuer=self.authority))
        self.context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

    def install(self, issued: Issued) -> None:
        for name, content in (("privkey.pem", issued.key_pem), ("fullchain.pem", issued.pem)):
            new = self.folder / f"{name}.new"
            new.write_bytes(content)
            new.rename(self.folder / name)

    def activate(self, unit: str, relay: str = "") -> tuple[subprocess.Popen[str], list[int]]:
        """Start a unit as systemd would; the ports in the order of its socket file."""
        (command,) = setting(f"{unit}.service", "ExecStart")
        for name, place in (
            ("/etc/smtpd", str(self.folder)),
            ("/var/lib/smtpd", str(self.folder)),
            ("relay.example.net:587", relay),
        ):
            command = command.replace(name, place)
        program, *words = shlex.split(command)
        self.assertEqual(program, "/opt/smtpd/bin/twisted-smtpd")
        sockets = [self.listening(place) for place in setting(f"{unit}.socket", "ListenStream")]
        server = self.hand_over([sys.executable, "-m", "twisted_smtpd", *words], sockets)
        said = "".join(self.lines_until(server, " listens on "))
        self.assertNotIn(" warn ", said)
        return server, [each.getsockname()[1] for each in sockets]

    def listening(self, place: str) -> socket.socket:
        """What stands for a place of a socket file: a free port of the loopback, of the same family."""
        family = socket.AF_INET6 if place.startswith("[::]") else socket.AF_INET
        made = socket.socket(family)
        self.addCleanup(made.close)
        try:
            made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        except OSError as error:
            raise SkipTest(f"no IPv6 here: {error}") from None
        made.listen()
        return made

    def hand_over(self, command: Sequence[str], sockets: Sequence[socket.socket]) -> subprocess.Popen[str]:
        descriptors = [each.fileno() for each in sockets]
        return self.start(("-c", LAUNCHER, *map(str, descriptors), "--", *command), pass_fds=descriptors)

    def mx(self) -> tuple[subprocess.Popen[str], list[int]]:
        return self.activate("mx")

    def submission(self) -> tuple[subprocess.Popen[str], list[int]]:
        """The server for users, with a next host behind it that wants TLS and a password."""
        set_password(self.folder / "relay-users", "example.com", "for the relay", kind="scrypt")
        (self.folder / "relay-password").write_text("for the relay\n")
        words = ["--tlscert=fullchain.pem", "--tlskey=privkey.pem", "--auth-file=relay-users", "--auth-required"]
        _, port = self.serve(TWIST, *words, "-c", "mailbox", "relayed")
        return self.activate("submission", relay=f"localhost:{port}")

    def connect(self, port: int, host: str = "127.0.0.1") -> smtplib.SMTP:
        client = smtplib.SMTP(host, port, "client.example", timeout=LIMIT)
        client._host = "localhost"  # type: ignore[attr-defined]
        self.addCleanup(client.close)
        client.ehlo()
        return client

    def stored(self, folder: str) -> list[mailbox.MaildirMessage]:
        return list(mailbox.Maildir(self.folder / folder, create=False))

    # port 25

    def test_the_mx_takes_mail_for_its_addresses_in_clear_over_tls_and_over_ipv6(self) -> None:
        _, (four, six) = self.mx()
        self.connect(four).sendmail(STRANGER, [BART], MESSAGE)
        over_tls = self.connect(four)
        over_tls.starttls(context=self.context)
        over_tls.sendmail(STRANGER, ["BART@Example.com"], MESSAGE)
        self.connect(six, "::1").sendmail("", ["postmaster@example.com"], MESSAGE)
        self.assertEqual([message["Subject"] for message in self.stored("Maildir")], ["Hello"] * 3)

    def test_the_mx_relays_nothing_and_knows_its_mailboxes(self) -> None:
        _, (port, _) = self.mx()
        client = self.connect(port)
        client.mail(ANNE)
        for address, reply in (
            ("dora@elsewhere.example", (550, b"5.7.1 We do not relay")),
            ("bart%elsewhere.example@example.com", (550, b"5.1.1 No such mailbox")),
            ("bart@example.com.elsewhere.example", (550, b"5.7.1 We do not relay")),
            ('"bart@example.com"@elsewhere.example', (550, b"5.7.1 We do not relay")),
            ("postmaster", (250, b"2.1.5 OK")),
        ):
            self.assertEqual(client.rcpt(address), reply)

    def test_the_mx_signs_nobody_in(self) -> None:
        _, (port, _) = self.mx()
        client = self.connect(port)
        self.assertFalse(client.has_extn("auth"))
        client.starttls(context=self.context)
        client.ehlo()
        self.assertFalse(client.has_extn("auth"))
        self.assertEqual(client.docmd("AUTH", "PLAIN AGFubmUAc2VjcmV0")[0] // 100, 5)

    def test_the_mx_says_who_it_is_and_what_it_takes(self) -> None:
        _, (port, _) = self.mx()
        client = self.connect(port)
        self.assertTrue(client.ehlo_resp and client.ehlo_resp.startswith(b"mx.example.com"))
        self.assertEqual(client.esmtp_features["size"], str(25 * 2**20))

    def test_a_new_certificate_is_there_after_a_reload(self) -> None:
        server, (port, _) = self.mx()
        new = issue("localhost", issuer=self.authority)
        self.install(new)
        # What systemd runs for ExecReload.
        self.assertEqual(setting("mx.service", "ExecReload"), ["/bin/kill -HUP $MAINPID"])
        server.send_signal(signal.SIGHUP)
        self.read_until(server, "certificates reloaded")
        client = self.connect(port)
        client.starttls(context=self.context)
        assert isinstance(client.sock, ssl.SSLSocket)
        self.assertEqual(client.sock.getpeercert(binary_form=True), new.der)

    # ports 587 and 465

    def test_submission_wants_tls_before_all_else(self) -> None:
        _, (clear, *_) = self.submission()
        client = self.connect(clear)
        self.assertFalse(client.has_extn("auth"))
        self.assertEqual(client.mail(ANNE)[0], 530)
        self.assertEqual(client.docmd("AUTH", "PLAIN AGFubmUAc2VjcmV0")[0], 530)

    def test_submission_wants_a_password_after_that(self) -> None:
        _, (clear, _, secure, _) = self.submission()
        over_tls = self.connect(clear)
        over_tls.starttls(context=self.context)
        with smtplib.SMTP_SSL("localhost", secure, timeout=LIMIT, context=self.context) as implicit:
            for client in (over_tls, implicit):
                client.ehlo()
                self.assertEqual(client.mail(ANNE), (530, b"5.7.0 Authentication required"))
                error = self.assertRaises(smtplib.SMTPAuthenticationError, client.login, ANNE, "wrong")
                self.assertEqual(error.smtp_code, 535)

    def test_a_user_sends_through_every_door_of_submission(self) -> None:
        _, ports = self.submission()
        for index, port in enumerate(ports):
            host = "::1" if index % 2 else "127.0.0.1"
            with self.signed_in(port, host, implicit=index >= 2) as client:
                client.sendmail(ANNE, [STRANGER], f"X-Door: {index}\r\n{MESSAGE}")
        self.assertEqual(sorted(message["X-Door"] for message in self.stored("relayed")), ["0", "1", "2", "3"])

    def test_a_user_writes_as_nobody_else(self) -> None:
        _, (_, _, secure, _) = self.submission()
        with self.signed_in(secure, "127.0.0.1", implicit=True) as client:
            self.assertEqual(client.mail(BART), (550, b"5.7.1 That is not your address"))
            self.assertEqual(client.mail("Anne@Example.com")[0], 250)
        self.assertEqual(self.stored("relayed"), [])

    def test_a_user_is_told_to_try_again_when_the_next_host_is_down(self) -> None:
        (self.folder / "relay-password").write_text("unused\n")
        with socket.create_server(("127.0.0.1", 0)) as gone:
            place = f"localhost:{gone.getsockname()[1]}"
        _, (_, _, secure, _) = self.activate("submission", relay=place)
        with self.signed_in(secure, "127.0.0.1", implicit=True) as client:
            client.mail(ANNE)
            self.assertEqual(client.rcpt("x@elsewhere.example")[0], 451)

    def signed_in(self, port: int, host: str, implicit: bool) -> smtplib.SMTP:
        if implicit:
            client: smtplib.SMTP = Implicit(host, port, "client.example", timeout=LIMIT, context=self.context)
            self.addCleanup(client.close)
        else:
            client = self.connect(port, host)
            client.starttls(context=self.context)
        client.login(ANNE, PASSWORD)
        return client

    # an upgrade

    def test_an_upgrade_loses_no_client(self) -> None:
        """systemd keeps the sockets: clients that come between two servers wait for the second."""
        (command,) = setting("mx.service", "ExecStart")
        command = command.replace("/etc/smtpd", str(self.folder)).replace("/var/lib/smtpd", str(self.folder))
        _, *words = shlex.split(command)
        sockets = [self.listening(place) for place in setting("mx.socket", "ListenStream")]
        port, sent = sockets[0].getsockname()[1], 0
        server = self.hand_over([sys.executable, "-m", "twisted_smtpd", *words], sockets)
        for _ in range(3):
            self.read_until(server, " listens on ")
            early = self.connect(port)
            early.mail(STRANGER)
            server.send_signal(signal.SIGTERM)
            server.wait(LIMIT)
            # The one that was connected hears that it has to come again; the next one waits in the socket's queue.
            self.assertEqual(early.docmd("RCPT", f"TO:<{BART}>")[0], 421)
            waiting = socket.create_connection(("127.0.0.1", port), LIMIT)
            server = self.hand_over([sys.executable, "-m", "twisted_smtpd", *words], sockets)
            with smtplib.SMTP(local_hostname="client.example", timeout=LIMIT) as client:
                client.sock, client.file = waiting, None
                self.assertEqual(client.getreply()[0], 220)
                client.sendmail(STRANGER, [BART], MESSAGE)
            sent += 1
            self.connect(port).sendmail(STRANGER, [BART], MESSAGE)
            sent += 1
        self.assertEqual(len(self.stored("Maildir")), sent)

    # the files

    def test_the_units_of_one_service_fit_together(self) -> None:
        for unit in ("mx", "submission"):
            (command,) = setting(f"{unit}.service", "ExecStart")
            used = [int(index) for index in re.findall(r"systemd:domain=INET6?:index=([0-9])", command)]
            families = re.findall(r"systemd:domain=(INET6?):", command)
            places = setting(f"{unit}.socket", "ListenStream")
            self.assertEqual(used, list(range(len(places))))
            self.assertEqual(families, ["INET6" if place.startswith("[") else "INET" for place in places])
            self.assertEqual(setting(f"{unit}.service", "Requires"), [f"{unit}.socket"])

    def test_the_page_shows_the_files(self) -> None:
        page = EXAMPLES.parent / "docs" / "how-to" / "internet.rst"
        for name in ("internet.py", *(f"internet/{path.name}" for path in sorted(UNITS.iterdir()))):
            self.assertIn(f".. literalinclude:: ../../examples/{name}\n", page.read_text())

    @skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_systemd_understands_the_units(self) -> None:
        folder = self.folder / "units"
        folder.mkdir()
        for path in UNITS.iterdir():
            # The program is not there, and the user neither.
            text = path.read_text().replace("/opt/smtpd/bin/twist", sys.executable).replace("=smtpd\n", "=root\n")
            (folder / path.name).write_text(text.replace("WorkingDirectory=/etc/smtpd", "WorkingDirectory=/"))
        names = [str(folder / path.name) for path in UNITS.iterdir()]
        run = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, timeout=LIMIT
        )
        said = [line for line in run.stderr.splitlines() if str(folder) in line]
        self.assertEqual(said, [])

    @skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_the_units_give_the_server_no_more_rights_than_it_needs(self) -> None:
        for unit in ("mx", "submission"):
            run = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", str(UNITS / f"{unit}.service")],
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
            exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", run.stdout)
            assert exposure is not None, run.stdout
            self.assertLess(float(exposure[1]), 2.0)


class Implicit(smtplib.SMTP_SSL):
    """Verifies the certificate for localhost, whatever address it connects to."""

    def _get_socket(self, host: str, port: int, timeout: float) -> ssl.SSLSocket:
        raw = socket.create_connection((host, port), timeout)
        return self.context.wrap_socket(raw, server_hostname="localhost")
