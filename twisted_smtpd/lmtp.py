"""The LMTP server protocol (RFC 2033)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Any

from twisted_smtpd.protocol.commands import syntax
from twisted_smtpd.protocol.greeting import say_hello
from twisted_smtpd.protocol.states import TABLE, for_lmtp
from twisted_smtpd.protocol.verdict import is_many
from twisted_smtpd.runtime.awaiting import MISSING, settle
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.wire.replies import Reply

__all__ = ["LMTP"]

_OF_MESSAGES = frozenset({"handle_DATA", "handle_DATA_STREAM"})


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
    # Whole replies that were pushed, and how many of them by the hook that has the message.
    _pushed = 0
    _answered = 0

    @syntax("LHLO hostname")
    def smtp_LHLO(self, arg: str | None) -> Awaitable[None]:
        return say_hello(self, arg, extended=True)

    def push(self, status: str | bytes | Reply) -> Awaitable[None]:
        rest = super().push(status)
        if not self._open_lines:
            self._pushed += 1
        return rest

    async def _run_hook(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name not in _OF_MESSAGES:
            return await super()._run_hook(name, arguments)
        try:
            return await super()._run_hook(name, arguments)
        finally:
            # The replies to chunks are not the hook's.
            self._answered = 0 if self._reads_chunks(name) else self._pushed

    def _no_reply_yet(self, code: int = 0) -> None:
        super()._no_reply_yet(code)
        self._pushed = 0

    def _already_sent(self, name: str, status: Any) -> Any:
        # A hook may push the replies of the first recipients by itself; what it returns is for the rest.
        return status if name in _OF_MESSAGES else super()._already_sent(name, status)

    def _end_of_message(self) -> None:
        super()._end_of_message()
        self._answered = 0
        self._replies = []

    def _answer(self, status: Any) -> Awaitable[None]:
        return self._answer_each("250 OK" if status is MISSING else status)

    async def _answer_each(self, status: Any) -> None:
        self._unanswered = max(0, self._accepted - self._answered)
        self._replies = []
        if self._answered and not self._unanswered:
            self._message_judged()
            return
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
        self._replies.append(self._said)
        self._message_judged()
