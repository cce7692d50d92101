"""The handler of a server for tests: keeps the messages, and what goes wrong goes wrong here where hooks decide."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted_smtpd.auth.credentials import BearerToken, CramMD5Response
from twisted_smtpd.auth.results import AuthResult, Identity, LoginPassword
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.store.memory import MemoryStore
from twisted_smtpd.store.messages import NewMessage
from twisted_smtpd.testing.protocol import SMTPDouble
from twisted_smtpd.testing.transcript import Transcript

__all__ = ["DoubleHandler", "Users"]


class DoubleHandler:
    """Keeps what it is sent in a store.

    A test may set hooks on it while the server runs, for example with ``monkeypatch.setattr``.

    :param store: gets the messages.
    :param began: called with a session and its transcript when a client has connected.
    """

    def __init__(self, store: MemoryStore, began: Callable[[Session, Transcript], None]) -> None:
        self.store = store
        self._began = began

    async def handle_CONNECT(self, server: SMTPDouble, session: Session, envelope: Envelope) -> Any:
        self._began(session, server.transcript)
        peer = session.peer
        failure = server.failures.due("CONNECT", str(peer[0]) if peer else "", session, envelope)
        return "250 OK" if failure is None else await server.status_of(failure) or "250 OK"

    async def handle_EHLO(
        self, server: SMTPDouble, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return server.hide(responses)

    async def handle_DATA(self, server: SMTPDouble, session: Session, envelope: Envelope) -> Any:
        if server.replies_to_each_recipient:
            return await self._deliver(server, session, envelope)
        refusal = await server.decide("MESSAGE")
        self.store.add(NewMessage.of(session, envelope, refusal=refusal))
        if refusal is not None:
            return refusal
        return await server.decide("ANSWER") or "250 OK"

    async def _deliver(self, server: SMTPDouble, session: Session, envelope: Envelope) -> list[str]:
        """Decide for each recipient, as LMTP has it."""
        statuses: list[str | None] = []
        for recipient in envelope.recipients:
            failure = server.failures.due("MESSAGE", f"{envelope.mail_from} {recipient.address}", session, envelope)
            statuses.append(None if failure is None else await server.status_of(failure))
        whole = NewMessage.of(session, envelope)
        for refusal in dict.fromkeys(statuses):
            its = tuple(one for one, status in zip(envelope.recipients, statuses, strict=True) if status == refusal)
            self.store.add(replace(whole, recipients=its, refusal=refusal))
        answer = await server.decide("ANSWER") if None in statuses else None
        return [status or answer or "250 OK" for status in statuses]

    async def handle_DISCONNECT(
        self, server: SMTPDouble, session: Session, envelope: Envelope, reason: Exception
    ) -> None:
        self.store.keep_transcript(session.id, str(server.transcript))


class Users:
    """An authenticator for given users; or for any, with whatever password.

    :param users: user to password; ``None`` to take everyone.
    """

    mechanisms = ("PLAIN", "LOGIN", "XOAUTH2", "CRAM-MD5")

    def __init__(self, users: Mapping[str, str] | None) -> None:
        self._users = None if users is None else dict(users)

    async def __call__(
        self, server: SMTPDouble, session: Session, envelope: Envelope, mechanism: str, credentials: Any
    ) -> AuthResult:
        login = credentials.login.decode("utf-8", "replace")
        failure = server.failures.due("AUTH", login, session, envelope)
        if failure is not None and (status := await server.status_of(failure)) is not None:
            return AuthResult(success=False, handled=False, message=status)
        if self._users is None or self._knows(login, credentials):
            return AuthResult(success=True, auth_data=Identity(credentials.login))
        return AuthResult(success=False, handled=False)

    def _knows(self, login: str, credentials: Any) -> bool:
        assert self._users is not None
        password = self._users.get(login)
        if password is None:
            return False
        if isinstance(credentials, CramMD5Response):
            return credentials.check(password.encode())
        if isinstance(credentials, LoginPassword):
            return hmac.compare_digest(credentials.password, password.encode())
        return isinstance(credentials, BearerToken) and hmac.compare_digest(
            credentials.token.encode(), password.encode()
        )
