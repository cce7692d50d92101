"""The Mailbox handler: what was answered 250 is in the Maildir, whole."""

from __future__ import annotations

import email.message
import email.policy
import errno
import mailbox
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.handlers.test_handlers import make_envelope, make_session
from twisted_smtpd.handlers import Mailbox, maildir
from twisted_smtpd.session import Envelope, Session

TRACE = b"X-Peer: ('192.0.2.1', 4321)\nX-MailFrom: anne@example.com\nX-RcptTo: bart@example.com\n"


class MailboxTestCase(SynchronousTestCase):
    """Runs what goes to the thread pool at once, and counts it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.threads = 0
        self.patch(maildir, "in_thread", self.run_at_once)

    def run_at_once(self, function: Any, *args: Any) -> Deferred[Any]:
        self.threads += 1
        return execute(function, *args)

    def send(self, handler: Mailbox, content: bytes | str | None) -> Deferred[Any]:
        return Deferred.fromCoroutine(handler.handle_DATA(None, make_session(), make_envelope(content)))

    def deliver(self, handler: Mailbox, content: bytes | str) -> None:
        self.assertEqual(self.successResultOf(self.send(handler, content)), "250 OK")

    def stored(self, subdir: str = "new") -> list[bytes]:
        return sorted(path.read_bytes() for path in (self.folder / subdir).iterdir())

    def assert_nothing_there(self) -> None:
        self.assertEqual([self.stored(subdir) for subdir in ("tmp", "new", "cur")], [[], [], []])


class StoreTests(MailboxTestCase):
    def test_a_message_is_stored_as_sent_behind_the_trace_headers(self) -> None:
        body = b"\r\n\xff\x00 8 bit, \xc3\xa9\r\n.dot\r\n" + b"x" * 2000 + b"\r\nno end"
        content = b"Subject: a\r\n  b\r\nX-Long: " + b"y " * 300 + b"\r\nx-peer: forged\r\n" + body
        self.deliver(Mailbox(self.folder), content)
        honest = content.replace(b"x-peer: forged\r\n", b"").replace(b"\r\n", os.linesep.encode())
        self.assertEqual(self.stored(), [TRACE.replace(b"\n", os.linesep.encode()) + honest])

    def test_decoded_content_is_stored_as_utf8(self) -> None:
        self.deliver(Mailbox(self.folder), "Subject: é\r\n\r\n日本\udcff\r\n")
        self.assertEqual(self.stored(), [TRACE + "Subject: é\n\n日本".encode() + b"\xff\n"])

    def test_an_envelope_may_be_a_mock(self) -> None:
        """Programs written for aiosmtpd test their handlers with one, which has what aiosmtpd's has."""
        envelope = Mock(mail_from="a@x.example", rcpt_tos=["b@y.example"], content=b"Subject: hi\n\nhello\n")
        handler = Mailbox(self.folder)
        done = Deferred.fromCoroutine(handler.handle_DATA(Mock(), Mock(peer=("192.0.2.1", 25)), envelope))
        self.assertEqual(self.successResultOf(done), "250 OK")
        (stored,) = self.stored()
        self.assertTrue(stored.endswith(b"\nSubject: hi\n\nhello\n"), stored)

    def test_the_standard_library_reads_it(self) -> None:
        handler = Mailbox(self.folder)
        for number in range(3):
            self.deliver(handler, f"Message-ID: <{number}>\r\n\r\nbody {number}\r\n".encode())
        for reader in (handler.mailbox, mailbox.Maildir(self.folder, create=False)):
            messages = sorted(reader, key=lambda message: message["message-id"])
            self.assertEqual([message["Message-ID"] for message in messages], ["<0>", "<1>", "<2>"])
            self.assertEqual(messages[0].keys()[:3], ["X-Peer", "X-MailFrom", "X-RcptTo"])
            self.assertEqual([message.get_subdir() for message in messages], ["new"] * 3)

    def test_names_are_unique_and_nobody_else_can_read_the_files(self) -> None:
        handler = Mailbox(self.folder)
        self.patch(maildir.time, "time", lambda: 1_700_000_000.25)
        for _ in range(50):
            self.deliver(handler, b"")
        names = [path.name for path in (self.folder / "new").iterdir()]
        self.assertEqual(len(names), 50)
        for name in names:
            self.assertRegex(name, r"^1700000000\.M250000P\d+Q\d+R[0-9a-f]{8}\.[^/:]+$")
            self.assertEqual(stat.S_IMODE((self.folder / "new" / name).stat().st_mode), 0o600)

    def test_every_message_goes_through_the_thread_pool(self) -> None:
        self.deliver(Mailbox(self.folder), b"")
        self.deliver(Mailbox(self.folder, email.message.Message), b"")
        self.assertEqual(self.threads, 2)

    def test_reset_removes_all_messages(self) -> None:
        handler = Mailbox(self.folder)
        self.deliver(handler, b"")
        name = next((self.folder / "new").iterdir()).name
        (self.folder / "new" / name).rename(self.folder / "cur" / f"{name}:2,S")
        self.deliver(handler, b"")
        handler.reset()
        self.assert_nothing_there()
        self.deliver(handler, b"")
        self.assertEqual(len(handler.mailbox), 1)


class DurabilityTests(MailboxTestCase):
    """The order of system calls, and what each of them leaves behind when it fails."""

    def setUp(self) -> None:
        super().setUp()
        self.calls: list[str] = []
        self.failing: str | None = None
        self.error = errno.ENOSPC

    def call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.failing:
            raise OSError(self.error, os.strerror(self.error))

    def watched(self) -> Mailbox:
        handler = Mailbox(self.folder)
        fsync, rename = os.fsync, os.rename

        def watched_fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                self.assertTrue(os.path.samestat(os.fstat(descriptor), os.stat(self.folder / "new")))
                self.call("fsync folder")
            else:
                self.assertEqual(os.fstat(descriptor).st_size, len(TRACE + b"\nhello\n"))
                self.assertEqual((self.stored("new"), len(self.stored("tmp"))), ([], 1))
                self.call("fsync file")
            fsync(descriptor)

        def watched_rename(source: str, target: str) -> None:
            self.call("rename")
            rename(source, target)

        self.patch(os, "fsync", watched_fsync)
        self.patch(os, "rename", watched_rename)
        return handler

    def test_the_file_is_on_disk_before_its_name_and_the_name_before_the_250(self) -> None:
        self.deliver(self.watched(), b"\r\nhello\r\n")
        self.assertEqual(self.calls, ["fsync file", "rename", "fsync folder"])
        self.assertEqual((len(self.stored("new")), self.stored("tmp")), (1, []))

    def test_whatever_fails_there_is_no_250_and_nothing_left(self) -> None:
        handler = self.watched()
        for self.failing in ("fsync file", "rename", "fsync folder"):
            for self.error in (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT):
                failure = self.failureResultOf(self.send(handler, b"\r\nhello\r\n"), OSError)
                self.assertEqual(failure.value.errno, self.error)
                self.assert_nothing_there()

    def test_a_write_that_fails_leaves_nothing(self) -> None:
        class Full(bytes):
            """Raises when it is written."""

            def replace(self, *args: Any) -> Any:
                return 0

        handler = Mailbox(self.folder)
        self.patch(maildir, "split_header", lambda content: (b"half a message", Full(b"x")))
        self.failureResultOf(self.send(handler, b""), TypeError)
        self.assert_nothing_there()

    def test_a_file_system_that_can_not_synchronise_folders_will_do(self) -> None:
        handler = self.watched()
        self.failing = "fsync folder"
        for self.error in (errno.EINVAL, errno.ENOTSUP):
            self.deliver(handler, b"\r\nhello\r\n")
            handler.reset()

    def test_a_maildir_that_is_gone_is_no_250(self) -> None:
        handler = Mailbox(self.folder)
        (self.folder / "tmp").rmdir()
        self.failureResultOf(self.send(handler, b""), FileNotFoundError)
        (self.folder / "tmp").mkdir()
        (self.folder / "new").rmdir()
        self.failureResultOf(self.send(handler, b""), FileNotFoundError)
        self.assertEqual(self.stored("tmp"), [])

    def test_without_content_there_is_no_250(self) -> None:
        self.failureResultOf(self.send(Mailbox(self.folder), None), TypeError)
        self.assert_nothing_there()

    def test_where_folders_can_not_be_opened_they_are_not_synchronised(self) -> None:
        handler = self.watched()
        self.patch(maildir.os, "name", "nt")
        handler._write([TRACE + b"\nhello\n"])
        self.patch(maildir.os, "name", "posix")
        self.assertEqual(self.calls, ["fsync file", "rename"])


class CreationTests(MailboxTestCase):
    def test_a_new_maildir_is_private(self) -> None:
        Mailbox(self.folder)
        for folder in (self.folder, *(self.folder / name for name in ("tmp", "new", "cur"))):
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)

    def test_an_existing_folder_becomes_a_maildir(self) -> None:
        self.folder.mkdir()
        (self.folder / "new").mkdir()
        (self.folder / "new" / "old").write_bytes(b"kept")
        self.deliver(Mailbox(self.folder), b"\r\nhello\r\n")
        self.assertIn(b"kept", self.stored())
        self.assertEqual(len(self.stored()), 2)

    def test_a_parent_that_does_not_exist_is_a_clear_error(self) -> None:
        error = self.assertRaises(FileNotFoundError, Mailbox, self.folder / "a" / "b")
        self.assertIn("does not exist", str(error))
        self.assertEqual(error.filename, os.path.abspath(self.folder / "a"))

    def test_a_file_in_the_way_is_a_clear_error(self) -> None:
        self.folder.write_bytes(b"")
        self.assertIn("is a folder", str(self.assertRaises(NotADirectoryError, Mailbox, self.folder)))
        self.folder.unlink()
        self.folder.mkdir()
        (self.folder / "cur").write_bytes(b"")
        self.assertRaises(NotADirectoryError, Mailbox, self.folder)

    def test_the_path_is_kept_as_given_and_survives_a_change_of_folder(self) -> None:
        handler = Mailbox(str(self.folder))
        self.assertEqual(handler.mail_dir, str(self.folder))
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir("/")
        self.deliver(handler, b"")
        os.chdir(before)
        self.assertEqual(len(self.stored()), 1)

    def test_a_tilde_is_the_home_folder(self) -> None:
        self.folder.mkdir()
        self.patch(os, "environ", {**os.environ, "HOME": str(self.folder.absolute())})
        Mailbox("~/mail")
        self.assertTrue((self.folder / "mail" / "new").is_dir())


class OverrideTests(MailboxTestCase):
    def test_an_overridden_prepare_message_is_honoured(self) -> None:
        class Stamping(Mailbox):
            def prepare_message(self, session: Session, envelope: Envelope) -> email.message.Message:
                message = super().prepare_message(session, envelope)
                message["X-Stamp"] = "yes"
                return message

        self.deliver(Stamping(self.folder), b"Subject: x\r\n\r\nhello\r\n")
        self.assertEqual(self.stored(), [TRACE + b"Subject: x\nX-Stamp: yes\n\nhello\n"])
        self.assertEqual(self.threads, 1)

    def test_a_prepare_message_set_on_the_handler_is_honoured(self) -> None:
        handler = Mailbox(self.folder)
        handler.prepare_message = lambda session, envelope: email.message_from_string("A: 1\n\n2\n")  # type: ignore[method-assign]
        self.deliver(handler, b"")
        self.assertEqual(self.stored(), [b"A: 1\n\n2\n"])

    def test_an_overridden_handle_message_decides(self) -> None:
        class Choosing(Mailbox):
            def handle_message(self, message: email.message.Message) -> str | None:
                if message["Subject"] == "spam":
                    return "550 5.7.1 no spam"
                super().handle_message(message)
                return None

        handler = Choosing(self.folder)
        self.deliver(handler, b"Subject: ham\r\n\r\n")
        self.assertEqual(self.successResultOf(self.send(handler, b"Subject: spam\r\n\r\n")), "550 5.7.1 no spam")
        self.assertEqual((self.stored(), self.threads), ([TRACE + b"Subject: ham\n\n"], 0))

    def test_an_overridden_handle_message_can_store_in_the_thread_pool(self) -> None:
        class Storing(Mailbox):
            def handle_message(self, message: email.message.Message) -> Any:
                return self.store(message)

        waiting: Deferred[None] = Deferred()
        self.patch(maildir, "in_thread", lambda function, *args: waiting)
        answer = self.send(Storing(self.folder), b"")
        self.assertNoResult(answer)
        waiting.errback(OSError(errno.ENOSPC, "full"))
        self.failureResultOf(answer, OSError)

    def test_a_maildir_message_goes_where_it_says(self) -> None:
        class Seen(mailbox.MaildirMessage):
            def __init__(self) -> None:
                super().__init__()
                self.set_subdir("cur")
                self.set_flags("S")

        handler = Mailbox(self.folder, Seen)
        self.deliver(handler, b"Subject: x\r\n\r\n")
        (message,) = handler.mailbox
        self.assertEqual((message.get_subdir(), message.get_flags(), message["Subject"]), ("cur", "S", "x"))

    def test_with_a_message_class_or_a_policy_headers_are_not_folded_anew(self) -> None:
        content = (
            b"Subject: "
            + b"long " * 40
            + b"end\r\nDKIM-Signature: v=1;\r\n\tb="
            + b"A" * 200
            + b"\r\nX: \xc3\xa9\r\n\r\n\xff\r\n"
        )
        # Without utf8 the email package of Python 3.13 encodes 8-bit headers.
        for options in ({"message_class": email.message.Message}, {"policy": email.policy.SMTPUTF8}):
            handler = Mailbox(self.folder, **options)  # type: ignore[arg-type]
            self.deliver(handler, content)
            self.assertEqual(self.stored(), [TRACE + content.replace(b"\r\n", b"\n")])
            handler.reset()

    def test_decoded_content_beyond_ascii_can_be_stored_with_a_message_class(self) -> None:
        for options in ({"message_class": email.message.Message}, {"policy": email.policy.default}):
            handler = Mailbox(self.folder, **options)  # type: ignore[arg-type]
            self.deliver(handler, "Subject: x\r\n\r\n日本\r\n")
            self.assertEqual(self.stored(), [TRACE + "Subject: x\n\n日本\n".encode()])
            handler.reset()


class ThreadTests(TestCase):
    """With the real reactor and its thread pool."""

    async def test_the_reactor_runs_on_while_the_disk_is_slow(self) -> None:
        handler = Mailbox(self.mktemp())
        go, fsync, threads = threading.Event(), os.fsync, set()

        def slow_fsync(descriptor: int) -> None:
            threads.add(threading.current_thread())
            if not go.wait(30):
                raise OSError(errno.EIO, "the reactor stood still")
            fsync(descriptor)

        self.patch(os, "fsync", slow_fsync)
        answer = Deferred.fromCoroutine(handler.handle_DATA(None, make_session(), make_envelope(b"\r\nhello\r\n")))
        self.assertNoResult(answer)
        self.assertEqual(len(handler.mailbox), 0)
        go.set()
        self.assertEqual(await answer, "250 OK")
        self.assertNotIn(threading.main_thread(), threads)
        self.assertEqual(len(mailbox.Maildir(handler.mail_dir)), 1)


class ImportTests(SynchronousTestCase):
    def test_importing_and_making_handlers_installs_no_reactor(self) -> None:
        code = (
            "import sys; from twisted_smtpd.handlers import Mailbox; import twisted_smtpd.handlers.registry as r; "
            f"r.make_handler('mailbox', [{self.mktemp()!r}]); sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
