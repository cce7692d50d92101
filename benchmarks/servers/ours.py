"""twisted-smtpd, on Twisted's default reactor (epoll on Linux) unless told otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import common
from twisted.internet import asyncioreactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import globalLogBeginner

import twisted_smtpd.smtp
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.tls import CertificateFiles

OPTIONS = common.options()
if OPTIONS.reactor == "uvloop":
    import uvloop

    asyncioreactor.install(uvloop.new_event_loop())
elif OPTIONS.reactor == "asyncio":
    asyncioreactor.install()

from twisted.internet import reactor  # noqa: E402 - there may be one already


class Counter:
    """Knows how many messages arrived."""

    messages = 0


class Handler(Counter):
    """Answers at once."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages += 1
        return "250 OK"


class WaitingHandler(Handler):
    """Answers in a later turn of the reactor."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        await deferLater(reactor, 0)
        return await super().handle_DATA(server, session, envelope)


class StreamHandler(Counter):
    """Reads the content in chunks as it arrives."""

    async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: AsyncIterator[bytes]) -> str:
        async for _ in stream:
            pass
        self.messages += 1
        return "250 OK"


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
    """Know the one user."""
    known = (data.login, data.password) == (common.USER, common.PASSWORD)
    return twisted_smtpd.smtp.AuthResult(success=known)


def tls_context(options: common.Options) -> Any:
    """The certificate, in what decides on the library for TLS and on the layer around it."""
    if options.tls_layer == "twisted":
        from twisted.internet.ssl import PrivateCertificate

        with open(options.certificate) as file:
            return PrivateCertificate.loadPEM(file.read()).options()
    files = CertificateFiles(options.certificate)
    # As with a server that offers SCRAM with channel binding.
    files.choose_engine(exporter=options.tls_layer == "pyopenssl")
    return files


def main(options: common.Options) -> None:
    """Serve until SIGTERM."""
    handlers: dict[str, type[Counter]] = {"plain": Handler, "wait": WaitingHandler, "stream": StreamHandler}
    handler = handlers[options.hook]()
    settings: dict[str, Any] = {
        "data_size_limit": common.SIZE_LIMIT,
        "hostname": common.HOSTNAME,
        "max_connections": common.MAX_CONNECTIONS,
    }
    if options.tls != "none":
        name = "tls_context" if options.tls == "starttls" else "ssl_context"
        settings[name] = tls_context(options)
    if options.auth:
        settings |= {"authenticator": authenticate, "auth_require_tls": False}
    factory = SMTPFactory(handler, **settings)
    TCP4ServerEndpoint(reactor, options.port, common.BACKLOG, common.HOST).listen(factory)
    # Until logging begins, Twisted keeps all events in memory; nothing is to be logged here.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    reactor.run()
    common.report(handler.messages)


main(OPTIONS)
