"""twisted_smtpd.wire.content: where DATA and BDAT end, and what is kept of them."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.content_model import (
    BARE,
    END,
    LOOKALIKES,
    NEXT,
    cut,
    every_split,
    limits,
    model_bdat,
    model_data,
    octets,
    places,
    policies,
    read_bdat,
    read_data,
    splits,
    streams,
)
from twisted_smtpd.wire.content import ChunkReader, ContentReader, DotReader


class DotModelTests(SynchronousTestCase):
    """The reader agrees with a model that looks at each octet."""

    @settings(max_examples=1500, deadline=None)
    @given(streams, places, limits, limits, policies)
    def test_any_split_of_any_stream_agrees_with_the_model(
        self, stream: bytes, where: list[int], size: int | None, line: int | None, policy: str
    ) -> None:
        stream += END + NEXT
        options: dict[str, Any] = {"size_limit": size, "line_length_limit": line, "bare_newline": policy}
        expected = model_data(stream, size, line, policy)
        self.assertEqual(read_data([stream], **options), expected)
        self.assertEqual(read_data(cut(stream, where), **options), expected)
        self.assertEqual(read_data(octets(stream), **options), expected)

    def test_every_short_stream_agrees_with_the_model(self) -> None:
        for length in range(6):
            for letters in itertools.product(b"\r\n.a", repeat=length):
                for policy, behind in itertools.product(("normalize", "reject"), (b"", END + NEXT)):
                    stream = bytes(letters) + END + behind
                    expected = model_data(stream, None, None, policy)
                    self.assertEqual(read_data([stream], bare_newline=policy), expected)
                    self.assertEqual(read_data(octets(stream), bare_newline=policy), expected)

    def test_a_short_message_with_commands_behind_it_is_taken_at_once(self) -> None:
        reader = DotReader()
        self.patch(reader.__class__, "_accept", lambda *arguments: self.fail("not taken at once"))
        self.assertEqual(reader.feed(b"a: b\r\n\r\nc.d\r\n.\r\nMAIL FROM:<>\r\n"), b"MAIL FROM:<>\r\n")
        self.assertEqual(reader.getvalue(), b"a: b\r\n\r\nc.d\r\n")

    def test_every_split_of_hard_streams_agrees_with_the_model(self) -> None:
        for stream in (b"\r\n..\r\n.\n\r.\r\n.\r\n", b"..\r\r\n.\0\r\n.\r\n", b"\r\r\n.\r\r\n..\r\n.\r\n"):
            for pieces in every_split(stream):
                self.assertEqual(read_data(pieces), model_data(stream))

    def test_a_long_content_in_large_reads_agrees_with_the_model(self) -> None:
        content = b"".join(b"%s line %d.\r\n" % (b".." if n % 7 == 0 else b"a", n) for n in range(3000)) + b"a\nb\rc"
        stream = content + END + NEXT
        for step in (1000, 4095, 4096, 4097, 65536):
            pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
            self.assertEqual(read_data(pieces, line_length_limit=1000), model_data(stream, None, 1000))


class EndOfDataTests(SynchronousTestCase):
    """RFC 5321 section 4.1.1.4: CRLF.CRLF, or .CRLF as the very first line."""

    def test_an_immediate_end_leaves_nothing(self) -> None:
        for pieces in every_split(b".\r\nQUIT"):
            self.assertEqual(read_data(pieces), (b"", None, 0, b"QUIT"))

    def test_the_crlf_before_the_dot_is_content(self) -> None:
        for pieces in every_split(b"a\r\n.\r\nQUIT"):
            self.assertEqual(read_data(pieces), (b"a\r\n", None, 3, b"QUIT"))

    def test_an_empty_line_is_content(self) -> None:
        for pieces in every_split(b"\r\n.\r\n"):
            self.assertEqual(read_data(pieces), (b"\r\n", None, 2, b""))

    def test_only_the_first_end_counts(self) -> None:
        for rest in (b".\r\n", END, b"\r\n.a\r\n", b"b" + END, b"b\r\n.x" + END, b"." * 9 + END + END):
            for pieces in splits(b"a\r\n..b" + END + rest):
                self.assertEqual(read_data(pieces), (b"a\r\n.b\r\n", None, 7, rest))
            for pieces in splits(b"a" + END + rest):
                self.assertEqual(read_data(pieces), (b"a\r\n", None, 3, rest))

    def test_a_bare_cr_before_the_end_does_not_hide_it(self) -> None:
        for pieces in splits(b"a\r\r\n.\r\nQUIT"):
            self.assertEqual(read_data(pieces), (b"a\r\n", None, 3, b"QUIT"))

    def test_the_end_is_none_until_its_last_octet(self) -> None:
        reader = DotReader()
        for octet in octets(b"a\r\n.\r"):
            self.assertIsNone(reader.feed(octet))
        self.assertIsNone(reader.feed(b""))
        self.assertEqual(reader.feed(b"\n"), b"")

    def test_no_more_than_an_unfinished_end_is_held_back(self) -> None:
        reader = DotReader()
        for content in (b"a", b"b\r\n", b"c\r\n.", b"d\r\n.\r", b"e\r", b"f.", b"g\n"):
            reader.feed(content)
        self.assertEqual(reader.take(), [b"a", b"b\r\nc\r\nd\r\n e f.g\r\n"])


class StuffingTests(SynchronousTestCase):
    """RFC 5321 section 4.5.2: the first of the dots that start a line is removed."""

    def assertContent(self, raw: bytes, content: bytes) -> None:
        for pieces in splits(raw + END):
            self.assertEqual(read_data(pieces)[:2], (content + b"\r\n", None))

    def test_after_crlf(self) -> None:
        self.assertContent(b"a\r\n..b", b"a\r\n.b")

    def test_on_the_first_line(self) -> None:
        self.assertContent(b"..b", b".b")

    def test_on_line_after_line(self) -> None:
        self.assertContent(b"..\r\n..\r\n..", b".\r\n.\r\n.")

    def test_a_single_dot_before_text_goes_as_well(self) -> None:
        self.assertContent(b"a\r\n.b", b"a\r\nb")

    def test_only_one_dot_goes(self) -> None:
        self.assertContent(b"...\r\n....", b"..\r\n...")

    def test_never_inside_a_line(self) -> None:
        self.assertContent(b"a..b", b"a..b")

    def test_never_after_a_bare_newline(self) -> None:
        self.assertContent(b"a\n..b\r..c", b"a\r\n..b ..c")


class SmugglingTests(SynchronousTestCase):
    """What only looks like an end of data is content, wherever it is; what follows it is never a command."""

    def in_the_middle(self, raw: bytes, kept: bytes) -> None:
        content = b"a" + kept + NEXT + b"b\r\n"
        for pieces in splits(b"a" + raw + NEXT + b"b" + END + b"QUIT"):
            self.assertEqual(read_data(pieces), (content, None, len(content), b"QUIT"))

    def as_the_very_first(self, raw: bytes, kept: bytes) -> None:
        content = kept + NEXT
        for pieces in splits(raw + NEXT[:-2] + END + b"QUIT"):
            self.assertEqual(read_data(pieces), (content, None, len(content), b"QUIT"))

    def as_the_very_last(self, raw: bytes, kept: bytes) -> None:
        for pieces in splits(b"a" + raw + END + b"QUIT"):
            self.assertEqual(read_data(pieces)[::3], model_data(b"a" + raw + END + b"QUIT")[::3])

    def after_the_size_limit(self, raw: bytes, kept: bytes) -> None:
        for pieces in splits(b"aaaa" + raw + NEXT + b"b" + END + b"QUIT"):
            self.assertEqual(read_data(pieces, size_limit=3), (b"", "size", 3, b"QUIT"))

    def after_the_line_limit(self, raw: bytes, kept: bytes) -> None:
        for pieces in splits(b"aaaa" + raw + NEXT + b"b" + END + b"QUIT"):
            self.assertEqual(read_data(pieces, line_length_limit=3), (b"", "line", 3, b"QUIT"))

    def when_rejected(self, raw: bytes, kept: bytes) -> None:
        bare = any(LOOKALIKES[name][0] == raw for name in BARE)
        for pieces in splits(b"a" + raw + NEXT + b"b" + END + b"QUIT"):
            content, error, _, rest = read_data(pieces, bare_newline="reject")
            self.assertEqual((bool(content), error, rest), (not bare, "newline" if bare else None, b"QUIT"))

    def when_discarded(self, raw: bytes, kept: bytes) -> None:
        for pieces in splits(b"a" + raw + NEXT + END + b"QUIT"):
            self.assertEqual(read_data(pieces, discard=True), (b"", None, 0, b"QUIT"))

    def test_the_first_line_dot_LF_is_content(self) -> None:
        self.as_the_very_first(b".\n", b"\r\n")

    def test_the_first_line_dot_CR_is_content(self) -> None:
        self.as_the_very_first(b".\r", b" ")

    def test_the_first_line_dot_CRCRLF_is_content(self) -> None:
        self.as_the_very_first(b".\r\r\n", b"\r\n")

    def test_the_first_line_dot_NUL_CRLF_is_content(self) -> None:
        self.as_the_very_first(b".\0\r\n", b"\0\r\n")

    def test_the_first_line_NUL_dot_CRLF_is_content(self) -> None:
        self.as_the_very_first(b"\0.\r\n", b"\0.\r\n")

    def test_the_matrix_has_both_kinds(self) -> None:
        self.assertEqual((len(BARE), len(LOOKALIKES) - len(BARE)), (13, 5))


def _add_the_matrix() -> None:
    """A test method for each lookalike in each place, so that a failure names both."""
    for place in (
        "in_the_middle",
        "as_the_very_first",
        "as_the_very_last",
        "after_the_size_limit",
        "after_the_line_limit",
        "when_rejected",
        "when_discarded",
    ):
        for name, (raw, kept) in LOOKALIKES.items():

            def test(self: SmugglingTests, place: str = place, raw: bytes = raw, kept: bytes = kept) -> None:
                getattr(self, place)(raw, kept)

            setattr(SmugglingTests, f"test_{name}_{place}_is_no_end", test)


_add_the_matrix()


class NewlineTests(SynchronousTestCase):
    """Bare CR and LF."""

    def test_normalized_to_crlf_or_a_blank(self) -> None:
        for pieces in splits(b"a\nb\rc\r\nd\n\re\r\r\nf" + END):
            self.assertEqual(read_data(pieces)[0], b"a\r\nb c\r\nd\r\n e\r\nf\r\n")

    def test_rejected_each(self) -> None:
        for bare in (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\n"):
            for pieces in splits(b"a" + bare + b"b" + END + b"QUIT"):
                result = read_data(pieces, bare_newline="reject")
                self.assertEqual(result[:2] + result[3:], (b"", "newline", b"QUIT"))

    def test_crlf_is_not_rejected(self) -> None:
        self.assertEqual(read_data([b"a\r\n\r\nb" + END], bare_newline="reject")[:2], (b"a\r\n\r\nb\r\n", None))

    def test_content_without_any_newline(self) -> None:
        reader = DotReader(bare_newline="reject")
        reader.feed(b"abc")
        self.assertEqual((reader.getvalue(), reader.error), (b"abc", None))

    def test_nul_and_8bit_octets_are_kept(self) -> None:
        content = bytes(c for c in range(256) if c not in b"\r\n")
        for pieces in (octets(content + END), [content + END]):
            self.assertEqual(read_data(pieces, bare_newline="reject")[0], content + b"\r\n")

    def test_unicode_line_separators_are_no_newlines(self) -> None:
        content = b"a\x85b\x0bc\x0cd\x1ce\xe2\x80\xa8f\r\n"
        self.assertEqual(read_data([content[:-2] + END], bare_newline="reject")[:2], (content, None))

    def test_an_unknown_policy_is_refused(self) -> None:
        self.assertRaises(ValueError, DotReader, bare_newline="Reject")
        self.assertRaises(ValueError, ChunkReader, bare_newline="")


class LimitTests(SynchronousTestCase):
    """A limit is the last value that passes, in every split."""

    def assertLimit(self, stream: bytes, kept: bytes, **options: Any) -> None:
        for pieces in splits(stream):
            self.assertEqual(read_data(pieces, **options), (kept, None, len(kept), b"QUIT"))

    def assertViolation(self, stream: bytes, error: str, size: int, **options: Any) -> None:
        for pieces in splits(stream):
            self.assertEqual(read_data(pieces, **options), (b"", error, size, b"QUIT"))

    def test_size_at_the_limit(self) -> None:
        self.assertLimit(b"abc" + END + b"QUIT", b"abc\r\n", size_limit=5)

    def test_size_one_over_the_limit(self) -> None:
        self.assertViolation(b"abcd" + END + b"QUIT", "size", 5, size_limit=5)

    def test_size_counts_unstuffed_octets(self) -> None:
        self.assertLimit(b"..a\r\n..b" + END + b"QUIT", b".a\r\n.b\r\n", size_limit=8)
        self.assertViolation(b"..a\r\n..b" + END + b"QUIT", "size", 7, size_limit=7)

    def test_size_counts_normalized_octets(self) -> None:
        self.assertLimit(b"a\nb" + END + b"QUIT", b"a\r\nb\r\n", size_limit=6)
        self.assertViolation(b"a\nb" + END + b"QUIT", "size", 5, size_limit=5)

    def test_line_at_the_limit(self) -> None:
        self.assertLimit(b"aaa\r\nb\r\nccc" + END + b"QUIT", b"aaa\r\nb\r\nccc\r\n", line_length_limit=5)

    def test_line_one_over_the_limit(self) -> None:
        self.assertViolation(b"aaaa" + END + b"QUIT", "line", 5, line_length_limit=5)
        self.assertViolation(b"aaa\r\nb\r\ncccc" + END + b"QUIT", "line", 13, line_length_limit=5)

    def test_line_counts_unstuffed_octets(self) -> None:
        self.assertLimit(b"..aa\r\n..aa" + END + b"QUIT", b".aa\r\n.aa\r\n", line_length_limit=5)
        self.assertViolation(b"a\r\n..aaa" + END + b"QUIT", "line", 8, line_length_limit=5)

    def test_line_counts_a_normalized_newline_as_crlf(self) -> None:
        self.assertLimit(b"aaa\nbbb" + END + b"QUIT", b"aaa\r\nbbb\r\n", line_length_limit=5)
        self.assertViolation(b"aaaa\nb" + END + b"QUIT", "line", 5, line_length_limit=5)

    def test_none_and_zero_are_no_limit(self) -> None:
        content = b"a" * 100_000 + b"\r\n"
        for limit in (None, 0):
            result = read_data([content[:-2] + END], size_limit=limit, line_length_limit=limit)
            self.assertEqual(result, (content, None, len(content), b""))

    def test_the_first_violation_is_the_error(self) -> None:
        options: dict[str, Any] = {"size_limit": 10, "line_length_limit": 5, "bare_newline": "reject"}
        self.assertViolation(b"a\nbbbbbbbbbbbb" + END + b"QUIT", "newline", 1, **options)
        self.assertViolation(b"bbbbbbbbbbbb\na" + END + b"QUIT", "line", 5, **options)
        self.assertViolation(b"a\r\nb\r\nc\r\nddddddd\n" + END + b"QUIT", "size", 10, **options)

    def test_two_violations_by_one_octet_have_an_order(self) -> None:
        self.assertViolation(b"aaaaaa" + END + b"QUIT", "size", 5, size_limit=5, line_length_limit=5)
        self.assertViolation(b"aaaaa\n" + END + b"QUIT", "newline", 5, size_limit=5, bare_newline="reject")

    def test_an_unfinished_line_counts_over_reads(self) -> None:
        reader = DotReader(line_length_limit=1000)
        for _ in range(10):
            reader.feed(b"a" * 100)
        self.assertIsNone(reader.error)
        reader.feed(b"a")
        self.assertEqual((reader.error, reader.size), ("line", 1000))


class KeepingTests(SynchronousTestCase):
    """take(), getvalue(), discard() and the memory behind them."""

    def test_take_hands_over_once(self) -> None:
        reader = DotReader()
        reader.feed(b"one")
        self.assertEqual(reader.take(), [b"one"])
        self.assertEqual(reader.take(), [])
        reader.feed(b"two")
        self.assertEqual((reader.take(), reader.size), ([b"two"], 6))

    def test_take_hands_over_no_empty_pieces(self) -> None:
        reader = DotReader()
        for piece in (b"", b"\r", b"\na", b"", END):
            reader.feed(piece)
        self.assertEqual(reader.take(), [b"\r\na", b"\r\n"])
        reader = DotReader()
        reader.feed(b".\r\n")
        self.assertEqual(reader.take(), [])

    def test_getvalue_keeps_and_nothing_gets_lost_after_it(self) -> None:
        reader = DotReader()
        self.assertEqual(reader.getvalue(), b"")
        self.assertEqual(reader.take(), [])
        for piece in (b"one", b"two"):
            reader.feed(piece)
        self.assertEqual((reader.getvalue(), reader.getvalue()), (b"onetwo", b"onetwo"))
        reader.feed(b"three")
        self.assertEqual(reader.getvalue(), b"onetwothree")

    def test_getvalue_of_one_large_piece_is_that_piece(self) -> None:
        content = b"a" * 100_000
        reader = ChunkReader()
        reader.begin(len(content))
        reader.feed(content)
        self.assertIs(reader.getvalue(), content)

    def test_small_and_large_pieces_stay_in_order(self) -> None:
        pieces = [b"a", b"b" * 5000, b"c", b"d" * 4095, b"e" * 4096, b"f", b"g"]
        reader = DotReader()
        for piece in pieces:
            reader.feed(piece)
        self.assertEqual(b"".join(reader.take()), b"".join(pieces))

    def test_single_octets_are_gathered(self) -> None:
        reader = DotReader()
        for _ in range(200_000):
            reader.feed(b"a")
        pieces = reader.take()
        self.assertEqual(sum(map(len, pieces)), 200_000)
        self.assertLess(len(pieces), 10)

    def test_large_pieces_between_small_ones_do_not_scatter_them(self) -> None:
        reader = DotReader()
        for _ in range(100):
            for _ in range(500):
                reader.feed(b"a")
            reader.feed(b"b" * 4096)
        self.assertLessEqual(len(reader.take()), 201)

    def test_an_error_drops_what_was_kept(self) -> None:
        reader = DotReader(size_limit=10_000)
        for piece in (b"a" * 5000, b"b", b"c", b"d" * 5000):
            reader.feed(piece)
        self.assertEqual((reader.error, reader.take(), reader.getvalue()), ("size", [], b""))

    def test_the_first_error_stays(self) -> None:
        self.assertEqual(read_data([b"aaaa", b"a\n", b"a" * 100, END], size_limit=3, bare_newline="reject")[1], "size")

    def test_discard_drops_and_keeps_nothing_more(self) -> None:
        reader = DotReader(size_limit=4, line_length_limit=4, bare_newline="reject")
        for piece in (b"ab", b"c"):
            reader.feed(piece)
        reader.discard()
        self.assertIsNone(reader.feed(b"a\nbcdefgh"))
        self.assertEqual(reader.feed(END + b"QUIT"), b"QUIT")
        self.assertEqual((reader.getvalue(), reader.take(), reader.error, reader.size), (b"", [], None, 3))

    def test_the_base_reads_nothing(self) -> None:
        self.assertRaises(TypeError, ContentReader)


class ChunkTests(SynchronousTestCase):
    """BDAT (RFC 3030)."""

    @settings(max_examples=1000, deadline=None)
    @given(streams, places, places, limits, limits, policies, st.booleans())
    def test_any_chunks_of_any_content_agree_with_the_model(
        self,
        content: bytes,
        chunk_places: list[int],
        read_places: list[int],
        size: int | None,
        line: int | None,
        policy: str,
        binary: bool,
    ) -> None:
        options: dict[str, Any] = {
            "size_limit": size,
            "line_length_limit": line,
            "bare_newline": policy,
            "binary": binary,
        }
        expected = model_bdat(content, size, line, policy, binary)
        chunks = cut(content, chunk_places)
        self.assertEqual(read_bdat([[content]], **options), expected)
        self.assertEqual(read_bdat([[chunk] for chunk in chunks], **options), expected)
        self.assertEqual(read_bdat([cut(chunk, read_places) for chunk in chunks], **options), expected)
        self.assertEqual(read_bdat([octets(chunk) for chunk in chunks], **options), expected)

    def test_the_rest_is_what_follows_the_chunk(self) -> None:
        reader = ChunkReader()
        reader.begin(5)
        self.assertIsNone(reader.feed(b"abc"))
        self.assertEqual(reader.feed(b"deBDAT 0 LAST\r\n"), b"BDAT 0 LAST\r\n")
        reader.begin(0)
        self.assertEqual(reader.feed(b"QUIT\r\n"), b"QUIT\r\n")
        reader.finish()
        self.assertEqual(reader.getvalue(), b"abcde")

    def test_an_empty_chunk_is_complete_at_once(self) -> None:
        reader = ChunkReader()
        reader.begin(0)
        self.assertEqual(reader.feed(b""), b"")

    def test_dots_are_content(self) -> None:
        content = b"..a\r\n.\r\n..\r\n" + NEXT
        for pieces in splits(content):
            self.assertEqual(read_bdat([pieces]), (content, None, len(content)))

    def test_no_crlf_is_added_at_the_end(self) -> None:
        self.assertEqual(read_bdat([[b"a\r\nb"]])[0], b"a\r\nb")

    def test_a_crlf_split_over_two_chunks_is_one_newline(self) -> None:
        for empty in ([], [[b""]]):
            chunks = [[b"a\r"], *empty, [b"\nb"]]
            self.assertEqual(read_bdat(chunks, bare_newline="reject"), (b"a\r\nb", None, 4))

    def test_a_cr_before_another_chunk_is_a_bare_one(self) -> None:
        self.assertEqual(read_bdat([[b"a\r"], [b"b"]])[0], b"a b")
        self.assertEqual(read_bdat([[b"a\r"], [b"b"]], bare_newline="reject"), (b"", "newline", 1))

    def test_a_cr_at_the_very_end_is_a_bare_one(self) -> None:
        self.assertEqual(read_bdat([[b"a\r"]]), (b"a ", None, 2))
        self.assertEqual(read_bdat([[b"a\r"]], bare_newline="reject"), (b"", "newline", 1))
        self.assertEqual(read_bdat([[b"a\r"]], size_limit=1), (b"", "size", 1))

    def test_a_line_goes_on_over_chunks(self) -> None:
        self.assertEqual(read_bdat([[b"aaa"], [b"bb\r"], [b"\n"]], line_length_limit=7)[1], None)
        self.assertEqual(read_bdat([[b"aaa"], [b"bb\r"], [b"\n"]], line_length_limit=6)[1:], ("line", 6))

    def test_the_last_line_at_the_limit_needs_no_crlf(self) -> None:
        self.assertEqual(read_bdat([[b"a\r\nbbbb"]], line_length_limit=4), (b"a\r\nbbbb", None, 7))
        self.assertEqual(read_bdat([[b"a\r\nbbbbb"]], line_length_limit=4), (b"", "line", 7))

    def test_size_over_chunks(self) -> None:
        self.assertEqual(read_bdat([[b"aaa"], [b"bb"]], size_limit=5), (b"aaabb", None, 5))
        self.assertEqual(read_bdat([[b"aaa"], [b"bbb"]], size_limit=5), (b"", "size", 5))

    def test_binary_content_has_no_newlines_and_no_lines(self) -> None:
        content = b"\r\r\n\n\0" + b"a" * 5000 + b"\r"
        options: dict[str, Any] = {"binary": True, "line_length_limit": 3, "bare_newline": "reject"}
        for chunks in ([[content]], [octets(content)]):
            self.assertEqual(read_bdat(chunks, **options), (content, None, len(content)))
        self.assertEqual(read_bdat([[content]], binary=True, size_limit=4), (b"", "size", 4))

    def test_a_refused_chunk_is_still_consumed(self) -> None:
        for refuse in (True, False):
            reader = ChunkReader(size_limit=1)
            if refuse:
                reader.discard()
            reader.begin(12)
            self.assertIsNone(reader.feed(b"MAIL FROM"))
            self.assertEqual(reader.feed(b":<>QUIT"), b"QUIT")
            reader.finish()
            self.assertEqual((reader.getvalue(), reader.error), (b"", None if refuse else "size"))

    def test_a_held_cr_is_dropped_with_the_rest(self) -> None:
        reader = ChunkReader(bare_newline="reject")
        reader.begin(2)
        reader.feed(b"a\r")
        reader.discard()
        reader.finish()
        self.assertEqual((reader.take(), reader.error), ([], None))
