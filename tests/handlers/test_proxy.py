"""The Proxy: the next host's answer is our answer, and no message is lost, invented or sent twice."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.support.fakes import codes
from tests.support.next_host import CONTENT, EHLO, NextHostDouble, ProxyTestCase, transaction
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Proxy
from twisted_smtpd.handlers.forwarding.client import CLOSE_TIMEOUT
from twisted_smtpd.handlers.proxy import our_answer
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.wire.replies import Reply

START = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n"


class VerdictTests(ProxyTestCase):
    def test_the_next_hosts_answer_is_ours(self) -> None:
        host = NextHostDouble()
        replies = self.say(host, transaction())
        self.assertEqual(
            replies.split(b"\r\n"),
            [
                b"250 2.1.0 OK",
                b"250 2.0.0 fine",
                b"354 End data with <CR><LF>.<CR><LF>",
                b"250 2.0.0 queued as 42",
                b"",
            ],
        )
        (message,) = host.messages
        self.assertTrue(message.endswith(CONTENT), message)
        self.assertEqual(host.commands, ["EHLO mx.example", "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA"])

    def test_a_next_host_that_is_down_is_451_and_never_250(self) -> None:
        for verify in (True, False):
            host = NextHostDouble()
            host.refuse_connections = True
            replies = self.say(host, transaction(), verify_recipients=verify)
            self.assertNotIn(b"queued", replies)
            self.assertIn(b"451 4.4.1 The next host can't be reached, try again later\r\n", replies)
            self.assertNotIn(b"refused", replies)

    def test_each_recipient_hears_its_own_answer(self) -> None:
        host = NextHostDouble(**{"RCPT TO:<no@": "550 5.1.1 no such user", "RCPT TO:<later@": "450 4.2.1 busy"})
        replies = self.say(host, transaction("no@y.example", "yes@y.example", "later@y.example"))
        self.assertEqual(codes(replies), [250, 550, 250, 450, 354, 250])
        self.assertIn(b"550 5.1.1 no such user\r\n", replies)
        self.assertEqual(len(host.messages), 1)

    def test_a_refused_message_is_refused(self) -> None:
        for status in ("554 5.7.1 spam", "452 4.3.1 full"):
            host = NextHostDouble(**{".": status})
            self.assertTrue(self.say(host, transaction()).endswith(f"{status}\r\n".encode()))

    def test_a_refused_sender_is_refused(self) -> None:
        host = NextHostDouble(MAIL="550 5.7.1 not you")
        replies = self.say(host, transaction("b@y.example", "c@y.example"))
        self.assertEqual(replies.split(b"\r\n")[1:3], [b"550 5.7.1 not you"] * 2)
        self.assertEqual(len([command for command in host.commands if command.startswith("MAIL")]), 1)

    def test_data_refused_by_the_next_host_is_no_yes(self) -> None:
        for status, said in (("554 5.5.1 no", 554), ("421 4.3.2 bye", 451), ("250 2.0.0 what", 451), ("334 eh", 451)):
            host = NextHostDouble(DATA=[status])
            replies = self.say(host, transaction())
            self.assertEqual(codes(replies)[-1], said, replies)
            self.assertEqual(host.messages, [])

    def test_a_421_of_the_next_host_does_not_hang_up_on_our_client(self) -> None:
        host = NextHostDouble(RCPT="421 4.3.2 restarting")
        client = self.join(self.serve(host))
        replies = client.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nNOOP\r\n")
        self.assertEqual(codes(replies), [250, 451, 451, 250])
        self.assertIn(b"451 4.3.2 restarting\r\n", replies)
        self.assertFalse(client.closed)

    def test_our_own_failure_to_log_in_bounces_nothing(self) -> None:
        for status in ("530 5.7.0 Authentication required", "535 5.7.8 bad"):
            self.assertEqual(our_answer(Reply.parse(status)).code, 451)
        for status, code in (("521 5.3.2 no mail", 556), ("354 eh", 451), ("221 bye", 250), ("251 moved", 251)):
            self.assertEqual(our_answer(Reply.parse(status)).code, code)

    def test_a_greeting_that_refuses_us_bounces_nothing(self) -> None:
        for answers in ({"": "554 5.7.1 blocked"}, {"EHLO": "550 who", "HELO": "550 who"}, {"EHLO": "421 busy"}):
            replies = self.say(NextHostDouble(**answers), transaction())
            self.assertEqual(codes(replies)[1], 451, replies)

    def test_an_old_next_host_is_greeted_with_helo(self) -> None:
        host = NextHostDouble(EHLO="502 what")
        self.assertEqual(codes(self.say(host, transaction())), [250, 250, 354, 250])
        self.assertEqual(host.commands[:2], ["EHLO mx.example", "HELO mx.example"])

    def test_silence_is_451_in_time(self) -> None:
        for silent, verify in (("", True), ("MAIL", True), ("RCPT", True), ("DATA", True), (".", True), (".", False)):
            host = NextHostDouble(**{silent: None})
            client = self.join(self.serve(host, timeout=10, data_timeout=100, verify_recipients=verify))
            replies = client.send(transaction())
            self.clock.pump([9, 2, 91])
            replies += client.read()
            self.assertIn(b"451 4.4.2 The next host takes too long, try again later\r\n", replies, silent)
            self.assertNotIn(b"queued", replies)
            self.assertTrue(host.lines[0].closed)

    def test_a_connection_lost_in_the_middle_is_451(self) -> None:
        def hang_up(line: Any) -> None:
            line.hang_up()

        for where in ("", "MAIL", "RCPT", "DATA", "."):
            replies = self.say(NextHostDouble(**{where: hang_up}), transaction())
            self.assertTrue({451} & set(codes(replies)), replies)
            self.assertNotIn(b"queued", replies)

    def test_what_is_no_reply_is_451(self) -> None:
        for status in ("hello", "25", "250-one\n354 two", "9" * 5000, "150 eh"):
            host = NextHostDouble(MAIL=status)
            self.assertEqual(codes(self.say(host, START)), [250, 451])

    def test_a_yes_before_the_end_of_data_is_no_yes(self) -> None:
        host = NextHostDouble(DATA="354 go on\n250 2.0.0 thanks already")
        replies = self.say(host, transaction())
        self.assertEqual(codes(replies)[-1], 451, replies)


class AfterDataTests(ProxyTestCase):
    def test_the_next_host_hears_nothing_before_the_end_of_data(self) -> None:
        host = NextHostDouble()
        client = self.join(self.serve(host, verify_recipients=False))
        client.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nSubject: hi\r\n")
        self.assertEqual(host.lines, [])
        self.assertEqual(client.send(b"\r\nhello\r\n.\r\n"), b"250 2.0.0 queued as 42\r\n")

    def test_on_smtp_nobody_gets_it_unless_everybody_does(self) -> None:
        host = NextHostDouble(**{"RCPT TO:<no@": "550 5.1.1 no such user"})
        replies = self.say(host, transaction("no@y.example", "yes@y.example"), verify_recipients=False)
        self.assertIn(b"451-4.3.0 The next host refuses a recipient: 550\r\n", replies)
        self.assertEqual(host.messages, [])
        self.assertEqual(host.commands[-1], "RSET")

    def test_all_recipients_refused_is_their_answer(self) -> None:
        host = NextHostDouble(RCPT="550 5.1.1 no such user")
        replies = self.say(host, transaction("b@y.example", "c@y.example"), verify_recipients=False)
        self.assertTrue(replies.endswith(b"550 5.1.1 no such user\r\n"), replies)

    def test_a_refused_sender_is_the_answer(self) -> None:
        replies = self.say(NextHostDouble(MAIL="550 5.7.1 not you"), transaction(), verify_recipients=False)
        self.assertTrue(replies.endswith(b"550 5.7.1 not you\r\n"), replies)

    def test_a_recipient_the_next_host_can_not_be_given_is_refused(self) -> None:
        host = NextHostDouble(EHLO="250 next.example")
        replies = self.say(
            host,
            "MAIL FROM:<a@x.example> SMTPUTF8\r\nRCPT TO:<ä@y.example>\r\nDATA\r\n.\r\n".encode(),
            verify_recipients=False,
        )
        self.assertIn(b"553 5.6.7 The next host takes no address", replies)
        self.assertEqual(host.messages, [])

    def test_on_lmtp_each_recipient_hears_its_own_answer(self) -> None:
        host = NextHostDouble(**{"RCPT TO:<no@": "550 5.1.1 no such user"})
        replies = self.say(
            host, transaction("a@y.example", "no@y.example", "b@y.example"), LMTP, verify_recipients=False
        )
        self.assertEqual(codes(replies)[-3:], [250, 550, 250])
        self.assertEqual(len(host.messages), 1)

    def test_commands_are_pipelined_only_where_that_is_offered(self) -> None:
        for offer, before in ((EHLO, 3), ("250 next.example", 1)):
            seen: list[int] = []

            def first_recipient(line: Any, seen: list[int] = seen) -> str:
                seen.append(line._buffer.count(b"\r\n") + 1)
                return "250 ok"

            host = NextHostDouble(EHLO=offer, **{"RCPT TO:<a@": first_recipient})
            self.say(host, transaction("a@y.example", "b@y.example", "c@y.example"), verify_recipients=False)
            self.assertEqual(seen, [before])


class LMTPNextHostTests(ProxyTestCase):
    def test_lmtp_to_lmtp_carries_each_answer_in_order(self) -> None:
        host = NextHostDouble(lmtp=True, **{".": ["250 2.0.0 one", "452 4.2.2 full", "550 5.2.1 off"]})
        replies = self.say(host, transaction("a@y.example", "b@y.example", "c@y.example"), LMTP)
        self.assertTrue(replies.endswith(b"250 2.0.0 one\r\n452 4.2.2 full\r\n550 5.2.1 off\r\n"), replies)
        self.assertEqual(host.commands[0], "LHLO mx.example")

    def test_an_answer_that_never_comes_is_451_for_its_recipient_only(self) -> None:
        host = NextHostDouble(lmtp=True, **{".": ["250 2.0.0 one", "421 4.3.2 bye"]})
        replies = self.say(host, transaction("a@y.example", "b@y.example", "c@y.example"), LMTP)
        self.assertEqual(codes(replies)[-3:], [250, 451, 451])

    def test_smtp_in_front_takes_one_recipient_per_message(self) -> None:
        host = NextHostDouble(lmtp=True)
        replies = self.say(host, transaction("a@y.example", "b@y.example"))
        self.assertEqual(codes(replies), [250, 250, 452, 354, 250])
        self.assertNotIn("RCPT TO:<b@y.example>", host.commands)

    def test_answers_that_differ_are_451_on_smtp(self) -> None:
        host = NextHostDouble(lmtp=True, **{".": ["250 2.0.0 one", "550 5.2.1 off"]})
        replies = self.say(host, transaction("a@y.example", "b@y.example"), max_recipients=10)
        self.assertEqual(codes(replies)[-1], 451)


class ConnectionTests(ProxyTestCase):
    def test_a_connection_serves_several_messages_and_clients(self) -> None:
        host = NextHostDouble()
        factory = self.serve(host)
        for _ in range(3):
            self.assertEqual(codes(self.join(factory).send(transaction() * 2))[-1], 250)
        self.assertEqual((len(host.lines), len(host.messages)), (1, 6))

    def test_no_more_connections_than_allowed_and_the_next_waits_its_turn(self) -> None:
        host = NextHostDouble()
        factory = self.serve(host, max_connections=2, max_connections_per_client=2)
        clients = [self.join(factory) for _ in range(4)]
        self.assertEqual([len(codes(client.send(START))) > 1 for client in clients], [True, True, False, False])
        self.assertEqual(len(host.lines), 2)
        clients[0].send(b"RSET\r\n")
        self.assertEqual(codes(clients[2].read()), [250])
        clients[1].lose()
        self.assertEqual(codes(clients[3].read()), [250])
        self.assertEqual(len(host.lines), 2)

    def test_a_wait_for_a_connection_ends_with_451(self) -> None:
        host = NextHostDouble()
        factory = self.serve(host, max_connections=1, timeout=10)
        self.join(factory).send(START)
        waiting = self.join(factory)
        self.assertEqual(codes(waiting.send(START)), [250])
        self.clock.advance(11)
        self.assertEqual(waiting.read(), b"451 4.4.5 Too many messages for the next host, try again later\r\n")

    def test_a_connection_that_fails_makes_room_for_the_next(self) -> None:
        host = NextHostDouble(**{"": ["554 5.7.1 no", "220 next.example"]})
        factory = self.serve(host, max_connections=1)
        self.assertEqual(codes(self.join(factory).send(transaction()))[1], 451)
        self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)
        host.refuse_connections = True
        host.lines[-1].hang_up()
        self.assertEqual(codes(self.join(factory).send(transaction()))[1], 451)
        host.refuse_connections = False
        self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)

    def test_a_connection_that_takes_too_long_to_make_is_451(self) -> None:
        host = NextHostDouble()
        host.hold_connections = True
        client = self.join(self.serve(host, timeout=10))
        client.send(START)
        self.clock.advance(11)
        self.assertEqual(client.read()[:9], b"451 4.4.1")

    def test_a_kept_connection_that_has_died_costs_nothing(self) -> None:
        for says in ("421 4.4.2 idle", None):

            def die(line: Any, says: str | None = says) -> str | None:
                if says is None:
                    line.hang_up()
                return says

            host = NextHostDouble(MAIL=["250 ok", die, "250 ok"])
            self.assertEqual(codes(self.say(host, transaction() * 2)), [250, 250, 354, 250] * 2)
            self.assertEqual((len(host.lines), len(host.messages)), (2, 2))

    def test_a_kept_connection_that_says_something_is_dropped(self) -> None:
        host = NextHostDouble()
        factory = self.serve(host)
        client = self.join(factory)
        client.send(transaction())
        host.lines[0].say("421 4.4.2 idle")
        self.assertTrue(host.lines[0].closed)
        self.assertEqual(codes(client.send(transaction()))[-1], 250)

    def test_an_unused_connection_is_ended_with_quit(self) -> None:
        host = NextHostDouble()
        self.say(host, transaction(), keep=30)
        self.clock.advance(29)
        self.assertFalse(host.lines[0].closed)
        self.clock.advance(2)
        self.assertEqual((host.commands[-1], host.lines[0].closed), ("QUIT", True))

    def test_close_ends_the_unused_connections(self) -> None:
        host = NextHostDouble()
        proxy = self.proxy(host)
        proxy.close()
        factory = SMTPFactory(proxy, hostname="mx.example", clock=self.clock)
        self.join(factory).send(transaction())
        proxy.close()
        self.assertEqual(host.commands[-1], "QUIT")

    def test_stop_ends_the_kept_connections_and_waits_until_they_are_closed(self) -> None:
        host = NextHostDouble()
        proxy = self.proxy(host)
        self.stop(proxy)
        factory = SMTPFactory(proxy, hostname="mx.example", clock=self.clock)
        self.successResultOf(factory.start_handler())
        for client in (self.join(factory), self.join(factory)):
            client.send(START)
        for line in host.lines:
            line.client.transport.loseConnection = lambda: None
        for client in factory.connections.open.copy():
            client.connectionLost(Failure(ConnectionDone()))
        stopped = factory.stop_handler()
        self.assertEqual([line.commands[-1] for line in host.lines], ["QUIT", "QUIT"])
        host.lines[0].hang_up()
        self.assertNoResult(stopped)
        host.lines[1].hang_up()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_next_host_that_does_not_close_after_quit_is_cut_off(self) -> None:
        host = NextHostDouble()
        factory = self.serve(host)
        self.successResultOf(factory.start_handler())
        self.join(factory).send(transaction())
        host.lines[0].client.transport.loseConnection = lambda: None
        stopped = factory.stop_handler()
        self.clock.advance(CLOSE_TIMEOUT - 1)
        self.assertNoResult(stopped)
        self.clock.advance(1)
        self.successResultOf(stopped)

    def test_a_message_that_waits_for_a_connection_at_the_stop_is_deferred(self) -> None:
        host = NextHostDouble(MAIL=None)
        proxy = self.proxy(host, max_connections=1)
        factory = SMTPFactory(proxy, hostname="mx.example", clock=self.clock)
        first, second = self.join(factory), self.join(factory)
        for client in (first, second):
            client.send(START)
        self.stop(proxy)
        self.assertEqual(second.read(), b"451 4.3.2 The server is shutting down, try again later\r\n")
        self.assertEqual(codes(first.read()), [451])
        self.assertTrue(host.lines[0].closed)

    def test_after_a_stop_it_can_be_used_again(self) -> None:
        host = NextHostDouble()
        proxy = self.proxy(host)
        factory = SMTPFactory(proxy, hostname="mx.example", clock=self.clock)
        client = self.join(factory)
        client.send(transaction())
        self.stop(proxy)
        self.assertEqual(codes(client.send(transaction()))[-1], 250)
        self.assertEqual(len(host.lines), 2)

    def stop(self, proxy: Proxy) -> None:
        self.successResultOf(Deferred.fromCoroutine(proxy.stop()))

    def test_a_reset_there_that_fails_ends_the_connection(self) -> None:
        for answer in ("500 what", "421 bye", lambda line: line.hang_up()):
            host = NextHostDouble(RSET=answer)
            client = self.join(self.serve(host))
            client.send(START + b"RSET\r\n")
            self.assertTrue(host.lines[0].closed)
            self.assertEqual(codes(client.send(transaction()))[-1], 250)

    def test_no_timer_is_left_behind(self) -> None:
        host = NextHostDouble()
        proxy = self.proxy(host)
        factory = SMTPFactory(proxy, hostname="mx.example", clock=self.clock)
        client = self.join(factory)
        client.send(transaction())
        client.lose()
        proxy.close()
        factory.stopFactory()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class GoneClientTests(ProxyTestCase):
    def test_a_client_gone_between_commands_leaves_no_transaction(self) -> None:
        host = NextHostDouble()
        client = self.join(self.serve(host))
        client.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
        client.lose(clean=False)
        self.assertEqual(host.commands[-1], "RSET")
        self.assertFalse(host.lines[0].closed)

    def test_a_client_gone_while_the_next_host_thinks_frees_the_connection(self) -> None:
        for verb in ("MAIL", "RCPT"):
            host = NextHostDouble(**{verb: [None, "250 ok"]})
            factory = self.serve(host, max_connections=1)
            client = self.join(factory)
            client.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
            client.lose(clean=False)
            self.assertTrue(host.lines[0].closed)
            self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)

    def test_a_client_gone_before_the_message_is_sent_on_sends_nothing(self) -> None:
        for verb, verify in (("DATA", True), ("MAIL", False), ("RCPT", False), ("DATA", False)):
            host = NextHostDouble(**{verb: [None, "354 go on" if verb == "DATA" else "250 ok"]})
            factory = self.serve(host, max_connections=1, verify_recipients=verify)
            client = self.join(factory)
            client.send(transaction())
            client.lose(clean=False)
            self.assertTrue(host.lines[0].closed)
            self.assertEqual(host.messages, [])
            self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)

    def test_a_client_gone_while_a_connection_is_awaited_sends_nothing(self) -> None:
        host = NextHostDouble()
        factory = self.serve(host, max_connections=1, verify_recipients=False)
        first, second = self.join(factory), self.join(factory)
        host.answers["."] = [None, "250 2.0.0 ok"]
        first.send(transaction())
        second.send(transaction())
        second.lose(clean=False)
        host.lines[0].say("250 2.0.0 ok")
        self.assertEqual(codes(first.read())[-1], 250)
        self.assertEqual(len(host.messages), 1)
        self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)

    def test_a_message_the_next_host_may_have_is_not_cut_off_and_the_log_says_so(self) -> None:
        host = NextHostDouble(**{".": [None, "250 2.0.0 ok"]})
        factory = self.serve(host, max_connections=1)
        client = self.join(factory)
        client.send(transaction())
        client.lose(clean=False)
        self.assertFalse(host.lines[0].closed)
        self.assertIn("the client is gone and may send it again", self.log.getvalue())
        host.lines[0].say("250 2.0.0 ok")
        self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)
        self.assertEqual(len(host.lines), 1)

    def test_a_hook_that_takes_too_long_frees_the_connection(self) -> None:
        host = NextHostDouble(**{".": [None, "250 2.0.0 ok"]})
        proxy = self.proxy(host, max_connections=1, data_timeout=1000)
        factory = SMTPFactory(proxy, hostname="mx.example", clock=self.clock, hook_timeout=50)
        client = self.join(factory)
        client.send(transaction())
        self.clock.pump([30] * 4)
        self.assertIn(b"451 4.3.0", client.read())
        self.assertTrue(host.lines[0].closed)
        self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)
