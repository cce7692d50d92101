"""The PROXY header at the start of a connection, before anything else: whom a load balancer connects."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from twisted_smtpd.protocol.dialog import CANCELLED
from twisted_smtpd.protocol.prelude import Prelude, permits
from twisted_smtpd.runtime.awaiting import MISSING
from twisted_smtpd.wire.content import ContentReader
from twisted_smtpd.wire.proxy_protocol import ProxyData, ProxyError, ProxyReader
from twisted_smtpd.wire.replies import Reply

__all__ = ["ProxyHeader"]

log = Logger()


class _HeaderReader(ContentReader):
    """Reads the header the way the dialog has content read.

    :ivar data: what the header says, once it is there.
    """

    __slots__ = ("_reader", "data")

    def __init__(self) -> None:
        super().__init__()
        self.data: ProxyData | None = None
        self._reader = ProxyReader()

    def feed(self, data: bytes) -> bytes | None:
        try:
            result = self._reader.feed(data)
        except ProxyError as error:
            self.error = str(error)
            return b""
        if result is None:
            return None
        self.data, rest = result
        return rest


class ProxyHeader(Prelude):
    """Reads the header, from those it is required from and from nobody else."""

    async def before_greeting(self) -> bool:
        proxies = self._settings.security.proxies
        peer = self.session.peer
        if proxies is not None and (peer[0] if peer else "") in proxies and not await self._read_header():
            return False
        return await super().before_greeting()

    async def _read_header(self) -> bool:
        """Wait for the header.

        :returns: whether the client is to be served.
        """
        session, reader = self.session, _HeaderReader()
        self.wait_at_most(self._settings.security.proxy_timeout, self._header_overdue)
        await self.read_content(reader)
        self.no_longer_waiting()
        if reader.data is None:
            self._refuse_header(reader.error or "")
            return False
        session.proxy_data, session.proxy_peer, session.tls = reader.data, session.peer, reader.data.tls
        peer = reader.data.peer
        refusal = None if peer is None else self.stands_for(peer)
        if refusal is None:
            refusal = await self._ask_about(reader.data)
        if refusal is None:
            return True
        if refusal:
            self.turn_away(refusal)
        else:
            self.drop()
        return False

    async def _ask_about(self, data: ProxyData) -> str | None:
        """Have the handler judge.

        :returns: ``None`` if the client is welcome; else what to say, or ``""`` for nothing.
        """
        try:
            answer: Any = await self._call_handler_hook("PROXY", data)
            if isinstance(answer, str):
                answer = Reply.parse(answer)
        except (Exception, *CANCELLED) as error:
            if self._gone:
                raise
            answer = Reply.parse(await self.status_for(error))
        if answer is MISSING or permits(answer):
            return None
        if not isinstance(answer, Reply):
            return ""
        # It may quote what the header said; braces are the format's.
        return str(answer).replace("{", "{{").replace("}", "}}")

    def _header_overdue(self) -> None:
        self._refuse_header(f"not complete within {self._settings.security.proxy_timeout:g} s")

    def _refuse_header(self, reason: str) -> None:
        # The specification has a connection without the header it should have dropped: whoever it is, it is no client.
        log.warn(
            "{session} {peer}: PROXY header: {reason}", session=self.session.id, peer=self.session.peer, reason=reason
        )
        self.drop()
