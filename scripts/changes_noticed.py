"""Change the code in small ways, one after the other, and see whether the tests notice.

    python scripts/changes_noticed.py [--changes 400] [--seed 1] [--only wire protocol auth handlers]

It works on a copy.  The tests are run once, to find which of them run which line; then each change is made, and the
tests that run the changed line are run until one fails (at most 150 of them, those of the module's own first).  What
none has noticed is printed, with the change.  The changes are drawn by the seed from all that are possible: another
comparison, ``and`` for ``or``, a number that is one more, true for false, a condition that is negated, a statement that
is left out.  It needs what the tests need (``pip install -e ".[test]"``), and an hour for 400 changes.

Some changes make no difference to anybody (a limit of a cache, a text for the log that is cut one character later): so
not all of them can be noticed.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from coverage import CoverageData
from twisted.python.reflect import namedAny

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))
FOLDERS = ("wire", "protocol", "auth", "handlers")
MOST_TESTS = 150
# Seconds for the tests of one change: one that makes the code hang is noticed.
TIME_LIMIT = 180
COVERAGE = "[run]\ndynamic_context = test_function\nsource = twisted_smtpd\n"

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Change:
    """One change.

    :ivar path: the file.
    :ivar line: the line that is run.
    :ivar before: the piece of source that is replaced; its place is ``start`` to ``end``, in octets.
    """

    path: Path
    line: int
    start: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(self.path.parents[2])}:{self.line}: {self.before}  ->  {self.after}"


def replacements(node: ast.AST) -> Iterator[ast.AST | str]:
    """What may stand in the place of a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield f"not ({ast.unparse(node.test)})"
    elif isinstance(node, (ast.Assign, ast.AugAssign, ast.Raise)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await))
    ):
        yield "pass"


def changes_of(path: Path) -> Iterator[Change]:
    """All changes of a file's functions."""
    source = path.read_bytes()
    lines = source.splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    seen: set[tuple[int, int]] = set()
    for node in (node for function in functions for statement in function.body for node in ast.walk(statement)):
        for after in replacements(node):
            place = node.test if isinstance(node, (ast.If, ast.IfExp, ast.While)) else node
            start = starts[place.lineno - 1] + place.col_offset  # type: ignore[attr-defined]
            end = starts[place.end_lineno - 1] + place.end_col_offset  # type: ignore[attr-defined]
            text = after if isinstance(after, str) else f"({ast.unparse(after)})"
            if (start, end) not in seen:
                seen.add((start, end))
                before = " ".join(source[start:end].decode().split())
                yield Change(path, node.lineno, start, end, before, text)  # type: ignore[attr-defined]


@cache
def loadable(name: str) -> str:
    """What trial can load: a test, or its class where the test was made by a function and has another name.

    A name that can't be loaded would be an error, and each change would seem to be noticed.
    """
    try:
        namedAny(name)
    except (AttributeError, ModuleNotFoundError):
        return name.rpartition(".")[0]
    return name


def covering(data: CoverageData, change: Change) -> list[str]:
    """The tests that run a changed line, those of the module first."""
    contexts = data.contexts_by_lineno(str(change.path)).get(change.line, [])
    tests = sorted({loadable(context) for context in contexts if context.startswith("tests.")})
    Random(str(change)).shuffle(tests)
    tests.sort(key=lambda name: f"test_{change.path.stem}" not in name)
    return tests[:MOST_TESTS]


def is_noticed(copy: Path, change: Change, tests: list[str]) -> bool:
    """Make a change, run tests, and take it back."""
    source = change.path.read_bytes()
    change.path.write_bytes(source[: change.start] + change.after.encode() + source[change.end :])
    trial = [sys.executable, "-m", "twisted.trial", "--exitfirst", "--temp-directory", str(copy / "trial"), *tests]
    try:
        ended = subprocess.run(
            trial,
            cwd=copy,
            timeout=TIME_LIMIT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        change.path.write_bytes(source)
    return ended.returncode != 0


def main() -> int:
    """Make the changes; returns 1 if less than 95 of a hundred are noticed."""
    parser = argparse.ArgumentParser(description="Change the code, and see whether the tests notice.")
    parser.add_argument("--changes", type=int, default=400, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="which")
    parser.add_argument("--only", nargs="+", default=FOLDERS, choices=FOLDERS, help="the folders to change")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name).resolve() / "project"
        shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "_trial_temp*"))
        (copy / "coveragerc").write_text(COVERAGE)
        # Without the tests on sockets, which take most of the time.
        top = sorted(f"tests.{path.stem}" for path in (copy / "tests").glob("test_*.py"))
        tests = [*(f"tests.{folder}" for folder in FOLDERS), *top]
        command = [sys.executable, "-m", "coverage", "run", "--rcfile=coveragerc", "-m", "twisted.trial"]
        print("finds out which tests run which line", flush=True)
        before = subprocess.run(
            [*command, "--temp-directory", str(copy / "trial"), *tests],
            cwd=copy,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(copy)},
        )
        if before.returncode:
            raise SystemExit("the tests fail as they are: mend that first")
        data = CoverageData(str(copy / ".coverage"))
        data.read()
        paths = sorted(path for folder in options.only for path in (copy / "twisted_smtpd" / folder).rglob("*.py"))
        possible = [change for path in paths for change in changes_of(path)]
        chosen = Random(options.seed).sample(possible, min(options.changes, len(possible)))
        noticed = 0
        for change in chosen:
            tests = covering(data, change)
            if tests and is_noticed(copy, change, tests):
                noticed += 1
            else:
                print(change if tests else f"{change}  (no test runs it)", flush=True)
    print(f"{noticed} of {len(chosen)} changes noticed, of {len(possible)} possible ones")
    return 0 if noticed >= 0.95 * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
