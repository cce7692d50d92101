"""aiosmtpd on asyncio's own event loop."""

from __future__ import annotations

import asyncio
import signal
import ssl
from typing import Any

import common
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Handler:
    """Counts the messages and answers at once."""

    messages = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.messages += 1
        return "250 OK"


class WaitingHandler(Handler):
    """Answers in a later turn of the event loop."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        loop.call_later(0, turn.set_result, None)
        await turn
        return await super().handle_DATA(server, session, envelope)


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    """Know the one user."""
    return AuthResult(success=data == LoginPassword(common.USER, common.PASSWORD))


async def main(options: common.Options) -> None:
    """Serve until SIGTERM."""
    if options.hook == "stream":
        common.unsupported("aiosmtpd gives a handler whole messages only")
    handler = {"plain": Handler, "wait": WaitingHandler}[options.hook]()
    context = None
    if options.tls != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
    settings: dict[str, Any] = {
        "data_size_limit": common.SIZE_LIMIT,
        "hostname": common.HOSTNAME,
        "enable_SMTPUTF8": True,
    }
    if options.tls == "starttls":
        settings["tls_context"] = context
    if options.auth:
        settings |= {"authenticator": authenticate, "auth_require_tls": False}
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await loop.create_server(
        lambda: SMTP(handler, loop=loop, **settings),
        common.HOST,
        options.port,
        backlog=common.BACKLOG,
        ssl=context if options.tls == "implicit" else None,
    )
    await stopped.wait()
    common.report(handler.messages)


asyncio.run(main(common.options()))
