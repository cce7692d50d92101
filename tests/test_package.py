"""What ``import twisted_smtpd`` gives, and costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import twisted_smtpd
from twisted_smtpd import auth, handlers, tls


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; sys.path[:] = {sys.path!r}; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


# What few servers need: each of these takes milliseconds to load.
SELDOM_USED = {
    "email.policy",
    "mailbox",
    "stringprep",
    "twisted.mail",
    "twisted.web",
    "twisted_smtpd.auth.authenticators",
    "twisted_smtpd.auth.exchange",
    "twisted_smtpd.auth.hashes",
    "twisted_smtpd.auth.mechanisms",
    "twisted_smtpd.auth.passwords",
    "twisted_smtpd.auth.scram",
    "twisted_smtpd.handlers.maildir",
    "twisted_smtpd.handlers.proxy",
    "twisted_smtpd.handlers.webhook",
    "twisted_smtpd.tls.certificates",
    "twisted_smtpd.tls.pem",
    "twisted_smtpd.wire.parameter_values",
    "twisted_smtpd.wire.proxy_protocol",
    "twisted_smtpd.workers.supervisor",
}
# The same for programs that have no command line.
OF_COMMAND_LINE = {"argparse", "twisted.application.service", "twisted.cred", "twisted_smtpd.service"}


class PackageTests(SynchronousTestCase):
    def test_each_public_name_is_there_and_listed(self) -> None:
        self.assertLessEqual(set(twisted_smtpd.__all__), set(dir(twisted_smtpd)))
        for name in set(twisted_smtpd.__all__) - {"__version__"}:
            self.assertEqual(getattr(twisted_smtpd, name).__name__, name)

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        error = self.assertRaises(AttributeError, getattr, twisted_smtpd, "nonesuch")
        self.assertEqual(str(error), "module 'twisted_smtpd' has no attribute 'nonesuch'")

    def test_only_a_first_import_puts_garbage_collections_off(self) -> None:
        statement = (
            "import gc, twisted_smtpd; gc.collect(); gc.set_threshold(0, 0, 0); twisted_smtpd.SMTP; "
            "gc.enable(); first = gc.get_count()[0]; kept = [[] for _ in range(2000)]; twisted_smtpd.SMTP; "
            "print(first < 300, gc.get_count()[0] > 1000, gc.get_freeze_count(), gc.isenabled())"
        )
        code = f"import sys; sys.path[:] = {sys.path!r}; {statement}"
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        self.assertEqual(said.split(), ["True", "True", "0", "True"])

    def test_the_version_is_in_one_place(self) -> None:
        try:
            installed = version("twisted-smtpd")
        except PackageNotFoundError:
            raise SkipTest("not installed") from None
        self.assertEqual(installed, twisted_smtpd.__version__)

    def test_wire_loads_nothing_of_twisted(self) -> None:
        modules = loaded_by(
            "import twisted_smtpd.wire.commands, twisted_smtpd.wire.content, twisted_smtpd.wire.replies,"
            " twisted_smtpd.wire.addresses"
        )
        self.assertIn("twisted_smtpd.wire.content", modules)
        self.assertNotIn("twisted", modules)

    def test_no_import_installs_a_reactor(self) -> None:
        modules = loaded_by("import twisted_smtpd.tap; from twisted_smtpd.handlers import *")
        self.assertIn("twisted_smtpd.tap", modules)
        self.assertNotIn("twisted.internet.reactor", modules)

    def test_without_docstrings_the_server_can_be_imported(self) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from twisted_smtpd.smtp import SMTP; print(SMTP.__doc__)"
        run = subprocess.run([sys.executable, "-OO", "-c", code], check=True, capture_output=True, text=True)
        self.assertEqual(run.stdout, "None\n")

    def test_a_controller_loads_nothing_that_few_servers_need(self) -> None:
        modules = loaded_by("import twisted_smtpd.controller")
        self.assertIn("twisted_smtpd.smtp", modules)
        self.assertEqual(modules & (SELDOM_USED | OF_COMMAND_LINE), set())

    def test_a_server_for_tests_starts_without_what_only_some_tests_need(self) -> None:
        names = loaded_by(
            "from twisted_smtpd.testing import MailServer; MailServer().__enter__().__exit__(None, None, None)"
        )
        late = {"auth.credentials", "store.outline", "store.query", "store.summary", "testing.messages"}
        late = {f"twisted_smtpd.{name}" for name in late} | {"email.policy", "twisted.internet.ssl"}
        self.assertEqual(late & names, set())
        self.assertIn("twisted_smtpd.testing.server", names)

    def test_what_is_withheld_from_a_reactor_is_there_for_others(self) -> None:
        code = (
            "import sys, threading\n"
            "from twisted_smtpd.on_demand import withheld\n"
            "with withheld('twisted.internet.ssl'):\n"
            "    from twisted.internet import posixbase\n"
            "    other = threading.Thread(target=lambda: __import__('twisted.internet.ssl'))\n"
            "    assert 'twisted.internet.ssl' not in sys.modules\n"
            "    other.start()\n"
            "    other.join()\n"
            "    assert 'twisted.internet.ssl' in sys.modules\n"
            "from twisted.internet import reactor, ssl\n"
            "from twisted.internet.protocol import Factory\n"
            "print(reactor.listenSSL(0, Factory(), ssl.CertificateOptions(), interface='127.0.0.1')._type)\n"
        )
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        self.assertEqual(said, "TLS\n")

    def test_the_command_line_loads_nothing_that_few_servers_need(self) -> None:
        modules = loaded_by(
            "import twisted_smtpd.tap; twisted_smtpd.tap.Options().parseOptions(['--listen', '127.0.0.1:0'])"
        )
        self.assertIn("twisted_smtpd.handlers.console", modules)
        self.assertEqual(modules & SELDOM_USED, set())

    def test_a_name_that_is_loaded_late_is_there_and_listed(self) -> None:
        for package in (auth, handlers, tls):
            self.assertLessEqual(set(package.__all__), set(dir(package)))
            for name in package.__all__:
                self.assertIsNotNone(getattr(package, name), name)
            self.assertRaises(AttributeError, getattr, package, "nonesuch")
