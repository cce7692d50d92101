"""Names that a module has, but loads only when they are asked for."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

__all__ = ["on_demand", "withheld", "without_collections"]


def on_demand(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` (PEP 562).

    :param module: its ``__name__``.
    :param homes: for each name the module that it comes from, relative to the package.
    :returns: a function that gives a name's value.
    """

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = f"{sys.modules[module].__package__}.{homes[name]}"
        # Each access comes here, so collections are put off for a first import only: else there would never be one.
        with nullcontext() if home in sys.modules else without_collections():
            return getattr(import_module(home), name)

    return getattribute


@contextmanager
def without_collections() -> Iterator[None]:
    """Import a lot without garbage collections, which find nothing and take a tenth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():
                # All objects count as old ones now: else the next collection would go through all that was imported.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextmanager
def withheld(name: str) -> Iterator[None]:
    """Import other modules without one that they import if it is there, and make no use of.

    Other threads get it all the same.

    :param name: the module; nothing happens if it has been imported before.
    """
    finder = _Withheld(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Withheld:
    """A finder of modules that says that one is not there."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self._name and threading.get_ident() == self._thread:
            raise ImportError(f"{name} is not imported here", name=name)
