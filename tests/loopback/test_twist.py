"""``twist smtpd`` and its other names, as processes of their own."""

from __future__ import annotations

import mailbox
import signal
import smtplib
import socket

from tests.loopback.servers import LIMIT, MODULE, TWIST, TWISTD, ServerCase


class TwistTests(ServerCase):
    def test_prints_message_and_envelope_by_default(self) -> None:
        server, port = self.serve(TWIST)
        self.send(port)
        output = self.end(server)
        for text in ("anne@example.com", "bart@example.com", "Subject: Hello", "It works."):
            self.assertIn(text, output)

    def test_says_how_to_send_a_first_message(self) -> None:
        server, port = self.serve(TWIST)
        self.assertIn(f"swaks --server 127.0.0.1:{port} --to you@example.com", self.read_until(server, "To try it"))

    def test_every_name_of_the_command_serves(self) -> None:
        for number, command in enumerate((TWIST, TWISTD, MODULE)):
            server, port = self.serve(command, "-c", "mailbox", f"mail{number}")
            self.send(port)
            (message,) = mailbox.Maildir(self.folder / f"mail{number}", create=False)
            self.assertEqual(message["Subject"], "Hello")
            self.end(server)

    def test_handler_in_the_current_folder(self) -> None:
        (self.folder / "mine.py").write_text(
            "class Handler:\n"
            "    async def handle_DATA(self, server, session, envelope):\n"
            "        return '250 Taken by mine'\n"
        )
        _, port = self.serve(TWIST, "-c", "mine.Handler")
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.ehlo()
            client.mail("anne@example.com")
            client.rcpt("bart@example.com")
            self.assertEqual(client.data("Subject: Hello\r\n")[1], b"2.0.0 Taken by mine")

    def test_a_wrong_command_line_is_one_line_and_64(self) -> None:
        for command in (TWIST, TWISTD, MODULE):
            status, stdout, stderr = self.run_out(command, "--size=10X")
            self.assertEqual((status, stdout, stderr.count("\n")), (64, "", 1), stderr)
            name = "twisted-smtpd" if command == MODULE else "twist smtpd"
            self.assertTrue(stderr.startswith(f"{name}: --size: '10X'"), stderr)

    def test_a_port_in_use_is_one_line_and_1(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            status, stdout, stderr = self.run_out(TWIST, "-l", where)
        self.assertEqual((status, stdout, stderr.count("\n")), (1, "", 1), stderr)
        self.assertTrue(stderr.startswith(f"twist smtpd: can't listen on {where}: "), stderr)

    def test_an_unknown_host_is_one_line_and_1(self) -> None:
        status, stdout, stderr = self.run_out(TWIST, "-l", "256.256.256.256:0")
        self.assertEqual((status, stdout, stderr.count("\n")), (1, "", 1), stderr)

    def test_a_message_in_progress_is_taken_in_before_the_end(self) -> None:
        server, port = self.serve(TWIST, "-c", "mailbox", "mail", "--grace=50")
        client = smtplib.SMTP("127.0.0.1", port, timeout=LIMIT)
        self.addCleanup(client.close)
        client.ehlo()
        client.mail("anne@example.com")
        client.rcpt("bart@example.com")
        self.assertEqual(client.docmd("DATA")[0], 354)
        client.send("Subject: Hello\r\n")
        server.send_signal(signal.SIGTERM)
        self.read_until(server, f"(TCP Port {port} Closed)")
        client.send("\r\nIt works.\r\n.\r\n")
        self.assertEqual(client.getreply()[0], 250)
        self.assertEqual(client.getreply()[0], 421)
        self.assertEqual(len(mailbox.Maildir(self.folder / "mail", create=False)), 1)
        server.communicate(timeout=LIMIT)

    def test_an_idle_client_hears_421_at_the_end(self) -> None:
        server, port = self.serve(TWIST, "-c", "sink")
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client, client.makefile("rb") as replies:
            self.assertEqual(replies.readline()[:4], b"220 ")
            server.terminate()
            self.assertEqual(replies.readline()[:4], b"421 ")
            self.assertEqual(replies.read(), b"")
