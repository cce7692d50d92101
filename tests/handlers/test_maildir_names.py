"""A stored message is the one that was sent, under a name that any system takes."""

from __future__ import annotations

import email.message
import email.policy
import mailbox
import os
import runpy
import socket
from pathlib import Path
from typing import Any

from tests.handlers.test_mailbox import MailboxTestCase
from twisted_smtpd.handlers import Mailbox, maildir

CONTENT = b"Subject: hi\r\n\r\nFrom here on\r\n>From there\r\n\r\nFrom x@y Mon Jan 1 00:00:00 2024\r\n"
BODY = b"From here on\n>From there\n\nFrom x@y Mon Jan 1 00:00:00 2024\n"


class FromLineTests(MailboxTestCase):
    """``From `` begins a message in an mbox, and nothing in a Maildir: no ``>`` is put before it."""

    def test_such_a_line_stays_as_it_was_sent(self) -> None:
        for options in ({}, {"message_class": email.message.Message}, {"policy": email.policy.default}):
            self.folder = Path(self.mktemp())
            self.deliver(Mailbox(self.folder, **options), CONTENT)  # type: ignore[arg-type]
            (stored,) = self.stored()
            self.assertTrue(stored.replace(b"\r\n", b"\n").endswith(b"\n\n" + BODY), (options, stored))

    def test_in_a_decoded_message_too(self) -> None:
        for options in ({}, {"message_class": email.message.Message}):
            self.folder = Path(self.mktemp())
            content = CONTENT.decode() + "\u00e9\r\n"
            self.deliver(Mailbox(self.folder, **options), content)  # type: ignore[arg-type]
            (stored,) = self.stored()
            self.assertIn(b"\n" + BODY.splitlines()[0] + b"\n", stored.replace(b"\r\n", b"\n"))
            self.assertNotIn(b"\n>From here", stored)

    def test_one_message_is_one_for_who_reads_the_maildir(self) -> None:
        self.deliver(Mailbox(self.folder), CONTENT)
        self.assertEqual(len(mailbox.Maildir(self.folder, create=False)), 1)


class DescriptorTests(MailboxTestCase):
    def test_no_message_leaves_an_open_file(self) -> None:
        self.deliver(Mailbox(self.folder), CONTENT)
        before = os.listdir("/dev/fd")
        self.deliver(Mailbox(Path(self.mktemp())), CONTENT)
        self.assertEqual(os.listdir("/dev/fd"), before)


class HostNameTests(MailboxTestCase):
    def test_a_host_name_becomes_part_of_a_file_name(self) -> None:
        """A ``/`` would make it another folder's, and what follows a ``:`` are a message's flags."""
        self.patch(socket, "gethostname", lambda: "a/b:2,S")
        # Beside the module, not in its place: others have its classes.
        handler: Any = runpy.run_path(maildir.__file__)["Mailbox"](self.folder)
        type(handler).__dict__["store"].__globals__["in_thread"] = self.run_at_once
        self.deliver(handler, CONTENT)
        (name,) = [path.name for path in (self.folder / "new").iterdir()]
        self.assertTrue(name.endswith(r".a\057b\0722,S"), name)
        self.assertEqual(next(iter(mailbox.Maildir(self.folder, create=False))).get_flags(), "")
