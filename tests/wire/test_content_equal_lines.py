"""twisted_smtpd.wire.content: lines of the same length, which are checked together, hide nothing."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.content_model import END, NEXT, cut, model_data, places, policies, read_data
from twisted_smtpd.wire import content
from twisted_smtpd.wire.content import DotReader

LINE = b"x" * 76 + b"\r\n"
HEADER = b"Subject: hi\r\nX-Long: %b\r\n\r\n" % (b"y" * 100)

changes = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"", b"\n\r", b"\r\n."])),
    max_size=3,
)
heads = st.sampled_from([b"", b"\n", b"\r\n", b"a", HEADER, LINE[1:], b"z" * 3000 + b"\r\n"])
tails = st.sampled_from([b"", b"x", b"\r", b"xx\r\n--end--", b"z" * 3000, HEADER * 5])


class EqualLinesTests(SynchronousTestCase):
    """Mostly the reader looks at such lines all at once: it must see in them what it sees one by one."""

    def setUp(self) -> None:
        # The shortest piece that is looked at in this way; the model would need too long for the real one.
        patched = patch.object(content, "_LARGE", 4096)
        patched.start()
        self.addCleanup(patched.stop)

    # Without the search for a shorter example: the model is slow.
    @settings(max_examples=400, deadline=None, phases=(Phase.generate,))
    @given(st.integers(1, 120), heads, tails, changes, places, st.sampled_from([None, 78, 79, 121, 4000]), policies)
    def test_changed_anywhere_they_agree_with_the_model(
        self,
        length: int,
        head: bytes,
        tail: bytes,
        changes: list[tuple[int, bytes]],
        where: list[int],
        limit: int | None,
        policy: str,
    ) -> None:
        line = b"x" * length + b"\r\n"
        stream = head + line * (6000 // len(line)) + tail
        for place, octets in changes:
            place %= len(stream)
            stream = stream[:place] + octets + stream[place + max(1, len(octets)) :]
        stream += END + NEXT
        expected = model_data(stream, None, limit, policy)
        for pieces in ([stream], cut(stream, where[:2])):
            self.assertEqual(read_data(pieces, line_length_limit=limit, bare_newline=policy), expected)

    def test_a_bare_newline_at_each_place_of_a_line_is_seen(self) -> None:
        lines = LINE * 100
        for place in range(50 * len(LINE), 51 * len(LINE)):
            for octet in (b"\r", b"\n"):
                stream = lines[:place] + octet + lines[place + 1 :] + END + NEXT
                self.assertEqual(read_data([stream], bare_newline="reject"), model_data(stream, bare_newline="reject"))

    def test_with_bare_line_feeds_they_are_normalized(self) -> None:
        lines = (LINE[:-2] + b"\n") * 100
        self.assertEqual(read_data([lines + END])[0], LINE * 100 + b"\r\n")
        self.assertEqual(read_data([lines + END], bare_newline="reject")[1], "newline")

    def test_a_limit_of_their_length_is_kept_to(self) -> None:
        stream = HEADER + LINE * 100 + END
        self.assertIsNone(read_data([stream], line_length_limit=len(HEADER))[1])
        self.assertEqual(read_data([LINE * 100 + END], line_length_limit=len(LINE) - 1)[1:3], ("line", len(LINE) - 1))
        self.assertIsNone(read_data([LINE * 100 + END], line_length_limit=len(LINE))[1])
        self.assertEqual(read_data([b"a\r\n" + LINE * 100 + END], line_length_limit=len(LINE) - 1)[1], "line")

    def test_a_limit_of_size_is_kept_to(self) -> None:
        stream = LINE * 100 + END
        self.assertEqual(read_data([stream], size_limit=len(LINE) * 100 + 2)[1:3], (None, len(LINE) * 100 + 2))
        self.assertEqual(read_data([stream], size_limit=len(LINE) * 100)[1:3], ("size", len(LINE) * 100))

    def test_a_line_that_goes_on_from_piece_to_piece_is_measured_whole(self) -> None:
        lines = LINE * 100
        for limit, error in ((278, None), (277, "line")):
            reader = DotReader(line_length_limit=limit)
            reader.feed(lines + b"y" * 200)
            reader.feed(lines + END)
            self.assertEqual(reader.error, error)

    def test_those_of_base64_are_not_looked_at_one_by_one(self) -> None:
        """Else what is tested above would be something else."""
        looked_at = []
        with patch.object(content, "has_bare_newline", lambda piece: looked_at.append(piece)):
            read_data([HEADER + LINE * 1000 + b"x\r\n--end--" + END])
        self.assertLess(sum(map(len, looked_at)), 400)
