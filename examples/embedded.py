"""An SMTP server inside a Twisted program: each message opens a ticket.

Run it with ``python embedded.py``, or with another place to listen: ``python embedded.py tcp:2525``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react

from twisted_smtpd import SMTP, Envelope, Session, SMTPFactory


@dataclass
class Ticket:
    sender: str
    subject: str


class Desk:
    """The handler.  Any object will do; it has a method for each step it wants a say in."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        if not address.startswith("support@"):
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        message = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        self.tickets.append(Ticket(envelope.mail_from or "", message.get("Subject", "(no subject)")))
        # The sender forgets the message once it has the 250, so what must not be lost is stored before.
        return f"250 This is ticket {len(self.tickets)}"


async def serve(reactor: Any, where: str, desk: Desk) -> IListeningPort:
    """Listen, and see to an orderly end when the reactor stops."""
    factory = SMTPFactory(desk, data_size_limit=10 * 2**20)
    port: IListeningPort = await serverFromString(reactor, where).listen(factory)

    async def stop() -> None:
        await maybeDeferred(port.stopListening)
        await factory.drain(10.0)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    return port


async def main(reactor: Any, where: str = "tcp:8025:interface=127.0.0.1") -> None:
    port = await serve(reactor, where, Desk())
    print("Send mail for support@ to", port.getHost(), flush=True)
    await Deferred()  # until Ctrl-C


if __name__ == "__main__":
    react(main, sys.argv[1:])
