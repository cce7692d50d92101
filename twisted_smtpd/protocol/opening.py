"""What comes before SMTP, in the order on which safety depends.

1. The PROXY header, from the networks it is required from.  It says who the client is, so it has to come before
   anything that depends on the client; it is in clear, so it has to come before TLS.
2. TLS, where it comes first (port 465), or is there already.
3. Whether the client may use XCLIENT.  It is asked of the client that the PROXY header names.
4. The greeting.

For a connection that does not get to the greeting, neither ``handle_CONNECT`` nor ``handle_DISCONNECT`` is called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from twisted_smtpd.protocol.greeting import greet
from twisted_smtpd.protocol.proxy import needs_proxy_header, read_proxy_header
from twisted_smtpd.protocol.tls import TLSClient, begins_with_tls, start_implicit_tls
from twisted_smtpd.protocol.xclient import VouchingClient, trust_xclient, trusts_clients

__all__ = ["STEPS", "OpeningClient", "open_connection"]


class OpeningClient(TLSClient, VouchingClient, Protocol):
    """A connection as its first steps see it."""

    def _begin_session(self) -> None:
        """Make the session of a new connection."""


Condition = Callable[[OpeningClient], bool]
Step = Callable[[OpeningClient], Awaitable[bool]]

#: Whether a step is needed, and the step; it returns whether the client is still to be served.
STEPS: tuple[tuple[Condition, Step], ...] = (
    (needs_proxy_header, read_proxy_header),
    (begins_with_tls, start_implicit_tls),
    (trusts_clients, trust_xclient),
)


def open_connection(client: OpeningClient) -> Awaitable[None]:
    """Take the steps before SMTP one after the other, then greet the client.

    :returns: what is left to be awaited, as with a command.
    """
    client._begin_session()
    for is_needed, _ in STEPS:
        if is_needed(client):
            return _take_steps(client)
    return greet(client)


async def _take_steps(client: OpeningClient) -> None:
    for is_needed, take in STEPS:
        if is_needed(client) and not await take(client):
            return
    await greet(client)
