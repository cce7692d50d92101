"""The LMTP server protocol (RFC 2033)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from twisted_smtpd.protocol.dispatch import syntax
from twisted_smtpd.runtime.awaiting import MISSING, settle
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["LMTP"]


class LMTP(SMTP):
    """One LMTP connection: for delivery behind a mail server, which learns the fate of each recipient.

    After the message there is one reply for each accepted recipient, in order.  ``handle_DATA`` may return one status,
    which is said for each; a list, one status per recipient; or be an asynchronous generator that yields them, each of
    which is sent as soon as it is known.  Where it fails half-way, the rest hear 451.

    LMTP needs a mail server that tries again: it must not be offered on port 25 (RFC 2033 section 5).

    :raises ValueError: also for ``enhanced_status_codes=False``: a client may count on them (RFC 2033 section 5).
    """

    default_ident = "LMTP twisted-smtpd"
    #: RFC 2033 section 4.1: neither HELO nor EHLO.
    withheld_commands = frozenset({"HELO", "EHLO"})
    required_options: Mapping[str, Any] = MappingProxyType({"enhanced_status_codes": True})
    _unanswered = 0

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, arg: str | None) -> None:
        await self._greet(arg, extended=True)

    async def check_helo_needed(self, helo: str = "LHLO") -> bool:
        return await super().check_helo_needed(helo)

    def _refuse_unaddressed(self) -> None:
        # RFC 2033 section 4.2 wants 503, for refused recipients too; and there would be no reply after the message.
        raise SMTPReplyError(503, "5.5.1", "No valid recipients" if self._refused else "Need RCPT command first")

    def _answer(self, status: Any) -> Coroutine[Any, Any, None]:
        return self._answer_each("250 OK" if status is MISSING else status)

    async def _answer_each(self, status: Any) -> None:
        self._unanswered = self._accepted
        try:
            if isinstance(status, (list, tuple)) or hasattr(status, "__aiter__"):
                # All of an iterator in one task, or an asyncio.timeout() in it would belong to a task that is over.
                await settle(self._say_each(status), self.loop)
            else:
                await self._say_to_rest(Reply.parse(status))
        except (Exception, asyncio.CancelledError) as error:
            await self._say_to_rest(await self.status_for(error))

    async def _say_each(self, status: Any) -> None:
        async for reply in self._statuses(status):
            await self._say(reply)

    async def _say_to_rest(self, status: str | Reply) -> None:
        while self._unanswered:
            await self._say(status)

    async def _say(self, status: str | Reply) -> None:
        self._unanswered -= 1
        await self.push(status)
        self._message_judged()
