"""Sends stored messages on to a real server."""

from __future__ import annotations

import re
from collections.abc import Sequence

from twisted_smtpd.handlers.proxy import Proxy
from twisted_smtpd.runtime.computing import compute, is_large
from twisted_smtpd.session import NULL_SENDER, Envelope, Recipient, Session
from twisted_smtpd.store.messages import StoredMessage
from twisted_smtpd.wire.addresses import needs_smtputf8, parse_mailbox
from twisted_smtpd.wire.commands import parse_parameters
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["HostReleaser"]

# Bcc names those who are not to be known to the others.
_BCC = re.compile(rb"(?:(?<=\n)|\A)bcc[ \t]*:[^\n]*(?:\n|\Z)(?:[ \t][^\n]*(?:\n|\Z))*", re.IGNORECASE)
_HEADER_END = re.compile(rb"\n\r?\n")
# What MAIL said about the message itself is still true.
_ABOUT_THE_MESSAGE = ("BODY", "SMTPUTF8")


class _Server:
    """What the proxy asks of the server through which a message came."""

    ident = ""
    # Either all recipients get it or none: a person who has read "refused" would send it again.
    replies_to_each_recipient = False

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname

    async def push(self, status: str | Reply) -> None:
        """The client of the page hears the last reply only."""


class HostReleaser:
    """Sends stored messages to one host, as the handler ``proxy`` does.

    :param proxy: forwards to the host; it is for this alone.
    :param hostname: our name, for EHLO and the ``Received`` header.
    :ivar name: the host, as the page shows it.
    """

    def __init__(self, proxy: Proxy, hostname: str) -> None:
        self._proxy = proxy
        self._server = _Server(hostname)
        port = "" if proxy.remote_port is None else f":{proxy.remote_port}"
        self.name = f"{proxy.remote_hostname}{port}"

    async def release(self, stored: StoredMessage, recipients: Sequence[str]) -> str:
        """Send a message on, as it came but without ``Bcc``.

        :param stored: the message.
        :param recipients: the addresses that get it; those of its envelope don't count.
        :returns: the host's reply.
        :raises ValueError: if one is no address.
        :raises SMTPReplyError: if the host refuses it, or can't be asked.
        """
        addresses = [_address(text) for text in recipients]
        content = stored.message.content
        content = await compute(without_bcc, content) if is_large(content) else without_bcc(content)
        envelope = _envelope(stored, addresses, content)
        session = Session()
        session.host_name, session.extended_smtp = "inbox", True
        answer = await self._proxy.handle_DATA(self._server, session, envelope)
        for reply in answer if isinstance(answer, list) else [answer]:
            if isinstance(reply, Reply) and reply.code >= 300:
                raise SMTPReplyError(reply.code, reply.enhanced, "\n".join(reply.lines))
        return str(answer[0] if isinstance(answer, list) else answer)

    async def stop(self) -> None:
        """Close the connections to the host."""
        await self._proxy.stop()


def _address(text: str) -> str:
    try:
        return parse_mailbox(f"<{text.strip()}>")
    except SMTPReplyError:
        raise ValueError(f"{text[:100]!r} is no address") from None


def without_bcc(content: bytes) -> bytes:
    """A message without its ``Bcc`` headers."""
    if content.startswith((b"\r\n", b"\n")):
        return content
    end = _HEADER_END.search(content)
    # The last header's line end belongs to what is looked at.
    place = len(content) if end is None else end.start() + 1
    return _BCC.sub(b"", content[:place]) + content[place:]


def _envelope(stored: StoredMessage, addresses: Sequence[str], content: bytes) -> Envelope:
    new = stored.message
    envelope = Envelope()
    envelope.mail_from = new.mail_from or NULL_SENDER
    _, parameters = parse_parameters(" ".join(new.mail_options))
    envelope.mail_parameters = {name: parameters[name] for name in _ABOUT_THE_MESSAGE if name in parameters}
    if any(map(needs_smtputf8, (new.mail_from, *addresses))):
        envelope.mail_parameters["SMTPUTF8"] = None
    envelope.smtp_utf8 = "SMTPUTF8" in envelope.mail_parameters
    envelope.rcpt_tos = list(addresses)
    envelope.recipients = list(map(Recipient, addresses))
    envelope.content = envelope.original_content = content
    return envelope
