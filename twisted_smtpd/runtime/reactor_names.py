"""Reactors by the names that ``--reactor`` takes."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from twisted.application.reactors import NoSuchReactor

__all__ = ["install_reactor", "reactor_name"]

DEFAULT = "default"

# Twisted's own; for others its plugins are searched.
_MODULES = {
    name: f"twisted.internet.{module}"
    for name, module in {
        "asyncio": "asyncioreactor",
        "epoll": "epollreactor",
        "poll": "pollreactor",
        "select": "selectreactor",
        "kqueue": "kqreactor",
        "cf": "cfreactor",
        "win32": "win32eventreactor",
        "iocp": "iocpreactor",
        "gi": "gireactor",
        "gtk3": "gtk3reactor",
        "glib2": "glib2reactor",
        "wx": "wxreactor",
    }.items()
}


def install_reactor(name: str) -> Any:
    """Make a reactor the global one.

    :param name: ``default`` or the name of a kind.
    :returns: the reactor.
    :raises NoSuchReactor: there is no such kind.
    :raises ImportError: this machine can't have it.
    :raises ReactorAlreadyInstalledError: there is another one.
    """
    if name in _MODULES:
        import_module(_MODULES[name]).install()
    elif name != DEFAULT:
        _install_plugin(name)
    from twisted.internet import reactor

    return reactor


def _install_plugin(name: str) -> None:
    # Imported here: it is hardly ever needed.
    from twisted.application.reactors import IReactorInstaller

    from twisted_smtpd.runtime.plugins import find_plugins

    for kind in find_plugins(IReactorInstaller):
        if kind.shortName == name:
            kind.install()
            return
    raise NoSuchReactor(name)


def reactor_name(reactor: Any) -> str:
    """The name of a reactor for ``--reactor``.

    :param reactor: an installed reactor.
    """
    module = type(reactor).__module__
    if module in _MODULES.values():
        return next(name for name, known in _MODULES.items() if known == module)
    # twist's plugins are loaded if one of them was asked for.
    from twisted.application.reactors import IReactorInstaller

    plugins = [vars(found).values() for name, found in list(sys.modules.items()) if name.startswith("twisted.plugins.")]
    kinds = (kind for values in plugins for kind in list(values) if IReactorInstaller.providedBy(kind))
    return next((kind.shortName for kind in kinds if getattr(kind, "moduleName", "") == module), DEFAULT)
