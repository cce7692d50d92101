"""The documentation of the REST interface: its commands work, and it has each group of routes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import skipUnless

from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue

from tests.inbox.api.test_threads import ThreadCase, test
from tests.support.inbox_api import message
from twisted_smtpd.inbox.api import dispatch, events, failures, schemas, thumbnails, waiting
from twisted_smtpd.inbox.api.table import ROUTES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "inbox-api.rst"
EXAMPLE = PAGE.parents[2] / "examples" / "inbox_wait.py"
BASE = "http://127.0.0.1:8026"
# curl's status when it has listened for as long as it was told.
TIMED_OUT = 28


def examples() -> Iterator[tuple[str, str]]:
    """Each command of the page, and what it prints where the page shows that."""
    for block in re.findall(
        r"^\.\. code-block:: console\n\n((?:(?:    .*)?\n)+)", PAGE.read_text("utf-8"), re.MULTILINE
    ):
        for entry in re.split(r"^    \$ ", block, flags=re.MULTILINE)[1:]:
            lines = [line[4:] if line.startswith("    ") else line for line in entry.rstrip().split("\n")]
            length = lines.index("END") + 1 if "<<'END'" in lines[0] else 1
            yield "\n".join(lines[:length]), "\n".join(lines[length:])


@skipUnless(PAGE.is_file(), "the documentation is not installed")
class PageTests(ThreadCase):
    timeout = 60

    @skipUnless(shutil.which("curl") and shutil.which("bash"), "curl or bash is not installed")
    @test
    async def test_its_commands(self) -> None:
        await self.start()
        self.store.add(
            message(
                content="To: bart@example.com\nSubject: welcome\n\nYour code is 123456.\n"
                "See https://example.com/confirm?t=1 and https://example.com/\n"
            )
        )
        folder = self.mktemp()
        os.mkdir(folder)
        bash = shutil.which("bash")
        assert bash is not None
        commands = list(examples())
        self.assertGreater(len(commands), 15)
        for command, printed in commands:
            said, wrong, status = await getProcessOutputAndValue(
                bash, ("-c", command.replace(BASE, self.base)), {**os.environ, "TOKEN": "t"}, folder
            )
            self.assertEqual(status, TIMED_OUT if "--max-time" in command else 0, (command, wrong))
            if printed:
                self.assertEqual(said.decode(), printed, command)

    @skipUnless(EXAMPLE.is_file(), "the examples are not installed")
    @test
    async def test_the_example_that_waits(self) -> None:
        await self.start(tokens={"t": None})
        environment = {**os.environ, "INBOX_TOKEN": "t"}

        async def run(*words: str) -> tuple[str, str, int]:
            command = (str(EXAMPLE), self.base, *words)
            said, wrong, status = await getProcessOutputAndValue(sys.executable, command, environment)
            return said.decode(), wrong.decode(), status

        running = Deferred.fromCoroutine(run("subject:welcome"))
        self.store.add(message("Welcome", "Your code is 123456: https://example.com/confirm"))
        self.assertEqual(await running, ("Welcome\n123456\nhttps://example.com/confirm\n", "", 0))
        self.assertEqual(await run("subject:other", "0.1"), ("", "no message came in 0.1 seconds\n", 1))

    def test_it_has_each_group_of_routes(self) -> None:
        groups = re.findall(r"^\.\. api-routes:: (\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)
        self.assertEqual(sorted(groups), sorted({route.group for route in ROUTES}))

    def test_its_bounds(self) -> None:
        text = PAGE.read_text("utf-8")
        for words, number in (
            ("IDs in a body                       {:,}", schemas.MAX_IDS),
            ("recipients of ``send``, ``release`` {:,}", schemas.MAX_ITEMS),
            ("requests that wait                  {:,};", waiting.MAX_WAITING),
            ("clients that listen                 {:,}", events.MAX_LISTENERS),
            ("failures                            {:,}", failures.MAX_FAILURES),
            ("20 MiB, {:,.0f} million pixels", thumbnails.MAX_PIXELS / 1e6),
            ("{:,} events or 1 MiB", events.MAX_KEPT),
            ("A comment every {:.0f} seconds", events.KEEP_ALIVE),
            ("disconnected when {:.0f} KiB", events.MAX_PENDING / 1024),
            ("a body                              {:.0f} MiB", dispatch.MAX_BODY / 2**20),
        ):
            self.assertIn(words.format(number), text)
