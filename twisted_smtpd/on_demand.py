"""Names that a module has, but loads only when they are asked for."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

__all__ = ["on_demand", "without_collections"]


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
