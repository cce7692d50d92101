"""Runs the dialogs in ``tests/protocol/dialogs``, one file per rule, however their octets are split.

:mod:`tests.support.dialogs` says how such a file is written.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.dialogs import HANDLERS, SPLITS, Script
from tests.support.fakes import Client, Recorder, connect

FOLDER = Path(__file__).parent / "dialogs"


class DialogTests(SynchronousTestCase):
    """A test for each file; the methods are made below."""

    maxDiff = None

    def check(self, path: Path) -> None:
        script = Script.read(path)
        self.assertTrue(script.turns, path.name)
        self.step_by_step(script)
        for split in SPLITS:
            client, handler = self.begin(script)
            for part in split(script.sent):
                if client.closed:
                    break
                client.protocol.dataReceived(part)
            self.assertEqual(client.read().decode(), script.said.decode(), split.__name__)
            self.end(script, client, handler)

    def step_by_step(self, script: Script) -> None:
        """A client that waits for each answer gets the one that is due."""
        client, handler = self.begin(script)
        for sent, said, closes in script.turns:
            self.assertEqual(client.send(sent).decode(), said.decode(), sent[:80])
            if closes:
                self.assertTrue(client.closed, sent[:80])
        self.end(script, client, handler)

    def begin(self, script: Script) -> tuple[Client, Recorder]:
        handler = HANDLERS[script.handler]()
        client = connect(handler, script.protocol, **script.options)
        client.read()
        return client, handler

    def end(self, script: Script, client: Client, handler: Recorder) -> None:
        self.assertEqual(client.closed, script.closes)
        self.assertEqual([envelope.original_content for envelope in handler.envelopes], script.messages)
        client.lose()
        self.assertEqual(client.protocol.connections.buffered, 0)

    def test_a_line_that_means_nothing_is_an_error(self) -> None:
        self.assertRaises(ValueError, Script()._read_line, "X: y")
        self.assertRaises(IndexError, Script()._read_line, "S: 250 OK")


def _add_tests() -> None:
    for path in sorted(FOLDER.glob("*.txt")):

        def test(self: DialogTests, path: Path = path) -> None:
            self.check(path)

        test.__name__ = f"test_{path.stem}"
        setattr(DialogTests, test.__name__, test)


_add_tests()
