"""The server for tests, with real clients."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import smtplib
import socket
import ssl
import threading
import time
import unittest
from typing import Any
from unittest.mock import Mock

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.mail_servers import LIMIT, MESSAGE, client_of, send, started
from twisted_smtpd.testing import (
    AsyncMailServer,
    AsyncMailServerMixin,
    MailServer,
    MailServerMixin,
    ReceivedMessage,
)


class KeepTests(SynchronousTestCase):
    def test_a_message_is_there_when_its_sender_hears_so(self) -> None:
        server = started(self)
        self.assertEqual(server.url, f"smtp://127.0.0.1:{server.port}")
        send(server)
        (message,) = server.messages
        self.assertEqual((message["Subject"], message.raw), ("Hello", MESSAGE.encode()))
        self.assertEqual((message.mail_from, message.rcpt_tos), ("anne@example.com", ["bart@example.com"]))
        self.assertIs(message, server.messages[0])
        self.assertIn("C: (", message.dialog)

    def test_what_is_known_of_the_session(self) -> None:
        server = started(self)
        client = client_of(self, server, local_hostname="client.example")
        client.starttls(context=server.ssl_context())
        client.login("anne", "whatever")
        client.sendmail("anne@example.com", ["bart@example.com"], MESSAGE)
        session = server.messages[0].session
        self.assertEqual((session.helo, session.extended, session.user), ("client.example", True, "anne"))
        self.assertEqual((session.tls, session.peer and session.peer[0]), ("TLSv1.3", "127.0.0.1"))
        client.quit()
        server.stop()
        self.assertNotIn("whatever", server.dialogs[0])
        self.assertIn("C: AUTH PLAIN ***", server.dialogs[0])
        self.assertEqual(server.store.transcript(session.id), server.dialogs[0])

    def test_given_users_and_no_others(self) -> None:
        server = started(self, users={"anne": "secret"}, auth_required=True, tls=True, auth_mechanisms="PLAIN CRAM-MD5")
        with smtplib.SMTP_SSL(server.hostname, server.port, timeout=LIMIT, context=server.ssl_context()) as client:
            with self.assertRaises(smtplib.SMTPSenderRefused):
                client.sendmail("anne@example.com", ["bart@example.com"], MESSAGE)
            with self.assertRaises(smtplib.SMTPAuthenticationError):
                client.login("anne", "wrong")
            client.login("anne", "secret")
            client.sendmail("anne@example.com", ["bart@example.com"], MESSAGE)
        self.assertEqual(server.messages[0].session.user, "anne")
        self.assertTrue(server.url.startswith("smtps://"))

    def test_lmtp(self) -> None:
        server = started(self, lmtp=True)
        with smtplib.LMTP(server.hostname, server.port) as client:
            client.sendmail("anne@example.com", ["bart@example.com"], MESSAGE)
        self.assertEqual((len(server.messages), server.url[:7]), (1, "lmtp://"))

    def test_options_are_those_of_smtp(self) -> None:
        server = started(self, data_size_limit=10, starttls=False, auth=False)
        client = client_of(self, server)
        client.ehlo()
        self.assertEqual((client.esmtp_features["size"], client.has_extn("starttls")), ("10", False))
        self.assertFalse(client.has_extn("auth"))

    def test_an_unknown_option_is_an_error_at_the_start(self) -> None:
        server = MailServer(loop=asyncio.new_event_loop(), colour="red")
        self.addCleanup(server.stop)
        self.assertIn("colour", str(self.assertRaises(TypeError, server.start)))

    def test_it_can_be_started_again_and_stopped_twice(self) -> None:
        server = MailServer(loop=asyncio.new_event_loop())
        with server:
            send(server)
        server.stop()
        self.assertEqual(len(server.messages), 1)
        self.assertRaises(OSError, socket.create_connection, (server.hostname, server.port), LIMIT)

    def test_a_test_may_set_hooks_on_the_handler_while_the_server_runs(self) -> None:
        server = started(self)
        send(server)
        hook = Mock(return_value="550 5.1.1 as the mock says")
        server.handler.handle_RCPT = hook  # type: ignore[attr-defined]
        self.assertRaises(smtplib.SMTPRecipientsRefused, send, server)
        self.assertEqual(hook.call_args.args[3], "bart@example.com")

    def test_old_messages_go_when_there_are_too_many(self) -> None:
        server = started(self, max_messages=2)
        for number in range(4):
            send(server, f"b{number}@example.com")
        self.assertEqual([m.rcpt_tos for m in server.messages], [["b2@example.com"], ["b3@example.com"]])
        self.assertIn("2 older messages were dropped", server.report())

    def test_a_report_is_short_whatever_has_come(self) -> None:
        server = started(self)
        client = client_of(self, server)
        people = [f"b{number}@example.com" for number in range(100)]
        client.sendmail("anne@example.com", people, f"Subject: {'x' * 900}\n\nhi\n")
        report = server.report()
        self.assertIn("b4@example.com and 95 more: 'xxx", report)
        self.assertIn("lines are left out: see dialogs", report)
        self.assertLess(len(report), 4000)


class WaitTests(SynchronousTestCase):
    def later(self, function: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments)
        thread.start()
        self.addCleanup(thread.join, LIMIT)

    def test_waits_for_a_message_that_fits(self) -> None:
        server = started(self, timeout=LIMIT)
        send(server, "cate@example.com")
        self.later(send, server)
        self.assertEqual(server.wait_for(to="BART@").rcpt_tos, ["bart@example.com"])

    def test_what_is_there_counts_and_a_number_gives_a_list(self) -> None:
        server = started(self)
        send(server)
        send(server)
        for wanted in (1, 2):
            self.assertEqual(server.wait_for(wanted), server.messages[:wanted])
        self.assertIs(server.wait_for(), server.messages[0])
        self.assertIs(server.wait_for(lambda message: message.id == 2), server.messages[1])
        self.assertRaises(ValueError, server.wait_for, 0)

    def test_criteria(self) -> None:
        server = started(self)
        send(server)
        for fits in (
            {"to": "bart@"},
            {"sender": "anne"},
            {"subject": "HELLO"},
            {"body": "works"},
            {"subject": re.compile("^Hel+o$")},
            {"predicate": lambda message: message.session.helo},
        ):
            self.assertEqual(len(server.find(**fits)), 1, fits)
        for differs in ({"to": "cate"}, {"sender": "cate"}, {"subject": re.compile("hello")}, {"body": "fails"}):
            self.assertEqual(server.find(**differs), [], differs)

    def test_a_wait_that_fails_shows_what_came_and_how(self) -> None:
        server = started(self)
        error = self.assertRaises(AssertionError, server.wait_for, to="cate", timeout=0)
        self.assertIn("No message came, and no client has connected.", str(error))
        send(server)
        error = self.assertRaises(AssertionError, server.wait_for, 3, to="cate", subject=re.compile("x"), timeout=0)
        for part in (
            "waited 0 s for 3 messages with to='cate', subject='x', none came\n",
            "Accepted:\n  1. <anne@example.com> to bart@example.com: 'Hello'\n",
            "  S: 220 localhost ESMTP twisted-smtpd\n",
        ):
            self.assertIn(part, str(error))

    def test_that_none_comes(self) -> None:
        server = started(self)
        server.expect_none(within=0.01)
        send(server)
        server.expect_none(to="cate")
        self.assertRaises(AssertionError, server.expect_none)
        server.clear()
        self.assertEqual((server.messages, server.dialogs), ([], []))
        server.expect_none()

    def test_a_message_that_must_not_come_ends_the_wait_at_once(self) -> None:
        server = started(self)
        self.later(send, server)
        self.assertRaises(AssertionError, server.expect_none, within=LIMIT)


class FailureTests(SynchronousTestCase):
    def test_dropped_and_reset_are_told_apart_by_the_client(self) -> None:
        server = started(self)
        for what, expected in (("drop", b""), ("reset", ConnectionResetError)):
            with server.fail("NOOP", what), socket.create_connection((server.hostname, server.port), LIMIT) as client:
                client.recv(1000)
                client.sendall(b"NOOP\r\n")
                if expected:
                    self.assertRaises(ConnectionResetError, client.recv, 1000)
                else:
                    self.assertEqual(client.recv(1000), b"")

    def test_a_stalled_client_does_not_hold_up_the_stop(self) -> None:
        for where in ("NOOP", "CONNECT", "CONTENT", "MESSAGE", "ANSWER"):
            server = MailServer(loop=asyncio.new_event_loop())
            server.start()
            server.fail(where, "stall")
            with socket.create_connection((server.hostname, server.port), LIMIT) as client:
                said = b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"
                client.sendall(b"NOOP\r\n" if where == "NOOP" else said)
                client.sendall(b"hello\r\n.\r\n")
                began = time.monotonic()
                server.stop()
                self.assertLess(time.monotonic() - began, 4, where)

    def test_answers_in_pieces(self) -> None:
        server = started(self)
        server.fail("*", "split", delay=0)
        server.fail("CONNECT", "split", delay=0)
        client = client_of(self, server)
        client.starttls(context=server.ssl_context())
        client.sendmail("anne@example.com", ["bart@example.com"], MESSAGE)
        client.quit()
        self.assertEqual(len(server.messages), 1)

    def test_without_starttls_a_client_does_not_get_it(self) -> None:
        server = started(self)
        server.fail("EHLO", "without STARTTLS")
        client = client_of(self, server)
        self.assertRaises(smtplib.SMTPNotSupportedError, client.starttls)
        self.assertEqual(client.docmd("STARTTLS")[0], 502)


# What OpenSSL says to each fault.
FAULTS = {
    "expired": "certificate has expired",
    "wrong name": "IP address mismatch",
    "unknown authority": "unable to get local issuer certificate|self-signed certificate",
    "old version": "(?i)protocol.version|unsupported protocol",
}


class TLSTests(SynchronousTestCase):
    def test_each_fault_is_what_the_client_says_it_is(self) -> None:
        for options in ({}, {"tls": True}):
            server = started(self, **options)
            for fault, text in FAULTS.items():
                with server.fail("TLS", fault), self.assertRaisesRegex(ssl.SSLError, text):
                    self.handshake(server)
            self.handshake(server)

    def handshake(self, server: MailServer) -> None:
        if server.url.startswith("smtps"):
            smtplib.SMTP_SSL(server.hostname, server.port, timeout=LIMIT, context=server.ssl_context()).close()
        else:
            client = client_of(self, server)
            client.starttls(context=server.ssl_context())

    def test_the_authority_s_file_is_trusted_on_request(self) -> None:
        self.patch(os, "environ", {**os.environ, "SSL_CERT_FILE": "as before"})
        server = started(self, ssl_cert_file=True)
        self.assertEqual(os.environ["SSL_CERT_FILE"], server.ca_file)
        context = ssl.create_default_context(cafile=server.ca_file)
        # As it is from Python 3.13 on.
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        client_of(self, server).starttls(context=context)
        server.stop()
        self.assertEqual(os.environ["SSL_CERT_FILE"], "as before")


class MixinTests(MailServerMixin, SynchronousTestCase):
    mail_server_options = {"lmtp": True, "loop": None}  # noqa: RUF012 - tests share it, and do not change it

    def setUp(self) -> None:
        type(self).mail_server_options["loop"] = asyncio.new_event_loop()
        super().setUp()

    def test_each_test_has_a_server(self) -> None:
        with smtplib.LMTP(self.smtpd.hostname, self.smtpd.port) as client:
            client.sendmail("anne@example.com", ["bart@example.com"], MESSAGE)
        self.assertIsInstance(self.smtpd.wait_for(), ReceivedMessage)


class TrialTests(AsyncMailServerMixin, TestCase):
    """On the reactor that runs the test."""

    async def setUp(self) -> None:  # type: ignore[override]
        from twisted.internet import reactor

        # Tests in memory leave connections open, whose timers have waited for a reactor that runs.
        waiting: Any = reactor
        for call in waiting.getDelayedCalls():
            call.cancel()
        await super().setUp()

    async def test_mail_is_waited_for_on_the_reactor(self) -> None:
        thread = threading.Thread(target=send, args=(self.smtpd,))
        thread.start()
        self.addCleanup(thread.join, LIMIT)
        message = await self.smtpd.wait_for(to="bart", timeout=LIMIT)
        self.assertEqual(message["Subject"], "Hello")
        with self.assertRaisesRegex(AssertionError, "Accepted:"):
            await self.smtpd.wait_for(2, timeout=0.01)
        with self.assertRaises(AssertionError):
            await self.smtpd.expect_none()


class AsyncioTests(unittest.TestCase):
    def setUp(self) -> None:
        # With Twisted 24.7 trial has not chosen its reactor yet, and takes none that is moved to a loop of a test.
        importlib.import_module("twisted.internet.reactor")

    def test_parallel_tests_have_a_server_each(self) -> None:
        async def one(number: int) -> str:
            async with AsyncMailServer() as server:
                sending = asyncio.to_thread(send, server, f"b{number}@example.com")
                message, _ = await asyncio.gather(server.wait_for(timeout=LIMIT), sending)
                await server.expect_none(to="nobody", within=0.01)
                with self.assertRaises(AssertionError):
                    await server.wait_for(2, timeout=0.01)
                return str(message.rcpt_tos[0])

        async def main() -> list[str]:
            return await asyncio.gather(*map(one, range(5)))

        loop = asyncio.new_event_loop()
        try:
            self.assertEqual(loop.run_until_complete(main()), [f"b{number}@example.com" for number in range(5)])
        finally:
            loop.close()
