"""The example with TLS does what it says."""

from __future__ import annotations

import io
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import skipUnless

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from tests.support.fakes import MESSAGE, codes
from tests.support.tls_dialog import Peer, SecureTestCase
from tests.support.tls_helpers import Client as TLSSettings

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "with_tls.py"


@skipUnless(EXAMPLE.is_file(), "the examples are not installed")
class TLSExampleTests(SecureTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        self.patch(sys, "stdout", io.StringIO())
        self.files()
        example = runpy.run_path(str(EXAMPLE), run_name="example")
        self.reactor: Any = MemoryReactorClock()
        served = example["serve"](self.reactor, f"{self.folder}/server.crt", f"{self.folder}/server.key")
        self.successResultOf(Deferred.fromCoroutine(served))
        self.factories = [server[1] for server in self.reactor.tcpServers]
        self.factories[0].connections._clock = self.clock

    def test_both_ports_take_mail_over_tls_only(self) -> None:
        clear, secure = (Peer(factory.buildProtocol(None), self.clock) for factory in self.factories)
        self.assertEqual(codes(clear.send(b"MAIL FROM:<a@b.example>\r\n")), [530])
        clear.starttls()
        secure.handshake()
        for peer in (clear, secure):
            self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])
        self.assertIn("192.0.2.1 TLSv1.3 ", sys.stdout.getvalue())  # type: ignore[attr-defined]

    def test_starttls_with_tls_1_2_is_not_good_enough(self) -> None:
        peer = Peer(self.factories[0].buildProtocol(None), self.clock)
        peer.starttls(TLSSettings(version=SSL.TLS1_2_VERSION))
        self.assertEqual(codes(peer.send(MESSAGE[:21])), [554])

    def test_sighup_reloads(self) -> None:
        calls: list[Any] = []
        self.reactor.callFromThread = calls.append
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual([call() for call in calls], [True])
