"""A handler that counts: ``twisted-smtpd --metrics 9125 -c metrics_of_a_handler.Sorted``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from zope.interface import implementer

from twisted_smtpd.interfaces import IMeasured
from twisted_smtpd.metrics import Metric, total


@implementer(IMeasured)
class Sorted:
    """Counts messages by the domain of their sender: ``shop_messages_total{domain="example.com"}``."""

    #: Others are counted together: a client can name any domain.
    known = ("example.com", "example.org")

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        domain = (envelope.mail_from or "").rpartition("@")[2].lower()
        self.counts[(domain if domain in self.known else "other",)] += 1
        return "250 OK"

    def metrics(self) -> list[Metric]:
        return [total("shop_messages", "Messages by the domain of their sender.", self.counts, "domain")]
