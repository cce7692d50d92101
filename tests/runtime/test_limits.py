"""What clients share leaves room for what the server itself needs."""

from __future__ import annotations

import resource
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import codes, join, make_factory
from twisted_smtpd.runtime import limits
from twisted_smtpd.runtime.limits import DESCRIPTORS_KEPT, most_connections
from twisted_smtpd.runtime.listening import RunningServer
from twisted_smtpd.smtp import SMTP


class DescriptorTests(SynchronousTestCase):
    """Seen: ``ulimit -n 64`` and 60 silent clients: 940 of 940 messages were deferred for lack of a descriptor."""

    def under(self, soft: int) -> int:
        """How many connections there are under a limit."""
        self.patch(limits.resource, "getrlimit", lambda which: (soft, soft))
        return most_connections()

    def test_room_is_left_for_the_handler(self) -> None:
        self.assertEqual(self.under(1024), 1024 - DESCRIPTORS_KEPT)
        self.assertEqual(self.under(64), 32)
        self.assertGreater(self.under(resource.RLIM_INFINITY), 10**9)

    def test_the_rest_hears_421(self) -> None:
        self.under(10)
        factory = make_factory()
        clients = [join(factory, f"192.0.2.{number}") for number in range(8)]
        self.assertEqual([codes(client.read())[0] for client in clients], [220] * 5 + [421] * 3)
        clients[0].lose()
        self.assertEqual(codes(join(factory).read()), [220])

    def test_it_is_said_at_the_start(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.under(100)
        make_factory(max_connections=50).doStart()
        self.assertEqual([event["most"] for event in events if "most" in event], [])
        make_factory(max_connections=51).doStart()
        self.assertEqual([event["most"] for event in events if "most" in event], [50])
        server: Any = RunningServer(lambda: SMTP(object(), hostname="x"), Clock())
        server.open([])
        self.assertEqual([event["most"] for event in events if "most" in event], [50, 50])
