"""The handler: what it takes, from whom, and what it answers."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.support.fakes import Recorder, answering, codes, connect, hooks, last_line
from tests.support.lives import Living
from tests.support.queues import MemoryQueue
from twisted_smtpd.handlers import Chain, HandlerStartError, Recipients, Senders, ServerInfo
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.interfaces import IDATAHandler, IMAILHandler, IOffersServices, IReloadable, IStartable
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.queue.entries import QueueFull
from twisted_smtpd.queue.handler import Queue
from twisted_smtpd.queue.schedule import Schedule
from twisted_smtpd.runtime.database import DatabaseError

ANYWHERE = [("0.0.0.0", 25)]
MAIL = b"MAIL FROM:<a@x.example>\r\n"
DIALOG = b"EHLO client.example\r\n" + MAIL + b"RCPT TO:<b@y.example>\r\nDATA\r\n"
CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


def info(clock: Clock, addresses: Any = ANYWHERE, **options: Any) -> ServerInfo:
    return ServerInfo("mx.example", addresses, clock, options)


class HandlerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = MemoryQueue(self.clock)
        self.recorder: Any = Recorder()

    def started(self, handler: Any, **options: Any) -> Any:
        self.successResultOf(Deferred.fromCoroutine(handler.start(info(self.clock, **options))))
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(handler.stop())))
        return handler

    def make(self, **options: Any) -> Queue:
        return Queue(self.queue, self.recorder, **{"trust": ["192.0.2.0/24"], **options})

    def send(self, handler: Any, content: bytes = CONTENT, **options: Any) -> str:
        client = connect(handler, **options)
        client.send(DIALOG)
        return last_line(client.send(content + b".\r\n"))

    def deliver(self) -> None:
        self.clock.pump([1] + [0] * 20)


class AcceptTests(HandlerCase):
    def test_interfaces(self) -> None:
        for interface in (IMAILHandler, IDATAHandler, IStartable, IOffersServices):
            self.assertTrue(verifyObject(interface, self.make()))

    def test_a_message_is_queued_and_then_delivered(self) -> None:
        handler = self.started(self.make())
        reply = self.send(handler)
        self.deliver()
        (envelope,) = self.recorder.envelopes
        self.assertEqual(reply, f"250 2.0.0 queued as {envelope.queue_id}")
        self.assertEqual((envelope.queued_at, envelope.content), (0.0, CONTENT))
        self.assertEqual((envelope.mail_from, envelope.rcpt_tos), ("a@x.example", ["b@y.example"]))
        self.assertEqual(self.queue.waiting(), [])
        found = {(one.name, *labels.values()): value for one in handler.metrics() for _, labels, value in one.samples}
        self.assertEqual(found["smtpd_queue_recipients", "delivered"], 1)
        self.assertEqual(found["smtpd_queue_messages",], 0)

    def test_session_and_parameters_come_along(self) -> None:
        seen: list[Any] = []

        class Keeper:
            def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                seen.append((server, session, envelope))
                return "250 OK"

        handler = self.started(Queue(self.queue, Keeper(), trust=["192.0.2.1"]))
        client = connect(handler)
        client.send(b"EHLO client.example\r\nMAIL FROM:<> RET=HDRS ENVID=x BODY=8BITMIME\r\n")
        client.send(b"RCPT TO:<b@y.example> NOTIFY=SUCCESS ORCPT=rfc822;c@z.example\r\nRCPT TO:<d@y.example>\r\n")
        client.send(b"DATA\r\n" + CONTENT + b".\r\n")
        self.deliver()
        ((server, session, envelope),) = seen
        self.assertEqual((server.hostname, server.replies_to_each_recipient), ("mx.example", True))
        self.assertEqual(
            (session.peer, session.host_name, session.extended_smtp), (("192.0.2.1", 40000), "client.example", True)
        )
        self.assertEqual(session.id, client.protocol.session.id)
        self.assertEqual((envelope.null_sender, envelope.ret, envelope.envelope_id), (True, "HDRS", "x"))
        first, second = envelope.recipients
        self.assertEqual((first.notify, first.original_recipient.address), ({"SUCCESS"}, "c@z.example"))
        self.assertEqual((second.address, second.parameters), ("d@y.example", {}))
        self.assertEqual(envelope.rcpt_options, ["NOTIFY=SUCCESS", "ORCPT=rfc822;c@z.example"])

    def test_lmtp_has_a_reply_for_each_recipient(self) -> None:
        client = connect(self.started(self.make()), LMTP)
        client.send(b"LHLO x\r\n" + MAIL + b"RCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nDATA\r\n")
        self.assertEqual(codes(client.send(CONTENT + b".\r\n")), [250, 250])

    def test_a_message_without_recipients_is_not_queued(self) -> None:
        class Discards:
            def handle_RCPT(self, *arguments: Any) -> str:
                return "250 discarded"

        self.assertEqual(self.send(self.started(Chain(Discards(), self.make()))), "250 2.0.0 OK")
        self.assertEqual(self.queue.waiting(), [])

    def test_a_message_that_runs_in_circles(self) -> None:
        hop = b"Received: from a by b\r\n"
        handler = self.started(self.make(max_hops=3))
        self.assertTrue(self.send(handler, hop * 4 + CONTENT).startswith("554 5.4.6 "))
        self.assertTrue(self.send(handler, hop * 3 + b"\r\n" + hop).startswith("250 "))

    def test_no_more_deliveries_than_a_proxy_has_connections(self) -> None:
        class OneHost(Recorder):
            one_next_host, max_connections = True, 2

            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                self.envelopes.append(envelope)
                return str(await Deferred())

        self.recorder = OneHost()
        handler = self.started(self.make(deliveries=9))
        for _ in range(5):
            self.send(handler)
        self.deliver()
        self.assertEqual(len(self.recorder.envelopes), 2)
        self.clock.advance(900)


class TroubleTests(HandlerCase):
    def answer(self, error: Exception) -> str:
        def accept(message: Any) -> Any:
            raise error

        handler = self.started(self.make())
        self.patch(self.queue, "accept", accept)
        return self.send(handler)

    def test_a_queue_that_is_full(self) -> None:
        self.assertEqual(self.answer(QueueFull("x")), "452 4.3.1 The queue is full, try again later")

    def test_a_disk_that_is_full(self) -> None:
        reply = self.answer(OSError(errno.ENOSPC, "No space left on device"))
        self.assertTrue(reply.startswith("452 4.3.1 Insufficient system storage"), reply)

    def test_a_queue_that_can_not_be_written(self) -> None:
        for error in (DatabaseError("x"), PermissionError(errno.EACCES, "Permission denied")):
            self.assertEqual(self.answer(error), "451 4.3.0 The message can't be queued, try again later")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_queue_that_has_been_closed(self) -> None:
        self.assertTrue(self.send(self.make()).startswith("451 4.3.2 "))


class WhoTests(HandlerCase):
    def mail(self, handler: Any, host: str) -> int:
        client = connect(handler, host=host)
        client.send(b"EHLO x\r\n")
        return codes(client.send(MAIL))[0]

    def test_a_stranger_may_not_send_where_recipients_are_not_checked(self) -> None:
        handler = self.make()
        for host, code in (("192.0.2.9", 250), ("127.0.0.1", 250), ("::1", 250), ("198.51.100.1", 550)):
            self.assertEqual(self.mail(handler, host), code, host)
        self.assertEqual(self.mail(self.make(recipients_checked=True), "198.51.100.1"), 250)

    def test_it_does_not_start_as_an_open_relay(self) -> None:
        def start(handler: Any, addresses: Any = ANYWHERE, **options: Any) -> Deferred[None]:
            starting = Deferred.fromCoroutine(handler.start(info(self.clock, addresses, **options)))
            starting.addCallback(lambda _: Deferred.fromCoroutine(handler.stop()))
            return starting

        def queue(**options: Any) -> Queue:
            return Queue(MemoryQueue(self.clock), self.recorder, **options)

        listed, refused = (Recipients("regex:.*", refuse=refuse) for refuse in (False, True))
        failure = self.failureResultOf(start(queue()), HandlerStartError)
        self.assertIn("it would queue mail of everybody for everybody", str(failure.value))
        self.failureResultOf(start(Chain(refused, queue())), HandlerStartError)
        self.failureResultOf(start(Chain(queue(), listed)), HandlerStartError)
        self.failureResultOf(start(queue(), [("127.0.0.1", 25), ("10.0.0.1", 25)]), HandlerStartError)
        for handler, addresses, options in (
            (queue(), [("127.0.0.1", 25), ("::1", 25, 0, 0), "/run/smtp.sock"], {}),
            (queue(), ANYWHERE, {"auth_required": True}),
            (queue(trust=["10.0.0.0/8"]), ANYWHERE, {}),
            (queue(recipients_checked=True), ANYWHERE, {}),
            (Chain(listed, queue()), ANYWHERE, {}),
            (Chain(Chain(listed, Living()), queue()), ANYWHERE, {}),
        ):
            self.successResultOf(start(handler, addresses, **options))

    def bounces(self, handler: Any, host: str) -> bool:
        self.send(handler, host=host)
        (facts,) = self.queue.connection.execute("SELECT facts FROM messages").fetchone()
        for table in ("messages", "bodies", "deliveries", "recipients"):
            self.queue.connection.execute(f"DELETE FROM {table}")
        return '"may_bounce": true' in facts

    def test_bounces_go_to_known_senders_only(self) -> None:
        self.recorder = hooks(handle_DATA=answering("450 4.2.1 busy"))
        everyone = Recipients("regex:.*")
        for handler, host, wanted in (
            (self.make(), "192.0.2.1", True),
            (Chain(everyone, self.make()), "198.51.100.1", False),
            (Chain(everyone, Senders("regex:.*"), self.make()), "198.51.100.1", True),
            (Chain(everyone, Senders("regex:nobody", refuse=True), self.make()), "198.51.100.1", False),
        ):
            self.started(handler)
            self.assertEqual(self.bounces(handler, host), wanted)


class LifeTests(HandlerCase):
    def test_the_handler_behind_it_is_started_stopped_and_reloaded(self) -> None:
        living = Living()
        handler = Queue(self.queue, living, trust=["192.0.2.1"])
        self.successResultOf(Deferred.fromCoroutine(handler.start(info(self.clock))))
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(handler.services())), [])
        self.successResultOf(Deferred.fromCoroutine(handler.stop()))
        self.assertEqual(
            (living.events, self.queue.closed, self.clock.getDelayedCalls()), (["start", "stop"], True, [])
        )
        self.assertFalse(IReloadable.providedBy(handler))
        handler = Queue(self.queue, Recipients("regex:x"))
        self.assertTrue(IReloadable.providedBy(handler))
        self.successResultOf(Deferred.fromCoroutine(handler.reload()))

    def test_a_handler_that_does_not_start_closes_the_queue(self) -> None:
        handler = Queue(self.queue, Living(start=OSError("no")), trust=["192.0.2.1"])
        self.failureResultOf(Deferred.fromCoroutine(handler.start(info(self.clock))), OSError)
        self.assertTrue(self.queue.closed)

    def test_arguments(self) -> None:
        for wrong in ({"max_messages": 0}, {"deliveries": 0}, {"delivery_timeout": 0}, {"trust": ["nonsense"]}):
            self.assertRaises(ValueError, Queue, "x", Recorder(), **wrong)
        self.assertRaises(TypeError, Queue, "x", "no handler")


class FolderTests(TestCase):
    async def test_a_folder_in_use_or_without_a_parent_is_an_error_of_one_line(self) -> None:
        folder = os.path.abspath(self.mktemp())
        first, second = (Queue(folder, Recorder()) for _ in range(2))
        here = ServerInfo("mx.example", [("127.0.0.1", 25)], Clock(), {})
        await first.start(here)
        error = await self.assertFailure(Deferred.fromCoroutine(second.start(here)), HandlerStartError)
        self.assertEqual(str(error), f"{folder}/queue.db is in use by process {os.getpid()}")
        await first.stop()
        await second.start(here)
        await second.stop()
        Path(folder, "queue.db").write_bytes(b"x" * 9999)
        error = await self.assertFailure(Deferred.fromCoroutine(second.start(here)), HandlerStartError)
        self.assertIn("is damaged or no SQLite database", str(error))
        error = await self.assertFailure(
            Deferred.fromCoroutine(Queue(f"{folder}/no/where", Recorder()).start(here)), HandlerStartError
        )
        self.assertIn("No such file or directory", str(error))


class CommandLineTests(SynchronousTestCase):
    def test_a_handler_behind_it_and_several(self) -> None:
        handler = make_handler("queue", ["Q", "+", "sink"])
        self.assertEqual((type(handler.handler).__name__, handler.schedule), ("Sink", Schedule()))
        handler = make_handler("queue", ["Q", "+", "debugging", "stderr", "+", "sink"])
        self.assertEqual([type(one).__name__ for one in handler.handler.handlers], ["Debugging", "Sink"])

    def test_in_a_chain_all_that_follows_is_its_own(self) -> None:
        words = ["recipients", "regex:x", "+", "queue", "Q", "+", "debugging", "stderr", "+", "sink"]
        chain = make_handler("chain", words)
        recipients, queue = chain.handlers
        self.assertEqual((type(recipients), type(queue), len(queue.handler.handlers)), (Recipients, Queue, 2))

    def test_options(self) -> None:
        words = "Q --retry 5 --retry-max 10m --expire 2d --warn 1h --max-messages 9 --max-size 1G --deliveries 3"
        handler = make_handler("queue", [*words.split(), "--trust", "10.0.0.0/8", "--trust", "unix", "+", "sink"])
        self.assertEqual(handler.schedule, Schedule(5, 600, 172800, 3600))

    def test_mistakes_are_one_line(self) -> None:
        for words, text in (
            ((), "the following arguments are required: folder"),
            (("Q",), "it takes a + and the handler that consumes the messages"),
            (("Q", "+"), "it takes a + and the handler that consumes the messages"),
            (("Q", "+", "nonsense"), "there is no handler 'nonsense'"),
            (("Q", "--retry", "soon", "+", "sink"), "argument --retry: invalid"),
            (("Q", "--retry", "0", "+", "sink"), "the first wait is above 0"),
            (("Q", "--trust", "x", "+", "sink"), "does not appear to be an IPv4 or IPv6 network"),
            (("Q", "--max-size", "much", "+", "sink"), "argument --max-size: invalid"),
        ):
            error = self.assertRaises(HandlerError, make_handler, "queue", words)
            self.assertIn(text, str(error))
            self.assertNotIn("\n", str(error))
