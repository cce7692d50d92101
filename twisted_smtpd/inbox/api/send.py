"""Takes a message over HTTP, as if it had come by SMTP."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from email.errors import HeaderParseError, MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import Any

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, as_json
from twisted_smtpd.inbox.api.tags import proper_tag
from twisted_smtpd.runtime.computing import LARGE, compute
from twisted_smtpd.session import Recipient, Session
from twisted_smtpd.store.messages import NewMessage, SessionFacts
from twisted_smtpd.wire.addresses import needs_smtputf8, parse_mailbox
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["build", "send_message"]

#: Headers that have fields of their own.
_OWN = frozenset(
    (
        *("to", "from", "cc", "bcc", "reply-to", "date", "subject"),
        *("content-type", "mime-version", "content-transfer-encoding", "content-disposition"),
    )
)
# All octets are ASCII, but for addresses that are not.
_PLAIN = SMTP.clone(cte_type="7bit")


class BadMessage(ValueError):
    """No message can be made of what was given; the text says why in one line."""


def _address(given: Mapping[str, str], field: str) -> Address:
    email, name = given["Email"], given.get("Name", "")
    try:
        # Without brackets, quoted local parts with blanks would not be read.
        mailbox = parse_mailbox(f"<{_one_line(field, email).strip()}>")
        local, _, domain = mailbox.rpartition("@")
        if local.startswith('"'):
            return Address(_one_line(field, name), addr_spec=mailbox)
        return Address(_one_line(field, name), local, domain)
    except (SMTPReplyError, ValueError, HeaderParseError, MessageError, IndexError):
        raise BadMessage(f"{field}: {email[:100]!r} is no address") from None


def _addresses(given: Mapping[str, Any], field: str) -> list[Address]:
    return [_address(one if isinstance(one, dict) else {"Email": one}, field) for one in given.get(field, ())]


def build(given: Mapping[str, Any]) -> tuple[bytes, str, list[str]]:
    """Make a message.

    :param given: the body of the request, checked.
    :returns: the message, its sender and its recipients.
    :raises BadMessage: if an address, a header or an attachment is none.
    """
    fields = {name: _addresses(given, name) for name in ("To", "Cc", "Bcc", "ReplyTo")}
    sender = _address(given["From"], "From")
    recipients = list(dict.fromkeys(one.addr_spec for name in ("To", "Cc", "Bcc") for one in fields[name]))
    message = EmailMessage(policy=_PLAIN)
    message["From"] = sender
    for name, header in (("To", "To"), ("Cc", "Cc"), ("ReplyTo", "Reply-To")):
        if fields[name]:
            message[header] = fields[name]
    message["Subject"] = _one_line("Subject", given.get("Subject", ""))
    message["Date"] = format_datetime(datetime.now(timezone.utc))
    for name, value in given.get("Headers", {}).items():
        _add_header(message, name, value)
    if "Message-ID" not in message:
        message["Message-ID"] = make_msgid(domain=sender.domain if sender.domain.isascii() else "localhost")
    message.set_content(given.get("Text", ""))
    _add_html(message, given)
    addresses = (sender.addr_spec, *recipients)
    utf8 = any(map(needs_smtputf8, addresses))
    return message.as_bytes(policy=_PLAIN.clone(utf8=utf8)), sender.addr_spec, recipients


def _one_line(name: str, value: str) -> str:
    if any((ord(c) < 32 and c != "\t") or ord(c) in (127, 0x85, 0x2028, 0x2029) for c in value):
        raise BadMessage(f"{name}: a line end or a control character")
    return value


def _add_header(message: EmailMessage, name: str, value: str) -> None:
    if not name or not all(33 <= ord(c) <= 126 and c != ":" for c in name) or len(name) > 100:
        raise BadMessage(f"Headers: {name[:100]!r} is no name of a header")
    if name.lower() in _OWN:
        raise BadMessage(f"Headers: cannot overwrite header: {name!r}")
    try:
        message[name] = _one_line(f"Headers: {name}", value)
    except (ValueError, MessageError, IndexError) as error:
        raise BadMessage(f"Headers: {name}: {str(error)[:100]}") from None


def _add_html(message: EmailMessage, given: Mapping[str, Any]) -> None:
    """Add the HTML and the attachments; those with a Content-ID belong to the HTML."""
    html = message
    if given.get("HTML"):
        message.add_alternative(given["HTML"], subtype="html")
        html = message.get_payload()[1]  # type: ignore[index,assignment]
    for one in given.get("Attachments", ()):
        octets = _decoded(one)
        main, _, sub = _media_type(one).partition("/")
        name = _one_line("Attachments: Filename", one["Filename"])
        content_id = _one_line("Attachments: ContentID", one.get("ContentID", "")).strip("<>")
        if content_id:
            html.add_related(
                octets, main, sub, cid=f"<{content_id}>", disposition="inline", filename=name or content_id
            )
        else:
            message.add_attachment(octets, main, sub, filename=name)


def _decoded(one: Mapping[str, str]) -> bytes:
    # What a browser's readAsDataURL gives begins with "data:image/png;base64,".
    try:
        return base64.b64decode("".join(one["Content"].rpartition(",")[2].split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadMessage(f"Attachments: {one['Filename'][:100]!r} is no Base64") from None


def _media_type(one: Mapping[str, str]) -> str:
    given = one.get("ContentType") or mimetypes.guess_type(one["Filename"])[0] or "application/octet-stream"
    main, slash, sub = given.partition(";")[0].strip().lower().partition("/")
    token = "!#$&^_.+-"
    if not (slash and main and sub) or not all(c.isascii() and (c.isalnum() or c in token) for c in main + sub):
        raise BadMessage(f"Attachments: {given[:100]!r} is no media type")
    # The email package makes containers and messages in another way.
    return "application/octet-stream" if main in ("multipart", "message") else f"{main}/{sub}"


def _tags(given: Sequence[str]) -> list[str]:
    return [tag for tag in map(proper_tag, given) if tag]


async def send_message(call: Call) -> Answer:
    """Take a message."""
    try:
        if call.body.get("Attachments") or len(call.body.get("Text", "")) + len(call.body.get("HTML", "")) > LARGE:
            content, sender, recipients = await compute(build, call.body)
        else:
            content, sender, recipients = build(call.body)
    except BadMessage as error:
        raise APIError(400, str(error)) from None
    if not recipients:
        raise APIError(400, "the message has no recipients: To, Cc or Bcc is wanted")
    session = Session()
    facts = SessionFacts(session.id, call.peer, "http", False, None, call.access.user)
    new = NewMessage(content, sender, (), tuple(map(Recipient, recipients)), facts)
    stored = await call.context.take(new, call.access.mailbox)
    tags = _tags(call.body.get("Tags", ()))
    if tags:
        await call.ask("tag", [stored.id], tags)
    return as_json({"ID": str(stored.id)})
