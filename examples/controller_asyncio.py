"""Take mail in an asyncio program, on its own loop: python controller_asyncio.py [PORT]"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

from twisted_smtpd.controller import UnthreadedController


class Inbox:
    """Hands messages on to the rest of the program."""

    def __init__(self, queue: asyncio.Queue[Any]) -> None:
        self.queue = queue

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        try:
            # When the program is behind, the sender is to try again later.
            self.queue.put_nowait(envelope)
        except asyncio.QueueFull:
            return "452 4.3.1 Too much to do, try again later"
        return "250 OK"


async def work(queue: asyncio.Queue[Any]) -> None:
    while True:
        envelope = await queue.get()
        await asyncio.sleep(0.01)  # whatever is to be done
        print(f"{envelope.mail_from} wrote {len(envelope.content)} bytes", flush=True)


async def main(port: int) -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=100)
    async with UnthreadedController(Inbox(queue), port=port) as controller:
        print(f"Listening on port {controller.port}", flush=True)
        await work(queue)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 8025))
