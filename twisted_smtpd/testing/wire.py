"""The way out of a connection that is watched: what is sent gets into the transcript, and may arrive in pieces."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import directlyProvides, providedBy

from twisted_smtpd.testing.transcript import Transcript

__all__ = ["Wire"]


class Wire:
    """Stands before a transport, of any kind, and passes on what it does not do itself.

    :param transport: the transport.
    :param transcript: notes what is sent.
    :param clock: for the time between pieces.
    """

    def __init__(self, transport: Any, transcript: Transcript, clock: IReactorTime) -> None:
        self._transport = transport
        self._transcript = transcript
        self._clock = clock
        self._split: float | None = None
        self._replacement: bytes | None = None
        self._pieces: deque[bytes] = deque()
        self._delay = 0.0
        self._call: IDelayedCall | None = None
        self._closing = False
        self._emptied: list[Deferred[None]] = []
        # TLS is asked for by interface.
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        if name == "protocol":
            # Below it is a layer of TLS, which would be written to directly.
            raise AttributeError(name)
        return getattr(self._transport, name)

    def split_next(self, delay: float) -> None:
        """Send what is written next octet by octet.

        :param delay: seconds between two octets.
        """
        self._split = delay

    def replace_next(self, data: bytes) -> None:
        """Send this instead of what is written next."""
        self._replacement = data

    def write(self, data: bytes) -> None:
        if self._replacement is not None:
            data, self._replacement = self._replacement, None
        self._transcript.server(data)
        if self._split is not None:
            self._transcript.remark("sent octet by octet")
            self._delay, self._split = self._split, None
            self._pieces.extend(data[place : place + 1] for place in range(len(data)))
            if self._call is None:
                self._send_piece()
        elif self._pieces:
            self._pieces.append(data)
        else:
            self._transport.write(data)

    def _send_piece(self) -> None:
        self._call = None
        self._transport.write(self._pieces.popleft())
        if self._pieces:
            self._call = self._clock.callLater(self._delay, self._send_piece)
            return
        if self._closing:
            self._transport.loseConnection()
        waiting, self._emptied = self._emptied, []
        for one in waiting:
            one.callback(None)

    async def emptied(self) -> None:
        """Wait until all pieces are sent."""
        if self._pieces:
            waiter: Deferred[None] = Deferred()
            self._emptied.append(waiter)
            await waiter

    def loseConnection(self) -> None:
        self._closing = True
        if not self._pieces:
            self._transport.loseConnection()

    def lost(self) -> None:
        """The connection is gone."""
        self._pieces.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        waiting, self._emptied = self._emptied, []
        for one in waiting:
            one.callback(None)
