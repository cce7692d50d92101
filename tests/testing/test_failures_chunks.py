"""What a test asks to go wrong, for messages that come with BDAT (RFC 3030); and the transcript of such messages."""

from __future__ import annotations

from twisted.logger import globalLogPublisher

from tests.protocol.test_chunking import chunks
from tests.support.content_model import cut
from tests.support.fakes import Client, codes
from tests.testing.test_failures import DIALOG, DoubleCase
from twisted_smtpd.handlers.sink import Sink
from twisted_smtpd.testing.failures import Failures
from twisted_smtpd.testing.protocol import LMTPDouble, SMTPDouble

ENVELOPE = b"".join(DIALOG[verb] for verb in ("EHLO", "MAIL", "RCPT"))
BODY = b"Subject: hi\r\n\r\nhello\r\n"


class ChunksCase(DoubleCase):
    def ready(self, cls: type[SMTPDouble] = SMTPDouble) -> Client:
        """A client whose message may begin."""
        client = self.connect(cls)
        client.send(ENVELOPE.replace(b"EHLO", b"LHLO") if cls is LMTPDouble else ENVELOPE)
        return client


class ContentTests(ChunksCase):
    def test_a_message_that_is_cut_off_is_not_kept(self) -> None:
        for pieces in ([BODY], cut(BODY, [1, 7, 8])):
            for octets in range(len(BODY) + 3):
                for step in (1, 1000):
                    with self.fail_at("CONTENT", "drop", octets=octets, times=1) as failure:
                        client = self.ready()
                        said = chunks(pieces)
                        replies = b"".join(client.send(said[i : i + step]) for i in range(0, len(said), step))
                    self.assertEqual((client.closed, failure.used), (True, 1), (octets, step))
                    # One reply for each chunk before the one in which it happens.
                    self.assertLess(len(codes(replies)), len(pieces))
                    client.lose()
        self.assertEqual(self.mail.messages, [])

    def test_it_happens_at_its_octet(self) -> None:
        self.fail_at("CONTENT", "421 4.3.2 going down", octets=5)
        client = self.ready()
        self.assertEqual(codes(client.send(b"BDAT 3\r\nSub")), [250])
        self.assertEqual(client.send(b"BDAT 10\r\nj"), b"")
        self.assertEqual(client.send(b"ec"), b"421 4.3.2 going down\r\n")
        self.assertTrue(client.closed)
        self.assertIn("-- in the middle of the message, after 5 octets", str(client.protocol.transcript))

    def test_an_empty_last_chunk_is_the_end(self) -> None:
        self.fail_at("CONTENT", "421 4.3.2 going down", octets=500)
        client = self.ready()
        self.assertEqual(codes(client.send(chunks([BODY, b""]))), [250, 421])
        self.assertEqual(self.mail.messages, [])

    def test_a_stall_and_a_reset(self) -> None:
        self.fail_at("CONTENT", "stall", times=1)
        client = self.ready()
        self.assertEqual(client.send(chunks([BODY]) + b"NOOP\r\n"), b"")
        self.assertFalse(client.closed)
        self.fail_at("CONTENT", "reset", times=1)
        client = self.ready()
        client.send(chunks([BODY]))
        self.assertTrue(client.aborted)

    def test_rset_begins_anew(self) -> None:
        self.fail_at("CONTENT", "drop", octets=8, times=1)
        client = self.ready()
        self.assertEqual(codes(client.send(b"BDAT 3\r\nSubRSET\r\n")), [250, 250])
        self.assertEqual(codes(client.send(ENVELOPE + chunks([BODY])))[-1], 250)
        self.assertEqual(len(self.mail.messages), 1)

    def test_only_where_there_is_content(self) -> None:
        failure = self.fail_at("CONTENT", "drop", times=1)
        client = self.connect()
        said = client.send(DIALOG["EHLO"] + DIALOG["MAIL"] + chunks([BODY]))
        self.assertEqual((codes(said)[-1], failure.used, client.closed), (503, 0, False))
        client = self.ready()
        self.assertEqual(codes(client.send(b"BDAT x\r\n")), [501])


class CommandTests(ChunksCase):
    def test_a_refused_chunk_is_read(self) -> None:
        for what in ("452 4.2.2 Mailbox full", b"garbage\r\n", "greylist"):
            self.failures.clear()
            self.fail_at("BDAT", what, times=1)
            client = self.ready()
            said = client.send(b"BDAT 6\r\nQUIT\r\nNOOP\r\n")
            self.assertTrue(said.endswith(b"250 2.0.0 OK\r\n"), (what, said))
            self.assertFalse(client.closed, what)

    def test_the_message_of_a_refused_chunk_is_refused(self) -> None:
        for pieces in ([BODY, b"more"], [b"", BODY, b"more"]):
            self.failures.clear()
            self.fail_at("BDAT", "452 4.2.2 Mailbox full", match=f"BDAT {len(BODY)}", times=1)
            said = self.ready().send(chunks(pieces))
            self.assertEqual(codes(said)[-2:], [452, 452], pieces)
        self.assertEqual(self.mail.messages, [])

    def test_a_slow_or_split_reply(self) -> None:
        for what in ("slow", "split"):
            self.failures.clear()
            self.fail_at("BDAT", what, times=1)
            client = self.ready()
            said = client.send(chunks([BODY]))
            for _ in range(200):
                self.clock.advance(1)
                said += client.read()
            self.assertEqual(codes(said), [250], what)

    def test_without_chunking(self) -> None:
        self.fail_at("EHLO", "without CHUNKING")
        client = self.connect()
        self.assertNotIn(b"CHUNKING", client.send(DIALOG["EHLO"]))
        self.assertEqual(codes(client.send(b"BDAT 6\r\nQUIT\r\n")), [521])
        self.assertTrue(client.closed)


class MessageTests(ChunksCase):
    def test_message_and_answer(self) -> None:
        self.fail_at("MESSAGE", "554 5.7.1 spam", times=1)
        self.fail_at("ANSWER", "451 4.3.0 later", times=1)
        for expected, kept in ((554, 0), (451, 1), (250, 2)):
            said = self.ready().send(chunks(cut(BODY, [5])))
            self.assertEqual((codes(said), len(self.mail.messages)), ([250, expected], kept))

    def test_in_lmtp_each_recipient_has_an_answer(self) -> None:
        self.fail_at("MESSAGE", "552 5.2.2 full", match="carol")
        client = self.ready(LMTPDouble)
        client.send(b"RCPT TO:<carol@example.com>\r\n")
        self.assertEqual(codes(client.send(chunks(cut(BODY, [5])))), [250, 250, 552])


class TranscriptTests(ChunksCase):
    def test_each_chunk_is_noted(self) -> None:
        client = self.ready()
        client.send(b"BDAT 3\r\nSub")
        client.send(b"BDAT 19 LAST\r\n" + BODY[3:])
        lines = client.protocol.transcript.lines
        self.assertEqual(
            lines[lines.index("C: BDAT 3") :],
            (
                "C: BDAT 3",
                "C: (3 octets of a chunk)",
                "S: 250 2.0.0 Chunk received",
                "C: BDAT 19 LAST",
                "C: (19 octets of a chunk)",
                "S: 250 2.0.0 OK",
            ),
        )

    def test_data_is_noted_as_before(self) -> None:
        client = self.ready()
        client.send(DIALOG["DATA"])
        client.send(DIALOG["MESSAGE"])
        lines = client.protocol.transcript.lines
        self.assertEqual(lines[-3:], ("C: (22 octets of message)", "C: .", "S: 250 2.0.0 OK"))

    def test_a_stream_is_noted_too(self) -> None:
        class Streaming(Sink):
            async def handle_DATA_STREAM(
                self, server: object, session: object, envelope: object, stream: object
            ) -> str:
                return "250 OK"

        protocol = SMTPDouble(Streaming(), clock=self.clock, hostname="mx.example")
        protocol.failures = Failures()
        client = Client(protocol, "127.0.0.1")
        client.send(ENVELOPE + DIALOG["DATA"] + DIALOG["MESSAGE"])
        self.assertIn("C: .", protocol.transcript.lines)

    def test_the_log_has_the_dialog_only_where_it_is_asked_for(self) -> None:
        for trace in (False, True):
            said: list[str] = []

            def observe(event: dict[str, object], said: list[str] = said) -> None:
                said.append(str(event.get("line", "")))

            globalLogPublisher.addObserver(observe)
            try:
                client = self.connect(trace=trace)
                client.send(ENVELOPE + chunks([BODY]))
            finally:
                globalLogPublisher.removeObserver(observe)
            self.assertEqual("(22 octets of a chunk)" in said, trace)
