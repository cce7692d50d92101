"""What a connection may have to get through before it speaks SMTP: waiting for it, and an end to the waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from twisted_smtpd.protocol.dispatch import Server
from twisted_smtpd.runtime.awaiting import InputWait, unfinished
from twisted_smtpd.runtime.connections import limited_address
from twisted_smtpd.wire.replies import BadStatus, Reply

__all__ = ["Prelude", "permits"]

log = Logger()


def permits(answer: Any) -> bool:
    """Whether a hook that is asked for true or false lets the client go on.

    :param answer: what it returned: a status counts as true if its code is 2yz, anything else by its truth, but
        what is still to be waited for, such as a generator, permits nothing.
    """
    if isinstance(answer, (str, Reply)):
        try:
            return 200 <= Reply.parse(answer).code < 300
        except BadStatus:
            return False
    if unfinished(answer):
        log.error("a hook that is asked for true or false gave a {kind}: that is no yes", kind=type(answer).__name__)
        return False
    return bool(answer)


class Prelude(Server):
    """A server that waits for other things than commands."""

    _give_up: Callable[[], None] | None = None
    _give_up_at = 0.0

    def wait_at_most(self, seconds: float, give_up: Callable[[], None]) -> None:
        """Have something done unless :meth:`no_longer_waiting` is called in time.

        :param seconds: one of the limits in the settings, none of which is shorter than the shortest of them.
        """
        self._give_up_at = min(self._now() + seconds, self._connected_at + self.session_timeout)
        self._give_up = give_up

    def no_longer_waiting(self) -> None:
        """What was waited for has come."""
        self._give_up = None

    async def sleep(self) -> None:
        """Wait for :meth:`wake`; meanwhile the client has no say."""
        self._input = InputWait(self._input_awaited)
        await self._input

    def wake(self) -> None:
        """What is slept for has happened."""
        if self._input is not None:
            self._active = self._now()
            self._hand_over(None)
            if not self.paused:
                self._advance()

    def visit(self, now: float) -> float:
        if self._give_up is None or self._closing_since is not None:
            return super().visit(now)
        return self._due(now, self._give_up_at, self._give_up)

    def shut_down(self) -> bool:
        if self._give_up is None:
            return super().shut_down()
        # Nobody is there to hear a 421 yet.
        self.drop()
        return True

    # -- whose word is taken -------------------------------------------------------------------------------------------

    def counted_address(self) -> str | None:
        # Who only passes on the connections of others is no client.
        host = getattr(self._peer_address, "host", "")
        security = self._settings.security
        if security.proxies is not None and host in security.proxies:
            return None
        if security.xclients is not None and host in security.xclients:
            return None
        return limited_address(host)

    def stands_for(self, peer: Any) -> str | None:
        """Take the word of somebody trusted for who the client is.

        :param peer: the client, as ``session.peer`` has it.
        :returns: why the client can't be served, or ``None``.
        """
        self.session.peer = peer
        address = limited_address(peer[0]) if peer else None
        refusal = self.connections.recount(self._address, address, self._settings.values)
        if refusal is None:
            self._address = address
        return refusal
