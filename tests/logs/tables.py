"""Makes the tables of docs/reference/log.rst: ``python -m tests.logs.tables`` writes them, and a test compares them.

The refusals are found in the code, so none can be forgotten; each is sent by a connection, and its line taken from the
log.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.logger import globalLogPublisher

import twisted_smtpd
from tests.support.fakes import connect
from twisted_smtpd.logs.events import EVENTS, SIGN_IN_BLOCKED, SIGN_IN_FAILED
from twisted_smtpd.logs.forms import untimed_text_line
from twisted_smtpd.protocol.reporting import report_message
from twisted_smtpd.protocol.states import TABLE, for_lmtp
from twisted_smtpd.wire.replies import Reply

PACKAGE = Path(twisted_smtpd.__file__).parent
PAGES = PACKAGE.parent / "docs" / "reference"
# What handlers say is theirs; the rest does not talk to clients.
FOLDERS = ("auth", "protocol", "runtime", "wire")
FILES = ("assemble.py", "smtp.py", "lmtp.py")
MAKERS = frozenset({"SMTPReplyError", "Reply", "Refusal"})


# Functions that take the text alone.
SHORT_MAKERS = {"_bad": (501, "5.5.4"), "ScramError": (535, "5.7.8")}
WHOLE = re.compile(r"[45][0-9]{2} (?:[45]\.[0-9]\.[0-9]+ )?\S+ \S")


def _texts(node: ast.AST) -> list[str]:
    """The texts that an expression may stand for."""
    if isinstance(node, ast.Tuple) and len(node.elts) == 1:
        return _texts(node.elts[0])
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    text = _text(node)
    return [] if text is None else [text]


def _text(node: ast.AST) -> str | None:
    """A text in the code, with dots for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        return node.value if isinstance(node.value, str) else node.value.decode("latin-1").rstrip("\r\n")
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "..." for part in node.values)
    return None


def _found(node: ast.AST) -> Iterator[Reply]:
    """The refusals that a piece of code makes."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        yield from _made(node.func.id, node.args, {word.arg for word in node.keywords})
    if isinstance(node, ast.Constant):
        text = _text(node)
        if text is not None and WHOLE.match(text) and "\n" not in text:
            yield Reply.parse(text.replace("{hostname}", "..."))


def _made(name: str, values: list[ast.expr], options: set[str | None]) -> Iterator[Reply]:
    if name in SHORT_MAKERS and "malformed" not in options:
        code, enhanced = SHORT_MAKERS[name]
        yield from (Reply(code, enhanced, (text,)) for text in _texts(values[0]))
    if name not in MAKERS or len(values) != 3:
        return
    codes = [value.value for value in _branches(values[0]) if isinstance(value, ast.Constant)]
    for code in codes or [451]:
        if isinstance(code, int) and code >= 400:
            yield from (Reply(code, _text(values[1]), (text,)) for text in _texts(values[2]) if text != "...")


def _branches(node: ast.expr) -> list[ast.expr]:
    return [*_branches(node.body), *_branches(node.orelse)] if isinstance(node, ast.IfExp) else [node]


def _functions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Each piece of code, with the name of the function that it is in."""

    def walk(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
        yield name, node
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else name
            yield from walk(child, inner)

    return walk(ast.parse(path.read_text(encoding="utf-8")), "")


def refusals() -> Iterator[tuple[str, Reply]]:
    """Every reply of 400 and more in the code, with the function that it is in."""
    files = [path for folder in FOLDERS for path in sorted((PACKAGE / folder).rglob("*.py"))]
    for path in [*files, *(PACKAGE / name for name in FILES)]:
        for function, node in _functions(path):
            for reply in _found(node):
                own = isinstance(node, ast.Constant) and reply.code in (421, 554) and function != _NO_SERVER
                yield ("greeting" if path.name == "connections.py" else "own" if own else function), reply
    for verdicts in for_lmtp(TABLE).values():
        for cell in filter(None, verdicts.values()):
            yield "LMTP", Reply(cell.code, cell.enhanced, (cell.text,))


# What is said of a message has its line; what is said to one who signs in has the line that fail2ban looks for.
_OF_MESSAGES = frozenset({"_content_refusal", "one_for_all", "report_shortage"})
_WRONG_PASSWORD = 535
# A controller's factory() has failed for the connection: there is no server that could tell of it.
_NO_SERVER = "connectionMade"


def log_line(where: str, reply: Reply) -> str:
    """The line that a reply leaves.

    :param where: what :func:`refusals` says.
    """
    if where == _NO_SERVER:
        return "critical factory() failed for ..."
    events: list[Any] = []
    protocol: Any = connect().protocol
    protocol._verb, protocol._line = "VERB", b"VERB argument"
    globalLogPublisher.addObserver(events.append)
    try:
        if where in _OF_MESSAGES:
            protocol._line, protocol._verb = None, "DATA"
            protocol.send_reply(reply)
            protocol.envelope.mail_from, protocol.envelope.rcpt_tos = "a@x.example", ["b@y.example"]
            protocol._runner.restart_clock()
            report_message(protocol, 1234)
        elif where == "_reserve":
            SIGN_IN_BLOCKED.tell(protocol)
        elif reply.code == _WRONG_PASSWORD:
            SIGN_IN_FAILED.tell(protocol, mechanism="MECHANISM", user="anne")
        else:
            if where in ("own", "greeting"):
                protocol._verb, protocol._line = "" if where == "greeting" else "?", b""
            protocol.send_reply(reply)
    finally:
        globalLogPublisher.removeObserver(events.append)
    (line,) = map(untimed_text_line, events)
    level, _, _, text = line.split(" ", 3)
    return f"{level} {text}"


def _list_table(rows: list[tuple[str, ...]]) -> str:
    lines = [".. list-table::", "    :header-rows: 1", "    :widths: auto", ""]
    for first, *others in rows:
        lines += [f"    * - {first}", *(f"      - {other}" for other in others)]
    return "\n".join([*lines, ""])


def refusal_table() -> str:
    """The table of refusals."""
    known = sorted({(str(reply), log_line(where, reply)) for where, reply in refusals()})
    rows = [(f"``{text}``", f"``{line}``") for text, line in known]
    return _list_table([("reply", "line in the log"), *rows])


def event_table() -> str:
    """The table of events."""
    rows = [
        (
            f"``{row.name}``",
            row.level.name,
            row.meaning,
            "; ".join(f"``{name}``: {text}" for name, text in row.fields.items()),
        )
        for row in EVENTS.values()
    ]
    return _list_table([("event", "level", "when", "fields"), *rows])


TABLES = {"log-events.txt": event_table, "log-refusals.txt": refusal_table}


def main() -> None:
    """Write both tables."""
    for name, make in TABLES.items():
        (PAGES / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
