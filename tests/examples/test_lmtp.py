"""The examples of LMTP and streaming do what they say."""

from __future__ import annotations

import runpy
from mailbox import Maildir
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Client, codes, connect
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@skipUnless(EXAMPLES.is_dir(), "the examples are not installed")
class ExampleTests(SynchronousTestCase):
    def begin(self, name: str, handler: str, protocol: type[SMTP], **options: Any) -> tuple[Client, Path]:
        """A client of the example, whose threads are the test's."""
        folder = Path(self.mktemp())
        folder.mkdir()
        path = EXAMPLES / name
        made = runpy.run_path(str(path), {"__name__": "example"})[handler](str(folder))
        scope = type(made).__dict__["handle_DATA" if handler == "Delivery" else "handle_DATA_STREAM"].__globals__
        scope["deferToThread"] = maybeDeferred
        client = connect(made, protocol, **options)
        client.read()
        return client, folder

    def test_lmtp_delivery_answers_for_each_mailbox(self) -> None:
        client, folder = self.begin("lmtp_delivery.py", "Delivery", LMTP)
        for user in ("anne", "bart"):
            Maildir(folder / user)
        (folder / "bart" / "tmp").rmdir()
        said = client.send(
            b"LHLO c\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<Anne@y.example>\r\nRCPT TO:<nobody@y.example>\r\n"
            b'RCPT TO:<bart@y.example>\r\nRCPT TO:<".."@y.example>\r\nDATA\r\nSubject: hi\r\n\r\nhello\r\n.\r\n'
        )
        self.assertEqual(codes(said), [250, 250, 250, 550, 250, 550, 354, 250, 452])
        (message,) = Maildir(folder / "anne")
        self.assertEqual(message["Subject"], "hi")

    def send(self, client: Client, content: bytes) -> list[int]:
        return codes(client.send(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n" + content))[3:]

    def test_stream_to_files_keeps_whole_messages_only(self) -> None:
        client, folder = self.begin("stream_to_files.py", "Files", SMTP, data_size_limit=100)
        self.assertEqual(self.send(client, b"hello\r\n.\r\n"), [354, 250])
        self.assertEqual(self.send(client, b"hello\r\n" * 100 + b".\r\n"), [354, 552])
        self.send(client, b"hello")
        client.lose()
        (kept,) = folder.iterdir()
        self.assertEqual((kept.suffix, kept.read_bytes()), (".eml", b"hello\r\n"))

    def test_a_client_that_goes_while_the_disk_is_busy_leaves_no_file(self) -> None:
        client, folder = self.begin("stream_to_files.py", "Files", SMTP)
        scope = type(client.protocol.event_handler).__dict__["handle_DATA_STREAM"].__globals__
        scope["deferToThread"] = lambda *arguments: Deferred()
        self.send(client, b"hello")
        self.assertEqual(len(list(folder.iterdir())), 1)
        client.lose()
        self.assertEqual(list(folder.iterdir()), [])
