"""The LMTP server protocol (RFC 2033)."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted_smtpd.server import syntax
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.wire.replies import BadStatus

__all__ = ["LMTP"]


class LMTP(SMTP):
    """One LMTP connection: for delivery behind a mail server, which learns the fate of each recipient.

    After the message there is one reply for each accepted recipient, in order.  ``handle_DATA`` may return one status,
    which is said for each; a list, one status per recipient; or be an asynchronous generator that yields them, each of
    which is sent as soon as it is known.  Where it fails half-way, the rest hear 451.

    LMTP needs a mail server that tries again: it must not be offered on port 25 (RFC 2033 section 5).
    """

    default_ident = "LMTP twisted-smtpd"
    #: RFC 2033 section 4.1: neither HELO nor EHLO.
    withheld_commands = frozenset({"HELO", "EHLO"})

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, arg: str | None) -> None:
        await self._greet(arg, extended=True)

    async def check_helo_needed(self, helo: str = "LHLO") -> bool:
        return await super().check_helo_needed(helo)

    async def _answer(self, status: Any) -> None:
        due = self._accepted
        try:
            if isinstance(status, (list, tuple)) and len(status) != due:
                raise BadStatus(f"the hook gave {len(status)} statuses for {due} recipients")
            async for one in self._statuses(status):
                if not due:
                    raise BadStatus(f"the hook gave more than {self._accepted} statuses, one per recipient")
                await self.push(one)
                due -= 1
                if self._code < 300:
                    self.forgive()
            if due:
                raise BadStatus(f"the hook gave no status for the last {due} of {self._accepted} recipients")
        except (Exception, asyncio.CancelledError) as error:
            failure = await self.status_for(error)
            for _ in range(due):
                await self.push(failure)
