"""Sessions of random commands, with random options and hooks, from fixed seeds.

However what a client sends is split, it hears the same, and the hooks are called in the same way.  However a connection
ends, nothing is left of it.
"""

from __future__ import annotations

import base64
import re
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import Client, join, make_factory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP, SMTPReplyError
from twisted_smtpd.wire.replies import BadStatus, Reply

SEEDS = 150
SESSION_ID = re.compile(rb"\(session [^)]*\)")
TOKEN = base64.b64encode(b"\0anne\0secret")
STATUSES: tuple[Any, ...] = (
    *("250 OK", "250 OK", "250 OK", "250-one\n250 two", "550 no", "451 4.7.1 later", "421 bye", "250-open", "354 go"),
    *("250 \xe4", "nonsense", None, 42, [], ["250 a", "550 b"], Reply(250, "2.6.0", ("fine",)), KeyError("hook")),
    SMTPReplyError(550, "5.1.1", "x"),
)
GREETINGS = (b"EHLO a.example\r\n", b"EHLO a.example\r\n", b"HELO a.example\r\n", b"EHLO\r\n", b"LHLO a.example\r\n")
SENDERS = (
    *(b"MAIL FROM:<a@x.example>\r\n", b"mail from:<> SIZE=9\r\n", b"MAIL FROM:<a@x.example> SIZE=99999999999\r\n"),
    *(b"MAIL FROM:<\xc3\xbc@x.example> SMTPUTF8\r\n", b"MAIL FROM:<a@x\r\n", b"MAIL\r\n"),
    b"MAIL FROM:<a@x.example> BODY=BINARYMIME\r\n",
)
RECIPIENTS = (b"RCPT TO:<b@y.example>\r\n", b"RCPT TO:<c@y.example>\r\n", b"RCPT TO:<>\r\n", b"RCPT TO:<b@y> X=1\r\n")
LINES = (
    *(b"", b"hello", b"..", b".x", b"x" * 998, b"x" * 1200, b"bare\nlf", b"bare\rcr", b"\r", b"\n."),
    *(b"QUIT", b"\xff\0"),
)
OTHERS = (
    *(b"NOOP\r\n", b"NOOP x\r\n", b"RSET\r\n", b"HELP\r\n", b"VRFY b\r\n", b"EXPN l\r\n", b"STARTTLS\r\n"),
    *(b"DATA x\r\n", b"QUIT\r\n", b"BDAT 5\r\n", b"FOO\r\n", b"\r\n", b"NOOP\n", b"NO\rOP\r\n", b"\xff\r\n"),
    *(b"x" * 600 + b"\r\n", b"y" * 14000 + b"\r\n", b"XCLIENT\r\n", b"XFORWARD NAME=h.example\r\n", b"AUTH\r\n"),
    *(b"XCLIENT ADDR=203.0.113.7 HELO=h.example PROTO=ESMTP\r\n", b"AUTH LOGIN\r\nYW5uZQ==\r\n*\r\n"),
    *(b"AUTH PLAIN " + TOKEN + b"\r\n", b"AUTH PLAIN\r\n" + TOKEN + b"\r\n", b"AUTH PLAIN\r\na\nb\r\n"),
    b"AUTH LOGIN\r\nYW5uZQ==\r\nc2VjcmV0\r\n",
)
OPTIONS: dict[str, tuple[Any, ...]] = {
    "data_size_limit": (None, 30, 5000),
    "line_length_limit": (80, None),
    "bare_newline": ("reject",),
    "decode_data": (True,),
    "max_recipients": (1,),
    "max_errors": (1, 3),
    "command_call_limit": (2, {"NOOP": 1}),
    "auth_required": (True,),
    "max_auth_failures": (1,),
    "timeout": (5, 60),
    "hook_timeout": (3, 30),
    "session_timeout": (20,),
    "xclient_from": (["192.0.2.1"], ["198.51.100.1"]),
}
HOOKS = ("CONNECT", "DISCONNECT", "HELO", "EHLO", "NOOP", "QUIT", "VRFY", "MAIL", "RCPT", "RSET", "DATA", "AUTH")


class World:
    """One server and its hooks, the same for a seed; what it makes of a client depends on the client alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        random = Random(seed)
        self.calls: list[Any] = []
        self.pending: list[Deferred[Any]] = []
        self.clock = Clock()
        options = {name: random.choice(values) for name, values in OPTIONS.items() if random.random() < 0.15}
        # What follows the part of a message that a hook has read is not judged, so it depends on when the hook answers.
        self.judged = not options.keys().isdisjoint({"bare_newline", "data_size_limit", "line_length_limit"})
        if random.random() < 0.5:
            options |= {"auth_require_tls": False, "auth_callback": lambda *arguments: arguments[2] == b"secret"}
        names = [name for name in HOOKS if random.random() < random.choice((0, 0.3))]
        names += ["DATA_STREAM"] if random.random() < 0.2 else []
        hooks = {f"handle_{name}": staticmethod(self.hook(name)) for name in names}
        protocol: type[SMTP] = LMTP if random.random() < 0.3 else SMTP
        self.factory = make_factory(type("Handler", (), hooks)(), protocol, clock=self.clock, **options)

    def hook(self, name: str) -> Any:
        async def run(server: Any, session: Any, envelope: Any, *arguments: Any) -> Any:
            shown = "" if name == "DATA_STREAM" else repr(arguments)
            self.calls.append((name, shown, envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
            random = Random(f"{self.seed} {len(self.calls)}")
            if random.random() < 0.1:
                await server.push("250-pushed")
            if random.random() < 0.4:
                self.pending.append(Deferred())
                await self.pending[-1]
            statuses = STATUSES
            if name == "DATA_STREAM":
                if random.random() < 0.9 or self.judged:
                    content = b"".join([chunk async for chunk in arguments[0]])
                    self.calls.append(content)
                else:
                    # It ends the connection at once, and what has come of a chunk until then depends on the pieces.
                    statuses = tuple(status for status in STATUSES if status != "421 bye")
            status = random.choice(statuses)
            if isinstance(status, Exception):
                raise status
            return status

        return run

    def answer_all(self) -> None:
        """Have all hooks go on."""
        while self.pending:
            promise = self.pending.pop()
            if not promise.called:
                promise.callback(None)

    def conversation(self) -> bytes:
        """What the client sends."""
        random = Random(f"client {self.seed}")
        said = random.choice(GREETINGS if self.factory.protocol is SMTP else GREETINGS[-1:])
        for _ in range(random.randrange(1, 7)):
            if random.random() < 0.5:
                said += random.choice(SENDERS[: random.choice((1, 7))])
                said += b"".join(random.choice(RECIPIENTS[: random.choice((2, 4))]) for _ in range(random.randrange(4)))
                lines = b"".join(random.choice(LINES) + b"\r\n" for _ in range(random.randrange(5)))
                if random.random() < 0.4:
                    said += in_chunks(lines, random)
                else:
                    said += b"DATA\r\n" + lines + random.choice((b".\r\n", b".\r\n", b"\n.\r\n.\r\n"))
            else:
                said += random.choice(random.choice((GREETINGS, OTHERS, OTHERS, OTHERS)))
        return said


def in_chunks(content: bytes, random: Random) -> bytes:
    """BDAT commands for a message, mostly with a last one; sometimes another command comes between."""
    said = b""
    for piece in pieces(content, random, 600) or [b""]:
        said += b"BDAT %d\r\n%b" % (len(piece), piece)
        if random.random() < 0.1:
            said += random.choice((b"NOOP\r\n", b"RSET\r\n", b"DATA\r\n", b"MAIL FROM:<>\r\n", b"EHLO a.example\r\n"))
    return said + random.choice(
        (b"BDAT 0 LAST\r\n", b"BDAT 1 LAST\r\nx", b"bdat 6 last\r\nQUIT\r\n", b"BDAT 7\r\nRSE", b"")
    )


def pieces(data: bytes, random: Random, most: int) -> list[bytes]:
    result = []
    while data:
        size = random.randint(1, most)
        result.append(data[:size])
        data = data[size:]
    return result


class RandomSessionsTests(SynchronousTestCase):
    def hold(self, seed: int, most: int) -> Any:
        """Have a whole conversation, in pieces of at most so many octets."""
        world = World(seed)
        client = join(world.factory)
        world.answer_all()
        said = client.read()
        for piece in pieces(world.conversation(), Random(seed), most):
            said += client.send(piece)
            world.answer_all()
            said += client.read()
        # How much of a message has come when it turns out to be too long depends on the pieces.
        counts = {**vars(world.factory.connections.counts), "octets": 0}
        closed = client.closed
        self.end(world, client)
        return SESSION_ID.sub(b"", said), closed, counts, world.calls

    def end(self, world: World, *clients: Client) -> None:
        """Nothing is left, and nothing has failed but hooks."""
        for client in clients:
            if client.transport.connected:
                client.lose()
        world.answer_all()
        connections = world.factory.connections
        self.assertEqual((connections.open, connections.buffered, dict(connections.per_address)), (set(), 0, {}))
        self.assertEqual(world.clock.getDelayedCalls(), [], world.seed)
        self.flushLoggedErrors(KeyError, BadStatus)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_however_it_is_split_it_is_the_same_session(self) -> None:
        for seed in range(SEEDS):
            whole = self.hold(seed, 2**20)
            for most in (1, 7, 300):
                self.assertEqual(self.hold(seed, most), whole, (seed, most))

    def test_however_it_ends_nothing_is_left(self) -> None:
        for seed in range(2 * SEEDS):
            world, random = World(seed), Random(f"end {seed}")
            clients = [join(world.factory) for _ in range(random.randint(1, 3))]
            sent = [pieces(world.conversation(), random, 200) for _ in clients]
            for _ in range(random.randrange(60)):
                number = random.randrange(len(clients))
                client, event = clients[number], random.random()
                if not client.transport.connected:
                    continue
                if event < 0.6:
                    if sent[number] and not client.closed:
                        client.protocol.dataReceived(sent[number].pop(0))
                elif event < 0.7:
                    world.answer_all()
                elif event < 0.8:
                    world.clock.pump([random.choice((0.5, 5, 20))] * 4)
                elif event < 0.85 and client.transport.producer is not None:
                    client.transport.producer.pauseProducing()
                elif event < 0.92 and client.transport.producer is not None:
                    client.transport.producer.resumeProducing()
                elif event < 0.95:
                    client.finish_sending()
                elif event < 0.97:
                    client.lose()
                elif event < 0.98:
                    world.factory.drain(5)
            drained = world.factory.drain(5)
            self.end(world, *clients)
            self.successResultOf(drained)
