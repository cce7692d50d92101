"""Mail for the pages of the inbox, such as a developer's programs send it."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from struct import pack
from typing import Any

from twisted_smtpd.session import Recipient
from twisted_smtpd.store import MemoryStore, NewMessage, SessionFacts

__all__ = ["png", "sample_mail"]

DIALOG = """-- connected from 127.0.0.1
S: 220 inbox.example ESMTP
C: EHLO shop.example
S: 250-inbox.example Hello 127.0.0.1
S: 250-SIZE 33554432
S: 250-8BITMIME
S: 250-PIPELINING
S: 250 AUTH PLAIN LOGIN
C: AUTH PLAIN ***
S: 235 2.7.0 Authentication succeeded
C: MAIL FROM:<bounces@shop.example> SIZE=14210
S: 250 2.1.0 OK
C: RCPT TO:<maria@example.org>
S: 250 2.1.5 OK
C: DATA
S: 354 End data with <CR><LF>.<CR><LF>
C: (14,210 octets of message)
C: .
S: 250 2.0.0 OK
C: QUIT
S: 221 2.0.0 Bye"""

JONAS, AGNES = "Jonas Weber <jonas@example.org>", "Ágnes Szabó <agnes@example.org>"
BILLING, BUILD = "Billing <billing@example.com>", "Build <build@ci.example>"
SPAM = "spam@bulk.example"
PAID = "Thank you for your payment of € 19.\n"
FAILED = "3 of 1,204 tests failed:\n\n  test_a\n"

SHOP = """<!doctype html><html><head><style>
.button { background:#0f766e; color:#ffffff; padding:13px 26px; border-radius:8px; text-decoration:none }
td { color:#3c4f4c }
@media (max-width: 480px) { .wide { width:100% !important } }
</style></head>
<body style="margin:0;background:#eef2f1;font-family:system-ui,sans-serif">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0">
<tr><td align="center" style="padding:28px 12px">
<table role="presentation" class="wide" width="600" cellpadding="0" style="background:#fff;border-radius:14px">
<tr><td style="padding:28px 36px 8px"><img src="cid:logo" width="132" height="36" alt="Fern &amp; Field"></td></tr>
<tr><td style="padding:8px 36px"><h1 style="font-size:25px;margin:8px 0;color:#12312d">Your order is on its way</h1>
<p style="font-size:16px;line-height:1.6">Hello Maria, we packed order <b>#48213</b> this morning. It should be with
you on Thursday.</p></td></tr>
<tr><td style="padding:4px 36px 8px">
<table role="presentation" width="100%" style="border-top:1px solid #dfe7e5;font-size:15px">
<tr><td style="padding:12px 0">2 &times; Linen napkins, sage</td><td align="right">€ 38.00</td></tr>
<tr><td style="padding:0 0 12px">1 &times; Serving bowl, oak</td><td align="right">€ 54.00</td></tr>
<tr><td style="padding:12px 0;border-top:1px solid #dfe7e5"><b>Total</b></td>
<td align="right" style="border-top:1px solid #dfe7e5"><b>€ 92.00</b></td></tr></table></td></tr>
<tr><td style="padding:16px 36px 36px">
<a class="button" href="https://shop.example/orders/48213?track=1">Track your parcel</a></td></tr></table>
<img src="https://pixel.example/open.gif?id=48213" width="1" height="1" alt="">
</td></tr></table></body></html>"""


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * width) * height
    head = chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _message(sender: str, to: str, subject: str, text: str, html: str = "") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message["Message-ID"] = f"<{zlib.crc32(subject.encode())}@example.org>"
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    return message


def _order() -> EmailMessage:
    text = "Hello Maria,\n\nwe packed order #48213 this morning.\nTrack it: https://shop.example/orders/48213?track=1\n"
    sender, to = "Fern & Field <orders@shop.example>", "Maria Lund <maria@example.org>"
    message = _message(sender, to, "Your order #48213 is on its way", text, SHOP)
    html: Any = message.get_payload(1)
    html.add_related(png(132, 36, (15, 118, 110)), "image", "png", cid="<logo>")
    message.add_attachment(b"%PDF-1.4\n%" + b"x" * 9000, "application", "pdf", filename="Invoice 48213.pdf")
    message.add_attachment(png(300, 200, (196, 160, 110)), "image", "png", filename="bowl.png")
    return message


def _code(to: str) -> EmailMessage:
    link = "https://acme.example/verify?token=abc"
    text = f"Your code is 482 913.\n\nIt is valid for ten minutes. {link}\n"
    html = f"<p>Your code is <b style='font-size:24px'>482 913</b>.</p><p><a href='{link}'>Sign in</a></p>"
    return _message("Acme Accounts <no-reply@acme.example>", to, "Your sign-in code", text, html)


def sample_mail(store: MemoryStore, now: datetime | None = None) -> None:
    """Put some mail into a store, the newest last.

    :param now: when the newest came.
    """
    now = now or datetime.now(timezone.utc)
    team, maria, ci = "team@example.org", "maria@example.org", "ci@example.org"
    order, code = _order(), _code(maria)
    mail: list[tuple[int, str, EmailMessage, bool, tuple[str, ...], str | None]] = [
        (12960, "team", _message(JONAS, team, "Minutes of the meeting", "Hi all,\n\nattached.\n"), True, (), None),
        (1800, "", _message(BILLING, maria, "Receipt for November", PAID), True, ("billing",), None),
        (420, "ci", _message(BUILD, ci, "[main] build 2291 failed", FAILED), True, ("ci", "urgent"), None),
        (
            200,
            "team",
            _message(AGNES, team, "Re: Árvíztűrő tükörfúrógép", "Köszönöm! Looks good.\n"),
            False,
            (),
            None,
        ),
        (95, "", _message(SPAM, maria, "You have won", "Click here.\n"), False, (), "550 5.7.1 Not wanted here"),
        (
            41,
            "ci",
            _message(BUILD, ci, "[main] build 2292 passed", "1,204 tests passed in 212 s.\n"),
            False,
            ("ci",),
            None,
        ),
        (12, "", code, False, (), None),
        (2, "shop", order, False, ("order",), None),
    ]
    for number, (minutes, mailbox, message, seen, tags, refusal) in enumerate(mail):
        session = SessionFacts(f"s{number:06}", ("127.0.0.1", 40312), "shop.example", True, "TLSv1.3", "shop")
        recipients = (Recipient(str(message["To"].addresses[0].addr_spec)),)
        new = NewMessage(
            message.as_bytes().replace(b"\n", b"\r\n"),
            "bounces@shop.example",
            ("SIZE=14210",),
            recipients,
            session,
            mailbox,
            refusal,
            now - timedelta(minutes=minutes),
        )
        stored = store.add(new)
        store.keep_transcript(session.id, DIALOG)
        store.mark([stored.id], seen)
        store.tag([stored.id], tags)
