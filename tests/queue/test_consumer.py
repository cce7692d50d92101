"""A delivery calls a handler's hooks as a connection does."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import hooks
from twisted_smtpd.handlers import PASS, Chain, Proxy, Recipients, Sink
from twisted_smtpd.queue.consumer import Consumer
from twisted_smtpd.queue.entries import Delivery
from twisted_smtpd.session import Recipient
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


class ConsumerTests(SynchronousTestCase):
    def consumer(self, handler: object) -> Consumer:
        return Consumer(handler, "mx.example", "test", timeout=9, clock=Clock(), loop=None)

    def give(self, handler: object, *addresses: str, content: bytes = CONTENT) -> list[str]:
        recipients = {number * 2: Recipient(one) for number, one in enumerate(addresses or ("b@y.example",))}
        delivery = Delivery(*(1, 1, "ID", 0.0, "a@x.example", len(content), 0, {}, "", 0, False), recipients)
        replies = self.successResultOf(Deferred.fromCoroutine(self.consumer(handler).give(delivery, content)))
        return [str(reply) for reply in replies]

    def test_one_status_is_for_all(self) -> None:
        handler = hooks(handle_DATA=lambda *arguments: "250 OK")
        self.assertEqual(self.give(handler, "b@y.example", "c@y.example"), ["250 OK"] * 2)

    def test_statuses_by_recipient(self) -> None:
        async def yielding(*arguments: Any) -> Any:
            yield "250 OK"
            yield "550 no"

        for hook in (
            lambda *arguments: ["250 OK", "550 no"],
            lambda *arguments: "250 OK\r\n550 no",
            yielding,
        ):
            self.assertEqual(self.give(hooks(handle_DATA=hook), "b@y.example", "c@y.example"), ["250 OK", "550 no"])

    def test_recipients_that_a_hook_refuses_do_not_get_the_message(self) -> None:
        seen: list[Any] = []

        def data(server: Any, session: Any, envelope: Any) -> str:
            seen.append((envelope.rcpt_tos, [one.address for one in envelope.recipients], envelope.mail_from))
            return "250 OK"

        handler = Chain(Recipients("regex:.*@ours\\.example"), hooks(handle_DATA=data))
        replies = self.give(handler, "b@ours.example", "c@other.example", "d@ours.example")
        self.assertEqual([reply[:3] for reply in replies], ["250", "550", "250"])
        ours = ["b@ours.example", "d@ours.example"]
        self.assertEqual(seen, [(ours, ours, "a@x.example")])
        self.assertEqual([reply[:3] for reply in self.give(handler, "c@other.example")], ["550"])
        self.assertEqual(len(seen), 1)

    def test_a_sender_that_a_hook_refuses(self) -> None:
        handler = hooks(handle_MAIL=lambda *arguments: "550 no", handle_DATA=lambda *arguments: self.fail("called"))
        self.assertEqual(self.give(handler, "b@y.example", "c@y.example"), ["550 no"] * 2)

    def test_hooks_that_decide_nothing_or_nothing_at_all(self) -> None:
        nothing = hooks(handle_MAIL=lambda *arguments: PASS, handle_RCPT=lambda *arguments: PASS)
        self.assertEqual([self.give(nothing), self.give(Sink())], [["250 OK"], ["250 OK"]])

    def test_a_hook_that_raises(self) -> None:
        def refuse(*arguments: Any) -> None:
            raise SMTPReplyError(552, "5.2.2", "full")

        def fail(*arguments: Any) -> None:
            raise LookupError

        self.assertEqual(self.give(hooks(handle_DATA=refuse)), ["552 5.2.2 full"])
        for name in ("MAIL", "RCPT", "DATA"):
            self.assertEqual(self.give(hooks(**{f"handle_{name}": fail})), ["451 4.3.0 The handler failed"])
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 3)

    def test_answers_that_are_none(self) -> None:
        for answer in (None, 7, "nonsense", "354 go on", ["250 OK"] * 3, Reply(334)):
            self.assertEqual(self.give(hooks(handle_DATA=lambda *_, a=answer: a))[0][:3], "451", answer)
        self.flushLoggedErrors()

    def test_a_stream(self) -> None:
        read: list[bytes] = []

        async def stream(server: Any, session: Any, envelope: Any, stream: Any) -> str:
            self.assertEqual((envelope.content, stream.declared_size), (None, 5_000_000))
            read.extend([chunk async for chunk in stream])
            return "250 OK"

        content = b"x" * 5_000_000
        self.assertEqual(self.give(hooks(handle_DATA_STREAM=stream), content=content), ["250 OK"])
        self.assertEqual(b"".join(read), content)
        self.assertGreater(len(read), 1)

    def test_where_it_goes_and_what_a_yes_means(self) -> None:
        proxy = Proxy("127.0.0.1", 25)
        for handler, destination, success in (
            (Sink(), "y.example", "delivered"),
            (proxy, "", "relayed"),
            (Chain(Sink(), proxy), "y.example", "relayed"),
        ):
            consumer = self.consumer(handler)
            self.assertEqual((consumer.destination("b@Y.example"), consumer.success), (destination, success))
