"""Messages that come over HTTP."""

from __future__ import annotations

import json
from email import message_from_bytes
from email.policy import default
from typing import Any, Final

from tests.support.inbox_api import APITestCase

M = "/api/v1/messages"


class SendTests(APITestCase):
    BODY: Final = {"From": {"Email": "anne@x.example", "Name": "Anné"}, "To": [{"Email": "bart@y.example"}]}

    def send(self, **more: Any) -> Any:
        answer = self.ask("/api/v1/send", "POST", {**self.BODY, **more})
        self.assertEqual(answer.status, 200, answer.body)
        stored = self.store.get(int(json.loads(answer.body)["ID"]))
        assert stored is not None
        return stored

    def test_a_message(self) -> None:
        stored = self.send(
            Cc=[{"Email": "cc@y.example", "Name": "C, D"}],
            Bcc=["bcc@y.example"],
            ReplyTo=[{"Email": "re@x.example"}],
            Subject="Grüße",
            Text="hellö",
            HTML="<b>hellö</b>",
            Headers={"X-Mine": "1"},
            Tags=["a", "b,c"],
        )
        new = stored.message
        self.assertEqual(new.mail_from, "anne@x.example")
        recipients = [recipient.address for recipient in new.recipients]
        self.assertEqual(recipients, ["bart@y.example", "cc@y.example", "bcc@y.example"])
        self.assertEqual(stored.tags, {"a", "b c"})
        self.assertNotIn(b"bcc@", new.content)
        self.assertNotRegex(new.content, rb"[^\r]\n")
        self.assertTrue(new.content.isascii())
        read: Any = message_from_bytes(new.content, policy=default)
        self.assertEqual((read["Subject"], read["X-Mine"], read["From"]), ("Grüße", "1", "Anné <anne@x.example>"))
        self.assertEqual(read["Cc"].addresses[0].display_name, "C, D")
        self.assertEqual(read.get_body(("html",)).get_content().strip(), "<b>hellö</b>")
        self.assertTrue(read["Message-ID"].endswith("@x.example>"))
        self.assertEqual(new.session.peer, ("127.0.0.1", 4000))

    def test_it_is_found_and_listeners_hear_of_it(self) -> None:
        waiting = self.begin("/api/v1/wait?query=subject:ping")
        self.clock.advance(1)
        self.send(Subject="ping")
        self.clock.advance(1)
        self.assertEqual(self.answered(waiting, "/api/v1/wait").status, 200)

    def test_addresses_beyond_ascii(self) -> None:
        stored = self.send(From={"Email": "ännë@x.example"}, To=[{"Email": "bärt@ÿ.example"}])
        self.assertIn("ännë@x.example".encode(), stored.message.content)
        self.assertEqual(self.get("/api/v1/message/1")["From"]["Address"], "ännë@x.example")

    def test_a_quoted_local_part(self) -> None:
        stored = self.send(To=[{"Email": '"a b"@y.example', "Name": "A B"}])
        self.assertEqual(stored.message.recipients[0].address, '"a b"@y.example')
        self.assertIn(b'To: A B <"a b"@y.example>\r\n', stored.message.content)

    def test_the_mailbox_is_that_of_the_rules_or_of_the_token(self) -> None:
        from dataclasses import replace

        self.serve(sort=lambda new: replace(new, mailboxes=("by rule",)), tokens={"all": None, "ann": "ann"})
        for token, mailbox in (("all", "by rule"), ("ann", "ann")):
            self.browser.headers["Authorization"] = f"Bearer {token}"
            self.assertEqual(self.send().message.mailboxes, (mailbox,))

    def test_what_can_t_be_sent(self) -> None:
        for more in (
            *({"To": []}, {"From": {}}, {"From": {"Email": "x"}}, {"From": {"Email": ""}}, {"From": "a@b.example"}),
            *({"To": [{"Email": "a@b.example\r\nBcc: c@d"}]}, {"To": [{"Email": "a@b.example, c@d.example"}]}),
            *({"To": [{"Email": "a@b.example", "Name": "x\r\nX: y"}]}, {"Subject": "x\r\nBcc: y@z"}, {"Bcc": ["<>"]}),
            *(
                {"Headers": {"Bcc": "x"}},
                {"Headers": {"X\r\nY": "z"}},
                {"Headers": {"": "z"}},
                {"Headers": {"X:": "z"}},
            ),
            *({"Headers": {"X": "a\nb"}}, {"Headers": {"X-Y": "a\r\n\r\nb"}}, {"Headers": {"to": "a@b.example"}}),
            *({"Headers": {"X": 5}}, {"Subject": "\ud800"}, {"Text": 5}, {"HTML": []}, {"Tags": [""]}, {"X": 1}),
            {"To": [{"Email": f"{n}@b.example"} for n in range(1001)]},
        ):
            self.refused(400, "/api/v1/send", "POST", {**self.BODY, **more})
        self.assertEqual(self.get(M)["total"], 0)

    def test_it_is_bounded_by_the_settings(self) -> None:
        self.serve(max_upload=10_000)
        self.send(Text="x" * 9_000)
        self.assertIn("too large", self.refused(413, "/api/v1/send", "POST", b" " * 10_001))
        self.serve(max_upload=10_000, tokens={"t": None})
        self.assertIn("token", self.refused(401, "/api/v1/send", "POST", b" " * 1_001))
