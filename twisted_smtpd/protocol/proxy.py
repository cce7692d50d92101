"""The PROXY header at the start of a connection: for which client a load balancer connects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_smtpd.logs.events import PROXY_HEADER
from twisted_smtpd.runtime.awaiting import CANCELLED, MISSING
from twisted_smtpd.runtime.judging import permits
from twisted_smtpd.wire.content import ContentReader
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from twisted_smtpd.protocol.view import ClientView
    from twisted_smtpd.wire.proxy_protocol import ProxyData

__all__ = ["needs_proxy_header", "read_proxy_header"]


class _HeaderReader(ContentReader):
    """Reads the header the way a message is read.

    :ivar data: what the header says, once it is there.
    """

    __slots__ = ("_reader", "data")

    def __init__(self) -> None:
        super().__init__()
        self.data: ProxyData | None = None
        # Imported here: few servers are behind a proxy.
        from twisted_smtpd.wire.proxy_protocol import ProxyReader

        self._reader = ProxyReader()

    def feed(self, data: bytes) -> bytes | None:
        try:
            result = self._reader.feed(data)
        except ValueError as error:  # it raises ProxyError only
            self.error = str(error)
            return b""
        if result is None:
            return None
        self.data, rest = result
        return rest


def needs_proxy_header(client: ClientView) -> bool:
    """Whether the connection comes from a network from which a header is required; from others none is read."""
    proxies = client._settings.security.proxies
    if proxies is None:
        return False
    peer = client.session.peer
    return (peer[0] if peer else "") in proxies


async def read_proxy_header(client: ClientView) -> bool:
    """Read the header.

    :returns: whether the client is to be served.
    """
    return await ProxyHeader(client).read()


class ProxyHeader:
    """One header that is required.

    :param client: the connection.
    """

    __slots__ = ("_client", "_timeout")

    def __init__(self, client: ClientView) -> None:
        self._client = client
        self._timeout = client._settings.security.proxy_timeout

    async def read(self) -> bool:
        """Wait for it.

        :returns: whether the client is to be served.
        """
        client, reader = self._client, _HeaderReader()
        await client._wait(self._timeout, self._overdue, client._read_content(reader))
        if reader.data is None:
            self._refuse(reader.error or "")
            return False
        session = client.session
        session.proxy_data, session.proxy_peer, session.tls = reader.data, session.peer, reader.data.tls
        peer = reader.data.peer
        refusal = None if peer is None else client._stands_for(peer)
        if refusal is None:
            refusal = await self._ask_about(reader.data)
        if refusal is None:
            return True
        if refusal:
            client.turn_away(refusal)
        else:
            client.drop("handle_PROXY has refused it")
        return False

    async def _ask_about(self, data: ProxyData) -> str | None:
        """Have the handler judge.

        :returns: ``None`` if the client is welcome; else what to say, or ``""`` for nothing.
        """
        client = self._client
        try:
            answer: Any = await client._call_handler_hook("PROXY", data)
            if isinstance(answer, str):
                answer = Reply.parse(answer)
        except (Exception, *CANCELLED) as error:
            if client._gone:
                raise
            answer = Reply.parse(await client.status_for(error))
        if answer is MISSING:
            return "" if client._settings.security.unjudged_proxies else None
        if permits(answer):
            return None
        if not isinstance(answer, Reply):
            return ""
        # It may quote the header, and turn_away() would take braces for its format.
        return str(answer).replace("{", "{{").replace("}", "}}")

    def _overdue(self) -> None:
        self._refuse(f"not complete within {self._timeout:g} s")

    def _refuse(self, reason: str) -> None:
        # The specification says to drop a connection that lacks the header: it is not from a client.
        PROXY_HEADER.tell(self._client, reason=reason)
        self._client.drop("the server has dropped it")
