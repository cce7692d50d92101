"""What a test asks to go wrong goes wrong: at each command and place, so often, for these clients, and no others."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Client, codes
from twisted_smtpd.auth import LoginPassword
from twisted_smtpd.store import MemoryStore
from twisted_smtpd.testing.failures import GARBAGE, PLACES, Failure, Failures, Step
from twisted_smtpd.testing.handler import DoubleHandler, Users
from twisted_smtpd.testing.mailbox import Mailbox
from twisted_smtpd.testing.protocol import LMTPDouble, SMTPDouble

DIALOG = {
    "EHLO": b"EHLO client.example\r\n",
    "AUTH": b"AUTH PLAIN AGFubmUAc2VjcmV0\r\n",
    "MAIL": b"MAIL FROM:<anne@example.com>\r\n",
    "RCPT": b"RCPT TO:<bart@example.com>\r\n",
    "DATA": b"DATA\r\n",
    "MESSAGE": b"Subject: hi\r\n\r\nhello\r\n.\r\n",
    "NOOP": b"NOOP\r\n",
    "RSET": b"RSET\r\n",
    "VRFY": b"VRFY anne\r\n",
    "HELP": b"HELP\r\n",
    "QUIT": b"QUIT\r\n",
}


class DoubleCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.mail = Mailbox()
        self.failures = Failures()
        self.clock = Clock()

    def fail_at(self, *arguments: Any, **options: Any) -> Failure:
        return self.failures.add(Failure(*arguments, **options))

    def connect(self, cls: type[SMTPDouble] = SMTPDouble, **options: Any) -> Client:
        handler = DoubleHandler(self.mail.store, self.mail.begin)
        options = {"authenticator": Users(None), "auth_require_tls": False, "hostname": "mx.example", **options}
        protocol = cls(handler, clock=self.clock, **options)
        protocol.failures = self.failures
        return Client(protocol, "127.0.0.1")

    def talk(self, *verbs: str) -> list[bytes]:
        """Each reply of a new connection, the greeting first."""
        client = self.connect()
        return [client.read(), *(client.send(DIALOG[verb]) for verb in verbs)]


class ReplyTests(DoubleCase):
    def test_at_each_command_the_reply_is_the_one_that_was_asked_for(self) -> None:
        for verb in DIALOG.keys() - {"MESSAGE"}:
            client = self.connect()
            client.read()
            with self.fail_at(verb, "455 4.9.9 as asked", times=1) as failure:
                for said in DIALOG.values():
                    answer = client.send(said)
                    if failure.used:
                        break
            # RFC 2034 section 4: a reply to EHLO has no enhanced code.
            self.assertEqual(answer, b"455 as asked\r\n" if verb == "EHLO" else b"455 4.9.9 as asked\r\n", verb)
            self.assertFalse(client.closed, verb)

    def test_a_command_that_the_server_does_not_know_can_fail_too(self) -> None:
        self.fail_at("XPLODE", "450 not yet")
        client = self.connect()
        client.read()
        self.assertEqual(client.send(b"xplode now\r\n"), b"450 4.2.0 not yet\r\n")

    def test_a_star_stands_for_each_command(self) -> None:
        self.fail_at("*", "451 no", after=1)
        replies = self.talk("EHLO", "MAIL", "NOOP")
        self.assertEqual([reply[:3] for reply in replies], [b"220", b"250", b"451", b"451"])

    def test_421_closes_the_connection(self) -> None:
        self.fail_at("MAIL", "shutting down")
        client = self.connect()
        client.send(DIALOG["EHLO"])
        self.assertEqual(codes(client.send(DIALOG["MAIL"] + DIALOG["NOOP"])), [421])
        self.assertTrue(client.closed)

    def test_a_refused_recipient_leaves_the_others(self) -> None:
        self.fail_at("RCPT", "550 5.1.1 no such user", match="BART@")
        client = self.connect()
        client.send(DIALOG["EHLO"] + DIALOG["MAIL"])
        self.assertEqual(codes(client.send(DIALOG["RCPT"] + b"RCPT TO:<cate@example.com>\r\n")), [550, 250])
        client.send(DIALOG["DATA"] + DIALOG["MESSAGE"])
        (message,) = self.mail.messages
        self.assertEqual(message.rcpt_tos, ["cate@example.com"])

    def test_after_refused_recipients_only_data_is_refused_as_a_server_does_it(self) -> None:
        self.fail_at("RCPT", "550 5.1.1 no such user")
        self.assertEqual(self.talk("EHLO", "MAIL", "RCPT", "DATA")[-1][:3], b"554")

    def test_a_refused_connection_hears_it_instead_of_the_greeting(self) -> None:
        for status in (b"554 5.7.1 not you", b"421 4.3.2 busy"):
            with self.fail_at("CONNECT", status.decode()):
                self.assertEqual(self.talk()[0], status[:4] + status[4:] + b"\r\n")

    def test_names_stand_for_replies(self) -> None:
        self.fail_at("RCPT", "mailbox full")
        self.assertEqual(self.talk("EHLO", "MAIL", "RCPT")[-1], b"452 4.2.2 Mailbox full\r\n")

    def test_it_happens_so_often_and_after_so_many(self) -> None:
        failure = self.fail_at("NOOP", "451 no", times=2, after=1)
        replies = self.talk("NOOP", "NOOP", "NOOP", "NOOP")
        self.assertEqual([reply[:3] for reply in replies[1:]], [b"250", b"451", b"451", b"250"])
        self.assertEqual(failure.used, 2)

    def test_a_predicate_sees_the_step(self) -> None:
        steps: list[Step] = []
        self.fail_at("RCPT", "451 no", match=lambda step: steps.append(step))
        self.assertEqual(self.talk("EHLO", "MAIL", "RCPT")[-1][:3], b"250")
        ((where, line, host, sender),) = [(s.where, s.line, s.session.host_name, s.envelope.mail_from) for s in steps]
        expected = ("RCPT", "RCPT TO:<bart@example.com>", "client.example", "anne@example.com")
        self.assertEqual((where, line, host, sender), expected)

    def test_a_predicate_that_fails_is_logged_and_the_client_hears_451(self) -> None:
        self.fail_at("NOOP", "550 no", match=lambda step: 1 / 0)
        self.assertEqual(self.talk("NOOP")[-1][:3], b"451")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_chance_is_the_same_for_the_same_seed(self) -> None:
        runs = []
        for seed in (7, 7, 8):
            with self.fail_at("NOOP", "451 no", chance=0.5, seed=seed):
                runs.append([reply[:3] for reply in self.talk(*["NOOP"] * 20)])
        self.assertEqual(runs[0], runs[1])
        self.assertNotEqual(runs[0], runs[2])
        self.assertEqual(set(runs[0][1:]), {b"250", b"451"})

    def test_a_greylist_takes_the_second_try(self) -> None:
        self.fail_at("RCPT", "greylist")
        for code in (b"451", b"250"):
            self.assertEqual(self.talk("EHLO", "MAIL", "RCPT")[-1][:3], code)
        client = self.connect()
        client.send(DIALOG["EHLO"] + DIALOG["MAIL"])
        self.assertEqual(codes(client.send(b"RCPT TO:<cate@example.com>\r\n")), [451])

    def test_wrong_credentials_are_refused_when_they_are_there(self) -> None:
        self.fail_at("AUTH", "wrong password", match="anne", times=1)
        client = self.connect()
        client.send(DIALOG["EHLO"])
        self.assertEqual(client.send(b"AUTH PLAIN\r\n"), b"334 \r\n")
        self.assertEqual(client.send(b"AGFubmUAc2VjcmV0\r\n")[:9], b"535 5.7.8")
        self.assertEqual(codes(client.send(DIALOG["AUTH"])), [235])

    def test_what_is_removed_does_not_happen(self) -> None:
        self.fail_at("NOOP", "451 no").remove()
        with self.fail_at("NOOP", "452 no"):
            self.assertEqual(self.talk("NOOP")[-1][:3], b"452")
        self.assertEqual(self.talk("NOOP")[-1][:3], b"250")
        self.fail_at("NOOP", "451 no")
        self.failures.clear()
        self.assertEqual((self.talk("NOOP")[-1][:3], len(self.failures)), (b"250", 0))


class EndTests(DoubleCase):
    def test_at_each_command_and_place_the_connection_can_end(self) -> None:
        for where in (DIALOG.keys() | PLACES.keys()) - {"TLS"}:
            for what in ("drop", "reset"):
                with self.fail_at(where, what, times=1) as failure:
                    client = self.connect()
                    for said in DIALOG.values():
                        if client.closed or client.aborted:
                            break
                        client.read()
                        client.send(said)
                self.assertEqual(failure.used, 1, where)
                self.assertEqual((client.closed, client.aborted), (True, what == "reset"), (where, what))
                self.assertEqual(client.read(), b"", (where, what))
                client.lose()

    def test_a_stall_says_nothing_and_goes_on_with_nothing(self) -> None:
        self.fail_at("NOOP", "stall")
        client = self.connect()
        client.read()
        self.assertEqual(client.send(DIALOG["NOOP"] + DIALOG["QUIT"]), b"")
        self.clock.advance(60)
        self.assertEqual((client.read(), client.closed), (b"", False))
        client.lose()

    def test_a_message_that_is_cut_off_is_not_kept(self) -> None:
        for size in range(0, len(DIALOG["MESSAGE"]) + 3):
            for step in (1, 1000):
                with self.fail_at("CONTENT", "drop", octets=size, times=1):
                    client = self.connect()
                    client.send(b"".join(DIALOG[verb] for verb in ("EHLO", "MAIL", "RCPT", "DATA")))
                    content = DIALOG["MESSAGE"]
                    for place in range(0, len(content), step):
                        client.send(content[place : place + step])
                self.assertTrue(client.closed, (size, step))
        self.assertEqual(self.mail.messages, [])

    def test_in_the_middle_of_a_message_the_server_can_say_something(self) -> None:
        self.fail_at("CONTENT", "421 4.3.2 going down", octets=5)
        client = self.connect()
        client.send(b"".join(DIALOG[verb] for verb in ("EHLO", "MAIL", "RCPT", "DATA")))
        self.assertEqual(client.send(b"Subj"), b"")
        self.assertEqual(client.send(b"ect"), b"421 4.3.2 going down\r\n")
        self.assertTrue(client.closed)

    def test_content_fails_only_where_there_is_content(self) -> None:
        failure = self.fail_at("CONTENT", "drop", times=1)
        self.assertEqual(self.talk("EHLO", "MAIL", "DATA")[-1][:3], b"503")
        self.assertEqual(failure.used, 0)

    def test_the_classical_duplicate(self) -> None:
        # The message is kept, its sender does not hear so, and sends it again.
        self.fail_at("ANSWER", "drop", times=1)
        message = ("EHLO", "MAIL", "RCPT", "DATA", "MESSAGE")
        self.assertEqual(self.talk(*message)[-1], b"")
        self.assertEqual(self.talk(*message)[-1][:3], b"250")
        first, second = self.mail.messages
        self.assertEqual(first.raw, second.raw)

    def test_a_refused_message_is_among_the_refused_ones_only(self) -> None:
        self.fail_at("MESSAGE", "554 5.7.1 spam", times=1)
        self.assertEqual(self.talk("EHLO", "MAIL", "RCPT", "DATA", "MESSAGE")[-1], b"554 5.7.1 spam\r\n")
        (refused,) = self.mail.refused
        self.assertEqual((refused.refusal, self.mail.messages), ("554 5.7.1 spam", []))

    def test_in_lmtp_each_recipient_has_an_answer(self) -> None:
        self.fail_at("MESSAGE", "mailbox full", match="bart")
        client = self.connect(LMTPDouble)
        client.send(b"LHLO client.example\r\n" + DIALOG["MAIL"])
        client.send(DIALOG["RCPT"] + b"RCPT TO:<cate@example.com>\r\nDATA\r\n")
        self.assertEqual(codes(client.send(DIALOG["MESSAGE"])), [452, 250])
        self.assertEqual([m.rcpt_tos for m in self.mail.messages], [["cate@example.com"]])
        self.assertEqual([m.rcpt_tos for m in self.mail.refused], [["bart@example.com"]])


class SlowTests(DoubleCase):
    def test_a_slow_answer_comes_after_its_delay_and_is_the_usual_one(self) -> None:
        for where in DIALOG.keys() | {"ANSWER", "CONNECT"}:
            with self.fail_at(where, "slow", delay=3.0, times=1) as failure:
                client = self.connect()
                said, expected = b"", 220
                for verb, line in () if failure.used else DIALOG.items():
                    client.read()
                    said, expected = client.send(line), 354 if verb == "DATA" else 221 if verb == "QUIT" else 250
                    if failure.used:
                        break
                self.assertEqual(said, b"", where)
                self.clock.advance(2.9)
                self.assertEqual(client.read(), b"", where)
                self.clock.advance(0.2)
                if where not in ("AUTH", "VRFY", "HELP"):
                    self.assertEqual(codes(client.read()), [expected], where)
                else:
                    self.assertIn(codes(client.read())[0], (235, 252, 214), where)
            client.lose()

    def test_a_split_answer_comes_octet_by_octet_and_the_next_one_waits(self) -> None:
        self.fail_at("NOOP", "split", delay=0.01, times=1)
        client = self.connect()
        client.read()
        said = [client.send(DIALOG["NOOP"] + DIALOG["QUIT"])]
        while not client.closed:
            self.clock.advance(0.01)
            said.append(client.read())
        self.assertEqual({len(part) for part in said}, {1})
        self.assertEqual(codes(b"".join(said)), [250, 221])

    def test_a_split_greeting(self) -> None:
        self.fail_at("CONNECT", "split", delay=1.0, times=1)
        client = self.connect()
        said = client.read()
        self.assertEqual(said, b"2")
        self.clock.pump([1.0] * 100)
        self.assertEqual(codes(said + client.read()), [220])

    def test_garbage_stands_for_the_reply_and_the_dialog_goes_on(self) -> None:
        for where in ("NOOP", "RCPT", "CONNECT", "ANSWER", "MESSAGE", "EHLO", "AUTH"):
            with self.fail_at(where, "garble", times=1):
                client = self.connect()
                said = [client.read()]
                for line in DIALOG.values():
                    said.append(client.send(line))
            self.assertEqual(said.count(GARBAGE), 1, where)
            self.assertEqual(said[-1][:3], b"221", where)

    def test_octets_are_sent_as_they_are(self) -> None:
        self.fail_at("NOOP", b"250-never\r\n250 ends\n")
        self.assertEqual(self.talk("NOOP")[-1], b"250-never\r\n250 ends\n")

    def test_the_end_of_a_connection_ends_what_is_still_to_be_sent(self) -> None:
        self.fail_at("NOOP", "split")
        client = self.connect()
        client.send(DIALOG["NOOP"])
        client.lose()
        self.clock.advance(1000)
        self.assertEqual(client.read(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ExtensionTests(DoubleCase):
    def test_hidden_extensions_are_neither_listed_nor_served(self) -> None:
        self.fail_at("EHLO", "without AUTH size")
        client = self.connect()
        client.read()
        answer = client.send(DIALOG["EHLO"])
        self.assertNotIn(b"AUTH", answer)
        self.assertNotIn(b"SIZE", answer)
        self.assertIn(b"PIPELINING", answer)
        self.assertEqual(codes(client.send(DIALOG["AUTH"])), [502])

    def test_a_client_may_fall_back_to_helo(self) -> None:
        self.fail_at("EHLO", "502 5.5.1 what is that?")
        client = self.connect()
        client.send(DIALOG["EHLO"])
        self.assertEqual(codes(client.send(b"HELO client.example\r\n" + DIALOG["MAIL"])), [250, 250])

    def test_lhlo_is_meant_by_ehlo(self) -> None:
        self.fail_at("LHLO", "451 not now")
        client = self.connect(LMTPDouble)
        client.read()
        self.assertEqual(codes(client.send(b"LHLO client.example\r\n")), [451])


class MistakeTests(SynchronousTestCase):
    def test_what_can_not_happen_is_said_at_once(self) -> None:
        for arguments, text in (
            (("RCPT", "explode"), "'explode' can't happen at RCPT"),
            (("CONTENT", "slow"), "'slow' can't happen at CONTENT"),
            (("TLS", "451 no"), "'451 no' can't happen at TLS: there it is one of 'expired'"),
            (("RCPT", "without SIZE"), "can't happen at RCPT"),
            (("R CPT", "drop"), "neither a command nor one of CONNECT"),
            (("RCPT", "999 what"), "'999 what' is no reply"),
        ):
            error = self.assertRaises(ValueError, Failure, *arguments)
            self.assertIn(text, str(error))
        self.assertIn("chance", str(self.assertRaises(ValueError, Failure, "RCPT", "drop", chance=2.0)))

    def test_in_json_it_is_the_same(self) -> None:
        for failure in (
            Failure("rcpt", "451 4.7.1 later", times=2, after=1, match="bart@", chance=0.5, seed=7),
            Failure("NOOP", b"\xff\x00hi\r\n"),
            Failure("EHLO", "without size"),
            Failure("CONTENT", "drop", octets=100),
            Failure("MAIL", "slow", delay=2.5),
        ):
            given = json.loads(json.dumps(failure.as_dict()))
            again = Failure.from_dict(given)
            self.assertEqual((again.as_dict(), again.raw, str(again.reply)), (given, failure.raw, str(failure.reply)))
        self.assertEqual(Failure("RCPT", "451", match=lambda step: True).as_dict()["match"][-9:], "<lambda>>")

    def test_json_that_can_not_be_a_failure(self) -> None:
        for given, words in (
            ({"where": "RCPT"}, "'what' is missing"),
            ({"where": "RCPT", "what": "451", "colour": "red"}, "'colour' is none of where, what"),
            ({"where": "RCPT", "what": "451", "times": True}, "times: True is of the wrong type"),
            ({"where": "RCPT", "what": "451", "after": -1}, "after: 0 or more, not -1"),
            ({"where": "RCPT", "what": "raw \\x"}, "octets as in Python"),
        ):
            self.assertIn(words, str(self.assertRaises(ValueError, Failure.from_dict, given)))

    def test_a_code_alone_has_a_text(self) -> None:
        self.assertEqual(str(Failure("RCPT", "451").reply), "451 Failure on demand")

    def test_failures_have_numbers(self) -> None:
        failures = Failures()
        one, two = failures.add(Failure("RCPT", "451")), failures.add(Failure("DATA", "drop"))
        self.assertEqual(([failure.id for failure in failures], failures.get(2), failures.get(3)), ([1, 2], two, None))
        one.remove()
        self.assertEqual(list(failures), [two])
        failures.clear()
        self.assertEqual(failures.add(Failure("DATA", "drop")).id, 3)

    def test_its_repr_says_what_it_is(self) -> None:
        self.assertEqual(repr(Failure("rcpt", "451 no")), "<Failure RCPT: 451 no; happened 0 times>")


class UsersTests(SynchronousTestCase):
    def test_the_password_decides(self) -> None:
        protocol = SMTPDouble(DoubleHandler(MemoryStore(), lambda session, transcript: None), clock=Clock())
        users = Users({"anne": "sécret"})

        def ask(login: str, password: str) -> bool:
            credentials = LoginPassword(login.encode(), password.encode())
            asked = Deferred.fromCoroutine(users(protocol, *[None] * 2, "PLAIN", credentials))  # type: ignore[arg-type]
            return self.successResultOf(asked).success

        self.assertEqual([ask("anne", "sécret"), ask("anne", "secret"), ask("bart", "")], [True, False, False])


class SecretTests(DoubleCase):
    """No secret is in the transcript; a failure that is asked for does not open another way."""

    SECRET = b"AGFubmUAc2VjcmV0"

    def transcript_of(self, *segments: bytes) -> str:
        client = self.connect()
        for segment in segments:
            client.send(segment)
        return str(client.protocol.transcript)

    def test_of_an_exchange_the_mechanism_is_shown(self) -> None:
        plain = self.transcript_of(b"EHLO c\r\n", b"auth plain %b\r\n" % self.SECRET)
        login = self.transcript_of(b"EHLO c\r\n", b"AUTH LOGIN\r\n", b"YW5uZQ==\r\n", self.SECRET + b"\r\n")
        self.assertIn("C: AUTH PLAIN ***", plain)
        self.assertIn("C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: ***\nS: 334 UGFzc3dvcmQ6\nC: ***", login)
        self.assertNotIn(self.SECRET.decode(), plain + login)

    def test_what_follows_an_auth_that_fails_is_hidden(self) -> None:
        pipelined = b"AUTH LOGIN\r\nYW5uZQ==\r\n%b\r\nNOOP\r\n" % self.SECRET
        for failure in ("535 5.7.8 no", GARBAGE):
            self.failures.clear()
            self.fail_at("AUTH", failure)
            transcript = self.transcript_of(b"EHLO c\r\n", pipelined)
            self.assertNotIn(self.SECRET.decode(), transcript)
            self.assertIn("C: NOOP", transcript)

    def test_a_refused_auth_and_an_unknown_mechanism(self) -> None:
        for auth in (b"AUTH LOGIN\r\n", b"AUTH X-OURS %b\r\n" % self.SECRET):
            transcript = self.transcript_of(auth + self.SECRET + b"\r\n")
            self.assertNotIn(self.SECRET.decode(), transcript)
