"""The handler of the inbox, in memory."""

from __future__ import annotations

import errno
import os
from argparse import ArgumentParser
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.handlers import PASS, Chain
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.inbox.handler import Inbox
from twisted_smtpd.interfaces import IOffersProtocol, IOffersServices, IStartable
from twisted_smtpd.runtime.database import DatabaseError
from twisted_smtpd.store import Matching, MemoryStore, StoredMessage
from twisted_smtpd.testing.failures import Failures, parse_failure
from twisted_smtpd.testing.memory import Dialog, connect

MESSAGE = "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nSubject: hi\r\n\r\nhello\r\n.\r\n"


class _InboxCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.store: Any = MemoryStore()

    def dialog(self, *failures: str, lmtp: bool = False, **options: Any) -> Dialog:
        """Connect to an inbox."""
        self.inbox = Inbox(store=self.store)
        wrong = Failures()
        for text in failures:
            wrong.add(parse_failure(text, 0))
        dialog = connect(self.inbox, protocol=self.inbox.protocol(lmtp, wrong), **options)
        dialog.send(b"LHLO c.example\r\n" if lmtp else b"EHLO c.example\r\n")
        return dialog

    def kept(self, refused: bool | None = None) -> list[StoredMessage]:
        return self.store.find(Matching(refused=refused))  # type: ignore[no-any-return]


class Blocking:
    """Refuses a recipient, and messages with a word in them."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        return "550 5.1.1 no such box" if address.startswith("no@") else PASS

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        return "554 5.7.1 spam" if b"pills" in envelope.content else PASS


class ChainTests(_InboxCase):
    """In a chain the inbox keeps as much as alone."""

    def chained(self, *failures: str, lmtp: bool = False) -> Dialog:
        self.inbox = Inbox(store=self.store)
        chain = Chain(Blocking(), Chain(self.inbox))
        self.assertTrue(IOffersProtocol.providedBy(chain))
        wrong = Failures()
        for text in failures:
            wrong.add(parse_failure(text, 0))
        dialog = connect(chain, protocol=chain.protocol(lmtp, wrong))
        dialog.send(b"LHLO c.example\r\n" if lmtp else b"EHLO c.example\r\n")
        return dialog

    def test_a_chain_without_it_has_no_connections_of_its_own(self) -> None:
        self.assertFalse(IOffersProtocol.providedBy(Chain(Blocking())))

    def test_a_dialog(self) -> None:
        dialog = self.chained()
        dialog.send(MESSAGE.encode())
        dialog.lose()
        [stored] = self.kept()
        self.assertEqual(stored.message.refusal, None)
        self.assertIn("C: DATA", self.store.transcript(stored.message.session.id))

    def test_what_a_handler_before_it_refuses(self) -> None:
        dialog = self.chained()
        dialog.send(MESSAGE.replace("hello", "pills").encode())
        dialog.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<no@y.example>\r\nRSET\r\n")
        refusals = [one.message.refusal for one in self.kept(refused=True)]
        self.assertEqual(refusals, ["554 5.7.1 spam", "550 5.1.1 no such box"])
        self.assertEqual(self.kept(refused=False), [])

    def test_a_failure_for_one_recipient_of_two(self) -> None:
        dialog = self.chained("message=552 5.2.2 full:match=b@", lmtp=True)
        dialog.send(MESSAGE.replace("DATA", "RCPT TO:<c@y.example>\r\nDATA").encode())
        kept = {(one.message.recipients[0].address, one.message.refusal) for one in self.kept()}
        self.assertEqual(kept, {("b@y.example", "552 5.2.2 full"), ("c@y.example", None)})


class KeepTests(_InboxCase):
    def test_it_declares_what_it_offers(self) -> None:
        inbox = Inbox(store=self.store)
        for interface in (IStartable, IOffersServices, IOffersProtocol):
            self.assertTrue(interface.providedBy(inbox))

    def test_a_message_is_there_before_its_250(self) -> None:
        dialog = self.dialog()
        self.assertIn(b"\r\n250 2.0.0 Kept\r\n", dialog.send(MESSAGE.encode()))
        [stored] = self.kept()
        self.assertEqual(stored.message.content, b"Subject: hi\r\n\r\nhello\r\n")
        self.assertEqual((stored.message.refusal, stored.message.mailboxes), (None, ("",)))

    def test_lines_have_any_length(self) -> None:
        self.dialog().send(MESSAGE.replace("hello", "x" * 100_000).encode())
        self.assertEqual(len(self.kept(refused=False)), 1)

    def test_the_dialog_is_kept_at_the_end_of_the_session(self) -> None:
        dialog = self.dialog()
        dialog.send(MESSAGE.encode())
        [stored] = self.kept()
        session = stored.message.session.id
        self.assertEqual(self.store.transcript(session), None)
        self.inbox._keep_dialogs()
        self.assertIn("C: DATA", self.store.transcript(session))
        dialog.send(b"QUIT\r\n")
        dialog.lose()
        self.assertIn("S: 221", self.store.transcript(session))
        self.assertEqual(self.inbox._dialogs, {})

    def test_a_session_without_messages_leaves_nothing(self) -> None:
        dialog = self.dialog()
        dialog.send(b"QUIT\r\n")
        dialog.lose()
        self.assertEqual((self.store._transcripts, self.inbox._dialogs, self.kept()), ({}, {}, []))

    def test_a_client_that_has_gone_before_its_message_is_kept_has_its_dialog_kept(self) -> None:
        from twisted.internet.defer import Deferred

        waiting: Deferred[None] = Deferred()
        add = self.store.add
        self.store.add = lambda message: waiting.addCallback(lambda _: add(message))
        dialog = self.dialog()
        dialog.send(MESSAGE.encode())
        dialog.lose()
        waiting.callback(None)
        [stored] = self.kept()
        self.assertIn("C: DATA", self.store.transcript(stored.message.session.id))

    def test_a_full_disk_is_452_and_any_other_trouble_is_451(self) -> None:
        for error, reply in (
            (OSError(errno.ENOSPC, "no space"), b"452 4.3.1"),
            (DatabaseError("locked"), b"451 4.3.0"),
        ):
            self.store.add = lambda message, error=error: fail(error)
            self.assertIn(reply, self.dialog().send(MESSAGE.encode()).splitlines()[-1])
        self.assertEqual(self.kept(), [])

    def test_that_old_messages_stay_is_logged_once(self) -> None:
        from twisted_smtpd.inbox import handler

        seen: list[Any] = []
        self.patch(handler.log, "error", lambda *_, **fields: seen.append(fields["error"]))
        self.dialog()
        for error in (OSError(errno.ENOSPC, "no space"), OSError(errno.ENOSPC, "no space"), None, OSError("again")):
            self.store.purge = lambda error=error: None if error is None else fail(error)
            self.successResultOf(self.inbox._purge())
        self.assertEqual(seen, ["[Errno 28] no space", "again"])


class RefusedTests(_InboxCase):
    def reasons(self) -> list[tuple[str, bytes, list[str]]]:
        return [
            (
                (stored.message.refusal or "")[:3],
                stored.message.content,
                [recipient.address for recipient in stored.message.recipients],
            )
            for stored in self.kept()
        ]

    def test_a_message_that_a_failure_refuses(self) -> None:
        self.dialog("message=554").send(MESSAGE.encode())
        self.assertEqual(self.reasons(), [("554", b"Subject: hi\r\n\r\nhello\r\n", ["b@y.example"])])

    def test_a_message_that_is_too_large_is_kept_without_content(self) -> None:
        self.dialog(data_size_limit=5).send(MESSAGE.encode())
        self.assertEqual(self.reasons(), [("552", b"", ["b@y.example"])])

    def test_recipients_that_are_refused(self) -> None:
        dialog = self.dialog("rcpt=550")
        dialog.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\n")
        self.assertEqual(self.reasons(), [])
        dialog.send(b"RSET\r\n")
        self.assertEqual(self.reasons(), [("550", b"", ["b@y.example", "c@y.example"])])
        self.assertEqual(self.kept()[0].message.mail_from, "a@x.example")
        dialog.send(b"QUIT\r\n")
        dialog.lose()
        self.assertEqual(len(self.kept()), 1)

    def test_a_sender_that_is_refused(self) -> None:
        dialog = self.dialog("mail=451")
        dialog.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
        dialog.lose()
        self.assertEqual([refusal for refusal, _, _ in self.reasons()], ["451"])
        self.assertEqual(self.kept()[0].message.mail_from, "a@x.example")

    def test_a_recipient_that_is_refused_beside_another_is_no_refused_message(self) -> None:
        dialog = self.dialog("rcpt=550:times=1")
        dialog.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<z@y.example>\r\nRCPT TO:<b@y.example>\r\n")
        dialog.send(b"DATA\r\nhello\r\n.\r\nQUIT\r\n")
        dialog.lose()
        self.assertEqual(self.reasons(), [("", b"hello\r\n", ["b@y.example"])])

    def test_many_refusals_are_bounded(self) -> None:
        dialog = self.dialog("rcpt=550")
        dialog.send(b"MAIL FROM:<a@x.example>\r\n" + b"RCPT TO:<b@y.example>\r\n" * 50)
        dialog.lose()
        self.assertEqual([len(recipients) for _, _, recipients in self.reasons()], [20])

    def test_lmtp(self) -> None:
        self.dialog("message=554:times=1", lmtp=True).send(
            MESSAGE.replace("DATA", "RCPT TO:<c@y.example>\r\nDATA").encode()
        )
        self.assertEqual([one[::2] for one in self.reasons()], [("554", ["b@y.example"]), ("", ["c@y.example"])])


class ArgumentTests(SynchronousTestCase):
    def made(self, *words: str) -> Inbox:
        return make_handler("inbox", words)  # type: ignore[no-any-return]

    def test_arguments(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        passwords = os.path.join(folder, "passwords")
        with open(passwords, "w", encoding="utf-8") as file:
            file.write("anne:secret:1\n\nbart:x\n")
        inbox = self.made(
            *("--http", "0.0.0.0:0", "--http-password-file", passwords, "--http-token", "t" * 16),
            *("--http-host", "Inbox.example", "--http-path", "/mail/", "--max-age", "7d", "--max-size", "1G"),
            *("--store", "x.db", "--max-messages", "9", "--release", "mail.example:25 --tls starttls", "--check-links"),
        )
        arguments = inbox._arguments
        self.assertEqual(arguments.users, {"anne": "secret:1", "bart": "x"})
        self.assertEqual((arguments.tokens, arguments.base), (("t" * 16,), "/mail"))
        self.assertIn("inbox.example", arguments.http_hosts)
        self.assertEqual((arguments.max_age, arguments.max_size, arguments.max_messages), (604800, 2**30, 9))
        self.assertNotIn("secret", repr(arguments))
        self.assertNotIn("t" * 16, repr(arguments))

    def test_limits_unless_they_are_given(self) -> None:
        self.assertEqual(self.made()._arguments.max_messages, None)
        self.assertFalse(self.made()._arguments.trust_programs)
        self.assertTrue(self.made("--http-trust-programs")._arguments.trust_programs)
        self.assertEqual(self.made("--store", "x.db")._arguments.max_messages, 100_000)

    def test_mistakes_are_one_line(self) -> None:
        for words, text in (
            (("--http", "0.0.0.0:8026"), "--http-password-file or --http-token"),
            (("--http", "8.8.8.8:1"), "--http-token"),
            (("--http", "localhost.evil.example:1"), "--http-token"),
            (("--http", "tcp:8026"), "--http-token"),
            (("--http", "127.0.0.1:99999"), "65535"),
            (("--max-age", "soon"), "7d"),
            (("--max-size", "big"), "10M"),
            (("--http-token", "short"), "16 characters"),
            (("--http-password-file", "missing"), "missing"),
            (("--http-path", "a b"), "/inbox"),
            (("--mailboxes", "moon"), "recipient"),
            (("--mailboxes", "missing.toml"), "missing.toml"),
            (("--release", "mail.example"), "has no port"),
            (("--http-trust-programs", "--http-token", "t" * 16), "not with a password or a token"),
            (("--wrong",), "unrecognized"),
        ):
            error = self.assertRaises(HandlerError, self.made, *words)
            self.assertIn(text, str(error))
            self.assertEqual(len(str(error).splitlines()), 1)

    def test_loopback_needs_no_password(self) -> None:
        for where in (
            "127.0.0.1:0",
            "[::1]:0",
            "localhost:0",
            "8026",
            "127.1.2.3:1",
            "unix:/tmp/x",
            "tcp:0:interface=::1",
        ):
            self.made("--http", where.replace("interface=::1", "interface=\\:\\:1"))

    def test_a_token_that_is_made_is_logged_once(self) -> None:
        from twisted_smtpd.inbox import command

        seen: list[Any] = []
        self.patch(command.log, "warn", lambda *_, **fields: seen.append(fields["token"]))
        parser = ArgumentParser()
        arguments = command.parse_arguments(parser, ["--http-token", "auto"])
        self.assertEqual((seen, len(seen[0]) >= 16), (list(arguments.tokens), True))

    def test_a_library_that_is_missing(self) -> None:
        from twisted_smtpd.inbox import command

        self.patch(command, "find_spec", lambda name: None if name == "nh3" else name)
        self.assertIn("pip install 'twisted-smtpd[inbox]'", str(self.assertRaises(HandlerError, self.made)))


class ServiceTests(SynchronousTestCase):
    def test_the_timers_go_by_the_server_s_clock(self) -> None:
        from twisted_smtpd.runtime.lifecycle import ServerInfo

        clock, store = Clock(), MemoryStore()
        inbox = Inbox(store=store)
        self.successResultOf(_started(inbox, ServerInfo("h", (("127.0.0.1", 8025),), clock, {})))
        _, dialogs = inbox.services()
        kept: list[None] = []
        self.patch(inbox, "_keep_dialog", lambda dialog: kept.append(None))
        inbox._dialogs["s"] = None  # type: ignore[assignment]
        dialogs.startService()
        clock.advance(1)
        self.assertEqual(len(kept), 2)
        self.successResultOf(dialogs.stopService())


def _started(inbox: Inbox, server: Any) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(inbox.start(server))
