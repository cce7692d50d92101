"""The queues in the broker: for messages that are due, that wait, and that a person has to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["STEPS", "Topology"]

#: Seconds that a message can wait in the broker until its next attempt: a queue for each.
STEPS = (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600)

# Copied to most nodes before they count, and nothing is lost on the way from one queue to another.
_QUORUM: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-dead-letter-exchange": "",
}


@dataclass(frozen=True)
class Topology:
    """The queues of one mail system, all of them quorum queues, in the default exchange.

    :ivar name: the queue of messages that are due.
    """

    name: str = "mail"

    @property
    def dead(self) -> str:
        """The queue of messages that a person has to look at."""
        return f"{self.name}.dead"

    def retry(self, seconds: float) -> str:
        """The queue in which a message waits.

        :param seconds: for how long, about: the step that is nearest.
        """
        return f"{self.name}.retry.{min(STEPS, key=lambda step: abs(step - seconds))}"

    async def declare(self, channel: Any) -> None:
        """Make the queues that are missing.

        :param channel: a channel of pika's Twisted adapter.
        """
        await channel.queue_declare(self.dead, durable=True, arguments={"x-queue-type": "quorum"})
        arguments = {**_QUORUM, "x-dead-letter-routing-key": self.dead}
        await channel.queue_declare(self.name, durable=True, arguments=arguments)
        for step in STEPS:
            arguments = {**_QUORUM, "x-message-ttl": step * 1000, "x-dead-letter-routing-key": self.name}
            await channel.queue_declare(self.retry(step), durable=True, arguments=arguments)
