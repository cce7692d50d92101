"""Notices, read with the email package."""

from __future__ import annotations

from collections.abc import Mapping
from email import message_from_bytes, policy
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.queue.bounces import DELAYED, DELIVERED, FAILED, MAX_RETURNED, RELAYED, Kind, make_notice, wants
from twisted_smtpd.queue.entries import Delivery
from twisted_smtpd.session import Recipient
from twisted_smtpd.wire.replies import Reply

CONTENT = b"From: Anne <anne@a.example>\r\nSubject: hi\r\n\r\nhello\r\n"
NO = Reply(550, "5.1.1", ("no such user",))


def notice(
    kind: Kind = FAILED,
    content: bytes = CONTENT,
    replies: Mapping[int, Reply] | None = None,
    recipients: Mapping[int, Recipient] | None = None,
    sender: str = "anne@a.example",
    **parameters: str,
) -> Any:
    delivery = Delivery(
        *(1, 1, "ID", 1_700_000_000.0, sender, len(content), 0, {"parameters": parameters}, "", 1, False),
        recipients or {0: Recipient("bart@b.example")},
    )
    return make_notice(
        kind,
        delivery,
        replies or {0: NO},
        content,
        hostname="mx.example",
        now=1_700_000_100.0,
        until=1_700_432_000.0,
        destination="a.example",
    )


def read(made: Any) -> Any:
    """The notice as the email package reads it: without defects, in its three parts."""
    message = message_from_bytes(made.content, policy=policy.default)
    assert not message.defects and not any(part.defects for part in message.walk()), made.content
    return message, [*message.iter_parts()]


def fields(part: Any) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The fields of a message/delivery-status: of the message, and of each recipient."""
    whole, *each = [dict(block.items()) for block in part.get_payload()]
    return whole, [one for one in each if one]


class NoticeTests(SynchronousTestCase):
    def test_a_bounce(self) -> None:
        made = notice(ENVID="QQ+2B314", RET="FULL")
        message, (text, status, returned) = read(made)
        self.assertEqual((made.sender, [one.address for one in made.recipients]), ("", ["anne@a.example"]))
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message.get_param("report-type"), "delivery-status")
        self.assertEqual(message["auto-submitted"], "auto-replied")
        self.assertEqual(
            (message["to"], message["from"].addresses[0].addr_spec), ("anne@a.example", "MAILER-DAEMON@mx.example")
        )
        self.assertIn("<bart@b.example>: 550 5.1.1 no such user", text.get_content())
        whole, (one,) = fields(status)
        self.assertEqual((whole["Original-Envelope-Id"], whole["Reporting-MTA"]), ("QQ+314", "dns; mx.example"))
        self.assertEqual(whole["Arrival-Date"], "Tue, 14 Nov 2023 22:13:20 +0000")
        self.assertEqual(
            (one["Final-Recipient"], one["Action"], one["Status"]), ("rfc822; bart@b.example", "failed", "5.1.1")
        )
        self.assertEqual(one["Diagnostic-Code"], "smtp; 550 5.1.1 no such user")
        self.assertEqual(returned.get_content()["subject"], "hi")

    def test_the_original_recipient_and_each_of_several(self) -> None:
        recipients = {
            2: Recipient("bart@b.example", [], {"ORCPT": "rfc822;Bart+2BSimpson@old.example"}),
            5: Recipient("lisa@b.example", [], {"ORCPT": "broken"}),
        }
        _, parts = read(notice(recipients=recipients, replies={5: Reply(552, None, ("full",)), 2: NO}))
        _, (bart, lisa) = fields(parts[1])
        self.assertEqual(bart["Original-Recipient"], "rfc822; Bart+Simpson@old.example")
        self.assertEqual((lisa["Status"], "Original-Recipient" in lisa), ("5.3.4", False))

    def test_kinds(self) -> None:
        for kind, action in ((DELAYED, "delayed"), (DELIVERED, "delivered"), (RELAYED, "relayed")):
            _, (_, status, returned) = read(notice(kind, RET="FULL"))
            _, (one,) = fields(status)
            self.assertEqual((one["Action"], returned.get_content_type()), (action, "text/rfc822-headers"))
            self.assertEqual(
                one.get("Will-Retry-Until"), "Sun, 19 Nov 2023 22:13:20 +0000" if kind is DELAYED else None
            )

    def test_the_header_only_where_it_is_asked_for_or_the_message_is_large_or_binary(self) -> None:
        for made in (
            notice(RET="HDRS"),
            notice(content=CONTENT + b"x" * MAX_RETURNED),
            notice(BODY="BINARYMIME"),
        ):
            _, parts = read(made)
            self.assertEqual(parts[2].get_content_type(), "text/rfc822-headers")
            self.assertIn("Subject: hi", parts[2].get_content())
            self.assertNotIn("hello", parts[2].get_content())
            self.assertLess(len(made.content), MAX_RETURNED)

    def test_a_header_without_end_is_cut_off(self) -> None:
        made = notice(content=b"X-Long: x\r\n" * 99999)
        self.assertLess(len(made.content), MAX_RETURNED + 5000)
        self.assertTrue(read(made)[1][2].get_content().rstrip().endswith("\nX-Long: x"))

    def test_eight_bit_content_comes_back_as_it_was(self) -> None:
        made = notice(content="Subject: hi\r\n\r\nGrüße\r\n".encode())
        _, parts = read(made)
        self.assertIn("Grüße".encode(), made.content)
        self.assertEqual((made.facts["parameters"], made.facts["utf8"]), ({"BODY": "8BITMIME"}, False))
        self.assertEqual(parts[2]["content-transfer-encoding"], "8bit")

    def test_what_was_refused_for_its_eight_bits_is_not_sent_back(self) -> None:
        made = notice(content="Subject: Grüße\r\n\r\nGrüße\r\n".encode(), replies={0: Reply(554, "5.6.3", ("8bit",))})
        self.assertTrue(made.content.isascii())
        self.assertIn("Grüße", read(made)[1][2].get_content())

    def test_addresses_beyond_ascii(self) -> None:
        made = notice(recipients={0: Recipient("bärt@b.example")})
        self.assertTrue(made.content.isascii())
        self.assertEqual(fields(read(made)[1][1])[1][0]["Final-Recipient"], "utf-8; b\\x{E4}rt@b.example")
        made = notice(sender="änne@a.example")
        self.assertEqual((made.facts["utf8"], made.facts["parameters"]["SMTPUTF8"]), (True, None))
        self.assertIn("To: <änne@a.example>\r\n".encode(), made.content)

    def test_nothing_in_it_can_end_a_line(self) -> None:
        evil = "x\r\nBcc: all@example.com\r\n\r\nhello\u2028\x00"
        made = notice(
            sender=evil,
            recipients={0: Recipient(evil, [], {"ORCPT": evil})},
            replies={0: Reply(550, None, (evil * 99,))},
        )
        message, parts = read(made)
        self.assertNotIn("bcc", message)
        self.assertNotIn(b"\nBcc", made.content)
        self.assertEqual(len(parts), 3)
        self.assertLess(max(map(len, made.content.split(b"\r\n"))), 999)

    def test_lines_of_a_message_can_not_end_a_part(self) -> None:
        _, parts = read(notice(content=CONTENT + b"--=_0\r\n--=_0--\r\n"))
        self.assertEqual(len(parts), 3)


class WantsTests(SynchronousTestCase):
    def test_notify(self) -> None:
        for value, wanted in (
            (None, {FAILED, DELAYED}),
            ("NEVER", set()),
            ("success", {DELIVERED, RELAYED}),
            ("FAILURE,DELAY", {FAILED, DELAYED}),
            ("FAILURE", {FAILED}),
            ("nonsense", {FAILED, DELAYED}),
        ):
            recipient = Recipient("b@b.example", [], {} if value is None else {"NOTIFY": value})
            self.assertEqual({one for one in (FAILED, DELAYED, DELIVERED, RELAYED) if wants(recipient, one)}, wanted)
