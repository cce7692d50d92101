"""What docs/explanation/design.rst says about files, functions, calls, layers and time limits is true."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import skipUnless

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd
from tests.support.batches import BatchesTestCase
from tests.support.fakes import ENVELOPE, Recorder, connect
from tests.support.tls_dialog import Peer, SecureTestCase
from tests.support.tls_helpers import issue
from twisted_smtpd.cli.command import Options
from twisted_smtpd.protocol.timeouts import SITUATIONS
from twisted_smtpd.runtime.connections import Connections
from twisted_smtpd.tap import makeService
from twisted_smtpd.wire.replies import encode_known

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "design.rst"
PROJECT = PAGE.parents[2] / "pyproject.toml"
PACKAGE = Path(twisted_smtpd.__file__).parent

_STEP = re.compile(r"^#\. ``([\w/]+\.py)``: (``\w+``(?:, ``\w+``)*)", re.MULTILINE)

on_page = skipUnless(PAGE.is_file(), "the documentation is not installed")


def section(title: str, line: str = "=") -> str:
    """The text of one section of the page."""
    rest = PAGE.read_text(encoding="utf-8").partition(f"\n{title}\n{line * len(title)}\n")[2]
    assert rest, title
    return re.split(rf"\n\n[^\n]+\n{'[=-]' if line == '-' else line}+\n", rest, maxsplit=1)[0]


def steps(title: str) -> list[tuple[str, str]]:
    """File and function of each step of a walk."""
    walk = section(title, "-")
    found = _STEP.findall(walk)
    assert len(found) == len(re.findall(r"^#\.", walk, re.MULTILINE)), title
    return [(file, function) for file, functions in found for function in re.findall(r"\w+", functions)]


class Trace:
    """Notes which functions of the package are called while it is entered.

    :ivar calls: file and function of each call, in order.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def __enter__(self) -> Trace:
        self._former = sys.getprofile()
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._former)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("twisted_smtpd."):
            file = module.removeprefix("twisted_smtpd.").replace(".", "/")
            self.calls.append((f"{file}.py", frame.f_code.co_name))


@on_page
class PageTests(SynchronousTestCase):
    def test_the_tree_has_every_module_once(self) -> None:
        named = Counter(re.findall(r"\b\w+\.py\b", section("The folders").partition("\nThe tests are")[0]))
        files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent == PACKAGE]
        self.assertEqual(named, Counter(path.name for path in files))

    def test_the_layers_are_those_of_the_contract_and_have_every_module(self) -> None:
        block = re.search(r"::\n\n((?: {4}.*\n)+)", section("Layers"))
        contract = re.search(r"^layers = \[\n(.*?)^\]", PROJECT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        assert block is not None and contract is not None
        layers, checked = (
            [re.findall(r"[\w.]+", line) for line in found[1].splitlines()] for found in (block, contract)
        )
        self.assertEqual(layers, checked)
        named = {name.partition(".")[0] for layer in layers for name in layer}
        here = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
        self.assertEqual(named, here - {"__init__"})

    def test_the_table_of_time_limits_has_every_situation_in_order(self) -> None:
        rows = [" ".join(row.split()) for row in re.findall(r"^   \* - (.*)", section("Time limits"), re.MULTILINE)]
        self.assertEqual(rows, ["situation", *(situation.name for situation in SITUATIONS)])

    def test_the_files_and_private_names_in_the_text_exist(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        for file in re.findall(r"``((?:\w+/)*\w+\.py)``", text):
            homes = (PACKAGE, PACKAGE.parent, PACKAGE / "handlers")
            self.assertTrue(any((home / file).is_file() for home in homes), file)
        code = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
        names = set(re.findall(r"``(?:\w+\.)*(_[a-z]\w*)``", text))
        self.assertEqual(names - set(re.findall(r"\b_\w+", code)), set())


class _Walk(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        # Another test may have had the same reply.
        encode_known.cache_clear()

    def assertWalks(self, trace: Trace, *titles: str) -> None:
        """The steps of these walks are among the calls, in their order."""
        calls = iter(trace.calls)
        for title in titles:
            for step in steps(title):
                self.assertIn(step, calls, title)


@on_page
class SocketWalkTests(_Walk, BatchesTestCase):
    def test_a_mail_line(self) -> None:
        client, _ = self.serve(self.factory())
        client.sendall(b"EHLO client.example\r\n")
        self.reactor.turn()
        client.sendall(b"MAIL FROM:<other@example.com>\r\n")
        with Trace() as trace:
            self.reactor.turn()
        self.assertTrue(self.heard(client).endswith(b"250 2.1.0 OK\r\n"))
        self.assertWalks(trace, "A MAIL line")


@on_page
class WalkTests(_Walk, SecureTestCase):
    def test_an_octet_of_a_message(self) -> None:
        client = connect(Recorder())
        client.send(ENVELOPE + b"DATA\r\n")
        with Trace() as trace:
            self.assertEqual(client.send(b"x\r\n" * 1000 + b".\r\n"), b"250 2.0.0 OK\r\n")
        self.assertWalks(trace, "An octet of a message")

    def twist(self, *words: str) -> Peer:
        """A client of the server that a command line asks for."""
        options = Options(MemoryReactorClock())
        options.parseOptions(words)
        service: Any = makeService(options)
        service.factory.connections = Connections(self.clock)
        return self.join(service.factory)

    def test_an_option(self) -> None:
        with Trace() as trace:
            self.twist("-c", "sink", "--max-recipients=100").send(ENVELOPE)
        self.assertWalks(trace, "An option")

    def test_a_certificate(self) -> None:
        issued = issue("mx.example")
        path = self.write("both.pem", issued.pem, issued.key_pem)
        with Trace() as trace:
            client = self.twist("-c", "sink", f"--tlscert={path}")
            client.starttls()
        self.assertIsNotNone(client.protocol.session.ssl)
        self.assertWalks(trace, "A certificate")

    def test_a_time_limit(self) -> None:
        clock = Clock()
        with Trace() as trace:
            client = connect(clock=clock, timeout=30)
            while not client.closed:
                clock.advance(10)
        self.assertEqual(client.read()[:9], b"421 4.4.2")
        self.assertWalks(trace, "A time limit")
