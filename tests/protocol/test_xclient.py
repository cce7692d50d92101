"""XCLIENT and XFORWARD: only from those whose word is taken, and nothing hidden in them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, GREETING, MESSAGE, Promises, Recorder, answering, codes, connect, hooks
from tests.support.proxy_headers import UNIX, v2
from tests.support.tls_dialog import Peer, SecureTestCase

FRONT = "10.1.2.3"
FROM = ["10.0.0.0/8"]
EHLO = b"EHLO front.example\r\n"
XCLIENT = b"XCLIENT NAME=client.example ADDR=203.0.113.7 PORT=50001\r\n"


class VouchingTestCase(SecureTestCase):
    def behind(self, handler: Any = None, host: Any = FRONT, split: bool = False, **options: Any) -> Peer:
        options.setdefault("xclient_from", FROM)
        return self.connect(handler, host, split, **options)


class TrustTests(VouchingTestCase):
    def test_offered_to_those_in_the_list_only(self) -> None:
        for host, xclient_from, offered in (
            (FRONT, FROM, True),
            (FRONT, [], False),
            (FRONT, None, False),
            ("203.0.113.200", FROM, False),
        ):
            said = self.behind(host=host, xclient_from=xclient_from).send(EHLO)
            self.assertEqual(b"250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n" in said, offered)
            self.assertEqual(b"250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n" in said, offered)

    def test_from_anybody_else_it_is_550_and_changes_nothing(self) -> None:
        for split in (False, True):
            peer = self.behind(host="203.0.113.200", split=split)
            said = peer.send(EHLO + XCLIENT + b"XCLIENT LOGIN=root\r\nXFORWARD NAME=x\r\n")
            self.assertEqual(codes(said), [250, 550, 550, 550])
            session = peer.protocol.session
            self.assertEqual((session.peer[0], session.authenticated), ("203.0.113.200", None))
            self.assertEqual((session.xclient, session.xforward), ({}, {}))

    def test_without_the_option_the_verbs_are_unknown(self) -> None:
        said = self.behind(xclient_from=None).send(EHLO + XCLIENT + b"XFORWARD NAME=x\r\nHELP\r\n")
        self.assertEqual(codes(said), [250, 500, 500, 214])
        self.assertNotIn(b"XCLIENT", said.partition(b"214 ")[2])

    def test_help_knows_them_where_they_are(self) -> None:
        self.assertIn(b"XCLIENT", self.behind().send(b"HELP\r\n"))
        self.assertNotIn(b"XCLIENT", self.behind(host="203.0.113.200").send(b"HELP\r\n"))

    def test_whom_the_proxy_connects_counts_and_not_the_proxy(self) -> None:
        for client, offered in ((b"203.0.113.7", False), (b"10.9.9.9", True)):
            peer = self.behind(proxy_from=FROM)
            peer.send(b"PROXY TCP4 %b 192.0.2.9 50001 25\r\n" % client)
            self.assertEqual(b"XCLIENT" in peer.send(EHLO), offered)

    def test_the_client_spoken_for_gains_no_trust_and_the_sender_loses_none(self) -> None:
        peer = self.behind()
        peer.send(XCLIENT)
        self.assertIn(b"XCLIENT", peer.send(EHLO))
        self.assertEqual(codes(peer.send(XCLIENT)), [220])

    def test_require_starttls_holds_for_it_too(self) -> None:
        peer = self.behind(tls_context=self.files(), require_starttls=True)
        self.assertEqual(codes(peer.send(EHLO + XCLIENT)), [250, 530])
        peer.send(b"STARTTLS\r\n")
        peer.handshake()
        self.assertEqual(codes(peer.send(XCLIENT + EHLO)), [220, 250])
        self.assertTrue(peer.protocol.session.tls)
        self.assertEqual(peer.protocol.session.peer, ("203.0.113.7", 50001))


class XClientTests(VouchingTestCase):
    def test_it_answers_with_a_fresh_greeting(self) -> None:
        for split in (False, True):
            peer = self.behind(split=split)
            self.assertEqual(peer.send(XCLIENT), GREETING)
            self.assertEqual(peer.protocol.session.peer, ("203.0.113.7", 50001))
            self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_everything_it_can_say(self) -> None:
        peer = self.behind()
        peer.send(
            b"xclient name=client.example addr=IPV6:2001:db8::7 port=50001 proto=ESMTP helo=client "
            b"login=anne+40example.com destaddr=192.0.2.9 destport=25\r\n"
        )
        session = peer.protocol.session
        self.assertEqual(session.peer, ("2001:db8::7", 50001, 0, 0))
        self.assertEqual((session.host_name, session.extended_smtp), ("client", True))
        self.assertEqual((session.authenticated, session.login_data), (True, "anne@example.com"))
        self.assertEqual(
            session.xclient,
            {
                "NAME": "client.example",
                "ADDR": "2001:db8::7",
                "PORT": "50001",
                "PROTO": "ESMTP",
                "HELO": "client",
                "LOGIN": "anne@example.com",
                "DESTADDR": "192.0.2.9",
                "DESTPORT": "25",
            },
        )

    def test_an_ipv4_address_written_as_ipv6_is_ipv4(self) -> None:
        for written in (b"::ffff:203.0.113.7", b"IPV6:::ffff:203.0.113.7"):
            peer = self.behind()
            peer.send(b"XCLIENT ADDR=%b PORT=1\r\n" % written)
            self.assertEqual(peer.protocol.session.peer, ("203.0.113.7", 1))

    def test_state_is_forgotten(self) -> None:
        peer = self.behind()
        peer.send(EHLO + b"XCLIENT LOGIN=anne HELO=client PROTO=ESMTP\r\n")
        before = peer.protocol.session
        self.assertEqual(codes(peer.send(XCLIENT)), [220])
        session = peer.protocol.session
        self.assertIsNot(session, before)
        self.assertEqual((session.host_name, session.extended_smtp), (None, False))
        self.assertEqual((session.authenticated, session.login_data), (None, None))
        self.assertEqual(session.id, before.id)
        self.assertEqual(codes(peer.send(b"MAIL FROM:<a@b.example>\r\n")), [503])

    def test_it_may_come_in_several_commands(self) -> None:
        peer = self.behind()
        said = peer.send(b"XCLIENT ADDR=203.0.113.7\r\nXCLIENT PORT=50001\r\nXCLIENT NAME=a.example\r\n")
        self.assertEqual(codes(said), [220, 220, 220])
        session = peer.protocol.session
        self.assertEqual(session.peer, ("203.0.113.7", 50001))
        self.assertEqual(session.xclient, {"ADDR": "203.0.113.7", "PORT": "50001", "NAME": "a.example"})

    def test_what_the_sender_does_not_know(self) -> None:
        for unknown in (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]", b"[unavailable]"):
            peer = self.behind()
            peer.send(b"XCLIENT LOGIN=anne\r\n")
            said = peer.send(b"XCLIENT NAME=%b ADDR=%b PORT=%b HELO=%b LOGIN=%b\r\n" % ((unknown,) * 5))
            self.assertEqual(codes(said), [220])
            session = peer.protocol.session
            # Not the sender's own address.
            self.assertEqual((session.peer, session.host_name), ("", None))
            self.assertEqual((session.authenticated, session.login_data), (None, None))
            self.assertEqual(set(session.xclient.values()), {None})

    def test_in_a_transaction_it_is_503(self) -> None:
        peer = self.behind()
        said = peer.send(ENVELOPE + XCLIENT + b"XFORWARD NAME=x\r\nDATA\r\n.\r\n" + XCLIENT)
        self.assertEqual(codes(said), [250, 250, 250, 503, 503, 354, 250, 220])

    def test_bad_attributes_are_501_and_change_nothing(self) -> None:
        for arguments in (
            b"",
            b" ",
            b" NAME",
            b" NAME=",
            b" =x",
            b" FOO=x",
            b" IDENT=x",
            b" NAME=a NAME=b",
            b" ADDR=example.com",
            b" ADDR=203.0.113.256",
            b" ADDR=203.0.113.07",
            b" ADDR=IPV6:",
            b" ADDR=fe80::1%25eth0",
            b" ADDR=203.0.113.7/24",
            b" DESTADDR=x",
            b" PORT=65536",
            b" PORT=-1",
            b" PORT=1.5",
            b" PORT=+2B1",
            b" DESTPORT=smtp",
            b" PROTO=HTTP",
            b" ADDR=203.0.113.7 PORT=x",
        ):
            peer = self.behind()
            self.assertEqual(codes(peer.send(b"XCLIENT" + arguments + b"\r\n")), [501], arguments)
            self.assertEqual((peer.protocol.session.peer, peer.protocol.session.xclient), ((FRONT, 40000), {}))

    def test_control_characters_hidden_in_xtext_are_501(self) -> None:
        for hidden in (
            b"+0D+0A",
            b"+00",
            b"+1B[2J",
            b"+0A",
            b"+7F",
            b"+C2+85",
            b"+E2+80+A8",
            b"+E2+80+AE",
            b"+FF",
            b"+G0",
        ):
            for name in (b"NAME", b"HELO", b"LOGIN", b"ADDR", b"PROTO"):
                for split in (False, True):
                    peer = self.behind(split=split)
                    self.assertEqual(codes(peer.send(b"XCLIENT %b=x%b\r\n" % (name, hidden))), [501], hidden)
                    self.assertEqual(peer.protocol.session.xclient, {})
            peer = self.behind()
            self.assertEqual(codes(peer.send(b"XFORWARD IDENT=x%b\r\n" % hidden)), [501], hidden)
            self.assertEqual(peer.protocol.session.xforward, {})

    def test_a_long_value_is_501(self) -> None:
        peer = self.behind()
        self.assertEqual(codes(peer.send(b"XCLIENT NAME=%b\r\n" % (b"x" * 256))), [501])
        self.assertEqual(codes(peer.send(b"XCLIENT NAME=%b\r\n" % (b"x" * 255))), [220])

    def test_the_connect_hook_judges_the_client(self) -> None:
        seen: list[Any] = []

        def handle_CONNECT(server: Any, session: Any, envelope: Any) -> str:
            seen.append(session.peer[0])
            return "554 no" if session.peer[0] == "203.0.113.7" else "250 welcome"

        peer = self.behind(hooks(handle_CONNECT=handle_CONNECT))
        self.assertEqual(codes(peer.send(EHLO + XCLIENT + EHLO + XCLIENT + b"QUIT\r\n")), [250, 554, 503, 503, 221])
        self.assertEqual(seen, [FRONT, "203.0.113.7"])

    def test_a_connect_hook_that_fails_lets_the_client_in_no_more(self) -> None:
        promises = Promises()
        peer = self.behind(hooks(handle_CONNECT=promises))
        promises.made[0].callback("250 OK")
        peer.send(XCLIENT)
        promises.made[1].errback(ZeroDivisionError())
        self.assertEqual(codes(peer.read() + peer.send(EHLO)), [451, 503])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_limits_count_the_client_and_not_the_sender(self) -> None:
        factory = self.factory(xclient_from=FROM, max_connections_per_address=1)
        peers = [self.join(factory, FRONT) for _ in range(4)]
        self.assertEqual(dict(factory.connections.per_address), {})
        self.assertEqual(codes(peers[0].send(XCLIENT)), [220])
        self.assertEqual(codes(peers[1].send(XCLIENT)), [421])
        self.assertTrue(peers[1].closed)
        self.assertEqual(codes(peers[2].send(b"XCLIENT ADDR=203.0.113.8\r\n")), [220])
        self.assertEqual(codes(peers[2].send(b"XCLIENT ADDR=203.0.113.9\r\n")), [220])
        self.assertEqual(dict(factory.connections.per_address), {"203.0.113.7": 1, "203.0.113.9": 1})
        for peer in peers:
            peer.lose()
        self.assertEqual((dict(factory.connections.per_address), len(factory.connections.open)), ({}, 0))

    def test_starttls_after_it_keeps_the_client(self) -> None:
        peer = self.behind(tls_context=self.files())
        peer.send(XCLIENT)
        peer.starttls()
        self.assertEqual(peer.protocol.session.peer, ("203.0.113.7", 50001))
        self.assertTrue(peer.protocol.may_vouch)

    @given(st.text(max_size=60))
    def test_any_argument_is_answered(self, text: str) -> None:
        peer = self.behind(max_errors=10**6)
        argument = text.replace("\r", "").replace("\n", "").encode("utf-8", "replace")
        for command in (b"XCLIENT ", b"XFORWARD ", b"XCLIENT NAME=", b"XFORWARD IDENT="):
            (code,) = codes(peer.send(command + argument + b"\r\n"))
            self.assertIn(code, (220, 250, 500, 501))


class XForwardTests(VouchingTestCase):
    SENT = (
        b"XFORWARD NAME=spike.example ADDR=203.0.113.7 PORT=50001 PROTO=ESMTP\r\n"
        b"XFORWARD HELO=spike IDENT=4Q+20x SOURCE=LOCAL\r\n"
    )

    def test_it_is_there_for_the_hooks_and_changes_nothing_else(self) -> None:
        seen: list[Any] = []

        def handle_DATA(server: Any, session: Any, envelope: Any) -> str:
            seen.append(dict(session.xforward))
            return "250 OK"

        for split in (False, True):
            seen.clear()
            peer = self.behind(hooks(handle_DATA=handle_DATA), split=split)
            peer.send(EHLO)
            self.assertEqual(codes(peer.send(self.SENT)), [250, 250])
            said = peer.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n")
            self.assertEqual(codes(said), [250, 250, 354, 250])
            self.assertEqual(
                seen,
                [
                    {
                        "NAME": "spike.example",
                        "ADDR": "203.0.113.7",
                        "PORT": "50001",
                        "PROTO": "ESMTP",
                        "HELO": "spike",
                        "IDENT": "4Q x",
                        "SOURCE": "LOCAL",
                    }
                ],
            )
            session = peer.protocol.session
            self.assertEqual((session.peer, session.host_name), ((FRONT, 40000), "front.example"))

    def test_it_holds_for_one_transaction(self) -> None:
        rest = b"RCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n"
        mail = b"MAIL FROM:<a@b.example>\r\n"
        for end in (mail + rest, mail + b"RSET\r\n", EHLO, b"RSET\r\n", XCLIENT):
            peer = self.behind(Recorder())
            peer.send(EHLO + self.SENT)
            self.assertTrue(peer.protocol.session.xforward)
            peer.send(end)
            self.assertEqual(peer.protocol.session.xforward, {}, end)

    def test_what_the_sender_does_not_know_and_what_is_wrong(self) -> None:
        peer = self.behind()
        said = peer.send(b"XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE]\r\n")
        self.assertEqual(codes(said), [250])
        self.assertEqual(peer.protocol.session.xforward, {"NAME": None, "ADDR": None})
        for arguments in (b"", b" LOGIN=x", b" SOURCE=x", b" PROTO=x", b" PORT=x", b" NAME"):
            self.assertEqual(codes(peer.send(b"XFORWARD" + arguments + b"\r\n")), [501], arguments)

    def test_a_name_that_is_none_is_taken_as_it_is(self) -> None:
        peer = self.behind(hooks(handle_NOOP=answering("250 OK")))
        self.assertEqual(codes(peer.send(b"XFORWARD HELO=two+20words NAME=x\r\n")), [250])
        self.assertEqual(peer.protocol.session.xforward["HELO"], "two words")


class OddClientTests(SynchronousTestCase):
    def test_a_unix_socket_that_a_proxy_tells_of_may_not_vouch(self) -> None:
        client = connect(host=UNIXAddress("/run/x"), proxy_from=["unix"], xclient_from=["unix"])
        client.send(v2(UNIX, 0x31))
        self.assertEqual(client.protocol.session.peer, "")
        client.send(b"EHLO x\r\n")
        self.assertEqual(codes(client.send(b"XCLIENT LOGIN=root\r\n")), [550])

    def test_a_name_in_xclient_is_checked_like_one_in_helo(self) -> None:
        client = connect(host="127.0.0.1", xclient_from=["127.0.0.1"])
        client.send(b"EHLO x\r\n")
        self.assertEqual(codes(client.send(b"XCLIENT HELO=" + b"a" * 256 + b"\r\n")), [501])
