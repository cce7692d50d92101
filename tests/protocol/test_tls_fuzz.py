"""Random sessions over TLS: both engines must answer in the same way, whatever the records look like.

``TWISTED_SMTPD_TLS_SESSIONS=5000`` in the environment runs so many of them; some are enough for every day.
"""

from __future__ import annotations

import os
import random
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone

from tests.protocol.test_tls_on_sockets import forbid_ssl
from tests.support import tls_dialog
from tests.support.fakes import hooks
from tests.support.tls_dialog import Peer, SecureTestCase
from tests.support.tls_helpers import Client
from twisted_smtpd.runtime import output

SESSIONS = int(os.environ.get("TWISTED_SMTPD_TLS_SESSIONS", "60"))
MANY = 400
LINES = (
    b"EHLO client.example\r\n",
    b"NOOP\r\n",
    b"RSET\r\n",
    b"MAIL FROM:<anne@example.com>\r\nRCPT TO:<bart@example.com>\r\n",
    b"MAIL FROM:<anne@example.com>\r\nRCPT TO:<bart@example.com>\r\nDATA\r\nhi\r\n..\r\n.\r\n",
    b"nonsense \xff\r\n",
    b"VRFY anne",
    b"\r\n",
)
TYPES = b"\x14\x15\x16\x17\x18\xff"


class Run:
    """One session, all of whose choices come from a seed.

    :ivar transcript: what the client has seen after each step.
    """

    def __init__(self, seed: int, peer: Peer) -> None:
        self.chance = random.Random(seed)
        self.peer = peer
        self.gone = False
        self.transcript: list[object] = []

    def __call__(self) -> list[object]:
        chance, peer = self.chance, self.peer
        version = chance.choice((SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION))
        if chance.random() < 0.1:
            peer.send(LINES[0] + b"STARTTLS\r\n")
            # Releases of OpenSSL differ in which alert they send then, and whether they send one.
            peer.deliver(self.garbage())
            self.transcript.append(self.over)
        else:
            peer.starttls(Client(version=version))
            steps = (self.say, self.say, self.say, self.in_pieces, self.many, self.spoil, self.cut, self.leave)
            for _ in range(chance.randint(1, 12)):
                if not self.over:
                    chance.choice(steps)()
        if not self.gone:
            peer.lose(ConnectionDone())
        return self.transcript

    @property
    def over(self) -> bool:
        return self.gone or self.peer.closed or self.peer.aborted

    # -- steps ---------------------------------------------------------------------------------------------------------

    def say(self) -> None:
        self.deliver(self.records(self.line()))

    def in_pieces(self) -> None:
        """Records that arrive in pieces, however they are cut."""
        octets = b"".join(self.records(self.line()) for _ in range(self.chance.randint(1, 6)))
        while octets and not self.over:
            size = self.chance.choice((1, 2, 3, 4, 5, 6, 29, len(octets)))
            self.deliver(octets[:size])
            octets = octets[size:]

    def many(self) -> None:
        """Records of an octet or a line each, in one segment."""
        whole = b"".join(self.line() for _ in range(MANY // 20))
        size = self.chance.choice((1, 7, 40))
        self.deliver(b"".join(self.records(whole[i : i + size]) for i in range(0, len(whole), size)[:MANY]))

    def spoil(self) -> None:
        """A record with a wrong octet, or something else altogether, behind good ones."""
        good = self.records(self.line())
        if self.chance.random() < 0.5:
            self.deliver(good + self.garbage())
            return
        bad = bytearray(self.records(self.line()))
        # Not in its header: a length that is too long makes it wait for the rest.
        bad[self.chance.randrange(5, len(bad))] ^= 1 << self.chance.randrange(8)
        self.deliver(good + bytes(bad))

    def cut(self) -> None:
        """The connection is lost within a record."""
        octets = self.records(self.line())
        self.deliver(octets[: self.chance.randrange(len(octets))])
        self.end()

    def leave(self) -> None:
        """The client says close_notify, perhaps with something behind it."""
        assert self.peer.tls is not None
        octets = self.records(self.line())
        self.peer.tls.shutdown()
        self.deliver(octets + self.peer._outgoing() + self.chance.choice((b"", b"\x17", self.garbage())))
        self.end()

    # -- what they are made of -----------------------------------------------------------------------------------------

    def line(self) -> bytes:
        return self.chance.choice(LINES)

    def records(self, data: bytes) -> bytes:
        """What the client's TLS makes of this."""
        assert self.peer.tls is not None
        if data:
            self.peer.tls.send(data)
        return self.peer._outgoing()

    def garbage(self) -> bytes:
        """A record's header with nonsense behind it, or nonsense only."""
        nonsense = self.chance.randbytes(self.chance.randint(5, 80))
        if self.chance.random() < 0.3:
            return nonsense
        head = bytes([self.chance.choice(TYPES), 3, self.chance.choice((1, 3, 9))])
        return head + len(nonsense).to_bytes(2, "big") + nonsense

    def deliver(self, octets: bytes) -> None:
        """Have octets arrive, and note what comes back."""
        self.peer.deliver(octets)
        answer: object
        try:
            answer = self.peer.read()
        except SSL.Error:
            # An alert; releases of OpenSSL differ in which.
            answer = "alert"
        self.transcript.append((answer, self.peer.closed, self.peer.aborted))

    def end(self) -> None:
        self.peer.lose(ConnectionDone())
        self.gone = True


class EnginesTests(SecureTestCase):
    """The transcripts of the two engines."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(output, "PLAIN_TRANSPORTS", (tls_dialog.TLSTransport,))

    def run_one(self, seed: int) -> tuple[list[object], list[bytes], list[str]]:
        """What the client saw, the contents that arrived, and how the connection was lost."""
        lost: list[str] = []
        content: list[bytes] = []

        def gone(server: Any, session: Any, envelope: Any, error: Any) -> None:
            lost.append(type(error).__name__)

        def data(server: Any, session: Any, envelope: Any) -> str:
            content.append(envelope.content)
            return "250 OK"

        handler = hooks(handle_DISCONNECT=gone, handle_DATA=data)
        peer = self.connect(handler, tls_context=self.files(), command_call_limit=10**6)
        return Run(seed, peer)(), content, lost

    def test_both_say_the_same_in_the_same_sessions(self) -> None:
        ends: set[object] = set()
        for seed in range(SESSIONS):
            with self.subTest(seed=seed):
                by_ssl = self.run_one(seed)
                with forbid_ssl():
                    by_pyopenssl = self.run_one(seed)
                self.assertEqual(by_ssl, by_pyopenssl)
            ends.update(by_ssl[-1])
        # They end well, within a record, and with records that OpenSSL refuses.
        self.assertEqual(ends, {"ConnectionDone", "ConnectionLost", "Error"})
