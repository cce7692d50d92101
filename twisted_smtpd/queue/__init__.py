"""A queue: messages are made durable, answered, and delivered afterwards, with retries and bounces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_smtpd.on_demand import on_demand

if TYPE_CHECKING:
    from twisted_smtpd.queue.disk import DiskQueue
    from twisted_smtpd.queue.handler import Queue
    from twisted_smtpd.queue.interfaces import IQueue
    from twisted_smtpd.queue.schedule import Schedule

__all__ = ["DiskQueue", "IQueue", "Queue", "Schedule"]

__getattr__ = on_demand(
    __name__, {"DiskQueue": "disk", "IQueue": "interfaces", "Queue": "handler", "Schedule": "schedule"}
)
