"""The recipes for tests of programs that send mail, with each library that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

PROJECT = Path(__file__).parent.parent.parent
RECIPES = PROJECT / "examples" / "testing"
LIMIT = 120  # seconds, for a recipe that hangs

# The recipe, and the library that it needs.
WITH_PYTEST = {
    "test_aiosmtplib.py": "aiosmtplib",
    "test_django.py": "django",
    "test_fastapi_mail.py": "fastapi fastapi_mail",
    "test_flask_mail.py": "flask_mail",
    "test_handler.py": "smtplib",
    "test_hello.py": "smtplib",
    "test_smtplib.py": "smtplib",
    "test_unittest.py": "smtplib",
}
OTHERS = {"test_nodemailer.py", "test_trial.py"}


def has_nodemailer() -> bool:
    """Whether Node.js is here, and finds nodemailer."""
    command = ("node", "-e", "require('nodemailer')")
    return (
        shutil.which("node") is not None and not subprocess.run(command, capture_output=True, timeout=LIMIT).returncode
    )


@skipUnless(RECIPES.is_dir(), "the examples are not installed")
class RecipeTests(SynchronousTestCase):
    def run_in(self, *words: str) -> str:
        """Run a module of Python on the recipes, and return what it prints."""
        path = os.pathsep.join((str(PROJECT), *filter(None, (os.environ.get("PYTHONPATH"),))))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(
            (sys.executable, "-m", *words),
            cwd=RECIPES,
            env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout + run.stderr

    def pytest(self, *recipes: str) -> str:
        return self.run_in("pytest", "-v", "-p", "twisted_smtpd.testing.plugin", "-p", "no:cacheprovider", *recipes)

    @skipUnless(find_spec("pytest"), "pytest is not installed")
    def test_with_pytest(self) -> None:
        # All in one process, as a project has them.
        recipes = [recipe for recipe, needed in WITH_PYTEST.items() if all(map(find_spec, needed.split()))]
        output = self.pytest(*recipes)
        for recipe in recipes:
            self.assertIn(f"{recipe}::", output)
        self.assertNotIn("skipped", output)

    @skipUnless(find_spec("pytest") and has_nodemailer(), "pytest or nodemailer is not installed")
    def test_with_nodemailer(self) -> None:
        self.assertIn("1 passed", self.pytest("test_nodemailer.py"))

    def test_with_unittest(self) -> None:
        self.assertIn("OK", self.run_in("unittest", "test_unittest.py"))

    def test_with_trial(self) -> None:
        folder = Path(self.mktemp()).absolute()
        output = self.run_in("twisted.trial", f"--temp-directory={folder}", str(RECIPES / "test_trial.py"))
        self.assertIn("PASSED (successes=1)", output)

    def test_each_recipe_is_run(self) -> None:
        self.assertEqual({path.name for path in RECIPES.glob("*.py")}, {*WITH_PYTEST, *OTHERS})
