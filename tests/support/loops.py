"""Tests that run where an asyncio loop runs, as on the asyncio reactor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def turns(count: int = 20) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def in_a_loop(test: Callable[[Any], Awaitable[None]]) -> Callable[[Any], None]:
    """Run a test where an asyncio loop runs, as on the asyncio reactor."""

    def run(self: Any) -> None:
        async def main() -> None:
            problems: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
            await test(self)
            await turns()
            self.assertEqual(problems, [])

        asyncio.run(asyncio.wait_for(main(), 20))

    run.__name__ = test.__name__
    return run
