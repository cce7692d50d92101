"""The conformance suite: what the RFCs ask of a server, as scripted dialogs in the ``rfc*.txt`` files of this folder.

Each dialog is run with a client that waits for each answer, then with all that the client says in one segment, octet by
octet, and in random splits: the answers have to be the same.  :mod:`tests.conformance.script` says how a file is
written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conformance.script import Script, Turn, scripts
from tests.support.auth_helpers import authenticator
from tests.support.dialogs import HANDLERS as COMMON
from tests.support.dialogs import SPLITS
from tests.support.fakes import Recorder
from tests.support.tls_dialog import Peer, SecureTestCase
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("rfc*.txt"))
# What FUTURERELEASE says at the moment.
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
BEFORE = (b"EHLO client.example\r\n", b"MAIL FROM:<a@x.example>\r\n", b"RCPT TO:<b@y.example>\r\n")


class Asked(Recorder):
    """Has the hooks that are offered as extensions, and notes how they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def handle_VRFY(self, server: Any, session: Any, envelope: Any, address: str) -> str:
        self.calls.append(("VRFY", address))
        return "250 J\u00f6rg <b@y.example>"

    def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 J\u00f6rg"

    def handle_EXPN(self, server: Any, session: Any, envelope: Any, name: str) -> str:
        self.calls.append(("EXPN", name))
        return "250-J\u00f6rg <b@y.example>\n250 Anne <c@y.example>"

    def handle_ETRN(self, server: Any, session: Any, envelope: Any, name: str) -> str:
        self.calls.append(("ETRN", name))
        return "252 OK, pending messages for node started"


class Closed(Recorder):
    """Turns every client away."""

    def handle_CONNECT(self, server: Any, session: Any, envelope: Any) -> str:
        return "554 No SMTP service here"


HANDLERS: dict[str, Callable[[], Recorder]] = {**COMMON, "asked": Asked, "closed": Closed}


class ConformanceCase(SecureTestCase):
    maxDiff = None

    def check(self, script: Script) -> None:
        self.assertTrue(script.turns)
        peer, handler = self.begin(script)
        expected = b""
        for turn in script.turns:
            if turn.handshake:
                self.assertEqual(peer.handshake(), b"")
            said = peer.send(turn.sent)
            self.assertIsNone(turn.complaint(said))
            self.assertEqual(peer.closed or peer.aborted, turn.closes, turn.sent[:80])
            expected += said
        self.end(script, peer, handler)
        for split in SPLITS:
            peer, handler = self.begin(script)
            said = b""
            for number, segment in enumerate(script.segments):
                if number:
                    said += peer.handshake()
                for part in split(segment):
                    if not peer.closed:
                        said += peer.send(part)
            self.assertEqual(_TIME.sub(b"", said).decode(), _TIME.sub(b"", expected).decode(), split.__name__)
            self.end(script, peer, handler)

    def begin(self, script: Script) -> tuple[Peer, Recorder]:
        options = dict(script.options)
        if options.pop("auth", False):
            options["authenticator"] = authenticator
        if options.pop("tls", False):
            options["tls_context"] = self.options()
        handler = HANDLERS[script.handler]()
        peer = self.join(self.factory(handler, LMTP if script.lmtp else SMTP, **options))
        for line in BEFORE[: script.before]:
            said = peer.send(line.replace(b"EHLO", b"LHLO") if script.lmtp else line)
            self.assertTrue(said.startswith(b"250"), said)
        return peer, handler

    def end(self, script: Script, peer: Peer, handler: Recorder) -> None:
        self.assertEqual([envelope.original_content for envelope in handler.envelopes], script.messages)
        envelope = handler.envelopes[-1] if handler.envelopes else peer.protocol.envelope
        names = {"envelope": envelope, "recipient": (envelope.recipients or [None])[-1]}
        for truth in script.sees:
            self.assertTrue(eval(truth, {**names, "calls": getattr(handler, "calls", [])}), truth)
        peer.lose()
        self.assertEqual(peer.protocol.connections.buffered, 0)


class SuiteTests(SecureTestCase):
    """The suite itself."""

    def test_every_rfc_has_a_file(self) -> None:
        wanted = "1870 1985 2033 2034 2852 2920 3030 3207 3461 4865 4954 5321 6152 6531 6710 7293 8689 9422"
        self.assertEqual([path.stem.removeprefix("rfc") for path in FILES], wanted.split())

    def test_a_wrong_answer_is_noticed(self) -> None:
        turn = Turn(b"NOOP\r\n", lines=["250 *"])
        self.assertIsNone(turn.complaint(b"250 OK\r\n"))
        for wrong in (b"", b"251 OK\r\n", b"250 OK\r\n250 OK\r\n", b"250-OK\r\n"):
            self.assertIsNotNone(turn.complaint(wrong), wrong)
        turn = Turn(b"EHLO x\r\n", has=["SIZE *"], has_not=["DSN"])
        self.assertIsNone(turn.complaint(b"250-x\r\n250 SIZE 5\r\n"))
        for wrong in (b"", b"250 x\r\n", b"250-x\r\n250-SIZE 5\r\n250 DSN\r\n"):
            self.assertIsNotNone(turn.complaint(wrong), wrong)

    def test_a_line_that_means_nothing_is_an_error(self) -> None:
        for line in ("X: y", "nonsense", "protocol: uucp", "after: DATA"):
            self.assertRaises((ValueError, LookupError), Script("0", "1", "x").read, line)


def _add_tests() -> None:
    """A test case for each file, and a test for each dialog."""
    for path in FILES:
        tests: dict[str, Any] = {"__doc__": f"RFC {path.stem.removeprefix('rfc')}."}
        for script in scripts(path):

            def test(self: ConformanceCase, script: Script = script) -> None:
                self.check(script)

            test.__name__ = f"test_{script.name}"
            assert test.__name__ not in tests, f"{path.name} has {script.rule!r} twice"
            tests[test.__name__] = test
        name = f"RFC{path.stem.removeprefix('rfc')}Tests"
        globals()[name] = type(name, (ConformanceCase,), tests)


_add_tests()
