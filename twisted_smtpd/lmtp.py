"""The LMTP server protocol (RFC 2033)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Any

from twisted_smtpd.protocol.dispatch import syntax
from twisted_smtpd.protocol.greeting import say_hello
from twisted_smtpd.protocol.states import TABLE, for_lmtp
from twisted_smtpd.protocol.verdict import is_many
from twisted_smtpd.runtime.awaiting import MISSING, settle
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.wire.replies import Reply

__all__ = ["LMTP"]


class LMTP(SMTP):
    """One LMTP connection: for delivery behind a mail server, which learns the fate of each recipient.

    After the message there is one reply for each accepted recipient, in order.  ``handle_DATA`` may return one status,
    which is sent for each; a list, one status per recipient; or be an asynchronous generator that yields them, each of
    which is sent as soon as it is known.  If it fails half-way, the other recipients get 451.

    LMTP needs a mail server that tries again: it must not be offered on port 25 (RFC 2033 section 5).

    :raises ValueError: also for ``enhanced_status_codes=False``: a client may count on them (RFC 2033 section 5).
    """

    default_ident = "LMTP twisted-smtpd"
    #: RFC 2033 section 4.1: neither HELO nor EHLO.
    withheld_commands = frozenset({"HELO", "EHLO"})
    required_options: Mapping[str, Any] = MappingProxyType({"enhanced_status_codes": True})
    states = for_lmtp(TABLE)
    replies_to_each_recipient = True
    first_command = "LHLO"
    # There would be no reply for them after the message.
    hooks_may_address = False
    _own_commands = True
    _unanswered = 0

    @syntax("LHLO hostname")
    def smtp_LHLO(self, arg: str | None) -> Awaitable[None]:
        return say_hello(self, arg, extended=True)

    def _answer(self, status: Any) -> Awaitable[None]:
        return self._answer_each("250 OK" if status is MISSING else status)

    async def _answer_each(self, status: Any) -> None:
        self._unanswered = self._accepted
        try:
            if is_many(status):
                # In one task for the whole iterator: an asyncio.timeout() in it must not belong to a task that is over.
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
