"""Import and export: mbox, Maildir and .eml."""

from __future__ import annotations

import io
import mailbox
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.inbox.transfer import Progress, main
from twisted_smtpd.session import Recipient
from twisted_smtpd.store import Matching, NewMessage, SessionFacts, StoredMessage
from twisted_smtpd.store.direct import StoreFile

HEAD = b"From: Anne <anne@x.example>\r\nTo: Bart <b@y.example>\r\nSubject: "


class TransferCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.store = str(self.folder / "mail.db")
        self.errors = io.StringIO()
        self.patch(sys, "stderr", self.errors)

    def run_command(self, *words: str) -> str:
        """Run the command; what it says on stderr, or as its last word."""
        self.errors.seek(0)
        self.errors.truncate()
        try:
            main([*words, "--store", self.store])
        except SystemExit as end:
            return str(end.code)
        return self.errors.getvalue()

    def stored(self, **criteria: Any) -> list[StoredMessage]:
        store = StoreFile(self.store)
        try:
            return list(store.find(Matching(**criteria)))
        finally:
            store.close()

    def fill(self) -> list[bytes]:
        """Put messages into the store, two of them read."""
        contents = [
            HEAD + b"One\r\n\r\nFrom here on\r\n>From there\r\n.\r\n\r\n",
            HEAD + b"Two\r\n\r\nno line end",
            b"\x00\xff\r\n\r\nFrom \x80\r\n",
        ]
        store = StoreFile(self.store, create=True)
        received = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
        facts, senders = SessionFacts("s"), ("a@x.example", "", "ö@x.example")
        store.add(
            [
                (NewMessage(content, sender, (), (Recipient("b@y.example"),), facts, received=received), seen)
                for content, sender, seen in zip(contents, senders, (True, False, True), strict=True)
            ]
        )
        store.close()
        return contents


class ExportTests(TransferCase):
    def test_an_mbox_is_one_that_others_read(self) -> None:
        contents = self.fill()
        target = self.folder / "out.mbox"
        self.assertEqual(self.run_command("export", str(target)), "3 messages exported\n")
        self.assertEqual(target.stat().st_mode & 0o777, 0o600)
        read = mailbox.mbox(str(target), create=False)
        self.addCleanup(read.close)
        self.assertEqual([message["Subject"] for message in read], ["One", "Two", None])
        self.assertEqual(read[0].get_from(), "a@x.example Sat Jan 31 12:00:00 2026")
        self.assertIn(b">From here on\n>>From there\n", read.get_bytes(0))
        self.store = str(self.folder / "second.db")
        self.assertEqual(self.run_command("import", str(target)), "3 messages imported\n")
        back = self.stored()
        # An mbox has a line end at the end of each message.
        self.assertEqual([one.message.content for one in back], [contents[0], contents[1] + b"\r\n", contents[2]])
        self.assertEqual([one.message.mail_from for one in back], ["a@x.example", "", "?@x.example"])
        self.assertEqual({one.message.received.hour for one in back}, {12})

    def test_a_maildir_is_one_that_others_read(self) -> None:
        contents = self.fill()
        target = self.folder / "Maildir"
        self.run_command("export", str(target), "--format", "maildir")
        read = mailbox.Maildir(target, create=False)
        self.assertEqual(sorted(message.get_flags() for message in read), ["", "S", "S"])
        self.store = str(self.folder / "second.db")
        self.run_command("import", str(target), "--mailbox", "old")
        back = self.stored(mailbox="old")
        self.assertEqual(sorted(one.message.content for one in back), sorted(contents))
        self.assertEqual([one.seen for one in back].count(True), 2)

    def test_eml_files_are_as_they_came(self) -> None:
        contents = self.fill()
        target = self.folder / "eml"
        self.run_command("export", str(target), "--format", "eml")
        self.assertEqual([(target / f"{n}.eml").read_bytes() for n in (1, 2, 3)], contents)
        self.store = str(self.folder / "second.db")
        self.run_command("import", str(target))
        self.assertEqual([one.message.content for one in self.stored()], contents)

    def test_a_query_chooses(self) -> None:
        self.fill()
        target = str(self.folder / "some")
        self.assertEqual(self.run_command("export", target, "--query", "subject:two"), "1 message exported\n")

    def test_mistakes_are_one_line(self) -> None:
        self.fill()
        there = self.folder / "there"
        there.write_bytes(b"x")
        for words, text in (
            (("export", str(there)), "File exists"),
            (("export", str(there), "--format", "eml"), "File exists"),
            (("export", str(self.folder), "--format", "eml"), "File exists"),
            (("export", str(self.folder / "no" / "where")), "No such file"),
            (("export", "x", "--query", "is:green"), "is:green"),
        ):
            said = self.run_command(*words)
            self.assertIn(text, said)
            self.assertEqual(len(said.splitlines()), 1)
        self.assertEqual(there.read_bytes(), b"x")
        self.store = str(self.folder / "missing.db")
        self.assertIn("no such file", self.run_command("export", "x"))
        self.assertFalse(os.path.exists(self.store))


class ImportTests(TransferCase):
    def test_an_eml_file_tells_what_is_known_of_it(self) -> None:
        path = self.folder / "a.eml"
        path.write_bytes(b"Return-Path: <bounces@x.example>\nDelivered-To: c@y.example\nTo: b@y.example\n\nhi\n")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        self.run_command("import", str(path))
        [one] = self.stored()
        self.assertEqual(one.message.mail_from, "bounces@x.example")
        self.assertEqual([recipient.address for recipient in one.message.recipients], ["c@y.example"])
        self.assertEqual(one.message.received.timestamp(), 1_700_000_000)
        self.assertEqual(one.message.content.count(b"\r\n"), 5)

    def test_several_sources_and_no_messages(self) -> None:
        self.fill()
        empty = self.folder / "empty"
        empty.write_bytes(b"")
        mbox = self.folder / "mbox"
        mbox.write_bytes(b"From - Xyz\nStatus: RO\nDate: Sat, 31 Jan 2026 12:00:00 +0000\n\nhi\n\nFrom x@y 1\n\n\n")
        self.assertEqual(self.run_command("import", str(empty), str(mbox)), "2 messages imported\n")
        one, _ = self.stored(after=3)
        self.assertEqual((one.seen, one.message.mail_from, one.message.received.year), (True, "", 2026))

    def test_what_is_imported_is_found(self) -> None:
        mbox = self.folder / "mbox"
        mbox.write_bytes(b"From a@b Sat Jan 31 12:00:00 2026\nSubject: needle\n\nhay\n")
        self.run_command("import", str(mbox))
        self.assertEqual(len(self.stored(text="needle hay")), 1)

    def test_what_is_no_mail(self) -> None:
        for name, content, text in (("a.txt", b"hello", "no mbox"), ("folder", None, "neither a Maildir")):
            path = self.folder / name
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)
            self.assertIn(text, self.run_command("import", str(path)))
        self.assertIn("No such file", self.run_command("import", str(self.folder / "missing")))
        (self.folder / "other.db").write_bytes(b"something else" * 100)
        self.store = str(self.folder / "other.db")
        self.assertIn("no SQLite database", self.run_command("import", str(self.folder / "a.txt")))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ProgressTests(SynchronousTestCase):
    def test_a_bar_on_a_terminal(self) -> None:
        now = 0.0
        stream = _Terminal()
        with Progress("octets", 200, stream, lambda: now) as progress:
            progress.show(0, 0)
            now = 0.05
            progress.show(50, 5)
            now = 2.0
            progress.show(100, 1000)
        said = stream.getvalue()
        self.assertIn(f"{'█' * 15}{'░' * 15}  50%  1,000 messages, 500 a second", said)
        self.assertNotIn("25%", said)
        self.assertTrue(said.endswith("\r\x1b[K"))

    def test_nothing_elsewhere(self) -> None:
        stream = io.StringIO()
        with Progress("octets", 0, stream, lambda: 0.0) as progress:
            progress.show(0, 0)
        self.assertEqual(stream.getvalue(), "")
