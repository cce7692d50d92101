"""The language of pages, docstrings and comments: proselint's rules, and words and headings that are hard to read."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

# A short sentence with the plain word is easier to read than each of these.
HARD = re.compile(
    r"\b(?:whoever|whomever|whosoever|nobody|whatsoever|thereby|therein|thereof|thereupon|wherein|whereby|hereby|herein"
    r"|henceforth|heretofore|albeit|lest|aforementioned|notwithstanding|to be had|told apart|needs it not|as on paper"
    r"|(?:is|are) warned of|sees to the|goes along, as|for ever|one that has none|(?:that|which) (?:has|have) none"
    r"|knows? it not|by and by|thither|whence|hence)\b",
    re.IGNORECASE,
)
# No reader searches for these words, and they do not say what is below them.
VAGUE = {
    *("where", "proof", "what it says and takes", "handlers that are there", "the house", "trouble", "change", "go on"),
    *("by the thousand", "how", "why", "more", "other", "others", "notes", "misc", "various", "a file", "things"),
}
# Python's reST is not typeset, and its tables and names repeat words.  Mailman is a program.
PROSELINT = {
    "max_errors": 1000,
    "checks": {
        **{"typography": False, "lexical_illusions": False, "dates_times.am_pm": False, "cliches": True},
        **{"social_awareness.sexism": False, "misc.phrasal_adjectives.ly": False},
    },
}


def pages() -> list[Path]:
    return [
        *(ROOT / name for name in ("README.rst", "CONTRIBUTING.rst", "SECURITY.rst")),
        *sorted(DOCS.rglob("*.rst")),
        *sorted((ROOT / "newsfragments").glob("*.rst")),
    ]


def prose(text: str) -> str:
    """What people read of a page: no program, no literal; each line stays where it is."""
    lines = []
    block: int | None = None
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if block is not None and (not line.strip() or indent > block):
            lines.append("")
            continue
        block = None
        if re.match(r"\s*\.\. (?:code-block|literalinclude|include|image|figure|raw|toctree)::|.*::$", line):
            block = indent
        lines.append("" if re.match(r"\s*(?:>>>|\.\.\. |\.\. |:\w+:)", line) else line)
    return re.sub(r"``[^`]+``", lambda found: "\n" * found[0].count("\n") + "it", "\n".join(lines))


def remarks(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a module, each with its line."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                yield body[0].lineno, prose(str(body[0].value.value))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@skipUnless(DOCS.is_dir(), "the documentation is not installed")
class ProseTests(SynchronousTestCase):
    def test_no_hard_words_in_pages(self) -> None:
        found = []
        for page in pages():
            text = prose(page.read_text(encoding="utf-8"))
            for match in HARD.finditer(text):
                found.append(f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}")
        self.assertEqual(found, [])

    def test_no_hard_words_in_docstrings_and_comments(self) -> None:
        found = []
        for folder in ("twisted_smtpd", "examples", "scripts", "benchmarks"):
            for path in sorted((ROOT / folder).rglob("*.py")):
                for line, text in remarks(path):
                    found += [f"{path.relative_to(ROOT)}:{line}: {match[0]}" for match in HARD.finditer(text)]
        self.assertEqual(found, [])

    def test_headings_say_what_is_below(self) -> None:
        found = []
        for page in pages():
            lines = page.read_text(encoding="utf-8").split("\n")
            for title, line in pairwise(lines):
                if re.fullmatch(r"([=~*^-])\1{2,}", line) and title.strip().lower() in VAGUE:
                    found.append(f"{page.relative_to(ROOT)}: {title}")
        self.assertEqual(found, [])

    @skipUnless(find_spec("proselint"), "proselint is not installed")
    def test_proselint(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "config.json").write_text(json.dumps(PROSELINT))
            for page in pages():
                copy = folder / "pages" / page.relative_to(ROOT).with_suffix(".md")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(prose(page.read_text(encoding="utf-8")), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-m", "proselint", "check", "--config", "config.json", "-o", "compact", "pages"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=120,
            )
        self.assertEqual((done.stdout, done.returncode), ("", 0), done.stderr)


class SelfTests(SynchronousTestCase):
    """The tests above would notice."""

    def test_programs_are_no_prose(self) -> None:
        text = "Nobody::\n\n    nobody\n\nHere ``nobody``.\n\n.. code-block:: console\n\n   nobody\n\nwhoever"
        self.assertEqual([match[0] for match in HARD.finditer(prose(text))], ["Nobody", "whoever"])
        self.assertEqual(prose(text).count("\n"), text.count("\n"))

    def test_docstrings_and_comments_are_read(self) -> None:
        path = Path(self.mktemp())
        path.write_text('"""Whoever reads."""\n\n\ndef name():\n    """No one:: x."""\n    return 1  # nobody\n')
        self.assertEqual([line for line, text in remarks(path) if HARD.search(text)], [1, 6])
