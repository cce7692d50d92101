"""Names that a module has, but loads only when they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["on_demand"]


def on_demand(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` (PEP 562).

    :param module: its ``__name__``.
    :param homes: for each name the module that it comes from, relative to the package.
    :returns: a function that gives a name's value.
    """

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(f".{homes[name]}", sys.modules[module].__package__), name)

    return getattribute
