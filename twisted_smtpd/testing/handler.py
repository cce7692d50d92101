"""The handler of a server for tests: keeps the messages, and what goes wrong goes wrong here where hooks decide."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted_smtpd.auth.results import AuthResult, Identity, LoginPassword
from twisted_smtpd.session import Envelope, Recipient, Session
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

    async def handle_CONNECT(self, server: SMTPDouble, session: Session, envelope: Envelope) -> str:
        self._began(session, server.transcript)
        return "250 OK"

    async def handle_DATA(self, server: SMTPDouble, session: Session, envelope: Envelope) -> str:
        self.store.add(NewMessage.of(session, envelope))
        return "250 OK"

    def message_refused(
        self,
        server: SMTPDouble,
        session: Session,
        envelope: Envelope,
        recipients: tuple[Recipient, ...],
        refusal: str,
    ) -> None:
        """Keep a message that a failure has refused.

        :param recipients: those for whom it is refused.
        :param refusal: the reply.
        """
        self.store.add(replace(NewMessage.of(session, envelope, refusal=refusal), recipients=recipients))

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
        if self._users is None or self._knows(login, credentials):
            return AuthResult(success=True, auth_data=Identity(credentials.login))
        return AuthResult(success=False, handled=False)

    def _knows(self, login: str, credentials: Any) -> bool:
        assert self._users is not None
        password = self._users.get(login)
        if password is None:
            return False
        # Imported here: most servers for tests take any password.
        from twisted_smtpd.auth.credentials import BearerToken, CramMD5Response

        if isinstance(credentials, CramMD5Response):
            return credentials.check(password.encode())
        if isinstance(credentials, LoginPassword):
            return hmac.compare_digest(credentials.password, password.encode())
        return isinstance(credentials, BearerToken) and hmac.compare_digest(
            credentials.token.encode(), password.encode()
        )
