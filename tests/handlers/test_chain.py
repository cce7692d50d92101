"""Chain: who is asked, in which order, and whose answer counts."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, MESSAGE, Promises, Recorder, answering, codes, connect, hooks, last_line
from tests.support.lives import INFO, Beside, Living
from twisted_smtpd.handlers import PASS, Chain, Debugging, Mailbox, Sink
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.runtime.awaiting import hook_names
from twisted_smtpd.testing import deliver
from twisted_smtpd.wire.replies import Reply, SMTPReplyError


class Asked:
    """Makes hooks that note that they were asked."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str, status: Any) -> Any:
        def hook(*arguments: Any) -> Any:
            self.names.append(name)
            if isinstance(status, Exception):
                raise status
            return status

        return hook


def accept(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
    envelope.rcpt_tos.append(address)
    envelope.rcpt_options.extend(options)
    return "250 accepted"


class DecisionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked = Asked()

    def chain(self, hook: str, *statuses: Any) -> Chain:
        handlers = [hooks(**{f"handle_{hook}": self.asked(str(i), s)}) for i, s in enumerate(statuses)]
        return Chain(*handlers)

    def test_the_first_that_decides_is_the_last_asked(self) -> None:
        for hook, line in (("NOOP", b"NOOP"), ("VRFY", b"VRFY a@x.example"), ("HELO", b"HELO x")):
            for first in ("250 yes", "550 no", SMTPReplyError(550, None, "no")):
                self.asked.names.clear()
                said = connect(self.chain(hook, PASS, first, "250 unheard")).send(line + b"\r\n")
                self.assertIn(b"yes" if first == "250 yes" else b"no", said)
                self.assertEqual(self.asked.names, ["0", "1"])

    def test_if_all_pass_on_the_server_decides(self) -> None:
        lines = [b"EHLO x", b"NOOP", b"VRFY a@x.example", *ENVELOPE.split(b"\r\n")[1:3], b"RSET", b"QUIT"]
        names = ("CONNECT", "EHLO", "NOOP", "VRFY", "MAIL", "RCPT", "RSET", "QUIT")
        passing = Chain(hooks(**{f"handle_{name}": answering(PASS) for name in names}))
        for line in lines:
            plain, chained = connect(), connect(passing)
            for client in (plain, chained):
                client.send(ENVELOPE if line.startswith(b"RSET") else b"EHLO x\r\n")
            if line.startswith(b"RCPT"):
                for client in (plain, chained):
                    client.send(b"MAIL FROM:<a@x.example>\r\n")
            self.assertEqual(chained.send(line + b"\r\n"), plain.send(line + b"\r\n"))

    def test_a_handler_without_the_hook_passes_on(self) -> None:
        client = connect(Chain(object(), hooks(handle_NOOP=answering("250 here"))))
        self.assertEqual(client.send(b"NOOP\r\n"), b"250 2.0.0 here\r\n")

    def test_hooks_nobody_has_are_not_there(self) -> None:
        chain = Chain(hooks(handle_NOOP=answering(PASS)), hooks(handle_DATA=answering(PASS)))
        self.assertEqual(hook_names(chain), {"NOOP", "DATA"})

    def test_a_missing_return_passes_on_nothing(self) -> None:
        client = connect(self.chain("NOOP", None, "250 unheard"))
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [451])
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_an_error_ends_the_chain(self) -> None:
        client = connect(self.chain("DATA", ZeroDivisionError(), "250 unheard"))
        self.assertEqual(codes(client.send(MESSAGE))[-1], 451)
        self.assertEqual(self.asked.names, ["0"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_hooks_may_wait(self) -> None:
        waiting = Promises()
        client = connect(Chain(hooks(handle_NOOP=waiting), hooks(handle_NOOP=answering("250 second"))))
        self.assertEqual(client.send(b"NOOP\r\n"), b"")
        waiting.made[0].callback(PASS)
        self.assertEqual(client.read(), b"250 2.0.0 second\r\n")

    def test_all_hear_rset_quit_and_the_end(self) -> None:
        for name, line, first in (("RSET", b"RSET", b"250"), ("QUIT", b"QUIT", b"221")):
            self.asked.names.clear()
            said = connect(self.chain(name, PASS, f"{first.decode()} mine", f"{first.decode()} other")).send(
                line + b"\r\n"
            )
            self.assertIn(b"mine", said)
            self.assertEqual(self.asked.names, ["0", "1", "2"])
        self.asked.names.clear()
        connect(self.chain("DISCONNECT", None, ZeroDivisionError(), succeed(None))).lose()
        self.assertEqual(self.asked.names, ["0", "1", "2"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_all_have_to_consent(self) -> None:
        for hook in ("STARTTLS", "PROXY"):
            for verdicts, result, asked in (
                ((True, PASS, True), True, 3),
                ((True, False, True), False, 2),
                ((PASS,), True, 1),
            ):
                self.asked.names.clear()
                consent = getattr(self.chain(hook, *verdicts), f"handle_{hook}")(None, None, None)
                self.assertIs(self.successResultOf(Deferred.fromCoroutine(consent)), result)
                self.assertEqual(len(self.asked.names), asked)

    def test_the_first_that_knows_a_mechanism_does_it(self) -> None:
        first, second = (
            hooks(auth_PLAIN=answering("first")),
            hooks(auth_PLAIN=answering("second"), auth_X=answering("x")),
        )
        chain: Any = Chain(first, second)
        self.assertEqual((chain.auth_PLAIN(None, []), chain.auth_X(None, [])), ("first", "x"))

    def test_an_error_is_answered_by_the_first_that_wants_to(self) -> None:
        failing = hooks(handle_NOOP=answering(None))
        for answers, code in (((PASS, "554 mine"), 554), ((PASS, PASS), 451)):
            handlers = [hooks(handle_exception=answering(answer)) for answer in answers]
            self.assertEqual(codes(connect(Chain(failing, *handlers)).send(b"NOOP\r\n")), [code])
        self.flushLoggedErrors()

    def test_a_chain_may_be_part_of_a_chain(self) -> None:
        inner = Chain(hooks(handle_NOOP=answering(PASS)), hooks(handle_NOOP=answering(PASS)))
        client = connect(Chain(inner, hooks(handle_NOOP=answering("250 outer"))))
        self.assertEqual(client.send(b"NOOP\r\n"), b"250 2.0.0 outer\r\n")

    def test_an_empty_chain_is_none(self) -> None:
        self.assertRaises(ValueError, Chain)

    def test_it_says_who_is_in_it(self) -> None:
        self.assertEqual(repr(Chain(Debugging(), Recorder())), "<Chain Debugging + Recorder>")

    def test_the_first_greeting_is_given_and_a_refusal_keeps_the_client_out(self) -> None:
        for statuses, said in (((PASS, "220 mine", "554 no"), b"220 mine\r\n"), ((PASS, "554 no"), b"554 no\r\n")):
            self.assertEqual(connect(self.chain("CONNECT", *statuses)).read(), said)


class EnvelopeTests(SynchronousTestCase):
    def test_a_recipient_is_taken_once(self) -> None:
        def append_and_pass(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> Any:
            accept(server, session, envelope, address, options)
            return PASS

        for last in (hooks(handle_RCPT=accept), object()):
            recorder = Recorder()
            client = connect(Chain(hooks(handle_RCPT=append_and_pass), last, recorder))
            self.assertEqual(codes(client.send(MESSAGE))[-1], 250)
            self.assertEqual(recorder.envelopes[0].rcpt_tos, ["b@y.example"])

    def test_a_sender_set_by_one_that_passes_on_is_not_kept(self) -> None:
        def set_and_pass(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> Any:
            envelope.mail_from = "other@x.example"
            envelope.mail_options.append("X")
            return PASS

        recorder = Recorder()
        deliver(Chain(hooks(handle_MAIL=set_and_pass), recorder), "hello", mail_from="a@x.example")
        self.assertEqual(recorder.envelopes[0].mail_from, "a@x.example")
        self.assertEqual(recorder.envelopes[0].mail_options, [])

    def test_a_filter_refuses_before_the_next_is_asked(self) -> None:
        asked = Asked()
        chain = Chain(hooks(handle_RCPT=answering("550 5.7.1 no")), hooks(handle_RCPT=asked("second", "250 yes")))
        self.assertEqual(deliver(chain, "hello", rcpt_tos=["b@y.example"]).rcpt, {"b@y.example": "550 5.7.1 no"})
        self.assertEqual(asked.names, [])


class MessageTests(SynchronousTestCase):
    def send(self, *statuses: Any, protocol: Any = None) -> tuple[bytes, list[str]]:
        asked = Asked()
        chain = Chain(*(hooks(handle_DATA=asked(str(i), s)) for i, s in enumerate(statuses)))
        if protocol is None:
            return connect(chain).send(MESSAGE), asked.names
        client = connect(chain, protocol)
        client.send(b"LHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nDATA\r\n")
        return client.send(b"Subject: hi\r\n.\r\n"), asked.names

    def test_each_handler_gets_the_message_and_the_last_answer_counts(self) -> None:
        said, asked = self.send("250 first", PASS, Reply(250, None, ("queued as 42",)), PASS)
        self.assertEqual((last_line(said), asked), ("250 2.0.0 queued as 42", ["0", "1", "2", "3"]))

    def test_a_refusal_keeps_the_message_from_the_next(self) -> None:
        for refusal in ("550 no", "451 later", Reply(554), SMTPReplyError(552, None, "full")):
            said, asked = self.send("250 first", refusal, "250 unheard")
            self.assertIn(codes(said)[-1], (550, 451, 554, 552))
            self.assertEqual(asked, ["0", "1"])

    def test_one_list_for_all_recipients_goes_through(self) -> None:
        said, asked = self.send(["250 a", "250 b"], ["250 c", "550 d"], protocol=LMTP)
        self.assertEqual((said, asked), (b"250 2.0.0 c\r\n550 5.6.0 d\r\n", ["0", "1"]))

    def test_who_was_accepted_before_a_refusal_for_others_hears_no_yes(self) -> None:
        said, asked = self.send(["250 a", "550 b"], "250 unheard", protocol=LMTP)
        self.assertEqual(said, b"451 4.3.0 Not accepted for all recipients, try again later\r\n550 5.6.0 b\r\n")
        self.assertEqual(asked, ["0"])

    def test_answers_that_come_one_by_one(self) -> None:
        async def statuses(*arguments: Any) -> Any:
            yield "250 a"
            yield "452 b"

        for handlers, expected in (
            ((hooks(handle_DATA=answering("250 ok")), hooks(handle_DATA=statuses)), [250, 452]),
            ((hooks(handle_DATA=statuses), hooks(handle_DATA=answering("250 ok"))), [451, 452]),
        ):
            client = connect(Chain(*handlers), LMTP)
            client.send(b"LHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\n")
            self.assertEqual(codes(client.send(b"DATA\r\nSubject: hi\r\n.\r\n"))[1:], expected)

    def test_a_stream_can_not_be_read_by_two(self) -> None:
        stream = hooks(handle_DATA_STREAM=answering("250 ok"))
        self.assertRaises(ValueError, Chain, stream, Recorder())
        self.assertRaises(ValueError, Chain, stream, stream)
        Chain(stream, hooks(handle_RCPT=accept))


class EHLOTests(SynchronousTestCase):
    def test_lines_are_changed_by_one_after_the_other(self) -> None:
        def add(keyword: str) -> Any:
            def hook(server: Any, session: Any, envelope: Any, name: str, responses: list[str]) -> list[str]:
                return [*responses[:-1], f"250-{keyword}", responses[-1]]

            return hook

        def push(server: Any, session: Any, envelope: Any, hostname: str) -> Any:
            server.send_reply("250-PUSHED", more=True)
            return PASS

        for handlers, expected in (
            ([add("ONE"), add("TWO")], ["ONE", "TWO", "HELP"]),
            ([add("ONE"), push, add("TWO")], ["ONE", "TWO", "PUSHED", "HELP"]),
        ):
            said = connect(Chain(*(hooks(handle_EHLO=hook) for hook in handlers))).send(b"EHLO x\r\n").decode()
            lines = said.splitlines()
            self.assertEqual([line[4:] for line in lines[-len(expected) :]], expected)
            self.assertEqual({line[:4] for line in lines[:-1]}, {"250-"})

    def test_a_refusal_ends_it(self) -> None:
        def refuse5(server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> str:
            return "550 5.7.1 no"

        def refuse4(server: Any, session: Any, envelope: Any, hostname: str) -> str:
            return "550 5.7.1 no"

        for refuse in (refuse4, refuse5):
            said = connect(Chain(hooks(handle_EHLO=refuse))).send(b"EHLO x\r\n")
            self.assertEqual(codes(said), [550])
            self.assertNotIn(b"250", said)


class CommandLineTests(SynchronousTestCase):
    def test_handlers_have_a_plus_between_them(self) -> None:
        chain = make_handler("chain", ["debugging", "stderr", "+", "mailbox", self.mktemp()])
        self.assertEqual([type(handler) for handler in chain.handlers], [Debugging, Mailbox])
        for wrong in ([], ["+"], ["sink", "+"], ["nobody"], ["sink", "x", "+", "sink"]):
            self.assertRaises(HandlerError, make_handler, "chain", wrong)


class LifeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[str] = []

    def make(self, *names: str, **failing: Exception) -> Chain:
        return Chain(*(Living(self.events, name, start=failing.get(name)) for name in names), Sink())

    def run_to_end(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_started_in_order_and_stopped_in_reverse(self) -> None:
        chain = self.make("one", "two")
        self.run_to_end(chain.start(INFO))
        self.run_to_end(chain.stop())
        self.assertEqual(self.events, ["one start", "two start", "two stop", "one stop"])

    def test_it_can_be_started_again(self) -> None:
        chain = self.make("one")
        for _ in range(2):
            self.run_to_end(chain.start(INFO))
            self.run_to_end(chain.stop())
        self.assertEqual(self.events, ["one start", "one stop"] * 2)

    def test_if_one_can_not_start_those_before_it_are_stopped_again(self) -> None:
        chain = self.make("one", "two", "three", "four", three=OSError("no"))
        self.failureResultOf(Deferred.fromCoroutine(chain.start(INFO)), OSError)
        self.assertEqual(self.events, ["one start", "two start", "three start", "two stop", "one stop"])
        self.run_to_end(chain.stop())
        self.assertEqual(len(self.events), 5)

    def test_all_are_stopped_though_one_fails(self) -> None:
        one = Living(self.events, "one")
        chain = Chain(one, Living(self.events, "two", stop=ZeroDivisionError()))
        self.run_to_end(chain.start(INFO))
        self.run_to_end(chain.stop())
        self.assertEqual(self.events[2:], ["two stop", "one stop"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_handler_that_two_chains_share_is_started_once(self) -> None:
        shared = Living(self.events)
        one, two = Chain(shared), Chain(shared)
        for chain in (one, two):
            self.run_to_end(chain.start(INFO))
        for chain in (one, two):
            self.run_to_end(chain.stop())
        self.assertEqual(self.events, ["start", "stop"])

    def test_the_services_of_all(self) -> None:
        one, two = Beside([]), Beside([])
        offers = [hooks(services=answering([one])), Sink(), hooks(services=answering(succeed([two])))]
        self.assertEqual(self.run_to_end(Chain(*offers).services()), [one, two])
