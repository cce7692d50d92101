"""The handler that posts messages to a web application."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.logger import Logger
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from twisted_smtpd.handlers.trace import with_header
from twisted_smtpd.handlers.web import Connections, checked_url, kind_of
from twisted_smtpd.interfaces import HookServer, IDATAHandler, IStoppable
from twisted_smtpd.runtime.computing import compute, is_large
from twisted_smtpd.session import NULL_SENDER, Envelope, Session
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from twisted.internet.interfaces import IConsumer

__all__ = ["Webhook"]

log = Logger()

# 408, 421, 425 and 429 mean "try again".  401, 404, 405 and 407 are about the webhook and not about the message: the
# operator will put it right.
_TRY_AGAIN = frozenset({401, 404, 405, 407, 408, 421, 425, 429})
# Octets that are made Base64 in one go; a multiple of 3, so that the pieces can be joined.
PIECE = 3 * 2**16


def status_of_response(code: int) -> Reply:
    """The reply to the client for an HTTP status code.

    :param code: the code.
    """
    if 200 <= code < 300:
        return Reply(250, "2.0.0", ("OK",))
    if 400 <= code < 500 and code not in _TRY_AGAIN:
        return Reply(554, "5.6.0", ("The message is not accepted",))
    return Reply(451, "4.3.0", ("The message can't be handed on, try again later",))


@implementer(IBodyProducer)
class _Body:
    """The body of a request."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is all written."""

    def resumeProducing(self) -> None:
        """It is all written."""

    def stopProducing(self) -> None:
        """It is all written."""


@implementer(IDATAHandler, IStoppable)
class Webhook:
    """Posts each message with its envelope to a URL, and answers what the HTTP status says.

    2xx is 250.  4xx is 554, except for 408, 421, 425 and 429, and for 401, 404, 405 and 407, which are not about the
    message.  These, everything else (redirects are not followed) and no response in time are 451.

    The body is a JSON object; the message is in it in Base64.  A large one is made ready in the reactor's thread pool.
    With a secret there are the headers ``webhook-id``,
    ``webhook-timestamp`` and ``webhook-signature`` of the Standard Webhooks specification: HMAC-SHA256 over id,
    timestamp and body.

    :param url: an ``http:`` or ``https:`` URL; with ``https:`` the certificate is verified.  Only its scheme and host
        are ever logged.
    :param secret: the key of the signature, as ``whsec_`` and Base64, or as bytes.
    :param headers: more headers for the request; they are not logged.
    :param timeout: seconds until there has to be a response; less than the server's ``hook_timeout``.
    :param max_connections: requests at the same time.
    :param agent: makes the requests; by default an :class:`twisted.web.client.Agent` that the handler makes.
    :param reactor: the reactor, if not the global one.
    :raises ValueError: if the URL or the secret is malformed, or a number is out of bounds.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
        max_connections: int = 10,
        agent: IAgent | None = None,
        reactor: Any = None,
    ) -> None:
        self._url, self._where = checked_url(url)
        self._secret = _key(secret)
        self._headers = dict(headers or {})
        if timeout <= 0 or max_connections <= 0:
            raise ValueError("timeout and max_connections must be above 0")
        self._timeout = timeout
        self._slots = DeferredSemaphore(max_connections)
        self._connections = Connections(max_connections, timeout, agent, reactor)

    def __repr__(self) -> str:
        return f"<Webhook {self._where}>"

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Webhook:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: the URL, then options.
        """
        parser.add_argument("url")
        parser.add_argument("--secret-file", help="a file with the key of the signature in its first line")
        options = parser.parse_args(list(args))
        secret = None
        if options.secret_file is not None:
            with open(options.secret_file, encoding="utf-8") as file:
                secret = file.readline().strip()
        return cls(options.url, secret=secret)

    async def handle_DATA(self, server: HookServer, session: Session, envelope: Envelope) -> Reply:
        """Post the message.

        :returns: what the response says.
        """
        if is_large(envelope.content):
            body, headers = await compute(self._prepared, session, envelope)
        else:
            body, headers = self._prepared(session, envelope)
        codes: list[int] = []
        posting: Deferred[None] = self._slots.run(lambda: Deferred.fromCoroutine(self._post(body, headers, codes)))
        try:
            await posting.addTimeout(self._timeout, self._connections.clock)
        except Exception as error:
            # Only the type, because the text may have the URL in it.
            log.warn("{session.id}: {hook}: {error}", session=session, hook=self, error=kind_of(error))
        # The status decides, also if the rest of the response does not arrive.
        code = codes[0] if codes else 0
        log.info("{session.id}: {hook} says {code}", session=session, hook=self, code=code)
        return status_of_response(code)

    async def stop(self) -> None:
        """Close the connections that are kept for the next message; those of an ``agent`` that was given stay."""
        await self._connections.close()

    def _prepared(self, session: Session, envelope: Envelope) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of the request."""
        body = request_body(session, envelope)
        headers = {"content-type": "application/json", "user-agent": "twisted-smtpd", **self._headers}
        if self._secret is not None:
            headers.update(_signature(self._secret, body))
        return body, headers

    async def _post(self, body: bytes, headers: Mapping[str, str], codes: list[int]) -> None:
        code, rest = await self._connections.request(b"POST", self._url, headers, _Body(body))
        codes.append(code)
        await rest


def _key(secret: str | bytes | None) -> bytes | None:
    if secret is None or isinstance(secret, bytes):
        key = secret
    elif secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError:
            raise ValueError("what follows whsec_ is not Base64") from None
    else:
        key = secret.encode()
    if key == b"":
        raise ValueError("the secret is empty")
    return key


def _signature(key: bytes, body: bytes) -> dict[str, str]:
    """The headers that prove the sender and the time."""
    name, moment = f"msg_{secrets.token_hex(12)}", str(int(time.time()))
    digest = hmac.digest(key, f"{name}.{moment}.".encode() + body, hashlib.sha256)
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": name, "webhook-timestamp": moment, "webhook-signature": signature}


def request_body(session: Session, envelope: Envelope) -> bytes:
    """The JSON object that is posted.

    :param session: the client's session.
    :param envelope: the message.
    """
    known = [recipient.address for recipient in envelope.recipients] == envelope.rcpt_tos
    described = {
        "session": session.id,
        "peer": session.peer[0] if isinstance(session.peer, tuple) and session.peer else None,
        "helo": session.host_name,
        "tls": bool(session.tls),
        "authenticated": bool(session.authenticated),
        "mail_from": envelope.mail_from or NULL_SENDER,
        "mail_options": envelope.mail_options,
        "recipients": [
            {"address": address, "options": envelope.recipients[number].options if known else []}
            for number, address in enumerate(envelope.rcpt_tos)
        ],
    }
    message = with_header(envelope.content_bytes)
    # Base64 needs no escaping, and it may be large: in pieces, so that a thread that does it gives way to the reactor.
    pieces = (base64.b64encode(message[start : start + PIECE]) for start in range(0, len(message), PIECE))
    return b"".join((json.dumps(described)[:-1].encode(), b', "message": "', *pieces, b'"}'))
