"""What the Proxy sends on: message, trace, parameters; and how it proves who it is."""

from __future__ import annotations

import doctest
import runpy
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, ClassVar
from unittest import skipUnless

from twisted.internet.defer import Deferred
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Client, codes
from tests.support.memory_reactor import ResolvingReactor
from tests.support.next_host import CONTENT, NextHostDouble, ProxyTestCase, transaction
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Chain, Proxy
from twisted_smtpd.handlers import proxy as proxy_module
from twisted_smtpd.handlers.forwarding.outgoing import Outgoing
from twisted_smtpd.handlers.forwarding.parameters import check_message, lines_to_offer, mail_command, rcpt_command
from twisted_smtpd.handlers.received import count_received, received_header
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.wire.replies import SMTPReplyError
from twisted_smtpd.wire.sending import stuff_dots

PROJECT = Path(__file__).parents[3]


class ContentTests(ProxyTestCase):
    def sent(self, content: bytes, handler: type[Proxy] = Proxy, commands: int = 4, **options: Any) -> bytes:
        host = NextHostDouble()
        factory = self.serve(host, handler=handler, **options)
        self.assertEqual(codes(self.join(factory).send(transaction(content=content)))[-1], 250)
        (message,) = host.messages
        self.assertEqual(len(host.commands), commands)
        return message

    def test_received_stands_first(self) -> None:
        message = self.sent(b"Received: from elsewhere\r\n" + CONTENT)
        self.assertRegex(
            message.decode(),
            r"\AReceived: from client\.example \(\[192\.0\.2\.1\]\)\r\n\tby mx\.example with ESMTP id [0-9a-f-]+\r\n"
            r"\tfor <b@y\.example>;\r\n\t\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\nReceived: from elsewhere\r\n",
        )

    def test_forged_trace_headers_do_not_go_on(self) -> None:
        message = self.sent(b"X-Peer: 192.0.2.99\r\nX-RcptTo: boss@example.com\r\n" + CONTENT)
        self.assertNotIn(b"X-Peer", message)
        self.assertNotIn(b"X-RcptTo", message)

    def test_dots_reach_the_next_host_as_they_were(self) -> None:
        # Stuffed by the client: the message has one dot less.
        message = self.sent(b"Subject: hi\r\n\r\n..\r\n...x\r\nend\r\n")
        self.assertTrue(message.endswith(b"\r\n\r\n.\r\n..x\r\nend\r\n"), message)

    def test_a_handler_that_changes_the_message_can_not_smuggle(self) -> None:
        class Changing(Proxy):
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
                envelope.content = "Subject: ü\n\nhello\n.\nMAIL FROM:<evil@x.example>\r.\r\nend"
                return await super().handle_DATA(server, session, envelope)

        # It has octets beyond ASCII now, so the next host is told of it anew.
        message = self.sent(CONTENT, Changing, commands=7)
        self.assertTrue(
            message.endswith("ü\r\n\r\nhello\r\n.\r\nMAIL FROM:<evil@x.example> .\r\nend\r\n".encode()), message
        )

    def compute_here(self) -> list[Any]:
        """Prepare large messages without a thread; returns the functions that would have run in one."""
        functions = []

        async def compute(function: Any, *arguments: Any) -> Any:
            functions.append(function)
            return function(*arguments)

        self.patch(proxy_module, "compute", compute)
        return functions

    def test_a_large_message_is_prepared_in_a_thread(self) -> None:
        functions = self.compute_here()
        self.sent(b"Subject: hi\r\n\r\nhello\r\n")
        self.assertEqual(functions, [])
        # Octets, or lines.
        host = NextHostDouble(EHLO="250 next.example")
        large = b"Subject: hi\r\n\r\n" + (b"x" * 900 + b"\r\n") * 80
        self.assertEqual(codes(self.say(host, transaction(content=large)))[-1], 250)
        self.sent(b"a: b\r\n" * 501 + b"\r\n")
        self.assertEqual(functions, [Outgoing.prepare, stuff_dots] * 2)

    def test_nothing_is_sent_on_for_a_client_that_is_gone_while_the_message_is_prepared(self) -> None:
        prepared: Deferred[None] = Deferred()

        async def compute(function: Any, *arguments: Any) -> Any:
            await prepared
            return function(*arguments)

        self.patch(proxy_module, "compute", compute)
        for options in ({}, {"verify_recipients": False}):
            prepared = Deferred()
            host = NextHostDouble(EHLO="250 next.example")
            factory = self.serve(host, max_connections=1, **options)
            client = self.join(factory)
            client.send(transaction(content=b"a: b\r\n" * 501 + b"\r\n"))
            client.lose()
            prepared.callback(None)
            self.assertEqual((host.messages, "DATA" in host.commands), ([], False))
            # Its connection is free again.
            self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)

    def test_a_large_message_arrives_whole(self) -> None:
        self.compute_here()
        body = b"".join(b"%09d\r\n" % number for number in range(100_000))
        host = NextHostDouble(EHLO="250 next.example")
        self.assertEqual(codes(self.say(host, transaction(content=b"Subject: hi\r\n\r\n" + body)))[-1], 250)
        self.assertTrue(host.messages[0].endswith(b"\r\n\r\n" + body))

    def test_a_next_host_that_does_not_read_is_waited_for_and_one_that_reads_slowly_has_time(self) -> None:
        self.compute_here()
        host = NextHostDouble(EHLO="250 next.example")

        def stop_reading(line: Any) -> str:
            transport = line.client.transport
            write = transport.write

            def one_chunk(data: bytes) -> None:
                transport.producer.pauseProducing()
                write(data)

            transport.write = one_chunk
            return "354 go on"

        host.answers["DATA"] = stop_reading
        client = self.join(self.serve(host, data_timeout=100))
        replies = client.send(
            transaction(content=b"Subject: hi\r\n\r\n" + b"x" * 998 + (b"\r\n" + b"y" * 998) * 300 + b"\r\n")
        )
        self.assertEqual(codes(replies)[-1], 354)
        for _ in range(4):
            self.clock.advance(90)
            host.lines[0].client.transport.producer.resumeProducing()
        self.assertEqual(codes(client.read()), [250])

    def test_a_loop_is_ended(self) -> None:
        hops = b"Received: from a by b\r\n"
        self.sent(hops * 50 + CONTENT)
        host = NextHostDouble()
        replies = self.say(host, transaction(content=hops * 51 + CONTENT))
        self.assertIn(b"554 5.4.6 Too many hops", replies)
        self.assertEqual((host.messages, host.commands[-1]), ([], "RSET"))

    def test_only_the_header_counts_for_a_loop(self) -> None:
        self.sent(CONTENT + b"Received: from a by b\r\n" * 60)

    def test_recipients_a_hook_has_changed_are_the_ones_that_are_used(self) -> None:
        class Alias(Proxy):
            async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> Any:
                envelope.rcpt_tos += [f"real-{address}", "copy@y.example"]
                return "250 OK"

        host = NextHostDouble()
        self.assertEqual(codes(self.join(self.serve(host, handler=Alias)).send(transaction()))[-1], 250)
        self.assertEqual(
            [command for command in host.commands if command.startswith("RCPT")],
            ["RCPT TO:<real-b@y.example>", "RCPT TO:<copy@y.example>"],
        )
        self.assertEqual(len(host.messages), 1)

    def test_a_message_whose_recipients_are_all_discarded_goes_nowhere(self) -> None:
        class Discard(Proxy):
            async def handle_RCPT(self, *arguments: Any) -> Any:
                return "250 OK"

        host = NextHostDouble()
        self.assertEqual(codes(self.join(self.serve(host, handler=Discard)).send(transaction()))[-1], 250)
        self.assertEqual(host.messages, [])

    def test_answers_for_recipients_a_hook_has_added_are_one_answer(self) -> None:
        class Alias(Proxy):
            async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> Any:
                envelope.rcpt_tos += [address, "copy@y.example"]
                return "250 OK"

        for second, code in (("250 2.0.0 two", 250), ("550 5.2.1 off", 451)):
            host = NextHostDouble(lmtp=True, **{".": ["250 2.0.0 one", second]})
            replies = self.join(self.serve(host, LMTP, Alias)).send(transaction())
            self.assertEqual(codes(replies)[-1], code)

    def test_a_line_end_in_an_address_never_reaches_the_next_host(self) -> None:
        class Evil(Proxy):
            async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> Any:
                envelope.rcpt_tos.append("b@y.example>\r\nRCPT TO:<c@y.example")
                return "250 OK"

        host = NextHostDouble()
        self.assertEqual(codes(self.join(self.serve(host, handler=Evil)).send(transaction()))[-1], 451)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual([command for command in host.commands if "c@y" in command], [])


class ReceivedTests(SynchronousTestCase):
    def header(self, **attributes: Any) -> str:
        session, envelope = Session(), Envelope()
        session.peer, session.host_name, session.extended_smtp = ("192.0.2.1", 1), "client.example", True
        for name, value in attributes.items():
            setattr(session if hasattr(session, name) else envelope, name, value)
        protocol = LMTP if attributes.get("lmtp") else SMTP
        server = protocol(object(), hostname="mx.example", clock=Clock())
        return received_header(server, session, envelope, 0.0).decode()

    def test_a_client_can_not_write_the_header(self) -> None:
        header = self.header(host_name="a(b)\r\nX-Evil:;y\t", peer=("2001:db8::1%e\r\nX: y", 1, 0, 0))
        self.assertEqual(header.count("\r\n"), 3)
        self.assertEqual(header.splitlines()[0], "Received: from a?b???X-Evil:?y? ([IPv6:2001:db8::1?e??X:?y])")

    def test_a_unix_socket_has_no_address(self) -> None:
        self.assertTrue(self.header(peer="", host_name=None).startswith("Received: from unknown\r\n"))

    def test_the_protocols_name(self) -> None:
        for attributes, name in (
            ({"extended_smtp": False}, "SMTP"),
            ({"tls": True}, "ESMTPS"),
            ({"tls": True, "authenticated": True}, "ESMTPSA"),
            ({"lmtp": True}, "LMTP"),
            ({"smtp_utf8": True}, "UTF8SMTP"),
            ({"smtp_utf8": True, "lmtp": True, "tls": True}, "UTF8LMTPS"),
        ):
            self.assertIn(f" with {name} id ", self.header(**attributes))  # type: ignore[arg-type]

    def test_several_recipients_do_not_learn_of_each_other(self) -> None:
        self.assertIn("\tfor <b@y.example>;", self.header(rcpt_tos=["b@y.example"]))
        self.assertNotIn("for <", self.header(rcpt_tos=["b@y.example", "c@y.example"]))
        self.assertNotIn("for <", self.header(rcpt_tos=["ü@y.example"]))

    def test_received_is_counted_in_any_spelling(self) -> None:
        self.assertEqual(count_received(b"Received: a\r\n\tReceived: b\r\nRECEIVED : c\r\nX-Received: d\r\n"), 2)


class ParameterTests(ProxyTestCase):
    """What the client's parameters become; ``PLAIN`` is a next host that has no extension."""

    PLAIN: ClassVar[dict[str, str]] = {}
    ALL: ClassVar = dict.fromkeys(("SIZE", "8BITMIME", "SMTPUTF8", "DSN"), "")

    def refused(self, function: Any, *arguments: Any) -> str:
        return str(self.assertRaises(SMTPReplyError, function, *arguments).reply)[:10].rstrip()

    def test_parameters_go_on_as_they_were_sent(self) -> None:
        host = NextHostDouble()
        proxy, session, envelope = self.proxy(host), Session(), Envelope()
        server = SMTP(proxy, hostname="mx.example", clock=self.clock)
        envelope.mail_parameters = {"SIZE": "100", "BODY": "8BITMIME", "RET": "HDRS", "ENVID": "Qq1+2B", "AUTH": "<>"}
        options = ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;B@y"]
        mail = proxy.handle_MAIL(server, session, envelope, "a@x.example", ["RET=HDRS"])
        self.successResultOf(Deferred.fromCoroutine(mail))
        envelope.mail_from, envelope.mail_options = "a@x.example", ["RET=HDRS"]
        rcpt = proxy.handle_RCPT(server, session, envelope, "b@y.example", options)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(rcpt)).code, 250)  # type: ignore[union-attr]
        self.assertEqual(
            host.commands[1:],
            [
                "MAIL FROM:<a@x.example> BODY=8BITMIME RET=HDRS ENVID=Qq1+2B SIZE=100",
                "RCPT TO:<b@y.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B@y",
            ],
        )
        self.assertEqual((envelope.mail_options, envelope.rcpt_options), (["RET=HDRS"], options))

    def test_recipients_keep_their_own_parameters_after_data(self) -> None:
        host = NextHostDouble()
        proxy, session, envelope = self.proxy(host, verify_recipients=False), Session(), Envelope()
        envelope.mail_from, envelope.content = "", CONTENT
        envelope.rcpt_tos = ["a@y.example", "b@y.example"]
        envelope.recipients = [
            Recipient("a@y.example", ["NOTIFY=NEVER"], {"NOTIFY": "NEVER"}),
            Recipient("b@y.example", ["ORCPT=rfc822;x"], {"ORCPT": "rfc822;x"}),
        ]
        server = SMTP(proxy, hostname="mx.example", clock=self.clock)
        hook = proxy.handle_DATA(server, session, envelope)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(hook)).code, 250)
        self.assertRegex(host.commands[1], r"^MAIL FROM:<> SIZE=[0-9]+$")
        self.assertEqual(
            host.commands[2:4], ["RCPT TO:<a@y.example> NOTIFY=NEVER", "RCPT TO:<b@y.example> ORCPT=rfc822;x"]
        )

    def test_what_the_next_host_would_not_understand_is_left_out(self) -> None:
        parameters = {"SIZE": "1", "BODY": "8BITMIME", "SMTPUTF8": None, "RET": "HDRS", "ENVID": "Q"}
        self.assertEqual(mail_command("", parameters, self.PLAIN, 5), "MAIL FROM:<>")
        self.assertEqual(
            mail_command("ä@x.example", parameters, self.ALL, 5),
            "MAIL FROM:<ä@x.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=Q SIZE=5",
        )
        parameters = {"NOTIFY": "NEVER", "ORCPT": "rfc822;x"}
        self.assertEqual(rcpt_command("b@y.example", parameters, self.PLAIN), "RCPT TO:<b@y.example>")

    def test_what_can_not_be_left_out_is_refused(self) -> None:
        self.assertEqual(self.refused(mail_command, "ä@x.example", {}, self.PLAIN), "553 5.6.7")
        self.assertEqual(self.refused(rcpt_command, "ä@x.example", {}, self.PLAIN), "553 5.6.7")
        self.assertEqual(self.refused(mail_command, "", {"REQUIRETLS": None}, self.ALL), "550 5.7.30")
        self.assertEqual(self.refused(mail_command, "", {"BY": "60;R"}, self.ALL), "555 5.5.4")
        self.assertEqual(self.refused(mail_command, "", {"XTAG": "1"}, {"XTAG": ""}), "555 5.5.4")
        self.assertEqual(self.refused(rcpt_command, "b@y", {"RRVS": "x"}, self.ALL), "555 5.5.4")
        self.assertEqual(self.refused(mail_command, "", {"BODY": "BINARYMIME"}, self.ALL), "554 5.6.3")
        self.assertEqual(self.refused(rcpt_command, "b@y", {"NOTIFY": "DELAY,success"}, self.PLAIN), "555 5.5.4")

    def test_what_the_client_relies_on_goes_on_where_the_next_host_has_it(self) -> None:
        extensions = dict.fromkeys(("REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "RRVS"), "")
        for parameters in (
            {"REQUIRETLS": None, "BY": "60;R", "HOLDFOR": "60", "MT-PRIORITY": "-3"},
            {"HOLDUNTIL": "2030-01-31T12:00:00Z"},
        ):
            words = "".join(f" {key}={value}" if value else f" {key}" for key, value in parameters.items())
            self.assertEqual(mail_command("", parameters, extensions), f"MAIL FROM:<>{words}")
        rrvs = {"RRVS": "2030-01-31T12:00:00Z;C"}
        self.assertEqual(rcpt_command("b@y", rrvs, extensions), "RCPT TO:<b@y> RRVS=2030-01-31T12:00:00Z;C")
        lines = [f"250-{name}" for name in ("PIPELINING", *extensions)]
        self.assertEqual(lines_to_offer(lines, {}), ["250-PIPELINING"])
        self.assertEqual(lines_to_offer(lines, extensions), lines)

    def test_a_message_the_next_host_can_not_take_is_refused(self) -> None:
        ascii_, eight = b"a: b\r\n", "a: ö\r\n".encode()

        def refusal(header: bytes, body: bytes, utf8: bool, extensions: dict[str, str]) -> str:
            return str(check_message(Outgoing.prepare(b"", header + b"\r\n" + body), utf8, extensions))[:9]

        self.assertEqual(refusal(ascii_, ascii_, True, self.PLAIN), "None")
        self.assertEqual(refusal(ascii_, eight, False, self.PLAIN), "554 5.6.3")
        self.assertEqual(refusal(eight, ascii_, False, self.PLAIN), "554 5.6.3")
        self.assertEqual(refusal(eight, ascii_, False, {"8BITMIME": ""}), "None")
        self.assertEqual(refusal(eight, ascii_, True, {"8BITMIME": ""}), "554 5.6.9")
        self.assertEqual(refusal(ascii_, ascii_, False, {"SIZE": "13"}), "552 5.3.4")
        self.assertEqual(refusal(ascii_, ascii_, False, {"SIZE": "14"}), "None")
        for no_limit in ("", "0", "x", "٣", "1" * 30):
            self.assertEqual(refusal(ascii_, ascii_, False, {"SIZE": no_limit}), "None")

    def test_an_8_bit_message_is_refused_before_it_is_sent(self) -> None:
        host = NextHostDouble(EHLO="250 next.example")
        replies = self.say(host, transaction(content="Subject: hi\r\n\r\nü\r\n".encode()))
        self.assertTrue(replies.endswith(b"554 5.6.3 The next host takes no 8-bit message\r\n"), replies)
        self.assertEqual((host.messages, host.commands[-1]), ([], "RSET"))

    def test_a_parameter_refused_here_leaves_the_connection_for_others(self) -> None:
        host = NextHostDouble(EHLO="250 next.example")
        factory = self.serve(host, max_connections=1)
        replies = self.join(factory).send("MAIL FROM:<ä@x.example> SMTPUTF8\r\nRCPT TO:<b@y.example>\r\n".encode())
        self.assertIn(b"\r\n553 5.6.7", replies)
        self.assertEqual(codes(self.join(factory).send(transaction()))[-1], 250)
        self.assertEqual(len(host.lines), 1)

    def test_ehlo_offers_what_the_next_host_can_do_too(self) -> None:
        host = NextHostDouble(EHLO="250-next.example\n250 SIZE 5000")
        factory = self.serve(host)
        before = Client(factory.buildProtocol(None)).send(b"EHLO client.example\r\n")
        self.assertIn(b"8BITMIME", before)
        self.join(factory).send(transaction())
        after = Client(factory.buildProtocol(None)).send(b"EHLO client.example\r\n")
        self.assertNotIn(b"8BITMIME", after)
        self.assertNotIn(b"SMTPUTF8", after)
        self.assertIn(b"PIPELINING", after)
        self.assertIn(b"SIZE 5000\r\n", after)

    def test_the_smaller_size_is_offered(self) -> None:
        for ours, theirs, both in (
            ("10", "5", "5"),
            ("5", "10", "5"),
            ("0", "5", "5"),
            ("5", "0", "5"),
            ("0", "0", "0"),
        ):
            self.assertEqual(lines_to_offer([f"250-SIZE {ours}"], {"SIZE": theirs}), [f"250-SIZE {both}"])

    def test_a_new_ehlo_ends_the_transaction_there_too(self) -> None:
        host = NextHostDouble()
        client = self.join(self.serve(host))
        client.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nEHLO client.example\r\n")
        self.assertEqual(host.commands[-1], "RSET")


AUTH_EHLO = "250-next.example\n250 AUTH LOGIN PLAIN"


class SecurityTests(ProxyTestCase):
    LOGIN: ClassVar[dict[str, Any]] = {"username": "anne", "password": "s3cret", "auth_without_tls": True}

    def test_it_authenticates_before_the_first_message(self) -> None:
        host = NextHostDouble(EHLO=AUTH_EHLO, AUTH="235 2.7.0 welcome")
        self.assertEqual(codes(self.say(host, transaction() * 2, **self.LOGIN))[-1], 250)
        self.assertEqual(host.commands.count("AUTH PLAIN AGFubmUAczNjcmV0"), 1)

    def test_login_where_there_is_no_plain(self) -> None:
        host = NextHostDouble(
            EHLO="250-next.example\n250-AUTH=LOGIN\n250 AUTH LOGIN",
            AUTH="334 VXNlcm5hbWU6",
            YW5uZQ="334 UGFzc3dvcmQ6",
            czNjcmV0="235 2.7.0 welcome",
        )
        self.assertEqual(codes(self.say(host, transaction(), **self.LOGIN))[-1], 250)
        self.assertEqual(host.commands[1:4], ["AUTH LOGIN", "YW5uZQ==", "czNjcmV0"])

    def test_a_login_that_fails_is_451_and_shows_no_secret(self) -> None:
        for answers in (
            {"EHLO": AUTH_EHLO, "AUTH": "535 5.7.8 AGFubmUAczNjcmV0 is s3cret"},
            {"EHLO": "250-next.example\n250 AUTH GSSAPI"},
            {"EHLO": "250-next.example\n250 AUTH LOGIN", "AUTH": "535 s3cret"},
        ):
            host = NextHostDouble(**answers)
            replies = self.say(host, transaction(), **self.LOGIN)
            self.assertEqual(codes(replies)[1], 451)
            self.assertEqual(host.messages, [])
            for secret in ("s3cret", "czNjcmV0", "AGFubmU"):
                self.assertNotIn(secret, replies.decode() + self.log.getvalue())
        self.assertIn("535", self.log.getvalue())

    def test_no_repr_shows_the_password(self) -> None:
        proxy = Proxy("next.example", 25, reactor=self.clock, **self.LOGIN)
        self.assertEqual(repr(proxy), "<Proxy next.example:25>")
        self.assertNotIn("s3cret", repr(vars(proxy)))
        self.assertNotIn("s3cret", repr(vars(proxy.next_host)))

    def test_a_password_is_not_sent_in_clear(self) -> None:
        self.assertRaises(ValueError, Proxy, "next.example", 25, username="anne", password="s3cret")

    def test_starttls_that_is_not_offered_or_refused_sends_nothing_in_clear(self) -> None:
        for answers in (
            {},
            {"EHLO": "250-next.example\n250 STARTTLS", "STARTTLS": "454 no"},
            {"EHLO": "502 what"},
        ):
            host = NextHostDouble(**answers)
            replies = self.say(host, transaction(), tls="starttls", tls_hostname="next.example")
            self.assertEqual(codes(replies)[1], 451)
            self.assertEqual([command for command in host.commands if command.startswith("MAIL")], [])

    def test_replies_put_behind_the_one_to_starttls_are_never_believed(self) -> None:
        for answer in (b"220 go\r\n250 AUTH PLAIN\r\n", b"220 go\r\n25"):
            host = NextHostDouble(EHLO="250-next.example\n250 STARTTLS", STARTTLS=None)
            client = self.join(self.serve(host, tls="starttls", tls_hostname="next.example"))
            client.send(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
            host.lines[0].client.dataReceived(answer)
            self.assertEqual(client.read()[:9], b"451 4.7.5")
            self.assertTrue(host.lines[0].closed)
            self.assertEqual(host.commands, ["EHLO mx.example", "STARTTLS"])

    def test_arguments_that_contradict_each_other_are_refused(self) -> None:
        for arguments in (
            {"protocol": "uucp"},
            {"tls": "maybe"},
            {"username": "anne"},
            {"tls_options": optionsForClientTLS("next.example")},
            {"timeout": 0},
            {"max_connections": 0},
        ):
            self.assertRaises(ValueError, Proxy, "next.example", 25, **arguments)
        self.assertRaises(ValueError, Proxy, "unix:/run/lmtp.sock", tls="starttls")


class CommandLineTests(ProxyTestCase):
    def made(self, *arguments: str) -> dict[str, Any]:
        return vars(Proxy.from_cli(ArgumentParser(), *arguments))

    def test_where(self) -> None:
        for word, host, port in (
            ("next.example:25", "next.example", 25),
            ("[::1]:24", "::1", 24),
            ("unix:/run/lmtp.sock", "unix:/run/lmtp.sock", None),
            ("tcp:next.example:25", "tcp:next.example:25", None),
        ):
            made = self.made(word)
            self.assertEqual((made["remote_hostname"], made["remote_port"]), (host, port))

    def test_options(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("s3cret\n")
        made = self.made(
            "next.example:24", "--lmtp", "--tls=starttls", "--username=anne", f"--password-file={path}", "--after-data"
        )
        self.assertEqual(made["_sign_in"].plain, "AGFubmUAczNjcmV0")
        self.assertIsNotNone(made["_hosts"][0].start_tls)
        self.assertEqual((made["_lmtp"], made["_verify_recipients"]), (True, False))

    def test_it_has_a_name(self) -> None:
        self.assertIsInstance(make_handler("proxy", ["next.example:25"]), Proxy)
        for wrong in (
            [],
            ["next.example"],
            ["tcp:next.example"],
            ["next.example:x"],
            ["next.example:25", "--tls=maybe"],
            ["next.example:25", "--username=anne"],
        ):
            self.assertRaises(HandlerError, make_handler, "proxy", wrong)

    def test_endpoints(self) -> None:
        reactor = ResolvingReactor()
        for where in (("192.0.2.1", 25), ("tcp:192.0.2.1:25", None)):
            Deferred.fromCoroutine(Proxy(*where, reactor=reactor).next_host.acquire("mx.example")).addErrback(str)
            self.assertEqual(reactor.tcpClients.pop()[1], 25)
        proxy = Proxy("192.0.2.1", 465, tls="implicit", reactor=reactor)
        Deferred.fromCoroutine(proxy.next_host.acquire("mx.example")).addErrback(str)
        self.assertEqual(reactor.tcpClients.pop()[1], 465)


class PageTests(ProxyTestCase):
    @skipUnless((PROJECT / "docs").is_dir(), "the pages are not installed")
    def test_what_the_page_shows_is_so(self) -> None:
        page = str(PROJECT / "docs" / "reference" / "forwarding.rst")
        failed, tried = doctest.testfile(page, module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
        self.assertEqual(failed, 0)
        self.assertGreater(tried, 10)

    @skipUnless((PROJECT / "examples").is_dir(), "the examples are not installed")
    def test_the_filter_refuses_and_forwards(self) -> None:
        example = runpy.run_path(str(PROJECT / "examples" / "filter_and_forward.py"), run_name="example")
        host = NextHostDouble()
        gateway = example["Gateway"](example["Filter"]("example.com"), self.proxy(host))
        client = self.join(SMTPFactory(gateway, hostname="mx.example", clock=self.clock))
        self.assertEqual(codes(client.send(transaction("b@y.example", "b@example.com"))), [250, 550, 250, 354, 250])
        spam = b"X-Spam-Flag: YES\r\n" + CONTENT
        self.assertEqual(codes(client.send(transaction("b@example.com", content=spam)))[-1], 554)
        self.assertEqual(len(host.messages), 1)
        self.assertIsInstance(example["Gateway"].from_cli(ArgumentParser(), "mail.example.com:25"), Chain)
