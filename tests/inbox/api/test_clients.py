"""Mailpit's clients work with our server: npm's ``mailpit-api`` and PyPI's ``mailpit-api-client``, where they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import skipIf, skipUnless

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from tests.inbox.api.test_threads import ThreadCase, test
from tests.support.inbox_api import message
from twisted_smtpd.store.messages import StoredMessage
from twisted_smtpd.testing.failures import Failures

SCRIPT = Path(__file__).parent / "mailpit-api.cjs"
LIMIT = 60  # seconds, for a client that hangs


def has_npm_client() -> bool:
    """Whether Node.js is here, and finds the client."""
    command = ("node", "-e", "require('mailpit-api')")
    return (
        shutil.which("node") is not None and not subprocess.run(command, capture_output=True, timeout=LIMIT).returncode
    )


class Nowhere:
    """Takes messages that are released."""

    name = "nowhere:25"

    def __init__(self) -> None:
        self.released: list[list[str]] = []

    def release(self, stored: StoredMessage, recipients: Sequence[str]) -> Deferred[str]:
        self.released.append(list(recipients))
        return succeed("250 fine")


class ClientTests(ThreadCase):
    timeout = LIMIT * 2

    @skipUnless(has_npm_client(), "mailpit-api is not installed")
    @test
    async def test_npm(self) -> None:
        release = Nowhere()
        await self.start(release=release, failures=Failures())
        node = shutil.which("node")
        assert node is not None

        said, wrong, status = await getProcessOutputAndValue(node, (str(SCRIPT), self.base), os.environ)
        self.assertEqual((status, said, wrong), (0, b"", b""))
        self.assertEqual(release.released, [["real@example.com"]])

    @skipUnless(find_spec("mailpit"), "mailpit-api-client is not installed")
    @skipIf(sys.version_info < (3, 11), "mailpit-api-client can't read a time that ends with Z there, as Mailpit's do")
    @test
    async def test_pypi(self) -> None:
        await self.start()
        for number in range(3):
            self.store.add(
                message(
                    content=f"From: Anne <a@x.example>\nTo: Bart <b@y.example>\nSubject: {number}\n"
                    "Message-ID: <1@x.example>\nDate: Mon, 02 Nov 2026 10:00:00 +0100\nDelivered-To: b@y.example\n"
                    "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b\n"
                    "Content-Disposition: attachment; filename=a.txt\n\ntext\n--b--\n"
                )
            )
        await deferToThread(self.walk)

    def walk(self) -> None:
        """What a program does, in its own thread."""
        from mailpit.client.api import API

        api: Any = API(self.base, LIMIT)
        messages = api.get_messages()
        self.assertEqual((messages.total, [one.subject for one in messages.messages]), (3, ["2", "1", "0"]))
        self.assertEqual(api.get_messages(limit=1, start=1).messages[0].subject, "1")
        one = api.get_message("latest")
        self.assertEqual((one.from_.name, one.to[0].address, one.text.strip()), ("Anne", "b@y.example", "hello"))
        self.assertEqual((one.date.hour, one.read, one.attachments[0].file_name), (9, True, "a.txt"))
        self.assertEqual(api.get_message_attachment(one.id, one.attachments[0].part_id), "text")
        self.assertEqual(api.get_message_headers(one.id).message_id, ["<1@x.example>"])
        api.put_messages(["1", "2"], "Read", True)
        self.assertEqual(api.get_messages().unread, 0)
        api.delete_messages(["2"])
        self.assertEqual([one.id for one in api.get_messages().messages], ["3", "1"])
        api.delete_messages([])
        self.assertEqual(api.get_messages().total, 0)
