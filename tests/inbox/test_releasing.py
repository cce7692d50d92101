"""Messages that are sent on to a real server."""

from __future__ import annotations

import json
from typing import Any

from tests.support.inbox_api import APITestCase
from tests.support.next_host import NextHostDouble
from twisted_smtpd.handlers import Proxy
from twisted_smtpd.inbox.releasing import HostReleaser, without_bcc

PATH = "/api/v1/message/1/release"
TO = {"To": ["cate@z.example"]}


class ReleaseTests(APITestCase):
    def release_to(self, host: NextHostDouble, **options: Any) -> None:
        options.setdefault("protocol", "lmtp" if host.lmtp else "smtp")
        self.start()
        self.releaser = HostReleaser(Proxy(host, reactor=self.clock, **options), "me.example")
        self.serve(release=self.releaser)

    def test_a_message_goes_as_it_came_to_those_who_are_named(self) -> None:
        host = NextHostDouble()
        self.release_to(host)
        self.add(
            "Hi", content="Received: x\nFrom: a@x\nBcc: secret@y.example,\n other@y.example\nSubject: Hi\n\nBcc: b\n"
        )
        self.do("POST", PATH, {"To": ["cate@z.example", " dan@z.example ", "cate@z.example"]})
        self.assertEqual(host.commands[0], "EHLO me.example")
        self.assertTrue(host.commands[1].startswith("MAIL FROM:<bounces@x.example>"))
        self.assertEqual(host.commands[2:4], ["RCPT TO:<cate@z.example>", "RCPT TO:<dan@z.example>"])
        (sent,) = host.messages
        received, rest = sent.split(b"\r\nReceived: x\r\n")
        self.assertTrue(received.startswith(b"Received: from inbox"), received)
        self.assertEqual(rest, b"From: a@x\r\nSubject: Hi\r\n\r\nBcc: b\r\n")

    def test_bounces_and_addresses_beyond_ascii(self) -> None:
        host = NextHostDouble()
        self.release_to(host)
        new = self.store.get(self.add()).message  # type: ignore[union-attr]
        object.__setattr__(new, "mail_from", "")
        self.do("POST", PATH, {"To": ["bärt@z.example", '"a b"@z.example']})
        self.assertEqual(host.commands[1].split(" ")[:3], ["MAIL", "FROM:<>", "SMTPUTF8"])
        self.assertEqual(host.commands[2:4], ["RCPT TO:<bärt@z.example>", 'RCPT TO:<"a b"@z.example>'])

    def test_all_or_none(self) -> None:
        host = NextHostDouble(**{"RCPT TO:<bad": "550 5.1.1 No such user"})
        self.release_to(host)
        self.add()
        text = self.refused(502, PATH, "POST", {"To": ["good@z.example", "bad@z.example"]})
        self.assertIn("No such user", text)
        self.assertEqual(host.messages, [])
        self.assertIn("550 5.1.1", self.refused(502, PATH, "POST", {"To": ["bad@z.example"]}))

    def test_a_host_that_refuses_the_message(self) -> None:
        for answers in ({".": "554 5.7.1 Spam"}, {"DATA": "554 5.7.1 Spam"}, {"MAIL": "550 5.7.1 Spam"}):
            self.release_to(NextHostDouble(**answers))
            self.add()
            self.assertIn("Spam", self.refused(502, PATH, "POST", TO))

    def test_a_host_that_can_t_be_reached(self) -> None:
        host = NextHostDouble()
        host.refuse_connections = True
        self.release_to(host)
        self.add()
        self.assertIn("can't be reached", self.refused(502, PATH, "POST", TO))

    def test_lmtp(self) -> None:
        host = NextHostDouble(lmtp=True)
        self.release_to(host)
        self.add()
        self.do("POST", PATH, {"To": ["cate@z.example", "dan@z.example"]})
        self.assertEqual(len(host.messages), 1)

    def test_what_is_no_address(self) -> None:
        host = NextHostDouble()
        self.release_to(host)
        self.add()
        for to in (["x"], [""], ["a@b.example\r\nRCPT TO:<c@d.example>"], ["a@b.example> SIZE=1"], ["<>"], []):
            self.refused(400, PATH, "POST", {"To": to})
        self.refused(400, PATH, "POST", {})
        self.refused(404, PATH.replace("1/r", "2/r"), "POST", TO)
        self.assertEqual(host.lines, [])

    def test_without_a_host(self) -> None:
        self.add()
        self.assertIn("no server", self.refused(400, PATH, "POST", TO))

    def test_the_page_s_settings_name_it(self) -> None:
        self.serve(release=HostReleaser(Proxy("mail.example", 25, reactor=self.clock), "me.example"))
        relay = self.get("/api/v1/webui")["MessageRelay"]
        self.assertEqual((relay["Enabled"], relay["SMTPServer"]), (True, "mail.example:25"))

    def test_a_client_that_goes_away(self) -> None:
        host = NextHostDouble(**{"MAIL": None})
        self.release_to(host)
        self.add()
        body = json.dumps(TO)
        transport = self.begin(PATH, "POST", **{"Content-Length": str(len(body)), "Content-Type": "application/json"})
        transport.protocol.dataReceived(body.encode())
        self.assertEqual(len(host.lines), 1)
        transport.loseConnection()
        self.assertTrue(host.lines[0].closed)
        self.assertEqual(self.flushLoggedErrors(), [])


class BccTests(APITestCase):
    def test_only_the_header(self) -> None:
        for content, expected in (
            (b"Bcc: x\r\nTo: y\r\n\r\nBcc: z\r\n", b"To: y\r\n\r\nBcc: z\r\n"),
            (b"To: y\r\nbcc : x\r\n\tz\r\nCc: a\r\n\r\n", b"To: y\r\nCc: a\r\n\r\n"),
            (b"To: y\nBCC: x\n\nb", b"To: y\n\nb"),
            (b"To: y\r\nBcc: x\r\n", b"To: y\r\n"),
            (b"\r\nBcc: x\r\n\r\n", b"\r\nBcc: x\r\n\r\n"),
            (b"\nBcc: x\n", b"\nBcc: x\n"),
            (b"X-Bcc: x\r\nBccx: y\r\n\r\n", b"X-Bcc: x\r\nBccx: y\r\n\r\n"),
            (b"", b""),
            (b"Bcc: x", b""),
            (b"To: y\nBcc: x\n z", b"To: y\n"),
        ):
            self.assertEqual(without_bcc(content), expected)
