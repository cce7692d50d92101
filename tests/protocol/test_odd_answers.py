"""Answers of hooks that are no yes and no no; and XCLIENT that says a thing twice."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, ENVELOPE, MESSAGE, Recorder, answering, codes, connect, hooks
from twisted_smtpd.handlers import PASS, Chain
from twisted_smtpd.wire.replies import Reply

WAYS: tuple[Any, ...] = (lambda handler: handler, Chain, lambda handler: Chain(object(), handler))
INTERMEDIATE = ("354 go on", "334 ", Reply(354), "300 x")


def ehlo_answering(status: Any) -> Any:
    """A ``handle_EHLO`` with four arguments."""

    def handle_EHLO(server: Any, session: Any, envelope: Any, hostname: str) -> Any:
        return status

    return handle_EHLO


class IntermediateTests(SynchronousTestCase):
    """3yz promises that the command goes on, which only DATA and AUTH do: whatever says it has accepted nothing."""

    def test_from_connect_it_lets_nobody_in(self) -> None:
        for way in WAYS:
            for status in INTERMEDIATE:
                client = connect(way(hooks(handle_CONNECT=answering(status))))
                self.assertEqual(codes(client.read())[0] // 100, 3)
                self.assertEqual({code // 100 for code in codes(client.send(ENVELOPE))}, {5}, status)

    def test_from_ehlo_it_greets_nobody(self) -> None:
        for way in WAYS:
            for status in INTERMEDIATE:
                client = connect(way(hooks(handle_EHLO=ehlo_answering(status))))
                client.send(EHLO)
                self.assertIsNone(client.protocol.session.host_name)

    def test_from_mail_it_begins_no_transaction(self) -> None:
        for way in WAYS:
            for status in INTERMEDIATE:
                client = connect(way(hooks(handle_MAIL=answering(status))))
                said = codes(client.send(ENVELOPE))
                self.assertEqual((said[1] // 100, said[2]), (3, 503), status)
                self.assertIsNone(client.protocol.envelope.mail_from)

    def test_from_rcpt_it_takes_no_recipient(self) -> None:
        for way in WAYS:
            for status in INTERMEDIATE:
                recorder = Recorder()
                handler = hooks(handle_RCPT=answering(status), handle_DATA=recorder.handle_DATA)
                client = connect(way(handler))
                said = codes(client.send(ENVELOPE + b"DATA\r\n"))
                self.assertEqual((said[2] // 100, said[3] // 100), (3, 5), status)
                self.assertEqual(client.protocol.envelope.rcpt_tos, [])

    def test_from_data_it_keeps_the_message_from_the_next_handler(self) -> None:
        for status in INTERMEDIATE:
            recorder = Recorder()
            connect(Chain(hooks(handle_DATA=answering(status)), recorder)).send(MESSAGE)
            self.assertEqual(recorder.envelopes, [])

    def test_from_one_that_is_asked_for_true_or_false_it_is_no(self) -> None:
        for way in WAYS:
            for status in INTERMEDIATE:
                client = connect(way(hooks(handle_PROXY=answering(status))), proxy_from=["192.0.2.1"])
                said = client.send(b"PROXY TCP4 198.51.100.7 192.0.2.9 50001 25\r\n" + EHLO)
                self.assertNotIn(b"220", said)
                self.assertTrue(client.closed or client.aborted)


class PassTests(SynchronousTestCase):
    def test_outside_a_chain_it_leaves_the_decision_to_the_server(self) -> None:
        names = ("CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "NOOP", "VRFY", "RSET", "QUIT")
        passing = hooks(**{f"handle_{name}": answering(PASS) for name in names})
        script = MESSAGE + b"NOOP\r\nVRFY a@x.example\r\nRSET\r\nHELO x\r\nQUIT\r\n"
        self.assertEqual(connect(passing).send(script), connect().send(script))

    def test_also_for_an_ehlo_with_five_arguments(self) -> None:
        def handle_EHLO(server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
            responses.clear()
            return PASS

        for way in WAYS:
            self.assertEqual(connect(way(hooks(handle_EHLO=handle_EHLO))).send(EHLO), connect().send(EHLO))


class XCLIENTTwiceTests(SynchronousTestCase):
    def test_an_attribute_that_is_said_twice_is_refused(self) -> None:
        for arguments in (
            b"ADDR=203.0.113.7 ADDR=203.0.113.8",
            b"LOGIN=anne LOGIN=root",
            b"addr=203.0.113.7 ADDR=203.0.113.7",
        ):
            client = connect(xclient_from=["192.0.2.1"])
            self.assertEqual(codes(client.send(b"XCLIENT %b\r\n" % arguments)), [501])
            session = client.protocol.session
            self.assertEqual((session.peer, session.authenticated), (("192.0.2.1", 40000), None))

    def test_a_second_command_replaces_what_the_first_said(self) -> None:
        client = connect(xclient_from=["192.0.2.1"])
        client.send(b"XCLIENT ADDR=203.0.113.7 NAME=a.example LOGIN=anne\r\n")
        self.assertEqual(codes(client.send(b"XCLIENT ADDR=203.0.113.8\r\n")), [220])
        session = client.protocol.session
        self.assertEqual(session.peer, ("203.0.113.8", 0))
        self.assertEqual(session.xclient, {"ADDR": "203.0.113.8", "NAME": "a.example"})
        # Who signed in before did so in a session that is over.
        self.assertEqual((session.authenticated, session.login_data), (None, None))

    def test_the_second_is_counted_in_place_of_the_first(self) -> None:
        client = connect(xclient_from=["192.0.2.1"])
        per_address = client.protocol.connections.per_address
        for host in (b"203.0.113.7", b"203.0.113.8", b"203.0.113.8"):
            client.send(b"XCLIENT ADDR=%b\r\n" % host)
        self.assertEqual(dict(per_address), {"203.0.113.8": 1})
        client.lose()
        self.assertEqual(dict(per_address), {})
