"""A log that nobody reads stops nobody; a file that was moved away is opened again."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.logs.forms import json_line, untimed_text_line
from twisted_smtpd.logs.setup import Observer, start_logging
from twisted_smtpd.logs.writer import KEPT, LineWriter, fcntl, open_log


class WriterTests(SynchronousTestCase):
    def pipe(self) -> tuple[int, int]:
        reader, writer = os.pipe()
        for end in (reader, writer):
            self.addCleanup(lambda end=end: os.close(end))
        return reader, writer

    def test_a_pipe_that_nobody_reads(self) -> None:
        reader, end = self.pipe()
        writer = LineWriter(end)
        line = "x" * 1000
        for _ in range(4000):
            writer.write(line)
        self.assertGreater(writer.lost, 100)
        self.assertLessEqual(writer._size, KEPT)
        read = b""
        os.set_blocking(reader, False)
        lost = writer.lost
        while True:
            try:
                read += os.read(reader, 2**16)
            except BlockingIOError:
                if not writer._kept:
                    break
                writer.flush()
        writer.write("after")
        read += os.read(reader, 2**16)
        *lines, told, after, rest = read.decode().split("\n")
        self.assertEqual(set(lines), {line})
        self.assertEqual(len(lines) + lost, 4000)
        self.assertEqual(
            (told, after, rest), (f"{lost:,} lines of the log were lost here: its reader was too slow", "after", "")
        )

    def test_what_the_encoding_has_not_is_escaped(self) -> None:
        reader, end = self.pipe()
        LineWriter(end, "ascii").write("from=<\u0430nne@x>")
        self.assertEqual(os.read(reader, 100), b"from=<\\u0430nne@x>\n")

    def test_a_reader_that_has_gone(self) -> None:
        reader, end = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, end)
        writer = LineWriter(end)
        writer.write("x")
        writer.close()
        self.assertFalse(writer._kept)

    def test_a_file_that_was_moved_away(self) -> None:
        path = Path(self.mktemp())
        writer = LineWriter(open_log(str(path)), path=str(path))
        self.addCleanup(lambda: os.close(writer._descriptor))
        writer.write("one")
        path.rename(path.with_suffix(".1"))
        writer._looked = -10.0
        writer.write("two")
        self.assertEqual((path.with_suffix(".1").read_text(), path.read_text()), ("one\n", "two\n"))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode) & 0o007, 0)


class ObserverTests(SynchronousTestCase):
    def test_levels_and_twisteds_own_lines(self) -> None:
        from twisted.logger import LogLevel

        said: list[str] = []

        class Notes:
            def write(self, line: str) -> None:
                said.append(line)

        def tell(level: str, namespace: str, least: str) -> list[str]:
            said.clear()
            event = {"log_format": "x", "log_level": LogLevel.levelWithName(level), "log_namespace": namespace}
            Observer(untimed_text_line, Notes(), least)(event)  # type: ignore[arg-type]
            return list(said)

        self.assertEqual(tell("info", "twisted_smtpd.service", "info"), ["info x"])
        self.assertEqual(tell("info", "mine", "info"), ["info x"])
        self.assertEqual(tell("info", "mine", "warn"), [])
        self.assertEqual(tell("info", "twisted.internet", "info"), [])
        self.assertEqual(tell("info", "twisted.internet", "debug"), ["info x"])
        self.assertEqual(tell("warn", "twisted.internet", "info"), ["warn x"])

    def test_what_can_not_be_is_an_error(self) -> None:
        self.assertRaises(ValueError, start_logging, "xml")
        self.assertRaises(ValueError, start_logging, "text", "loud")
        self.assertRaises(OSError, start_logging, "text", "info", "/nonesuch/log")

    def test_an_event_without_text_is_no_line(self) -> None:
        self.assertEqual((untimed_text_line({}), json_line({})), ("", ""))


_WRITER = """\
import os, sys
from twisted_smtpd.logs.writer import LineWriter

letter, lock, ready = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
writer = LineWriter(1, lock=lock)
for number in range(40):
    writer.write(letter * (20_000 if number % 2 else 100))
# Most of it is kept now: nobody reads before all are here.
os.write(ready, b"x")
while writer._kept:
    writer.close()
"""


class SharedPipeTests(SynchronousTestCase):
    """Workers write their lines to the pipe of their parent."""

    if fcntl is None:
        skip = "there are no workers on this system"

    def test_lines_of_several_processes_are_not_mixed(self) -> None:
        reader, end = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # So small that no long line gets through at once.
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
        wait, ready = os.pipe()
        with tempfile.TemporaryFile() as lock, open(reader, "rb") as log:
            writers = [
                subprocess.Popen(
                    [sys.executable, "-c", _WRITER, letter, str(lock.fileno()), str(ready)],
                    stdout=end,
                    pass_fds=(lock.fileno(), ready),
                )
                for letter in "abc"
            ]
            os.close(end)
            os.close(ready)
            for _ in writers:
                self.assertEqual(os.read(wait, 1), b"x")
            lines = log.read().decode().splitlines()
            for writer in writers:
                self.assertEqual(writer.wait(60), 0)
        os.close(wait)
        self.assertEqual(len(lines), 120)
        self.assertEqual({(line[0], len(set(line))) for line in lines}, {("a", 1), ("b", 1), ("c", 1)})
        self.assertEqual({len(line) for line in lines}, {100, 20_000})
