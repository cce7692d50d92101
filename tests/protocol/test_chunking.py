"""BDAT (RFC 3030), beside the dialogs: memory, rates, hooks, and any way to cut a message."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.content_model import cut, policies
from tests.support.fakes import (
    ENVELOPE,
    Client,
    Promises,
    Recorder,
    answering,
    clock_of,
    codes,
    connect,
    hooks,
    last_line,
    raiser,
)
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.protocol.states import State, state_of
from twisted_smtpd.smtp import SMTP, SMTPReplyError
from twisted_smtpd.wire.commands import parse_chunk
from twisted_smtpd.wire.replies import BadStatus

lines = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"a", b"\0", b"\r\n.\r\n", b"BDAT 5\r\n", b"QUIT\r\n", b"x" * 50]),
    max_size=20,
).map(b"".join)
places = st.lists(st.integers(0, 300), max_size=8)


# Whole commands, each with the octets that belong to it.
units = st.sampled_from(
    [
        *(b"EHLO c.example\r\n", b"LHLO c.example\r\n", b"MAIL FROM:<a@x.example>\r\n", b"MAIL FROM:<a@x.example>\r\n"),
        *(b"MAIL FROM:<> BODY=BINARYMIME\r\n", b"RCPT TO:<b@y.example>\r\n", b"RCPT TO:<c@y.example>\r\n"),
        *(
            b"RCPT TO:<b@y.example>\r\n",
            b"RCPT TO:<\r\n",
            b"RSET\r\n",
            b"NOOP\r\n",
            b"VRFY b\r\n",
            b"HELP\r\n",
            b"FOO\r\n",
        ),
        *(b"\r\n", b"DATA x\r\n", b"DATA\r\nhello\r\n..\r\n.\r\n", b"DATA\r\n" + b"x" * 70 + b"\r\n.\r\n"),
        *(b"BDAT 0\r\n", b"BDAT 6\r\nQUIT\r\n", b"BDAT 1\r\na", b"BDAT 40\r\n" + b"y" * 40, b"BDAT 0 LAST\r\n"),
        *(b"BDAT 6 LAST\r\nQUIT\r\n", b"BDAT 1 LAST\r\n\r", b"BDAT 70 LAST\r\n" + b"z" * 70),
    ]
)


class Whims:
    """Says yes to most things, and no to others.

    :param seed: for what it says.
    :param streams: whether it reads messages while they come.
    """

    def __init__(self, seed: int, streams: bool) -> None:
        self.random = Random(seed)
        if streams:
            self.handle_DATA_STREAM = self.read

    def answer(self) -> str:
        return self.random.choice(("250 OK", "250 OK", "250 OK", "451 4.3.0 later", "550 no"))

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        envelope.mail_from = address
        return self.answer()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        return self.answer()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        return self.answer()

    async def read(self, server: Any, session: Any, envelope: Any, stream: Any) -> str:
        if self.random.random() < 0.7:
            async for _ in stream:
                pass
        return self.answer()


def chunks(pieces: list[bytes]) -> bytes:
    """The BDAT commands for a message in these pieces, the last one LAST."""
    sent = b"".join(b"BDAT %d\r\n%b" % (len(piece), piece) for piece in pieces[:-1])
    return sent + b"BDAT %d LAST\r\n%b" % (len(pieces[-1]), pieces[-1])


class WholeTests(SynchronousTestCase):
    """However a message is cut, it is the same message."""

    @settings(max_examples=200, deadline=None)
    @given(lines, places, places, st.booleans(), st.sampled_from([None, 30]), policies)
    def test_any_chunking_gives_the_message(
        self, body: bytes, chunk_places: list[int], reads: list[int], binary: bool, limit: int | None, policy: str
    ) -> None:
        options: dict[str, Any] = {"data_size_limit": limit, "bare_newline": policy, "max_errors": 100}
        envelope = ENVELOPE.replace(b">\r\nRCPT", b"> BODY=BINARYMIME\r\nRCPT") if binary else ENVELOPE
        whole, cut_up = Recorder(), Recorder()
        expected = codes(connect(whole, **options).send(envelope + chunks([body]) + b"NOOP\r\n"))
        pieces = cut(body, chunk_places)
        client = connect(cut_up, **options)
        for read in cut(envelope + chunks(pieces) + b"NOOP\r\n", reads):
            client.protocol.dataReceived(read)
        said = codes(client.read())
        self.assertEqual(whole.contents, cut_up.contents)
        # One reply for each chunk; where the message is refused, from some chunk on.
        self.assertEqual(len(said), len(expected) + len(pieces) - 1)
        self.assertEqual(said[-2:], expected[-2:])
        self.assertEqual(client.protocol.connections.buffered, 0)
        if binary and not limit:
            self.assertEqual(cut_up.contents, [body])

    @settings(max_examples=200, deadline=None)
    @given(
        lines,
        places,
        st.sampled_from([None, 30]),
        st.sampled_from([None, 20]),
        policies,
    )
    def test_data_and_bdat_give_the_same(
        self, body: bytes, chunk_places: list[int], size: int | None, line: int | None, policy: str
    ) -> None:
        body += b"\r\n"
        dotted = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
        options: dict[str, Any] = {"data_size_limit": size, "line_length_limit": line, "bare_newline": policy}
        by_data, by_chunks = Recorder(), Recorder()
        first = connect(by_data, **options).send(ENVELOPE + b"DATA\r\n" + dotted + b".\r\n")
        second = connect(by_chunks, **options).send(ENVELOPE + chunks(cut(body, chunk_places)))
        self.assertEqual(by_data.contents, by_chunks.contents)
        self.assertEqual(last_line(first), last_line(second))

    def test_a_large_message_in_chunks_of_all_sizes(self) -> None:
        body = b"".join(b"%078d\r\n" % number for number in range(40_000))
        for size in (700, 65_536, 1_000_000, len(body)):
            handler = Recorder()
            client = connect(handler)
            client.send(ENVELOPE)
            for start in range(0, len(body), size):
                piece = body[start : start + size]
                client.send(b"BDAT %d\r\n" % len(piece) + piece)
            self.assertEqual(client.protocol.connections.buffered, len(body))
            self.assertEqual(codes(client.send(b"BDAT 0 LAST\r\n")), [250])
            self.assertEqual(handler.contents, [body])
            self.assertEqual(client.protocol.connections.buffered, 0)

    def test_30_mb_in_chunks_of_1_octet_to_16_mb(self) -> None:
        line = b"x" * 126 + b"\r\n"
        sizes = [1] * 1000 + [2**power for power in range(24)] + [2**24 - 2]
        body = line * (sum(sizes) // len(line) + 1)
        body = body[: sum(sizes) - 2] + b"\r\n"
        self.assertGreater(len(body), 30_000_000)
        handler = Recorder()
        client = connect(handler, data_size_limit=len(body))
        client.send(ENVELOPE)
        said, place = b"", 0
        for size in sizes:
            piece = body[place : place + size]
            place += size
            said += client.send(b"BDAT %d\r\n%b" % (size, piece))
        self.assertEqual(codes(said), [250] * len(sizes))
        self.assertEqual(codes(client.send(b"BDAT 0 LAST\r\n")), [250])
        # Not assertEqual, which would show 30 MB.
        self.assertTrue(handler.contents[0] == body)
        self.assertEqual(client.protocol.connections.buffered, 0)


class OneReplyTests(SynchronousTestCase):
    """One reply for each command, and never one without, whatever is said and whatever the hooks say."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.integers(0, 3),
        st.lists(units, max_size=25),
        st.integers(0, 2**32),
        st.sampled_from([SMTP, LMTP]),
        st.booleans(),
    )
    def test_each_command_has_one_reply(
        self, begun: int, said: list[bytes], seed: int, protocol: type[SMTP], streams: bool
    ) -> None:
        greeting = b"EHLO c.example" if protocol is SMTP else b"LHLO c.example"
        said = [line + b"\r\n" for line in (greeting, b"MAIL FROM:<>", b"RCPT TO:<b@y.example>")[:begun]] + said
        client = connect(Whims(seed, streams), protocol, max_errors=1000, max_refusals=0, data_size_limit=60)
        client.read()
        for unit in said:
            command, content = (b"DATA\r\n", unit[6:]) if unit.startswith(b"DATA\r\n") else (unit, b"")
            accepted = client.protocol._accepted if protocol is LMTP else 1
            replies = self.say(client, command)
            if client.closed:
                break
            if unit.startswith(b"BDAT ") and b" LAST" in unit and accepted > 1 and len(replies) > 1:
                # RFC 2033 section 4.3.
                self.assertEqual(len(replies), accepted, unit)
            else:
                self.assertEqual(len(replies), 1, unit)
            if replies == [354]:
                self.assertEqual(len(self.say(client, content)), accepted if protocol is LMTP else 1, unit)
        client.lose()
        self.assertEqual(client.protocol.connections.buffered, 0)

    def say(self, client: Client, octets: bytes) -> list[int]:
        """Nothing is said before the last octet."""
        for index in range(len(octets) - 1):
            self.assertEqual(client.send(octets[index : index + 1]), b"", octets[: index + 1])
        return codes(client.send(octets[-1:]))


class ArgumentTests(SynchronousTestCase):
    def test_what_is_read(self) -> None:
        self.assertEqual(parse_chunk("0"), (0, False))
        self.assertEqual(parse_chunk("00017 \t last"), (17, True))
        self.assertEqual(parse_chunk("9" * 20 + " LAST"), (int("9" * 20), True))

    def test_what_is_not(self) -> None:
        for bad in (None, "", "x", "1x", "-1", "+1", "1 2", "1LAST", "9" * 21, "\u0661", "1 LAST x", "1\u00a0LAST"):
            self.assertRaises(SMTPReplyError, parse_chunk, bad)


class MemoryTests(SynchronousTestCase):
    def begin(self, first: bytes = b"x" * 100, **options: Any) -> Client:
        client = connect(Recorder(), **options)
        client.send(ENVELOPE)
        client.send(b"BDAT %d\r\n%b" % (len(first), first))
        return client

    def test_a_message_counts_until_it_is_over(self) -> None:
        for ending in (b"RSET\r\n", b"EHLO again.example\r\n", b"BDAT 0 LAST\r\n", b"QUIT\r\n"):
            client = self.begin()
            self.assertEqual(client.protocol.connections.buffered, 100)
            client.send(ending)
            if ending != b"QUIT\r\n":
                self.assertEqual(client.protocol.connections.buffered, 0, ending)
            client.lose()
            self.assertEqual(client.protocol.connections.buffered, 0, ending)

    def test_a_client_that_goes_leaves_nothing(self) -> None:
        for more in (b"", b"BDAT 50\r\nabc", b"BDAT 50", b"BDAT 50 LAST\r\n"):
            client = self.begin()
            client.send(more)
            client.lose()
            self.assertEqual(client.protocol.connections.buffered, 0, more)
            self.assertEqual(client.protocol.connections.open, set(), more)

    def test_too_much_for_the_server(self) -> None:
        client = self.begin(max_buffered=150)
        self.assertEqual(codes(client.send(b"BDAT 100\r\n" + b"y" * 100)), [452])
        self.assertEqual(client.protocol.connections.buffered, 0)
        self.assertEqual(codes(client.send(b"BDAT 5\r\nQUIT\nBDAT 5 LAST\r\nQUIT\n")), [452, 452])
        self.assertEqual(codes(client.send(ENVELOPE + b"BDAT 3 LAST\r\nabc")), [250, 250, 250, 250])
        self.assertEqual(client.protocol.event_handler.contents, [b"abc"])

    def test_a_refused_message_is_logged_and_counted_once(self) -> None:
        client = self.begin(data_size_limit=150)
        counts = client.protocol.connections.counts
        client.send(b"BDAT 100\r\n" + b"y" * 100)
        self.assertEqual(counts.refused, 1)
        client.send(b"BDAT 5\r\nQUIT\nBDAT 5 LAST\r\nQUIT\n")
        self.assertEqual(counts.refused, 1)


class LimitTests(SynchronousTestCase):
    def test_the_rate_holds_over_chunks_and_between_them(self) -> None:
        client = connect()
        client.send(ENVELOPE)
        for _ in range(13):
            client.send(b"BDAT 1\r\nx")
            clock_of(client).pump([1] * 5)
            if client.closed:
                break
        self.assertEqual(last_line(client.read()), "421 4.4.2 Too slow, closing the connection")

    def test_a_client_that_is_fast_enough(self) -> None:
        client = connect(Recorder())
        client.send(ENVELOPE)
        for _ in range(40):
            self.assertEqual(codes(client.send(b"BDAT 1000\r\n" + b"x" * 998 + b"\r\n")), [250])
            clock_of(client).pump([1] * 5)
        self.assertEqual(codes(client.send(b"BDAT 0 LAST\r\n")), [250])

    def test_a_refused_message_has_the_ordinary_timeout(self) -> None:
        client = connect(data_size_limit=1)
        client.send(ENVELOPE)
        self.assertEqual(codes(client.send(b"BDAT 2\r\nxx")), [552])
        clock_of(client).pump([1] * 200)
        self.assertFalse(client.closed)
        self.assertEqual(codes(client.send(b"RSET\r\n")), [250])

    def test_empty_chunks_achieve_nothing(self) -> None:
        client = connect()
        # EHLO has achieved nothing either.
        client.send(ENVELOPE)
        said = codes(client.send(b"BDAT 0\r\n" * 200))
        self.assertEqual((said[:99], said[99:]), ([250] * 99, [421]))
        self.assertTrue(client.closed)

    def test_the_server_stops_after_the_message(self) -> None:
        client = connect(Recorder())
        client.send(ENVELOPE + b"BDAT 3\r\nab")
        client.protocol.connections.drain(10)
        self.assertEqual(codes(client.send(b"c")), [250, 421])


class HookTests(SynchronousTestCase):
    def test_the_hooks_are_those_of_data(self) -> None:
        client = connect(hooks(handle_DATA=answering("554 5.7.1 Spam")))
        self.assertEqual(last_line(client.send(ENVELOPE + b"BDAT 1 LAST\r\nx")), "554 5.7.1 Spam")
        self.assertIs(state_of(client.protocol), State.READY)

    def test_bare_codes_get_the_fitting_enhanced_code(self) -> None:
        for status, said in (("550 no", "550 5.6.0 no"), ("552 big", "552 5.3.4 big"), ("250 OK", "250 2.0.0 OK")):
            client = connect(hooks(handle_DATA=answering(status)))
            self.assertEqual(last_line(client.send(ENVELOPE + b"BDAT 1 LAST\r\nx")), said)

    def test_a_hook_that_fails(self) -> None:
        client = connect(hooks(handle_DATA=raiser(KeyError("secret"))))
        said = last_line(client.send(ENVELOPE + b"BDAT 1\r\nxBDAT 1 LAST\r\ny"))
        self.assertTrue(said.startswith("451 4.3.0 "), said)
        self.assertNotIn("secret", said)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_hook_that_returns_nonsense(self) -> None:
        client = connect(hooks(handle_DATA=answering(42)))
        self.assertTrue(last_line(client.send(ENVELOPE + b"BDAT 1 LAST\r\nx")).startswith("451 "))
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 1)

    def test_commands_behind_the_last_chunk_wait_for_the_hook(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_DATA=promises))
        client.send(ENVELOPE)
        self.assertEqual(codes(client.send(b"BDAT 1\r\nxBDAT 1 LAST\r\nyNOOP\r\nMAIL FROM:<>\r\n")), [250])
        promises.made[0].callback("250 OK")
        self.assertEqual(codes(client.read()), [250, 250, 250])

    def test_a_hook_that_has_the_message_goes_on_without_its_client(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_DATA=promises))
        client.send(ENVELOPE + b"BDAT 1 LAST\r\nx")
        client.lose()
        self.assertEqual(promises.cancelled, [])
        self.assertEqual(client.protocol.connections.buffered, 1)
        promises.made[0].callback("250 OK")
        self.assertEqual(client.protocol.connections.buffered, 0)

    def test_a_hook_that_takes_too_long(self) -> None:
        client = connect(hooks(handle_DATA=lambda *arguments: Deferred()), hook_timeout=5)
        client.send(ENVELOPE + b"BDAT 1 LAST\r\nx")
        clock_of(client).pump([1] * 6)
        self.assertEqual(codes(client.read())[-1], 451)

    def test_decode_data(self) -> None:
        handler = Recorder()
        connect(handler, decode_data=True).send(ENVELOPE + b"BDAT 1\r\n\xc3BDAT 2 LAST\r\n\xa9\xff")
        self.assertEqual(handler.contents, ["\u00e9\udcff"])


class OverrideTests(SynchronousTestCase):
    """Whatever a subclass does, none of a chunk runs as a command."""

    def test_a_check_that_refuses(self) -> None:
        class Strict(SMTP):
            async def check_auth_needed(self, command: str) -> bool:
                if command == "BDAT":
                    raise SMTPReplyError(530, "5.7.0", "Not you")
                return False

        client = connect(protocol=Strict)
        self.assertEqual(codes(client.send(ENVELOPE + b"BDAT 6\r\nQUIT\r\nNOOP\r\n"))[-2:], [530, 250])

    def test_a_check_that_answers_by_itself(self) -> None:
        class Strict(SMTP):
            async def check_helo_needed(self, helo: str = "HELO") -> bool:
                if self._verb != "BDAT":
                    return False
                await self.push("503 5.5.1 No")
                return True

        client = connect(protocol=Strict)
        self.assertEqual(codes(client.send(ENVELOPE + b"BDAT 6\r\nQUIT\r\nNOOP\r\n"))[-2:], [503, 250])

    def test_a_check_that_refuses_one_chunk_of_many(self) -> None:
        class Strict(SMTP):
            calls = 0

            async def check_auth_needed(self, command: str) -> bool:
                if command == "BDAT":
                    Strict.calls += 1
                    if Strict.calls == 2:
                        raise SMTPReplyError(450, "4.7.0", "Not now")
                return False

        handler = Recorder()
        client = connect(handler, protocol=Strict)
        sent = b"BDAT 1\r\naBDAT 6\r\nQUIT\r\nBDAT 1\r\nbBDAT 1 LAST\r\nc"
        self.assertEqual(codes(client.send(ENVELOPE + sent))[-4:], [250, 450, 450, 450])
        self.assertEqual(handler.contents, [])
        self.assertEqual(codes(client.send(ENVELOPE + b"BDAT 1 LAST\r\nd"))[-1], 250)
        self.assertEqual(handler.contents, [b"d"])

    def test_a_check_that_refuses_the_first_chunk_of_many(self) -> None:
        """A message without its first chunk is not that message."""

        class Strict(SMTP):
            calls = 0

            async def check_auth_needed(self, command: str) -> bool:
                if command == "BDAT":
                    Strict.calls += 1
                    if Strict.calls == 1:
                        raise SMTPReplyError(450, "4.7.0", "Not now")
                return False

        for streams in (False, True):
            Strict.calls = 0
            handler = Recorder()
            seen: list[bytes] = []

            async def hook(server: Any, session: Any, envelope: Any, stream: Any, seen: list[bytes] = seen) -> str:
                seen.append(b"".join([chunk async for chunk in stream]))
                return "250 OK"

            client = connect(hooks(handle_DATA_STREAM=hook) if streams else handler, protocol=Strict)
            said = codes(client.send(ENVELOPE + b"BDAT 6\r\nQUIT\r\nBDAT 1\r\nbDATA\r\nBDAT 1 LAST\r\nc"))
            self.assertEqual(said[-4:], [450, 450, 503, 450])
            self.assertEqual(codes(client.send(ENVELOPE + b"BDAT 1 LAST\r\nd"))[-1], 250)
            self.assertEqual(seen if streams else handler.contents, [b"d"])
            self.assertEqual(client.protocol.connections.buffered, 0)

    def test_a_command_that_calls_super(self) -> None:
        class Mine(SMTP):
            async def smtp_BDAT(self, arg: str | None) -> None:
                await super().smtp_BDAT(arg)

        handler = Recorder()
        client = connect(handler, protocol=Mine)
        self.assertEqual(codes(client.send(b"BDAT 6\r\nQUIT\r\n")), [503])
        said = codes(client.send(ENVELOPE + b"BDAT 2\r\nabBDAT 1 LAST\r\nc"))
        self.assertEqual(said[-2:], [250, 250])
        self.assertEqual(handler.contents, [b"abc"])

    def test_a_command_that_refuses(self) -> None:
        class Mine(SMTP):
            async def smtp_BDAT(self, arg: str | None) -> None:
                await self.push("502 5.5.1 Not here")

        client = connect(Recorder(), protocol=Mine)
        self.assertEqual(codes(client.send(ENVELOPE + b"BDAT 6\r\nQUIT\r\nNOOP\r\n"))[-2:], [502, 250])

    def test_a_command_that_fails(self) -> None:
        class Mine(SMTP):
            async def smtp_BDAT(self, arg: str | None) -> None:
                raise KeyError("x")

        client = connect(protocol=Mine)
        self.assertEqual(codes(client.send(ENVELOPE + b"BDAT 6\r\nQUIT\r\nNOOP\r\n"))[-2:], [451, 250])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_lmtp_hooks_that_push_their_replies(self) -> None:
        class Pushing:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                await server.push("250 2.1.5 first")
                return "451 4.2.0 second"

        client = connect(Pushing(), LMTP)
        client.send(ENVELOPE.replace(b"EHLO", b"LHLO") + b"RCPT TO:<c@y.example>\r\n")
        said = client.send(b"BDAT 1\r\naBDAT 1 LAST\r\nb")
        self.assertEqual(codes(said), [250, 250, 451])

    def test_a_cancelled_hook_is_an_error_of_its_own(self) -> None:
        client = connect(hooks(handle_DATA=raiser(asyncio.CancelledError())))
        self.assertEqual(codes(client.send(ENVELOPE + b"BDAT 1 LAST\r\nx"))[-1], 451)
        self.flushLoggedErrors()
