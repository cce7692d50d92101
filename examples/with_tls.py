"""One server with STARTTLS on one port and TLS from the start on another, in a Twisted program.

Run it with ``python with_tls.py fullchain.pem privkey.pem``, then for instance
``swaks --tls --server localhost:8587 --to you@example.com``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react

from twisted_smtpd import SMTP, Envelope, Session, SMTPFactory
from twisted_smtpd.factory import ImplicitTLS
from twisted_smtpd.tls import CertificateFiles

PLACES = ("tcp:8587:interface=127.0.0.1", "tcp:8465:interface=127.0.0.1")


class Handler:
    async def handle_STARTTLS(self, server: SMTP, session: Session, envelope: Envelope) -> bool:
        # Asked after the handshake of STARTTLS; after a no, every command but QUIT is refused.
        return bool(session.ssl.version == "TLSv1.3")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        print(session.peer[0], session.ssl, "wrote", len(envelope.content or b""), "octets", flush=True)
        return "250 Message taken"


async def serve(reactor: Any, cert: str, key: str, places: Sequence[str] = PLACES) -> list[IListeningPort]:
    certificates = CertificateFiles(cert, key)
    factory = SMTPFactory(Handler(), tls_context=certificates, require_starttls=True)
    clear = await serverFromString(reactor, places[0]).listen(factory)
    secure = await serverFromString(reactor, places[1]).listen(ImplicitTLS(factory, certificates))
    # Changed files are found by themselves within 10 seconds; this is for those who can't wait.
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(certificates.reload))
    return [clear, secure]


async def main(reactor: Any, cert: str, key: str) -> None:
    for port in await serve(reactor, cert, key):
        print("Listening on", port.getHost(), flush=True)
    await Deferred()  # until Ctrl-C


if __name__ == "__main__":
    react(main, sys.argv[1:])
