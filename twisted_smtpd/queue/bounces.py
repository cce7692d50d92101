"""Notices to the sender: of failure, of delay, of success (RFC 3461, RFC 3464, RFC 6533)."""

from __future__ import annotations

import quopri
import re
import secrets
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import TypeVar

from twisted_smtpd.handlers.trace import split_header
from twisted_smtpd.queue.entries import Delivery, NewMessage
from twisted_smtpd.session import Recipient
from twisted_smtpd.wire.parameters import parse_envid, parse_notify, parse_orcpt, parse_ret
from twisted_smtpd.wire.replies import Reply, SMTPReplyError, fitting_enhanced

__all__ = ["DELAYED", "DELIVERED", "FAILED", "RELAYED", "Kind", "make_notice", "wants"]

T = TypeVar("T")

# Octets of a message that come back whole with a notice of failure, and of a header.
MAX_RETURNED = 50_000
_WIDTH = 76
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Kind:
    """One kind of notice.

    :ivar action: the value of ``Action`` (RFC 3464 section 2.3.3).
    :ivar asked_by: the keyword of NOTIFY that asks for it.
    :ivar default: whether a recipient without NOTIFY gets it.
    :ivar subject: the subject.
    :ivar text: what the sender reads, before the recipients.
    :ivar end: and behind them.
    """

    action: str
    asked_by: str
    default: bool
    subject: str
    text: str
    end: str


FAILED = Kind(
    "failed",
    "FAILURE",
    True,
    "Undelivered mail returned to sender",
    "Your message could not be delivered to these recipients:",
    "It will not be tried again.",
)
DELAYED = Kind(
    "delayed",
    "DELAY",
    True,
    "Delayed mail (still being retried)",
    "Your message has not been delivered yet to these recipients:",
    "It is tried again until {until}.  You need not send it again.",
)
DELIVERED = Kind(
    "delivered",
    "SUCCESS",
    False,
    "Successful mail delivery report",
    "Your message has been delivered to these recipients:",
    "",
)
RELAYED = Kind(
    "relayed",
    "SUCCESS",
    False,
    "Mail relayed",
    "Your message has been handed to a mail system that gives no notices of delivery, for these recipients:",
    "If it is not delivered there, you may still get a notice of failure.",
)


def wants(recipient: Recipient, kind: Kind) -> bool:
    """Whether the sender wants such a notice about a recipient."""
    asked = _read(parse_notify, recipient.parameters.get("NOTIFY"))
    return kind.default if asked is None else kind.asked_by in asked


def _read(parse: Callable[[str | None], T], value: str | None) -> T | None:
    """The value of a parameter that a hook may have changed; ``None`` without one."""
    try:
        return None if value is None else parse(value)
    except SMTPReplyError:
        return None


def make_notice(
    kind: Kind,
    delivery: Delivery,
    replies: Mapping[int, Reply],
    content: bytes,
    *,
    hostname: str,
    now: float,
    until: float,
    destination: str,
) -> NewMessage:
    """A notice to the sender of a message, who must not be the null one.

    :param kind: its kind.
    :param replies: what was answered about each recipient that it is about, by position.
    :param content: the message.
    :param hostname: our name.
    :param now: seconds since 1970.
    :param until: until when the message is tried.
    :param destination: where the notice goes.
    """
    utf8 = not delivery.sender.isascii()
    boundary = f"=_{secrets.token_hex(16)}"
    told = [(delivery.recipients[position], reply) for position, reply in sorted(replies.items())]
    parts = [
        _part("text/plain; charset=us-ascii", _explanation(kind, told, hostname, until)),
        _part("message/delivery-status", _status(kind, delivery, told, hostname, now, until)),
        _returned(kind, delivery, content, told),
    ]
    header = [
        f"Date: {_date(now)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{_plain(delivery.sender)}>",
        f"Subject: {kind.subject}",
        f"Message-ID: <{delivery.id}.{secrets.token_hex(6)}@{hostname}>",
        # RFC 3834 section 5.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
    ]
    lines = "\r\n".join(header).encode("utf-8", "replace")
    body = b"".join(b"\r\n--%b\r\n%b" % (boundary.encode(), part) for part in parts)
    notice = b"%b\r\n%b\r\n--%b--\r\n" % (lines, body, boundary.encode())
    parameters: dict[str, str | None] = {} if notice.isascii() else {"BODY": "8BITMIME"}
    if utf8:
        parameters["SMTPUTF8"] = None
    options = [name if value is None else f"{name}={value}" for name, value in parameters.items()]
    facts = {"options": options, "parameters": parameters, "utf8": utf8, "may_bounce": False, "host_name": hostname}
    return NewMessage("", [Recipient(delivery.sender)], notice, facts, [destination])


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, timezone.utc))


def _plain(text: str) -> str:
    return _UNSAFE.sub("?", text)


def _ascii(text: str) -> str:
    """A text in printable ASCII."""
    return _plain(text).encode("ascii", "backslashreplace").decode()


def _part(kind: str, text: str, encoding: str = "7bit") -> bytes:
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{text}".encode()


def _explanation(kind: Kind, told: Sequence[tuple[Recipient, Reply]], hostname: str, until: float) -> str:
    lines = [f"This is the mail system at {hostname}.", "", *textwrap.wrap(kind.text, _WIDTH), ""]
    for recipient, reply in told:
        text = f"<{_ascii(recipient.address)}>: {_ascii(' '.join(str(reply).split()))}"
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    end = kind.end.format(until=_date(until))
    if end:
        lines += ["", *textwrap.wrap(end, _WIDTH)]
    return "\r\n".join([*lines, ""])


def _status(
    kind: Kind, delivery: Delivery, told: Sequence[tuple[Recipient, Reply]], hostname: str, now: float, until: float
) -> str:
    """The fields of RFC 3464 section 2."""
    fields = [f"Reporting-MTA: dns; {hostname}", f"X-Queue-ID: {delivery.id}"]
    envid = _read(parse_envid, (delivery.facts.get("parameters") or {}).get("ENVID"))
    if envid is not None:
        fields.insert(0, f"Original-Envelope-Id: {_ascii(envid)}")
    fields.append(f"Arrival-Date: {_date(delivery.arrived)}")
    for recipient, reply in told:
        fields.append("")
        original = _read(parse_orcpt, recipient.parameters.get("ORCPT"))
        if original is not None:
            fields.append(f"Original-Recipient: {original.address_type}; {_address(original.address)}")
        kind_of_address = "rfc822" if recipient.address.isascii() else "utf-8"
        fields += [
            f"Final-Recipient: {kind_of_address}; {_address(recipient.address)}",
            f"Action: {kind.action}",
            f"Status: {reply.enhanced or fitting_enhanced(reply.code, 'DATA')}",
            _folded(f"Diagnostic-Code: smtp; {_ascii(' '.join(str(reply).split()))}"),
            f"Last-Attempt-Date: {_date(now)}",
        ]
        if kind is DELAYED:
            fields.append(f"Will-Retry-Until: {_date(until)}")
    return "\r\n".join([*fields, ""])


def _address(address: str) -> str:
    """An address in the form of RFC 6533 section 3 that needs no SMTPUTF8."""
    text = _plain(address)
    return "".join(one if one.isascii() else f"\\x{{{ord(one):X}}}" for one in text)


def _folded(field: str) -> str:
    # RFC 5322 section 2.1.1: a line has 998 characters at most.
    return "\r\n".join(textwrap.wrap(field, 500, subsequent_indent="\t"))


def _returned(kind: Kind, delivery: Delivery, content: bytes, told: Sequence[tuple[Recipient, Reply]]) -> bytes:
    """The part with the message, or with its header."""
    parameters = delivery.facts.get("parameters") or {}
    binary = (parameters.get("BODY") or "").upper() == "BINARYMIME"
    # What was refused for its form would be refused in the notice as well.
    refused_form = any((reply.enhanced or "").startswith("5.6.") for _, reply in told) and not content.isascii()
    whole = kind is FAILED and _read(parse_ret, parameters.get("RET")) != "HDRS"
    if whole and len(content) <= MAX_RETURNED and not binary and not refused_form:
        encoding = "7bit" if content.isascii() else "8bit"
        return _part("message/rfc822", "", encoding) + content
    header = split_header(content)[0]
    if len(header) > MAX_RETURNED:
        header = header[: header.rfind(b"\n", 0, MAX_RETURNED) + 1]
    if header.isascii():
        return _part("text/rfc822-headers", "") + header
    quoted = quopri.encodestring(header.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    return _part("text/rfc822-headers; charset=utf-8", "", "quoted-printable") + quoted
