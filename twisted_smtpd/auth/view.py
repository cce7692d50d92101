"""What authentication may ask of its connection, and a mechanism of its exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from twisted_smtpd.options.table import AuthCallbackType, AuthenticatorType
from twisted_smtpd.protocol.view import ClientView
from twisted_smtpd.runtime.awaiting import _Missing
from twisted_smtpd.wire.replies import Reply

__all__ = ["AuthClient", "Exchange", "Mechanism", "Response"]

#: What a client said, decoded; or ``MISSING`` when it gave up and has been told so.
Response = bytes | Literal[_Missing.MISSING]


@dataclass(eq=False, repr=False)
class Mechanism:
    """A mechanism and what carries it out.

    :ivar name: as clients know it.
    :ivar method: the name of the ``auth_*`` method.
    :ivar of_handler: whether it is the handler's, rather than the server's.
    :ivar builtin: whether it is this package's own.
    """

    name: str
    method: str
    of_handler: bool
    builtin: bool


class AuthClient(ClientView, Protocol):
    """A connection that may authenticate."""

    authenticator: AuthenticatorType | None
    auth_callback: AuthCallbackType | None
    auth_require_tls: bool
    max_auth_failures: int
    AuthLoginUsernameChallenge: str | bytes
    AuthLoginPasswordChallenge: str | bytes
    _address: str | None

    @property
    def mechanisms(self) -> Mapping[str, Mechanism]:
        """The mechanisms by name."""

    def forgive(self) -> None:
        """Earlier mistakes no longer count."""

    def refuse(self, reply: Reply) -> None:
        """Send a reply for the client's own mistake."""

    def send_challenge(self, challenge: bytes) -> None:
        """Send a 334 reply."""

    def _no_reply_yet(self) -> None:
        """Forget the code of the last reply."""

    async def read_line(self, limit: int) -> bytes:
        """The client's next line."""

    async def challenge_auth(
        self, challenge: str | bytes, encode_to_b64: bool = True, log_client_response: bool = False
    ) -> Response:
        """Ask the client something; a subclass may have its own."""

    def _log_failure(self, error: BaseException) -> None:
        """Log an error without anything that the client has said."""

    def _authenticate(self, mechanism: str, auth_data: Any) -> Any:
        """Ask the authenticator; a subclass may have its own."""


class Exchange(Protocol):
    """One exchange, as a mechanism sees it.

    :ivar server: the connection.
    """

    @property
    def server(self) -> AuthClient:
        """The connection."""

    def note_login(self, login: object) -> None:
        """Remember for the log which user the client says it is."""

    def count_failure(self, mechanism: str | None = None) -> None:
        """Count a wrong guess, for this connection and for its address, once in an exchange."""
