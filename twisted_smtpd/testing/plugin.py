"""The plugin for pytest: the fixture ``smtpd``, and those of a module and of a whole session.

It loads neither Twisted nor the server before a test asks for a fixture.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from twisted_smtpd.testing import MailServer

__all__ = ["mail_server", "smtpd_module", "smtpd_session"]

#: Options for all servers: ``name=value``, separated by blanks.
VARIABLE = "TWISTED_SMTPD_TESTING"
OURS, THEIRS = "twisted_smtpd", "smtpdfix"

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
    "none": None,
}


def pytest_addoption(parser: Any) -> None:
    parser.addini(
        "smtpd_options", "options of the mail servers for tests, each in a line: name = value", "linelist", []
    )
    text = f"whose fixture smtpd it is where smtpdfix is installed too: {THEIRS} (the default) or {OURS}"
    parser.addini("smtpd_fixture", text, default="")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: Any) -> None:
    config.addinivalue_line("markers", "smtpd(**options): options of this test's mail server, see MailServer")
    choice = config.getini("smtpd_fixture").strip() or (THEIRS if _is_theirs(config) else OURS)
    if choice not in (OURS, THEIRS):
        raise pytest.UsageError(f"smtpd_fixture is {OURS} or {THEIRS}, not {choice!r}")
    _parsed(_given(config))
    if choice == OURS:
        # Of two plugins with a fixture of one name the one that was registered later wins: so it is registered here.
        fixtures: Any = ModuleType(f"{__name__}.smtpd")
        fixtures.smtpd = pytest.fixture(name="smtpd")(_serve)
        config.pluginmanager.register(fixtures, "twisted_smtpd_fixture")


def _is_theirs(config: Any) -> bool:
    """Whether smtpdfix is here, whose fixture is called smtpd, too."""
    names = (getattr(plugin, "__name__", "") for plugin in config.pluginmanager.get_plugins())
    return any(str(name).partition(".")[0] == THEIRS for name in names)


def pytest_report_header(config: Any) -> str | None:
    if not _is_theirs(config):
        return None
    if config.pluginmanager.has_plugin("twisted_smtpd_fixture"):
        return f"smtpd: the fixture is twisted-smtpd's (smtpd_fixture = {OURS})"
    return f"smtpd: the fixture is smtpdfix's; twisted-smtpd's is mail_server, or smtpd with smtpd_fixture = {OURS}"


def _given(config: Any) -> list[str]:
    return [*config.getini("smtpd_options"), *os.environ.get(VARIABLE, "").split()]


def _parsed(settings: Iterable[str]) -> dict[str, Any]:
    """Options from texts ``name=value``.

    :raises pytest.UsageError: if one has no name or no value.
    """
    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not (equals and name.isidentifier() and text):
            raise pytest.UsageError(f"smtpd_options, or {VARIABLE}: name=value is wanted, not {setting!r}")
        options[name] = _users(text) if name == "users" else _value(text)
    return options


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _users(text: str) -> dict[str, str]:
    """Users from ``anne:secret,bart:other``."""
    pairs = (user.partition(":") for user in text.split(","))
    return {name.strip(): password for name, _, password in pairs}


def _serve(request: Any) -> Iterator[MailServer]:
    """A mail server for tests: hostname and port say where it is, messages what has come."""
    # Imported here: it takes a fifth of a second, and most runs of pytest need no mail server.
    from twisted_smtpd.testing import MailServer

    marker = request.node.get_closest_marker("smtpd")
    options = {**_parsed(_given(request.config)), **(marker.kwargs if marker else {})}
    with MailServer(**options) as server:
        yield server


mail_server = pytest.fixture(name="mail_server")(_serve)
smtpd_module = pytest.fixture(name="smtpd_module", scope="module")(_serve)
smtpd_session = pytest.fixture(name="smtpd_session", scope="session")(_serve)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    report = yield
    server = sys.modules.get("twisted_smtpd.testing.server")
    if server is not None and report.when == "call" and report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, server.BaseMailServer):
                report.sections.append((f"mail of the fixture {name}", value.report()))
    return report
