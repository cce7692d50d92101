"""LMTP (RFC 2033): its own greeting, and a reply for each accepted recipient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Client, Promises, Recorder, answering, codes, connect, hooks, make_factory
from tests.support.loops import in_a_loop, turns
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP, Reply, SMTPReplyError
from twisted_smtpd.wire.replies import BadStatus

THREE = (
    b"LHLO client.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\n"
    b"RCPT TO:<b@y.example>\r\n"
)
SENT = THREE + b"DATA\r\n"
BODY = b"Subject: hi\r\n\r\nhello\r\n.\r\n"
BEFORE = [250] * 5 + [354]


def client_of(handler: Any = None, protocol: type[SMTP] = LMTP, **options: Any) -> Client:
    """A client past the greeting, or past the wait for it."""
    client = connect(handler, protocol, **options)
    client.read()
    return client


def generator(*steps: Any) -> Callable[..., Any]:
    """A ``handle_DATA`` that yields statuses, raises errors, and awaits what can be awaited."""

    async def handle_DATA(server: Any, session: Any, envelope: Any) -> AsyncIterator[Any]:
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            yield await step if hasattr(step, "__await__") else step

    return handle_DATA


class GreetingTests(SynchronousTestCase):
    def test_the_banner_says_lmtp(self) -> None:
        client = connect(None, LMTP)
        self.assertEqual(client.read(), b"220 mx.example LMTP twisted-smtpd\r\n")

    def test_lhlo_lists_what_rfc_2033_section_5_demands(self) -> None:
        lines = client_of().send(b"LHLO c\r\n").decode().split("\r\n")
        keywords = {line[4:] for line in lines}
        self.assertLessEqual({"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"}, keywords)
        self.assertEqual(lines[-2][:4], "250 ")

    def test_neither_helo_nor_ehlo(self) -> None:
        client = client_of()
        self.assertEqual(codes(client.send(b"HELO c\r\nEHLO c\r\nMAIL FROM:<a@b.example>\r\n")), [500, 500, 503])
        self.assertNotIn(b"EHLO", client.send(b"HELP\r\n"))
        self.assertIn(b"Syntax: LHLO hostname", client.send(b"HELP LHLO\r\n"))

    def test_smtp_has_no_lhlo(self) -> None:
        self.assertEqual(codes(connect().send(b"LHLO c\r\n")), [500])

    def test_before_lhlo_it_is_asked_for(self) -> None:
        self.assertEqual(client_of().send(b"MAIL FROM:<a@b.example>\r\n"), b"503 5.5.1 Send LHLO first\r\n")

    def test_lhlo_needs_a_name(self) -> None:
        self.assertEqual(client_of().send(b"LHLO\r\n"), b"501 Syntax: LHLO hostname\r\n")

    def test_a_second_lhlo_resets(self) -> None:
        client = client_of()
        client.send(THREE)
        self.assertEqual(codes(client.send(b"LHLO c\r\nRCPT TO:<b@y.example>\r\n")), [250, 503])

    def test_handle_ehlo_answers_lhlo(self) -> None:
        def handle_EHLO(server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> list[str]:
            session.host_name = hostname
            return [*responses[:-1], "250-X-MORE", responses[-1]]

        self.assertIn(b"250-X-MORE\r\n", client_of(hooks(handle_EHLO=handle_EHLO)).send(b"LHLO c\r\n"))

    def test_enhanced_status_codes_can_not_be_turned_off(self) -> None:
        for make in (
            lambda **options: LMTP(object(), **options),
            lambda **options: make_factory(None, LMTP, **options),
        ):
            error = self.assertRaises(ValueError, make, enhanced_status_codes=False)
            self.assertIn("LMTP", str(error))

    def test_a_unix_socket_has_no_address(self) -> None:
        peers: list[Any] = []

        def handle_CONNECT(server: Any, session: Any, envelope: Any) -> str:
            peers.append(session.peer)
            return "250 OK"

        client_of(hooks(handle_CONNECT=handle_CONNECT), host=UNIXAddress(None))
        self.assertEqual(peers, [""])


class RecipientsTests(SynchronousTestCase):
    def test_no_successful_rcpt_is_503_whatever_the_reason(self) -> None:
        """RFC 2033 section 4.2."""
        client = client_of(hooks(handle_RCPT=answering("550 no")))
        self.assertEqual(codes(client.send(SENT)), [250, 250, 550, 550, 550, 503])
        client = client_of()
        self.assertEqual(codes(client.send(b"LHLO c\r\nMAIL FROM:<>\r\nDATA\r\n")), [250, 250, 503])

    def test_a_recipient_that_only_the_handler_knows_of_is_none(self) -> None:
        def handle_MAIL(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            envelope.mail_from = address
            envelope.rcpt_tos.append("archive@y.example")
            return "250 OK"

        client = client_of(hooks(handle_MAIL=handle_MAIL))
        self.assertEqual(codes(client.send(b"LHLO c\r\nMAIL FROM:<>\r\nDATA\r\n")), [250, 250, 503])

    def test_refused_recipients_have_no_reply(self) -> None:
        def handle_RCPT(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            if address.startswith("c@"):
                return "550 no"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        handler = hooks(handle_RCPT=handle_RCPT, handle_DATA=answering(["250 first", "250 second"]))
        client = client_of(handler)
        said = client.send(SENT + BODY)
        self.assertEqual(codes(said), [250, 250, 250, 550, 250, 354, 250, 250])
        self.assertTrue(said.endswith(b"250 2.0.0 first\r\n250 2.0.0 second\r\n"))

    def test_a_recipient_that_is_discarded_has_a_reply(self) -> None:
        """A ``handle_RCPT`` that says 250 and appends nothing."""
        client = client_of(hooks(handle_RCPT=answering("250 OK")))
        self.assertEqual(codes(client.send(SENT + BODY)), BEFORE + [250] * 3)

    def test_the_next_transaction_starts_anew(self) -> None:
        client = client_of()
        client.send(SENT + BODY)
        one = b"MAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
        self.assertEqual(codes(client.send(one + BODY)), [250, 250, 354, 250])
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nRSET\r\n")
        self.assertEqual(codes(client.send(one + BODY)), [250, 250, 354, 250])


class AnswerTests(SynchronousTestCase):
    """What ``handle_DATA`` may give, on SMTP and LMTP, as plain coroutines and as asyncio tasks."""

    def answers(self, handle_DATA: Callable[..., Any], **options: Any) -> list[int]:
        """The codes after the message for three recipients; the same wherever the hook runs."""
        client = client_of(hooks(handle_DATA=handle_DATA), **options)
        client.send(SENT)
        plain = codes(client.send(BODY))
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [250])

        async def test(self: AnswerTests) -> None:
            client = client_of(hooks(handle_DATA=handle_DATA), **options)
            await turns()
            client.send(SENT)
            await turns()
            client.read()
            said = client.send(BODY)
            await turns()
            self.assertEqual(codes(said + client.read()), plain)

        in_a_loop(test)(self)
        return plain

    def each_way(self, value: Any) -> list[Callable[..., Any]]:
        async def coroutine(*arguments: Any) -> Any:
            return value

        return [answering(value), coroutine, lambda *arguments: succeed(value)]

    def test_without_a_hook(self) -> None:
        client = client_of()
        self.assertEqual(codes(client.send(SENT + BODY)), BEFORE + [250] * 3)

    def test_one_status_is_said_for_each(self) -> None:
        for status in ("250 OK", "452 full", Reply(550, None, ("no",))):
            for hook in self.each_way(status):
                self.assertEqual(len(set(self.answers(hook))), 1)
                self.assertEqual(len(self.answers(hook)), 3)

    def test_a_list_is_said_in_order(self) -> None:
        for hook in self.each_way(["250 OK", "452 full", Reply(550, None, ("no",))]):
            self.assertEqual(self.answers(hook), [250, 452, 550])
        self.assertEqual(self.answers(answering(("250 OK", "452 full", "550 no"))), [250, 452, 550])

    def test_an_asynchronous_generator_yields_them(self) -> None:
        self.assertEqual(self.answers(generator("250 OK", "452 full", "550 no")), [250, 452, 550])

    def test_a_coroutine_may_return_the_generator(self) -> None:
        async def hook(*arguments: Any) -> Any:
            return generator("250 OK", "452 full", "550 no")(*arguments)

        self.assertEqual(self.answers(hook), [250, 452, 550])

    def test_what_a_generator_raises_is_for_the_rest(self) -> None:
        self.assertEqual(self.answers(generator("250 OK", SMTPReplyError(550, None, "no"))), [250, 550, 550])
        self.assertEqual(self.answers(generator("250 OK", KeyError())), [250, 451, 451])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_a_hook_that_fails_is_451_for_each(self) -> None:
        self.assertEqual(self.answers(lambda *arguments: fail(KeyError())), [451] * 3)
        self.assertEqual(self.answers(generator(KeyError())), [451] * 3)
        self.assertEqual(self.answers(answering(None)), [451] * 3)
        self.flushLoggedErrors(KeyError, BadStatus)

    def test_a_raised_reply_is_for_each(self) -> None:
        self.assertEqual(self.answers(lambda *arguments: fail(SMTPReplyError(550, None, "no"))), [550] * 3)

    def test_handle_exception_chooses_for_the_rest(self) -> None:
        handler = hooks(handle_DATA=generator("250 OK", KeyError()), handle_exception=answering("542-broken"))
        client = client_of(handler)
        self.assertEqual(codes(client.send(SENT + BODY)), [*BEFORE, 250, 542, 542])

    def test_a_wrong_number_of_statuses_loses_no_reply(self) -> None:
        for hook, expected in (
            (answering([]), [451] * 3),
            (answering(["250 OK"] * 2), [451] * 3),
            (answering(["250 OK"] * 4), [451] * 3),
            (generator(), [451] * 3),
            (generator("250 OK"), [250, 451, 451]),
            (generator(*["250 OK"] * 4), [250] * 3),
        ):
            self.assertEqual(self.answers(hook), expected)
            self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 2)

    def test_nonsense_among_the_statuses_loses_no_reply(self) -> None:
        for nonsense in (None, "OK", 250, b"250 OK", ["250 OK"]):
            self.assertEqual(self.answers(answering(["250 OK", nonsense, "250 OK"])), [250, 451, 451])
            self.assertEqual(self.answers(generator("250 OK", nonsense, "250 OK")), [250, 451, 451])
            self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 4)

    @given(st.lists(st.sampled_from(["250-OK", "250-a\n250-b", "452-x\r\n", "550 a\nb", "250", "421 bye"]), max_size=5))
    def test_a_status_that_announces_more_swallows_no_reply(self, statuses: list[str]) -> None:
        rcpt = b"RCPT TO:<b@y.example>\r\n" * len(statuses)
        expected = [int(status[:3]) for status in statuses]
        for hook in (answering(statuses), generator(*statuses)):
            client = client_of(hooks(handle_DATA=hook))
            client.send(b"LHLO c\r\nMAIL FROM:<>\r\n" + rcpt + b"DATA\r\n")
            if statuses:
                self.assertEqual(codes(client.send(BODY)), expected)

    def test_421_for_one_closes_after_all(self) -> None:
        client = client_of(hooks(handle_DATA=answering(["250 OK", "421 bye", "250 OK"])))
        self.assertEqual(codes(client.send(SENT + BODY + b"NOOP\r\n")), [*BEFORE, 250, 421, 250])
        self.assertTrue(client.closed)

    def test_enhanced_codes_are_added_to_each(self) -> None:
        client = client_of(hooks(handle_DATA=answering(["250 OK", "452 full", "550 5.1.1 who?"])))
        client.send(SENT)
        self.assertEqual(client.send(BODY), b"250 2.0.0 OK\r\n452 4.3.1 full\r\n550 5.1.1 who?\r\n")

    def test_a_violation_is_refused_for_each(self) -> None:
        for options, body, code in (
            ({"data_size_limit": 10}, BODY, 552),
            ({"line_length_limit": 10}, BODY, 500),
            ({"bare_newline": "reject"}, b"x\ny\r\n.\r\n", 550),
            ({"max_buffered": 1}, BODY, 452),
        ):
            handler = Recorder()
            client = client_of(handler, **options)
            client.send(SENT)
            self.assertEqual(codes(client.send(body + b"RSET\r\n")), [code] * 3 + [250])
            self.assertEqual(handler.envelopes, [])

    def test_a_message_larger_than_announced_is_known_before(self) -> None:
        client = client_of(data_size_limit=10)
        self.assertEqual(codes(client.send(b"LHLO c\r\nMAIL FROM:<> SIZE=11\r\n")), [250, 552])


class AsTheyComeTests(SynchronousTestCase):
    """Each reply is sent as soon as it is known."""

    def setUp(self) -> None:
        self.promises = [Deferred[str]() for _ in range(3)]

    def begin(self, **options: Any) -> Client:
        client = client_of(hooks(handle_DATA=generator(*self.promises)), **options)
        client.send(SENT)
        return client

    def test_without_waiting_for_the_next(self) -> None:
        client = self.begin()
        self.assertEqual(client.send(BODY + b"RSET\r\n"), b"")
        for promise, said in zip(self.promises, ([250], [452], [550, 250]), strict=True):
            promise.callback(f"{said[0]} x")
            self.assertEqual(codes(client.read()), said)

    def test_as_an_asyncio_task(self) -> None:
        async def test(self: AsTheyComeTests) -> None:
            client = client_of(hooks(handle_DATA=generator(*self.promises)))
            await turns()
            client.send(SENT)
            client.send(BODY + b"RSET\r\n")
            await turns()
            client.read()
            for promise, said in zip(self.promises, ([250], [452], [550, 250]), strict=True):
                promise.callback(f"{said[0]} x")
                await turns()
                self.assertEqual(codes(client.read()), said)

        in_a_loop(test)(self)

    def test_each_recipient_has_the_time_of_a_hook(self) -> None:
        clock = Clock()
        client = self.begin(clock=clock, hook_timeout=20)
        client.send(BODY)
        for promise in self.promises[:2]:
            clock.advance(15)
            promise.callback("250 OK")
        self.assertEqual(codes(client.read()), [250, 250])
        clock.advance(15)
        self.assertEqual(client.read(), b"")
        clock.advance(6)
        self.assertEqual(client.read(), b"451 4.3.0 Processing took too long, try again later\r\n")
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [250])

    def test_a_hook_that_takes_too_long_is_451_for_each(self) -> None:
        clock = Clock()
        client = client_of(hooks(handle_DATA=Promises()), clock=clock, hook_timeout=20)
        client.send(SENT + BODY)
        client.read()
        clock.advance(21)
        self.assertEqual(codes(client.read()), [451] * 3)

    def test_a_client_that_goes_does_not_stop_the_delivery(self) -> None:
        client = self.begin()
        client.send(BODY)
        self.promises[0].callback("250 OK")
        client.lose()
        self.promises[1].callback("250 OK")
        self.assertFalse(self.promises[2].called)
        self.promises[2].callback("250 OK")
        self.assertEqual(client.protocol.connections.open, set())
        self.assertEqual(client.protocol.connections.buffered, 0)

    def test_a_generator_is_closed_when_it_gives_nonsense(self) -> None:
        events: list[str] = []

        async def handle_DATA(*arguments: Any) -> AsyncIterator[Any]:
            try:
                yield "250 OK"
                yield "nonsense"
            finally:
                await succeed(None)
                events.append("closed")

        client = client_of(hooks(handle_DATA=handle_DATA))
        self.assertEqual(codes(client.send(SENT + BODY)), [*BEFORE, 250, 451, 451])
        self.assertEqual(events, ["closed"])
        self.flushLoggedErrors(BadStatus)

    def test_a_timeout_of_asyncio_may_span_the_statuses(self) -> None:
        tasks: list[Any] = []

        async def handle_DATA(*arguments: Any) -> AsyncIterator[str]:
            for _ in range(2):
                tasks.append(asyncio.current_task())
                await asyncio.sleep(0)
                yield "250 OK"
            tasks.append(asyncio.current_task())
            try:
                await asyncio.wait_for(asyncio.Future(), 0.001)
            except asyncio.TimeoutError:
                yield "450 late"

        async def test(self: AsTheyComeTests) -> None:
            client = client_of(hooks(handle_DATA=handle_DATA))
            await turns()
            client.send(SENT)
            client.send(BODY)
            await asyncio.sleep(0.05)
            self.assertEqual(codes(client.read())[-3:], [250, 250, 450])

        in_a_loop(test)(self)
        self.assertEqual(len(set(tasks)), 1)

    def test_cancelled_on_asyncio_the_rest_hear_451(self) -> None:
        seen: list[BaseException] = []

        async def handle_DATA(*arguments: Any) -> AsyncIterator[str]:
            yield "250 OK"
            try:
                await asyncio.Future()
            except BaseException as error:
                seen.append(error)
                raise

        async def test(self: AsTheyComeTests) -> None:
            clock = Clock()
            client = client_of(hooks(handle_DATA=handle_DATA), clock=clock, hook_timeout=20)
            await turns()
            client.send(SENT)
            client.send(BODY)
            await turns()
            client.read()
            clock.advance(21)
            await turns()
            self.assertEqual(codes(client.read()), [451, 451])

        in_a_loop(test)(self)
        self.assertIsInstance(seen[0], (asyncio.CancelledError, CancelledError))


class MixedVerdictTests(SynchronousTestCase):
    """The same hooks on SMTP, which has one reply."""

    def verdict(self, handle_DATA: Callable[..., Any]) -> int:
        found = set()

        async def test(self: Any) -> None:
            found.add(await self.reply(handle_DATA, turns))

        found.add(self.successResultOf(Deferred.fromCoroutine(self.reply(handle_DATA, lambda: succeed(None)))))
        in_a_loop(test)(self)
        (code,) = found
        return int(code)

    async def reply(self, handle_DATA: Callable[..., Any], turn: Callable[[], Awaitable[None]]) -> int:
        client = client_of(hooks(handle_DATA=handle_DATA), SMTP)
        await turn()
        client.send(SENT.replace(b"LHLO", b"EHLO"))
        await turn()
        client.read()
        said = client.send(BODY)
        await turn()
        (code,) = codes(said + client.read())
        return int(code)

    def test_statuses_of_one_class_become_the_first(self) -> None:
        for wrap in (lambda *statuses: answering(list(statuses)), generator):
            self.assertEqual(self.verdict(wrap("251 a", "250 b", "250 c")), 251)
            self.assertEqual(self.verdict(wrap("452 a", "450 b", "451 c")), 452)
            self.assertEqual(self.verdict(wrap("550 a", "554 b", "551 c")), 550)

    def test_statuses_of_several_classes_become_451(self) -> None:
        for wrap in (lambda *statuses: answering(list(statuses)), generator):
            for statuses in (("250", "550", "250"), ("250", "450", "250"), ("550", "450", "550")):
                self.assertEqual(self.verdict(wrap(*statuses)), 451)

    def test_a_wrong_number_of_statuses_is_451(self) -> None:
        for hook in (answering([]), answering(["250 OK"] * 2), generator(), generator(*["250 OK"] * 4)):
            self.assertEqual(self.verdict(hook), 451)
            self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 2)

    def test_a_generator_that_refuses_half_way_counts_as_no_error_of_the_client(self) -> None:
        client = client_of(hooks(handle_DATA=generator("250 OK", SMTPReplyError(550, None, "no"))), SMTP, max_errors=1)
        said = client.send(SENT.replace(b"LHLO", b"EHLO") + BODY)
        self.assertEqual(codes(said), [*BEFORE, 550])
        self.assertFalse(client.closed)
