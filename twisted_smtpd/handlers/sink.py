"""The handler that keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["Sink"]


class Sink:
    """Accepts every message and throws it away.

    It has no hooks: without them the server accepts everything.
    """

    #: Options whose defaults are others with this handler: it takes lines of any length, as real mail has them.
    option_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"line_length_limit": 0})

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Sink:
        """A sink for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: none.
        """
        if args:
            parser.error("it takes no arguments")
        return cls()
