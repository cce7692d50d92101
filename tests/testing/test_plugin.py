"""The plugin for pytest, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd
from tests.test_package import loaded_by

HOME = str(Path(twisted_smtpd.__file__).parent.parent)
LIMIT = 60  # seconds, for a test that hangs

SEND = """
import smtplib
def send(server):
    with smtplib.SMTP(server.hostname, server.port) as client:
        client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\\n\\nIt works.\\n")
"""

# What stands in for smtpdfix: a plugin that is loaded before this one or after it, with a fixture of the same name.
OTHER = """
import pytest
@pytest.fixture
def smtpd():
    return "theirs"
"""


@skipUnless(find_spec("pytest"), "pytest is not installed")
class PluginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        (self.folder / "helpers.py").write_text(SEND)

    def run_tests(self, text: str, *options: str, ini: str = "", **environment: str) -> str:
        (self.folder / "test_it.py").write_text(f"import pytest\nfrom helpers import send\n{text}")
        (self.folder / "pytest.ini").write_text(f"[pytest]\n{ini}")
        path = os.pathsep.join((HOME, *filter(None, (os.environ.get("PYTHONPATH"),))))
        plain = {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = (
            sys.executable,
            "-m",
            "pytest",
            *options,
            "-p",
            "twisted_smtpd.testing.plugin",
            "-p",
            "no:cacheprovider",
        )
        run = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **plain, **environment},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        return run.stdout + run.stderr

    def test_a_test_needs_no_line_more_than_its_own(self) -> None:
        text = "def test(smtpd):\n    send(smtpd)\n    assert smtpd.messages[0]['Subject'] == 'Hello'\n"
        self.assertIn("1 passed", self.run_tests(text))

    def test_servers_of_a_module_and_a_session_and_each_its_own(self) -> None:
        text = """
def test_one(smtpd, mail_server, smtpd_module, smtpd_session):
    servers = smtpd, mail_server, smtpd_module, smtpd_session
    assert len({server.port for server in servers}) == 4
    for server in servers: send(server)
def test_two(smtpd, smtpd_module, smtpd_session):
    assert [len(server.messages) for server in (smtpd, smtpd_module, smtpd_session)] == [0, 1, 1]
"""
        self.assertIn("2 passed", self.run_tests(text))

    def test_options_come_from_the_marker_the_ini_file_and_the_environment(self) -> None:
        text = """
@pytest.mark.smtpd(timeout=3, data_size_limit=17)
def test(smtpd, smtpd_session):
    assert (smtpd.timeout, smtpd_session.timeout) == (3, 2)
    assert smtpd.url.startswith("lmtp:")
    import smtplib
    with smtplib.LMTP(smtpd.hostname, smtpd.port) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "17"
        assert "starttls" not in client.esmtp_features
        with pytest.raises(smtplib.SMTPAuthenticationError): client.login("anne", "wrong")
        client.login("anne", "secret")
"""
        ini = "smtpd_options =\n    timeout = 1\n    users = anne:secret\n    starttls = no\n"
        self.assertIn("1 passed", self.run_tests(text, ini=ini, TWISTED_SMTPD_TESTING="timeout=2 lmtp=true"))

    def test_an_option_without_a_value_is_a_usage_error(self) -> None:
        output = self.run_tests("", TWISTED_SMTPD_TESTING="timeout")
        self.assertIn("ERROR: smtpd_options, or TWISTED_SMTPD_TESTING: name=value is wanted, not 'timeout'", output)
        self.assertNotIn("Traceback", output)

    def test_a_test_that_fails_shows_its_mail(self) -> None:
        output = self.run_tests("def test(smtpd):\n    send(smtpd)\n    assert False\n")
        self.assertIn("- mail of the fixture smtpd -", output)
        self.assertIn("  1. <anne@example.com> to bart@example.com: 'Hello'", output)

    def test_of_two_fixtures_of_one_name_the_ini_file_chooses(self) -> None:
        package = self.folder / "smtpdfix_like"
        package.mkdir()
        (package / "__init__.py").write_text(OTHER)
        # The name under which smtpdfix registers itself.
        (self.folder / "conftest.py").write_text("")
        load = """
import sys, pytest
import smtpdfix
if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:], plugins=[]))
"""
        (self.folder / "smtpdfix.py").write_text(OTHER)
        (self.folder / "run.py").write_text(load)
        text = "def test(smtpd, mail_server):\n    assert (smtpd == 'theirs') is {theirs}\n    send(mail_server)\n"
        for order in (("-p", "smtpdfix"), ()):
            for choice, theirs in (("", True), ("smtpdfix", True), ("twisted_smtpd", False)):
                ini = f"smtpd_fixture = {choice}\n" if choice else ""
                output = self.run_tests(text.format(theirs=theirs), "-p", "smtpdfix", ini=ini)
                self.assertIn("1 passed", output, (order, choice))
        self.assertIn(
            "smtpd_fixture is twisted_smtpd or smtpdfix, not 'x'", self.run_tests("", ini="smtpd_fixture = x\n")
        )

    def test_twisted_is_not_loaded_before_a_fixture_is_used(self) -> None:
        modules = loaded_by("import twisted_smtpd.testing.plugin")
        self.assertIn("twisted_smtpd.testing", modules)
        self.assertEqual({name for name in modules if name.partition(".")[0] in ("twisted", "zope", "OpenSSL")}, set())
        text = "import sys\ndef test():\n    assert 'twisted' not in sys.modules\n"
        self.assertIn("1 passed", self.run_tests(text))
