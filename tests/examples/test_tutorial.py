"""The tutorial does what it says: its commands and programs are run, and what it shows is what is seen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import skipUnless

from tests.examples.test_examples import EXAMPLES
from tests.loopback.servers import HOME, LIMIT, MODULE, ServerCase

TUTORIAL = EXAMPLES / "tutorial"
PAGE = EXAMPLES.parent / "docs" / "tutorial" / "first-program.rst"


@skipUnless(TUTORIAL.is_dir() and PAGE.is_file(), "examples and documentation are not installed")
class TutorialTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        for path in TUTORIAL.glob("*.py"):
            shutil.copy(path, self.folder)

    def shop(self, port: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "shop.py"],
            cwd=self.folder,
            env={**os.environ, "SMTP_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    def test_catch_and_look(self) -> None:
        server = self.start(MODULE, "-l", "127.0.0.1:0", "-c", "inbox", "--", "--http", "127.0.0.1:0")
        self.read_until(server, "The inbox is at http://127.0.0.1:")
        line = self.read_until(server, "listens on 127.0.0.1:")
        done = self.shop(int(re.split(r"\D", line.partition("127.0.0.1:")[2])[0]))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.read_until(server, "message accepted from=<shop@example.com> to=<bart@example.com>")

    def test_a_handler_decides(self) -> None:
        server, port = self.serve(MODULE, "-c", "orders.Orders")
        self.assertEqual(self.shop(port).returncode, 0)
        self.read_until(server, "Order 4711 for bart@example.com")
        shop = self.folder / "shop.py"
        shop.write_text(shop.read_text().replace("bart@example.com", "bart@elsewhere.example"))
        done = self.shop(port)
        shown = re.findall(r"^    (smtplib\.SMTPRecipientsRefused: .*)$", PAGE.read_text(), re.MULTILINE)
        self.assertEqual(done.stderr.splitlines()[-1:], shown)
        self.read_until(server, '<bart@elsewhere.example>": 550 5.7.1 Mail for example.com only')

    def test_the_tests_pass(self) -> None:
        path = os.pathsep.join(filter(None, (HOME, os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "twisted_smtpd.testing.plugin", "test_shop.py"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("2 passed", done.stdout)

    def test_each_page_that_is_named_is_there(self) -> None:
        for name in re.findall(r":doc:`/([^`<]+)`", PAGE.read_text()):
            self.assertTrue(Path(PAGE.parents[1], f"{name}.rst").is_file(), name)
