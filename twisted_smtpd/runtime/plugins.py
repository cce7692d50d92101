"""Finds Twisted's plugins when one is asked for.

``twisted.plugin.getPlugins`` does it as well, and writes what it has found to ``dropin.cache`` files beside installed
packages.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface.interface import InterfaceClass

import twisted.plugins

__all__ = ["find_plugins"]

log = Logger()


def find_plugins(interface: InterfaceClass) -> Iterator[Any]:
    """The plugins that provide an interface.

    A module that can't be imported is passed over, as in Twisted; the log says why.

    :param interface: what they provide, beside ``IPlugin``.
    """
    names = sorted({module.name for module in pkgutil.iter_modules(twisted.plugins.__path__)})
    for name in names:
        try:
            module = import_module(f"twisted.plugins.{name}")
        except Exception:
            log.failure("the plugins in twisted.plugins.{name} can't be loaded", name=name)
            continue
        for value in list(vars(module).values()):
            if IPlugin.providedBy(value) and interface.providedBy(value):
                yield value
