"""Slices: nothing is lost, lines stay whole, and what is done for each is what is done for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.wire import slices as module
from twisted_smtpd.wire.sending import end_lines, stuff_dots
from twisted_smtpd.wire.slices import SLICE, rest_of, slices

CONTENT = st.lists(st.sampled_from([b".", b"\r\n", b"\n", b"\r", b"x" * 5, b"\r\n."])).map(b"".join)


class SlicesTests(SynchronousTestCase):
    def test_each_has_whole_lines(self) -> None:
        for line in (b"\r\n", b"x" * 78 + b"\r\n", b"x" * SLICE + b"\r\n", b"x" * 3 * SLICE + b"\r\n"):
            content = line * 5000 if len(line) < 100 else line * 3
            for whole in (content, content + b"rest"):
                pieces = list(slices(whole))
                self.assertEqual(b"".join(pieces), whole)
                self.assertTrue(all(piece.endswith(b"\r\n") for piece in pieces[:-1]))
                self.assertTrue(all(SLICE <= len(piece) <= SLICE + len(line) for piece in pieces[:-1]))

    def test_text_is_cut_as_well(self) -> None:
        text = "\u00e4\n" * SLICE
        self.assertEqual([len(piece) for piece in slices(text)], [SLICE + 2, SLICE - 2])
        self.assertEqual("".join(slices(text)), text)

    def test_no_content_has_no_slice(self) -> None:
        self.assertEqual((list(slices(b"")), list(slices("")), list(slices(b"x"))), ([], [], [b"x"]))

    @given(CONTENT)
    def test_content_prepared_in_slices_is_content_prepared_at_once(self, content: bytes) -> None:
        whole = stuff_dots(end_lines(content))
        for size in (0, 1, 7):
            self.patch(module, "SLICE", size)
            self.assertEqual(stuff_dots(end_lines(content)), whole)
            self.patch(module, "SLICE", SLICE)


class RestTests(SynchronousTestCase):
    def test_it_is_what_a_slice_is(self) -> None:
        for size in (0, 1, SLICE, SLICE + 5, 3 * SLICE + 7):
            for content in (bytes(range(256)) * (size // 256 + 1), "aé" * size):
                for start in (0, 1, 5, size - 1, size, size + 9):
                    place = max(start, 0)
                    self.assertEqual(rest_of(content, place), content[place:])
