"""The example of an inbox inside another program."""

from __future__ import annotations

import io
import re
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

EXAMPLE = Path(__file__).parents[2] / "examples" / "inbox_in_program.py"


def use(smtp_port: int, url: str) -> str:
    """Send a message, and ask the page for it."""
    import smtplib
    from urllib.request import urlopen

    with smtplib.SMTP("127.0.0.1", smtp_port, timeout=60) as client:
        client.sendmail("a@x.example", ["b@y.example"], "Subject: Lunch\r\n\r\nhello\r\n")
    with urlopen(f"{url}api/v1/messages", timeout=60) as answer:
        return answer.read().decode()  # type: ignore[no-any-return]


@skipUnless(EXAMPLE.is_file(), "the examples are not installed")
class InboxInProgramTests(TestCase):
    def test_mail_is_on_the_page(self) -> Deferred[None]:
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        main = runpy.run_path(str(EXAMPLE), run_name="example")["main"]
        done: Deferred[None] = Deferred()

        async def test() -> None:
            running = Deferred.fromCoroutine(main(reactor, 0, 0, ready=done))
            match: Any = re.fullmatch(r"mail to port (\d+), (http://\S+)\n", stdout.getvalue())
            try:
                self.assertIn('"Subject":"Lunch"', await deferToThread(use, int(match[1]), match[2]))
            finally:
                done.callback(None)
                await running

        return Deferred.fromCoroutine(test())
