"""twisted_smtpd.wire.content: which octets end a line of a message, and which only look like it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.content_model import (
    END,
    cut,
    model_bdat,
    model_data,
    octets,
    places,
    policies,
    read_bdat,
    read_data,
    splits,
)
from twisted_smtpd.wire.content import ChunkReader, DotReader
from twisted_smtpd.wire.line_ends import normalize

NULLMAILER = b"Subject: a\r\r\nFrom: b@c\r\r\n\r\r\nhi\r\r\n.\r\n"

line_ends = st.lists(st.sampled_from([b"\r", b"\r\r\r", b"\n", b"\r\n", b"a", b"."]), max_size=30).map(b"".join)


class LineEndTests(SynchronousTestCase):
    """With ``normalize`` CRs before a LF are one line end, and a CR alone is a blank."""

    def test_cr_cr_lf_is_one_line_end(self) -> None:
        """nullmailer sends so: an empty line stood after every line, and all headers but the first were body."""
        for pieces in splits(NULLMAILER):
            self.assertEqual(read_data(pieces)[0], b"Subject: a\r\nFrom: b@c\r\n\r\nhi\r\n")

    def test_a_cr_alone_starts_no_header_line(self) -> None:
        """A bare CR became CRLF, so that a subject could bring a Bcc."""
        for pieces in splits(b"Subject: hello\rBcc: victim@x\r\n\r\nhi" + END):
            self.assertEqual(read_data(pieces)[0], b"Subject: hello Bcc: victim@x\r\n\r\nhi\r\n")

    def test_chunks_have_the_same_line_ends(self) -> None:
        self.assertEqual(read_bdat([[b"a\r"], [b"\r\nb\rc\nd\r"], [b"\r"]])[0], b"a\r\nb c\r\nd  ")

    @settings(max_examples=400, deadline=None)
    @given(line_ends, places, st.sampled_from([None, 5, 20]), st.sampled_from([None, 4, 9]), policies)
    def test_long_runs_agree_with_the_model(
        self, content: bytes, where: list[int], size: int | None, line: int | None, policy: str
    ) -> None:
        options = {"size_limit": size, "line_length_limit": line, "bare_newline": policy}
        expected = model_data(content + END, size, line, policy)
        for pieces in ([content + END], cut(content + END, where), octets(content + END)):
            self.assertEqual(read_data(pieces, **options), expected)
        for chunks in ([[content]], [[piece] for piece in cut(content, where)], [octets(content)]):
            self.assertEqual(read_bdat(chunks, **options), model_bdat(content, size, line, policy))

    def test_runs_of_any_length_go_with_their_line_feed(self) -> None:
        for count in (*range(70), 127, 128, 4095, 4096, 100_000):
            self.assertEqual(normalize(b"a" + b"\r" * count + b"\nb"), b"a\r\nb", count)
            self.assertEqual(normalize(b"a" + b"\r" * count + b"b\r\r\r\n"), b"a" + b" " * count + b"b\r\n", count)

    def test_only_crs_take_no_memory_until_something_follows(self) -> None:
        for end, kept in ((b"\nb", b"a\r\nb"), (b"b", b"")):
            reader = DotReader(size_limit=1000)
            reader.feed(b"a")
            for _ in range(100):
                reader.feed(b"\r" * 10_000)
            self.assertEqual((reader.size, reader.error), (1, None))
            reader.feed(end)
            self.assertEqual((reader.getvalue(), reader.error), (kept, None if kept else "size"))

    def test_crs_before_a_large_piece_of_equal_lines(self) -> None:
        lines = (b"x" * 76 + b"\r\n") * 100
        for start, kept in ((b"a\r\r", b"a  "), (b"\r\r\n", b"\r\n")):
            reader = ChunkReader()
            reader.begin(len(start) + len(lines))
            reader.feed(start)
            reader.feed(lines)
            self.assertEqual(reader.getvalue(), kept + lines)

    def test_a_discarded_message_keeps_no_cr(self) -> None:
        reader = ChunkReader()
        reader.begin(3)
        reader.feed(b"a\r\r")
        reader.discard()
        reader.finish()
        self.assertEqual(reader.getvalue(), b"")
